#include "tests/simulation/client.h"

#include "tests/simulation/oracle.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPECTED_MAX 4096
#define EARLIER_MAX  8 /* as in broker/python */
#define BACK_AFTER   MILLISECONDS(50)
#define CHECK_EACH   SECONDS(5)
#define CHECK_WAIT   SECONDS(9)

enum expected_kind { EXPECT_PUBLISH, EXPECT_EXEC, EXPECT_SUBSCRIBE, EXPECT_OTHER };

struct expected {
    enum expected_kind kind;
    unsigned message, count; /* the first, and how many there are */
    unsigned confirmations;  /* that are due */
    uint64_t since;
};

struct visitor {
    int number;
    enum client_kind kind;
    struct slot *slot;
    char name[24];
    char host_id[33];
    struct wire *wire;
    unsigned connection, incarnation;
    bool is_up;
    bool leaves;          /* QUIT was said */
    bool finishes;        /* end of file was sent: reads to the end */
    bool ignores_answers; /* a stranger, once it has said anything */
    bool stops_reading;
    bool continues; /* its next subscription goes on where the last ended */
    bool is_subscribed;
    unsigned channels, confirmed; /* bits */
    bool by_pattern;
    unsigned pending[CHANNEL_COUNT]; /* confirmations that are due */
    struct {
        bool is_greeted;
        char name[40]; /* of its connection */
        uint64_t seen; /* messages on it */
        bool is_heard; /* something came behind its HELLO, so the broker has that */
        struct {
            char name[40];
            uint64_t seen;
        } earlier[EARLIER_MAX]; /* the newest first, to the last that was heard */
        unsigned earlier_count;
        uint64_t generation, sequence;
        unsigned rooms; /* bits */
        uint64_t generations[ROOMS_MAX], sequences[ROOMS_MAX];
    } manager;
    bool speaks; /* RESP3, and so publishes beside its subscription */
    enum payload_form form;
    uint64_t id; /* CLIENT ID of its connection; 0: not known */
    bool asks_id;
    struct bytes in, out;
    struct expected expected[EXPECTED_MAX];
    unsigned expected_first, expected_count;
    uint64_t answered_at;
    uint64_t connect_number, connects_at;
};

static struct visitor *visitors[HOST_CLIENTS_MAX];
static unsigned visitor_count;
static unsigned forms;
static bool pods_speak, checks, may_be_slow;

static void connect_now(struct visitor *visitor);

void visitors_begin(unsigned payload_forms, bool speak, bool check)
{
    pods_speak = speak;
    checks = check;
    may_be_slow = false;

    visitor_count = 0;
    forms = payload_forms;
}

void visitors_end(void)
{
    for (unsigned i = 0; i < visitor_count; i++) {
        bytes_free(&visitors[i]->in);
        bytes_free(&visitors[i]->out);
        free(visitors[i]);
    }
    visitor_count = 0;
}

struct visitor *visitor_at(unsigned number)
{
    return visitors[number];
}

unsigned visitors_count(void)
{
    return visitor_count;
}

void visitors_expect_slow(bool slow)
{
    may_be_slow = slow;
}

int visitor_number(const struct visitor *visitor)
{
    return visitor->number;
}

enum client_kind visitor_kind(const struct visitor *visitor)
{
    return visitor->kind;
}

struct slot *visitor_slot(const struct visitor *visitor)
{
    return visitor->slot;
}

bool visitor_is_connected(const struct visitor *visitor)
{
    return visitor->is_up && !visitor->finishes;
}

bool visitor_is_subscribed(const struct visitor *visitor)
{
    return visitor->is_subscribed;
}

/* ── what it says ── */

static void flush(struct visitor *visitor)
{
    if (!visitor->is_up || visitor->out.len == 0)
        return;
    ssize_t len = wire_write(visitor->wire, bytes_data(&visitor->out), visitor->out.len);
    if (len > 0)
        bytes_take(&visitor->out, (size_t)len);
}

