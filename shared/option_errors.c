#include "shared/option_errors.h"

#include <stdlib.h>

void option_errors_cleanup(struct option_errors *errors)
{
    for (size_t i = 0; i < errors->count; i++)
        free(errors->items[i].text);
    free(errors->items);
}

void option_errors_add(struct option_errors *errors, const char *name,
                       struct option_spot spot, const char *text)
{
    if (errors->count == OPTION_ERRORS_MAX) {
        errors->more++;
        return;
    }
    errors->items =
        must_realloc(errors->items, (errors->count + 1) * sizeof(*errors->items));
    struct option_error *error = &errors->items[errors->count];
    *error = (struct option_error){.spot = spot, .order = errors->count};
    if (spot.flag != NULL)
        error->text = must_printf("%s: %s", spot.flag, text);
    else if (spot.line > 0)
        error->text = must_printf("%s:%zu:%zu: %s", name, spot.line, spot.column, text);
    else
        error->text = must_printf("%s: %s", name, text);
    errors->count++;
}

static int compare_errors(const void *a, const void *b)
{
    const struct option_error *one = a, *other = b;
    if ((one->spot.flag != NULL) != (other->spot.flag != NULL))
        return one->spot.flag != NULL ? 1 : -1;
    if (one->spot.line != other->spot.line)
        return one->spot.line < other->spot.line ? -1 : 1;
    if (one->spot.column != other->spot.column)
        return one->spot.column < other->spot.column ? -1 : 1;
    return one->order < other->order ? -1 : one->order > other->order;
}

void option_errors_sort(struct option_errors *errors)
{
    if (errors->count > 0)
        qsort(errors->items, errors->count, sizeof(*errors->items), compare_errors);
}
