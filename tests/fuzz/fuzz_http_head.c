/* fuzz: proxy */
/*
 * Request and response heads: no input crashes, slices lie inside the input, a split
 * changes nothing, and what head_rewrite makes of a good head parses to the same meaning.
 */
#include "tests/unit/proxy/rewrite_property.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct http_request request;
static struct http_response response;

static void check_inside(struct slice slice, struct slice whole)
{
    check(slice.len == 0 ||
          (slice.data >= whole.data && slice.data + slice.len <= whole.data + whole.len));
}

static void check_fields(const struct http_fields *fields, struct slice whole)
{
    check(fields->count <= HTTP_FIELDS_MAX);
    for (size_t i = 0; i < fields->count; i++) {
        check_inside(fields->list[i].name, whole);
        check_inside(fields->list[i].value, whole);
        check(http_is_token(fields->list[i].name));
        check(http_is_field_value(fields->list[i].value));
    }
}

static enum parse_result parse(struct slice data, size_t last_len, bool is_request,
                               bool asked)
{
    return is_request
               ? http_request_parse(data, last_len, HTTP_HEAD_BYTES_DEFAULT, &request)
               : http_response_parse(data, last_len, HTTP_HEAD_BYTES_DEFAULT, HTTP_GET,
                                     asked, &response);
}

/* The first verdict when the input comes in two pieces, then whole. */
static enum parse_result parse_split(struct slice data, size_t at, bool is_request,
                                     bool asked)
{
    enum parse_result result = parse(slice_to(data, at), 0, is_request, asked);
    return result == PARSE_MORE ? parse(data, at, is_request, asked) : result;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    bool is_request = (data[0] & 1) != 0;
    bool asked = (data[0] & 2) != 0;
    struct slice input = slice_of(data + 2, size - 2);
    size_t at = input.len > 0 ? data[1] * input.len / 256 : 0;
    enum parse_result split = parse_split(input, at, is_request, asked);
    size_t split_len = is_request ? request.head_len : response.head_len;
    unsigned split_status = is_request ? request.refusal.status : response.refusal.status;
    enum parse_result result = parse(input, 0, is_request, asked);
    /* a piece that is only longer may be judged later, never differently */
    check(result == split || split == PARSE_MORE);
    if (result == split) {
        check((is_request ? request.head_len : response.head_len) == split_len);
        check((is_request ? request.refusal.status : response.refusal.status) ==
              split_status);
    }
    if (result != PARSE_DONE)
        return 0;
    check(split == PARSE_DONE && split_len <= input.len);
    if (is_request) {
        check_inside(request.target, input);
        check_inside(request.authority, input);
        check_fields(&request.fields, input);
        if (!request.is_asterisk)
            rewrite_check_request(&request);
    } else {
        check_inside(response.reason, input);
        check_fields(&response.fields, input);
        rewrite_check_response(&response, asked);
    }
    return 0;
}
