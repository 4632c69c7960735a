/*
 * What pods publish, and how a message is known again in any dialect: its number stands between tildes, "~17~".
 */
#pragma once

#include "tests/simulation/wire.h"

/* Those from CHANNEL_SOUGHT on are subscribed now and then. */
enum sim_channel {
    CHANNEL_PODS,
    CHANNEL_NEWS,
    CHANNEL_OTHER,
    CHANNEL_SOUGHT,
    CHANNEL_COUNT = CHANNEL_SOUGHT + 6
};

#define ROOM_EVERYBODY 0 /* others are "room1", "room2" … */
#define ROOMS_MAX      8

enum payload_form { PAYLOAD_PICKLE, PAYLOAD_JSON, PAYLOAD_FORM_COUNT };

const char *channel_name(int channel);
/* CHANNEL_COUNT: none of ours. */
int channel_find(const char *name, size_t len);

/* One message of python-socketio that emits to a room, `filler` bytes longer than it must be. */
void payload_emit(struct bytes *out, enum payload_form form, int room, unsigned number,
                  const char *host_id, size_t filler);
/* Of any other channel. */
void payload_plain(struct bytes *out, unsigned number, size_t filler);

/* UINT32_MAX: none. */
unsigned payload_number(const char *data, size_t len);
