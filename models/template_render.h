/* models/template_render.h: one rendering: its state and bounds, operators, calls, evaluation.
 *
 * template_eval.c walks the nodes; template_ops.c has the operators; template_call.c binds arguments and calls; filters,
 * tests, methods and functions are rows of tables (template_filters*.c, template_tests.c, template_methods.c).
 * Bounds: jinja_work spends steps, jinja_enter spends depth, the arena and r->out spend bytes. */
#pragma once
#include "models/template.h"
#include "models/template_node.h"
#include "models/template_text.h"

/* A frame of variables. Lookup walks outward; assignment is always to the innermost. */
typedef struct {
    const text *name;
    value       held; /* V_MISSING: hidden, see template_scope.c */
} variable;
struct scope {
    scope    *outside;
    variable *variables;
    uint32_t  count, capacity;
};

struct render {
    trap        trap;
    arena       arena;
    const node *body; /* of the template */
    uint64_t    steps_left;
    uint32_t    depth_left;
    buf         out; /* the output, and above it, as a stack, every string in the making */
    scope      *root, *scope;
    const dict *context;
    const text *captured; /* what N_CAPTURED stands for */
    int64_t     now_unix_s;
};

#define FAIL(r, ...) jinja_fail(&(r)->trap, ERR_INVALID, __VA_ARGS__)

void               jinja_out_of_steps(render *r) __attribute__((noreturn));
void               jinja_out_of_depth(render *r) __attribute__((noreturn));
static inline void jinja_work(render *r, uint64_t steps) {
    if (r->steps_left < steps) jinja_out_of_steps(r);
    r->steps_left -= steps;
}
static inline void jinja_work_bytes(render *r, size_t n) { jinja_work(r, 1 + n / 32); }
static inline void jinja_enter(render *r) {
    if (r->depth_left == 0) jinja_out_of_depth(r);
    r->depth_left--;
}
static inline void jinja_leave(render *r) { r->depth_left++; }

/* template_memory.c: strings in the making lie on top of r->out; jinja_cut takes off what came after `mark`. */
static inline size_t jinja_mark(const render *r) { return r->out.size; }
void                 jinja_put(render *r, const void *bytes, size_t n);
void                 jinja_put_str(render *r, const char *s);
void                 jinja_put_char(render *r, uint32_t codepoint);
void                 jinja_put_format(render *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
const text          *jinja_cut_text(render *r, size_t mark);
value                jinja_cut(render *r, size_t mark);
const char          *jinja_cstr(render *r, const text *t); /* for messages: cut short, NUL-terminated */

/* ---- template_ops.c ---- */

value   jinja_binary(render *r, binary_op op, value a, value b);
bool    jinja_compare(render *r, compare_op op, value a, value b);
value   jinja_negate(render *r, value v);
value   jinja_plus(render *r, value v);
value   jinja_attribute(render *r, value owner, const text *name);
value   jinja_item(render *r, value owner, value key);
value   jinja_slice(render *r, value of, value start, value stop, value step);
int64_t jinja_slice_bounds(render *r, int64_t length, value bounds[3],
                           int64_t *first); /* count; bounds get whole stop, step */

/* ---- template_call.c, and the tables ---- */

struct call_args {
    const value       *items; /* positional */
    uint32_t           count, named_count;
    const text *const *names;
    const value       *named;
};

/* One row of a table of filters, tests, methods or functions. `params` names what follows self, for binding as in
 * Python ("width first blank"; a leading "/" makes them positional-only); NULL: the function reads `args` itself.
 * Arguments that were not given are V_MISSING in arg[]. */
enum { BUILTIN_PARAMS_MAX = 8 };
typedef value builtin_call(render *r, value self, const value *arg, const call_args *args);
struct builtin {
    const char   *name, *params;
    uint8_t       required;
    builtin_call *call;
};

value                jinja_call(render *r, value callee, const call_args *args);
value                jinja_call_row(render *r, const builtin *row, value self, const call_args *args);
value                jinja_call_filter(render *r, const text *name, value self, const call_args *args);
bool                 jinja_call_test(render *r, const text *name, value self, const call_args *args);
int64_t              jinja_arg_int(render *r, value v, int64_t otherwise);
bool                 jinja_arg_truth(value v, bool otherwise);
const text          *jinja_arg_text(render *r, value v, const char *what);
const builtin       *jinja_find_method(value_kind kind, const text *name);
const builtin       *jinja_find_function(const text *name);
const builtin       *jinja_find_row(const builtin *rows, size_t count, const char *name, size_t n);
extern const builtin jinja_text_filters[];
extern const size_t  jinja_text_filter_count;

/* ---- template_eval.c ---- */

void   jinja_run(render *r);
value  jinja_eval(render *r, const node *n);
value  jinja_run_body(render *r, const node *body, scope *inner);
value  jinja_run_loop(render *r, const node *n, scope *outside, value over, uint32_t depth0);
scope *jinja_scope_open(render *r, scope *outside);
void   jinja_scope_set(render *r, scope *s, const text *name, value v);
value  jinja_loop_attribute(render *r, loop_state *l, const text *name); /* V_MISSING: there is none */
