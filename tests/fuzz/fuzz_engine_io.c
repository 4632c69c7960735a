/* fuzz: proxy */
/*
 * Queries and open packets: a sid has only its own bytes; a cut query names the shorter
 * sid and nothing else changed; a rewritten packet is understood again, with the tagged
 * sid and without webtransport, and is what the original was otherwise.
 */
#include "proxy/engine_io.h"
#include "proxy/engine_open.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char out[ENGINE_HANDSHAKE_MAX + 64];
static char scratch[ENGINE_HANDSHAKE_MAX];

static void check_query(struct slice query)
{
    struct engine_query facts;
    struct engine_query again;
    if (engine_query_parse(query, &facts) != PARSE_DONE || facts.sid.len < 2)
        return;
    check(engine_sid_is_valid(facts.sid));
    struct slice tail = engine_sid_tail(&facts, 1);
    check(tail.data + tail.len == facts.sid_raw.data + facts.sid_raw.len);
    if (query.len > sizeof(out))
        return;
    size_t before = (size_t)(tail.data - query.data);
    memcpy(out, query.data, before);
    memcpy(out + before, tail.data + tail.len, query.len - before - tail.len);
    check(engine_query_parse(slice_of(out, query.len - tail.len), &again) == PARSE_DONE);
    check(slice_equals(again.sid, slice_to(facts.sid, facts.sid.len - 1)));
    check(again.version == facts.version && again.transport == facts.transport);
}

static void check_open(struct slice body)
{
    static const struct slice tag = SLICE_INIT("k12345678901");
    struct engine_open open;
    struct engine_open again;
    if (engine_open_scan(body, &open) != ENGINE_OPEN_OK)
        return;
    size_t len = engine_open_write(body, &open, tag, out, sizeof(out));
    check(len == body.len + tag.len + 1 - open.webtransport.len);
    struct slice written = slice_of(out, len);
    if (open.sid.len + tag.len + 1 > ENGINE_UPSTREAM_SID_MAX ||
        len > ENGINE_HANDSHAKE_MAX)
        return;
    check(engine_open_scan(written, &again) == ENGINE_OPEN_OK);
    check(again.webtransport.len == 0);
    check(again.ping_interval == open.ping_interval &&
          again.ping_timeout == open.ping_timeout);
    check(slice_equals(slice_to(again.sid, open.sid.len), open.sid));
    check(slice_ends_with(again.sid, tag));
    /* taking the tag off again gives the body back, but for webtransport */
    size_t dot = (size_t)(again.sid.data - out) + open.sid.len;
    if (open.webtransport.len == 0) {
        check(memcmp(out, body.data, dot) == 0);
        check(memcmp(out + dot + tag.len + 1, body.data + dot, body.len - dot) == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct slice paths[] = {SLICE_INIT("/socket.io/")};
    struct slice input = slice_of(data, size);
    struct engine_path match;
    struct engine_open open;
    check_query(input);
    check_open(input);
    struct slice path = slice_to(input, HTTP_TARGET_MAX);
    if (engine_path_match(path, input, paths, 1, &match) == ENGINE_PATH_MATCH &&
        match.canonical.data != NULL && match.rest.len > 0)
        check(match.rest.data + match.rest.len == path.data + path.len);
    if (engine_open_learn(input, scratch, &open) == ENGINE_OPEN_OK)
        check(open.sid.len > 0 && open.sid.len <= ENGINE_UPSTREAM_SID_MAX);
    return 0;
}
