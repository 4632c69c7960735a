/* Numbers of heartbeats: which are news, whatever else is sent in the broker's name. */
#include "tests/unit/unit.h"

#include "broker/number_track.h"

#define FAR (UINT64_C(1) << 40)

static uint64_t now;

static enum track_verdict take(struct number_track *track, uint64_t number)
{
    return number_track_take(track, number, now);
}

static void test_what_rises_is_news_and_copies_are_late(void **state UNUSED)
{
    struct number_track track = {0};
    now = SECONDS(100);
    assert_int_equal(TRACK_NEWS, take(&track, 7));
    assert_int_equal(TRACK_LATE, take(&track, 7));
    assert_int_equal(TRACK_LATE, take(&track, 6));
    assert_int_equal(TRACK_NEWS, take(&track, 8));
    assert_int_equal(TRACK_NEWS, take(&track, 8 + TRACK_LEAP));
    now += SECONDS(60); /* it was cut off, and had much to say */
    assert_int_equal(TRACK_NEWS,
                     take(&track, 8 + 2 * TRACK_LEAP + 60000 * TRACK_LEAP_OF_MS));
}

static void test_a_leap_is_not_believed(void **state UNUSED)
{
    struct number_track track = {0};
    now = SECONDS(100);
    assert_int_equal(TRACK_IMPLAUSIBLE, take(&track, UINT64_MAX));
    assert_int_equal(TRACK_IMPLAUSIBLE, take(&track, TRACK_NUMBER_MAX));
    assert_int_equal(TRACK_NEWS, take(&track, 7));
    assert_int_equal(TRACK_IMPLAUSIBLE, take(&track, FAR));
    assert_int_equal(TRACK_IMPLAUSIBLE, take(&track, UINT64_MAX));
    assert_int_equal(TRACK_NEWS, take(&track, 8));
}

/* Beats of the real broker, one a second on two shards, from `number`; how many seconds until one is news. */
static unsigned seconds_until_news(struct number_track *track, uint64_t number,
                                   bool is_disturbed)
{
    for (unsigned second = 1; second < 60; second++) {
        now += SECONDS(1);
        for (unsigned i = 0; is_disturbed && i < 20; i++)
            assert_int_not_equal(TRACK_NEWS, take(track, FAR * (second * 20 + i + 2)));
        enum track_verdict verdict = take(track, ++number);
        if (verdict == TRACK_NEWS)
            return second;
        assert_int_not_equal(TRACK_NEWS, take(track, number));
    }
    return 0;
}

static void test_a_number_that_was_forged_is_taken_back(void **state UNUSED)
{
    struct number_track track = {0};
    now = SECONDS(100);
    take(&track, 7);
    assert_int_equal(TRACK_NEWS, take(&track, 900000));
    assert_int_equal(6, seconds_until_news(&track, 7, false));
    /* the first number that was heard was forged, high or low */
    track = (struct number_track){0};
    take(&track, FAR);
    assert_int_equal(6, seconds_until_news(&track, 7, false));
    track = (struct number_track){0};
    take(&track, 7);
    assert_int_equal(6, seconds_until_news(&track, FAR, false));
    /* others go on forging */
    track = (struct number_track){0};
    take(&track, 7);
    take(&track, 900000);
    assert_in_range(seconds_until_news(&track, 7, true), 6, 12);
}

static void test_a_shard_that_wakes_takes_nothing_back(void **state UNUSED)
{
    struct number_track track = {0};
    now = SECONDS(100);
    take(&track, 200);
    now += SECONDS(30);
    for (unsigned i = 100; i < 200; i++) {
        now += MILLISECONDS(5);
        assert_int_equal(TRACK_LATE, take(&track, i));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_rises_is_news_and_copies_are_late),
        cmocka_unit_test(test_a_leap_is_not_believed),
        cmocka_unit_test(test_a_number_that_was_forged_is_taken_back),
        cmocka_unit_test(test_a_shard_that_wakes_takes_nothing_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
