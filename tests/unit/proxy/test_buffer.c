#include "tests/unit/unit.h"

#include "proxy/buffer.h"
#include "proxy/slab.h"

static void test_what_is_appended_is_taken_in_order(void **state)
{
    (void)state;
    atomic_size_t held = 0;
    struct buffer_pool pool;
    struct buffer *buffer = NULL;
    buffer_pool_init(&pool, &held, 0);
    uint8_t in = 0, out = 0;
    for (size_t round = 1; round < 400; round++) {
        char bytes[400];
        for (size_t i = 0; i < round; i++)
            bytes[i] = (char)in++;
        buffer_append(&pool, &buffer, slice_of(bytes, round));
        size_t taken = buffer_len(buffer) * 2 / 3;
        struct slice waiting = buffer_bytes(buffer);
        for (size_t i = 0; i < taken; i++)
            assert_int_equal(out++, (uint8_t)waiting.data[i]);
        buffer_take(&pool, &buffer, taken);
    }
    buffer_take(&pool, &buffer, buffer_len(buffer));
    assert_null(buffer);
    buffer_pool_tell(&pool);
    assert_int_equal(0, held);
    buffer_pool_cleanup(&pool);
}

static void test_pools_count_against_one_limit(void **state)
{
    (void)state;
    atomic_size_t held = 0;
    struct buffer_pool a, b;
    struct buffer *buffer = NULL;
    buffer_pool_init(&a, &held, 5000);
    buffer_pool_init(&b, &held, 5000);
    assert_true(buffer_pool_has_room(&b, BUFFER_POOL_WHOLE));
    buffer_reserve(&a, &buffer, 6000);
    assert_false(buffer_pool_has_room(&a, BUFFER_POOL_WHOLE));
    assert_true(buffer_pool_has_room(&b, BUFFER_POOL_WHOLE)); /* until the turn is over */
    buffer_pool_tell(&a);
    assert_int_equal(6000, held);
    assert_false(buffer_pool_has_room(&b, BUFFER_POOL_WHOLE));
    buffer_drop(&a, &buffer);
    assert_true(buffer_pool_has_room(&a, BUFFER_POOL_WHOLE));
    buffer_pool_tell(&a);
    assert_true(buffer_pool_has_room(&b, BUFFER_POOL_WHOLE));
    buffer_reserve(&a, &buffer, 60000); /* much: at once */
    assert_int_equal(60000, held);
    buffer_drop(&a, &buffer);
    assert_int_equal(0, held);
    buffer_pool_cleanup(&a);
    buffer_pool_cleanup(&b);
}

static void test_a_slab_gives_zeroed_objects_apart_and_takes_them_back(void **state)
{
    (void)state;
    enum { OBJECTS = 1000 };
    struct slab slab;
    static char *objects[OBJECTS];
    slab_init(&slab, 200);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < OBJECTS; i++) {
            objects[i] = slab_get(&slab);
            for (int k = 0; k < 200; k++)
                assert_int_equal(0, objects[i][k]);
            memset(objects[i], i, 200);
        }
        for (int i = 0; i < OBJECTS; i++)
            for (int k = 0; k < 200; k++)
                assert_int_equal((char)i, objects[i][k]);
        for (int i = 0; i < OBJECTS; i++)
            slab_put(&slab, objects[(i * 7) % OBJECTS]);
        assert_true(slab.chunks <= 1);
    }
    slab_cleanup(&slab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_appended_is_taken_in_order),
        cmocka_unit_test(test_pools_count_against_one_limit),
        cmocka_unit_test(test_a_slab_gives_zeroed_objects_apart_and_takes_them_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
