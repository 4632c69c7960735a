#include "tests/simulation/play.h"

#include "tests/simulation/broker_files.h"
#include "tests/simulation/client.h"
#include "tests/simulation/libc.h"
#include "tests/simulation/redis_model.h"
#include "tests/simulation/visitor_words.h"

#include "broker/publish.h"

#include <stdlib.h>
#include <string.h>

#define ANSWER_WITHIN SECONDS(1)
/* What may stay in use more than after the warm-up: tables that have grown, rings' spare room. */
#define MEMORY_MORE     ((size_t)1600 << 10) /* of a broker */
#define LONG_MESSAGE    ((size_t)256 << 10)  /* where payloads are the matter */
#define MEMORY_OF_LINKS ((size_t)320 << 10)  /* to a server that was not there before */

static struct setup setup;
static struct broker_files files[SLOTS_MAX]; /* what each broker was given */
/* A broker that starts hears the others' heartbeats by then. */
#define REFUSES_WITHIN SECONDS(3)

static unsigned map_now; /* a number that says which shards are in the file */
static unsigned first_publisher, first_stranger;

/* ── configuration ── */

static void launch(struct slot *slot)
{
    struct broker_files *own = &files[slot->number];
    own->map = map_now;
    wires_set_gone(HOST_BROKER(slot->number), false);
    char *yaml = broker_files_write(&setup, (unsigned)slot->number, own);
    slot_launch(slot, yaml);
    free(yaml);
}

/* ── what ends by itself ── */

static void on_redis_back(void *argument UNUSED, uint64_t number)
{
    redis_start((unsigned)number);
}

static void on_redis_continue(void *argument UNUSED, uint64_t number)
{
    redis_continue((unsigned)number);
}

static void on_redis_promote(void *argument UNUSED, uint64_t number)
{
    redis_demote((unsigned)number, false);
}

static void on_redis_plain(void *argument UNUSED, uint64_t number)
{
    redis_refuse((unsigned)number, false);
    redis_refuse_publish((unsigned)number, false);
    redis_slow((unsigned)number, 0);
    redis_limit_output((unsigned)number, 0);
}

static void on_flow(void *argument, uint64_t number UNUSED)
{
    wire_stall(argument, false);
}

static void on_unblock(void *argument UNUSED, uint64_t pair)
{
    wires_unblock((int)(pair >> 8), (int)(pair & 255));
}

static void on_continue(void *argument, uint64_t incarnation)
{
    struct slot *slot = argument;
    if (slot->incarnation == incarnation)
        slot_continue(slot);
}

static void on_launch(void *argument, uint64_t number UNUSED)
{
    launch(argument);
}

static void on_right_file(void *argument, uint64_t number UNUSED)
{
    struct slot *slot = argument;
    files[slot->number].wrong = WRONG_NOT;
    slot_kill(slot, false);
    visitors_note_gone(slot);
    launch(slot);
}

static void on_read_again(void *argument, uint64_t number UNUSED)
{
    visitor_stop_reading(argument, false);
}

struct late_end {
    struct visitor *visitor;
    enum ending how;
};

static void on_late_end(void *argument, uint64_t how)
{
    visitor_end(argument, (enum ending)how, MILLISECONDS(100));
}

static void block(int from, int to, uint64_t lasting)
{
    wires_block(from, to);
    world_after(lasting, on_unblock, NULL, (uint64_t)from << 8 | (uint64_t)to);
}

static void cut(int broker, int server, int64_t directions, uint64_t lasting)
{
    for (unsigned k = 0; k < REDIS_MAX; k++) {
        if (server >= 0 && k != (unsigned)server)
            continue;
        if ((directions & 1) != 0)
            block(HOST_BROKER(broker), HOST_REDIS((int)k), lasting);
        if ((directions & 2) != 0)
            block(HOST_REDIS((int)k), HOST_BROKER(broker), lasting);
    }
}

