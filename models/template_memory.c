/* models/template_memory.c: the arena, the one way to fail, and strings in the making.
 *
 * A string is made by appending to r->out above everything that is there already and then cutting it off into the
 * arena. Since evaluation nests, so do the strings, and one growing buffer serves the output, the captures of macros and
 * blocks, and every filter. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "models/template_render.h"

void jinja_fail(trap *t, int code, const char *format, ...) {
    char    sentence[sizeof t->err->text];
    va_list args;
    va_start(args, format);
    vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    if (t->line) error_set(t->err, code, "template line %u: %s", t->line, sentence);
    else error_set(t->err, code, "%s", sentence);
    longjmp(t->jump, code);
}

struct arena_block {
    arena_block *older;
    _Alignas(16) char bytes[];
};
enum { BLOCK_BYTES_FIRST = 16 << 10, BLOCK_BYTES_MAX = 1 << 20 };

void jinja_arena_init(arena *a, trap *t, uint64_t limit_bytes) { *a = (arena){.trap = t, .left = limit_bytes}; }

void jinja_arena_free(arena *a) {
    while (a->blocks) {
        arena_block *older = a->blocks->older;
        free(a->blocks);
        a->blocks = older;
    }
}

void *jinja_arena_take(arena *a, size_t count, size_t size_each) {
    size_t bytes;
    if (__builtin_mul_overflow(count, size_each, &bytes) || bytes > a->left)
        jinja_fail(a->trap, ERR_TOO_LARGE, "the template makes more data than the limit allows");
    bytes = bytes ? (bytes + 15) & ~(size_t)15 : 16;
    a->left -= bytes < a->left ? bytes : a->left;
    if (bytes > (size_t)(a->end - a->tip)) {
        size_t room = a->blocks ? BLOCK_BYTES_MAX : BLOCK_BYTES_FIRST;
        if (room < bytes) room = bytes;
        arena_block *block = malloc(sizeof *block + room);
        if (!block) fatal("out of memory for %zu bytes of a template", room);
        block->older = a->blocks;
        a->blocks = block, a->tip = block->bytes, a->end = block->bytes + room;
    }
    char *taken = a->tip;
    a->tip += bytes;
    return memset(taken, 0, bytes);
}

void jinja_out_of_steps(render *r) {
    jinja_fail(&r->trap, ERR_TOO_LARGE, "the template runs longer than the limit of steps allows");
}
void jinja_out_of_depth(render *r) {
    jinja_fail(&r->trap, ERR_TOO_LARGE, "the template or its data nests deeper than the limit allows");
}

static uint32_t count_chars(const char *data, size_t n) {
    uint32_t chars = 0;
    for (size_t i = 0; i < n; i++) chars += ((unsigned char)data[i] & 0xC0) != 0x80;
    return chars;
}

const text *jinja_text_within(arena *a, const char *data, size_t n) {
    if (n > UINT32_MAX / 2) jinja_fail(a->trap, ERR_TOO_LARGE, "a string of %zu bytes is longer than a template may use", n);
    text *t = jinja_arena_take(a, 1, sizeof *t);
    *t = (text){data, (uint32_t)n, count_chars(data, n)};
    return t;
}

const text *jinja_text(arena *a, const char *data, size_t n) {
    char *copy = jinja_arena_take(a, n, 1);
    if (n) memcpy(copy, data, n);
    return jinja_text_within(a, copy, n);
}

static void check_room(render *r) {
    if (buf_overflowed(&r->out))
        jinja_fail(&r->trap, ERR_TOO_LARGE, "the template writes more than the limit of %zu bytes", r->out.limit);
}

void jinja_put(render *r, const void *bytes, size_t n) {
    buf_append(&r->out, bytes, n);
    check_room(r);
}

void jinja_put_str(render *r, const char *s) { jinja_put(r, s, strlen(s)); }

void jinja_put_char(render *r, uint32_t codepoint) {
    char bytes[4];
    jinja_put(r, bytes, (size_t)utf8_encode(codepoint, bytes));
}

void jinja_put_format(render *r, const char *format, ...) {
    char    small[400];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(small, sizeof small, format, args);
    va_end(args);
    check(n >= 0 && (size_t)n < sizeof small);
    jinja_put(r, small, (size_t)n);
}

const text *jinja_cut_text(render *r, size_t mark) {
    jinja_work_bytes(r, r->out.size - mark);
    const text *t = jinja_text(&r->arena, r->out.data ? r->out.data + mark : "", r->out.size - mark);
    r->out.size = mark;
    return t;
}

value jinja_cut(render *r, size_t mark) { return text_value(jinja_cut_text(r, mark)); }

const char *jinja_cstr(render *r, const text *t) {
    size_t n = t->size < 200 ? t->size : 200;
    while (n && n < t->size && ((unsigned char)t->data[n] & 0xC0) == 0x80) n--;
    char *s = jinja_arena_take(&r->arena, n + 1, 1);
    memcpy(s, t->data, n);
    return s;
}
