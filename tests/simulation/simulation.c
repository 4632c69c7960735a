/*
 * The broker that ships, several of it in one process, under virtual time: see tests/README.md.
 *
 *     simulation [--class NAME] [--seconds N] [SEED | FROM-TO]...
 *     simulation --replay FILE | --shrink FILE | --print CLASS SEED | --classes
 *
 * Each run is a child of its own, so that nothing of one reaches the next, and a crash or a hang is one more finding.
 */
#include "tests/simulation/client.h"
#include "tests/simulation/libc.h"
#include "tests/simulation/play.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* A turn of a loop that takes so many ticks of real CPU time does not end. */
#define TICK_SECONDS 1
#define TICKS_MAX    3

#define EXIT_FOUND 1
#define EXIT_USAGE 2
#define EXIT_HANGS 9

/* Without any on the command line. */
#define SEEDS_DEFAULT 340

/* What a child leaves for its parent. */
struct report {
    struct outcome outcome;
    char violation[600];
    bool is_done;
};

static struct report *report;
static bool is_verbose;
static uint64_t virtual_time, cpu_time, events;
static unsigned runs, found;

static void on_tick(int number UNUSED)
{
    static uint64_t seen;
    static unsigned ticks;
    ticks = slot_turns_seen == seen && seen % 2 == 1 ? ticks + 1 : 0;
    seen = slot_turns_seen;
    if (ticks >= TICKS_MAX)
        _exit(EXIT_HANGS);
}

static void watch_turns(void)
{
    struct itimerval every = {{TICK_SECONDS, 0}, {TICK_SECONDS, 0}};
    signal(SIGPROF, on_tick);
    check(setitimer(ITIMER_PROF, &every, NULL) == 0);
}

/* Runs in a child; false: report->violation says what was found. */
static bool run(const struct schedule *schedule)
{
    memset(report, 0, sizeof(*report));
    fflush(NULL);
    uint64_t began = libc_cpu_time();
    pid_t child = fork();
    check(child >= 0);
    if (child == 0) {
        watch_turns();
        report->outcome = play(schedule, is_verbose);
        if (report->outcome.violation != NULL)
            snprintf(report->violation, sizeof(report->violation), "%s",
                     report->outcome.violation);
        free(report->outcome.violation);
        report->is_done = true;
        exit(report->violation[0] != '\0' ? EXIT_FOUND : 0);
    }
    int status;
    struct rusage used;
    while (wait4(child, &status, 0, &used) < 0)
        check(errno == EINTR);
    if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_HANGS)
        snprintf(report->violation, sizeof(report->violation),
                 "hang: a turn of a broker's loop does not end");
    else if (WIFSIGNALED(status))
        snprintf(report->violation, sizeof(report->violation), "crash: signal %d",
                 WTERMSIG(status));
    else if (WEXITSTATUS(status) != 0 && report->violation[0] == '\0')
        snprintf(report->violation, sizeof(report->violation), "crash: exit status %d",
                 WEXITSTATUS(status));
    virtual_time += report->outcome.virtual_time;
    events += report->outcome.events;
    cpu_time += (uint64_t)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000000 +
                (uint64_t)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) +
                (libc_cpu_time() - began);
    runs++;
    return report->violation[0] == '\0';
}

static bool is_same_rule(const char *one, const char *other)
{
    size_t len = strcspn(one, ":");
    return strncmp(one, other, len + 1) == 0;
}

/* ── shrinking ── */

static struct schedule without(const struct schedule *schedule, size_t from, size_t count)
{
    struct schedule shorter = {.class = schedule->class, .seed = schedule->seed};
    for (size_t i = 0; i < schedule->count; i++)
        if (i < from || i >= from + count) {
            const struct deed *deed = &schedule->deeds[i];
            const int64_t *n = deed->numbers;
            schedule_add(&shorter, deed->at, deed->kind, n[0], n[1], n[2], n[3], n[4]);
        }
    return shorter;
}

/* What was to come later did not matter: the run ended with the finding. */
static void drop_later(struct schedule *schedule, uint64_t time)
{
    while (schedule->count > 0 &&
           schedule->deeds[schedule->count - 1].at + PLAY_WARM_UP > time)
        schedule->count--;
}