static void stall(const struct deed *deed)
{
    int broker = HOST_BROKER((int)deed->numbers[0]);
    int server = HOST_REDIS((int)deed->numbers[1]);
    bool is_up = deed->numbers[3] == 0;
    struct wire *wire = wires_between(is_up ? broker : server, is_up ? server : broker,
                                      (unsigned)deed->numbers[2]);
    if (wire == NULL)
        return;
    wire_stall(wire, true);
    world_after(MILLISECONDS((uint64_t)deed->numbers[4]), on_flow, wire, 0);
}

static void reset_link(const struct deed *deed)
{
    struct wire *wire =
        wires_between(HOST_REDIS((int)deed->numbers[1]),
                      HOST_BROKER((int)deed->numbers[0]), (unsigned)deed->numbers[2]);
    if (wire != NULL)
        wire_break(wire);
}

static void say(struct visitor *visitor, int64_t kind, int64_t drawn)
{
    struct bytes bytes = {0};
    visitor_words((unsigned)kind, (uint64_t)drawn, &bytes);
    visitor_say(visitor, bytes_data(&bytes), bytes.len);
    bytes_free(&bytes);
}

static void reload(struct slot *slot, bool at_once)
{
    char *yaml = broker_files_write(&setup, (unsigned)slot->number, &files[slot->number]);
    slot_reload(slot, yaml, at_once);
    free(yaml);
}

static void change_map(struct slot *slot, unsigned map, bool at_once)
{
    map_now = map;
    files[slot->number].map = map;
    reload(slot, at_once);
}

/* A broker takes the place of this one, with a file that is another cluster's; then the right one does. */
static void misfile(struct slot *slot, unsigned wrong, uint64_t lasting)
{
    if (slot->broker == NULL || files[slot->number].wrong != WRONG_NOT)
        return;
    slot_kill(slot, false);
    visitors_note_gone(slot);
    files[slot->number].wrong = 1 + wrong % (WRONG_FILE_COUNT - 1);
    launch(slot);
    oracle_must_refuse(slot->incarnation, world_now() + REFUSES_WITHIN);
    world_after(lasting, on_right_file, slot, 0);
}

