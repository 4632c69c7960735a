/*
 * Words of the house: attributes, allocation that cannot fail, and two kinds of belief.
 *
 * Allocation failure aborts, as in Redis, tmux and h2o: every number from the wire is bounded before
 * anything is allocated from it, so running out of memory means that the machine is out of memory.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define MUST_CHECK           __attribute__((warn_unused_result))
#define PRINTF_LIKE(fmt, va) __attribute__((format(printf, fmt, va)))
#define NO_RETURN            __attribute__((noreturn))
#define UNUSED               __attribute__((unused))

/* Bytes that two CPUs cannot write to at once without taking them from each other; a pair of 64, which are fetched
 * together. */
#define CACHE_LINE 128

#define ARRAY_LEN(array) (sizeof(array) / sizeof((array)[0]))

/* The text of a number that is a macro: TEXT_OF(ITEMS_MAX) is "1000". */
#define TEXT_OF(number)  TEXT_OF_(number)
#define TEXT_OF_(number) #number

/* The object of type `type` whose member `member` is at `pointer`. */
#define CONTAINER_OF(pointer, type, member)                                              \
    ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

/* "I believe this": aborts with place and text when false, in every build. Never on what a peer sent. */
#define check(condition)                                                                 \
    do {                                                                                 \
        if (__builtin_expect(!(condition), 0))                                           \
            base_abort(__FILE__, __LINE__, #condition);                                  \
    } while (0)

/* "This line is never reached": after a switch over every value of an enum. */
#define unreachable() base_abort(__FILE__, __LINE__, "unreachable")

/* Writes "FILE:LINE: text" to stderr and aborts. */
void base_abort(const char *file, int line, const char *text) NO_RETURN;

/* As calloc, realloc, strdup, but never NULL. The caller owns the result and gives it to free().
 * must_realloc with size 0 gives a valid pointer to nothing. */
void *must_calloc(size_t count, size_t size);
void *must_realloc(void *pointer, size_t size);
char *must_strdup(const char *text);

/* A copy of `len` bytes with a NUL behind it. */
char *must_memdup(const void *bytes, size_t len);

/* Text made as printf would; the caller owns it. */
char *must_printf(const char *format, ...) PRINTF_LIKE(1, 2);

static inline size_t min_size(size_t a, size_t b)
{
    return a < b ? a : b;
}

static inline size_t max_size(size_t a, size_t b)
{
    return a > b ? a : b;
}
