/* PROXY headers of both versions: each case whole, cut at every byte, and against the end of a mapping. */
#include "tests/unit/unit.h"

#include "proxy/proxy_protocol.h"

#include <stdio.h>
#include <stdlib.h>

#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"
#define V4        "\xc0\x00\x02\x07\xc6\x33\x64\x01\xdc\x04\x01\xbb"
#define V6                                                                               \
    "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x07"                                         \
    "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\xdc\x04\x01\xbb"

struct row {
    const char *name;
    struct slice bytes;
    enum parse_result result;
    const char *client; /* "": none */
    size_t header_len;  /* 0: as long as the bytes */
};

#define ROW(name_, bytes_, ...)                                                          \
    {                                                                                    \
        .name = name_, .bytes = SLICE_INIT(bytes_), __VA_ARGS__                          \
    }

static const struct row rows[] = {
    ROW("v1 over IPv4", "PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n", PARSE_DONE,
        "192.0.2.7:56324"),
    ROW("v1 over IPv6", "PROXY TCP6 2001:db8::7 2001:db8::1 56324 443\r\n", PARSE_DONE,
        "[2001:db8::7]:56324"),
    ROW("v1 unknown", "PROXY UNKNOWN\r\n", PARSE_DONE, ""),
    ROW("v1 unknown with words",
        "PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
        PARSE_DONE, ""),
    ROW("v1 of 108 bytes",
        "PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 655355\r\n",
        PARSE_BAD, ""),
    ROW("v1 bare LF", "PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\n", PARSE_MORE, ""),
    ROW("v1 bare CR", "PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\rX", PARSE_BAD, ""),
    ROW("v1 two spaces", "PROXY TCP4  192.0.2.7 198.51.100.1 1 2\r\n", PARSE_BAD, ""),
    ROW("v1 word too many", "PROXY TCP4 192.0.2.7 198.51.100.1 1 2 3\r\n", PARSE_BAD, ""),
    ROW("v1 word too few", "PROXY TCP4 192.0.2.7 198.51.100.1 1\r\n", PARSE_BAD, ""),
    ROW("v1 family against address", "PROXY TCP6 192.0.2.7 198.51.100.1 1 2\r\n",
        PARSE_BAD, ""),
    ROW("v1 port too large", "PROXY TCP4 192.0.2.7 198.51.100.1 65536 2\r\n", PARSE_BAD,
        ""),
    ROW("v1 port with sign", "PROXY TCP4 192.0.2.7 198.51.100.1 +1 2\r\n", PARSE_BAD, ""),
    ROW("v1 port with zeros", "PROXY TCP4 192.0.2.7 198.51.100.1 01 2\r\n", PARSE_BAD,
        ""),
    ROW("v1 NUL in the address", "PROXY TCP4 192.0.2.7\0 198.51.100.1 1 2\r\n", PARSE_BAD,
        ""),
    ROW("v1 other family", "PROXY UDP4 192.0.2.7 198.51.100.1 1 2\r\n", PARSE_BAD, ""),
    ROW("v1 lower case", "proxy TCP4 192.0.2.7 198.51.100.1 1 2\r\n", PARSE_BAD, ""),
    ROW("an HTTP request", "GET / HTTP/1.1\r\n", PARSE_BAD, ""),
    ROW("a PUT request", "PUT / HTTP/1.1\r\n", PARSE_BAD, ""),
    ROW("empty lines", "\r\n\r\nGET", PARSE_BAD, ""),
    ROW("a TLS hello", "\x16\x03\x01", PARSE_BAD, ""),
    ROW("v2 over IPv4", SIGNATURE "\x21\x11\0\x0c" V4, PARSE_DONE, "192.0.2.7:56324"),
    ROW("v2 over IPv6", SIGNATURE "\x21\x21\0\x24" V6, PARSE_DONE, "[2001:db8::7]:56324"),
    ROW("v2 with TLVs", SIGNATURE "\x21\x11\0\x13" V4 "\x04\0\x04\0\0\0\0", PARSE_DONE,
        "192.0.2.7:56324"),
    ROW("v2 whose TLVs have not come", SIGNATURE "\x21\x11\xff\xff" V4, PARSE_DONE,
        "192.0.2.7:56324", .header_len = 65551),
    ROW("v2 local", SIGNATURE "\x20\0\0\0", PARSE_DONE, ""),
    ROW("v2 local with an address", SIGNATURE "\x20\x11\0\x0c" V4, PARSE_DONE, ""),
    ROW("v2 local of 65535 bytes", SIGNATURE "\x20\0\xff\xff", PARSE_DONE, "",
        .header_len = 65551),
    ROW("v2 unspecified", SIGNATURE "\x21\0\0\0", PARSE_DONE, ""),
    ROW("v2 of a unix socket", SIGNATURE "\x21\x31\0\xd8", PARSE_DONE, "",
        .header_len = 232),
    ROW("v2 of a short unix socket", SIGNATURE "\x21\x31\0\xd7", PARSE_BAD, ""),
    ROW("v2 too short for IPv4", SIGNATURE "\x21\x11\0\x0b" V4, PARSE_BAD, ""),
    ROW("v2 too short for IPv6", SIGNATURE "\x21\x21\0\x23" V6, PARSE_BAD, ""),
    ROW("v2 datagrams", SIGNATURE "\x21\x12\0\x0c" V4, PARSE_BAD, ""),
    ROW("v2 other version", SIGNATURE "\x11\x11\0\x0c" V4, PARSE_BAD, ""),
    ROW("v2 other command", SIGNATURE "\x22\x11\0\x0c" V4, PARSE_BAD, ""),
    ROW("v2 of half an address", SIGNATURE "\x21\x11\0\x0c\xc0\x00\x02", PARSE_MORE, ""),
};