static void add_argument(struct bytes *out, const void *data, size_t len)
{
    char head[24];
    int head_len = snprintf(head, sizeof(head), "$%zu\r\n", len);
    bytes_add(out, head, (size_t)head_len);
    bytes_add(out, data, len);
    bytes_add(out, "\r\n", 2);
}

static void add_command(struct bytes *out, unsigned count, const char *const *words)
{
    char head[16];
    int len = snprintf(head, sizeof(head), "*%u\r\n", count);
    bytes_add(out, head, (size_t)len);
    for (unsigned i = 0; i < count; i++)
        add_argument(out, words[i], strlen(words[i]));
}

static void expect(struct visitor *visitor, enum expected_kind kind, unsigned message,
                   unsigned count)
{
    if (visitor->kind == KIND_STRANGER)
        return;
    check(visitor->expected_count < EXPECTED_MAX);
    unsigned last = (visitor->expected_first + visitor->expected_count++) % EXPECTED_MAX;
    visitor->expected[last] = (struct expected){kind, message, count, 0, world_now()};
}

static struct expected *first_expected(struct visitor *visitor)
{
    return &visitor->expected[visitor->expected_first];
}

static struct expected *last_expected(struct visitor *visitor)
{
    unsigned last = visitor->expected_first + visitor->expected_count - 1;
    return &visitor->expected[last % EXPECTED_MAX];
}

static void drop_first_expected(struct visitor *visitor)
{
    visitor->expected_first = (visitor->expected_first + 1) % EXPECTED_MAX;
    visitor->expected_count--;
    visitor->answered_at = world_now();
}

uint64_t visitor_answered_at(const struct visitor *visitor)
{
    return visitor->answered_at;
}

uint64_t visitor_waits_since(const struct visitor *visitor)
{
    return visitor->expected_count > 0 ? visitor->expected[visitor->expected_first].since
                                       : UINT64_MAX;
}

/* Brokers keep what comes for a pod that is away; who listens to other channels is none. */
static bool is_waited_for(const struct visitor *visitor)
{
    return (visitor->channels >> CHANNEL_PODS & 1) != 0 && visitor->confirmed != 0;
}

/* ── its connection ── */

static void on_connect_again(void *argument, uint64_t number)
{
    struct visitor *visitor = argument;
    if (number == visitor->connect_number && visitor->wire == NULL)
        connect_now(visitor);
}

static void come_back(struct visitor *visitor, uint64_t after)
{
    world_after(after + world_below(MILLISECONDS(5)), on_connect_again, visitor,
                ++visitor->connect_number);
}

static void note_earlier(struct visitor *visitor)
{
    unsigned kept = visitor->manager.is_heard ? 0 : visitor->manager.earlier_count;
    if (kept == EARLIER_MAX)
        kept--;
    memmove(&visitor->manager.earlier[1], &visitor->manager.earlier[0],
            kept * sizeof(visitor->manager.earlier[0]));
    memcpy(visitor->manager.earlier[0].name, visitor->manager.name,
           sizeof(visitor->manager.name));
    visitor->manager.earlier[0].seen = visitor->manager.seen;
    visitor->manager.earlier_count = kept + 1;
}

/* Nothing more comes over this connection. */
static void forget_connection(struct visitor *visitor, bool abruptly)
{
    while (visitor->expected_count > 0) {
        struct expected *first = first_expected(visitor);
        for (unsigned i = 0; i < first->count; i++)
            oracle_answered(first->message + i, ANSWER_NEVER);
        drop_first_expected(visitor);
    }
    if (visitor->channels != 0)
        oracle_unsubscribed(visitor->number, abruptly, visitor->kind == KIND_MANAGER);
    visitor->is_subscribed = visitor->is_up = visitor->finishes = false;
    visitor->confirmed = 0;
    memset(visitor->pending, 0, sizeof(visitor->pending));
    if (visitor->manager.is_greeted)
        note_earlier(visitor);
    visitor->manager.is_greeted = false;
    visitor->id = 0;
    visitor->asks_id = false;
    visitor->wire = NULL;
    visitor->in.len = visitor->in.first = 0;
    visitor->out.len = visitor->out.first = 0;
}

