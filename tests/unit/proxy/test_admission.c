/* Connections of an address and handshakes of a second, alone and by several threads at once. */
#include "tests/unit/unit.h"

#include "shared/timing.h"

#include "proxy/admission.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <stdatomic.h>

static struct in6_addr ip(const char *text)
{
    struct in6_addr address;
    assert_int_equal(1, inet_pton(AF_INET6, text, &address));
    return address;
}

static void test_an_address_gets_no_more_connections_than_the_maximum(void **state)
{
    (void)state;
    struct admission *admission = admission_new();
    struct in6_addr one = ip("::ffff:192.0.2.1"), other = ip("::ffff:192.0.2.2");
    for (int i = 0; i < 3; i++)
        assert_true(admission_enter(admission, &one, 3));
    assert_false(admission_enter(admission, &one, 3));
    assert_true(admission_enter(admission, &other, 3));
    admission_leave(admission, &one);
    assert_true(admission_enter(admission, &one, 3));
    assert_false(admission_enter(admission, &one, 3));
    assert_int_equal(2, admission_count(admission));
    for (int i = 0; i < 3; i++)
        admission_leave(admission, &one);
    admission_leave(admission, &other);
    assert_int_equal(0, admission_count(admission));
    admission_free(admission);
}

static void test_a_network_of_64_bits_counts_as_one_address(void **state)
{
    (void)state;
    struct admission *admission = admission_new();
    struct in6_addr one = ip("2001:db8:0:1::1"), same = ip("2001:db8:0:1:ffff::2"),
                    other = ip("2001:db8:0:2::1");
    assert_true(admission_enter(admission, &one, 1));
    assert_false(admission_enter(admission, &same, 1));
    assert_true(admission_enter(admission, &other, 1));
    admission_leave(admission, &same); /* the same entry */
    admission_leave(admission, &other);
    assert_int_equal(0, admission_count(admission));
    admission_free(admission);
}

static void test_many_addresses_are_counted_and_forgotten(void **state)
{
    (void)state;
    struct admission *admission = admission_new();
    struct in6_addr address = ip("::ffff:10.0.0.0");
    for (int round = 0; round < 2; round++) {
        for (unsigned i = 0; i < 20000; i++) {
            address.s6_addr[14] = (uint8_t)(i >> 8);
            address.s6_addr[15] = (uint8_t)i;
            assert_true(admission_enter(admission, &address, 1));
            assert_false(admission_enter(admission, &address, 1));
        }
        assert_int_equal(20000, admission_count(admission));
        for (unsigned i = 0; i < 20000; i++) {
            address.s6_addr[14] = (uint8_t)(i >> 8);
            address.s6_addr[15] = (uint8_t)i;
            admission_leave(admission, &address);
        }
        assert_int_equal(0, admission_count(admission));
    }
    admission_free(admission);
}

static void test_handshakes_come_at_the_rate_after_a_second_at_once(void **state)
{
    (void)state;
    struct admission *admission = admission_new();
    uint64_t now = SECONDS(100);
    for (int i = 0; i < 50; i++)
        assert_true(admission_take_handshake(admission, 50, now));
    assert_false(admission_take_handshake(admission, 50, now));
    assert_false(admission_take_handshake(admission, 50, now + MILLISECONDS(19)));
    assert_true(admission_take_handshake(admission, 50, now + MILLISECONDS(20)));
    assert_false(admission_take_handshake(admission, 50, now + MILLISECONDS(20)));
    unsigned taken = 0;
    for (int ms = 1000; ms < 11000; ms++)
        taken += admission_take_handshake(admission, 50, now + MILLISECONDS(ms));
    assert_in_range(taken, 500, 551);
    admission_free(admission);
}

static struct admission *shared;
static atomic_uint let_in, handshakes;

static void *crowd(void *arg)
{
    struct in6_addr address = ip("::ffff:192.0.2.1");
    unsigned mine = 0;
    (void)arg;
    for (int i = 0; i < 20000; i++) {
        if (admission_enter(shared, &address, 100)) {
            mine++;
            atomic_fetch_add(&let_in, 1);
        } else if (mine > 0) {
            admission_leave(shared, &address);
            mine--;
        }
        if (admission_take_handshake(shared, 1000, SECONDS(5)))
            atomic_fetch_add(&handshakes, 1);
    }
    for (; mine > 0; mine--)
        admission_leave(shared, &address);
    return NULL;
}

static void test_threads_count_together(void **state)
{
    (void)state;
    pthread_t threads[4];
    shared = admission_new();
    for (int i = 0; i < 4; i++)
        assert_int_equal(0, pthread_create(&threads[i], NULL, crowd, NULL));
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(1000, atomic_load(&handshakes));
    assert_true(atomic_load(&let_in) >= 100);
    assert_int_equal(0, admission_count(shared));
    admission_free(shared);
}

static void test_bytes_are_counted_for_an_address(void **state)
{
    (void)state;
    struct admission *admission = admission_new();
    struct in6_addr one, two;
    inet_pton(AF_INET6, "2001:db8:1:2::1", &one);
    inet_pton(AF_INET6, "2001:db8:1:2::2", &two); /* of the same /64 */
    assert_int_equal(0, admission_hold(admission, &one, 0, 0));
    assert_int_equal(0, admission_count(admission));
    assert_int_equal(5000, admission_hold(admission, &one, 0, 5000));
    assert_int_equal(7000, admission_hold(admission, &two, 0, 2000));
    assert_int_equal(7000, admission_hold(admission, &two, 2000, 2000));
    assert_true(admission_enter(admission, &one, 1));
    assert_int_equal(5000, admission_hold(admission, &two, 2000, 0));
    assert_int_equal(0, admission_hold(admission, &one, 5000, 0));
    assert_int_equal(1, admission_count(admission));
    admission_leave(admission, &two);
    assert_int_equal(0, admission_count(admission));
    admission_free(admission);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_address_gets_no_more_connections_than_the_maximum),
        cmocka_unit_test(test_a_network_of_64_bits_counts_as_one_address),
        cmocka_unit_test(test_many_addresses_are_counted_and_forgotten),
        cmocka_unit_test(test_handshakes_come_at_the_rate_after_a_second_at_once),
        cmocka_unit_test(test_threads_count_together),
        cmocka_unit_test(test_bytes_are_counted_for_an_address),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
