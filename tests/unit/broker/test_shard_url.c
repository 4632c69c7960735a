/*
 * URLs of shards: what they say, and what is refused.
 */
#include "tests/unit/unit.h"

#include "broker/shard_url.h"

#include <stdlib.h>

static void test_a_url_is_taken_apart(void **state UNUSED)
{
    static const struct {
        const char *url, *name, *host, *username, *password;
        bool is_tls;
    } rows[] = {
        {"redis://h", "h:6379", "h", NULL, NULL, false},
        {"rediss://h", "h:6379", "h", NULL, NULL, true},
        {"rediss://me:pw@h:7000/0", "h:7000", "h", "me", "pw", true},
        {"rediss://:p@w@[::1]:7000", "[::1]:7000", "::1", NULL, "p@w", true},
        {"unix:/run/r.sock", "unix:/run/r.sock", NULL, NULL, NULL, false},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct shard_url url = {0};
        assert_null(shard_url_parse(slice_from_text(rows[i].url), &url));
        assert_int_equal(rows[i].is_tls, url.is_tls);
        const char *pairs[][2] = {{rows[i].host, url.host},
                                  {rows[i].username, url.username},
                                  {rows[i].password, url.password}};
        for (size_t j = 0; j < ARRAY_LEN(pairs); j++) {
            assert_int_equal(pairs[j][0] == NULL, pairs[j][1] == NULL);
            if (pairs[j][0] != NULL)
                assert_string_equal(pairs[j][0], pairs[j][1]);
        }
        char *name = shard_url_name(&url);
        assert_string_equal(rows[i].name, name);
        free(name);
        shard_url_cleanup(&url);
    }
}

static void test_a_place_is_host_and_port(void **state UNUSED)
{
    static const char *const same[] = {"redis://h", "rediss://u:p@H:6379/0",
                                       "redis://:x@h:6379"};
    static const char *const others[] = {"redis://h:6380", "redis://i", "unix:/run/redis",
                                         "unix:/run/Redis"};
    uint64_t place = shard_url_place(slice_from_text(same[0]));
    for (size_t i = 0; i < ARRAY_LEN(same); i++)
        assert_true(shard_url_place(slice_from_text(same[i])) == place);
    for (size_t i = 0; i < ARRAY_LEN(others); i++)
        assert_true(shard_url_place(slice_from_text(others[i])) != place);
    assert_true(shard_url_place(slice_from_text(others[2])) !=
                shard_url_place(slice_from_text(others[3])));
    assert_true(shard_url_place(SLICE("no url")) == 0);
}

static void test_what_is_wrong_is_said(void **state UNUSED)
{
    char longest[300] = "rediss://";
    memset(longest + 9, 'h', 254);
    const char *rows[][2] = {
        {"http://h", "must begin with redis://, rediss:// or unix:/"},
        {"redis:h", "must begin with"},
        {"rediss://", "names no host"},
        {"rediss://h:65536", "has a port"},
        {"rediss://h/1", "pub/sub knows no databases"},
        {longest, "more than 253"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct shard_url url = {0};
        const char *why = shard_url_parse(slice_from_text(rows[i][0]), &url);
        assert_non_null(why);
        assert_non_null(strstr(why, rows[i][1]));
        shard_url_cleanup(&url);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_url_is_taken_apart),
        cmocka_unit_test(test_a_place_is_host_and_port),
        cmocka_unit_test(test_what_is_wrong_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
