#include "tests/unit/unit.h"

#include "shared/timing.h"

#include "proxy/affinity_cookie.h"

#include <stdio.h>

/* Upstream "chat": the six characters are the first of base64url(XXH64("chat") as 8 bytes). */
static const struct affinity_cookie golden = {
    .key_id = 'a',
    .tag = 0x6666f6f626172261u,
    .client_key = 0xabcdef0123456789u,
};

static struct affinity_cookie golden_of_chat(void)
{
    struct affinity_cookie cookie = golden;
    cookie.upstream_hash = upstream_hash_of(SLICE("chat"));
    return cookie;
}

static void assert_same(const struct affinity_cookie *a, const struct affinity_cookie *b)
{
    assert_int_equal(a->key_id, b->key_id);
    assert_true(a->tag == b->tag);
    assert_true(a->upstream_hash == b->upstream_hash);
    assert_true(a->client_key == b->client_key);
}

static void test_the_value_is_what_the_contract_says(void **state)
{
    (void)state;
    char text[AFFINITY_COOKIE_LEN + 1] = "";
    struct affinity_cookie cookie = golden_of_chat(), again;
    affinity_cookie_format(&cookie, text);
    assert_string_equal(text, "aZmb29iYXImE.W7ZWCr.q83vASNFZ4k");
    char *guarded = guarded_copy(text, AFFINITY_COOKIE_LEN);
    assert_true(affinity_cookie_parse(slice_of(guarded, AFFINITY_COOKIE_LEN), &again));
    assert_same(&cookie, &again);
    guarded_free(guarded, AFFINITY_COOKIE_LEN);
}

static void test_every_value_survives_its_text(void **state)
{
    (void)state;
    uint64_t random = 7;
    for (unsigned i = 0; i < 5000; i++) {
        struct affinity_cookie cookie, again;
        random = random * 6364136223846793005u + 1442695040888963407u;
        cookie.key_id = (char)('A' + random % 26);
        cookie.tag = random * 31;
        cookie.client_key = random * 17;
        cookie.upstream_hash = random >> 28;
        char text[AFFINITY_COOKIE_LEN];
        affinity_cookie_format(&cookie, text);
        assert_true(affinity_cookie_parse(slice_of(text, sizeof(text)), &again));
        assert_same(&cookie, &again);
    }
}

static void test_any_other_byte_makes_it_no_cookie_of_ours(void **state)
{
    (void)state;
    char good[AFFINITY_COOKIE_LEN];
    struct affinity_cookie cookie = golden_of_chat(), again;
    affinity_cookie_format(&cookie, good);
    for (size_t len = 0; len < sizeof(good); len++)
        assert_false(affinity_cookie_parse(slice_of(good, len), &again));
    static const char bad[] = {'=', '+', '/', '"', ' ', '\0', '\x80', '%', ';', ','};
    for (size_t at = 0; at < sizeof(good); at++)
        for (size_t i = 0; i < sizeof(bad); i++) {
            char text[AFFINITY_COOKIE_LEN];
            memcpy(text, good, sizeof(text));
            text[at] = bad[i];
            assert_false(affinity_cookie_parse(slice_of(text, sizeof(text)), &again));
        }
    /* last characters of tag and client key with bits that must be zero */
    for (size_t i = 0; i < 2; i++) {
        char text[AFFINITY_COOKIE_LEN];
        memcpy(text, good, sizeof(text));
        text[i == 0 ? 11 : 30] = 'B';
        assert_false(affinity_cookie_parse(slice_of(text, sizeof(text)), &again));
    }
}