static void subscribe(struct visitor *visitor, unsigned channels)
{
    char greeting[64];
    const char *words[2 + CHANNEL_COUNT] = {visitor->by_pattern ? "PSUBSCRIBE"
                                                                : "SUBSCRIBE"};
    unsigned count = 1;
    if (visitor->kind == KIND_MANAGER) {
        snprintf(greeting, sizeof(greeting), "%s.sidrail.%s", channel_name(CHANNEL_PODS),
                 visitor->host_id);
        words[count++] = greeting;
    }
    for (int i = 0; i < CHANNEL_COUNT; i++)
        if ((channels >> i & 1) != 0) {
            words[count++] = channel_name(i);
            visitor->pending[i]++;
        }
    add_command(&visitor->out, count, words);
    expect(visitor, EXPECT_SUBSCRIBE, 0, 0);
    last_expected(visitor)->confirmations = count - 1;
    oracle_listens(visitor->number, channels, visitor->incarnation);
}

static void begin(struct visitor *visitor)
{
    visitor->is_up = true;
    visitor->incarnation = visitor->slot->incarnation;
    if (visitor->kind == KIND_STRANGER)
        return;
    if (visitor->speaks) {
        const char *const words[] = {"HELLO", "3"};
        add_command(&visitor->out, 2, words);
        expect(visitor, EXPECT_OTHER, 0, 0);
    }
    if (visitor->name[0] != '\0') {
        const char *const words[] = {"CLIENT", "SETNAME", visitor->name};
        add_command(&visitor->out, 3, words);
        expect(visitor, EXPECT_OTHER, 0, 0);
    }
    const char *const id[] = {"CLIENT", "ID"};
    add_command(&visitor->out, 2, id);
    expect(visitor, EXPECT_OTHER, 0, 0);
    visitor->asks_id = true;
    if (visitor->channels != 0)
        subscribe(visitor, visitor->channels);
}

/* ── what it hears ── */

/* Length of the first value, or 0: it is not whole. */
static size_t value_len(const char *data, size_t len)
{
    const char *end = memchr(data, '\n', len);
    if (end == NULL)
        return 0;
    size_t head = (size_t)(end - data) + 1;
    long number = strtol(data + 1, NULL, 10);
    switch (data[0]) {
    case '$':
    case '=':
        if (number < 0)
            return head;
        return len >= head + (size_t)number + 2 ? head + (size_t)number + 2 : 0;
    case '*':
    case '>':
    case '%':
    case '~':
        if (data[0] == '%')
            number *= 2;
        for (long i = 0; i < number; i++) {
            size_t part = head < len ? value_len(data + head, len - head) : 0;
            if (part == 0)
                return 0;
            head += part;
        }
        return head;
    default:
        return head;
    }
}

/* The `index`-th element of an array, as text; false when it is none. */
static bool element(const char *data, size_t len, unsigned index, const char **text,
                    size_t *text_len)
{
    const char *end = memchr(data, '\n', len);
    size_t at = (size_t)(end - data) + 1;
    for (unsigned i = 0; at < len; i++) {
        size_t part = value_len(data + at, len - at);
        if (i == index) {
            const char *line = memchr(data + at, '\n', part);
            size_t head = (size_t)(line - (data + at)) + 1;
            bool is_bulk = data[at] == '$';
            *text = is_bulk ? data + at + head : data + at + 1;
            *text_len = is_bulk ? (part > head ? part - head - 2 : 0) : head - 3;
            return true;
        }
        at += part;
    }
    return false;
}

static bool is_text(const char *text, size_t len, const char *expected)
{
    return strlen(expected) == len && memcmp(text, expected, len) == 0;
}

/* A confirmation has its place among the answers. */
static void take_place(struct visitor *visitor)
{
    struct expected *first = first_expected(visitor);
    if (visitor->kind == KIND_STRANGER || visitor->ignores_answers)
        return;
    if (visitor->expected_count == 0 || first->kind != EXPECT_SUBSCRIBE)
        oracle_violated("answer: client %d got a confirmation in place of an answer",
                        visitor->number);
    else if (--first->confirmations == 0)
        drop_first_expected(visitor);
}

