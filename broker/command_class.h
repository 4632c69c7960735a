/*
 * Classes of commands, by which a user is allowed more or less. The rows are in command_class.def.
 *
 *     users[].commands ─▶ words ─▶ a bit for each class ─▶ broker_user_config.classes ─▶ command_access.h
 */
#pragma once

#include "shared/options.h"

enum command_class {
#define COMMAND_CLASS(id, word, is_default, sentence) id,
#include "broker/command_class.def"
#undef COMMAND_CLASS
    COMMAND_CLASS_COUNT
};

#define COMMAND_CLASS_BIT(class) (1U << (class))
#define COMMAND_CLASSES_ALL      ((1U << COMMAND_CLASS_COUNT) - 1)

/* Of a user whose file lists none. */
unsigned command_classes_default(bool is_restricted);

/* The bit of the class with that word; 0: there is none. */
unsigned command_class_parse(const char *word);

/* What is wrong with a word of the configuration, which names those that there are; NULL: nothing. For option_row.check. */
const char *command_class_check(const void *value);
