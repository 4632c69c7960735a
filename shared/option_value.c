#include "shared/option_value.h"

#include <inttypes.h>
#include <stdlib.h>

#define QUOTE_MAX 60

static const char *const type_texts[] = {
    [OPTION_BOOL] = "bool",
    [OPTION_INTEGER] = "integer",
    [OPTION_DECIMAL] = "decimal",
    [OPTION_TEXT] = "text",
    [OPTION_SIZE] = "size",
    [OPTION_DURATION] = "duration",
    [OPTION_ENUM] = "enum",
    [OPTION_ADDRESS] = "address",
    [OPTION_MODE] = "mode",
    [OPTION_TEXT_LIST] = "list of text",
    [OPTION_TEXT_MAP] = "map of text",
    [OPTION_CIDR_LIST] = "list of networks",
    [OPTION_LIST] = "list of objects",
    [OPTION_OBJECT] = "object",
};

struct unit {
    const char *name;
    uint64_t factor;
};

/* From large to small, so that the first one that divides is the one to print. */
static const struct unit duration_units[] = {
    {"h", 3600000000U}, {"m", 60000000}, {"s", 1000000}, {"ms", 1000}, {NULL, 0}};
static const struct unit size_units[] = {
    {"GiB", 1U << 30}, {"MiB", 1U << 20}, {"KiB", 1U << 10}, {"", 1}, {NULL, 0}};

const char *option_type_text(enum option_type type)
{
    return type_texts[type];
}

const char *option_quote(struct slice text, char quoted[OPTION_QUOTE_SIZE])
{
    size_t len = 0;
    quoted[len++] = '"';
    while (text.len > 0) {
        size_t used = slice_utf8_len(text);
        bool is_plain =
            used > 0 && (unsigned char)text.data[0] >= ' ' && text.data[0] != 0x7f;
        if (len + used > QUOTE_MAX) {
            memcpy(quoted + len, "\xe2\x80\xa6", 3);
            len += 3;
            break;
        }
        if (is_plain) {
            memcpy(quoted + len, text.data, used);
            len += used;
        } else {
            quoted[len++] = '?';
        }
        text = slice_from(text, used > 0 ? used : 1);
    }
    quoted[len++] = '"';
    quoted[len] = '\0';
    return quoted;
}

/* ── ranges ── */

static bool has_range(const struct option_row *row)
{
    return row->minimum != 0 || row->maximum != 0;
}

static void amount_text(uint64_t amount, const struct unit *units, char text[32])
{
    if (amount == 0) {
        snprintf(text, 32, "0");
        return;
    }
    for (; units->name != NULL; units++)
        if (amount % units->factor == 0) {
            snprintf(text, 32, "%" PRIu64 "%s", amount / units->factor, units->name);
            return;
        }
    snprintf(text, 32, "%" PRIu64 "us", amount);
}

static void bound_text(enum option_type type, int64_t bound, char text[32])
{
    if (type == OPTION_DURATION)
        amount_text((uint64_t)bound, duration_units, text);
    else if (type == OPTION_SIZE)
        amount_text((uint64_t)bound, size_units, text);
    else if (type == OPTION_DECIMAL)
        snprintf(text, 32, "%g", (double)bound / 1000);
    else
        snprintf(text, 32, "%" PRId64, bound);
}

static void words_text(const char *const *words, char *text, size_t size)
{
    size_t len = 0;
    text[0] = '\0';
    for (; *words != NULL && len < size; words++)
        len +=
            (size_t)snprintf(text + len, size - len, "%s%s", len > 0 ? "|" : "", *words);
}

void option_range_text(const struct option_row *row, char *text, size_t size)
{
    if (row->type == OPTION_ENUM) {
        words_text(row->words, text, size);
        return;
    }
    if (row->type == OPTION_BOOL) {
        snprintf(text, size, "true|false");
        return;
    }
    char low[32], high[32], range[80] = "";
    const char *what = row->type == OPTION_TEXT ? " bytes"
                       : row->type >= OPTION_TEXT_LIST && row->type <= OPTION_LIST
                           ? " items"
                           : "";
    if (has_range(row)) {
        bound_text(row->type, row->minimum, low);
        bound_text(row->type, row->maximum, high);
        snprintf(range, sizeof(range), "%s%s..%s%s",
                 row->or_zero && row->minimum > 0 ? "0|" : "", low, high, what);
    }
    snprintf(text, size, "%s%s%s", row->automatic ? "auto" : "",
             row->automatic && range[0] != '\0' ? "|" : "", range);
    if (text[0] == '\0')
        snprintf(text, size, "-");
}