/* Leaves out deeds, in ever smaller runs, while the same rule is violated. */
static void shrink(struct schedule *schedule, const char *violation)
{
    char rule[600];
    snprintf(rule, sizeof(rule), "%s", violation);
    if (report->is_done)
        drop_later(schedule, report->outcome.virtual_time);
    for (size_t part = schedule->count / 2; part > 0;) {
        bool has_shrunk = false;
        for (size_t from = 0; from < schedule->count;) {
            struct schedule shorter = without(schedule, from, part);
            if (!run(&shorter) && is_same_rule(rule, report->violation)) {
                schedule_free(schedule);
                *schedule = shorter;
                if (report->is_done)
                    drop_later(schedule, report->outcome.virtual_time);
                has_shrunk = true;
                fprintf(stderr, "\r%zu deeds   ", schedule->count);
            } else {
                schedule_free(&shorter);
                from += part;
            }
        }
        if (!has_shrunk || part > schedule->count)
            part = part > schedule->count ? schedule->count / 2 : part / 2;
    }
    fputc('\n', stderr);
    run(schedule);
}

/* ── what is asked for ── */

static void print_speed(void)
{
    double seconds = (double)cpu_time / 1e6;
    printf("%u runs, %u found something; %.0f virtual seconds in %.1f s of CPU: %.0f "
           "virtual "
           "seconds and %.1f runs a CPU second, %.0f events a run\n",
           runs, found, (double)virtual_time / 1e6, seconds,
           (double)virtual_time / 1e6 / seconds, runs / seconds,
           runs > 0 ? (double)events / runs : 0);
}

static void tell(const struct schedule *schedule, const char *folder)
{
    found++;
    printf("class %s, seed %" PRIu64 ": %s\n", schedule->class->name, schedule->seed,
           report->violation);
    if (folder == NULL)
        return;
    char *path = must_printf("%s/%s-%" PRIu64 ".txt", folder, schedule->class->name,
                             schedule->seed);
    FILE *out = fopen(path, "w");
    if (out != NULL) {
        fprintf(out, "# %s\n", report->violation);
        schedule_print(schedule, out);
        fclose(out);
        printf("    its schedule: %s\n", path);
    }
    free(path);
    fflush(stdout);
}

struct plan {
    const struct fault_class *class; /* NULL: all in turn */
    uint64_t from, to;
    double seconds; /* of CPU; 0: no end */
    bool stops;     /* at the first finding */
    const char *folder;
};

static const struct fault_class *class_of_seed(uint64_t seed)
{
    return &fault_classes[seed % fault_class_count];
}

static bool run_plan(const struct plan *plan)
{
    for (uint64_t seed = plan->from; seed <= plan->to; seed++) {
        struct schedule schedule;
        const struct fault_class *class =
            plan->class != NULL ? plan->class : class_of_seed(seed);
        schedule_make(&schedule, class, seed);
        if (!run(&schedule))
            tell(&schedule, plan->folder);
        schedule_free(&schedule);
        if ((plan->stops && found > 0) ||
            (plan->seconds > 0 && (double)cpu_time / 1e6 > plan->seconds))
            break;
    }
    return found == 0;
}

static bool replay(const char *path, bool shrinks)
{
    struct schedule schedule;
    FILE *in = fopen(path, "r");
    if (in == NULL || !schedule_read(&schedule, in)) {
        fprintf(stderr, "%s: cannot be read\n", path);
        exit(EXIT_USAGE);
    }
    fclose(in);
    bool ok = run(&schedule);
    if (!ok && shrinks) {
        is_verbose = false;
        shrink(&schedule, report->violation);
        printf("# %s\n", report->violation);
        schedule_print(&schedule, stdout);
    } else {
        printf("%s\n", ok ? "nothing is violated" : report->violation);
    }
    schedule_free(&schedule);
    return ok;
}

static void print_classes(void)
{
    for (unsigned i = 0; i < fault_class_count; i++)
        printf("%-20s %s\n", fault_classes[i].name, fault_classes[i].help);
}

static const char usage[] =
    "usage: simulation [--class NAME] [--seconds CPU] [--stop] [--schedules FOLDER] "
    "[SEED | "
    "FROM-TO]...\n"
    "       simulation --replay FILE [--verbose]    plays a schedule\n"
    "       simulation --shrink FILE                leaves out what is not needed\n"
    "       simulation --print --class NAME SEED    writes a schedule\n"
    "       simulation --classes\n";

