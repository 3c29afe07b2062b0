/* models/template.c: the interpreter's front: compile, render, and the one place where failures land.
 *
 * What it does is what Jinja2 3.1.6 does, as its sources and Python 3.11 have it; tests/e2e/test_render.py compares. Where
 * the two differ, on purpose:
 *   - integers have 64 bits, and growing beyond them is an error;
 *   - include, extends, import and autoescape are refused (a chat template has no other files and writes no HTML), and so
 *     are the filters pprint, random, striptags, urlize, wordwrap and the function lipsum;
 *   - where Python prints an address (<generator object ... at 0x7f...>), there is none;
 *   - an expression made of literals alone is evaluated when it is reached, not before. */
#include "models/template.h"

#include <stdlib.h>

#include "base/utf8.h"
#include "models/template_render.h"

/* A chat of a hundred thousand tokens takes some hundred thousand steps and two megabytes; these bounds are for the
 * template that does not end. A step is well under a microsecond, a level well under a kilobyte of stack. */
const template_limits template_limits_default = {.steps_max = 20000000, .depth_max = 2500, .output_max = 64 << 20};

enum { SOURCE_BYTES_MAX = 1 << 20, COMPILED_BYTES_MAX = 256 << 20 };

static int compile_guarded(template *t, trap *tr, const char *source, size_t n) {
    int code = setjmp(tr->jump);
    if (code) return code;
    jinja_arena_init(&t->arena, tr, COMPILED_BYTES_MAX);
    t->root = jinja_parse(&t->arena, source, n);
    jinja_hide_names(&t->arena, t->root);
    t->arena.trap = NULL; /* it was on the caller's stack */
    return OK;
}

int template_compile(template **out, const char *source, size_t n, error *err) {
    error ignored;
    trap  tr = {.err = err ? err : &ignored};
    *out = NULL;
    if (n > SOURCE_BYTES_MAX)
        return error_set(err, ERR_TOO_LARGE, "the chat template has %zu bytes; the limit is %d", n, SOURCE_BYTES_MAX);
    if (!utf8_valid(source, n)) return error_set(err, ERR_INVALID, "the chat template is not valid UTF-8");
    template *t = calloc(1, sizeof *t);
    if (!t) fatal("out of memory compiling a template");
    int code = compile_guarded(t, &tr, source, n);
    if (code == OK) *out = t;
    else template_free(t);
    return code;
}

void template_free(template *t) {
    if (!t) return;
    jinja_arena_free(&t->arena);
    free(t);
}

static int render_guarded(render *r, const cJSON *context, buf *out) {
    int code = setjmp(r->trap.jump);
    if (code) return code;
    value given = jinja_from_json(r, context);
    if (given.kind != V_DICT) FAIL(r, "the context of a template must be a JSON object");
    r->context = given.dict;
    jinja_run(r);
    buf_append(out, r->out.data ? r->out.data : "", r->out.size);
    if (buf_overflowed(out)) jinja_fail(&r->trap, ERR_TOO_LARGE, "the rendered text is larger than %zu bytes", out->limit);
    return OK;
}

int template_render(const template *t, const cJSON *context, int64_t now_unix_s, const template_limits *limits, buf *out,
                    error *err) {
    error  ignored;
    render r = {.trap.err = err ? err : &ignored, .body = t->root, .now_unix_s = now_unix_s};
    r.steps_left = limits->steps_max, r.depth_left = limits->depth_max;
    jinja_arena_init(&r.arena, &r.trap, limits->output_max);
    buf_init(&r.out, limits->output_max < UINT32_MAX / 2 ? limits->output_max : UINT32_MAX / 2);
    int code = render_guarded(&r, context, out);
    jinja_arena_free(&r.arena);
    buf_free(&r.out);
    return code;
}
