/*
 * The hostile cases of tests/cases/ for unit programs: one JSON object a line, whose
 * `raw` is printable ASCII with the escapes \r \n \t \\ \xHH; and a buffer that ends
 * against an unmapped page, to which prefixes are moved.
 */
#pragma once

#include "tests/unit/unit.h"

#include "shared/base.h"
#include "shared/slice.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

struct test_case {
    char name[64];
    char expect[16];
    char request[16];
    char why[512];
    char *raw;
    size_t raw_len;
};

/* The JSON string at *at (behind its first quote), decoded to `out`; *at moves behind
 * the last quote. */
static inline size_t case_json_string(const char **at, char *out, size_t size)
{
    size_t len = 0;
    while (**at != '"') {
        char byte = *(*at)++;
        if (byte == '\\') {
            byte = *(*at)++;
            if (byte == 'u') {
                *at += 4;
                byte = '?'; /* only in `why` */
            }
        }
        if (len + 1 < size)
            out[len++] = byte;
    }
    *at += 1;
    out[len] = '\0';
    return len;
}

/* Decodes \r \n \t \\ \" \xHH in place; gives back the length. */
static inline size_t case_unescape(char *text)
{
    size_t len = 0;
    for (const char *p = text; *p != '\0'; p++) {
        if (*p != '\\') {
            text[len++] = *p;
            continue;
        }
        p++;
        if (*p == 'x') {
            char hex[3] = {p[1], p[2], '\0'};
            text[len++] = (char)strtoul(hex, NULL, 16);
            p += 2;
        } else {
            text[len++] = (char)(*p == 'r'   ? '\r'
                                 : *p == 'n' ? '\n'
                                 : *p == 't' ? '\t'
                                             : *p);
        }
    }
    return len;
}

/* Reads all cases of a file into an array that begins as zeros; what an earlier load
 * left there is freed, the last load stays to the end of the program. */
static inline size_t cases_load(const char *path, struct test_case *cases, size_t max)
{
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    char *line = NULL;
    size_t capacity = 0;
    size_t count = 0;
    ssize_t len;
    while ((len = getline(&line, &capacity, file)) > 0) {
        assert_true(count < max);
        struct test_case *one = &cases[count++];
        free(one->raw); /* of an earlier load */
        memset(one, 0, sizeof(*one));
        one->raw = must_calloc(1, (size_t)len);
        const char *at = line;
        while ((at = strchr(at, '"')) != NULL) {
            char key[32];
            at++;
            case_json_string(&at, key, sizeof(key));
            at = strchr(at, '"');
            assert_non_null(at);
            at++;
            if (strcmp(key, "raw") == 0)
                case_json_string(&at, one->raw, (size_t)len);
            else if (strcmp(key, "name") == 0)
                case_json_string(&at, one->name, sizeof(one->name));
            else if (strcmp(key, "expect") == 0)
                case_json_string(&at, one->expect, sizeof(one->expect));
            else if (strcmp(key, "request") == 0)
                case_json_string(&at, one->request, sizeof(one->request));
            else
                case_json_string(&at, one->why, sizeof(one->why));
        }
        one->raw_len = case_unescape(one->raw);
    }
    free(line);
    fclose(file);
    return count;
}

/* A mapping whose end cannot be read; bytes are moved so that they end there. */
struct guard {
    char *end;
    size_t size;
};

static inline struct guard guard_new(size_t size)
{
    char *zeros = must_calloc(1, size);
    char *begin = guarded_copy(zeros, size);
    free(zeros);
    return (struct guard){begin + size, size};
}

static inline struct slice guard_put(struct guard *guard, const char *bytes, size_t len)
{
    assert_true(len <= guard->size);
    if (len > 0)
        memcpy(guard->end - len, bytes, len);
    return slice_of(guard->end - len, len);
}

/* How a message arrives: the lengths of what has come, one after the other. */
struct arrival {
    size_t first; /* bytes in the first piece */
    size_t step;  /* bytes in each that follows */
};

static inline size_t arrival_next(const struct arrival *arrival, size_t have, size_t len)
{
    size_t step = have == 0 ? arrival->first : arrival->step;
    return step == 0 || step > len - have ? len : have + step;
}
