/*
 * The frame tracker. A header is at most 14 bytes and costs a step a byte; payload costs
 * nothing but a subtraction. The header's own bytes are not kept: the length grows in
 * `left` as its bytes come.
 */
#include "proxy/ws_frame.h"

enum state {
    BOUNDARY, /* between two frames */
    LENGTH,   /* the byte with the mask bit and the short length comes next */
    LENGTH_OF_2,
    LENGTH_OF_8,
    MASK,
    PAYLOAD,
    FAULTY,
};

enum {
    FIN = 0x80,
    RSV1 = 0x40,
    RSV2_AND_3 = 0x30,
    OPCODE = 0x0f,
    CONTROL = 0x08, /* this bit of an opcode */
    MASKED = 0x80,

    OPCODE_CONTINUATION = 0,
    OPCODE_BINARY = 2,
    OPCODE_CLOSE = 8,
    OPCODE_PONG = 10,

    CONTROL_PAYLOAD_MAX = 125,
    LENGTH_16 = 126,
    LENGTH_64 = 127,
};

_Static_assert(sizeof(struct ws_tracker) <= 24, "two sit in every idle tunnel");

void ws_tracker_init(struct ws_tracker *tracker, enum ws_side side, bool has_deflate)
{
    *tracker = (struct ws_tracker){.side = (uint8_t)side, .has_deflate = has_deflate};
}

static bool refuse(struct ws_tracker *tracker, struct ws_seen *seen, uint16_t code,
                   const char *text)
{
    tracker->state = FAULTY;
    seen->fault = code;
    seen->fault_text = text;
    return false;
}

/* The first byte: FIN, RSV, opcode, and whether such a frame may come now. */
static bool take_first(struct ws_tracker *tracker, uint8_t byte, struct ws_seen *seen)
{
    uint8_t opcode = byte & OPCODE;
    bool is_control = (opcode & CONTROL) != 0;
    if (is_control ? opcode > OPCODE_PONG : opcode > OPCODE_BINARY)
        return refuse(tracker, seen, WS_CLOSE_PROTOCOL_ERROR, "unknown opcode");
    /* RFC 7692 6: RSV1 only on the first frame of a message */
    bool may_be_deflated =
        tracker->has_deflate && !is_control && opcode != OPCODE_CONTINUATION;
    if ((byte & RSV2_AND_3) != 0 || ((byte & RSV1) != 0 && !may_be_deflated))
        return refuse(tracker, seen, WS_CLOSE_PROTOCOL_ERROR, "reserved bit set");
    if (is_control && (byte & FIN) == 0)
        return refuse(tracker, seen, WS_CLOSE_PROTOCOL_ERROR, "fragmented control frame");
    if (!is_control && tracker->in_message != (opcode == OPCODE_CONTINUATION))
        return refuse(tracker, seen, WS_CLOSE_PROTOCOL_ERROR,
                      tracker->in_message ? "new message inside a message"
                                          : "continuation of nothing");
    tracker->first = byte;
    tracker->state = LENGTH;
    return true;
}

static void end_frame(struct ws_tracker *tracker, struct ws_seen *seen)
{
    bool is_data = (tracker->first & CONTROL) == 0;
    if (is_data) {
        tracker->in_message = (tracker->first & FIN) == 0;
        seen->messages += (tracker->first & FIN) != 0;
    }
    tracker->state = BOUNDARY;
}

/* The header is whole. */
static void end_header(struct ws_tracker *tracker, struct ws_seen *seen)
{
    seen->frames++;
    if (tracker->left > seen->largest)
        seen->largest = tracker->left;
    if ((tracker->first & OPCODE) == OPCODE_CLOSE)
        tracker->has_close = true;
    tracker->state = PAYLOAD;
    if (tracker->left == 0)
        end_frame(tracker, seen);
}

/* The length is known: check it, go on to the mask or the payload. */
static bool end_length(struct ws_tracker *tracker, uint64_t max_frame_bytes,
                       struct ws_seen *seen)
{
    if (max_frame_bytes > 0 && tracker->left > max_frame_bytes)
        return refuse(tracker, seen, WS_CLOSE_TOO_BIG, "frame too long");
    if (tracker->is_masked) {
        tracker->header_left = 4;
        tracker->state = MASK;
    } else {
        end_header(tracker, seen);
    }
    return true;
}

