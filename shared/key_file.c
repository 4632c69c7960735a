#include "shared/key_file.h"

#include "shared/file_read.h"

#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define KEY_FILE_MAX ((size_t)65536)

static bool is_key_id(char id)
{
    return (id >= 'A' && id <= 'Z') || (id >= 'a' && id <= 'z') ||
           (id >= '0' && id <= '9');
}

static int hex_digit(char character)
{
    if (character >= '0' && character <= '9')
        return character - '0';
    if (character >= 'a' && character <= 'f')
        return character - 'a' + 10;
    return character >= 'A' && character <= 'F' ? character - 'A' + 10 : -1;
}

static bool parse_hex(struct slice text, unsigned char *bytes, size_t len)
{
    if (text.len != len * 2)
        return false;
    for (size_t i = 0; i < len; i++) {
        int high = hex_digit(text.data[2 * i]), low = hex_digit(text.data[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        bytes[i] = (unsigned char)(high << 4 | low);
    }
    return true;
}

/* One line that is neither blank nor a comment; NULL or what is wrong with it. */
static const char *parse_key_line(struct slice line, struct file_keys *keys)
{
    size_t id_len = 0;
    while (id_len < line.len && line.data[id_len] != ' ' && line.data[id_len] != '\t')
        id_len++;
    if (id_len != 1 || !is_key_id(line.data[0]))
        return "the ID must be one letter or digit";
    if (keys->count == FILE_KEYS_MAX)
        return "more than 16 keys";
    if (file_keys_find(keys, line.data[0]) >= 0)
        return "this ID was used before";
    struct file_key *key = &keys->keys[keys->count];
    key->id = line.data[0];
    if (!parse_hex(slice_trim(slice_from(line, 1)), key->bytes, sizeof(key->bytes)))
        return "the key must be 32 hexadecimal digits";
    keys->count++;
    return NULL;
}

bool file_keys_parse(struct slice text, struct file_keys *keys, char *error,
                     size_t error_size)
{
    memset(keys, 0, sizeof(*keys));
    struct slice rest = text, line;
    for (unsigned number = 1; slice_cut(&rest, '\n', &line); number++) {
        if (line.len > 0 && line.data[line.len - 1] == '\r')
            line.len--;
        line = slice_trim(line);
        if (line.len == 0 || line.data[0] == '#')
            continue;
        const char *why = parse_key_line(line, keys);
        if (why != NULL) {
            snprintf(error, error_size, "line %u: %s", number, why);
            return false;
        }
    }
    if (keys->count == 0)
        snprintf(error, error_size, "there is no key in it");
    return keys->count > 0;
}

bool file_keys_load(const char *path, struct file_keys *keys, bool *is_readable_by_others,
                    char *error, size_t error_size)
{
    char *text, why[FILE_WHY_SIZE];
    size_t len;
    unsigned mode;
    if (!file_read(path, KEY_FILE_MAX, &text, &len, &mode, why)) {
        snprintf(error, error_size, "%s: %s", path, why);
        return false;
    }
    *is_readable_by_others = (mode & S_IROTH) != 0;
    bool loaded = file_keys_parse(slice_of(text, len), keys, why, sizeof(why));
    if (!loaded)
        snprintf(error, error_size, "%s: %s", path, why);
    OPENSSL_cleanse(text, len);
    free(text);
    return loaded;
}

void file_keys_make_random(struct file_keys *keys)
{
    memset(keys, 0, sizeof(*keys));
    keys->count = 1;
    keys->keys[0].id = '0';
    check(RAND_bytes(keys->keys[0].bytes, sizeof(keys->keys[0].bytes)) == 1);
}

int file_keys_find(const struct file_keys *keys, char id)
{
    for (size_t i = 0; i < keys->count; i++)
        if (keys->keys[i].id == id)
            return (int)i;
    return -1;
}

bool file_keys_equal(const struct file_keys *a, const struct file_keys *b)
{
    if (a->count != b->count)
        return false;
    for (size_t i = 0; i < a->count; i++)
        if (a->keys[i].id != b->keys[i].id ||
            memcmp(a->keys[i].bytes, b->keys[i].bytes, sizeof(a->keys[i].bytes)) != 0)
            return false;
    return true;
}
