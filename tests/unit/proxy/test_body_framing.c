/* Which bytes are payload: lengths, chunks and their limits at the edges, and the
 * writer's output read back. */
#include "tests/unit/unit.h"

#include "proxy/body_framing.h"

#include <stdio.h>
#include <stdlib.h>

struct outcome {
    enum parse_result result;
    size_t used;
    size_t len;
    char payload[8192];
};

/* Feeds `text` in pieces of `piece` bytes (0: at once), each against a guard page. */
static struct outcome feed(struct body_framing *framing, const char *text, size_t len,
                           size_t piece)
{
    struct outcome out = {.result = PARSE_MORE};
    while (out.used < len && out.result == PARSE_MORE) {
        size_t n = piece == 0 ? len - out.used : min_size(piece, len - out.used);
        char *copy = guarded_copy(text + out.used, n);
        struct slice rest = slice_of(copy, n);
        while (rest.len > 0 && out.result == PARSE_MORE) {
            size_t consumed;
            struct slice payload;
            out.result = body_framing_next(framing, rest, &consumed, &payload);
            assert_true(out.result != PARSE_MORE || consumed > 0);
            memcpy(out.payload + out.len, payload.data, payload.len);
            out.len += payload.len;
            out.used += consumed;
            rest = slice_from(rest, consumed);
        }
        guarded_free(copy, n);
    }
    return out;
}

static void assert_chunked(const char *text, enum parse_result result,
                           const char *payload, enum body_fault fault)
{
    for (size_t piece = 0; piece < 4; piece++) {
        struct body_framing framing;
        assert_int_equal(body_framing_start(&framing, BODY_CHUNKED, 0, 64, 20000),
                         PARSE_MORE);
        struct outcome out = feed(&framing, text, strlen(text), piece);
        if (out.result != result || body_framing_fault(&framing) != fault)
            fail_msg("piece %zu: result %d, fault %d: %s", piece, out.result,
                     body_framing_fault(&framing), text);
        if (result == PARSE_DONE) {
            assert_int_equal(out.len, strlen(payload));
            assert_memory_equal(out.payload, payload, out.len);
        }
    }
}

static void test_chunks_give_their_payload_and_stop_at_the_end(void **state)
{
    (void)state;
    assert_chunked("2\r\nok\r\n0\r\n\r\n", PARSE_DONE, "ok", BODY_FAULT_NONE);
    assert_chunked("0\r\n\r\nGET /", PARSE_DONE, "", BODY_FAULT_NONE);
    assert_chunked("1;a=\"x;\\\"y\"\r\na\r\nA\r\n0123456789\r\n00\r\nX: y\r\n\r\n",
                   PARSE_DONE, "a0123456789", BODY_FAULT_NONE);
    assert_chunked("0000000000000001\r\na\r\n0\r\n\r\n", PARSE_DONE, "a",
                   BODY_FAULT_NONE);
    struct body_framing framing;
    assert_int_equal(body_framing_start(&framing, BODY_CHUNKED, 0, 0, 0), PARSE_MORE);
    struct outcome out = feed(&framing, "1\r\na\r\n0\r\n\r\nrest", 15, 0);
    assert_int_equal(out.used, 11);
    assert_true(body_framing_is_complete(&framing));
    assert_int_equal(body_framing_end(&framing), PARSE_DONE);
}

static void test_chunk_limits_hold(void **state)
{
    (void)state;
    char text[BODY_EXTENSION_BYTES_MAX + 64];
    assert_chunked("00000000000000001\r\na\r\n", PARSE_BAD, "", BODY_FAULT_CHUNK_SIZE);
    assert_chunked("ffffffffffffffff\r\n", PARSE_BAD, "", BODY_FAULT_TOO_LARGE);
    assert_chunked("41\r\n", PARSE_BAD, "", BODY_FAULT_TOO_LARGE);
    for (int len = BODY_EXTENSION_BYTES_MAX; len <= BODY_EXTENSION_BYTES_MAX + 1; len++) {
        snprintf(text, sizeof(text), "1;%0*d\r\na\r\n0\r\n\r\n", len, 0);
        if (len == BODY_EXTENSION_BYTES_MAX)
            assert_chunked(text, PARSE_DONE, "a", BODY_FAULT_NONE);
        else
            assert_chunked(text, PARSE_BAD, "", BODY_FAULT_CHUNK_EXTENSION);
    }
    assert_chunked("1\r\nab\r\n", PARSE_BAD, "", BODY_FAULT_CHUNK_END);
    assert_chunked("0\r\n X: y\r\n\r\n", PARSE_BAD, "", BODY_FAULT_TRAILER);
    assert_chunked("0\r\nX: y\rZ\n\r\n", PARSE_BAD, "", BODY_FAULT_TRAILER);
}