static bool take_length(struct ws_tracker *tracker, uint8_t byte,
                        uint64_t max_frame_bytes, struct ws_seen *seen)
{
    uint8_t length = byte & 0x7f;
    tracker->is_masked = (byte & MASKED) != 0;
    if (tracker->is_masked != (tracker->side == WS_FROM_CLIENT))
        return refuse(tracker, seen, WS_CLOSE_PROTOCOL_ERROR,
                      tracker->is_masked ? "masked frame from a server"
                                         : "unmasked frame from a client");
    if ((tracker->first & CONTROL) != 0 && length > CONTROL_PAYLOAD_MAX)
        return refuse(tracker, seen, WS_CLOSE_PROTOCOL_ERROR, "control frame too long");
    tracker->left = 0;
    if (length < LENGTH_16) {
        tracker->left = length;
        return end_length(tracker, max_frame_bytes, seen);
    }
    tracker->header_left = length == LENGTH_16 ? 2 : 8;
    tracker->state = length == LENGTH_16 ? LENGTH_OF_2 : LENGTH_OF_8;
    return true;
}

/* A byte of a length in 2 or 8 bytes. The shortest form is the only legal one, and the
 * highest bit of 8 bytes is 0 (RFC 6455 5.2). */
static bool take_more_length(struct ws_tracker *tracker, uint8_t byte,
                             uint64_t max_frame_bytes, struct ws_seen *seen)
{
    if (tracker->state == LENGTH_OF_8 && tracker->header_left == 8 && byte > 0x7f)
        return refuse(tracker, seen, WS_CLOSE_PROTOCOL_ERROR, "length out of range");
    tracker->left = tracker->left << 8 | byte;
    if (--tracker->header_left > 0)
        return true;
    if (tracker->left < (tracker->state == LENGTH_OF_2 ? (uint64_t)LENGTH_16 : 1 << 16))
        return refuse(tracker, seen, WS_CLOSE_PROTOCOL_ERROR, "length not minimal");
    return end_length(tracker, max_frame_bytes, seen);
}

static bool take_byte(struct ws_tracker *tracker, uint8_t byte, uint64_t max_frame_bytes,
                      struct ws_seen *seen)
{
    switch ((enum state)tracker->state) {
    case BOUNDARY:
        return take_first(tracker, byte, seen);
    case LENGTH:
        return take_length(tracker, byte, max_frame_bytes, seen);
    case LENGTH_OF_2:
    case LENGTH_OF_8:
        return take_more_length(tracker, byte, max_frame_bytes, seen);
    case MASK:
        if (--tracker->header_left == 0)
            end_header(tracker, seen);
        return true;
    case PAYLOAD:
    case FAULTY:
        break;
    }
    unreachable();
}

bool ws_track(struct ws_tracker *tracker, struct slice data, uint64_t max_frame_bytes,
              struct ws_seen *seen)
{
    *seen = (struct ws_seen){0};
    if (tracker->state == FAULTY)
        return refuse(tracker, seen, WS_CLOSE_PROTOCOL_ERROR, "frames behind a fault");
    size_t at = 0;
    while (at < data.len) {
        if (tracker->state == PAYLOAD) {
            size_t len = data.len - at;
            if (tracker->left < len)
                len = (size_t)tracker->left;
            tracker->left -= len;
            at += len;
            if (tracker->left == 0)
                end_frame(tracker, seen);
        } else if (take_byte(tracker, (uint8_t)data.data[at], max_frame_bytes, seen)) {
            at++;
        } else {
            return false;
        }
        if (tracker->state == BOUNDARY)
            seen->boundary = at;
    }
    return true;
}

bool ws_tracker_is_at_boundary(const struct ws_tracker *tracker)
{
    return tracker->state == BOUNDARY;
}

size_t ws_frame_write_close(char out[WS_CLOSE_FRAME_MAX], uint16_t code,
                            const uint8_t mask[4])
{
    static const uint8_t no_mask[4];
    const uint8_t *key = mask != NULL ? mask : no_mask;
    size_t len = 0;
    out[len++] = (char)(FIN | OPCODE_CLOSE);
    out[len++] = (char)(mask != NULL ? MASKED | 2 : 2);
    for (size_t i = 0; mask != NULL && i < 4; i++)
        out[len++] = (char)mask[i];
    out[len++] = (char)(code >> 8 ^ key[0]);
    out[len++] = (char)((code & 0xff) ^ key[1]);
    return len;
}
