#include "broker/backlog.h"

#include "shared/net.h"

/* `high` is what it takes within this. */
#define AHEAD MILLISECONDS(3)

/* Nothing new is learnt within this, if nothing was written. */
#define LOOK_EVERY ((uint64_t)500)

static void measure(struct backlog *backlog, uint64_t now)
{
    uint64_t took = now - backlog->measured_at;
    if (took < AHEAD)
        return;
    uint64_t ahead = (backlog->taken - backlog->measured_taken) * AHEAD / took;
    backlog->high = ahead < BACKLOG_LEAST  ? BACKLOG_LEAST
                    : ahead > BACKLOG_MOST ? BACKLOG_MOST
                                           : (size_t)ahead;
    backlog->measured_at = now;
    backlog->measured_taken = backlog->taken;
}

static void look(struct backlog *backlog, int fd, uint64_t now)
{
    backlog->looked_at = now;
    backlog->looked_written = backlog->written;
    uint64_t waiting = net_unacknowledged(fd);
    if (waiting + backlog->taken >= backlog->written)
        return; /* TLS makes it longer, and a unix socket counts its own overhead */
    backlog->taken = backlog->written - waiting;
    backlog->taken_at = now;
    measure(backlog, now);
}

static bool is_little(const struct backlog *backlog, size_t queued, size_t most)
{
    size_t high = min_size(most, backlog->high > 0 ? backlog->high : BACKLOG_LEAST);
    size_t limit = backlog->pace == PACE_KEEPS_UP ? high : high / 2;
    return queued + (backlog->written - backlog->taken) <= limit;
}

enum pace backlog_look(struct backlog *backlog, int fd, size_t queued, size_t most,
                       uint64_t now)
{
    if (!is_little(backlog, queued, most) &&
        (backlog->written != backlog->looked_written ||
         now - backlog->looked_at >= LOOK_EVERY))
        look(backlog, fd, now);
    if (is_little(backlog, queued, most)) {
        backlog->pace = PACE_KEEPS_UP;
    } else {
        if (backlog->pace == PACE_KEEPS_UP)
            backlog->taken_at = now;
        backlog->pace =
            now > backlog->taken_at + BACKLOG_STUCK_AFTER ? PACE_STUCK : PACE_BEHIND;
    }
    return backlog->pace;
}
