#include "tests/unit/unit.h"

#include "proxy/endpoint_orders.h"

static bool drains(const struct endpoint_orders *orders, const char *identity,
                   unsigned port)
{
    return endpoint_orders_of(orders, slice_from_text(identity), port).drains;
}

static int64_t weight(const struct endpoint_orders *orders, const char *identity)
{
    return endpoint_orders_of(orders, slice_from_text(identity), 1).weight;
}

static void test_without_an_order_all_is_as_listed(void **state)
{
    (void)state;
    struct endpoint_orders orders = {0};
    assert_false(drains(&orders, "a", 1));
    assert_int_equal(weight(&orders, "a"), -1);
    assert_int_equal(endpoint_orders_undrain(&orders, SLICE("a")), 0);
    endpoint_orders_cleanup(&orders);
}

static void test_an_order_is_for_one_identity_and_port(void **state)
{
    (void)state;
    struct endpoint_orders orders = {0};
    endpoint_orders_drain(&orders, SLICE("a"), 1);
    endpoint_orders_drain(&orders, SLICE("a"), 1);
    endpoint_orders_weigh(&orders, SLICE("b"), 1, 0);
    assert_int_equal(orders.len, 2);
    assert_true(drains(&orders, "a", 1));
    assert_false(drains(&orders, "a", 2));
    assert_false(drains(&orders, "b", 1));
    assert_int_equal(weight(&orders, "a"), -1);
    assert_int_equal(weight(&orders, "b"), 0);
    endpoint_orders_cleanup(&orders);
}

static void test_orders_that_are_taken_back_are_forgotten(void **state)
{
    (void)state;
    struct endpoint_orders orders = {0};
    endpoint_orders_drain(&orders, SLICE("a"), 1);
    endpoint_orders_drain(&orders, SLICE("a"), 2);
    endpoint_orders_drain(&orders, SLICE("b"), 1);
    endpoint_orders_weigh(&orders, SLICE("b"), 1, 7);
    assert_int_equal(endpoint_orders_undrain(&orders, SLICE("a")), 2);
    assert_int_equal(endpoint_orders_undrain(&orders, SLICE("b")), 1);
    assert_int_equal(orders.len, 1);
    assert_int_equal(weight(&orders, "b"), 7);
    endpoint_orders_weigh(&orders, SLICE("b"), 1, -1);
    assert_int_equal(orders.len, 0);
    endpoint_orders_cleanup(&orders);
}

static void test_an_upstream_that_drains_no_more_has_no_draining_endpoint(void **state)
{
    (void)state;
    struct endpoint_orders orders = {0};
    endpoint_orders_drain(&orders, SLICE("a"), 1);
    endpoint_orders_drain_all(&orders, true);
    assert_true(drains(&orders, "a", 1));
    assert_true(drains(&orders, "of tomorrow", 1));
    endpoint_orders_drain_all(&orders, false);
    assert_false(drains(&orders, "a", 1));
    assert_int_equal(orders.len, 0);
    endpoint_orders_cleanup(&orders);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_without_an_order_all_is_as_listed),
        cmocka_unit_test(test_an_order_is_for_one_identity_and_port),
        cmocka_unit_test(test_orders_that_are_taken_back_are_forgotten),
        cmocka_unit_test(test_an_upstream_that_drains_no_more_has_no_draining_endpoint),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
