/* models/template_memory.h: how the interpreter fails, and where what it makes lies.
 *
 * Every failure goes through jinja_fail, which jumps to one setjmp in template.c. All that was made lies in an arena, one
 * for a compiled template and one for a rendering, so there is nothing to unwind on the way and nothing to free singly. */
#pragma once
#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

typedef struct {
    jmp_buf  jump;
    error   *err;
    uint32_t line; /* of the template, for the sentence; 0: none */
} trap;

static inline trap            *jinja_trap_at(trap *t, uint32_t line) { return t->line = line, t; }
__attribute__((noreturn)) void jinja_fail(trap *t, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

typedef struct arena_block arena_block;
typedef struct {
    trap        *trap;
    arena_block *blocks;
    char        *tip, *end; /* free bytes of the newest block */
    uint64_t     left;      /* bytes that may still be taken */
} arena;

void  jinja_arena_init(arena *a, trap *t, uint64_t limit_bytes);
void  jinja_arena_free(arena *a);
void *jinja_arena_take(arena *a, size_t count, size_t size_each); /* zeroed, 16-byte aligned; fails over the limit */

typedef struct {
    const char *data; /* valid UTF-8, not NUL-terminated */
    uint32_t    size; /* bytes */
    uint32_t    chars;
} text;
const text *jinja_text(arena *a, const char *data, size_t n);        /* copies */
const text *jinja_text_within(arena *a, const char *data, size_t n); /* points to data, which must live as long */