/* How `count` chunks of `size` bytes end. */
static enum body_fault fault_of_chunks(size_t count, size_t size)
{
    struct body_framing framing;
    char line[BODY_CHUNK_LINE_MAX], payload[1024];
    size_t consumed;
    struct slice found;
    memset(payload, 'x', sizeof(payload));
    assert_int_equal(body_framing_start(&framing, BODY_CHUNKED, 0, 0, BODY_FRAMING_MAX),
                     PARSE_MORE);
    for (size_t i = 0; i < count; i++) {
        struct slice parts[] = {slice_of(line, chunk_line_write(line, size)),
                                slice_of(payload, size), SLICE(CHUNK_END)};
        for (size_t part = 0; part < 3; part++)
            if (body_framing_next(&framing, parts[part], &consumed, &found) == PARSE_BAD)
                return body_framing_fault(&framing);
    }
    assert_int_equal(body_framing_next(&framing, SLICE(CHUNK_LAST), &consumed, &found),
                     PARSE_DONE);
    return BODY_FAULT_NONE;
}

static void test_chunks_are_bounded_by_what_they_carry(void **state)
{
    (void)state;
    assert_int_equal(fault_of_chunks(4096, 1), BODY_FAULT_NONE);
    assert_int_equal(fault_of_chunks(4200, 1), BODY_FAULT_TOO_MUCH_FRAMING);
    assert_int_equal(fault_of_chunks(1000000, 5), BODY_FAULT_NONE);
    assert_int_equal(fault_of_chunks(100000, 100), BODY_FAULT_NONE);
}

static void test_extensions_follow_their_grammar(void **state)
{
    (void)state;
    static const char *const good[] = {"a",       "a=b",           "a;b=c;d",    "a=\"\"",
                                       "a=\"b\"", "a=\";\\\"\";c", " a = b ; c", "a;\tb"};
    static const char *const bad[] = {
        "",     " ",        ";",     "a;",    "a=",       "=b",
        "a;;b", "a b",      "a=b c", "a=\"b", "a=\"b\"c", "a ",
        "a=b ", "a=\"b\" ", "\"a\"", "a,b",   "a=b=c",    "a=b\"c\""};
    char text[64];
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        snprintf(text, sizeof(text), "1;%s\r\na\r\n0;%s\r\n\r\n", good[i], good[i]);
        assert_chunked(text, PARSE_DONE, "a", BODY_FAULT_NONE);
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        snprintf(text, sizeof(text), "1;%s\r\na\r\n0\r\n\r\n", bad[i]);
        assert_chunked(text, PARSE_BAD, "", BODY_FAULT_CHUNK_EXTENSION);
    }
}

static void test_trailers_are_field_lines(void **state)
{
    (void)state;
    assert_chunked("0\r\nA: b\r\nC:\r\n\r\n", PARSE_DONE, "", BODY_FAULT_NONE);
    assert_chunked("0\r\nA\r\n\r\n", PARSE_BAD, "", BODY_FAULT_TRAILER);
    assert_chunked("0\r\nA b: c\r\n\r\n", PARSE_BAD, "", BODY_FAULT_TRAILER);
    assert_chunked("0\r\nA : c\r\n\r\n", PARSE_BAD, "", BODY_FAULT_TRAILER);
    assert_chunked("0\r\n: c\r\n\r\n", PARSE_BAD, "", BODY_FAULT_TRAILER);
}

static void test_trailers_are_bounded_in_lines_and_bytes(void **state)
{
    (void)state;
    static char text[BODY_TRAILER_BYTES_MAX + 64];
    for (size_t lines = BODY_TRAILER_LINES_MAX; lines <= BODY_TRAILER_LINES_MAX + 1;
         lines++) {
        size_t at = (size_t)sprintf(text, "0\r\n");
        for (size_t i = 0; i < lines; i++)
            at += (size_t)sprintf(text + at, "A:\r\n");
        strcpy(text + at, "\r\n");
        if (lines == BODY_TRAILER_LINES_MAX)
            assert_chunked(text, PARSE_DONE, "", BODY_FAULT_NONE);
        else
            assert_chunked(text, PARSE_BAD, "", BODY_FAULT_TRAILER);
    }
    size_t at = (size_t)sprintf(text, "0\r\nA:");
    memset(text + at, 'b', BODY_TRAILER_BYTES_MAX);
    text[at + BODY_TRAILER_BYTES_MAX] = '\0';
    assert_chunked(text, PARSE_BAD, "", BODY_FAULT_TRAILER);
}

