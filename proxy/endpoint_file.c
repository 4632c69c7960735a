#include "proxy/endpoint_file.h"

#include "proxy/proxy_config_check.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const keys[] = {"address", "id", "weight", "state"};

/* Where the element `wanted` of the outermost list begins, in well-formed JSON. */
static void find_element(struct slice text, size_t wanted, size_t *line, size_t *column)
{
    size_t depth = 0, element = 0, line_start = 0;
    bool is_in_text = false, is_before = true;
    *line = 1;
    for (size_t i = 0; i < text.len; i++) {
        char byte = text.data[i];
        if (byte == '\n') {
            ++*line;
            line_start = i + 1;
        }
        if (is_in_text) {
            i += byte == '\\';
            is_in_text = byte != '"';
            continue;
        }
        bool is_space = byte == ' ' || byte == '\n' || byte == '\r' || byte == '\t';
        if (depth == 1 && is_before && !is_space) {
            *column = i - line_start + 1;
            if (element == wanted)
                return;
            is_before = false;
        }
        is_in_text = byte == '"';
        depth += byte == '[' || byte == '{';
        depth -= byte == ']' || byte == '}';
        if (depth == 1 && byte == ',') {
            element++;
            is_before = true;
        }
    }
}

static bool is_key(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(keys); i++)
        if (strcmp(keys[i], name) == 0)
            return true;
    return false;
}

static const char *read_text(const json_t *value, struct slice *text)
{
    if (!json_is_string(value))
        return "must be text";
    *text = slice_of(json_string_value(value), json_string_length(value));
    return memchr(text->data, '\0', text->len) != NULL ? "has a NUL" : NULL;
}

static const char *read_address(const json_t *value, struct endpoint_spec *spec)
{
    struct slice *text = &spec->who.address_text;
    const char *why = read_text(value, text);
    if (why == NULL)
        why = proxy_check_endpoint(&text->data);
    if (why == NULL && !address_parse(*text, &spec->who.address, &why))
        return why;
    spec->who.port = why == NULL ? address_port(&spec->who.address) : 0;
    return why;
}

static const char *read_id(const json_t *value, struct endpoint_spec *spec)
{
    const char *why = read_text(value, &spec->who.identity);
    return why == NULL && spec->who.identity.len > 128 ? "has more than 128 bytes" : why;
}

static const char *read_weight(const json_t *value, struct endpoint_spec *spec)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0 ||
        json_integer_value(value) > ENDPOINT_WEIGHT_MAX)
        return "must be an integer of 0.." TEXT_OF(ENDPOINT_WEIGHT_MAX);
    spec->weight = (unsigned)json_integer_value(value);
    return NULL;
}

static const char *read_state(const json_t *value, struct endpoint_spec *spec)
{
    struct slice word;
    const char *why = read_text(value, &word);
    if (why != NULL)
        return why;
    if (slice_equals(word, SLICE("draining")))
        spec->state = ENDPOINT_DRAINING;
    else if (!slice_equals(word, SLICE("ready")))
        return "must be ready or draining";
    return NULL;
}

/* NULL, or what is wrong, and in *key with which value. */
static const char *read_object(json_t *object, struct endpoint_spec *spec,
                               const char **key)
{
    const json_t *value;
    const char *name, *why = NULL;
    json_object_foreach(object, name, value) if (!is_key(name))
    {
        *key = name;
        return "is not a key of an endpoint (address, id, weight, state)";
    }
    *key = "address";
    if ((value = json_object_get(object, "address")) == NULL)
        return "is required";
    if ((why = read_address(value, spec)) != NULL)
        return why;
    *key = "id";
    if ((value = json_object_get(object, "id")) != NULL)
        why = read_id(value, spec);
    if (why != NULL)
        return why;
    *key = "weight";
    if ((value = json_object_get(object, "weight")) != NULL)
        why = read_weight(value, spec);
    if (why != NULL)
        return why;
    *key = "state";
    if ((value = json_object_get(object, "state")) != NULL)
        why = read_state(value, spec);
    return why;
}

static const char *read_element(json_t *element, struct endpoint_spec *spec,
                                const char **key)
{
    const char *why = "is neither text nor an object";
    *spec = (struct endpoint_spec){.state = ENDPOINT_READY, .weight = 1};
    *key = "the element";
    if (json_is_string(element))
        why = read_address(element, spec);
    else if (json_is_object(element))
        why = read_object(element, spec, key);
    if (spec->who.identity.len == 0)
        spec->who.identity = spec->who.address_text;
    spec->who.label = spec->who.identity;
    return why;
}

/* NULL, or what an earlier element has too. */
static const char *find_same(const struct endpoint_spec *specs, size_t place)
{
    for (size_t i = 0; i < place; i++) {
        if (address_equals(&specs[i].who.address, &specs[place].who.address))
            return "address";
        if (slice_equals(specs[i].who.identity, specs[place].who.identity))
            return "id";
    }
    return NULL;
}

static bool read_elements(struct slice text, struct endpoint_file *file, char *error,
                          size_t error_size)
{
    size_t line = 1, column = 1;
    for (size_t i = 0; i < file->len; i++) {
        const char *key, *why, *same;
        why = read_element(json_array_get(file->document, i), &file->specs[i], &key);
        same = why == NULL ? find_same(file->specs, i) : NULL;
        if (why == NULL && same == NULL)
            continue;
        find_element(text, i, &line, &column);
        if (why != NULL)
            snprintf(error, error_size, "%zu:%zu: %.64s %s", line, column, key, why);
        else
            snprintf(error, error_size, "%zu:%zu: has the %s of another element", line,
                     column, same);
        return false;
    }
    return true;
}

bool endpoint_file_parse(struct slice text, struct endpoint_file *file, char *error,
                         size_t error_size)
{
    json_error_t fault;
    *file = (struct endpoint_file){0};
    if (text.len > ENDPOINT_FILE_BYTES_MAX) {
        snprintf(error, error_size, "1:1: has more than %d bytes",
                 ENDPOINT_FILE_BYTES_MAX);
        return false;
    }
    file->document =
        json_loadb(text.data, text.len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &fault);
    if (file->document == NULL) {
        snprintf(error, error_size, "%d:%d: %s", fault.line > 0 ? fault.line : 1,
                 fault.column > 0 ? fault.column : 1, fault.text);
        return false;
    }
    file->len = json_array_size(file->document);
    bool is_good = false;
    if (!json_is_array(file->document))
        snprintf(error, error_size, "1:1: is not a list of endpoints");
    else if (file->len > ENDPOINT_FILE_MAX)
        snprintf(error, error_size, "1:1: has more than %d endpoints", ENDPOINT_FILE_MAX);
    else {
        file->specs = must_calloc(file->len, sizeof *file->specs);
        is_good = read_elements(text, file, error, error_size);
    }
    if (!is_good)
        endpoint_file_cleanup(file);
    return is_good;
}

void endpoint_file_cleanup(struct endpoint_file *file)
{
    json_decref(file->document);
    free(file->specs);
    *file = (struct endpoint_file){0};
}