static void take_confirmation(struct visitor *visitor, const char *name, size_t len)
{
    take_place(visitor);
    int channel = channel_find(name, len);
    if (channel == CHANNEL_COUNT || visitor->pending[channel] == 0)
        return;
    unsigned bit = 1U << channel;
    if (--visitor->pending[channel] > 0 || (visitor->channels & bit) == 0)
        return; /* it has been unsubscribed since */
    visitor->confirmed |= bit;
    if (visitor->kind != KIND_MANAGER)
        oracle_subscribed(visitor->number, bit, visitor->incarnation, visitor->continues);
    if (visitor->confirmed != visitor->channels)
        return;
    visitor->is_subscribed = true;
    visitor->continues = visitor->kind == KIND_MANAGER && visitor->continues;
}

/* ── a client manager ── */

static void add_room(const char **words, unsigned *count, int room, char text[16])
{
    snprintf(text, 16, "s:room%d", room);
    words[(*count)++] = "/";
    words[(*count)++] = room == ROOM_EVERYBODY ? "" : text;
}

static void tell_rooms(struct visitor *visitor)
{
    char texts[ROOMS_MAX][16];
    char generation[24];
    const char *words[4 + 2 * ROOMS_MAX] = {"SIDRAIL", "ROOMS", generation, "0"};
    unsigned count = 4;
    visitor->manager.generation++;
    visitor->manager.sequence = 0;
    snprintf(generation, sizeof(generation), "%llu",
             (unsigned long long)visitor->manager.generation);
    for (int room = 0; room < ROOMS_MAX; room++)
        if ((visitor->manager.rooms >> room & 1) != 0) {
            add_room(words, &count, room, texts[room]);
            visitor->manager.generations[room] = visitor->manager.generation;
            visitor->manager.sequences[room] = 0;
        }
    add_command(&visitor->out, count, words);
}

static void take_greeting(struct visitor *visitor, const char *text, size_t len)
{
    char line[128];
    unsigned long long generation;
    unsigned long long sequence;
    snprintf(line, sizeof(line), "%.*s", (int)len, text);
    if (sscanf(line, "hello 1 %39s", visitor->manager.name) == 1) {
        const char *words[5 + 2 * EARLIER_MAX] = {"SIDRAIL", "HELLO", "1", "echo",
                                                  "pickle"};
        char seen[EARLIER_MAX][24];
        unsigned count = 5;
        for (unsigned i = 0; i < visitor->manager.earlier_count; i++) {
            snprintf(seen[i], sizeof(seen[i]), "%llu",
                     (unsigned long long)visitor->manager.earlier[i].seen);
            words[count++] = visitor->manager.earlier[i].name;
            words[count++] = seen[i];
        }
        add_command(&visitor->out, count, words);
        if (!visitor->continues)
            oracle_forgive(visitor->number);
        visitor->continues = false;
        visitor->manager.is_greeted = true;
        visitor->manager.is_heard = false;
        visitor->manager.seen = 0;
        tell_rooms(visitor);
    } else if (strcmp(line, "again") == 0) {
        tell_rooms(visitor);
    } else if (sscanf(line, "joined %llu %llu", &generation, &sequence) == 2) {
        visitor->manager.is_heard = true;
        for (int room = 0; room < ROOMS_MAX; room++)
            if ((visitor->manager.rooms >> room & 1) != 0 &&
                visitor->manager.generations[room] == generation &&
                visitor->manager.sequences[room] <= sequence)
                oracle_joined(visitor->number, room, visitor->incarnation);
    }
    flush(visitor);
}