void option_default_text(const struct option_row *row, char *text, size_t size)
{
    bool is_list = row->type == OPTION_TEXT_LIST || row->type == OPTION_CIDR_LIST ||
                   row->type == OPTION_LIST;
    if (row->required)
        snprintf(text, size, "required");
    else if (row->type == OPTION_OBJECT)
        snprintf(text, size, "absent");
    else if (is_list)
        snprintf(text, size, "[%s]", row->standard != NULL ? row->standard : "");
    else if (row->type == OPTION_TEXT_MAP)
        snprintf(text, size, "{}");
    else if (row->standard != NULL && row->standard[0] != '\0')
        snprintf(text, size, "%s", row->standard);
    else if (row->type == OPTION_TEXT || row->type == OPTION_ADDRESS)
        snprintf(text, size, "\"\"");
    else if (row->type == OPTION_ENUM)
        snprintf(text, size, "%s", row->words[0]);
    else
        snprintf(text, size, "%s", row->type == OPTION_BOOL ? "false" : "0");
}

static bool is_in_range(const struct option_row *row, int64_t number)
{
    if (!has_range(row) || (row->or_zero && number == 0))
        return true;
    return number >= row->minimum && number <= row->maximum;
}

static bool out_of_range(const struct option_row *row, struct slice text,
                         char why[OPTION_WHY_SIZE])
{
    char quoted[OPTION_QUOTE_SIZE], range[128];
    option_range_text(row, range, sizeof(range));
    snprintf(why, OPTION_WHY_SIZE, "%s is out of range (%s)", option_quote(text, quoted),
             range);
    return false;
}

static bool is_not(struct slice text, const char *what, char why[OPTION_WHY_SIZE])
{
    char quoted[OPTION_QUOTE_SIZE];
    snprintf(why, OPTION_WHY_SIZE, "%s is not %s", option_quote(text, quoted), what);
    return false;
}

bool option_value_check_count(const struct option_row *row, size_t count,
                              char why[OPTION_WHY_SIZE])
{
    if (is_in_range(row, (int64_t)count))
        return true;
    char range[128];
    option_range_text(row, range, sizeof(range));
    snprintf(why, OPTION_WHY_SIZE, "has %zu items (allowed: %s)", count, range);
    return false;
}

/* ── numbers ── */

static bool parse_signed(struct slice text, int64_t *number)
{
    bool is_negative = text.len > 0 && text.data[0] == '-';
    uint64_t magnitude;
    if (!slice_to_number(slice_from(text, is_negative), 0, INT64_MAX, &magnitude))
        return false;
    *number = is_negative ? -(int64_t)magnitude : (int64_t)magnitude;
    return true;
}

/* Digits and one of the units, nothing between; bounded to int64_t like the ranges. */
static bool parse_amount(struct slice text, const struct unit *units, uint64_t *amount)
{
    for (; units->name != NULL; units++) {
        struct slice unit = slice_from_text(units->name);
        uint64_t number;
        if (slice_ends_with(text, unit) &&
            slice_to_number(slice_to(text, text.len - unit.len), 0,
                            (uint64_t)INT64_MAX / units->factor, &number)) {
            *amount = number * units->factor;
            return true;
        }
    }
    return false;
}

static bool set_integer(const struct option_row *row, void *member, struct slice text,
                        char why[OPTION_WHY_SIZE])
{
    int64_t number;
    if (row->automatic && slice_equals(text, SLICE("auto"))) {
        *(int64_t *)member = OPTION_AUTO_INTEGER;
        return true;
    }
    if (!parse_signed(text, &number))
        return is_not(text, row->automatic ? "an integer or auto" : "an integer", why);
    if (!is_in_range(row, number))
        return out_of_range(row, text, why);
    *(int64_t *)member = number;
    return true;
}

