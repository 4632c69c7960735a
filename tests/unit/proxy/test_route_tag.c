#include "tests/unit/unit.h"

#include "proxy/route_tag.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

static const struct file_key golden_key = {
    'a', {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}};

/* Made without this code:
 *
 *   import hmac, hashlib, base64
 *   def tag(up, who, port, tail=b""):
 *       m = hmac.new(bytes(range(16)), b"sidrail-tag-1\0" + up + b"\0" + who + b"\0" + port + tail, hashlib.sha256)
 *       return base64.urlsafe_b64encode(m.digest()[:8]).rstrip(b"=")
 */
static const struct {
    const char *upstream, *identity;
    unsigned port, attempt;
    const char *text;
} golden[] = {
    {"chat", "127.0.0.1:5001", 5001, 0, "2CKRxMCNcS0"},
    {"chat", "127.0.0.1:5002", 5002, 0, "Sw26jnrAGPg"},
    {"chat", "unix:/run/sio/w0.sock", 0, 0, "FBcHpvdWMjA"},
    {"canary", "127.0.0.1:5001", 5001, 0, "xLyPCwFGQvg"},
    {"default", "6f9619ff-8b86-d011-b42d-00cf4fc964ff", 65535, 0, "Kyr6YJRpZOQ"},
    {"chat", "127.0.0.1:5001", 5001, 1, "JqcFZy9Gk3g"},
    {"chat", "127.0.0.1:5001", 5001, 12, "R42dvTMP65Q"},
};

static void test_tags_are_the_hmac_that_any_other_program_computes(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(golden); i++) {
        char text[ROUTE_TAG_LEN + 1] = "";
        uint64_t tag = route_tag_make(&golden_key, slice_from_text(golden[i].upstream),
                                      slice_from_text(golden[i].identity), golden[i].port,
                                      golden[i].attempt);
        route_tag_format(tag, text);
        assert_string_equal(text, golden[i].text);
        uint64_t again = 0;
        assert_true(route_tag_parse(slice_from_text(text), &again));
        assert_true(again == tag);
    }
}

static void test_a_tag_has_one_spelling(void **state)
{
    (void)state;
    static const char digits[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    char text[] = "3kQ9xwAAAAA";
    unsigned accepted = 0;
    uint64_t tag = 0;
    for (size_t i = 0; i < 64; i++) {
        text[10] = digits[i];
        bool is_good = route_tag_parse(slice_from_text(text), &tag);
        assert_true(is_good == (i % 4 == 0));
        accepted += is_good;
    }
    assert_int_equal(accepted, 16);
    static const char *const bad[] = {"",
                                      "3kQ9xwAAAA",
                                      "3kQ9xwAAAAAA",
                                      "3kQ9xw+AAAA",
                                      "3kQ9xw/AAAA",
                                      "3kQ9xwAAAA=",
                                      "3kQ9xw AAAA",
                                      "3kQ9xw\303\251AAA"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_false(route_tag_parse(slice_from_text(bad[i]), &tag));
}

static void test_every_tag_survives_its_text(void **state)
{
    (void)state;
    uint64_t tag = 1;
    for (unsigned i = 0; i < 10000; i++) {
        tag = tag * 6364136223846793005u + 1442695040888963407u;
        char text[ROUTE_TAG_LEN];
        route_tag_format(tag, text);
        uint64_t again = 0;
        assert_true(route_tag_parse(slice_of(text, sizeof(text)), &again));
        assert_true(again == tag);
    }
}

static void test_only_our_own_last_suffix_comes_off(void **state)
{
    (void)state;
    struct file_keys keys = {.count = 2, .keys = {{.id = 'a'}, {.id = 'b'}}};
    static const struct {
        const char *sid;
        bool is_tagged;
        size_t key, bare_len;
    } cases[] = {
        {"7nHyXcG9ivnZONweAAAA.a3kQ9xwAAAAA", true, 0, 20},
        {"7nHyXcG9ivnZONweAAAA.b3kQ9xwAAAAA", true, 1, 20},
        {"x.a3kQ9xwAAAAA", true, 0, 1},
        /* an edge's suffix below a sidecar's: the last one only */
        {"x.a3kQ9xwAAAAA.b3kQ9xwAAAAA", true, 1, 14},
        {"x.a3kQ9xwAAAAA.a3kQ9xwAAAAA", true, 0, 14},
        {"x.a3kQ9xwAAAAA.c3kQ9xwAAAAA", false, 0, 0}, /* the last is another's */
        {"x.c3kQ9xwAAAAA", false, 0, 0},              /* unknown key */
        {"x.a3kQ9xwAAAAB", false, 0, 0},              /* last character not canonical */
        {".a3kQ9xwAAAAA", false, 0, 0},               /* no sid before it */
        {"a3kQ9xwAAAAA", false, 0, 0},
        {"x_a3kQ9xwAAAAA", false, 0, 0},
        {"x.a3kQ9xwAAAA", false, 0, 0},
        {"x.a3kQ9xwAAAAAA", false, 0, 0},
        {"x.a3kQ9xw.AAAA", false, 0, 0},
        {"x.A3kQ9xwAAAAA", false, 0, 0}, /* IDs differ by case */
        {"", false, 0, 0},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        size_t len = strlen(cases[i].sid), key = 99, bare_len = 99;
        uint64_t tag = 0;
        char *guarded = guarded_copy(cases[i].sid, len);
        bool is_tagged =
            route_tag_split(slice_of(guarded, len), &keys, &key, &tag, &bare_len);
        assert_true(is_tagged == cases[i].is_tagged);
        if (is_tagged) {
            assert_int_equal(key, cases[i].key);
            assert_int_equal(bare_len, cases[i].bare_len);
            char suffix[ROUTE_TAG_SUFFIX_LEN];
            route_tag_suffix(keys.keys[key].id, tag, suffix);
            assert_memory_equal(suffix, cases[i].sid + bare_len, sizeof(suffix));
        }
        guarded_free(guarded, len);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tags_are_the_hmac_that_any_other_program_computes),
        cmocka_unit_test(test_a_tag_has_one_spelling),
        cmocka_unit_test(test_every_tag_survives_its_text),
        cmocka_unit_test(test_only_our_own_last_suffix_comes_off),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
