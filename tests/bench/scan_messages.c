/*
 * What reading one message costs, without a socket: nanoseconds per scan, the best of several rounds.
 *
 *     scan_messages  ─▶ one line each:  pickle 200 B │ json 200 B │ pickle, object of 10 KB │ json, the same
 *
 * The payloads are what python-socketio writes: 5.7 the pickles (protocol 4), 5.14 the JSON.
 */
#include "broker/message.h"

#include <event2/buffer.h>
#include <stdio.h>
#include <time.h>

#define ROUNDS      9
#define ROUND_BYTES ((size_t)20 * 1000 * 1000)

static void add_text(struct evbuffer *out, const char *text)
{
    size_t len = strlen(text);
    evbuffer_add_printf(out, "\x8c%c%s\x94", (int)len, text);
}

/* What is around `data` in a message; the data is added by the caller in between. */
static void begin_pickle(struct evbuffer *out)
{
    evbuffer_add(out, "\x80\x04}\x94(", 5);
    add_text(out, "method");
    add_text(out, "emit");
    add_text(out, "event");
    add_text(out, "message");
    add_text(out, "data");
}

static void end_pickle(struct evbuffer *out)
{
    add_text(out, "namespace");
    add_text(out, "/");
    add_text(out, "room");
    add_text(out, "room-00017");
    add_text(out, "skip_sid");
    evbuffer_add(out, "N", 1);
    add_text(out, "callback");
    evbuffer_add(out, "N", 1);
    add_text(out, "host_id");
    add_text(out, "0123456789abcdef0123456789abcdef");
    evbuffer_add(out, "u.", 2);
}

static void begin_json(struct evbuffer *out)
{
    evbuffer_add_printf(out, "{\"method\": \"emit\", \"event\": \"message\", \"data\": ");
}

static void end_json(struct evbuffer *out)
{
    evbuffer_add_printf(out, ", \"binary\": false, \"namespace\": \"/\", \"room\": "
                             "\"room-00017\", \"skip_sid\": null, \"callback\": null, "
                             "\"host_id\": \"0123456789abcdef0123456789abcdef\"}");
}

/* A row of a table, as applications send them: about 100 bytes. */
static void add_pickle_row(struct evbuffer *out, unsigned i)
{
    char text[64];
    evbuffer_add(out, "}\x94(", 3);
    add_text(out, "id");
    evbuffer_add_printf(out, "M%c%c", (int)(i % 256), 1);
    add_text(out, "name");
    snprintf(text, sizeof(text), "user number %u", i);
    add_text(out, text);
    add_text(out, "score");
    evbuffer_add(out, "G@\x09!\xfbTD-\x18", 9);
    add_text(out, "tags");
    evbuffer_add(out, "]\x94(", 3);
    add_text(out, "red");
    add_text(out, "green");
    evbuffer_add(out, "e", 1);
    add_text(out, "active");
    evbuffer_add(out, "\x88u", 2);
}

static void add_json_row(struct evbuffer *out, unsigned i)
{
    evbuffer_add_printf(out,
                        "%s{\"id\": %u, \"name\": \"user number %u\", \"score\": "
                        "3.14159265358979, \"tags\": [\"red\", \"green\"], \"active\": "
                        "true}",
                        i > 0 ? ", " : "", 256 + i, i);
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void measure(const char *name, struct evbuffer *payload)
{
    struct scan_scratch *scratch = scan_scratch_new();
    struct slice bytes =
        slice_of(evbuffer_pullup(payload, -1), evbuffer_get_length(payload));
    size_t count = ROUND_BYTES / bytes.len;
    double best = 0;
    for (unsigned round = 0; round < ROUNDS; round++) {
        uint64_t start = now_ns();
        for (size_t i = 0; i < count; i++) {
            struct message message;
            message_scan(bytes, &message_policy_default, scratch, &message);
            check(message.method == METHOD_EMIT && message.room_count == 1);
        }
        double took = (double)(now_ns() - start) / (double)count;
        if (round == 0 || took < best)
            best = took;
    }
    printf("%-18s %6zu bytes %8.0f ns\n", name, bytes.len, best);
    scan_scratch_free(scratch);
    evbuffer_free(payload);
}

int main(void)
{
    char text[101];
    memset(text, 'x', 100);
    text[100] = '\0';
    struct evbuffer *pickle = evbuffer_new();
    begin_pickle(pickle);
    add_text(pickle, text);
    end_pickle(pickle);
    measure("pickle small", pickle);

    struct evbuffer *json = evbuffer_new();
    begin_json(json);
    evbuffer_add_printf(json, "[\"%s\"]", text);
    end_json(json);
    measure("json small", json);

    pickle = evbuffer_new();
    begin_pickle(pickle);
    evbuffer_add(pickle, "]\x94(", 3);
    for (unsigned i = 0; evbuffer_get_length(pickle) < 10 * 1024; i++)
        add_pickle_row(pickle, i);
    evbuffer_add(pickle, "e", 1);
    end_pickle(pickle);
    measure("pickle object", pickle);

    json = evbuffer_new();
    begin_json(json);
    evbuffer_add(json, "[[", 2);
    for (unsigned i = 0; evbuffer_get_length(json) < 10 * 1024; i++)
        add_json_row(json, i);
    evbuffer_add(json, "]]", 2);
    end_json(json);
    measure("json object", json);
    return 0;
}
