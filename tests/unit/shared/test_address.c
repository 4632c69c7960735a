/* Proves that addresses are read strictly, written back the same, and refused with a reason. */
#include "tests/unit/unit.h"

#include "shared/address.h"

static void test_text_comes_back_as_it_was(void **state)
{
    (void)state;
    const char *texts[] = {"127.0.0.1:5000",  "0.0.0.0:0", "255.255.255.255:65535",
                           "[::1]:80",        "[::]:8080", "[2001:db8::1]:443",
                           "unix:/run/x.sock"};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        struct address address, again;
        const char *why;
        char text[ADDRESS_TEXT_SIZE];
        size_t len = strlen(texts[i]);
        char *copy = guarded_copy(texts[i], len);
        assert_true(address_parse(slice_of(copy, len), &address, &why));
        guarded_free(copy, len);
        assert_string_equal(texts[i], address_text(&address, text));
        again = address_from_socket(&address.socket.any, address.len);
        assert_true(address_equals(&address, &again));
    }
}

static void test_each_bad_text_is_refused_with_its_reason(void **state)
{
    (void)state;
    static const struct {
        const char *text, *why;
    } cases[] = {
        {"", "the port is missing (host:port, [v6]:port or unix:/path)"},
        {"127.0.0.1", "the port is missing (host:port, [v6]:port or unix:/path)"},
        {"[::1]", "the port is missing (host:port, [v6]:port or unix:/path)"},
        {"[::1]80", "the port is missing (host:port, [v6]:port or unix:/path)"},
        {"127.0.0.1:", "the port is not a number in 0..65535"},
        {"127.0.0.1:65536", "the port is not a number in 0..65535"},
        {"127.0.0.1:-1", "the port is not a number in 0..65535"},
        {"127.0.0.1:80 ", "the port is not a number in 0..65535"},
        {":80",
         "the host is missing (every IPv4 address is 0.0.0.0, every address [::])"},
        {"*:80",
         "\"*\" is not an address (every IPv4 address is 0.0.0.0, every address [::])"},
        {"::1:80", "an IPv6 address is written [address]:port"},
        {"[::1:80", "\"]\" is missing"},
        {"[127.0.0.1]:80", "what stands in [] is not an IPv6 address"},
        {"[x]:80", "what stands in [] is not an IPv6 address"},
        {"256.0.0.1:80", "the host is not a numeric address"},
        {"1.2.3:80", "the host is not a numeric address"},
        {"localhost:80", "the host is not a numeric address"},
        {"unix:", "unix: needs an absolute path"},
        {"unix:relative", "unix: needs an absolute path"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct address address;
        const char *why = "";
        assert_false(address_parse(slice_from_text(cases[i].text), &address, &why));
        assert_string_equal(cases[i].why, why);
    }
    char path[200] = "unix:/";
    memset(path + 6, 'x', 107);
    struct address address;
    const char *why;
    assert_false(address_parse(slice_of(path, 6 + 107), &address, &why));
    assert_string_equal("the path of a unix socket has at most 107 bytes", why);
    assert_true(address_parse(slice_of(path, 5 + 107), &address, &why));
}

static void test_names_are_resolved_only_when_asked(void **state)
{
    (void)state;
    struct address address;
    const char *why = NULL;
    char text[ADDRESS_TEXT_SIZE];
    /* a minimal machine may lack /etc/hosts, and with it every name */
    if (access("/etc/hosts", R_OK) == 0) {
        assert_true(address_resolve(SLICE("localhost:81"), &address, &why));
        assert_int_equal(81, address_port(&address));
    }
    assert_true(address_resolve(SLICE("10.1.2.3:82"), &address, &why));
    assert_string_equal("10.1.2.3:82", address_text(&address, text));
    const char *never[] = {"127.1:80", "010.0.0.1.:80", "0x7f000001:80",
                           "a b:80",   "a/b:80",        "*:80"};
    for (size_t i = 0; i < ARRAY_LEN(never); i++)
        assert_false(address_resolve(slice_from_text(never[i]), &address, &why));
    assert_false(address_resolve(SLICE("name.invalid:80"), &address, &why));
    assert_non_null(why);
}

static void test_mapped_v4_reads_as_v4(void **state)
{
    (void)state;
    struct address address;
    const char *why;
    char text[ADDRESS_TEXT_SIZE];
    assert_true(address_parse(SLICE("[::ffff:10.0.0.9]:80"), &address, &why));
    assert_string_equal("10.0.0.9", address_ip_text(&address, text));
    assert_string_equal("10.0.0.9:80", address_text(&address, text));
    struct sockaddr_un unnamed = {.sun_family = AF_UNIX};
    address = address_from_socket((struct sockaddr *)&unnamed, sizeof(sa_family_t));
    assert_string_equal("unix:", address_text(&address, text));
    assert_string_equal("", address_ip_text(&address, text));
    assert_int_equal(0, address_port(&address));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text_comes_back_as_it_was),
        cmocka_unit_test(test_each_bad_text_is_refused_with_its_reason),
        cmocka_unit_test(test_names_are_resolved_only_when_asked),
        cmocka_unit_test(test_mapped_v4_reads_as_v4),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
