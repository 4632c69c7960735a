/* fuzz: proxy */
/*
 * Bodies: payload lies inside the input and never passes the limit, and pieces of any
 * size give the same payload, end and fault as the whole.
 */
#include "proxy/body_framing.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MAX_BYTES = 4096, MAX_FRAMING = 256 };

struct outcome {
    enum parse_result result;
    enum body_fault fault;
    size_t used;
    size_t payload;
    uint64_t sum; /* of the payload, by place */
};

static struct outcome feed(struct slice input, enum body_kind kind, uint64_t length,
                           size_t piece)
{
    struct body_framing framing;
    struct outcome out = {0};
    out.result = body_framing_start(&framing, kind, length, MAX_BYTES, MAX_FRAMING);
    while (out.result == PARSE_MORE && out.used < input.len) {
        struct slice rest = slice_to(slice_from(input, out.used), piece);
        size_t consumed;
        struct slice payload;
        out.result = body_framing_next(&framing, rest, &consumed, &payload);
        check(consumed <= rest.len);
        check(consumed > 0 || out.result != PARSE_MORE);
        check(payload.len == 0 || (payload.data >= rest.data &&
                                   payload.data + payload.len <= rest.data + consumed));
        for (size_t i = 0; i < payload.len; i++)
            out.sum += (uint64_t)(out.payload + i + 1) * (uint8_t)payload.data[i];
        out.payload += payload.len;
        if (out.result != PARSE_BAD)
            out.used += consumed;
    }
    out.fault = body_framing_fault(&framing);
    check((out.result == PARSE_BAD) == (out.fault != BODY_FAULT_NONE));
    check(out.payload <= MAX_BYTES);
    return out;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 3)
        return 0;
    enum body_kind kind = (enum body_kind)(data[0] % 4);
    uint64_t length = (uint64_t)data[1] << 5;
    size_t piece = 1 + data[2] % 16;
    struct slice input = slice_of(data + 3, size - 3);
    struct outcome whole = feed(input, kind, length, SIZE_MAX);
    struct outcome pieces = feed(input, kind, length, piece);
    if (kind == BODY_UNTIL_CLOSE && whole.result == PARSE_BAD)
        /* the limit is passed inside a piece: what came before it was payload */
        return 0;
    check(whole.result == pieces.result && whole.fault == pieces.fault);
    check(whole.payload == pieces.payload && whole.sum == pieces.sum);
    check(whole.result == PARSE_BAD || whole.used == pieces.used);
    return 0;
}
