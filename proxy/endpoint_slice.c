#include "proxy/endpoint_slice.h"

#include <arpa/inet.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_MAX 256 /* names and UIDs are shorter */

struct slice_port {
    char *name; /* "" is a name */
    unsigned port;
};

struct slice_endpoint {
    char *uid; /* "": none */
    char *hostname;
    struct address address; /* port 0 */
    enum endpoint_state state;
};

struct endpoint_slice {
    char *name;
    bool is_v6;
    struct slice_port *ports;
    size_t ports_len;
    struct slice_endpoint *endpoints;
    size_t endpoints_len;
};

struct slice_store {
    struct endpoint_slice **slices;
    size_t len;
};

/* ---- JSON ---- */

/* A copy of a short text member, "" when it is not there or too long. */
static char *copy_member(const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);
    bool is_good =
        json_is_string(value) && json_string_length(value) <= TEXT_MAX &&
        memchr(json_string_value(value), '\0', json_string_length(value)) == NULL;
    return must_strdup(is_good ? json_string_value(value) : "");
}

static const char *text_member(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text != NULL ? text : "";
}

static bool truth(const json_t *conditions, const char *name, bool standard)
{
    const json_t *value = json_object_get(conditions, name);
    return json_is_boolean(value) ? json_is_true(value) : standard;
}

static enum endpoint_state state_of(const json_t *conditions)
{
    bool is_ready = truth(conditions, "ready", true);
    bool is_serving = truth(conditions, "serving", true);
    if (truth(conditions, "terminating", false))
        return is_serving ? ENDPOINT_DRAINING : ENDPOINT_CLOSING;
    return is_ready ? ENDPOINT_READY : ENDPOINT_DEGRADED;
}

static bool read_ip(const char *text, bool is_v6, struct address *address)
{
    memset(address, 0, sizeof *address);
    if (is_v6) {
        address->len = sizeof address->socket.v6;
        address->socket.v6.sin6_family = AF_INET6;
        return inet_pton(AF_INET6, text, &address->socket.v6.sin6_addr) == 1;
    }
    address->len = sizeof address->socket.v4;
    address->socket.v4.sin_family = AF_INET;
    return inet_pton(AF_INET, text, &address->socket.v4.sin_addr) == 1;
}

static void read_ports(struct endpoint_slice *slice, const json_t *ports)
{
    size_t count = min_size(json_array_size(ports), ENDPOINT_SLICE_PORTS_MAX);
    slice->ports = must_calloc(count, sizeof *slice->ports);
    for (size_t i = 0; i < count; i++) {
        const json_t *port = json_array_get(ports, i);
        json_int_t number = json_integer_value(json_object_get(port, "port"));
        const char *protocol = text_member(port, "protocol");
        bool is_tcp = protocol[0] == '\0' || strcmp(protocol, "TCP") == 0;
        if (number < 1 || number > 65535 || !is_tcp)
            continue;
        slice->ports[slice->ports_len++] = (struct slice_port){
            .name = copy_member(port, "name"), .port = (unsigned)number};
    }
}

static void read_endpoints(struct endpoint_slice *slice, const json_t *endpoints)
{
    size_t count = json_array_size(endpoints);
    slice->endpoints = must_calloc(count, sizeof *slice->endpoints);
    for (size_t i = 0; i < count; i++) {
        const json_t *it = json_array_get(endpoints, i);
        const char *text =
            json_string_value(json_array_get(json_object_get(it, "addresses"), 0));
        struct slice_endpoint *endpoint = &slice->endpoints[slice->endpoints_len];
        if (text == NULL || !read_ip(text, slice->is_v6, &endpoint->address))
            continue;
        endpoint->uid = copy_member(json_object_get(it, "targetRef"), "uid");
        endpoint->hostname = copy_member(it, "hostname");
        endpoint->state = state_of(json_object_get(it, "conditions"));
        slice->endpoints_len++;
    }
}

/* ---- the store ---- */

