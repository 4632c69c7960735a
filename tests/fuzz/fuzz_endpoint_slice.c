/* fuzz: proxy */
/*
 * Lines of a watch, the first one as a list. Property: what a store gives after any lines are endpoints
 * with an identity, an IP and a wanted port; applying them to an endpoint_list keeps its invariants.
 */
#include "shared/log.h"

#include "proxy/endpoint_list.h"
#include "proxy/endpoint_slice.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void check_specs(const struct endpoint_spec *specs, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        check(specs[i].who.identity.len > 0 && specs[i].who.label.len > 0);
        check(specs[i].who.port == address_port(&specs[i].who.address));
        check(specs[i].who.port > 0 && specs[i].state != ENDPOINT_GONE);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const struct endpoint_list_options options = {.absence = 1};
    char *names[] = {(char *)(uintptr_t) "http", (char *)(uintptr_t) "5000"};
    struct text_list ports = {.items = names, .count = 2};
    char version[RESOURCE_VERSION_SIZE] = "", why[WATCH_WHY_SIZE];
    static char continuation[CONTINUE_SIZE];
    struct slice rest = slice_of(data, len), line;
    struct slice_store *store = slice_store_new();
    struct endpoint_list *list = endpoint_list_new("fuzz", &options);
    uint64_t now = 1;
    log_set_level(LOG_LEVEL_ERROR);
    if (slice_cut(&rest, '\n', &line) &&
        !slice_list_apply(store, line, version, continuation, why))
        check(memchr(why, '\0', sizeof why) != NULL);
    while (slice_cut(&rest, '\n', &line)) {
        if (watch_event_apply(store, line, version, why) != WATCH_CHANGED)
            continue;
        struct slice_wants wants = {.ports = &ports,
                                    .only_v4 = now % 4 == 1,
                                    .only_v6 = now % 4 == 2,
                                    .prefers_v6 = now % 4 == 3};
        struct endpoint_spec *specs;
        size_t count;
        slice_store_list(store, &wants, &specs, &count);
        check_specs(specs, count);
        endpoint_list_apply(list, specs, count, now++);
        endpoint_list_tick(list, now);
        endpoint_list_check(list);
        free(specs);
    }
    check(memchr(version, '\0', sizeof version) != NULL);
    endpoint_list_free(list);
    slice_store_free(store);
    return 0;
}
