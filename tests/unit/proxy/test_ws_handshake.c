/* The accept value of RFC 6455 1.3, and nothing else. */
#include "tests/unit/unit.h"

#include "proxy/ws_handshake.h"

static void test_the_key_of_the_rfc_has_the_answer_of_the_rfc(void **state)
{
    (void)state;
    struct slice key = SLICE("dGhlIHNhbXBsZSBub25jZQ==");
    assert_true(ws_accept_matches(key, SLICE("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")));
    assert_false(ws_accept_matches(key, SLICE("s3pPLMBiTxaQ9kYGzzhZRbK+xOo")));
    assert_false(ws_accept_matches(key, SLICE("S3pPLMBiTxaQ9kYGzzhZRbK+xOo=")));
    assert_false(ws_accept_matches(key, SLICE("")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_key_of_the_rfc_has_the_answer_of_the_rfc),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
