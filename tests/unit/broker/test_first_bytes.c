/* The first bytes of a connection are judged the same however they are split, and foreign ones before anything behind them
 * could be a command. */
#include "tests/unit/unit.h"

#include "broker/command.h"

#include <stdlib.h>

#define OURS    FIRST_OURS
#define MORE    FIRST_MORE
#define FOREIGN FIRST_FOREIGN

static const struct {
    struct slice input;
    enum first_bytes is;
} rows[] = {
    {SLICE_INIT(""), MORE},
    {SLICE_INIT("\r\n \t\n"), MORE},
    {SLICE_INIT("*"), OURS},
    {SLICE_INIT("\r\n*1\r\n"), OURS},
    {SLICE_INIT("PING\r\n"), OURS},
    {SLICE_INIT("ping\n"), OURS},
    {SLICE_INIT("PI"), MORE},
    {SLICE_INIT("PING"), MORE},
    {SLICE_INIT("PING x"), MORE},
    {SLICE_INIT("AUTH \"a b\" c\r\n"), OURS},
    {SLICE_INIT("PUBLISH a HTTP/1.1 \r\n"), FOREIGN},
    {SLICE_INIT("PUBLISH a xHTTP/1\r\n"), OURS},
    {SLICE_INIT("INFO / HTTP/2.0\n"), FOREIGN},
    {SLICE_INIT("PINGS\r\n"), FOREIGN},
    {SLICE_INIT("PIN\r\n"), FOREIGN},
    {SLICE_INIT("G"), FOREIGN},
    {SLICE_INIT("GET / HTTP/1.1\r\nHost: x\r\n\r\nPUBLISH a b\r\n"), FOREIGN},
    {SLICE_INIT("POST / HTTP/1.1\r\n"), FOREIGN},
    {SLICE_INIT("PUT"), FOREIGN},
    {SLICE_INIT("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), FOREIGN},
    {SLICE_INIT("OPTIONS"), FOREIGN},
    {SLICE_INIT("\x16\x03\x01"), FOREIGN},
    {SLICE_INIT("\r\n\r\n\0\r\nQUIT\n"), FOREIGN},
    {SLICE_INIT("PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\nPING\r\n"), FOREIGN},
    {SLICE_INIT("SSH-2.0-OpenSSH_9.2\r\n"), FOREIGN},
    {SLICE_INIT("EHLO x\r\n"), FOREIGN},
    {SLICE_INIT("\0"), FOREIGN},
    {SLICE_INIT("\"PING\"\r\n"), FOREIGN},
    {SLICE_INIT("$4\r\nPING\r\n"), FOREIGN},
    {SLICE_INIT("\xef\xbb\xbfPING\r\n"), FOREIGN},
};

static void test_what_may_begin_a_connection(void **state UNUSED)
{
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        if (first_bytes_look(command_table, rows[i].input) != rows[i].is)
            fail_msg("row %zu: %.*s", i, SLICE_ARGS(rows[i].input));
}

static void test_pieces_are_judged_as_the_whole(void **state UNUSED)
{
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        enum first_bytes is = MORE;
        for (size_t len = 0; len <= rows[i].input.len && is == MORE; len++) {
            char *piece =
                must_memdup(rows[i].input.data, len); /* so that none behind it is read */
            is = first_bytes_look(command_table, slice_of(piece, len));
            free(piece);
        }
        assert_int_equal(rows[i].is, is);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_may_begin_a_connection),
        cmocka_unit_test(test_pieces_are_judged_as_the_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
