#include "proxy/tunnel.h"

#include "shared/net.h"
#include "shared/timing.h"

#include "proxy/drain.h"
#include "proxy/endpoint_connect.h"
#include "proxy/engine_open.h"
#include "proxy/proxy_config.h"
#include "proxy/upstream.h"

#include <errno.h>
#include <event2/event.h>
#include <openssl/rand.h>
#include <stdlib.h>

#define END_LINGER_MS    10000u /* from the first end to the second */
#define TEXT_FRAME       0x81   /* the first byte of an unfragmented, uncompressed one */
#define BOUNDARY_WAIT_MS 1000u  /* for a place between two frames */

_Static_assert(TUNNEL_COST <= 800,
               "an idle tunnel has grown: the promise is 1,024 bytes");

static struct worker *worker_of(const struct tunnel *tunnel)
{
    return tunnel->client->worker;
}

static const struct proxy_config *config_of(const struct tunnel *tunnel)
{
    return worker_of(tunnel)->current->snapshot->config;
}

static uint32_t now_of(const struct tunnel *tunnel)
{
    return deadline_now(&worker_of(tunnel)->wheel);
}

static struct stream *source_of(struct tunnel *tunnel, enum direction to)
{
    return to == TO_CLIENT ? &tunnel->connection->stream : &tunnel->client->stream;
}

static struct stream *sink_of(struct tunnel *tunnel, enum direction to)
{
    return to == TO_CLIENT ? &tunnel->client->stream : &tunnel->connection->stream;
}

/* What each socket is watched for follows from the two pipes alone. */
static void watch(struct tunnel *tunnel)
{
    const struct tunnel_pipe *down = &tunnel->pipes[TO_CLIENT];
    const struct tunnel_pipe *up = &tunnel->pipes[TO_ENDPOINT];
    bool reads_client = up->waiting == NULL && !up->has_ended;
    bool reads_endpoint = down->waiting == NULL && !down->has_ended;
    client_watch(tunnel->client,
                 (short)((reads_client ? EV_READ : 0) | (down->waiting ? EV_WRITE : 0)));
    endpoint_connection_watch(tunnel->connection, (short)((reads_endpoint ? EV_READ : 0) |
                                                          (up->waiting ? EV_WRITE : 0)));
}

static uint32_t idle_limit(const struct tunnel *tunnel)
{
    const struct proxy_config *config = config_of(tunnel);
    uint64_t limit = config->timeouts.tunnel_idle_other;
    if (tunnel->is_engine_io) {
        limit = config->timeouts.tunnel_idle;
        if (limit == OPTION_AUTO)
            limit = upstream_idle_limit(tunnel->connection->endpoint->upstream);
    }
    return deadline_limit(limit);
}

static uint32_t stall_limit(const struct tunnel *tunnel)
{
    return deadline_limit(config_of(tunnel)->timeouts.write_stall);
}

/* One end has finished, and the other has a while to do so too. */
static bool is_half_ended(const struct tunnel *tunnel)
{
    return !tunnel->is_orphan &&
           (tunnel->pipes[TO_CLIENT].has_ended || tunnel->pipes[TO_ENDPOINT].has_ended);
}

static void on_due(struct deadline *deadline);

static bool has_passed(uint32_t now, uint32_t moment)
{
    return (int32_t)(now - moment) >= 0;
}

/* Sets the deadline to the first of the limits that run now. */
static void rearm(struct tunnel *tunnel)
{
    uint32_t now = now_of(tunnel);
    uint32_t idle = idle_limit(tunnel);
    uint32_t left = idle - (uint32_t)min_size(idle, now - tunnel->client->active_at);
    for (int to = 0; to < DIRECTIONS; to++) {
        if (tunnel->pipes[to].waiting == NULL)
            continue;
        uint32_t limit = stall_limit(tunnel);
        uint32_t passed = now - tunnel->pipes[to].moved_at;
        left = (uint32_t)min_size(left, limit - min_size(limit, passed));
    }
    if (is_half_ended(tunnel))
        left = (uint32_t)min_size(
            left, END_LINGER_MS - min_size(END_LINGER_MS, now - tunnel->ended_at));
    if (tunnel->leave != TUNNEL_STAYS)
        left = has_passed(now, tunnel->leave_at)
                   ? 0
                   : (uint32_t)min_size(left, tunnel->leave_at - now);
    deadline_set(&worker_of(tunnel)->wheel, &tunnel->client->deadline, left, on_due);
}