static void seek_room(struct visitor *visitor, int room, bool wants)
{
    char generation[24];
    char sequence[24];
    char text[16];
    const char *words[6] = {"SIDRAIL", wants ? "JOIN" : "LEAVE", generation, sequence};
    unsigned count = 4;
    bool has = (visitor->manager.rooms >> room & 1) != 0;
    if (has == wants)
        return;
    visitor->manager.rooms ^= 1U << room;
    if (!wants)
        oracle_left(visitor->number, CHANNEL_PODS, room);
    if (!visitor->manager.is_greeted)
        return;
    visitor->manager.generations[room] = visitor->manager.generation;
    visitor->manager.sequences[room] = ++visitor->manager.sequence;
    snprintf(generation, sizeof(generation), "%llu",
             (unsigned long long)visitor->manager.generation);
    snprintf(sequence, sizeof(sequence), "%llu",
             (unsigned long long)visitor->manager.sequence);
    add_room(words, &count, room, text);
    add_command(&visitor->out, count, words);
}

void visitor_seek(struct visitor *visitor, int what, bool wants)
{
    if (visitor->kind == KIND_MANAGER) {
        seek_room(visitor, what % ROOMS_MAX, wants);
        flush(visitor);
        return;
    }
    if (visitor->kind != KIND_SEEKER || !visitor_is_connected(visitor))
        return;
    int channel = CHANNEL_SOUGHT + what % (CHANNEL_COUNT - CHANNEL_SOUGHT);
    unsigned bit = 1U << channel;
    if (((visitor->channels & bit) != 0) == wants)
        return;
    visitor->channels ^= bit;
    visitor->confirmed &= ~bit;
    if (wants) {
        subscribe(visitor, bit);
    } else {
        const char *const words[] = {"UNSUBSCRIBE", channel_name(channel)};
        add_command(&visitor->out, 2, words);
        oracle_left(visitor->number, channel, -1);
    }
    flush(visitor);
}

static void take_message(struct visitor *visitor, const char *channel, size_t channel_len,
                         const char *payload, size_t payload_len)
{
    int which = channel_find(channel, channel_len);
    bool is_greeting = visitor->kind == KIND_MANAGER &&
                       memmem(channel, channel_len, ".sidrail.", 9) != NULL;
    if (is_greeting)
        take_greeting(visitor, payload, payload_len);
    else {
        visitor->manager.seen++;
        visitor->manager.is_heard = true;
    }
    if (which == CHANNEL_COUNT)
        return; /* that, or a heartbeat */
    unsigned number = payload_number(payload, payload_len);
    if (number == UINT32_MAX)
        return; /* what strangers publish */
    oracle_got(visitor->number, which, number, payload_len);
}

/* An error among the results is one of a message that cannot be told here. */
static void take_executed(const struct expected *exec, const char *data, size_t len)
{
    enum answer answer = data[0] == '*' && data[1] != '-' ? ANSWER_OK : ANSWER_ERROR;
    if (answer == ANSWER_OK && memmem(data, len, "\r\n-", 3) != NULL)
        answer = ANSWER_NEVER;
    for (unsigned i = 0; i < exec->count; i++)
        oracle_answered(exec->message + i, answer);
}

static void take_answer(struct visitor *visitor, const char *data, size_t len)
{
    if (visitor->ignores_answers)
        return;
    if (visitor->expected_count == 0) {
        oracle_violated("answer: client %d got an answer to nothing: %.*s",
                        visitor->number, (int)min_size(len, 60), data);
        return;
    }
    const struct expected *first = first_expected(visitor);
    drop_first_expected(visitor);
    if (first->kind == EXPECT_SUBSCRIBE && data[0] != '-')
        oracle_violated(
            "answer: client %d got an answer in place of a confirmation: %.*s",
            visitor->number, (int)min_size(len, 60), data);
    else if (first->kind == EXPECT_PUBLISH)
        oracle_answered(first->message, data[0] == ':' ? ANSWER_OK : ANSWER_ERROR);
    else if (first->kind == EXPECT_EXEC)
        take_executed(first, data, len);
    else if (visitor->asks_id && data[0] == ':') {
        visitor->id = strtoull(data + 1, NULL, 10);
        visitor->asks_id = false;
    }
}

