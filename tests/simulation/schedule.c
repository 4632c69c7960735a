#include "tests/simulation/schedule.h"

#include "tests/simulation/broker_files.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const char *const words[DEED_COUNT] = {
#define DEED(word, numbers) #word,
    DEEDS(DEED)
#undef DEED
};

const struct fault_class *fault_class_find(const char *name)
{
    for (unsigned i = 0; i < fault_class_count; i++)
        if (strcmp(fault_classes[i].name, name) == 0)
            return &fault_classes[i];
    return NULL;
}

void schedule_add(struct schedule *schedule, uint64_t at, enum deed_kind kind, int64_t a,
                  int64_t b, int64_t c, int64_t d, int64_t e)
{
    if (schedule->count == schedule->capacity) {
        schedule->capacity = schedule->capacity > 0 ? schedule->capacity * 2 : 256;
        schedule->deeds =
            must_realloc(schedule->deeds, schedule->capacity * sizeof(*schedule->deeds));
    }
    schedule->deeds[schedule->count++] = (struct deed){at, kind, {a, b, c, d, e}};
}

void schedule_free(struct schedule *schedule)
{
    free(schedule->deeds);
    *schedule = (struct schedule){0};
}

static uint64_t below(uint64_t *random, uint64_t limit)
{
    return world_stream(random) % limit;
}

static struct wire_profile draw_wires(uint64_t *random)
{
    static const struct wire_profile profiles[] = {
        {.latency_low = 50, .latency_high = 300, .slow_one_in = 50, .latency_slow = 2000},
        {.latency_low = 200, .latency_high = 5000},
        {.latency_low = 1000, .latency_high = 20000},
        {.latency_low = 50,
         .latency_high = 200,
         .slow_one_in = 30,
         .latency_slow = 60000},
    };
    static const size_t buffers[] = {65536, 65536, 262144, 20000};
    struct wire_profile profile = profiles[below(random, ARRAY_LEN(profiles))];
    profile.buffer = buffers[below(random, ARRAY_LEN(buffers))];
    profile.piece_one_in = (unsigned)below(random, 3) * 4;
    return profile;
}

struct setup schedule_set_up(const struct fault_class *class, uint64_t seed)
{
    static const unsigned partitions[] = {1, 2, 8, 16, 32};
    uint64_t random = seed * 7919 + 13;
    struct setup setup = {
        .brokers = 2 + (unsigned)below(&random, 2),
        .shards = 2 + (unsigned)below(&random, 2),
        .partitions = partitions[below(&random, ARRAY_LEN(partitions))],
        .observers = 1,
        .pods = 1,
        .listeners = (unsigned)below(&random, 2),
        .publishers = 1 + (unsigned)below(&random, 2),
        .forms = 1 + (unsigned)below(&random, 2),
        .resend_window = below(&random, 4) == 0 ? 200 : 20,
        .ack_shard = below(&random, 4) == 0,
        .keys = seed % 5 == 2
                    ? KEYS_STRICT
                    : KEYS_NONE, /* not drawn: what else is drawn stays as it was */
        .pods_speak = below(&random, 3) == 0,
        .wires = draw_wires(&random),
        .length = SECONDS(15 + below(&random, 30)),
        .settles = SECONDS(25),
    };
    if (class->set_up != NULL)
        class->set_up(&setup, &random);
    return setup;
}

static int compare(const void *a, const void *b)
{
    const struct deed *one = a;
    const struct deed *other = b;
    return one->at < other->at ? -1 : one->at > other->at;
}

void schedule_make(struct schedule *schedule, const struct fault_class *class,
                   uint64_t seed)
{
    *schedule = (struct schedule){.class = class, .seed = seed};
    const struct setup setup = schedule_set_up(class, seed);
    uint64_t random = seed * 104729 + 7;
    class->fill(schedule, &setup, &random);
    qsort(schedule->deeds, schedule->count, sizeof(*schedule->deeds), compare);
}

/* ── as text ── */

void schedule_print(const struct schedule *schedule, FILE *out)
{
    fprintf(out, "class %s\nseed %" PRIu64 "\n", schedule->class->name, schedule->seed);
    for (size_t i = 0; i < schedule->count; i++) {
        const struct deed *deed = &schedule->deeds[i];
        fprintf(out, "%" PRIu64 ".%06" PRIu64 " %s", deed->at / 1000000,
                deed->at % 1000000, words[deed->kind]);
        unsigned count = DEED_NUMBERS;
        while (count > 1 && deed->numbers[count - 1] == 0)
            count--;
        for (unsigned k = 0; k < count; k++)
            fprintf(out, " %" PRId64, deed->numbers[k]);
        fputc('\n', out);
    }
}

static bool read_deed(struct schedule *schedule, const char *line)
{
    uint64_t seconds;
    uint64_t micros;
    char word[32];
    int used = 0;
    struct deed deed = {0};
    if (sscanf(line, "%" SCNu64 ".%6" SCNu64 " %31s%n", &seconds, &micros, word, &used) !=
        3)
        return false;
    for (deed.kind = 0; deed.kind < DEED_COUNT && strcmp(words[deed.kind], word) != 0;)
        deed.kind++;
    if (deed.kind == DEED_COUNT)
        return false;
    const char *at = line + used;
    for (unsigned k = 0; k < DEED_NUMBERS; k++) {
        char *end;
        deed.numbers[k] = strtoll(at, &end, 10);
        if (end == at)
            break;
        at = end;
    }
    schedule_add(schedule, seconds * 1000000 + micros, deed.kind, deed.numbers[0],
                 deed.numbers[1], deed.numbers[2], deed.numbers[3], deed.numbers[4]);
    return true;
}

bool schedule_read(struct schedule *schedule, FILE *in)
{
    char line[256];
    char name[64];
    *schedule = (struct schedule){0};
    for (unsigned number = 1; fgets(line, sizeof(line), in) != NULL; number++) {
        if (line[0] == '\n' || line[0] == '#')
            continue;
        if (sscanf(line, "class %63s", name) == 1)
            schedule->class = fault_class_find(name);
        else if (sscanf(line, "seed %" SCNu64, &schedule->seed) != 1 &&
                 !read_deed(schedule, line)) {
            fprintf(stderr, "line %u is no deed: %s", number, line);
            schedule_free(schedule);
            return false;
        }
    }
    if (schedule->class == NULL)
        fputs("the schedule names no class that is known\n", stderr);
    return schedule->class != NULL;
}
