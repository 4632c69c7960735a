#include "broker/implausible.h"

#include "broker/broker_metrics.h"
#include "shared/log.h"
#include "shared/timing.h"

#define LOG_EVERY SECONDS(60)

const char *implausible_label(int reason)
{
    static const char *const labels[] = {
#define IMPLAUSIBLE(constant, label) label,
#include "broker/implausible.def"
#undef IMPLAUSIBLE
    };
    check(reason >= 0 && reason < IMPLAUSIBLE_COUNT);
    return labels[reason];
}

void implausible_note(enum implausible reason, uint64_t origin)
{
    /* Of the process: one log, one metric. */
    static struct {
        uint64_t untold, told_at;
    } notes[IMPLAUSIBLE_COUNT];
    metrics_add_by(M_IMPLAUSIBLE, (int)reason, 1);
    uint64_t now = timing_now();
    notes[reason].untold++;
    if (notes[reason].told_at != 0 && now - notes[reason].told_at < LOG_EVERY)
        return;
    log_warn(LOG_SUBJECT("brokers"),
             "not plausible, dropped; cluster.key_file keeps strangers out",
             LOG_TEXT("reason", implausible_label((int)reason)),
             LOG_UNSIGNED("origin", origin),
             LOG_UNSIGNED("messages", notes[reason].untold));
    notes[reason].untold = 0;
    notes[reason].told_at = now;
}
