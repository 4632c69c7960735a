#include "shared/lifecycle.h"

#include <event2/event.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "shared/log.h"
#include "shared/timing.h"

#define DEFAULT_DEADLINE SECONDS(10)

struct lifecycle {
    struct event_base *base; /* borrowed */
    struct lifecycle_callbacks callbacks;
    void *argument;
    enum lifecycle_phase phase;
    uint64_t deadline;
    uint64_t drain_began;
    bool is_interrupted;
    bool has_seen_interrupt;
    atomic_int exit_code;
    struct event *term, *interrupt, *quit, *hang_up, *user[2], *overdue, *second;
};

const char *lifecycle_phase_text(enum lifecycle_phase phase)
{
    switch (phase) {
    case LIFECYCLE_STARTING:
        return "starting";
    case LIFECYCLE_READY:
        return "ready";
    case LIFECYCLE_DRAINING:
        return "draining";
    case LIFECYCLE_STOPPED:
        return "stopped";
    }
    unreachable();
}

static void enter(struct lifecycle *lifecycle, enum lifecycle_phase phase,
                  const char *why)
{
    log_info(LOG_SUBJECT("main"), lifecycle_phase_text(phase),
             LOG_TEXT("was", lifecycle_phase_text(lifecycle->phase)),
             LOG_TEXT("why", why));
    lifecycle->phase = phase;
}

static void stop(struct lifecycle *lifecycle, enum lifecycle_end end)
{
    static const char *const why[] = {"drained", "deadline", "at_once"};
    if (lifecycle->phase == LIFECYCLE_STOPPED)
        return;
    enter(lifecycle, LIFECYCLE_STOPPED, why[end]);
    event_del(lifecycle->overdue);
    if (lifecycle->callbacks.on_stop != NULL)
        lifecycle->callbacks.on_stop(lifecycle->argument, end);
    event_base_loopbreak(lifecycle->base);
}

static void arm_deadline(struct lifecycle *lifecycle)
{
    struct timeval wait = timing_to_timeval(lifecycle_remaining(lifecycle));
    event_add(lifecycle->overdue, &wait);
}

static void drain(struct lifecycle *lifecycle, const char *why)
{
    enter(lifecycle, LIFECYCLE_DRAINING, why);
    lifecycle->drain_began = timing_now();
    arm_deadline(lifecycle);
    if (lifecycle->callbacks.on_drain != NULL)
        lifecycle->callbacks.on_drain(lifecycle->argument);
    else
        stop(lifecycle, LIFECYCLE_END_DRAINED);
}

static void on_end_signal(evutil_socket_t number, short what, void *argument)
{
    (void)what;
    struct lifecycle *lifecycle = argument;
    const char *why = number == SIGTERM ? "SIGTERM" : "SIGINT";
    bool is_second_interrupt = number == SIGINT && lifecycle->has_seen_interrupt;
    lifecycle->has_seen_interrupt |= number == SIGINT;
    if (lifecycle->phase == LIFECYCLE_READY) {
        lifecycle->is_interrupted = number == SIGINT;
        drain(lifecycle, why);
    } else if (lifecycle->phase == LIFECYCLE_DRAINING && !is_second_interrupt) {
        log_info(LOG_SUBJECT("main"), "already draining, the signal changes nothing",
                 LOG_TEXT("signal", why));
    } else {
        stop(lifecycle, LIFECYCLE_END_AT_ONCE);
    }
}

static void on_quit(evutil_socket_t number, short what, void *argument)
{
    (void)number;
    (void)what;
    stop(argument, LIFECYCLE_END_AT_ONCE);
}

static void on_user_signal(evutil_socket_t number, short what, void *argument)
{
    (void)what;
    (void)argument;
    log_debug(LOG_SUBJECT("main"), "signal ignored",
              LOG_TEXT("signal", number == SIGUSR1 ? "SIGUSR1" : "SIGUSR2"));
}

static void on_hang_up(evutil_socket_t number, short what, void *argument)
{
    (void)number;
    (void)what;
    struct lifecycle *lifecycle = argument;
    if (lifecycle->phase == LIFECYCLE_READY && lifecycle->callbacks.on_reload != NULL)
        lifecycle->callbacks.on_reload(lifecycle->argument);
    else
        log_warn(LOG_SUBJECT("main"), "reload ignored",
                 LOG_TEXT("phase", lifecycle_phase_text(lifecycle->phase)));
}

static void on_overdue(evutil_socket_t fd, short what, void *argument)
{
    (void)fd;
    (void)what;
    struct lifecycle *lifecycle = argument;
    if (lifecycle_remaining(lifecycle) > 0)
        arm_deadline(lifecycle);
    else
        stop(lifecycle, LIFECYCLE_END_DEADLINE);
}

static void on_second(evutil_socket_t fd, short what, void *argument)
{
    (void)fd;
    (void)what;
    (void)argument;
    log_tick();
}

static void end_at_once(int number)
{
    _exit(128 + number);
}

