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
        {"unix:///run/r.sock", "unix:/run/r.sock", NULL, NULL, NULL, false},
        {"redis://m%65:p%40%3a%2F%25@h/", "h:6379", "h", "me", "p@:/%", false},
        {"redis://me@h", "h:6379", "h", "me", NULL, false},
        {"redis://:@h", "h:6379", "h", NULL, "", false},
        {"redis://:a/b?c@h:1", "h:1", "h", NULL, "a/b?c", false},
        {"redis://h:7000/15", "h:7000", "h", NULL, NULL, false},
        {"redis://[fe80::1]", "[fe80::1]:6379", "fe80::1", NULL, NULL, false},
        {"redis://10.0.0.1:7000", "10.0.0.1:7000", "10.0.0.1", NULL, NULL, false},
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
        {"rediss://h/x", "else than a database's number at character 12"},
        {"redis://h/0?db=1", "has a query, which is not read here, at character 12"},
        {"redis://h?db=1", "at character 10"},
        {"redis://:secret%zz@h",
         "has a % without two hexadecimal digits (write %25) at character 16"},
        {"redis://:secret%4@h", "at character 16"},
        {"redis://:secret%00@h", "has %00"},
        {"redis://us%er:secret@h", "at character 11"},
        {"redis://::1:6379", "without [ and ] at character 9"},
        {"redis://[::1:6379", "has a [ without a ] at character 9"},
        {"redis://[::1]6379", "than [IPv6]:port"},
        {"redis://[h]:6379", "than [IPv6]:port"},
        {"redis://a b", "has what no host has at character 10"},
        {"redis://h:", "has a port"},
        {"redis://:secret@", "names no host"},
        {"unix://me:secret@/run/r.sock", "must be unix:/path"},
        {longest, "more than 253"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct shard_url url = {0};
        const char *why = shard_url_parse(slice_from_text(rows[i][0]), &url);
        assert_non_null(why);
        assert_non_null(strstr(why, rows[i][1]));
        assert_null(strstr(why, "secret"));
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