enum {
    FLAG_CLASS = 256,
    FLAG_SECONDS,
    FLAG_STOP,
    FLAG_SCHEDULES,
    FLAG_REPLAY,
    FLAG_SHRINK,
    FLAG_PRINT,
    FLAG_CLASSES,
    FLAG_VERBOSE
};
static const struct option flags[] = {
    {"class", required_argument, NULL, FLAG_CLASS},
    {"seconds", required_argument, NULL, FLAG_SECONDS},
    {"stop", no_argument, NULL, FLAG_STOP},
    {"schedules", required_argument, NULL, FLAG_SCHEDULES},
    {"replay", required_argument, NULL, FLAG_REPLAY},
    {"shrink", required_argument, NULL, FLAG_SHRINK},
    {"print", no_argument, NULL, FLAG_PRINT},
    {"classes", no_argument, NULL, FLAG_CLASSES},
    {"verbose", no_argument, NULL, FLAG_VERBOSE},
    {NULL, 0, NULL, 0},
};

struct command_line {
    struct plan plan;
    const char *path; /* of a schedule to play */
    bool shrinks, prints, lists;
};

/* table-shaped: one case a flag. False: it is wrong. */
static bool take_flag(struct command_line *line, int flag)
{
    switch (flag) {
    case FLAG_CLASS:
        line->plan.class = fault_class_find(optarg);
        if (line->plan.class == NULL)
            fprintf(stderr, "there is no class %s; --classes lists them\n", optarg);
        return line->plan.class != NULL;
    case FLAG_SECONDS:
        line->plan.seconds = strtod(optarg, NULL);
        return true;
    case FLAG_STOP:
        line->plan.stops = true;
        return true;
    case FLAG_SCHEDULES:
        line->plan.folder = optarg;
        return true;
    case FLAG_SHRINK:
        line->shrinks = true;
        line->path = optarg;
        return true;
    case FLAG_REPLAY:
        line->path = optarg;
        return true;
    case FLAG_PRINT:
        line->prints = true;
        return true;
    case FLAG_CLASSES:
        line->lists = true;
        return true;
    case FLAG_VERBOSE:
        is_verbose = true;
        return true;
    default:
        fputs(usage, stderr);
        return false;
    }
}

static void print_schedule(const struct plan *plan)
{
    struct schedule schedule;
    const struct fault_class *class =
        plan->class != NULL ? plan->class : class_of_seed(plan->from);
    schedule_make(&schedule, class, plan->from);
    schedule_print(&schedule, stdout);
    schedule_free(&schedule);
}

/* "7" or "7-12"; NULL: as many as there are by default. */
static bool take_seeds(struct plan *plan, const char *text)
{
    if (text == NULL) {
        plan->from = 1;
        plan->to = plan->seconds > 0 ? UINT64_MAX : SEEDS_DEFAULT;
        return true;
    }
    char *end;
    plan->from = plan->to = strtoull(text, &end, 10);
    if (*end == '-')
        plan->to = strtoull(end + 1, &end, 10);
    if (*end == '\0' && plan->from <= plan->to)
        return true;
    fprintf(stderr, "'%s' is no seed, and no range of seeds\n", text);
    return false;
}

int main(int argc, char **argv)
{
    struct command_line line = {0};
    report = mmap(NULL, sizeof(*report), PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    check(report != MAP_FAILED);
    for (int flag; (flag = getopt_long(argc, argv, "", flags, NULL)) != -1;)
        if (!take_flag(&line, flag))
            return EXIT_USAGE;
    if (line.lists) {
        print_classes();
        return 0;
    }
    if (line.path != NULL)
        return replay(line.path, line.shrinks) ? 0 : EXIT_FOUND;
    for (int i = optind; i < argc || i == optind; i++) {
        if (!take_seeds(&line.plan, i < argc ? argv[i] : NULL))
            return EXIT_USAGE;
        if (line.prints)
            print_schedule(&line.plan);
        else
            run_plan(&line.plan);
    }
    if (!line.prints)
        print_speed();
    return found > 0 ? EXIT_FOUND : 0;
}