void lifecycle_begin(void)
{
    signal(SIGTERM, end_at_once);
    signal(SIGINT, end_at_once);
    signal(SIGQUIT, end_at_once);
    static const int ignored[] = {SIGUSR1, SIGUSR2, SIGALRM, SIGVTALRM, SIGIO};
    for (size_t i = 0; i < sizeof(ignored) / sizeof(ignored[0]); i++)
        signal(ignored[i], SIG_IGN);
}

static struct event *must_add(struct event *event, const struct timeval *timeout)
{
    check(event != NULL && event_add(event, timeout) == 0);
    return event;
}

struct lifecycle *lifecycle_new(struct event_base *base,
                                const struct lifecycle_callbacks *callbacks,
                                void *argument)
{
    struct lifecycle *lifecycle = must_calloc(1, sizeof(*lifecycle));
    lifecycle->base = base;
    lifecycle->callbacks = *callbacks;
    lifecycle->argument = argument;
    lifecycle->deadline = DEFAULT_DEADLINE;
    signal(SIGPIPE, SIG_IGN);
    struct timeval second = {.tv_sec = 1};
    lifecycle->term =
        must_add(evsignal_new(base, SIGTERM, on_end_signal, lifecycle), NULL);
    lifecycle->interrupt =
        must_add(evsignal_new(base, SIGINT, on_end_signal, lifecycle), NULL);
    lifecycle->quit = must_add(evsignal_new(base, SIGQUIT, on_quit, lifecycle), NULL);
    static const int user[] = {SIGUSR1, SIGUSR2};
    for (size_t i = 0; i < 2; i++)
        lifecycle->user[i] =
            must_add(evsignal_new(base, user[i], on_user_signal, lifecycle), NULL);
    lifecycle->hang_up =
        must_add(evsignal_new(base, SIGHUP, on_hang_up, lifecycle), NULL);
    lifecycle->second =
        must_add(event_new(base, -1, EV_PERSIST, on_second, lifecycle), &second);
    lifecycle->overdue = evtimer_new(base, on_overdue, lifecycle);
    check(lifecycle->overdue != NULL);
    return lifecycle;
}

void lifecycle_free(struct lifecycle *lifecycle)
{
    if (lifecycle == NULL)
        return;
    event_free(lifecycle->term);
    event_free(lifecycle->interrupt);
    event_free(lifecycle->quit);
    event_free(lifecycle->user[0]);
    event_free(lifecycle->user[1]);
    event_free(lifecycle->hang_up);
    event_free(lifecycle->second);
    event_free(lifecycle->overdue);
    free(lifecycle);
}

void lifecycle_set_deadline(struct lifecycle *lifecycle, uint64_t deadline)
{
    lifecycle->deadline = deadline;
    if (lifecycle->phase == LIFECYCLE_DRAINING)
        arm_deadline(lifecycle);
}

enum lifecycle_phase lifecycle_phase(const struct lifecycle *lifecycle)
{
    return lifecycle->phase;
}

bool lifecycle_is_interrupted(const struct lifecycle *lifecycle)
{
    return lifecycle->is_interrupted;
}

uint64_t lifecycle_remaining(const struct lifecycle *lifecycle)
{
    if (lifecycle->phase != LIFECYCLE_DRAINING)
        return 0;
    uint64_t spent = timing_now() - lifecycle->drain_began;
    return spent < lifecycle->deadline ? lifecycle->deadline - spent : 0;
}

void lifecycle_ready(struct lifecycle *lifecycle)
{
    if (lifecycle->phase == LIFECYCLE_STARTING)
        enter(lifecycle, LIFECYCLE_READY, "started");
}

void lifecycle_drain(struct lifecycle *lifecycle)
{
    if (lifecycle->phase == LIFECYCLE_READY)
        drain(lifecycle, "asked");
    else if (lifecycle->phase == LIFECYCLE_STARTING)
        stop(lifecycle, LIFECYCLE_END_AT_ONCE);
}

void lifecycle_drained(struct lifecycle *lifecycle)
{
    if (lifecycle->phase == LIFECYCLE_DRAINING)
        stop(lifecycle, LIFECYCLE_END_DRAINED);
}

void lifecycle_stop(struct lifecycle *lifecycle)
{
    stop(lifecycle, LIFECYCLE_END_AT_ONCE);
}

int lifecycle_run(struct lifecycle *lifecycle)
{
    /* loopbreak ends one dispatch; a stop before the first one would be lost without the loop */
    while (lifecycle->phase != LIFECYCLE_STOPPED)
        if (event_base_dispatch(lifecycle->base) < 0) {
            log_error(LOG_SUBJECT("main"), "the event loop failed");
            return EXIT_CODE_START;
        }
    return atomic_load(&lifecycle->exit_code);
}

void lifecycle_set_exit_code(struct lifecycle *lifecycle, int code)
{
    atomic_store(&lifecycle->exit_code, code);
}
