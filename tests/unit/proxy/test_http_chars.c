/* Builds each class of http_chars again from the words of the RFCs, and compares. */
#include "tests/unit/unit.h"

#include "proxy/http_chars.h"

static bool is_alphanumeric(int c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

static bool is_among(int c, const char *text)
{
    return c > 0 && c < 128 && strchr(text, c) != NULL;
}

static bool is_visible(int c)
{
    return c > 0x20 && c < 0x7f;
}

static void test_every_class_is_what_the_rfc_says(void **state)
{
    (void)state;
    for (int c = 0; c < 256; c++) {
        char byte = (char)c;
        bool hex =
            (c >= '0' && c <= '9') || (c >= 'A' && c <= 'F') || (c >= 'a' && c <= 'f');
        assert_int_equal(http_char_is(byte, HTTP_CHAR_TOKEN),
                         is_alphanumeric(c) || is_among(c, "!#$%&'*+-.^_`|~"));
        assert_int_equal(http_char_is(byte, HTTP_CHAR_VALUE),
                         c == '\t' || (c >= 0x20 && c != 0x7f));
        assert_int_equal(http_char_is(byte, HTTP_CHAR_PATH),
                         is_visible(c) && !is_among(c, "\"#<>\\?"));
        assert_int_equal(http_char_is(byte, HTTP_CHAR_QUERY),
                         is_visible(c) && !is_among(c, "\"#<>"));
        assert_int_equal(http_char_is(byte, HTTP_CHAR_UNRESERVED),
                         is_alphanumeric(c) || is_among(c, "-._~"));
        assert_int_equal(http_char_is(byte, HTTP_CHAR_BASE64URL),
                         is_alphanumeric(c) || is_among(c, "-_"));
        assert_int_equal(http_char_is(byte, HTTP_CHAR_HEX), hex);
        assert_int_equal(http_char_is(byte, HTTP_CHAR_DIGIT), c >= '0' && c <= '9');
    }
}

static void test_hexadecimal_digits_have_their_values(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 16; i++) {
        assert_int_equal(http_hex_value("0123456789abcdef"[i]), i);
        assert_int_equal(http_hex_value("0123456789ABCDEF"[i]), i);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_class_is_what_the_rfc_says),
        cmocka_unit_test(test_hexadecimal_digits_have_their_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
