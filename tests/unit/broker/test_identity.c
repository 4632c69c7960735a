/* Which pod a connection is of: its name, else its process, else an address that it has for itself. */
#include "tests/unit/unit.h"

#include "broker/identity.h"
#include "shared/address.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static void assert_identity(const char *expected, const char *name, const char *peer)
{
    struct address address;
    const char *why;
    assert_true(address_parse(slice_from_text(peer), &address, &why));
    char *identity = identity_of(name, &address, -1);
    assert_string_equal(expected, identity);
    free(identity);
}

static void test_the_name_comes_before_the_address(void **state UNUSED)
{
    assert_identity("name:web-1", "web-1", "10.0.0.7:1000");
    assert_identity("name:address:10.0.0.7", "address:10.0.0.7", "127.0.0.1:1000");
    assert_identity("name:web-1", "web-1:json15", "10.0.0.7:1000");
    assert_identity("name:web-1:other", "web-1:other", "10.0.0.7:1000");
    assert_identity("address:10.0.0.7", ":pickle", "10.0.0.7:1000");
    assert_identity("address:10.0.0.7", "", "10.0.0.7:1000");
    assert_identity("address:fd00::2", "", "[fd00::2]:1000");
}

static void test_who_cannot_be_told_from_others_has_none(void **state UNUSED)
{
    assert_identity("", "", "127.0.0.1:1000");
    assert_identity("", "", "[::1]:1000");
    assert_identity("", "redis-cli", "10.0.0.7:1000");
}

static void test_a_unix_peer_is_its_process(void **state UNUSED)
{
    int pair[2];
    assert_int_equal(0, socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    struct address address;
    const char *why;
    assert_true(address_parse(SLICE("unix:/x"), &address, &why));
    char *identity = identity_of("", &address, pair[0]);
    char *expected = must_printf("process:%u:%d", (unsigned)getuid(), (int)getpid());
    assert_string_equal(expected, identity);
    free(identity);
    free(expected);
    close(pair[0]);
    close(pair[1]);
}

static void test_only_an_address_must_be_alone(void **state UNUSED)
{
    assert_true(identity_is_shareable("name:web-1"));
    assert_true(identity_is_shareable("process:0:17"));
    assert_false(identity_is_shareable("address:10.0.0.7"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_name_comes_before_the_address),
        cmocka_unit_test(test_who_cannot_be_told_from_others_has_none),
        cmocka_unit_test(test_a_unix_peer_is_its_process),
        cmocka_unit_test(test_only_an_address_must_be_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