/* ---- endings ---- */

/* The Close goes out if it can, behind whatever whole frames the client has not taken yet. */
static void close_with(struct tunnel *tunnel, uint16_t code, enum close_reason reason)
{
    struct client *client = tunnel->client;
    struct tunnel_pipe *down = &tunnel->pipes[TO_CLIENT];
    struct tunnel_pipe *up = &tunnel->pipes[TO_ENDPOINT];
    char frame[WS_CLOSE_FRAME_MAX];
    if (code != 0 && up->waiting == NULL && !up->has_ended && !up->tracker.has_close &&
        ws_tracker_is_at_boundary(&up->tracker)) {
        uint8_t mask[4];
        if (RAND_bytes(mask, sizeof mask) == 1) {
            size_t len = ws_frame_write_close(frame, WS_CLOSE_GOING_AWAY, mask);
            ssize_t sent = stream_write(&tunnel->connection->stream, frame, len);
            (void)sent; /* the connection is closed next, whatever became of it */
        }
    }
    bool can_tell = code != 0 && (!down->has_ended || tunnel->is_orphan) &&
                    !down->tracker.has_close && ws_tracker_is_at_boundary(&down->tracker);
    if (reason == CLOSE_DRAINED || reason == CLOSE_SHUTDOWN)
        metrics_add_by(M_DRAIN_CLOSES, can_tell ? DRAIN_CLOSE_TOLD : DRAIN_CLOSE_CUT, 1);
    if (!can_tell) {
        client_close(client, reason);
        return;
    }
    /* Whole frames may still wait for the client: the Close goes behind them. */
    client->out = down->waiting;
    client->active_at = now_of(tunnel);
    down->waiting = NULL;
    size_t len = ws_frame_write_close(frame, code, NULL);
    if (client_write(client, slice_of(frame, len)))
        client_linger(client, reason);
}

/* Both directions have finished: what the first to finish was called. */
static void close_ended(struct tunnel *tunnel)
{
    bool was_said = tunnel->pipes[TO_CLIENT].tracker.has_close ||
                    tunnel->pipes[TO_ENDPOINT].tracker.has_close;
    client_close(tunnel->client,
                 was_said ? CLOSE_TUNNEL_DONE : (enum close_reason)tunnel->first_reason);
}

/* The endpoint has gone without a word, most likely with all its tunnels. Its client is closed at its place in
 * herd_spread, so that not all come back to the others in one moment; at once when something it sent is lost. */
static void orphan(struct tunnel *tunnel, enum close_reason reason, bool has_lost)
{
    struct tunnel_pipe *down = &tunnel->pipes[TO_CLIENT];
    struct tunnel_pipe *up = &tunnel->pipes[TO_ENDPOINT];
    has_lost =
        has_lost || up->waiting != NULL || !ws_tracker_is_at_boundary(&up->tracker);
    tunnel->is_orphan = true;
    tunnel->first_reason = (uint8_t)reason;
    down->has_ended = down->sink_is_told = true;
    buffer_drop(&worker_of(tunnel)->buffers, &up->waiting);
    uint32_t delay_ms =
        has_lost ? 0
                 : drain_herd_delay(worker_of(tunnel)->current->snapshot,
                                    tunnel->connection->endpoint, tunnel->number);
    watch(tunnel);
    tunnel_leave_later(tunnel, delay_ms, reason);
}

static bool can_be_orphan(const struct tunnel *tunnel)
{
    return !tunnel->pipes[TO_CLIENT].tracker.has_close &&
           !tunnel->pipes[TO_ENDPOINT].tracker.has_close &&
           !tunnel->pipes[TO_CLIENT].has_ended && !tunnel->pipes[TO_ENDPOINT].has_ended;
}