/* table-shaped: one case a deed */
static void do_deed(const struct deed *deed)
{
    const int64_t *n = deed->numbers;
    struct visitor *visitor = visitor_at((unsigned)n[0] % visitors_count());
    struct slot *slot = slot_at((unsigned)n[0] % slots_count());
    unsigned server = (unsigned)n[0] % REDIS_MAX;
    uint64_t lasting = MILLISECONDS((uint64_t)n[1]);
    switch (deed->kind) {
    case DEED_publish:
        visitor_publish(visitor, (int)n[1], (int)n[2], (unsigned)n[3], (size_t)n[4]);
        return;
    case DEED_seek:
        visitor_seek(visitor, (int)n[1], n[2] != 0);
        return;
    case DEED_transact:
        visitor_transact(visitor, (int)n[1], (unsigned)n[2], (enum transaction_kind)n[3]);
        return;
    case DEED_end:
        visitor_end(visitor, (enum ending)n[1], MILLISECONDS((uint64_t)n[2]));
        return;
    case DEED_mute:
        visitor_stop_reading(visitor, true);
        world_after(lasting, on_read_again, visitor, 0);
        return;
    case DEED_client_kill:
        visitor_kill(visitor, visitor_at((unsigned)n[1]));
        return;
    case DEED_kill_and_end:
        visitor_kill(visitor, visitor_at((unsigned)n[1]));
        world_after((uint64_t)n[3], on_late_end, visitor_at((unsigned)n[1]),
                    (uint64_t)n[2]);
        return;
    case DEED_say:
        say(visitor, n[1], n[2]);
        return;
    case DEED_cut_client: {
        int client = HOST_CLIENT((int)n[0]);
        int broker = visitor_slot(visitor)->number;
        lasting = MILLISECONDS((uint64_t)n[2]);
        if ((n[1] & 1) != 0)
            block(client, broker, lasting);
        oracle_cut(visitor_number(visitor), lasting);
        if ((n[1] & 2) != 0)
            block(broker, client, lasting);
        return;
    }
    case DEED_redis_kill:
        redis_kill(server);
        world_after(lasting, on_redis_back, NULL, server);
        return;
    case DEED_redis_stop:
        redis_stop(server);
        world_after(lasting, on_redis_continue, NULL, server);
        return;
    case DEED_redis_demote:
        redis_demote(server, true);
        world_after(lasting, on_redis_promote, NULL, server);
        return;
    case DEED_redis_refuse:
        redis_refuse(server, true);
        world_after(lasting, on_redis_plain, NULL, server);
        return;
    case DEED_redis_error:
        redis_refuse_publish(server, true);
        world_after(lasting, on_redis_plain, NULL, server);
        return;
    case DEED_redis_slow:
        redis_slow(server, lasting);
        world_after(MILLISECONDS((uint64_t)n[2]), on_redis_plain, NULL, server);
        return;
    case DEED_redis_limit:
        redis_limit_output(server, (size_t)n[1]);
        world_after(MILLISECONDS((uint64_t)n[2]), on_redis_plain, NULL, server);
        return;
    case DEED_reset:
        reset_link(deed);
        return;
    case DEED_stall:
        stall(deed);
        return;
    case DEED_cut:
        cut((int)n[0], (int)n[1], n[2], MILLISECONDS((uint64_t)n[3]));
        return;
    case DEED_pause:
        slot_pause(slot);
        world_after(lasting, on_continue, slot, slot->incarnation);
        return;
    case DEED_crash:
        slot_kill(slot, false);
        visitors_note_gone(slot);
        world_after(lasting, on_launch, slot, 0);
        return;
    case DEED_drain:
        slot_drain(slot);
        visitors_note_gone(slot);
        world_after(SECONDS(11) + lasting, on_launch, slot, 0);
        return;
    case DEED_reload:
        change_map(slot, (unsigned)n[1], n[2] != 0);
        return;
    case DEED_vanish:
        slot_kill(slot, true);
        wires_set_gone(HOST_BROKER(slot->number), true);
        visitors_note_gone(slot);
        world_after(lasting, on_launch, slot, 0);
        return;
    case DEED_keys:
        files[slot->number].keys = (unsigned)n[1];
        reload(slot, n[2] != 0);
        return;
    case DEED_misfile:
        misfile(slot, (unsigned)n[1], MILLISECONDS((uint64_t)n[2]));
        return;
    case DEED_forge:
        redis_forge(server, (enum forgery)n[1], (uint64_t)n[2]);
        return;
    case DEED_COUNT:
        break;
    }
    unreachable();
}

/* At the end of all faults all have the newest map, as somebody would see to. */
static void on_end_of_faults(void *argument UNUSED, uint64_t number UNUSED)
{
    for (unsigned i = 0; i < setup.brokers; i++)
        if (files[i].map != map_now)
            change_map(slot_at(i), map_now, true);
}

static void on_deed(void *argument, uint64_t number UNUSED)
{
    do_deed(argument);
}

/* ── is all well again ── */

static void judge_slot(struct slot *slot)
{
    if (slot->broker == NULL) {
        oracle_violated("alive: broker %u is not back", slot->incarnation);
        return;
    }
    struct command_context *context = broker_context(slot->broker);
    slot_enter(slot);
    struct publisher_status status = publisher_status(context->publisher);
    bool is_settled = publisher_is_settled(context->publisher);
    bool is_idle = publisher_is_idle(context->publisher);
    unsigned clients = client_count(context->clients);
    slot_leave(slot);
    if (status.spill_messages > 0 || status.gaps > 0 || status.held_bytes > 0)
        oracle_violated("queues: broker %u has %zu messages waiting, %zu gaps, %zu bytes "
                        "held",
                        slot->incarnation, status.spill_messages, status.gaps,
                        status.held_bytes);
    if (!is_settled || !is_idle)
        oracle_violated("settled: broker %u is %s", slot->incarnation,
                        is_settled ? "not idle" : "not settled");
    if (setup.shards > 0 && status.live_brokers != slots_count() - 1)
        oracle_violated("live: broker %u knows %u live brokers", slot->incarnation,
                        status.live_brokers);
    unsigned connected = 0;
    for (unsigned i = 0; i < visitors_count(); i++)
        connected += visitor_slot(visitor_at(i)) == slot;
    if (clients > connected)
        oracle_violated("clients: broker %u has %u clients, of which %u can live",
                        slot->incarnation, clients, connected);
}