static void free_slice(struct endpoint_slice *slice)
{
    for (size_t i = 0; i < slice->ports_len; i++)
        free(slice->ports[i].name);
    for (size_t i = 0; i < slice->endpoints_len; i++) {
        free(slice->endpoints[i].uid);
        free(slice->endpoints[i].hostname);
    }
    free(slice->ports);
    free(slice->endpoints);
    free(slice->name);
    free(slice);
}

struct slice_store *slice_store_new(void)
{
    return must_calloc(1, sizeof(struct slice_store));
}

void slice_store_free(struct slice_store *store)
{
    for (size_t i = 0; i < store->len; i++)
        free_slice(store->slices[i]);
    free(store->slices);
    free(store);
}

size_t slice_store_count(const struct slice_store *store)
{
    return store->len;
}

/* The object's name, or NULL with why it is no EndpointSlice. */
static const char *name_of(const json_t *object, const char **why)
{
    const char *kind = json_string_value(json_object_get(object, "kind"));
    const json_t *name = json_object_get(json_object_get(object, "metadata"), "name");
    /* items of lists have no kind */
    if (kind != NULL && strcmp(kind, "EndpointSlice") != 0)
        *why = "is not an EndpointSlice";
    else if (!json_is_string(name) || json_string_length(name) == 0 ||
             json_string_length(name) > TEXT_MAX)
        *why = "has no name";
    else
        return json_string_value(name);
    return NULL;
}

static size_t find(const struct slice_store *store, const char *name)
{
    size_t i = 0;
    while (i < store->len && strcmp(store->slices[i]->name, name) != 0)
        i++;
    return i;
}

bool slice_store_put(struct slice_store *store, const json_t *object, const char **why)
{
    const char *name = name_of(object, why);
    if (name == NULL)
        return false;
    size_t place = find(store, name);
    if (place == store->len && store->len == ENDPOINT_SLICES_MAX) {
        *why = "is one slice too many";
        return false;
    }
    const json_t *endpoints = json_object_get(object, "endpoints");
    if (json_array_size(endpoints) > ENDPOINT_SLICE_ENDPOINTS_MAX) {
        *why = "has more than 4096 endpoints";
        return false;
    }
    struct endpoint_slice *slice = must_calloc(1, sizeof *slice);
    const char *type = text_member(object, "addressType");
    slice->name = must_strdup(name);
    slice->is_v6 = strcmp(type, "IPv6") == 0;
    if (slice->is_v6 || strcmp(type, "IPv4") == 0) {
        read_ports(slice, json_object_get(object, "ports"));
        read_endpoints(slice, endpoints);
    }
    if (place < store->len) {
        free_slice(store->slices[place]);
    } else {
        store->slices =
            must_realloc(store->slices, (store->len + 1) * sizeof(store->slices[0]));
        store->len++;
    }
    store->slices[place] = slice;
    return true;
}

bool slice_store_remove(struct slice_store *store, const json_t *object, const char **why)
{
    const char *name = name_of(object, why);
    if (name == NULL)
        return false;
    size_t place = find(store, name);
    if (place == store->len)
        return true;
    free_slice(store->slices[place]);
    store->slices[place] = store->slices[--store->len];
    return true;
}

/* ---- the union ---- */

static bool is_wanted(const struct slice_wants *wants, const struct slice_port *port)
{
    char number[8];
    snprintf(number, sizeof number, "%u", port->port & 0xffff);
    for (size_t i = 0; i < wants->ports->count; i++)
        if (strcmp(wants->ports->items[i], port->name) == 0 ||
            strcmp(wants->ports->items[i], number) == 0)
            return true;
    return false;
}

static struct address with_port(struct address address, unsigned port)
{
    if (address.socket.any.sa_family == AF_INET6)
        address.socket.v6.sin6_port = htons((uint16_t)port);
    else
        address.socket.v4.sin_port = htons((uint16_t)port);
    return address;
}

/* One that was found, with the text of its address. */
struct candidate {
    struct endpoint_spec spec;
    char text[ADDRESS_TEXT_SIZE];
    bool is_v6;
};

static int compare_candidates(const void *a, const void *b)
{
    const struct candidate *one = a, *other = b;
    int order = endpoint_identity_compare(one->spec.who.identity, one->spec.who.port,
                                          other->spec.who.identity, other->spec.who.port);
    if (order == 0) /* families together, livelier states first */
        order = one->is_v6 - other->is_v6;
    return order != 0 ? order : (int)one->spec.state - (int)other->spec.state;
}

