#include "broker/outbox.h"

#include "broker/broker_metrics.h"
#include "broker/link.h"

#include <stdlib.h>

#define CONTROL_WAITING_MAX 500
#define ANSWERS_WAITING_MAX 500

/* One more than the bound: a single message is always allowed. */
#define FLIGHT_MAX (LINK_IN_FLIGHT_MESSAGES + 1)

struct control_item {
    struct span command; /* held */
    TAILQ_ENTRY(control_item) of_outbox;
};

/* The message is looked up when its turn comes. */
struct answer {
    uint64_t asker;
    uint64_t sequence;
    uint16_t partition;
    TAILQ_ENTRY(answer) of_outbox;
};

struct outbox {
    struct sent_ring *ring; /* borrowed */
    struct link *link;      /* borrowed */
    struct outbox_callbacks callbacks;
    struct sent_queue waiting;
    size_t waiting_count, waiting_bytes;
    TAILQ_HEAD(, control_item) control;
    TAILQ_HEAD(, answer) answers;
    unsigned control_count, answer_count;
    bool is_answers_turn;
    struct sent *flight[FLIGHT_MAX]; /* in order; NULL: not a message, or void */
    unsigned flight_first, flight_count;
    uint64_t retransmitted;
};

struct outbox *outbox_new(struct sent_ring *ring, struct link *link,
                          const struct outbox_callbacks *callbacks)
{
    struct outbox *outbox = must_calloc(1, sizeof(*outbox));
    outbox->ring = ring;
    outbox->link = link;
    outbox->callbacks = *callbacks;
    TAILQ_INIT(&outbox->waiting);
    TAILQ_INIT(&outbox->control);
    TAILQ_INIT(&outbox->answers);
    return outbox;
}

static void drop_control(struct outbox *outbox, struct control_item *item)
{
    TAILQ_REMOVE(&outbox->control, item, of_outbox);
    outbox->control_count--;
    span_release(item->command);
    free(item);
}

static void drop_answer(struct outbox *outbox, struct answer *answer)
{
    TAILQ_REMOVE(&outbox->answers, answer, of_outbox);
    outbox->answer_count--;
    free(answer);
}

static void drop_others(struct outbox *outbox)
{
    while (!TAILQ_EMPTY(&outbox->control))
        drop_control(outbox, TAILQ_FIRST(&outbox->control));
    while (!TAILQ_EMPTY(&outbox->answers))
        drop_answer(outbox, TAILQ_FIRST(&outbox->answers));
}

void outbox_free(struct outbox *outbox)
{
    drop_others(outbox);
    free(outbox);
}

void outbox_put(struct outbox *outbox, struct sent *sent)
{
    check(sent->state == SENT_WAITING && !sent->is_queued);
    sent->is_queued = true;
    TAILQ_INSERT_TAIL(&outbox->waiting, sent, of_queue);
    outbox->waiting_count++;
    outbox->waiting_bytes += sent->command.len;
}

void outbox_remove(struct outbox *outbox, struct sent *sent)
{
    check(sent->state == SENT_WAITING && sent->is_queued);
    sent->is_queued = false;
    TAILQ_REMOVE(&outbox->waiting, sent, of_queue);
    outbox->waiting_count--;
    outbox->waiting_bytes -= sent->command.len;
}

void outbox_void(struct outbox *outbox, unsigned partition)
{
    for (unsigned i = 0; i < outbox->flight_count; i++) {
        struct sent **sent = &outbox->flight[(outbox->flight_first + i) % FLIGHT_MAX];
        if (*sent == NULL || (*sent)->partition != partition)
            continue;
        sent_ring_return(outbox->ring, *sent);
        *sent = NULL;
    }
}

void outbox_put_control(struct outbox *outbox, struct span command)
{
    if (link_state(outbox->link) != LINK_UP ||
        outbox->control_count == CONTROL_WAITING_MAX)
        return;
    struct control_item *item = must_calloc(1, sizeof(*item));
    span_hold(command);
    item->command = command;
    TAILQ_INSERT_TAIL(&outbox->control, item, of_outbox);
    outbox->control_count++;
    outbox_pump(outbox);
}

