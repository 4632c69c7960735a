#include "broker/replay.h"

#include <stdlib.h>

#define CAPACITY_FIRST 16

static struct replay_entry *entry_at(const struct replay *replay, unsigned index)
{
    return &replay->entries[(replay->first + index) % replay->capacity];
}

static void grow(struct replay *replay)
{
    unsigned capacity = replay->capacity > 0 ? replay->capacity * 2 : CAPACITY_FIRST;
    struct replay_entry *entries = must_calloc(capacity, sizeof(*entries));
    for (unsigned i = 0; i < replay->count; i++)
        entries[i] = *entry_at(replay, i);
    free(replay->entries);
    replay->entries = entries;
    replay->first = 0;
    replay->capacity = capacity;
}

static void remove_first(struct replay *replay)
{
    struct span span = entry_at(replay, 0)->span;
    replay->begin += span.len;
    replay->bytes -= span.len;
    replay->first = (replay->first + 1) % replay->capacity;
    replay->count--;
    span_release(span);
}

void replay_cleanup(struct replay *replay)
{
    while (replay->count > 0)
        remove_first(replay);
    free(replay->entries);
    *replay = (struct replay){0};
}

void replay_append(struct replay *replay, struct span span, bool is_delivery)
{
    replay->bytes += span.len;
    if (replay->count > 0) {
        struct replay_entry *last = entry_at(replay, replay->count - 1);
        if (last->is_delivery == is_delivery && span_touches(last->span, span)) {
            last->span.len += span.len;
            return;
        }
    }
    if (replay->count == replay->capacity)
        grow(replay);
    span_hold(span);
    *entry_at(replay, replay->count++) = (struct replay_entry){span, is_delivery};
}

/* A number behind *at, up to the line's end; the bytes are our own. */
static size_t line_number(struct slice bytes, size_t *at)
{
    size_t number = 0;
    check(*at < bytes.len);
    for ((*at)++; *at + 1 < bytes.len && bytes.data[*at] != '\r'; (*at)++)
        number = number * 10 + (size_t)(bytes.data[*at] - '0');
    *at += 2;
    return number;
}

/* Where the message that begins at `at` ends. */
static size_t message_end(struct slice bytes, size_t at)
{
    size_t count = line_number(bytes, &at);
    for (size_t i = 0; i < count; i++) {
        size_t len = line_number(bytes, &at);
        at += len + 2;
    }
    check(at <= bytes.len);
    return at;
}

void replay_trim(struct replay *replay, uint64_t acknowledged)
{
    while (replay->count > 0) {
        struct replay_entry *first = entry_at(replay, 0);
        if (replay->begin + first->span.len > acknowledged)
            break;
        remove_first(replay);
    }
    if (replay->count == 0 || replay->begin >= acknowledged)
        return;
    struct replay_entry *first = entry_at(replay, 0);
    if (!first->is_delivery)
        return;
    size_t limit = (size_t)(acknowledged - replay->begin);
    struct slice bytes = span_bytes(first->span);
    size_t cut = 0;
    for (size_t end; cut < bytes.len && (end = message_end(bytes, cut)) <= limit;)
        cut = end;
    first->span.start += cut;
    first->span.len -= cut;
    replay->begin += cut;
    replay->bytes -= cut;
}

void replay_cut(struct replay *replay, uint64_t len)
{
    while (replay->count > 0 && replay->begin + replay->bytes > len) {
        struct replay_entry *last = entry_at(replay, replay->count - 1);
        uint64_t over = replay->begin + replay->bytes - len;
        if (over < last->span.len) {
            last->span.len -= (size_t)over;
            replay->bytes -= (size_t)over;
            return;
        }
        replay->bytes -= last->span.len;
        span_release(last->span);
        replay->count--;
    }
}

void replay_trim_messages(struct replay *replay, uint64_t seen)
{
    while (replay->count > 0 && replay->taken < seen) {
        struct replay_entry *first = entry_at(replay, 0);
        if (!first->is_delivery) {
            remove_first(replay);
            continue;
        }
        struct slice bytes = span_bytes(first->span);
        size_t cut = 0;
        for (; cut < bytes.len && replay->taken < seen; replay->taken++)
            cut = message_end(bytes, cut);
        if (cut == bytes.len) {
            remove_first(replay);
            continue;
        }
        first->span.start += cut;
        first->span.len -= cut;
        replay->begin += cut;
        replay->bytes -= cut;
    }
}

void replay_end(struct replay *replay)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < replay->count; i++) {
        struct replay_entry entry = *entry_at(replay, i);
        if (entry.is_delivery) {
            *entry_at(replay, kept++) = entry;
            continue;
        }
        replay->bytes -= entry.span.len;
        span_release(entry.span);
    }
    replay->count = kept;
}

bool replay_take(struct replay *replay, struct span *span)
{
    if (replay->count == 0)
        return false;
    *span = entry_at(replay, 0)->span;
    span_hold(*span);
    remove_first(replay);
    return true;
}

void replay_next_message(struct slice *bytes, struct replay_message *message)
{
    size_t at = 0;
    struct slice words[4] = {{0}};
    size_t count = line_number(*bytes, &at);
    check(count == 3 || count == 4);
    for (size_t i = 0; i < count; i++) {
        size_t len = line_number(*bytes, &at);
        words[i] = slice_to(slice_from(*bytes, at), len);
        at += len + 2;
    }
    check(at <= bytes->len);
    *message = (struct replay_message){
        .frame = slice_to(*bytes, at),
        .pattern = count == 4 ? words[1] : slice_of(NULL, 0),
        .channel = words[count - 2],
        .payload = words[count - 1],
    };
    *bytes = slice_from(*bytes, at);
}

unsigned replay_count_messages(struct slice bytes)
{
    unsigned count = 0;
    struct replay_message message;
    while (bytes.len > 0) {
        replay_next_message(&bytes, &message);
        count += !slice_equals(message.payload, SLICE(HEARTBEAT_PAYLOAD));
    }
    return count;
}

unsigned replay_messages(const struct replay *replay)
{
    unsigned count = 0;
    for (unsigned i = 0; i < replay->count; i++) {
        const struct replay_entry *entry = entry_at(replay, i);
        if (entry->is_delivery)
            count += replay_count_messages(span_bytes(entry->span));
    }
    return count;
}
