#include "broker/link_reader.h"

#include <hiredis/hiredis.h>
#include <stdlib.h>

/* The reader moves what is left to its front after each reply of a kilobyte or more; fed in small pieces
 * there is little to move. */
#define FEED_SIZE ((size_t)4096)

struct link_reader {
    redisReader *redis;
    size_t reply_max;
    struct link_reader_callbacks callbacks;
    struct link_reply reply;
};

/* hiredis takes NULL for "out of memory", and never looks at what else we return. */
static char an_object;

static struct link_reader *reader_of(const redisReadTask *task)
{
    return task->privdata;
}

static bool is_top(const redisReadTask *task)
{
    return task->parent == NULL;
}

static bool is_second_level(const redisReadTask *task)
{
    return task->parent != NULL && task->parent->parent == NULL;
}

static void *create_string(const redisReadTask *task, char *text, size_t len)
{
    struct link_reader *reader = reader_of(task);
    struct link_reply *reply = &reader->reply;
    size_t kept = min_size(len, LINK_READER_TEXT_MAX);
    if (is_top(task) || (is_second_level(task) && task->idx == 0)) {
        if (is_top(task))
            reply->type = task->type == REDIS_REPLY_STATUS  ? LINK_REPLY_STATUS
                          : task->type == REDIS_REPLY_ERROR ? LINK_REPLY_ERROR
                                                            : LINK_REPLY_OTHER;
        memcpy(reply->text, text, kept);
        reply->text_len = kept;
    } else if (is_second_level(task) && task->idx == 1) {
        memcpy(reply->channel, text, kept);
        reply->channel_len = kept;
    } else if (is_second_level(task) && task->idx == 2 &&
               slice_equals(slice_of(reply->text, reply->text_len), SLICE("message"))) {
        reply->is_message = true;
        reader->callbacks.on_message(reader->callbacks.context,
                                     slice_of(reply->channel, reply->channel_len),
                                     slice_of(text, len));
    }
    return &an_object;
}

static void *create_array(const redisReadTask *task, int elements UNUSED)
{
    if (is_top(task))
        reader_of(task)->reply.type = LINK_REPLY_ARRAY;
    return &an_object;
}

static void *create_integer(const redisReadTask *task, long long number)
{
    struct link_reply *reply = &reader_of(task)->reply;
    if (is_top(task)) {
        reply->type = LINK_REPLY_INTEGER;
        reply->integer = number;
    }
    return &an_object;
}

static void *create_nil(const redisReadTask *task)
{
    if (is_top(task))
        reader_of(task)->reply.type = LINK_REPLY_OTHER;
    return &an_object;
}

static void free_object(void *object UNUSED)
{
}

static redisReplyObjectFunctions functions = {create_string, create_array, create_integer,
                                              create_nil, free_object};

struct link_reader *link_reader_new(size_t reply_max,
                                    const struct link_reader_callbacks *callbacks)
{
    struct link_reader *reader = must_calloc(1, sizeof(*reader));
    reader->redis = redisReaderCreateWithFunctions(&functions);
    check(reader->redis != NULL);
    redisReaderSetPrivdata(reader->redis, reader);
    reader->reply_max = reply_max;
    reader->callbacks = *callbacks;
    return reader;
}

void link_reader_free(struct link_reader *reader)
{
    redisReaderFree(reader->redis);
    free(reader);
}

static void reply_reset(struct link_reply *reply)
{
    /* not the texts: they are long, and their lengths say what is in them */
    reply->type = LINK_REPLY_OTHER;
    reply->integer = 0;
    reply->text_len = reply->channel_len = 0;
    reply->is_message = false;
}

bool link_reader_feed(struct link_reader *reader, struct slice bytes)
{
    while (bytes.len > 0) {
        struct slice piece = slice_to(bytes, FEED_SIZE);
        bytes = slice_from(bytes, piece.len);
        if (redisReaderFeed(reader->redis, piece.data, piece.len) != REDIS_OK)
            return false;
        for (;;) {
            void *object = NULL;
            if (redisReaderGetReply(reader->redis, &object) != REDIS_OK)
                return false;
            if (object == NULL)
                break;
            bool goes_on =
                reader->callbacks.on_reply(reader->callbacks.context, &reader->reply);
            reply_reset(&reader->reply);
            if (!goes_on)
                return true;
        }
        if (reader->redis->len - reader->redis->pos > reader->reply_max)
            return false;
    }
    return true;
}