static bool set_amount(const struct option_row *row, void *member, struct slice text,
                       char why[OPTION_WHY_SIZE])
{
    bool is_size = row->type == OPTION_SIZE;
    uint64_t amount = 0;
    if (row->automatic && slice_equals(text, SLICE("auto"))) {
        *(uint64_t *)member = OPTION_AUTO;
        return true;
    }
    bool is_zero = slice_equals(text, SLICE("0"));
    if (!is_zero && !parse_amount(text, is_size ? size_units : duration_units, &amount))
        return is_not(text,
                      is_size ? "a size (bytes, or a whole number with KiB, MiB or GiB)"
                              : "a duration (a whole number with ms, s, m or h)",
                      why);
    if (!is_in_range(row, (int64_t)amount))
        return out_of_range(row, text, why);
    *(uint64_t *)member = amount;
    return true;
}

static bool set_decimal(const struct option_row *row, void *member, struct slice text,
                        char why[OPTION_WHY_SIZE])
{
    char number[32];
    bool is_number =
        text.len > 0 && text.len < sizeof(number) &&
        (text.data[0] == '-' || (text.data[0] >= '0' && text.data[0] <= '9'));
    for (size_t i = 1; i < text.len && is_number; i++)
        is_number = text.data[i] == '.' || (text.data[i] >= '0' && text.data[i] <= '9');
    if (!is_number)
        return is_not(text, "a number", why);
    memcpy(number, text.data, text.len);
    number[text.len] = '\0';
    char *end;
    double value = strtod(number, &end);
    if (*end != '\0')
        return is_not(text, "a number", why);
    double low = (double)row->minimum / 1000, high = (double)row->maximum / 1000;
    bool is_off = row->or_zero && value == 0.0;
    if (has_range(row) && !is_off && !(value >= low && value <= high))
        return out_of_range(row, text, why);
    *(double *)member = value;
    return true;
}

/* ── other scalars ── */

static bool set_bool(void *member, struct slice text, char why[OPTION_WHY_SIZE])
{
    bool is_true = slice_equals(text, SLICE("true"));
    if (!is_true && !slice_equals(text, SLICE("false")))
        return is_not(text, "true or false", why);
    *(bool *)member = is_true;
    return true;
}

static bool set_enum(const struct option_row *row, void *member, struct slice text,
                     char why[OPTION_WHY_SIZE])
{
    for (int i = 0; row->words[i] != NULL; i++)
        if (slice_equals(text, slice_from_text(row->words[i]))) {
            *(int *)member = i;
            return true;
        }
    char quoted[OPTION_QUOTE_SIZE], words[OPTION_WHY_SIZE / 2];
    words_text(row->words, words, sizeof(words));
    snprintf(why, OPTION_WHY_SIZE, "%s is not one of %s", option_quote(text, quoted),
             words);
    return false;
}

static bool set_address(const struct option_row *row, void *member, struct slice text,
                        char why[OPTION_WHY_SIZE])
{
    struct address address;
    memset(&address, 0, sizeof(address));
    const char *problem;
    char quoted[OPTION_QUOTE_SIZE];
    bool is_none = text.len == 0 && !row->required;
    if (!is_none && !address_parse(text, &address, &problem)) {
        snprintf(why, OPTION_WHY_SIZE, "%s is not an address: %s",
                 option_quote(text, quoted), problem);
        return false;
    }
    *(struct address *)member = address;
    return true;
}

static bool set_mode(void *member, struct slice text, char why[OPTION_WHY_SIZE])
{
    unsigned mode = 0;
    bool is_octal = text.len >= 3 && text.len <= 4;
    for (size_t i = 0; i < text.len && is_octal; i++) {
        is_octal = text.data[i] >= '0' && text.data[i] <= '7';
        mode = mode * 8 + (unsigned)(text.data[i] - '0');
    }
    if (!is_octal || mode > 0777)
        return is_not(text, "a file mode (octal, 0000..0777)", why);
    *(unsigned *)member = mode;
    return true;
}

static bool set_text(const struct option_row *row, void *member, struct slice text,
                     char why[OPTION_WHY_SIZE])
{
    if (!is_in_range(row, (int64_t)text.len)) {
        char range[128];
        option_range_text(row, range, sizeof(range));
        snprintf(why, OPTION_WHY_SIZE, "has %zu bytes (allowed: %s)", text.len, range);
        return false;
    }
    *(char **)member = slice_dup(text);
    return true;
}