static void judge_quiet(void)
{
    for (unsigned i = 0; i < slots_count(); i++)
        judge_slot(slot_at(i));
    for (unsigned i = 0; i < visitors_count(); i++) {
        struct visitor *visitor = visitor_at(i);
        if (visitor_kind(visitor) == KIND_STRANGER)
            continue;
        if (!visitor_is_connected(visitor))
            oracle_violated("alive: client %u cannot connect", i);
        uint64_t since = visitor_waits_since(visitor);
        /* one that looks whether its connection lives may just have asked */
        if (since != UINT64_MAX &&
            (!setup.is_checked || since + ANSWER_WITHIN <= world_now()))
            oracle_violated("answer: client %u waits since %.6f s", i,
                            (double)since / 1e6);
    }
}

/* Does a client work off what it sent? Of a connection the broker takes one PUBLISH at a time when delivery.ack is shard,
 * a round trip each; a client pipelines as many as it likes. */
static bool is_working_off(const struct visitor *visitor)
{
    uint64_t since = visitor_waits_since(visitor);
    return visitor_kind(visitor) != KIND_STRANGER && since != UINT64_MAX &&
           since + ANSWER_WITHIN <= world_now() &&
           visitor_answered_at(visitor) + ANSWER_WITHIN > world_now();
}

static bool is_anybody_working_off(void)
{
    for (unsigned i = 0; i < visitors_count(); i++)
        if (is_working_off(visitor_at(i)))
            return true;
    return false;
}

/* Everybody is asked, and something is said in each room at each broker. */
static void ask_all(void)
{
    for (unsigned i = 0; i < visitors_count(); i++) {
        struct visitor *visitor = visitor_at(i);
        if (visitor_kind(visitor) == KIND_STRANGER)
            continue;
        visitor_ping(visitor);
        if (visitor_kind(visitor) != KIND_PUBLISHER)
            continue;
        for (int room = 0; room < ROOMS_MAX; room++)
            visitor_publish(visitor, CHANNEL_PODS, room, 1, 0);
        for (int channel = CHANNEL_NEWS; channel < CHANNEL_COUNT; channel++)
            visitor_publish(visitor, channel, 0, 1, 0);
    }
}

/* ── one run ── */

static void make_visitors(void)
{
    for (unsigned i = 0; i < setup.brokers * setup.observers; i++)
        visitor_new(KIND_OBSERVER, slot_at(i));
    for (unsigned i = 0; i < setup.brokers; i++) {
        for (unsigned k = 0; k < setup.pods; k++)
            visitor_new(KIND_POD, slot_at(i));
        for (unsigned k = 0; k < setup.listeners; k++)
            visitor_new(KIND_LISTENER, slot_at(i));
        for (unsigned k = 0; k < setup.seekers; k++)
            visitor_new(KIND_SEEKER, slot_at(i));
        for (unsigned k = 0; k < setup.managers; k++)
            visitor_new(KIND_MANAGER, slot_at(i));
    }
    first_publisher = visitors_count();
    for (unsigned i = 0; i < setup.brokers; i++)
        for (unsigned k = 0; k < setup.publishers; k++)
            visitor_new(KIND_PUBLISHER, slot_at(i));
    first_stranger = visitors_count();
    for (unsigned i = 0; i < setup.brokers; i++)
        for (unsigned k = 0; k < setup.strangers; k++)
            visitor_new(KIND_STRANGER, slot_at(i));
}