static size_t add_candidates(const struct endpoint_slice *slice,
                             const struct slice_wants *wants, struct candidate *found)
{
    size_t len = 0;
    for (size_t p = 0; p < slice->ports_len; p++) {
        if (!is_wanted(wants, &slice->ports[p]))
            continue;
        for (size_t e = 0; e < slice->endpoints_len; e++) {
            const struct slice_endpoint *endpoint = &slice->endpoints[e];
            struct candidate *it = &found[len++];
            it->is_v6 = slice->is_v6;
            it->spec = (struct endpoint_spec){
                .who = {.address = with_port(endpoint->address, slice->ports[p].port),
                        .port = slice->ports[p].port,
                        .identity = slice_from_text(endpoint->uid),
                        .label = slice_from_text(endpoint->hostname)},
                .state = endpoint->state,
                .weight = 1,
            };
            address_text(&it->spec.who.address, it->text);
        }
    }
    return len;
}

static size_t count_candidates(const struct slice_store *store)
{
    size_t count = 0;
    for (size_t i = 0; i < store->len; i++)
        count += store->slices[i]->ports_len * store->slices[i]->endpoints_len;
    return count;
}

/* Text that the specs' caller needs no store for: all in one block behind the specs. */
static void write_specs(const struct candidate *found, size_t len,
                        const struct slice_wants *wants, struct endpoint_spec **specs,
                        size_t *specs_len)
{
    *specs = must_calloc(1, len * (sizeof **specs + ADDRESS_TEXT_SIZE));
    char *texts = (char *)(*specs + len);
    *specs_len = 0;
    for (size_t i = 0; i < len; i++) {
        if ((found[i].is_v6 && wants->only_v4) || (!found[i].is_v6 && wants->only_v6))
            continue;
        struct endpoint_spec *last = *specs_len > 0 ? &(*specs)[*specs_len - 1] : NULL;
        bool is_same =
            last != NULL && endpoint_identity_compare(last->who.identity, last->who.port,
                                                      found[i].spec.who.identity,
                                                      found[i].spec.who.port) == 0;
        bool was_v6 = is_same && last->who.address.socket.any.sa_family == AF_INET6;
        /* of one family the first is the livelier; of two the preferred */
        if (is_same && (was_v6 == found[i].is_v6 || !wants->prefers_v6))
            continue;
        struct endpoint_spec *spec = is_same ? last : &(*specs)[(*specs_len)++];
        char *text = texts + i * ADDRESS_TEXT_SIZE;
        memcpy(text, found[i].text, ADDRESS_TEXT_SIZE);
        *spec = found[i].spec;
        spec->who.address_text = slice_from_text(text);
        if (slice_equals(spec->who.identity, slice_from_text(found[i].text)))
            spec->who.identity = spec->who.address_text;
        if (spec->who.label.len == 0)
            spec->who.label = spec->who.identity;
    }
}

void slice_store_list(const struct slice_store *store, const struct slice_wants *wants,
                      struct endpoint_spec **specs, size_t *len)
{
    struct candidate *found = must_calloc(count_candidates(store), sizeof *found);
    size_t count = 0;
    for (size_t i = 0; i < store->len; i++)
        count += add_candidates(store->slices[i], wants, found + count);
    for (size_t i = 0; i < count; i++)
        if (found[i].spec.who.identity.len == 0)
            found[i].spec.who.identity = slice_from_text(found[i].text);
    /* identities of text in `found` would move while sorting: sort places */
    struct candidate *sorted = must_calloc(count, sizeof *sorted);
    memcpy(sorted, found, count * sizeof *found);
    qsort(sorted, count, sizeof *sorted, compare_candidates);
    write_specs(sorted, count, wants, specs, len);
    free(sorted);
    free(found);
}

/* ---- what the server says ---- */

static void take_version(const json_t *object, char version[RESOURCE_VERSION_SIZE])
{
    const char *text =
        text_member(json_object_get(object, "metadata"), "resourceVersion");
    if (text[0] != '\0' && strlen(text) < RESOURCE_VERSION_SIZE)
        snprintf(version, RESOURCE_VERSION_SIZE, "%s", text);
}

