#include "tests/simulation/payload.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[CHANNEL_COUNT] = {
    "flask-socketio", "news",    "{tag}other", "sought0", "sought1",
    "sought2",        "sought3", "sought4",    "sought5"};

const char *channel_name(int channel)
{
    return names[channel];
}

int channel_find(const char *name, size_t len)
{
    for (int i = 0; i < CHANNEL_COUNT; i++)
        if (strlen(names[i]) == len && memcmp(names[i], name, len) == 0)
            return i;
    return CHANNEL_COUNT;
}

static void add_text(struct bytes *out, const char *text)
{
    bytes_add(out, text, strlen(text));
}

static void add_filler(struct bytes *out, size_t filler)
{
    static const char block[64] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-+";
    while (filler > 0) {
        size_t len = min_size(filler, sizeof(block));
        bytes_add(out, block, len);
        filler -= len;
    }
}

/* BINUNICODE and its length; the text follows. */
static void add_pickle_head(struct bytes *out, size_t len)
{
    unsigned char head[5] = {'X', (unsigned char)len, (unsigned char)(len >> 8),
                             (unsigned char)(len >> 16), (unsigned char)(len >> 24)};
    bytes_add(out, head, sizeof(head));
}

static void add_pickle_text(struct bytes *out, const char *text)
{
    add_pickle_head(out, strlen(text));
    add_text(out, text);
}

static void emit_pickle(struct bytes *out, const char *room, const char *mark,
                        const char *host_id, size_t filler)
{
    bytes_add(out, "\x80\x02}(", 4);
    add_pickle_text(out, "method");
    add_pickle_text(out, "emit");
    add_pickle_text(out, "event");
    add_pickle_text(out, "ev");
    add_pickle_text(out, "data");
    add_pickle_head(out, strlen(mark) + filler);
    add_text(out, mark);
    add_filler(out, filler);
    add_pickle_text(out, "namespace");
    add_pickle_text(out, "/");
    add_pickle_text(out, "room");
    if (room != NULL)
        add_pickle_text(out, room);
    else
        add_text(out, "N");
    add_pickle_text(out, "skip_sid");
    add_text(out, "N");
    add_pickle_text(out, "callback");
    add_text(out, "N");
    add_pickle_text(out, "host_id");
    add_pickle_text(out, host_id);
    add_text(out, "u.");
}

static void emit_json(struct bytes *out, const char *room, const char *mark,
                      const char *host_id, size_t filler)
{
    char text[512];
    snprintf(
        text, sizeof(text),
        "{\"method\": \"emit\", \"event\": \"ev\", \"binary\": false, \"data\": \"%s",
        mark);
    add_text(out, text);
    add_filler(out, filler);
    snprintf(text, sizeof(text),
             "\", \"namespace\": \"/\", \"room\": %s%s%s, \"skip_sid\": null, "
             "\"callback\": null, \"host_id\": \"%s\"}",
             room != NULL ? "\"" : "", room != NULL ? room : "null",
             room != NULL ? "\"" : "", host_id);
    add_text(out, text);
}

void payload_emit(struct bytes *out, enum payload_form form, int room, unsigned number,
                  const char *host_id, size_t filler)
{
    char name[16];
    char mark[16];
    snprintf(name, sizeof(name), "room%d", room);
    snprintf(mark, sizeof(mark), "~%u~", number);
    const char *to = room == ROOM_EVERYBODY ? NULL : name;
    if (form == PAYLOAD_PICKLE)
        emit_pickle(out, to, mark, host_id, filler);
    else
        emit_json(out, to, mark, host_id, filler);
}

void payload_plain(struct bytes *out, unsigned number, size_t filler)
{
    char mark[16];
    snprintf(mark, sizeof(mark), "~%u~", number);
    add_text(out, mark);
    add_filler(out, filler);
}

unsigned payload_number(const char *data, size_t len)
{
    const char *begin = memchr(data, '~', len);
    if (begin == NULL)
        return UINT32_MAX;
    unsigned number = 0;
    for (const char *at = begin + 1; at < data + len && at < begin + 10; at++) {
        if (*at == '~')
            return at > begin + 1 ? number : UINT32_MAX;
        if (*at < '0' || *at > '9')
            break;
        number = number * 10 + (unsigned)(*at - '0');
    }
    return UINT32_MAX;
}