static bool run_to(uint64_t time)
{
    while (world_now() < time && oracle_violation() == NULL)
        world_run_until(min_size(time, world_now() + MILLISECONDS(100)));
    return oracle_violation() == NULL;
}

/* Until what was pipelined is answered, and has arrived. Nothing more is sent: each turn is an answer nearer to the end. */
static bool run_until_worked_off(void)
{
    if (!is_anybody_working_off())
        return true;
    while (is_anybody_working_off())
        if (!run_to(world_now() + ANSWER_WITHIN))
            return false;
    return run_to(world_now() + ANSWER_WITHIN);
}

static void run_all(const struct schedule *schedule)
{
    for (unsigned i = 0; i < setup.brokers; i++)
        launch(slot_at(i));
    make_visitors();
    if (!run_to(PLAY_WARM_UP))
        return;
    size_t memory = libc_memory();
    for (size_t i = 0; i < schedule->count; i++)
        world_at_in_order(PLAY_WARM_UP + schedule->deeds[i].at, on_deed,
                          &schedule->deeds[i], i);
    world_at(PLAY_WARM_UP + setup.length, on_end_of_faults, NULL, 0);
    if (!run_to(PLAY_WARM_UP + setup.length + setup.settles) || !run_until_worked_off())
        return;
    uint64_t quiet = world_now();
    oracle_judge();
    judge_quiet();
    ask_all();
    if (!run_to(quiet + ANSWER_WITHIN))
        return;
    oracle_judge();
    judge_quiet();
    if (!run_to(quiet + ANSWER_WITHIN + SECONDS(setup.resend_window + 5)))
        return;
    size_t more = libc_memory() - memory;
    size_t links = broker_files_count(&setup, map_now) > setup.shards
                       ? broker_files_count(&setup, map_now) - setup.shards
                       : 0;
    size_t payload = 0; /* the longest: each broker may have room for it */
    for (unsigned i = 0; i < setup.brokers; i++)
        if (setup.payload_max[i] > 0)
            payload =
                max_size(max_size(payload, LONG_MESSAGE), (size_t)setup.payload_max[i]);
    size_t limit = setup.brokers * (MEMORY_MORE + links * MEMORY_OF_LINKS + 2 * payload);
    if (memory > 0 && more > limit && more < SIZE_MAX / 2)
        oracle_violated("memory: %zu KiB more in use than before", more >> 10);
}

struct outcome play(const struct schedule *schedule, bool verbose)
{
    setup = schedule_set_up(schedule->class, schedule->seed);
    map_now = 0;
    memset(files, 0, sizeof(files));
    for (unsigned i = 0; i < SLOTS_MAX; i++)
        files[i].keys = setup.keys;
    uint64_t began = libc_cpu_time();
    world_begin(schedule->seed);
    wires_begin(&setup.wires);
    libc_begin();
    struct promise promise = schedule->class->promise;
    promise.may_refuse |= setup.ack_shard;
    promise.loses_counted |= setup.slow_bytes > 0;
    oracle_begin(&promise);
    slots_begin(setup.brokers, verbose);
    redis_begin(setup.shards > 0 ? REDIS_MAX : 0);
    visitors_begin(setup.forms, setup.pods_speak, setup.is_checked);
    visitors_expect_slow(setup.slow_bytes > 0 && !setup.slow_drops);
    run_all(schedule);
    struct outcome outcome = {
        .virtual_time = world_now(),
        .events = world_events(),
        .messages = oracle_messages(),
        .deliveries = oracle_deliveries(),
    };
    for (unsigned i = 0; i < setup.brokers; i++)
        outcome.broker_turns += slot_at(i)->turns;
    if (oracle_violation() != NULL)
        outcome.violation = must_strdup(oracle_violation());
    slots_end();
    redis_end();
    visitors_end();
    oracle_end();
    wires_end();
    libc_end();
    world_end();
    outcome.cpu_time = libc_cpu_time() - began;
    return outcome;
}