/* May the owner's own look veto it? */
static bool passes_check(const struct option_row *row, const void *value,
                         struct slice text, char why[OPTION_WHY_SIZE])
{
    const char *problem = row->check != NULL ? (row->check)(value) : NULL;
    if (problem == NULL)
        return true;
    char quoted[OPTION_QUOTE_SIZE];
    snprintf(why, OPTION_WHY_SIZE, "%s %s", option_quote(text, quoted), problem);
    return false;
}

static bool set_scalar(const struct option_row *row, void *member, struct slice text,
                       char why[OPTION_WHY_SIZE])
{
    switch (row->type) {
    case OPTION_BOOL:
        return set_bool(member, text, why);
    case OPTION_INTEGER:
        return set_integer(row, member, text, why);
    case OPTION_DECIMAL:
        return set_decimal(row, member, text, why);
    case OPTION_TEXT:
        return set_text(row, member, text, why);
    case OPTION_SIZE:
    case OPTION_DURATION:
        return set_amount(row, member, text, why);
    case OPTION_ENUM:
        return set_enum(row, member, text, why);
    case OPTION_ADDRESS:
        return set_address(row, member, text, why);
    case OPTION_MODE:
        return set_mode(member, text, why);
    case OPTION_TEXT_LIST:
    case OPTION_TEXT_MAP:
    case OPTION_CIDR_LIST:
    case OPTION_LIST:
    case OPTION_OBJECT:
        break;
    }
    unreachable();
}

static size_t member_size(enum option_type type)
{
    static const size_t sizes[] = {
        [OPTION_BOOL] = sizeof(bool),
        [OPTION_INTEGER] = sizeof(int64_t),
        [OPTION_DECIMAL] = sizeof(double),
        [OPTION_TEXT] = sizeof(char *),
        [OPTION_SIZE] = sizeof(uint64_t),
        [OPTION_DURATION] = sizeof(uint64_t),
        [OPTION_ENUM] = sizeof(int),
        [OPTION_ADDRESS] = sizeof(struct address),
        [OPTION_MODE] = sizeof(unsigned),
        [OPTION_TEXT_LIST] = sizeof(struct text_list),
        [OPTION_TEXT_MAP] = sizeof(struct text_map),
        [OPTION_CIDR_LIST] = sizeof(struct cidr_list),
        [OPTION_LIST] = sizeof(struct option_list),
        [OPTION_OBJECT] = sizeof(bool),
    };
    return sizes[type];
}

bool option_value_set(const struct option_row *row, void *member, struct slice text,
                      char why[OPTION_WHY_SIZE])
{
    union { /* as large and aligned as any scalar member */
        struct address address;
        double decimal;
        char *text;
        int64_t number;
    } value;
    memset(&value, 0, sizeof(value));
    if (!set_scalar(row, &value, text, why))
        return false;
    bool is_auto = row->automatic && slice_equals(text, SLICE("auto"));
    if (!is_auto && !passes_check(row, &value, text, why)) {
        option_value_free(row, &value);
        return false;
    }
    option_value_free(row, member);
    memcpy(member, &value, member_size(row->type));
    return true;
}

/* ── several ── */

bool option_value_add(const struct option_row *row, void *member, struct slice name,
                      struct slice text, char why[OPTION_WHY_SIZE])
{
    if (row->type == OPTION_CIDR_LIST) {
        struct cidr_list *list = member;
        struct cidr cidr;
        const char *problem;
        char quoted[OPTION_QUOTE_SIZE];
        if (!cidr_parse(text, &cidr, &problem)) {
            snprintf(why, OPTION_WHY_SIZE, "%s %s", option_quote(text, quoted), problem);
            return false;
        }
        list->items = must_realloc(list->items, (list->count + 1) * sizeof(*list->items));
        list->items[list->count++] = cidr;
        return true;
    }
    struct text_pair pair = {.name = NULL, .value = slice_dup(text)};
    if (row->type == OPTION_TEXT_MAP) {
        struct text_map *map = member;
        pair.name = slice_dup(name);
        if (!passes_check(row, &pair, name, why)) {
            free(pair.name);
            free(pair.value);
            return false;
        }
        map->items = must_realloc(map->items, (map->count + 1) * sizeof(*map->items));
        map->items[map->count++] = pair;
        return true;
    }
    check(row->type == OPTION_TEXT_LIST);
    struct text_list *list = member;
    if (!passes_check(row, &pair.value, text, why)) {
        free(pair.value);
        return false;
    }
    list->items = must_realloc(list->items, (list->count + 1) * sizeof(*list->items));
    list->items[list->count++] = pair.value;
    return true;
}

