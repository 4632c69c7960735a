/* fuzz: broker */
/*
 * Requests: the first byte says in what pieces the rest comes. However it is split the requests are the same,
 * and every argument lies in the input (or in the parser's own memory).
 */
#include "broker/resp.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Length, count and bytes of all requests, mixed; how it ended. */
static uint64_t run(struct slice input, size_t step, enum parse_result *end)
{
    struct resp_parser parser;
    resp_parser_init(&parser, 1024, 4096);
    uint64_t mixed = 0;
    size_t start = 0;
    size_t there = min_size(step, input.len);
    for (;;) {
        struct resp_request request;
        *end = resp_parse(&parser, slice_of(input.data + start, there - start), &request);
        if (*end == PARSE_DONE) {
            check(request.consumed > 0 && request.consumed <= there - start);
            check(request.over == RESP_FITS || request.argc == 0);
            mixed = mixed * 31 + request.argc + request.over + request.over_len;
            for (size_t i = 0; i < request.argc; i++)
                for (size_t at = 0; at < request.argv[i].len; at++)
                    mixed = mixed * 131 + (unsigned char)request.argv[i].data[at];
            start += request.consumed;
        } else if (*end == PARSE_BAD || there == input.len) {
            break;
        } else {
            start += request.consumed;
            check(resp_wanted(&parser) > there - start);
            there = min_size(there + step, input.len);
        }
    }
    resp_parser_cleanup(&parser);
    return mixed;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    enum parse_result whole_end, pieces_end;
    struct slice input = slice_of(data + 1, size - 1);
    uint64_t whole = run(input, input.len, &whole_end);
    uint64_t pieces = run(input, (size_t)data[0] % 64 + 1, &pieces_end);
    check(whole == pieces && whole_end == pieces_end);
    return 0;
}