static void test_cookies_of_the_name_are_found_in_order(void **state)
{
    (void)state;
    static const struct {
        const char *field;
        const char *values; /* joined by | */
    } cases[] = {
        {"a=1", "1"},
        {"a=1; a=2", "1|2"},
        {"b=1; a=2;a=3 ; c=a=4", "2|3"},
        {"aa=1; A=2; xa=3", ""},
        {"a", ""},
        {"a=", ""}, /* an empty value, counted below */
        {"a=\"quoted\"; a=\"", "quoted|\""},
        {"", ""},
        {";;; a=1;;", "1"},
        {"a =1", ""}, /* a name with a space is another name */
        {"a=1=2", "1=2"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        size_t len = strlen(cases[i].field);
        char *guarded = guarded_copy(cases[i].field, len);
        struct slice rest = slice_of(guarded, len), value;
        char found[64] = "";
        while (affinity_cookie_next(&rest, SLICE("a"), &value)) {
            if (found[0] != '\0')
                strcat(found, "|");
            strncat(found, value.data, value.len);
        }
        assert_string_equal(found, cases[i].values);
        guarded_free(guarded, len);
    }
}

static void test_attributes_follow_site_and_tls(void **state)
{
    (void)state;
    static char name[] = "sidrail_chat", root[] = "/", none[] = "", domain[] = "a.test";
    const struct affinity_cookie_options plain = {name, root, none, 0, 0, 0, 0};
    static const struct {
        int same_site, secure;
        bool is_tls, is_cross_site;
        const char *attributes;
    } cases[] = {
        {SAME_SITE_AUTO, COOKIE_SECURE_AUTO, false, false,
         "; Path=/; HttpOnly; SameSite=Lax"},
        {SAME_SITE_AUTO, COOKIE_SECURE_AUTO, false, true,
         "; Path=/; HttpOnly; SameSite=Lax"},
        {SAME_SITE_AUTO, COOKIE_SECURE_AUTO, true, false,
         "; Path=/; HttpOnly; Secure; SameSite=Lax"},
        {SAME_SITE_AUTO, COOKIE_SECURE_AUTO, true, true,
         "; Path=/; HttpOnly; Secure; SameSite=None; Partitioned"},
        {SAME_SITE_NONE, COOKIE_SECURE_AUTO, true, false,
         "; Path=/; HttpOnly; Secure; SameSite=None"},
        {SAME_SITE_NONE, COOKIE_SECURE_NEVER, true, true,
         "; Path=/; HttpOnly; Secure; SameSite=None; Partitioned"},
        {SAME_SITE_STRICT, COOKIE_SECURE_NEVER, true, true,
         "; Path=/; HttpOnly; SameSite=Strict"},
        {SAME_SITE_LAX, COOKIE_SECURE_ALWAYS, false, false,
         "; Path=/; HttpOnly; Secure; SameSite=Lax"},
    };
    struct affinity_cookie cookie = golden_of_chat();
    char text[AFFINITY_COOKIE_FIELD_MAX + 1], expected[256], value[AFFINITY_COOKIE_LEN];
    affinity_cookie_format(&cookie, value);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct affinity_cookie_options options = plain;
        options.same_site = cases[i].same_site;
        options.secure = cases[i].secure;
        size_t len = affinity_cookie_write_field(&options, &cookie, cases[i].is_tls,
                                                 cases[i].is_cross_site, text);
        text[len] = '\0';
        snprintf(expected, sizeof(expected), "sidrail_chat=%.*s%s", AFFINITY_COOKIE_LEN,
                 value, cases[i].attributes);
        assert_string_equal(text, expected);
    }
    struct affinity_cookie_options options = plain;
    options.domain = domain;
    options.max_age = SECONDS(90) + 1;
    size_t len = affinity_cookie_write_field(&options, &cookie, false, false, text);
    text[len] = '\0';
    assert_non_null(strstr(text, "; Path=/; Domain=a.test; Max-Age=91; HttpOnly"));
}

static void test_the_longest_options_fit_the_field(void **state)
{
    (void)state;
    char name[129], path[257], domain[254], text[AFFINITY_COOKIE_FIELD_MAX];
    memset(name, 'n', 128), name[128] = '\0';
    memset(path, '/', 256), path[256] = '\0';
    memset(domain, 'd', 253), domain[253] = '\0';
    const struct affinity_cookie_options options = {
        name, path, domain, UINT64_MAX - SECONDS(1), 0, 0, 0};
    struct affinity_cookie cookie = golden_of_chat();
    assert_true(affinity_cookie_write_field(&options, &cookie, true, true, text) <
                AFFINITY_COOKIE_FIELD_MAX);
}

static void test_another_host_is_another_site(void **state)
{
    (void)state;
    static const struct {
        const char *origin, *host;
        bool is_cross_site;
    } cases[] = {
        {"", "a.test", false},
        {"https://a.test", "a.test", false},
        {"https://A.test:8443", "a.test:443", false},
        {"http://a.test", "a.test", false},
        {"https://b.test", "a.test", true},
        {"https://x.a.test", "a.test", true},
        {"https://a.test.evil", "a.test", true},
        {"null", "a.test", true},
        {"https://[::1]:3000", "[::1]:8080", false},
        {"https://[::2]:3000", "[::1]:8080", true},
        {"https://[::1", "[::1", false},
        {"https://", "a.test", true},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_true(affinity_cookie_is_cross_site(slice_from_text(cases[i].origin),
                                                  slice_from_text(cases[i].host)) ==
                    cases[i].is_cross_site);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_value_is_what_the_contract_says),
        cmocka_unit_test(test_every_value_survives_its_text),
        cmocka_unit_test(test_any_other_byte_makes_it_no_cookie_of_ours),
        cmocka_unit_test(test_cookies_of_the_name_are_found_in_order),
        cmocka_unit_test(test_attributes_follow_site_and_tls),
        cmocka_unit_test(test_the_longest_options_fit_the_field),
        cmocka_unit_test(test_another_host_is_another_site),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
