#include "broker/number_track.h"

static bool is_within_leap(uint64_t from, uint64_t number, uint64_t elapsed)
{
    uint64_t milliseconds = elapsed / MILLISECONDS(1);
    return number - from <= TRACK_LEAP + milliseconds * TRACK_LEAP_OF_MS;
}

static enum track_verdict take(struct number_track *track, uint64_t number, uint64_t now)
{
    *track = (struct number_track){.newest = number, .heard_at = now};
    return TRACK_NEWS;
}

static bool goes_on(const struct number_rise *rise, uint64_t now)
{
    return rise->last != 0 && now - rise->at <= TRACK_BREAK;
}

static bool continues(const struct number_rise *rise, uint64_t number, uint64_t now)
{
    return goes_on(rise, now) && number >= rise->last &&
           is_within_leap(rise->last, number, now - rise->at);
}

/* The rise that the number continues, or a place for a new one: what has ended, else what is shortest. */
static struct number_rise *find_rise(struct number_track *track, uint64_t number,
                                     uint64_t now)
{
    struct number_rise *place = NULL;
    uint64_t shortest = UINT64_MAX;
    for (unsigned i = 0; i < TRACK_RISES_MAX; i++) {
        struct number_rise *rise = &track->rises[i];
        if (continues(rise, number, now))
            return rise;
        uint64_t length = goes_on(rise, now) ? now - rise->since + 1 : 0;
        if (length < shortest) {
            shortest = length;
            place = rise;
        }
    }
    return place;
}

/* A number that is no news: does it show how the broker counts? */
static bool is_steady(struct number_track *track, uint64_t number, uint64_t now)
{
    struct number_rise *rise = find_rise(track, number, now);
    if (!continues(rise, number, now))
        rise->since = now;
    else if (number == rise->last)
        return false; /* a copy from another shard */
    rise->last = number;
    rise->at = now;
    return now - track->heard_at > TRACK_SILENT && now - rise->since >= TRACK_STEADY;
}

enum track_verdict number_track_take(struct number_track *track, uint64_t number,
                                     uint64_t now)
{
    if (number == 0 || number >= TRACK_NUMBER_MAX)
        return TRACK_IMPLAUSIBLE;
    if (number == track->newest)
        return TRACK_LATE;
    bool is_rising = number > track->newest;
    if (track->newest == 0 ||
        (is_rising && is_within_leap(track->newest, number, now - track->heard_at)))
        return take(track, number, now);
    if (is_steady(track, number, now))
        return take(track, number, now);
    return is_rising ? TRACK_IMPLAUSIBLE : TRACK_LATE;
}
