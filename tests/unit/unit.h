/*
 * What every unit program includes: cmocka and the four headers it needs first, and a buffer that
 * ends against an unmapped page, so that a parser which reads one byte too many faults at once.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* A copy of `len` bytes whose end touches a page that cannot be read. Never freed: a unit program
 * is short. The pages are mapped anew for each call. */
static inline char *guarded_copy(const void *bytes, size_t len)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t whole = (len + page - 1) / page * page + page;
    char *map =
        mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(map != MAP_FAILED);
    assert_int_equal(0, mprotect(map + whole - page, page, PROT_NONE));
    char *copy = map + whole - page - len;
    if (len > 0)
        memcpy(copy, bytes, len);
    return copy;
}

/* Gives a guarded copy of `len` bytes back. */
static inline void guarded_free(char *copy, size_t len)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t whole = (len + page - 1) / page * page + page;
    munmap(copy + len + page - whole, whole);
}