void option_value_set_default(const struct option_row *row, void *member)
{
    char why[OPTION_WHY_SIZE] = "";
    bool is_good = true;
    switch (row->type) {
    case OPTION_TEXT_LIST:
    case OPTION_CIDR_LIST: {
        struct slice rest = slice_from_text(row->standard != NULL ? row->standard : "");
        struct slice part;
        while (rest.len > 0 && is_good && slice_cut(&rest, ',', &part))
            is_good = option_value_add(row, member, SLICE(""), slice_trim(part), why);
        break;
    }
    case OPTION_TEXT:
        *(char **)member = must_strdup(row->standard != NULL ? row->standard : "");
        break;
    case OPTION_BOOL:
    case OPTION_INTEGER:
    case OPTION_DECIMAL:
    case OPTION_SIZE:
    case OPTION_DURATION:
    case OPTION_ENUM:
    case OPTION_ADDRESS:
    case OPTION_MODE:
        if (row->standard != NULL)
            is_good = option_value_set(row, member, slice_from_text(row->standard), why);
        break;
    case OPTION_TEXT_MAP:
    case OPTION_LIST:
    case OPTION_OBJECT:
        check(row->standard == NULL);
        break;
    }
    if (!is_good)
        base_abort(__FILE__, __LINE__, row->name);
}

void option_value_free(const struct option_row *row, void *member)
{
    if (row->type == OPTION_TEXT) {
        free(*(char **)member);
    } else if (row->type == OPTION_TEXT_LIST) {
        struct text_list *list = member;
        for (size_t i = 0; i < list->count; i++)
            free(list->items[i]);
        free(list->items);
    } else if (row->type == OPTION_TEXT_MAP) {
        struct text_map *map = member;
        for (size_t i = 0; i < map->count; i++) {
            free(map->items[i].name);
            free(map->items[i].value);
        }
        free(map->items);
    } else if (row->type == OPTION_CIDR_LIST) {
        free(((struct cidr_list *)member)->items);
    }
    memset(member, 0, member_size(row->type));
}

static bool text_lists_equal(const struct text_list *a, const struct text_list *b)
{
    bool are_equal = a->count == b->count;
    for (size_t i = 0; are_equal && i < a->count; i++)
        are_equal = strcmp(a->items[i], b->items[i]) == 0;
    return are_equal;
}

static bool text_maps_equal(const struct text_map *a, const struct text_map *b)
{
    bool are_equal = a->count == b->count;
    for (size_t i = 0; are_equal && i < a->count; i++)
        are_equal = strcmp(a->items[i].name, b->items[i].name) == 0 &&
                    strcmp(a->items[i].value, b->items[i].value) == 0;
    return are_equal;
}

bool option_value_equals(const struct option_row *row, const void *one, const void *other)
{
    if (row->type == OPTION_TEXT)
        return strcmp(*(char *const *)one, *(char *const *)other) == 0;
    if (row->type == OPTION_TEXT_LIST)
        return text_lists_equal(one, other);
    if (row->type == OPTION_TEXT_MAP)
        return text_maps_equal(one, other);
    if (row->type == OPTION_CIDR_LIST) {
        const struct cidr_list *a = one, *b = other;
        return a->count == b->count &&
               (a->count == 0 ||
                memcmp(a->items, b->items, a->count * sizeof(*a->items)) == 0);
    }
    if (row->type == OPTION_ADDRESS) /* made from zero bytes, so bytes decide */
        return memcmp(one, other, sizeof(struct address)) == 0;
    check(row->type != OPTION_LIST);
    return memcmp(one, other, member_size(row->type)) == 0;
}
