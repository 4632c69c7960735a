#include "broker/first_bytes.h"

#include "broker/command.h"

#include <ctype.h>

static bool is_blank(char byte)
{
    return byte == ' ' || byte == '\t' || byte == '\r' || byte == '\n';
}

static bool begins_some_command(const struct command *table, struct slice word)
{
    for (const struct command *row = table; row->name != NULL; row++) {
        struct slice name = slice_from_text(row->name);
        if (word.len <= name.len && slice_equals_nocase(slice_to(name, word.len), word))
            return true;
    }
    return false;
}

/* GET / HTTP/1.1, whatever the method. */
static bool is_http(struct slice line)
{
    size_t len = strlen("HTTP/1.1");
    if (line.len < len)
        return false;
    struct slice end = slice_from(line, line.len - len);
    return slice_starts_with(end, SLICE("HTTP/")) &&
           isdigit((unsigned char)end.data[5]) && end.data[6] == '.' &&
           isdigit((unsigned char)end.data[7]);
}

enum first_bytes first_bytes_look(const struct command *table, struct slice input)
{
    while (input.len > 0 && is_blank(input.data[0]))
        input = slice_from(input, 1);
    if (input.len == 0)
        return FIRST_MORE;
    if (input.data[0] == '*')
        return FIRST_OURS;
    size_t word = 0;
    while (word < input.len && !is_blank(input.data[word]))
        word++;
    struct slice name = slice_to(input, word);
    if (!begins_some_command(table, name) ||
        (word < input.len && command_find(table, name) == NULL))
        return FIRST_FOREIGN;
    size_t end = slice_find(input, '\n');
    if (end == input.len)
        return FIRST_MORE;
    struct slice line = slice_to(input, end);
    while (line.len > 0 && is_blank(line.data[line.len - 1]))
        line.len--;
    return is_http(line) ? FIRST_FOREIGN : FIRST_OURS;
}
