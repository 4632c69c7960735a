/*
 * Ciphertext that is acknowledged becomes plaintext by whole records, whatever lies between them.
 */
#include "tests/unit/unit.h"

#include "shared/sealed_records.h"

static void test_only_whole_records_count(void **state UNUSED)
{
    struct sealed_records records = {0};
    assert_int_equal(0, sealed_records_unacknowledged(&records));
    sealed_records_note(&records, 100, 1000 + 122); /* behind a handshake of 1000 bytes */
    sealed_records_note(&records, 16384, 1122 + 16406);
    sealed_records_note(&records, 7, 17528 + 29);
    static const struct {
        uint64_t cipher;
        size_t left;
    } rows[] = {
        {0, 16491},    {1000, 16491}, {1121, 16491}, {1122, 16391}, {17527, 16391},
        {1122, 16391}, {17528, 7},    {17556, 7},    {17557, 0},    {99999, 0},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        sealed_records_acknowledge(&records, rows[i].cipher);
        assert_int_equal(rows[i].left, sealed_records_unacknowledged(&records));
    }
    sealed_records_cleanup(&records);
}

static void test_memory_is_that_of_what_is_not_acknowledged(void **state UNUSED)
{
    struct sealed_records records = {0};
    uint64_t cipher = 0;
    for (unsigned i = 0; i < 100000; i++) {
        if (sealed_records_is_full(&records))
            sealed_records_acknowledge(&records, cipher - 5 * 32);
        cipher += 32;
        sealed_records_note(&records, 10, cipher);
        assert_true(records.capacity <= 16);
    }
    for (unsigned i = 0; i < 1000; i++) {
        cipher += 32;
        sealed_records_note(&records, 10, cipher);
    }
    sealed_records_acknowledge(&records, cipher - 700 * 32 - 1);
    assert_int_equal(7010, sealed_records_unacknowledged(&records));
    sealed_records_cleanup(&records);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_only_whole_records_count),
        cmocka_unit_test(test_memory_is_that_of_what_is_not_acknowledged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