static void test_a_length_ends_at_its_last_byte(void **state)
{
    (void)state;
    struct body_framing framing;
    assert_int_equal(body_framing_start(&framing, BODY_LENGTH, 3, 3, 0), PARSE_MORE);
    struct outcome out = feed(&framing, "abcd", 4, 2);
    assert_int_equal(out.result, PARSE_DONE);
    assert_int_equal(out.used, 3);
    assert_int_equal(body_framing_start(&framing, BODY_LENGTH, 4, 3, 0), PARSE_BAD);
    assert_int_equal(body_fault_status(body_framing_fault(&framing)), 413);
    assert_int_equal(body_framing_start(&framing, BODY_LENGTH, 0, 3, 0), PARSE_DONE);
    assert_int_equal(body_framing_start(&framing, BODY_NONE, 0, 3, 0), PARSE_DONE);
}

static void test_only_until_close_may_end_anywhere(void **state)
{
    (void)state;
    struct body_framing framing;
    assert_int_equal(body_framing_start(&framing, BODY_UNTIL_CLOSE, 0, 0, 0), PARSE_MORE);
    assert_int_equal(feed(&framing, "abc", 3, 1).len, 3);
    assert_int_equal(body_framing_end(&framing), PARSE_DONE);
    assert_int_equal(body_framing_start(&framing, BODY_LENGTH, 3, 0, 0), PARSE_MORE);
    assert_int_equal(feed(&framing, "ab", 2, 0).result, PARSE_MORE);
    assert_int_equal(body_framing_end(&framing), PARSE_BAD);
    assert_int_equal(body_framing_fault(&framing), BODY_FAULT_TRUNCATED);
    assert_int_equal(body_framing_start(&framing, BODY_CHUNKED, 0, 0, 0), PARSE_MORE);
    assert_int_equal(feed(&framing, "0\r\n", 3, 0).result, PARSE_MORE);
    assert_int_equal(body_framing_end(&framing), PARSE_BAD);
}

/* Random payload in random chunks, read back in random pieces. */
static void test_what_the_writer_writes_the_decoder_reads(void **state)
{
    (void)state;
    unsigned seed = (unsigned)getpid();
    print_message("seed %u\n", seed);
    srandom(seed);
    for (size_t round = 0; round < 300; round++) {
        static char text[8192];
        char payload[1024];
        size_t len = (size_t)random() % sizeof(payload);
        size_t at = 0;
        for (size_t i = 0; i < len; i++)
            payload[i] = (char)random();
        for (size_t done = 0; done < len;) {
            size_t size = 1 + (size_t)random() % (len - done);
            at += chunk_line_write(text + at, size);
            memcpy(text + at, payload + done, size);
            at += size;
            memcpy(text + at, CHUNK_END, 2);
            at += 2;
            done += size;
        }
        memcpy(text + at, CHUNK_LAST, 5);
        at += 5;
        struct body_framing framing;
        assert_int_equal(body_framing_start(&framing, BODY_CHUNKED, 0, 0, 0), PARSE_MORE);
        struct outcome out = feed(&framing, text, at, (size_t)random() % 20);
        assert_int_equal(out.result, PARSE_DONE);
        assert_int_equal(out.used, at);
        assert_int_equal(out.len, len);
        assert_memory_equal(out.payload, payload, len);
    }
}

static void test_chunk_lines_have_all_digits(void **state)
{
    (void)state;
    char line[BODY_CHUNK_LINE_MAX];
    assert_int_equal(chunk_line_write(line, 1), 3);
    assert_memory_equal(line, "1\r\n", 3);
    assert_int_equal(chunk_line_write(line, 0xdeadbeef10), 12);
    assert_memory_equal(line, "deadbeef10\r\n", 12);
    assert_int_equal(chunk_line_write(line, UINT64_MAX), 18);
    assert_memory_equal(line, "ffffffffffffffff\r\n", 18);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chunks_give_their_payload_and_stop_at_the_end),
        cmocka_unit_test(test_chunk_limits_hold),
        cmocka_unit_test(test_chunks_are_bounded_by_what_they_carry),
        cmocka_unit_test(test_extensions_follow_their_grammar),
        cmocka_unit_test(test_trailers_are_field_lines),
        cmocka_unit_test(test_trailers_are_bounded_in_lines_and_bytes),
        cmocka_unit_test(test_a_length_ends_at_its_last_byte),
        cmocka_unit_test(test_only_until_close_may_end_anywhere),
        cmocka_unit_test(test_what_the_writer_writes_the_decoder_reads),
        cmocka_unit_test(test_chunk_lines_have_all_digits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