/* The socket of the client, or of the endpoint, while reading from it or writing what came in direction `to`. */
static void socket_failed(struct tunnel *tunnel, enum direction to, bool is_client)
{
    if (tunnel->pipes[TO_CLIENT].tracker.has_close ||
        tunnel->pipes[TO_ENDPOINT].tracker.has_close)
        client_close(tunnel->client, CLOSE_TUNNEL_DONE);
    else if (is_client)
        client_close(tunnel->client, CLOSE_CLIENT_RESET);
    else if (tunnel->is_orphan)
        close_with(tunnel, WS_CLOSE_RESTART, (enum close_reason)tunnel->first_reason);
    else if (can_be_orphan(tunnel))
        orphan(tunnel, CLOSE_TUNNEL_RESET, to == TO_ENDPOINT);
    else
        client_close(tunnel->client, CLOSE_TUNNEL_RESET);
}

/* True when the tunnel still lives. */
static bool tell_sink(struct tunnel *tunnel, enum direction to)
{
    struct tunnel_pipe *pipe = &tunnel->pipes[to];
    if (!pipe->has_ended || pipe->sink_is_told || pipe->waiting != NULL)
        return true;
    pipe->sink_is_told = true;
    if (tunnel->pipes[TO_CLIENT].sink_is_told &&
        tunnel->pipes[TO_ENDPOINT].sink_is_told) {
        close_ended(tunnel);
        return false;
    }
    stream_finish_writing(sink_of(tunnel, to));
    return true;
}

static void on_source_end(struct tunnel *tunnel, enum direction to)
{
    struct tunnel_pipe *pipe = &tunnel->pipes[to];
    if (to == TO_CLIENT && can_be_orphan(tunnel)) {
        orphan(tunnel, CLOSE_TUNNEL_ENDPOINT_LEFT, false);
        return;
    }
    pipe->has_ended = true;
    if (!tunnel->pipes[!to].has_ended) {
        tunnel->ended_at = now_of(tunnel);
        tunnel->first_reason =
            to == TO_CLIENT ? CLOSE_TUNNEL_ENDPOINT_LEFT : CLOSE_TUNNEL_CLIENT_LEFT;
    }
    if (!tell_sink(tunnel, to))
        return;
    watch(tunnel);
    rearm(tunnel);
}

/* ---- the flow ---- */

/* A peer broke the framing: what came before is delivered, the client is told, the end. The tracker of the
 * direction says whether a whole frame was the last that its sink got. */
static void on_fault(struct tunnel *tunnel, enum direction to, const struct ws_seen *seen)
{
    if (to == TO_CLIENT) {
        close_with(tunnel, WS_CLOSE_INTERNAL, CLOSE_TUNNEL_NOT_FRAMES);
        return;
    }
    close_with(tunnel, seen->fault,
               seen->fault == WS_CLOSE_TOO_BIG ? CLOSE_TUNNEL_BIG_FRAME
                                               : CLOSE_TUNNEL_BAD_FRAME);
}

/* Gives bytes to the sink; what it does not take waits. False when the tunnel has ended. */
static bool pipe_send(struct tunnel *tunnel, enum direction to, struct slice bytes)
{
    struct tunnel_pipe *pipe = &tunnel->pipes[to];
    pipe->bytes += bytes.len;
    worker_of(tunnel)->relayed[to].bytes += bytes.len;
    ssize_t sent = 0;
    if (pipe->waiting == NULL) {
        sent = stream_write(sink_of(tunnel, to), bytes.data, bytes.len);
        if (__builtin_expect(sent == (ssize_t)bytes.len, 1))
            return true;
        if (sent < 0 && errno != EAGAIN) {
            socket_failed(tunnel, to, to == TO_CLIENT);
            return false;
        }
        if (sent < 0)
            sent = 0;
        pipe->moved_at = now_of(tunnel);
        if (to == TO_CLIENT)
            (void)client_has_taken(tunnel->client); /* from here on */
        metrics_add_by(M_TUNNEL_WAITS, to, 1);
    }
    buffer_append(&worker_of(tunnel)->buffers, &pipe->waiting,
                  slice_from(bytes, (size_t)sent));
    client_settle(tunnel->client);
    watch(tunnel);
    rearm(tunnel);
    return true;
}

/* A session that begins as a WebSocket announces its heartbeat in the first frame, plain text "0{…}", which
 * almost always comes whole. */
