/*
 * Answers that are written in parts, over several turns of the loop where need be (EXEC). See client.h.
 *
 *     client_begin_answer ─▶ *3  :1  :1 ─────── :0 ─▶ client_end_answer ─▶ what is held
 *     delivered meanwhile      └─▶ held ─▶ held ─┘
 *
 * A message between the parts would be read as one of them.
 */
#include "broker/client_parts.h"

#include "broker/turn.h"

#include <event2/buffer.h>

void client_begin_answer(struct client *client)
{
    client->is_answering = true;
}

void client_queue_messages(struct client *client, struct span span, uint64_t now)
{
    struct slice rest = span_bytes(span);
    while (rest.len > 0) {
        struct span one = {span.chunk, span.start + span.len - rest.len, 0};
        struct replay_message message;
        replay_next_message(&rest, &message);
        one.len = message.frame.len;
        client_queue(client, one, true, now);
    }
}

size_t client_waiting_bytes(const struct client *client)
{
    return client->output.bytes + client->held.bytes;
}

void client_release_held(struct client *client)
{
    client->is_answering = false;
    for (unsigned i = 0; i < client->held.count; i++) {
        const struct output_entry *entry = output_entry_get(&client->held, i);
        client_queue_messages(client, entry->span, entry->queued_at);
    }
    output_cleanup(&client->held);
}

void client_end_answer(struct client *client, struct evbuffer *reply)
{
    if (!client->is_answering)
        return;
    if (client->held.count > 0) {
        client_reply(client, reply);
        client_make_dirty(client);
    }
    client_release_held(client);
}
