#include "broker/explain.h"

#include "broker/scanned.h"

#include <event2/buffer.h>

/* A JSON string. Texts are UTF-8 but for lone surrogates, which leave as \uXXXX, as Python writes them;
 * a byte that is no UTF-8 leaves as U+FFFD. */
static void write_text(struct evbuffer *out, struct slice text)
{
    const unsigned char *bytes = (const unsigned char *)text.data;
    evbuffer_add(out, "\"", 1);
    for (size_t i = 0; i < text.len;) {
        unsigned char byte = bytes[i];
        size_t width = byte < 0x80 ? 1 : scanned_utf8_len(bytes + i, text.len - i);
        if (byte == '"' || byte == '\\')
            evbuffer_add_printf(out, "\\%c", byte);
        else if (byte < 0x20 || byte == 0x7f)
            evbuffer_add_printf(out, "\\u%04x", byte);
        else if (width == 0)
            evbuffer_add_printf(out, "\\ufffd");
        else if (byte == 0xed && bytes[i + 1] >= 0xa0)
            evbuffer_add_printf(out, "\\u%04x",
                                0xd000u | (bytes[i + 1] & 0x3fu) << 6 |
                                    (bytes[i + 2] & 0x3fu));
        else
            evbuffer_add(out, bytes + i, width);
        i += max_size(width, 1);
    }
    evbuffer_add(out, "\"", 1);
}

static void write_text_or_null(struct evbuffer *out, struct slice text)
{
    if (text.data == NULL)
        evbuffer_add_printf(out, "null");
    else
        write_text(out, text);
}

static void write_rooms(struct evbuffer *out, const struct message *message)
{
    if (!message->rooms_known) {
        evbuffer_add_printf(out, "null");
        return;
    }
    evbuffer_add_printf(out, "[");
    for (size_t i = 0; i < message->room_count; i++) {
        evbuffer_add(out, ",", i > 0 ? 1 : 0);
        write_text(out, message->rooms[i]);
    }
    evbuffer_add_printf(out, "]");
}

static void write_route(struct evbuffer *out, struct slice channel,
                        const struct message *message, const struct partition_map *map,
                        const struct partition_map_config *config)
{
    uint16_t partitions[2];
    size_t count = partition_map_route(map, channel, message, partitions);
    evbuffer_add_printf(out, ",\"partitions\":[");
    for (size_t i = 0; i < count; i++)
        evbuffer_add_printf(out, "%s%u", i > 0 ? "," : "", partitions[i]);
    evbuffer_add_printf(out, "],\"shards\":[");
    for (size_t i = 0; i < count; i++) {
        uint16_t shard = partition_map_shard(map, partitions[i]);
        if (shard == PARTITION_NO_SHARD)
            continue;
        evbuffer_add(out, ",", i > 0 ? 1 : 0);
        write_text(out, config->shards[shard].name);
    }
    evbuffer_add_printf(out, "]");
}

void explain_write(struct evbuffer *out, struct slice channel,
                   const struct message *message, const struct partition_map *map,
                   const struct partition_map_config *config)
{
    bool is_opaque = message->encoding == MESSAGE_OPAQUE;
    evbuffer_add_printf(out, "{\"encoding\":\"%s\",\"dialect\":",
                        message_encoding_name(message->encoding));
    write_text_or_null(
        out, is_opaque ? slice_of(NULL, 0)
                       : slice_from_text(message_dialect_name(message->dialect)));
    evbuffer_add_printf(
        out, ",\"method\":\"%s\",\"namespace\":", message_method_name(message->method));
    write_text_or_null(out, message->namespace);
    evbuffer_add_printf(out, ",\"rooms\":");
    write_rooms(out, message);
    evbuffer_add_printf(out, ",\"sid\":");
    write_text_or_null(out, message->sid);
    evbuffer_add_printf(out, ",\"host_id\":");
    write_text_or_null(out, message->host_id);
    evbuffer_add_printf(out, ",\"callback\":%s,\"plain\":%s",
                        message->has_callback ? "true" : "false",
                        message->is_plain ? "true" : "false");
    write_route(out, channel, message, map, config);
    evbuffer_add_printf(out, ",\"refused\":");
    write_text_or_null(out, message_is_refused(message)
                                ? slice_from_text(message->refused)
                                : slice_of(NULL, 0));
    evbuffer_add_printf(out, "}\n");
}