static void learn_heartbeat(struct tunnel *tunnel, struct slice bytes)
{
    struct engine_open open;
    if (bytes.len < 4 || (uint8_t)bytes.data[0] != TEXT_FRAME)
        return;
    const uint8_t *head = (const uint8_t *)bytes.data;
    size_t head_len = head[1] == 126 ? 4 : 2;
    size_t len = head[1] == 126 ? (size_t)(head[2] << 8 | head[3]) : head[1];
    if (head[1] > 126 || bytes.len < head_len + len ||
        engine_open_learn(slice_of(bytes.data + head_len, len), worker_of(tunnel)->out,
                          &open) != ENGINE_OPEN_OK)
        return;
    upstream_learn_heartbeat(tunnel->connection->endpoint->upstream,
                             MILLISECONDS(open.ping_interval),
                             MILLISECONDS(open.ping_timeout));
    rearm(tunnel);
}

/* Follows the frames in the bytes and gives them to the sink. False when the tunnel has ended. */
static bool pipe_pass(struct tunnel *tunnel, enum direction to, struct slice bytes)
{
    struct tunnel_pipe *pipe = &tunnel->pipes[to];
    struct ws_seen seen;
    if (__builtin_expect(to == TO_CLIENT && pipe->bytes == 0, 0) && tunnel->is_engine_io)
        learn_heartbeat(tunnel, bytes);
    bool was_at_boundary = ws_tracker_is_at_boundary(&pipe->tracker);
    uint64_t largest = config_of(tunnel)->limits.websocket_frame_bytes;
    bool is_good =
        ws_track(&pipe->tracker, bytes, to == TO_ENDPOINT ? largest : 0, &seen);
    worker_of(tunnel)->relayed[to].frames += seen.frames;
    if (__builtin_expect(!is_good, 0)) {
        if (seen.boundary > 0 && !pipe_send(tunnel, to, slice_to(bytes, seen.boundary)))
            return false;
        if (seen.boundary > 0 || was_at_boundary)
            ws_tracker_init(&pipe->tracker, WS_FROM_SERVER, false);
        on_fault(tunnel, to, &seen);
        return false;
    }
    if (__builtin_expect(tunnel->leave == TUNNEL_LEAVES_AT_BOUNDARY && to == TO_CLIENT &&
                             seen.boundary > 0,
                         0)) {
        if (pipe_send(tunnel, to, slice_to(bytes, seen.boundary))) {
            ws_tracker_init(&pipe->tracker, WS_FROM_SERVER, false);
            close_with(tunnel, tunnel->close_code,
                       (enum close_reason)tunnel->close_reason);
        }
        return false;
    }
    return pipe_send(tunnel, to, bytes);
}

static void pipe_read(struct tunnel *tunnel, enum direction to)
{
    struct stream *source = source_of(tunnel, to);
    char *space = worker_read_space(worker_of(tunnel));
    do {
        ssize_t got = stream_read(source, space, client_portion(tunnel->client));
        if (__builtin_expect(got <= 0, 0)) {
            if (got == 0)
                on_source_end(tunnel, to);
            else if (errno != EAGAIN)
                socket_failed(tunnel, to, to == TO_ENDPOINT);
            return;
        }
        if (to == TO_ENDPOINT)
            tunnel->client->active_at = now_of(tunnel);
        if (!pipe_pass(tunnel, to, slice_of(space, (size_t)got)))
            return;
        if (__builtin_expect(tunnel->is_orphan, 0)) {
            tunnel_leave(tunnel, WS_CLOSE_RESTART,
                         (enum close_reason)tunnel->first_reason);
            return;
        }
    } while (tunnel->pipes[to].waiting == NULL && stream_has_pending(source));
}

/* The sink takes bytes again. */
static void pipe_flush(struct tunnel *tunnel, enum direction to)
{
    struct tunnel_pipe *pipe = &tunnel->pipes[to];
    struct slice bytes = buffer_bytes(pipe->waiting);
    ssize_t sent = stream_write(sink_of(tunnel, to), bytes.data, bytes.len);
    if (sent < 0) {
        if (errno != EAGAIN)
            socket_failed(tunnel, to, to == TO_CLIENT);
        return;
    }
    pipe->moved_at = now_of(tunnel);
    buffer_take(&worker_of(tunnel)->buffers, &pipe->waiting, (size_t)sent);
    client_settle(tunnel->client);
    if (pipe->waiting != NULL || !tell_sink(tunnel, to))
        return;
    watch(tunnel);
    rearm(tunnel);
}

