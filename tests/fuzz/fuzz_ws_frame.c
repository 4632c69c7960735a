/* fuzz: proxy */
/*
 * Frame tracking: pieces of any size see the same frames, messages and fault as the
 * whole, boundaries only grow, and a Close put at a boundary is one more good frame.
 */
#include "proxy/ws_frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct outcome {
    bool is_good;
    uint16_t fault;
    uint32_t frames;
    uint32_t messages;
    uint64_t largest;
    size_t boundary; /* in the whole input */
    struct ws_tracker tracker;
};

static struct outcome feed(struct slice input, enum ws_side side, bool has_deflate,
                           size_t piece)
{
    struct outcome out = {.is_good = true};
    ws_tracker_init(&out.tracker, side, has_deflate);
    for (size_t at = 0; at < input.len && out.is_good;) {
        struct slice part = slice_to(slice_from(input, at), piece);
        struct ws_seen seen;
        out.is_good = ws_track(&out.tracker, part, 1 << 20, &seen);
        check(seen.boundary <= part.len);
        check(out.is_good == (seen.fault == 0));
        out.fault = seen.fault;
        out.frames += seen.frames;
        out.messages += seen.messages;
        out.largest = seen.largest > out.largest ? seen.largest : out.largest;
        if (seen.boundary > 0)
            out.boundary = at + seen.boundary;
        at += part.len;
    }
    return out;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    enum ws_side side = (data[0] & 1) != 0 ? WS_FROM_CLIENT : WS_FROM_SERVER;
    bool has_deflate = (data[0] & 2) != 0;
    struct slice input = slice_of(data + 2, size - 2);
    struct outcome whole = feed(input, side, has_deflate, SIZE_MAX);
    struct outcome pieces = feed(input, side, has_deflate, 1 + data[1] % 32);
    check(whole.is_good == pieces.is_good && whole.fault == pieces.fault);
    check(whole.frames == pieces.frames && whole.messages == pieces.messages);
    check(whole.largest == pieces.largest && whole.boundary == pieces.boundary);
    check(ws_tracker_is_at_boundary(&whole.tracker) ==
          (whole.is_good && whole.boundary == input.len));
    if (ws_tracker_is_at_boundary(&whole.tracker)) {
        static const uint8_t mask[4] = {1, 2, 3, 4};
        char close[WS_CLOSE_FRAME_MAX];
        size_t len = ws_frame_write_close(close, WS_CLOSE_RESTART,
                                          side == WS_FROM_CLIENT ? mask : NULL);
        struct ws_seen seen;
        check(ws_track(&whole.tracker, slice_of(close, len), 0, &seen));
        check(seen.frames == 1 && seen.boundary == len && whole.tracker.has_close);
    }
    return 0;
}
