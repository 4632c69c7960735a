/* Proves that what threads count is summed exactly and told as Prometheus text 0.0.4, by the rows of a table. */
#include "tests/unit/unit.h"

#include "shared/metrics.h"

#include <event2/buffer.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

static const char *color_text(int value)
{
    static const char *const texts[] = {"red", "bl\"ue\\\n", "green"};
    return texts[value];
}

static const struct metric_buckets small = {{10, 20}, 2, 10};

enum {
    M_PLAIN,
    M_BY,
    M_GAUGE,
    M_HISTOGRAM,
    M_COLLECTED,
    M_COLLECTED_PLAIN,
    METRIC_COUNT
};

static const struct metric_row rows[METRIC_COUNT] = {
    [M_PLAIN] = METRIC_ROW(METRIC_COUNTER, "t_plain_total", "Plain \\ one."),
    [M_BY] = METRIC_ROW(METRIC_COUNTER, "t_by_total", "By color.",
                        METRIC_BY("color", color_text, 3)),
    [M_GAUGE] = METRIC_ROW(METRIC_GAUGE, "t_open", "Open things."),
    [M_HISTOGRAM] =
        METRIC_ROW(METRIC_HISTOGRAM, "t_seconds", "Time.", METRIC_BUCKETS(small)),
    [M_COLLECTED] = METRIC_ROW(METRIC_COLLECTED_GAUGE, "t_load", "Load.",
                               METRIC_LABELS("upstream", "endpoint")),
    [M_COLLECTED_PLAIN] = METRIC_ROW(METRIC_COLLECTED_COUNTER, "t_seen_total", "Seen."),
};

static int begin(void **state)
{
    (void)state;
    metrics_init(rows, METRIC_COUNT);
    return 0;
}

static int end(void **state)
{
    (void)state;
    metrics_cleanup();
    return 0;
}

static char *page(void)
{
    struct evbuffer *out = evbuffer_new();
    metrics_write(out);
    size_t len = evbuffer_get_length(out);
    char *text = must_memdup(evbuffer_pullup(out, -1), len);
    evbuffer_free(out);
    return text;
}

static void collect(struct metrics_page *to, int metric, void *argument)
{
    assert_int_equal(M_COLLECTED, metric);
    const struct slice one[] = {SLICE("chat"), SLICE("e\"1\n\xff")};
    const struct slice other[] = {SLICE("chat"), SLICE("e2")};
    metrics_sample(to, *(double *)argument, one);
    metrics_sample(to, 3, other);
}

static void test_the_page_is_exact(void **state)
{
    (void)state;
    double load = 1.5;
    metrics_set_collector(M_COLLECTED, collect, &load);
    metrics_add(M_PLAIN, 2);
    metrics_add_by(M_BY, 2, 5);
    metrics_add(M_GAUGE, 3);
    metrics_add(M_GAUGE, -4);
    metrics_observe(M_HISTOGRAM, 10);
    metrics_observe(M_HISTOGRAM, 11);
    metrics_observe(M_HISTOGRAM, 99);
    char *text = page();
    assert_string_equal(
        "# HELP t_plain_total Plain \\\\ one.\n"
        "# TYPE t_plain_total counter\n"
        "t_plain_total 2\n"
        "# HELP t_by_total By color.\n"
        "# TYPE t_by_total counter\n"
        "t_by_total{color=\"red\"} 0\n"
        "t_by_total{color=\"bl\\\"ue\\\\\\n\"} 0\n"
        "t_by_total{color=\"green\"} 5\n"
        "# HELP t_open Open things.\n"
        "# TYPE t_open gauge\n"
        "t_open -1\n"
        "# HELP t_seconds Time.\n"
        "# TYPE t_seconds histogram\n"
        "t_seconds_bucket{le=\"1\"} 1\n"
        "t_seconds_bucket{le=\"2\"} 2\n"
        "t_seconds_bucket{le=\"+Inf\"} 3\n"
        "t_seconds_sum 12\n"
        "t_seconds_count 3\n"
        "# HELP t_load Load.\n"
        "# TYPE t_load gauge\n"
        "t_load{upstream=\"chat\",endpoint=\"e\\\"1\\n\xef\xbf\xbd\"} 1.5\n"
        "t_load{upstream=\"chat\",endpoint=\"e2\"} 3\n"
        "# HELP t_seen_total Seen.\n"
        "# TYPE t_seen_total counter\n",
        text);
    free(text);
}

static void *count(void *argument)
{
    (void)argument;
    for (int i = 0; i < 100000; i++) {
        metrics_add(M_PLAIN, 1);
        metrics_add_by(M_BY, i % 3, 1);
    }
    metrics_observe(M_HISTOGRAM, 1);
    return NULL;
}

static void test_threads_lose_no_count_even_after_their_end(void **state)
{
    (void)state;
    pthread_t threads[4];
    for (size_t i = 0; i < ARRAY_LEN(threads); i++)
        pthread_create(&threads[i], NULL, count, NULL);
    int64_t before = 0;
    for (int i = 0; i < 20; i++) { /* a scrape in the middle sees a sum that only grows */
        int64_t now = metrics_sum(M_PLAIN);
        assert_true(now >= before);
        before = now;
    }
    for (size_t i = 0; i < ARRAY_LEN(threads); i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(400000, metrics_sum(M_PLAIN));
    assert_int_equal(400000, metrics_sum(M_BY));
    assert_int_equal(4 * 33334, metrics_sum_by(M_BY, 0));
    assert_int_equal(4, metrics_sum(M_HISTOGRAM));
}

static void test_counting_without_a_table_does_nothing(void **state)
{
    (void)state;
    metrics_cleanup();
    metrics_add(12345, 1);
    metrics_observe(-1, 1);
    metrics_init(rows, METRIC_COUNT);
    assert_int_equal(0, metrics_sum(M_PLAIN));
    metrics_add(M_PLAIN, 1);
    assert_int_equal(1, metrics_sum(M_PLAIN));
}

static void test_print_has_one_row_for_each_metric(void **state)
{
    (void)state;
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    metrics_print(rows, METRIC_COUNT, out);
    fclose(out);
    assert_string_equal("t_plain_total\tcounter\t-\tPlain \\ one.\n"
                        "t_by_total\tcounter\tcolor\tBy color.\n"
                        "t_open\tgauge\t-\tOpen things.\n"
                        "t_seconds\thistogram\t-\tTime.\n"
                        "t_load\tgauge\tupstream,endpoint\tLoad.\n"
                        "t_seen_total\tcounter\t-\tSeen.\n",
                        text);
    free(text);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
    const struct CMUnitTest tests[] = {
        TEST(test_the_page_is_exact),
        TEST(test_threads_lose_no_count_even_after_their_end),
        TEST(test_counting_without_a_table_does_nothing),
        TEST(test_print_has_one_row_for_each_metric),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
