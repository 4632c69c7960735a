#include "broker/command_class.h"

#include "shared/base.h"

#include <string.h>

static const struct {
    const char *word;
    bool is_default;
} classes[COMMAND_CLASS_COUNT] = {
#define COMMAND_CLASS(id, word, is_default, sentence) [id] = {word, is_default},
#include "broker/command_class.def"
#undef COMMAND_CLASS
};

unsigned command_classes_default(bool is_restricted)
{
    unsigned bits = 0;
    for (unsigned i = 0; i < COMMAND_CLASS_COUNT; i++)
        if (!is_restricted || classes[i].is_default)
            bits |= COMMAND_CLASS_BIT(i);
    return bits;
}

unsigned command_class_parse(const char *word)
{
    for (unsigned i = 0; i < COMMAND_CLASS_COUNT; i++)
        if (strcmp(word, classes[i].word) == 0)
            return COMMAND_CLASS_BIT(i);
    return 0;
}

const char *command_class_check(const void *value)
{
    return command_class_parse(*(char *const *)value) != 0 ? NULL : "must be one of"
#define COMMAND_CLASS(id, word, is_default, sentence) " " word
#include "broker/command_class.def"
#undef COMMAND_CLASS
        ;
}