static void take_value(struct visitor *visitor, const char *data, size_t len)
{
    const char *words[4];
    size_t lens[4];
    bool is_push = (data[0] == '*' || data[0] == '>') && data[1] != '-' && data[1] != '0';
    for (unsigned i = 0; is_push && i < 3; i++)
        is_push = element(data, len, i, &words[i], &lens[i]);
    if (is_push && is_text(words[0], lens[0], "message"))
        take_message(visitor, words[1], lens[1], words[2], lens[2]);
    else if (is_push && is_text(words[0], lens[0], "pmessage") &&
             element(data, len, 3, &words[3], &lens[3]))
        take_message(visitor, words[2], lens[2], words[3], lens[3]);
    else if (is_push && (is_text(words[0], lens[0], "subscribe") ||
                         is_text(words[0], lens[0], "psubscribe")))
        take_confirmation(visitor, words[1], lens[1]);
    else if (is_push && is_text(words[0], lens[0], "unsubscribe"))
        return;
    else
        take_answer(visitor, data, len);
}

static void read_all(struct visitor *visitor)
{
    size_t there = wire_readable(visitor->wire);
    if (there == 0 || visitor->stops_reading)
        return;
    bytes_add(&visitor->in, wire_peek(visitor->wire), there);
    wire_consume(visitor->wire, there);
    if (visitor->kind == KIND_STRANGER) {
        bytes_take(&visitor->in, visitor->in.len);
        return;
    }
    while (visitor->in.len > 0) {
        size_t len = value_len(bytes_data(&visitor->in), visitor->in.len);
        if (len == 0)
            return;
        take_value(visitor, bytes_data(&visitor->in), len);
        bytes_take(&visitor->in, len);
    }
}

static void on_change(void *argument, struct wire *wire)
{
    struct visitor *visitor = argument;
    if (wire != visitor->wire)
        return;
    if (wire_state(wire) == WIRE_UP && !visitor->is_up && !wire_has_ended(wire))
        begin(visitor);
    if (visitor->is_up)
        read_all(visitor);
    if (!wire_has_ended(wire) || (visitor->stops_reading && wire_readable(wire) > 0)) {
        flush(visitor);
        return;
    }
    bool was_reset = wire_error(wire) != 0;
    bool was_up = visitor->is_up;
    visitor->continues |= was_up && is_waited_for(visitor) && !visitor->leaves;
    if (may_be_slow) {
        oracle_forgive(visitor->number);
        visitor->continues = false;
    }

    wire_close(wire);
    forget_connection(visitor, was_reset);
    come_back(visitor, was_up ? BACK_AFTER : MILLISECONDS(300));
}

static void connect_now(struct visitor *visitor)
{
    visitor->connection++;
    visitor->connects_at = world_now();
    visitor->leaves = false;
    visitor->ignores_answers = visitor->kind == KIND_STRANGER;
    visitor->wire =
        wire_connect(HOST_CLIENT(visitor->number), HOST_BROKER(visitor->slot->number),
                     SIM_PORT, on_change, visitor);
}

/* Does its connection live? */
static void on_check(void *argument, uint64_t number UNUSED)
{
    struct visitor *visitor = argument;
    uint64_t since = visitor_waits_since(visitor);
    world_after(CHECK_EACH, on_check, visitor, 0);
    if (!visitor->is_up && visitor->wire != NULL) {
        if (world_now() - visitor->connects_at > CHECK_WAIT) {
            wire_reset(visitor->wire);
            forget_connection(visitor, false);
            come_back(visitor, 0);
        }
    } else if (since == UINT64_MAX)
        visitor_ping(visitor);
    else if (world_now() - since > CHECK_WAIT)
        visitor_end(visitor, END_RESET, MILLISECONDS(10));
}

