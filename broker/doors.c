#include "broker/doors.h"

#include "broker/broker_config.h"
#include "broker/broker_metrics.h"
#include "shared/listener.h"
#include "shared/log.h"
#include "shared/net.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/stat.h>

/* One listening socket and what its clients are held to. */
struct door {
    struct doors *doors;
    struct address address;
    unsigned mode;
    const struct broker_listener_config *config; /* borrowed */
    const struct broker_listener_config *next;   /* prepared; NULL: it goes */
    bool is_new;
    struct listener *listener;
    TAILQ_ENTRY(door) of_doors;
};

struct doors {
    struct event_base *base; /* borrowed */
    doors_accept_cb on_accept;
    void *context;
    bool is_started;
    TAILQ_HEAD(, door) list;
};

static void on_accept(void *argument, int fd, const struct address *peer)
{
    const struct door *door = argument;
    door->doors->on_accept(door->doors->context, fd, peer, door->config);
}

static void on_back_off(void *argument UNUSED, int error UNUSED)
{
    metrics_add(M_ACCEPT_BACK_OFFS, 1);
}

static void close_door(struct door *door)
{
    TAILQ_REMOVE(&door->doors->list, door, of_doors);
    listener_free(door->listener);
    free(door);
}

/* One that is to stay, for this configuration. */
static struct door *find(struct doors *doors, const struct broker_listener_config *config)
{
    struct door *door;
    TAILQ_FOREACH(door, &doors->list, of_doors)
    if (door->next == NULL && address_equals(&door->address, &config->address))
        return door;
    return NULL;
}

static struct door *open_door(struct doors *doors,
                              const struct broker_listener_config *config,
                              char why[NET_WHY_SIZE])
{
    const struct net_listen_options options = {.mode = (mode_t)config->mode};
    int fd = net_listen(&config->address, &options, why);
    if (fd < 0)
        return NULL;
    struct door *door = must_calloc(1, sizeof(*door));
    door->doors = doors;
    door->address = config->address;
    door->mode = config->mode;
    door->is_new = true;
    char text[ADDRESS_TEXT_SIZE];
    const struct listener_callbacks callbacks = {on_accept, on_back_off};
    door->listener = listener_new(doors->base, fd, address_text(&door->address, text),
                                  &callbacks, door);
    TAILQ_INSERT_TAIL(&doors->list, door, of_doors);
    return door;
}

struct doors *doors_new(struct event_base *base, doors_accept_cb accept, void *context)
{
    struct doors *doors = must_calloc(1, sizeof(*doors));
    doors->base = base;
    doors->on_accept = accept;
    doors->context = context;
    TAILQ_INIT(&doors->list);
    return doors;
}

void doors_free(struct doors *doors)
{
    while (!TAILQ_EMPTY(&doors->list))
        close_door(TAILQ_FIRST(&doors->list));
    free(doors);
}

bool doors_prepare(struct doors *doors, const struct broker_config *config, FILE *errors)
{
    struct door *door;
    TAILQ_FOREACH(door, &doors->list, of_doors)
    door->next = NULL;
    for (size_t i = 0; i < config->listeners.count; i++) {
        const struct broker_listener_config *listener = broker_config_listener(config, i);
        char why[NET_WHY_SIZE];
        door = find(doors, listener);
        if (door == NULL)
            door = open_door(doors, listener, why);
        if (door == NULL) {
            char text[ADDRESS_TEXT_SIZE];
            fprintf(errors, "listeners[%zu].address: %s: %s\n", i,
                    address_text(&listener->address, text), why);
            doors_cancel(doors);
            return false;
        }
        door->next = listener;
    }
    return true;
}

static void tell(const struct door *door, const char *what)
{
    char text[ADDRESS_TEXT_SIZE];
    struct address address = net_local_address(listener_fd(door->listener));
    log_info(LOG_SUBJECT("main"), what, LOG_TEXT("address", address_text(&address, text)),
             LOG_BOOL("authenticated", door->config->users.count > 0),
             LOG_BOOL("tls", door->config->tls_context != NULL));
}

static void set_mode(struct door *door, unsigned mode)
{
    if (door->mode == mode || !address_is_unix(&door->address))
        return;
    const char *path = door->address.socket.local.sun_path;
    if (chmod(path, (mode_t)mode) != 0)
        log_warn(LOG_SUBJECT("main"), "the socket keeps its mode", LOG_TEXT("path", path),
                 LOG_TEXT("why", strerror(errno)));
    door->mode = mode;
}

void doors_commit(struct doors *doors)
{
    struct door *next;
    for (struct door *door = TAILQ_FIRST(&doors->list); door != NULL; door = next) {
        next = TAILQ_NEXT(door, of_doors);
        if (door->next == NULL) {
            tell(door, "no longer listening");
            close_door(door);
            continue;
        }
        door->config = door->next;
        set_mode(door, door->config->mode);
        if (door->is_new) {
            tell(door, "listening");
            if (doors->is_started)
                listener_start(door->listener);
        }
        door->is_new = false;
    }
}

void doors_cancel(struct doors *doors)
{
    struct door *next;
    for (struct door *door = TAILQ_FIRST(&doors->list); door != NULL; door = next) {
        next = TAILQ_NEXT(door, of_doors);
        if (door->is_new)
            close_door(door);
    }
}

void doors_start(struct doors *doors)
{
    doors->is_started = true;
    struct door *door;
    TAILQ_FOREACH(door, &doors->list, of_doors)
    listener_start(door->listener);
}

void doors_stop(struct doors *doors)
{
    doors->is_started = false;
    struct door *door;
    TAILQ_FOREACH(door, &doors->list, of_doors)
    listener_stop(door->listener);
}
