/*
 * The state of the broker as JSON and as text: one writer for the admin port, the page and ctl.
 */
#pragma once

#include <stdbool.h>

struct broker;
struct evbuffer;

/* How many other brokers have a different map (agreement.h). */
unsigned broker_status_differing(struct broker *broker);

/* The whole: what GET /status.json and `ctl status --json` give. */
void broker_status_write_json(struct broker *broker, struct evbuffer *out);

/* For `ctl`: a table of lines, or one JSON document. */
void broker_status_write(struct broker *broker, struct evbuffer *out);
void broker_status_write_clients(struct broker *broker, struct evbuffer *out, bool json);
void broker_status_write_shards(struct broker *broker, struct evbuffer *out, bool json);
void broker_status_write_interest(struct broker *broker, struct evbuffer *out, bool json);
void broker_status_write_rooms(struct broker *broker, struct evbuffer *out, bool json);
