#include "tests/simulation/slot.h"

#include "broker/broker_config.h"
#include "broker/broker_metrics.h"
#include "broker/client.h"
#include "shared/lifecycle.h"
#include "shared/log.h"
#include "shared/metrics.h"
#include "tests/simulation/libc.h"

#include <event2/event.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Between two turns of a busy loop. */
#define TURN_LOW  2
#define TURN_HIGH 60

static struct slot slots[SLOTS_MAX];
static unsigned slot_count;
static unsigned incarnations;
static struct slot *current;
static bool is_verbose;
volatile uint64_t slot_turns_seen;

static void on_idle(void)
{
    event_base_loopbreak(broker_base(current->broker));
}

static void on_step(void *argument, uint64_t number);

static void step_at(struct slot *slot, uint64_t when)
{
    if (slot->broker == NULL || slot->is_paused || slot->step_at <= when)
        return;
    slot->step_at = when;
    world_at(when, on_step, slot, ++slot->step_number);
}

static void on_ready(int host)
{
    struct slot *slot = &slots[host];
    if (slot != current)
        step_at(slot, world_now() + world_below(20));
}

void slots_begin(unsigned count, bool verbose)
{
    check(count <= SLOTS_MAX);
    memset(slots, 0, sizeof(slots));
    slot_count = count;
    incarnations = 0;
    is_verbose = verbose;
    for (unsigned i = 0; i < count; i++) {
        slots[i].number = (int)i;
        slots[i].step_at = UINT64_MAX;
        snprintf(slots[i].path, sizeof(slots[i].path), "/sim/broker%u.yaml", i);
    }
    libc_on_ready = on_ready;
    libc_on_idle = on_idle;
    metrics_init(broker_metric_rows, BROKER_METRIC_COUNT);
    if (!verbose)
        log_set_output_for_test(open("/dev/null", O_WRONLY | O_CLOEXEC));
}

struct slot *slot_at(unsigned number)
{
    return &slots[number];
}

unsigned slots_count(void)
{
    return slot_count;
}

/* ── in its name ── */

static void take_losses(struct slot *slot, int64_t sign)
{
    for (int i = 0; i < LOSS_REASON_COUNT; i++)
        slot->lost[i] += sign * metrics_sum_by(M_LOST, i);
    slot->dropped += sign * metrics_sum(M_DELIVERIES_DROPPED);
}

void slot_enter(struct slot *slot)
{
    check(current == NULL);
    current = slot;
    slot_turns_seen++;
    libc_set_host(slot->number);
    standing_clock_use(&slot->clock);
    take_losses(slot, -1);
}

void slot_leave(struct slot *slot)
{
    check(current == slot);
    take_losses(slot, 1);
    standing_clock_use(NULL);
    libc_set_host(-1);
    slot_turns_seen++;
    current = NULL;
}

int64_t slot_lost(const struct slot *slot)
{
    int64_t sum = 0;
    for (int i = 0; i < LOSS_REASON_COUNT; i++)
        sum += slot->lost[i];
    return sum;
}

/* ── turns ── */

static void end(struct slot *slot)
{
    slot_enter(slot);
    broker_free(slot->broker);
    slot_leave(slot);
    slot->broker = NULL;
    slot->is_paused = slot->is_draining = false;
    slot->step_at = UINT64_MAX;
}

static void on_step(void *argument, uint64_t number)
{
    struct slot *slot = argument;
    if (number != slot->step_number || slot->broker == NULL || slot->is_paused)
        return;
    slot->step_at = UINT64_MAX;
    slot->turns++;
    slot_enter(slot);
    uint64_t wait;
    libc_was_idle(&wait);
    event_base_loop(broker_base(slot->broker), EVLOOP_ONCE);
    bool is_idle = libc_was_idle(&wait);
    bool has_stopped =
        lifecycle_phase(broker_lifecycle(slot->broker)) == LIFECYCLE_STOPPED;
    slot_leave(slot);
    if (has_stopped)
        end(slot);
    else if (!is_idle)
        step_at(slot, world_now() + world_between(TURN_LOW, TURN_HIGH));
    else if (wait != UINT64_MAX)
        step_at(slot, world_now() + wait);
}

/* ── the life of a broker ── */

void slot_launch(struct slot *slot, const char *yaml)
{
    if (slot->broker != NULL)
        return;
    libc_set_file(slot->path, yaml);
    memset(slot->lost, 0, sizeof(slot->lost));
    slot->dropped = 0;
    slot->clock = (struct standing_clock){0};
    slot->incarnation = ++incarnations;
    slot->started_at = world_now();
    slot_enter(slot);
    struct broker_config *config = broker_config_load(slot->path, NULL, 0, stderr);
    check(config != NULL);
    log_init((enum log_level)config->log_level, (enum log_format)config->log_format);
    slot->broker = broker_new(config, slot->path);
    check(slot->broker != NULL);
    broker_config_release(config);
    broker_start(slot->broker);
    slot_leave(slot);
    step_at(slot, world_now() + 1);
}

void slot_kill(struct slot *slot, bool silent)
{
    if (slot->broker == NULL)
        return;
    libc_kill_host(slot->number, silent);
    int64_t lost[LOSS_REASON_COUNT];
    memcpy(lost, slot->lost, sizeof(lost));
    end(slot);
    memcpy(slot->lost, lost, sizeof(lost)); /* nobody counts at a kill */
}

void slot_pause(struct slot *slot)
{
    if (slot->broker == NULL)
        return;
    slot->is_paused = true;
    slot->step_at = UINT64_MAX;
    slot->step_number++;
}

void slot_continue(struct slot *slot)
{
    if (slot->broker == NULL || !slot->is_paused)
        return;
    slot->is_paused = false;
    step_at(slot, world_now() + 1);
}

void slot_drain(struct slot *slot)
{
    if (slot->broker == NULL)
        return;
    slot->is_draining = true;
    slot_enter(slot);
    lifecycle_drain(broker_lifecycle(slot->broker));
    slot_leave(slot);
    step_at(slot, world_now() + 1);
}

bool slot_reload(struct slot *slot, const char *yaml, bool at_once)
{
    libc_set_file(slot->path, yaml);
    if (slot->broker == NULL || slot->is_paused || !at_once)
        return true;
    char *text = NULL;
    size_t len = 0;
    FILE *errors = open_memstream(&text, &len);
    check(errors != NULL);
    slot_enter(slot);
    bool ok = broker_reload(slot->broker, errors);
    slot_leave(slot);
    fclose(errors);
    if (is_verbose && len > 0)
        fputs(text, stderr);
    free(text);
    step_at(slot, world_now() + 1);
    return ok;
}

void slots_end(void)
{
    for (unsigned i = 0; i < slot_count; i++)
        if (slots[i].broker != NULL)
            end(&slots[i]);
    metrics_cleanup();
}