static enum parse_result parse(const char *bytes, size_t len, struct proxy_header *header)
{
    char *copy = guarded_copy(bytes, len);
    enum parse_result result = proxy_protocol_parse(slice_of(copy, len), header);
    guarded_free(copy, len);
    return result;
}

static void test_each_header_says_what_it_says_however_it_is_cut(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const struct row *row = &rows[i];
        struct proxy_header header;
        enum parse_result result = PARSE_MORE;
        size_t len = 0;
        while (result == PARSE_MORE && len < row->bytes.len)
            result = parse(row->bytes.data, ++len, &header);
        if (result != row->result)
            fail_msg("%s: %d after %zu bytes", row->name, result, len);
        if (result == PARSE_BAD)
            continue;
        struct proxy_header whole;
        assert_int_equal(result, parse(row->bytes.data, row->bytes.len, &whole));
        if (result == PARSE_MORE)
            continue;
        size_t wanted = row->header_len != 0 ? row->header_len : row->bytes.len;
        assert_int_equal(wanted, header.header_len);
        assert_int_equal(wanted, whole.header_len);
        char text[ADDRESS_TEXT_SIZE] = "";
        if (header.has_client)
            address_text(&header.client, text);
        assert_string_equal(row->client, text);
        assert_int_equal(header.has_client, whole.has_client);
    }
}

static void test_more_is_asked_for_only_while_every_byte_is_the_headers(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const struct row *row = &rows[i];
        struct proxy_header header, whole;
        if (row->result != PARSE_DONE ||
            parse(row->bytes.data, row->bytes.len, &whole) != PARSE_DONE)
            continue;
        for (size_t len = 0; len < row->bytes.len; len++)
            if (parse(row->bytes.data, len, &header) == PARSE_MORE)
                assert_true(len < whole.header_len);
        /* what follows is none of its business */
        char followed[512];
        memcpy(followed, row->bytes.data, row->bytes.len);
        memcpy(followed + row->bytes.len, "GET / HTTP/1.1\r\n", 16);
        assert_int_equal(PARSE_DONE, parse(followed, row->bytes.len + 16, &header));
        assert_int_equal(whole.header_len, header.header_len);
    }
}

static void test_a_line_that_does_not_end_is_bad_at_107_bytes(void **state)
{
    (void)state;
    char line[200] = "PROXY UNKNOWN ";
    memset(line + 14, 'x', sizeof line - 14);
    struct proxy_header header;
    assert_int_equal(PARSE_MORE, parse(line, PROXY_V1_MAX - 2, &header));
    assert_int_equal(PARSE_BAD, parse(line, PROXY_V1_MAX, &header));
    assert_int_equal(PARSE_BAD, parse(line, sizeof line, &header));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_header_says_what_it_says_however_it_is_cut),
        cmocka_unit_test(test_more_is_asked_for_only_while_every_byte_is_the_headers),
        cmocka_unit_test(test_a_line_that_does_not_end_is_bad_at_107_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