bool outbox_put_answer(struct outbox *outbox, uint64_t asker, uint16_t partition,
                       uint64_t sequence)
{
    if (link_state(outbox->link) != LINK_UP ||
        outbox->answer_count == ANSWERS_WAITING_MAX)
        return false;
    struct answer *answer;
    TAILQ_FOREACH(answer, &outbox->answers, of_outbox)
    if (answer->sequence == sequence && answer->partition == partition &&
        answer->asker == asker)
        return true;
    answer = must_calloc(1, sizeof(*answer));
    *answer =
        (struct answer){.asker = asker, .sequence = sequence, .partition = partition};
    TAILQ_INSERT_TAIL(&outbox->answers, answer, of_outbox);
    outbox->answer_count++;
    return true;
}

static void send(struct outbox *outbox, struct span command, struct sent *sent)
{
    check(outbox->flight_count < FLIGHT_MAX);
    outbox->flight[(outbox->flight_first + outbox->flight_count) % FLIGHT_MAX] = sent;
    outbox->flight_count++;
    link_send(outbox->link, command);
}

static void send_message(struct outbox *outbox, struct sent *sent)
{
    outbox_remove(outbox, sent);
    sent_ring_send(outbox->ring, sent);
    if (sent->retransmitted) {
        outbox->retransmitted++;
        metrics_add(M_RETRANSMITTED, 1);
    }
    outbox->callbacks.on_sending(outbox->callbacks.context, sent);
    send(outbox, sent->command, sent);
}

/* False: there was no room. */
static bool send_answer(struct outbox *outbox)
{
    struct answer *answer = TAILQ_FIRST(&outbox->answers);
    const struct sent *sent =
        sent_ring_find(outbox->ring, answer->partition, answer->sequence);
    if (sent != NULL) {
        if (!link_has_room(outbox->link, sent->command.len))
            return false;
        outbox->retransmitted++;
        metrics_add(M_ANSWERED, 1);
        send(outbox,
             outbox->callbacks.on_answer(outbox->callbacks.context, answer->asker, sent),
             NULL);
        link_hurry(outbox->link);
    }
    drop_answer(outbox, answer);
    return true;
}

void outbox_pump(struct outbox *outbox)
{
    while (link_state(outbox->link) == LINK_UP) {
        struct control_item *item = TAILQ_FIRST(&outbox->control);
        struct sent *sent = TAILQ_FIRST(&outbox->waiting);
        bool is_answer =
            !TAILQ_EMPTY(&outbox->answers) && (outbox->is_answers_turn || sent == NULL);
        if (item != NULL) {
            if (!link_has_room(outbox->link, item->command.len))
                return;
            send(outbox, item->command, NULL);
            link_hurry(outbox->link);
            drop_control(outbox, item);
        } else if (is_answer) {
            if (!send_answer(outbox))
                return;
            outbox->is_answers_turn = false;
        } else if (sent != NULL) {
            if (!link_has_room(outbox->link, sent->command.len))
                return;
            send_message(outbox, sent);
            outbox->is_answers_turn = true;
        } else {
            return;
        }
    }
}

struct sent *outbox_replied(struct outbox *outbox)
{
    check(outbox->flight_count > 0);
    struct sent *sent = outbox->flight[outbox->flight_first];
    outbox->flight_first = (outbox->flight_first + 1) % FLIGHT_MAX;
    outbox->flight_count--;
    return sent;
}

void outbox_take_back(struct outbox *outbox)
{
    drop_others(outbox);
    while (outbox->flight_count > 0) {
        outbox->flight_count--;
        struct sent *sent =
            outbox->flight[(outbox->flight_first + outbox->flight_count) % FLIGHT_MAX];
        if (sent == NULL)
            continue;
        sent_ring_return(outbox->ring, sent);
        sent->is_queued = true;
        TAILQ_INSERT_HEAD(&outbox->waiting, sent, of_queue);
        outbox->waiting_count++;
        outbox->waiting_bytes += sent->command.len;
    }
}

struct outbox_status outbox_status(const struct outbox *outbox)
{
    return (struct outbox_status){
        .waiting = outbox->waiting_count,
        .waiting_bytes = outbox->waiting_bytes,
        .retransmitted = outbox->retransmitted,
    };
}

size_t outbox_waiting_bytes(const struct outbox *outbox)
{
    return outbox->waiting_bytes;
}

/* Control and answers are nothing to wait for. */
bool outbox_is_idle(const struct outbox *outbox)
{
    for (unsigned i = 0; i < outbox->flight_count; i++)
        if (outbox->flight[(outbox->flight_first + i) % FLIGHT_MAX] != NULL)
            return false;
    return TAILQ_EMPTY(&outbox->waiting);
}

const struct sent *outbox_first(const struct outbox *outbox)
{
    return TAILQ_FIRST(&outbox->waiting);
}
