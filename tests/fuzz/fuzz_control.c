/* fuzz: broker */
/* Control messages: parse, walk every list, write, and the bytes are the same. */
#include "broker/control.h"

#include <event2/buffer.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_inside(struct slice part, struct slice whole)
{
    check(part.len == 0 ||
          (part.data >= whole.data && part.data + part.len <= whole.data + whole.len));
}

static void walk(const struct control *control, struct slice whole)
{
    struct control_list list = control->facts.carries;
    uint64_t number;
    while (list.count > 0)
        check(control_next_hash(&list, &number));
    struct slice name;
    for (list = control->facts.subscribed; list.count > 0;) {
        check(control_next_name(&list, &name));
        check_inside(name, whole);
    }
    uint32_t subscribers;
    for (list = control->facts.generic; list.count > 0;) {
        check(control_next_channel(&list, &name, &subscribers));
        check_inside(name, whole);
    }
    uint16_t partition;
    for (list = control->facts.tails; list.count > 0;)
        check(control_next_position(&list, &partition, &number));
    for (list = control->places; list.count > 0;)
        check(control_next_position(&list, &partition, &number));
    unsigned count;
    for (list = control->ranges; list.count > 0;) {
        check(control_next_range(&list, &partition, &number, &count));
        check(count >= 1 && count <= CONTROL_RANGE_MAX && number >= 1);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice whole = slice_of(data, size);
    struct control control;
    if (control_parse(whole, &control) != CONTROL_OK)
        return 0;
    check_inside(control.shard, whole);
    walk(&control, whole);
    struct evbuffer *out = evbuffer_new();
    control_write(&control, out);
    check(evbuffer_get_length(out) == size);
    check(memcmp(evbuffer_pullup(out, -1), data, size) == 0);
    evbuffer_free(out);
    return 0;
}