/* Both callbacks: `from` names the pipe that this socket is the source of. */
static void on_socket(struct tunnel *tunnel, enum direction to, short what)
{
    struct client *client = tunnel->client;
    struct tunnel_pipe *inward = &tunnel->pipes[to];
    struct tunnel_pipe *outward = &tunnel->pipes[!to];
    if ((what & EV_WRITE) != 0 && outward->waiting != NULL) {
        pipe_flush(tunnel, !to);
        if (client->state != CLIENT_TUNNELING)
            return;
    }
    if ((what & EV_READ) != 0 && inward->waiting == NULL && !inward->has_ended)
        pipe_read(tunnel, to);
}

void tunnel_on_client(struct tunnel *tunnel, short what)
{
    on_socket(tunnel, TO_ENDPOINT, what);
}

static void on_endpoint(struct endpoint_connection *connection, short what)
{
    on_socket(connection->owner, TO_CLIENT, what);
}

/* ---- deadlines ---- */

static void on_due(struct deadline *deadline)
{
    struct client *client = CONTAINER_OF(deadline, struct client, deadline);
    struct tunnel *tunnel = client->tunnel;
    uint32_t now = now_of(tunnel);
    if (tunnel->leave != TUNNEL_STAYS && has_passed(now, tunnel->leave_at)) {
        if (tunnel->leave == TUNNEL_LEAVES_LATER)
            tunnel_leave(tunnel, WS_CLOSE_RESTART,
                         (enum close_reason)tunnel->close_reason);
        else
            close_with(tunnel, tunnel->close_code,
                       (enum close_reason)tunnel->close_reason);
        return;
    }
    for (int to = 0; to < DIRECTIONS; to++) {
        struct tunnel_pipe *pipe = &tunnel->pipes[to];
        if (pipe->waiting == NULL || now - pipe->moved_at < stall_limit(tunnel))
            continue;
        if (to == TO_ENDPOINT || !client_has_taken(client)) {
            client_close(client, CLOSE_TUNNEL_STALL);
            return;
        }
        pipe->moved_at = now;
    }
    if (is_half_ended(tunnel) && now - tunnel->ended_at >= END_LINGER_MS) {
        close_ended(tunnel);
        return;
    }
    if (now - client->active_at >= idle_limit(tunnel)) {
        close_with(tunnel, WS_CLOSE_GOING_AWAY, CLOSE_TUNNEL_IDLE);
        return;
    }
    rearm(tunnel);
}

void tunnel_leave(struct tunnel *tunnel, uint16_t code, enum close_reason reason)
{
    struct tunnel_pipe *down = &tunnel->pipes[TO_CLIENT];
    if (ws_tracker_is_at_boundary(&down->tracker) || tunnel->is_orphan) {
        close_with(tunnel, code, reason);
        return;
    }
    tunnel->close_code = code;
    tunnel->close_reason = (uint8_t)reason;
    tunnel->leave = TUNNEL_LEAVES_AT_BOUNDARY;
    tunnel->leave_at = now_of(tunnel) + BOUNDARY_WAIT_MS;
    rearm(tunnel);
}

void tunnel_leave_later(struct tunnel *tunnel, uint32_t delay_ms,
                        enum close_reason reason)
{
    uint32_t leave_at = now_of(tunnel) + delay_ms;
    if (tunnel->leave != TUNNEL_STAYS && has_passed(leave_at, tunnel->leave_at))
        return;
    if (tunnel->leave == TUNNEL_STAYS)
        tunnel->leave = TUNNEL_LEAVES_LATER;
    if (tunnel->leave == TUNNEL_LEAVES_LATER)
        tunnel->close_reason = (uint8_t)reason;
    tunnel->leave_at = leave_at;
    rearm(tunnel);
}

void tunnel_follow_limits(struct tunnel *tunnel)
{
    rearm(tunnel);
}