static enum watch_event apply_event(struct slice_store *store, const char *type,
                                    const json_t *object,
                                    char version[RESOURCE_VERSION_SIZE],
                                    char why[WATCH_WHY_SIZE])
{
    const char *wrong = "";
    if (strcmp(type, "ERROR") == 0) {
        json_int_t code = json_integer_value(json_object_get(object, "code"));
        snprintf(why, WATCH_WHY_SIZE, "%d: %.150s", (int)code,
                 text_member(object, "message"));
        return code == 410 ? WATCH_EXPIRED : WATCH_ERROR;
    }
    bool is_good = true;
    if (strcmp(type, "DELETED") == 0)
        is_good = slice_store_remove(store, object, &wrong);
    else if (strcmp(type, "ADDED") == 0 || strcmp(type, "MODIFIED") == 0)
        is_good = slice_store_put(store, object, &wrong);
    else if (strcmp(type, "BOOKMARK") != 0) {
        snprintf(why, WATCH_WHY_SIZE, "an event of no known type");
        return WATCH_BAD;
    }
    if (!is_good) {
        snprintf(why, WATCH_WHY_SIZE, "the object of an event %s", wrong);
        return WATCH_BAD;
    }
    take_version(object, version);
    return strcmp(type, "BOOKMARK") == 0 ? WATCH_BOOKMARK : WATCH_CHANGED;
}

enum watch_event watch_event_apply(struct slice_store *store, struct slice line,
                                   char version[RESOURCE_VERSION_SIZE],
                                   char why[WATCH_WHY_SIZE])
{
    json_error_t fault;
    json_t *event = json_loadb(line.data, line.len, JSON_ALLOW_NUL, &fault);
    enum watch_event result = WATCH_BAD;
    const char *type = text_member(event, "type");
    const json_t *object = json_object_get(event, "object");
    if (event == NULL)
        snprintf(why, WATCH_WHY_SIZE, "an event is not JSON: %.120s", fault.text);
    else if (!json_is_object(object))
        snprintf(why, WATCH_WHY_SIZE, "an event without an object");
    else
        result = apply_event(store, type, object, version, why);
    json_decref(event);
    return result;
}

static bool apply_list(struct slice_store *store, const json_t *list,
                       char version[RESOURCE_VERSION_SIZE],
                       char continuation[CONTINUE_SIZE], char why[WATCH_WHY_SIZE])
{
    const json_t *items = json_object_get(list, "items");
    const char *wrong = "";
    if (strcmp(text_member(list, "kind"), "EndpointSliceList") != 0 ||
        (items != NULL && !json_is_array(items) && !json_is_null(items))) {
        snprintf(why, WATCH_WHY_SIZE, "the answer is no EndpointSliceList");
        return false;
    }
    for (size_t i = 0; i < json_array_size(items); i++)
        if (!slice_store_put(store, json_array_get(items, i), &wrong)) {
            snprintf(why, WATCH_WHY_SIZE, "item %zu of the list %s", i, wrong);
            return false;
        }
    const char *more = text_member(json_object_get(list, "metadata"), "continue");
    if (strlen(more) >= CONTINUE_SIZE) {
        snprintf(why, WATCH_WHY_SIZE, "the list's continue token is too long");
        return false;
    }
    snprintf(continuation, CONTINUE_SIZE, "%s", more);
    take_version(list, version);
    return true;
}

bool slice_list_apply(struct slice_store *store, struct slice body,
                      char version[RESOURCE_VERSION_SIZE],
                      char continuation[CONTINUE_SIZE], char why[WATCH_WHY_SIZE])
{
    json_error_t fault;
    json_t *list = json_loadb(body.data, body.len, JSON_ALLOW_NUL, &fault);
    bool is_good = false;
    if (list == NULL)
        snprintf(why, WATCH_WHY_SIZE, "the list is not JSON: %.120s", fault.text);
    else
        is_good = apply_list(store, list, version, continuation, why);
    json_decref(list);
    return is_good;
}
