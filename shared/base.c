#include "shared/base.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void base_abort(const char *file, int line, const char *text)
{
    fprintf(stderr, "%s:%d: %s\n", file, line, text);
    abort();
}

static void *must(void *pointer)
{
    if (pointer == NULL)
        base_abort(__FILE__, __LINE__, "out of memory");
    return pointer;
}

void *must_calloc(size_t count, size_t size)
{
    return must(calloc(count > 0 ? count : 1, size > 0 ? size : 1));
}

void *must_realloc(void *pointer, size_t size)
{
    return must(realloc(pointer, size > 0 ? size : 1));
}

char *must_strdup(const char *text)
{
    return must(strdup(text));
}

char *must_memdup(const void *bytes, size_t len)
{
    char *copy = must(malloc(len + 1));
    if (len > 0)
        memcpy(copy, bytes, len);
    copy[len] = '\0';
    return copy;
}

char *must_printf(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    char *text = NULL;
    int len = vasprintf(&text, format, arguments);
    va_end(arguments);
    check(len >= 0);
    return text;
}