void tunnel_follow_drain(struct tunnel *tunnel, uint64_t now, bool is_new)
{
    const struct endpoint *endpoint = tunnel->connection->endpoint;
    uint64_t since = atomic_load(&endpoint->draining_since);
    if (tunnel->is_orphan)
        return;
    bool is_leaving =
        tunnel->leave == TUNNEL_LEAVES_LATER && tunnel->close_reason == CLOSE_DRAINED;
    uint32_t delay_ms;
    if (since == 0 && is_leaving && !worker_of(tunnel)->is_draining) {
        tunnel->leave = TUNNEL_STAYS;
        rearm(tunnel);
    } else if (since != 0 && tunnel->leave == TUNNEL_STAYS &&
               drain_delay(worker_of(tunnel)->current->snapshot, endpoint, tunnel->number,
                           since, now, is_new, &delay_ms)) {
        tunnel_leave_later(tunnel, delay_ms, CLOSE_DRAINED);
    }
}

/* ---- life ---- */

/* A silent host behind an endpoint's address is found out by the kernel; on this host there is none. */
static void set_socket_options(const struct tunnel *tunnel)
{
    int fd = tunnel->connection->stream.fd;
    const struct address *address = &tunnel->connection->endpoint->address;
    if (address_is_unix(address))
        return;
    net_set_no_delay(fd);
    if (endpoint_address_is_local(address))
        return;
    const struct proxy_config *config = config_of(tunnel);
    net_set_keep_alive(fd, config->tcp.keep_alive);
    net_set_user_timeout(fd, proxy_config_user_timeout(config));
}

void tunnel_start(struct client *client, struct endpoint_connection *connection,
                  bool has_deflate, bool is_engine_io, struct slice behind)
{
    struct tunnel *tunnel = slab_get(&client->worker->tunnel_slab);
    tunnel->client = client;
    tunnel->connection = connection;
    tunnel->is_engine_io = is_engine_io;
    ws_tracker_init(&tunnel->pipes[TO_CLIENT].tracker, WS_FROM_SERVER, has_deflate);
    ws_tracker_init(&tunnel->pipes[TO_ENDPOINT].tracker, WS_FROM_CLIENT, has_deflate);
    connection->owner = tunnel;
    connection->on_ready = on_endpoint;
    tunnel->number = endpoint_begin_tunnel(connection->endpoint);
    metrics_add(M_TUNNELS_OPEN, 1);
    metrics_add(M_TUNNELS, 1);
    set_socket_options(tunnel);

    /* The head of the 101 may be waiting still: it goes first. */
    tunnel->pipes[TO_CLIENT].waiting = client->out;
    tunnel->pipes[TO_CLIENT].moved_at = now_of(tunnel);
    client->out = NULL;
    struct buffer *early = client->in;
    client->in = NULL;
    client->active_at = now_of(tunnel);
    client_begin_tunnel(client, tunnel);
    watch(tunnel);
    rearm(tunnel);
    if (atomic_load_explicit(&connection->endpoint->draining_since,
                             memory_order_relaxed) != 0)
        tunnel_follow_drain(tunnel, timing_now(), true);
    if ((behind.len == 0 || pipe_pass(tunnel, TO_CLIENT, behind)) && early != NULL)
        (void)pipe_pass(tunnel, TO_ENDPOINT, buffer_bytes(early));
    buffer_drop(&client->worker->buffers, &early);
    client_settle(client);
}

size_t tunnel_holds(const struct tunnel *tunnel)
{
    return buffer_size(tunnel->pipes[TO_CLIENT].waiting) +
           buffer_size(tunnel->pipes[TO_ENDPOINT].waiting);
}

void tunnel_free(struct tunnel *tunnel)
{
    struct worker *worker = worker_of(tunnel);
    for (int to = 0; to < DIRECTIONS; to++)
        buffer_drop(&worker->buffers, &tunnel->pipes[to].waiting);
    endpoint_end_tunnel(tunnel->connection->endpoint);
    endpoint_connection_close(tunnel->connection);
    metrics_add(M_TUNNELS_OPEN, -1);
    slab_put(&worker->tunnel_slab, tunnel);
}
