/*
 * What a client holds in buffers, and for whom:
 *
 *      in, out, exchange, tunnel ─ client_settle ─▶ steps of 2 KiB ─▶ admission: bytes of its address, all workers
 *
 *      limits.buffered_bytes   0 ───────────── 4/8 ──────────── 6/8 ──────────── 8/8
 *        heads, small bodies   │ served                                          │ 503
 *        other bodies          │ served                          │ 503
 *        an address beyond     │ served         │ 503, and what is read for its
 *        its share             │                │ clients comes in small portions
 *
 * So neither one address nor all bodies together can use up what others need for their heads. What is below a step
 * is not counted: most clients never touch the shared table.
 */
#include "proxy/client_parts.h"

#include "proxy/admission.h"
#include "proxy/exchange.h"
#include "proxy/tunnel.h"

#define STEP           2048u
#define SMALL_BODY     16384u /* may use the reserve */
#define PORTION_SMALL  4096u
#define SHARE_EIGHTHS  4u /* from here on addresses have a share */
#define BODIES_EIGHTHS 6u

static size_t holds(const struct client *client)
{
    size_t total = buffer_size(client->in) + buffer_size(client->out);
    if (client->exchange != NULL)
        total += exchange_holds(client->exchange);
    if (client->tunnel != NULL)
        total += tunnel_holds(client->tunnel);
    return total;
}

static void count(struct client *client, size_t bytes)
{
    uint32_t held = (uint32_t)(min_size(bytes, UINT32_MAX) / STEP * STEP);
    if (!client->has_holder || held == client->held)
        return;
    (void)admission_hold(client->worker->process->admission, &client->holder,
                         client->held, held);
    client->held = held;
}

void client_settle(struct client *client)
{
    count(client, client->state == CLIENT_CLOSED ? 0 : holds(client));
}

void client_set_holder(struct client *client, const struct in6_addr *ip)
{
    if (ip != NULL && client->has_holder && memcmp(ip, &client->holder, sizeof *ip) == 0)
        return;
    count(client, 0);
    client->has_holder = ip != NULL;
    if (ip != NULL)
        client->holder = *ip;
    client_settle(client);
}

static bool is_beyond_share(const struct client *client)
{
    if (buffer_pool_has_room(&client->worker->buffers, SHARE_EIGHTHS) ||
        !client->has_holder)
        return false;
    const struct proxy_config *config = client_config(client);
    uint64_t share = config->limits.buffered_bytes_per_ip;
    if (share == OPTION_AUTO)
        share = config->limits.buffered_bytes / 4;
    if (share == 0)
        return false;
    return admission_hold(client->worker->process->admission, &client->holder,
                          client->held, client->held) >= share;
}

bool client_has_room(struct client *client, enum client_use use, size_t more,
                     enum close_reason *reason)
{
    size_t bytes = holds(client) + more;
    bool is_large = use == CLIENT_USE_BODY && bytes > SMALL_BODY;
    *reason = CLOSE_BUFFERS_FULL;
    client_settle(client);
    if (!buffer_pool_has_room(&client->worker->buffers,
                              is_large ? BODIES_EIGHTHS : BUFFER_POOL_WHOLE))
        return false;
    if (bytes < STEP || !is_beyond_share(client))
        return true;
    *reason = CLOSE_IP_BUFFERS_FULL;
    return false;
}

size_t client_portion(const struct client *client)
{
    return is_beyond_share(client) ? PORTION_SMALL : WORKER_READ_MAX;
}
