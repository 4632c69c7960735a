/* Proves that networks are read strictly and contain exactly their addresses, v4 inside v6 too. */
#include "tests/unit/unit.h"

#include "shared/cidr.h"

static void test_networks_contain_exactly_their_addresses(void **state)
{
    (void)state;
    static const struct {
        const char *cidr, *address;
        bool is_inside;
    } cases[] = {
        {"10.0.0.0/8", "10.255.255.255:1", true},
        {"10.0.0.0/8", "11.0.0.0:1", false},
        {"10.0.0.0/8", "[::ffff:10.1.2.3]:1", true},
        {"10.0.0.0/8", "[::10.1.2.3]:1", false},
        {"10.64.0.0/10", "10.127.255.255:1", true},
        {"10.64.0.0/10", "10.128.0.0:1", false},
        {"192.0.2.7", "192.0.2.7:1", true},
        {"192.0.2.7", "192.0.2.6:1", false},
        {"0.0.0.0/0", "1.2.3.4:1", true},
        {"0.0.0.0/0", "[2001:db8::1]:1", false},
        {"::/0", "1.2.3.4:1", true},
        {"2001:db8::/33", "[2001:db8:7fff::1]:1", true},
        {"2001:db8::/33", "[2001:db8:8000::1]:1", false},
        {"::1", "[::1]:1", true},
        {"::/0", "unix:/x", false},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct cidr cidr;
        struct address address;
        const char *why;
        size_t len = strlen(cases[i].cidr);
        char *copy = guarded_copy(cases[i].cidr, len);
        assert_true(cidr_parse(slice_of(copy, len), &cidr, &why));
        guarded_free(copy, len);
        assert_true(address_parse(slice_from_text(cases[i].address), &address, &why));
        assert_int_equal(cases[i].is_inside, cidr_contains(&cidr, &address));
        struct cidr_list list = {&cidr, 1};
        assert_int_equal(cases[i].is_inside, cidr_list_contains(&list, &address));
    }
}

static void test_mistakes_are_refused(void **state)
{
    (void)state;
    const char *bad[] = {
        "",         "/8",     "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/-1",  "10.0.0.1/8",
        "10.0.0/8", "::1/64", "::/129",      "x",         "10.0.0.0/8/8", "10.0.0.0 /8"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct cidr cidr;
        const char *why = NULL;
        assert_false(cidr_parse(slice_from_text(bad[i]), &cidr, &why));
        assert_non_null(why);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_networks_contain_exactly_their_addresses),
        cmocka_unit_test(test_mistakes_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
