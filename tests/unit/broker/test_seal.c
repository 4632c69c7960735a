/*
 * The seal: its bytes, and what of it may be changed before it is refused: nothing but the mark of a retransmission.
 */
#include "tests/unit/unit.h"

#include "broker/control.h"
#include "broker/envelope.h"
#include "broker/seal.h"

#include <event2/buffer.h>

#define CHANNEL SLICE("sidrail1:default:p:0003")

static const struct file_keys one_key = {
    .count = 1, .keys = {{'a', {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}}}};

static const struct file_keys two_keys = {
    .count = 2,
    .keys = {{'b', {9, 9, 9}},
             {'a', {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}}}};

static const struct file_keys other_key_of_that_id = {.count = 1,
                                                      .keys = {{'a', {1, 1, 1}}}};

/* Sealed into `bytes`; returns the length of all. */
static size_t sealed(struct seal *seal, struct slice channel, struct slice body,
                     char bytes[256])
{
    size_t len = seal_len(seal);
    memcpy(bytes + len, body.data, body.len);
    seal_write(seal, channel, slice_of(bytes + len, body.len), bytes);
    return len + body.len;
}

static enum seal_verdict verdict_of(struct seal *seal, struct slice channel,
                                    const char *bytes, size_t len)
{
    struct slice body;
    char *guarded = guarded_copy(bytes, len);
    enum seal_verdict verdict = seal_open(seal, channel, slice_of(guarded, len), &body);
    guarded_free(guarded, len);
    return verdict;
}

/* Made without this code:
 *
 *   import hmac, hashlib
 *   body, channel = b"SC\x01\x06", b"sidrail1:default:p:0003"
 *   head = b"SK\x01\x01a"
 *   hmac.digest(bytes(range(16)), head + len(channel).to_bytes(2, "little") + channel + body, "sha256")[:16]
 */
static void test_bytes_are_those_that_any_other_program_computes(void **state)
{
    (void)state;
    struct seal *seal = seal_new();
    seal_set_keys(seal, &one_key, false);
    char bytes[256];
    size_t len = sealed(seal, CHANNEL, SLICE("SC\x01\x06"), bytes);
    static const unsigned char golden[] = {
        0x53, 0x4b, 0x01, 0x01, 0x61, 0x38, 0x54, 0x8c, 0x15, 0xb9, 0xff, 0x96, 0xa4,
        0xd7, 0x0c, 0xb0, 0xff, 0x56, 0x4d, 0xd8, 0x70, 0x53, 0x43, 0x01, 0x06};
    assert_int_equal(len, sizeof(golden));
    assert_memory_equal(bytes, golden, sizeof(golden));
    seal_free(seal);
}

static void test_nothing_may_be_changed_but_the_mark_of_a_retransmission(void **state)
{
    (void)state;
    struct seal *seal = seal_new();
    seal_set_keys(seal, &one_key, false);
    char bytes[256];
    char body[60] = "S1\x01\x02";
    size_t len = sealed(seal, CHANNEL, slice_of(body, sizeof(body)), bytes);
    assert_int_equal(SEAL_CHECKED, verdict_of(seal, CHANNEL, bytes, len));
    assert_int_equal(SEAL_FORGED,
                     verdict_of(seal, SLICE("sidrail1:default:p:0004"), bytes, len));
    for (size_t i = 0; i < len; i++)
        for (unsigned bit = 0; bit < 8; bit++) {
            bytes[i] ^= (char)(1U << bit);
            enum seal_verdict verdict = verdict_of(seal, CHANNEL, bytes, len);
            bool is_mark =
                i == SEAL_LEN + ENVELOPE_FLAGS_OFFSET && 1U << bit == ENVELOPE_RETRANSMIT;
            assert_true((verdict <= SEAL_UNCHECKED) == is_mark);
            bytes[i] ^= (char)(1U << bit);
        }
    for (size_t i = 0; i < len; i++)
        assert_true(verdict_of(seal, CHANNEL, bytes, i) > SEAL_UNCHECKED);
    seal_free(seal);
}

static void test_what_is_taken_of_whom(void **state)
{
    (void)state;
    static const struct {
        const struct file_keys *sender, *receiver;
        bool accepts_unsigned;
        enum seal_verdict verdict;
    } cases[] = {
        {NULL, NULL, false, SEAL_UNCHECKED},
        {&one_key, NULL, false, SEAL_UNCHECKED},
        {NULL, &one_key, false, SEAL_UNSIGNED},
        {NULL, &one_key, true, SEAL_UNCHECKED},
        {&one_key, &one_key, false, SEAL_CHECKED},
        {&one_key, &one_key, true, SEAL_CHECKED},
        {&one_key, &two_keys, false,
         SEAL_CHECKED}, /* a rotation: verified, not signed with */
        {&two_keys, &one_key, false, SEAL_UNKNOWN_KEY},
        {&two_keys, &one_key, true, SEAL_UNKNOWN_KEY},
        {&other_key_of_that_id, &one_key, true, SEAL_FORGED},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct seal *sender = seal_new(), *receiver = seal_new();
        seal_set_keys(sender, cases[i].sender, false);
        seal_set_keys(receiver, cases[i].receiver, cases[i].accepts_unsigned);
        char bytes[256];
        size_t len = sealed(sender, CHANNEL, SLICE("SC body"), bytes);
        struct slice body;
        assert_int_equal(cases[i].verdict,
                         seal_open(receiver, CHANNEL, slice_of(bytes, len), &body));
        assert_true(slice_equals(body, SLICE("SC body")));
        seal_free(sender);
        seal_free(receiver);
    }
}

static void test_others_see_whether_the_sender_drops_what_is_not_sealed(void **state)
{
    (void)state;
    struct seal *seal = seal_new();
    for (int accepts = 0; accepts < 2; accepts++) {
        seal_set_keys(seal, &one_key, accepts == 1);
        char bytes[256];
        size_t len = sealed(seal, CHANNEL, SLICE("SC"), bytes);
        struct slice body;
        unsigned flags;
        assert_true(seal_peek(slice_of(bytes, len), &body, &flags));
        assert_int_equal(accepts == 1 ? 0 : SEAL_STRICT, flags);
    }
    seal_free(seal);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes_are_those_that_any_other_program_computes),
        cmocka_unit_test(test_nothing_may_be_changed_but_the_mark_of_a_retransmission),
        cmocka_unit_test(test_what_is_taken_of_whom),
        cmocka_unit_test(test_others_see_whether_the_sender_drops_what_is_not_sealed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