struct visitor *visitor_new(enum client_kind kind, struct slot *slot)
{
    check(visitor_count < HOST_CLIENTS_MAX);
    struct visitor *visitor = must_calloc(1, sizeof(*visitor));
    visitor->number = (int)visitor_count;
    visitor->kind = kind;
    visitor->slot = slot;
    snprintf(visitor->host_id, sizeof(visitor->host_id), "%032x", visitor_count + 1);
    visitor->form = (enum payload_form)(visitor_count % forms);
    if (kind == KIND_OBSERVER)
        visitor->channels = (1U << CHANNEL_SOUGHT) - 1;
    if (kind == KIND_POD)
        visitor->channels = 1U << CHANNEL_PODS;
    if (kind == KIND_MANAGER)
        visitor->channels = 1U << CHANNEL_PODS;
    if (kind == KIND_LISTENER)
        visitor->channels = 1U << CHANNEL_NEWS | 1U << CHANNEL_OTHER;
    visitor->speaks = kind == KIND_POD && pods_speak && visitor_count % 2 == 1;
    visitor->by_pattern = kind == KIND_LISTENER && visitor_count % 2 == 0;
    if (kind == KIND_POD || kind == KIND_OBSERVER)
        snprintf(visitor->name, sizeof(visitor->name), "pod%u", visitor_count);
    visitors[visitor_count++] = visitor;
    connect_now(visitor);
    if (checks && kind != KIND_STRANGER)
        world_after(CHECK_EACH, on_check, visitor, 0);

    return visitor;
}

/* ── what it is asked to do ── */

bool visitor_speaks(const struct visitor *visitor)
{
    return visitor->kind == KIND_PUBLISHER || visitor->speaks;
}

/* One PUBLISH; its number, or UINT32_MAX: there are too many. */
static unsigned add_publish(struct visitor *visitor, int channel, int room, size_t filler)
{
    struct bytes payload = {0};
    unsigned number = oracle_sent(visitor->number, visitor->connection,
                                  visitor->incarnation, channel, room);
    if (number == UINT32_MAX)
        return number;
    if (channel == CHANNEL_PODS)
        payload_emit(&payload, visitor->form, room, number, visitor->host_id, filler);
    else
        payload_plain(&payload, number, filler);
    bytes_add(&visitor->out, "*3\r\n", 4);
    add_argument(&visitor->out, "PUBLISH", 7);
    add_argument(&visitor->out, channel_name(channel), strlen(channel_name(channel)));
    add_argument(&visitor->out, bytes_data(&payload), payload.len);
    bytes_free(&payload);
    return number;
}

static bool may_publish(const struct visitor *visitor, unsigned count)
{
    return visitor_is_connected(visitor) && visitor_speaks(visitor) &&
           visitor->expected_count + count + 2 < EXPECTED_MAX;
}

void visitor_publish(struct visitor *visitor, int channel, int room, unsigned count,
                     size_t filler)
{
    if (!may_publish(visitor, count))
        return;
    for (unsigned i = 0; i < count; i++) {
        unsigned number = add_publish(visitor, channel, room, filler);
        if (number == UINT32_MAX)
            break;
        expect(visitor, EXPECT_PUBLISH, number, 1);
    }
    flush(visitor);
}

/* What spoils the transaction, behind the requests that are queued. */
static void spoil(struct visitor *visitor, enum transaction_kind kind)
{
    static const char *const bad_command[] = {"NOSUCHCOMMAND", "x"};
    static const char *const bad_count[] = {"PUBLISH", "flask-socketio"};
    if (kind == TRANSACTION_BAD_COMMAND)
        add_command(&visitor->out, 2, bad_command);
    else if (kind == TRANSACTION_BAD_COUNT)
        add_command(&visitor->out, 2, bad_count);
    else
        return;
    expect(visitor, EXPECT_OTHER, 0, 0);
}

void visitor_transact(struct visitor *visitor, int room, unsigned count,
                      enum transaction_kind kind)
{
    const char *const multi[] = {"MULTI"};
    const char *const end[] = {kind == TRANSACTION_DISCARDED ? "DISCARD" : "EXEC"};
    if (!may_publish(visitor, count) || oracle_messages() + count > MESSAGES_MAX)
        return;
    unsigned first = oracle_messages();
    add_command(&visitor->out, 1, multi);
    expect(visitor, EXPECT_OTHER, 0, 0);
    for (unsigned i = 0; i < count; i++) {
        add_publish(visitor, CHANNEL_PODS, room, 0);
        expect(visitor, EXPECT_OTHER, 0, 0);
    }
    if (kind != TRANSACTION_PLAIN)
        for (unsigned i = 0; i < count; i++)
            oracle_answered(first + i, ANSWER_VOID);
    spoil(visitor, kind);
    if (kind != TRANSACTION_ABANDONED)
        add_command(&visitor->out, 1, end);
    if (kind == TRANSACTION_PLAIN)
        expect(visitor, EXPECT_EXEC, first, count);
    else if (kind != TRANSACTION_ABANDONED)
        expect(visitor, EXPECT_OTHER, 0, 0);
    flush(visitor);
    if (kind == TRANSACTION_ABANDONED)
        visitor_end(visitor, END_FIN, MILLISECONDS(10));
}

void visitor_ping(struct visitor *visitor)
{
    if (!visitor_is_connected(visitor) || visitor->ignores_answers)
        return;
    const char *const words[] = {"PING"};
    add_command(&visitor->out, 1, words);
    expect(visitor, EXPECT_OTHER, 0, 0);
    flush(visitor);
}

static void on_late_reset(void *argument, uint64_t connection)
{
    struct visitor *visitor = argument;
    if (visitor->connection != connection || !visitor->finishes)
        return;
    wire_reset(visitor->wire);
    forget_connection(visitor, true);
    oracle_forgive(visitor->number);
    visitor->continues = false;
    come_back(visitor, BACK_AFTER);
}

void visitor_end(struct visitor *visitor, enum ending how, uint64_t away)
{
    if (!visitor->is_up || visitor->finishes)
        return;
    const char *const quit[] = {"QUIT"};
    bool has_unread = wire_readable(visitor->wire) > 0;
    visitor->continues |= is_waited_for(visitor);
    switch (how) {
    case END_FIN:
        visitor->stops_reading = false;
        visitor->finishes = true;
        flush(visitor);
        wire_finish(visitor->wire);
        read_all(visitor);
        /* a broker that is stopped does not end it: nobody waits for ever */
        world_after(SECONDS(30), on_late_reset, visitor, visitor->connection);
        return;
    case END_QUIT: /* it is not waited for */
        visitor->stops_reading = visitor->continues = false;
        visitor->leaves = true;
        oracle_forgive(visitor->number);
        add_command(&visitor->out, 1, quit);
        expect(visitor, EXPECT_OTHER, 0, 0);
        flush(visitor);
        return;
    case END_RESET:
        wire_reset(visitor->wire);
        break;
    case END_VANISH:
        wire_vanish(visitor->wire);
        break;
    case END_COUNT:
        unreachable();
    }
    if (has_unread) {
        oracle_forgive(
            visitor->number); /* what its kernel had acknowledged and it had not read */
        visitor->continues = false;
    }
    forget_connection(visitor, true);
    visitor->stops_reading = false;
    come_back(visitor, away);
}

void visitor_say(struct visitor *visitor, const void *bytes, size_t len)
{
    if (!visitor->is_up)
        return;
    visitor->ignores_answers = true;
    bytes_add(&visitor->out, bytes, len);
    flush(visitor);
}

void visitor_kill(struct visitor *visitor, const struct visitor *victim)
{
    if (!visitor_is_connected(visitor) || victim->id == 0)
        return;
    char id[24];
    snprintf(id, sizeof(id), "%llu", (unsigned long long)victim->id);
    const char *const words[] = {"CLIENT", "KILL", "ID", id};
    add_command(&visitor->out, 4, words);
    expect(visitor, EXPECT_OTHER, 0, 0);
    flush(visitor);
}

void visitor_stop_reading(struct visitor *visitor, bool stop)
{
    visitor->stops_reading = stop;
    if (!stop && visitor->wire != NULL)
        on_change(visitor, visitor->wire);
}

void visitor_move(struct visitor *visitor, struct slot *slot)
{
    visitor->slot = slot;
    visitor->continues = false;
}

void visitors_note_gone(const struct slot *slot)
{
    for (unsigned i = 0; i < visitor_count; i++)
        if (visitors[i]->slot == slot) {
            oracle_forgive((int)i);
            visitors[i]->continues = false;
        }
}
