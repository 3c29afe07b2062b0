/* models/template_eval.c: walking the nodes: expressions give values, statements write to r->out. Two tables map a node's
 * kind to its function. */
#include <string.h>

#include "models/template_render.h"

/* ---- variables ---- */

scope *jinja_scope_open(render *r, scope *outside) {
    scope *s = jinja_arena_take(&r->arena, 1, sizeof *s);
    s->outside = outside;
    return s;
}

static variable *scope_find(render *r, scope *s, const text *name) {
    jinja_work(r, 1 + s->count / 8);
    for (uint32_t i = 0; i < s->count; i++)
        if (text_is(s->variables[i].name, name->data, name->size)) return &s->variables[i];
    return NULL;
}

void jinja_scope_set(render *r, scope *s, const text *name, value v) {
    variable *known = scope_find(r, s, name);
    if (known) {
        known->held = v;
        return;
    }
    if (s->count == s->capacity) {
        uint32_t  capacity = s->capacity ? s->capacity * 2 : 4;
        variable *more = jinja_arena_take(&r->arena, capacity, sizeof *more);
        if (s->count) memcpy(more, s->variables, s->count * sizeof *more);
        s->variables = more, s->capacity = capacity;
    }
    s->variables[s->count++] = (variable){name, v};
}

static value look_up(render *r, const text *name) {
    for (scope *s = r->scope; s; s = s->outside) {
        const variable *found = scope_find(r, s, name);
        if (found) return is_missing(found->held) ? jinja_undefined_name(r, name) : found->held;
    }
    const value   *given = jinja_dict_get_text(r, r->context, name);
    const builtin *function = given ? NULL : jinja_find_function(name);
    if (given) return *given;
    return function ? (value){.kind = V_FUNCTION, .function = function} : jinja_undefined_name(r, name);
}

static void hide_names(render *r, scope *s, const node *body) {
    for (uint32_t i = 0; i < body->name_count; i++) jinja_scope_set(r, s, body->names[i], (value){0});
}

/* ---- targets of assignments ---- */

static void assign(render *r, scope *s, const node *target, value v);

static void unpack(render *r, scope *s, const node *target, value v) {
    if (!jinja_is_iterable(v)) FAIL(r, "cannot unpack non-iterable %s object", jinja_type_name(v));
    iterator *it = jinja_iterate(r, v);
    value     each;
    for (uint32_t i = 0; i < target->count; i++) {
        if (!jinja_next(r, it, &each)) FAIL(r, "not enough values to unpack (expected %u, got %u)", target->count, i);
        assign(r, s, target->kids[i], each);
    }
    if (jinja_next(r, it, &each)) FAIL(r, "too many values to unpack (expected %u)", target->count);
}

static void assign(render *r, scope *s, const node *target, value v) {
    if (target->kind == N_STORE) {
        jinja_scope_set(r, s, target->name, v);
    } else if (target->kind == N_TUPLE) {
        unpack(r, s, target, v);
    } else {
        value owner = jinja_eval(r, target->kids[0]);
        if (owner.kind != V_NAMESPACE) FAIL(r, "cannot assign attribute on non-namespace object");
        jinja_dict_set(r, owner.dict, text_value(target->name), v);
    }
}

/* ---- expressions ---- */

static value eval_const(render *r, const node *n) { return (void)r, n->constant; }
static value eval_name(render *r, const node *n) { return look_up(r, n->name); }
static value eval_captured(render *r, const node *n) { return (void)n, text_value(r->captured); }

static value eval_items(render *r, const node *n) {
    array *a = jinja_array_new(r, n->count);
    for (uint32_t i = 0; i < n->count; i++) a->items[i] = jinja_eval(r, n->kids[i]);
    return (value){.kind = n->kind == N_LIST ? V_LIST : V_TUPLE, .array = a};
}

static value eval_dict(render *r, const node *n) {
    dict *d = jinja_dict_new(r);
    for (uint32_t i = 0; i < n->count; i += 2) {
        value key = jinja_eval(r, n->kids[i]);
        jinja_dict_set(r, d, key, jinja_eval(r, n->kids[i + 1]));
    }
    return (value){.kind = V_DICT, .dict = d};
}

static value eval_cond(render *r, const node *n) {
    if (jinja_truth(jinja_eval(r, n->kids[0]))) return jinja_eval(r, n->kids[1]);
    if (n->kids[2]) return jinja_eval(r, n->kids[2]);
    return jinja_undefined_hint(r, "the inline if-expression evaluated to false and no else section was defined.");
}

static value eval_or(render *r, const node *n) {
    value left = jinja_eval(r, n->kids[0]);
    return jinja_truth(left) ? left : jinja_eval(r, n->kids[1]);
}
static value eval_and(render *r, const node *n) {
    value left = jinja_eval(r, n->kids[0]);
    return jinja_truth(left) ? jinja_eval(r, n->kids[1]) : left;
}
static value eval_not(render *r, const node *n) { return bool_value(!jinja_truth(jinja_eval(r, n->kids[0]))); }
static value eval_negate(render *r, const node *n) { return jinja_negate(r, jinja_eval(r, n->kids[0])); }
static value eval_plus(render *r, const node *n) { return jinja_plus(r, jinja_eval(r, n->kids[0])); }

static value eval_binary(render *r, const node *n) {
    value left = jinja_eval(r, n->kids[0]);
    return jinja_binary(r, n->op, left, jinja_eval(r, n->kids[1]));
}

static value eval_compare(render *r, const node *n) { /* a < b < c asks for b once and stops at the first no */
    value left = jinja_eval(r, n->kids[0]);
    for (uint32_t i = 1; i < n->count; i++) {
        value right = jinja_eval(r, n->kids[i]);
        if (!jinja_compare(r, n->ops[i - 1], left, right)) return bool_value(false);
        left = right;
    }
    return bool_value(true);
}

static value eval_concat(render *r, const node *n) {
    array *parts = jinja_array_new(r, n->count);
    for (uint32_t i = 0; i < n->count; i++) parts->items[i] = jinja_eval(r, n->kids[i]);
    size_t mark = jinja_mark(r);
    for (uint32_t i = 0; i < n->count; i++) jinja_show(r, parts->items[i]);
    return jinja_cut(r, mark);
}

static value eval_attribute(render *r, const node *n) { return jinja_attribute(r, jinja_eval(r, n->kids[0]), n->name); }

static value eval_item(render *r, const node *n) {
    value owner = jinja_eval(r, n->kids[0]);
    return jinja_item(r, owner, jinja_eval(r, n->kids[1]));
}

static value eval_slice(render *r, const node *n) {
    value of = jinja_eval(r, n->kids[0]), bounds[3];
    for (int i = 0; i < 3; i++) bounds[i] = n->kids[i + 1] ? jinja_eval(r, n->kids[i + 1]) : none_value();
    return jinja_slice(r, of, bounds[0], bounds[1], bounds[2]);
}

/* ---- calls ---- */

typedef struct {
    growing   items, named, names; /* names as texts */
    call_args done;
} arg_list;

static void add_named(render *r, arg_list *l, const text *name, value v) {
    for (uint32_t i = 0; i < l->names.count; i++)
        if (text_is(l->names.items[i].text, name->data, name->size))
            FAIL(r, "a call got multiple values for keyword argument '%s'", jinja_cstr(r, name));
    jinja_work(r, l->names.count);
    jinja_grow(r, &l->names, text_value(name));
    jinja_grow(r, &l->named, v);
}

static void add_star(render *r, arg_list *l, value v) {
    iterator *it = jinja_iterate(r, v);
    for (value each; jinja_next(r, it, &each);) jinja_grow(r, &l->items, each);
}

static void add_star_star(render *r, arg_list *l, value v) {
    if (v.kind != V_DICT) FAIL(r, "argument after ** must be a mapping, not %s", jinja_type_name(v));
    for (uint32_t i = 0; i < v.dict->count; i++) {
        value key = v.dict->pairs[i].key;
        if (key.kind != V_TEXT) FAIL(r, "keywords must be strings");
        add_named(r, l, key.text, v.dict->pairs[i].item);
    }
}

static call_args finish_args(render *r, arg_list *l) {
    const text **names = jinja_arena_take(&r->arena, l->names.count, sizeof *names);
    for (uint32_t i = 0; i < l->names.count; i++) names[i] = l->names.items[i].text;
    return (call_args){l->items.items, l->items.count, l->named.count, names, l->named.items};
}

/* The arguments of a call, filter or test: kids from 1 on. `caller`: one more keyword argument, or V_MISSING. */
static call_args eval_args(render *r, const node *n, value caller) {
    static const text caller_name = {"caller", 6, 6};
    arg_list          l = {0};
    uint32_t          stars = (n->flags & ARGS_STAR ? 1 : 0) + (n->flags & ARGS_STAR_STAR ? 1 : 0);
    uint32_t          named_at = n->count - stars - n->name_count, at = 1;
    for (; at < named_at; at++) jinja_grow(r, &l.items, jinja_eval(r, n->kids[at]));
    for (uint32_t i = 0; i < n->name_count; i++) add_named(r, &l, n->names[i], jinja_eval(r, n->kids[at++]));
    if (n->flags & ARGS_STAR) add_star(r, &l, jinja_eval(r, n->kids[at++]));
    if (n->flags & ARGS_STAR_STAR) add_star_star(r, &l, jinja_eval(r, n->kids[at]));
    if (!is_missing(caller)) add_named(r, &l, &caller_name, caller);
    return finish_args(r, &l);
}

static value call_node(render *r, const node *n, value caller) {
    value     callee = jinja_eval(r, n->kids[0]);
    call_args args = eval_args(r, n, caller);
    return jinja_call(r, callee, &args);
}
static value eval_call(render *r, const node *n) { return call_node(r, n, (value){0}); }

static value eval_builtin(render *r, const node *n) {
    const char *what = n->kind == N_FILTER ? "filter" : "test";
    if (!n->row) FAIL(r, "No %s named '%s' found.", what, jinja_cstr(r, n->name));
    value     input = jinja_eval(r, n->kids[0]);
    call_args args = eval_args(r, n, (value){0});
    return jinja_call_row(r, n->row, input, &args);
}

static value eval_test(render *r, const node *n) { return bool_value(jinja_truth(eval_builtin(r, n))); }

value jinja_eval(render *r, const node *n) {
    static value (*const evaluators[])(render *, const node *) = {
        [N_CONST] = eval_const,     [N_NAME] = eval_name,     [N_TUPLE] = eval_items,
        [N_LIST] = eval_items,      [N_DICT] = eval_dict,     [N_COND] = eval_cond,
        [N_OR] = eval_or,           [N_AND] = eval_and,       [N_NOT] = eval_not,
        [N_NEGATE] = eval_negate,   [N_PLUS] = eval_plus,     [N_BINARY] = eval_binary,
        [N_COMPARE] = eval_compare, [N_CONCAT] = eval_concat, [N_ATTRIBUTE] = eval_attribute,
        [N_ITEM] = eval_item,       [N_SLICE] = eval_slice,   [N_CALL] = eval_call,
        [N_FILTER] = eval_builtin,  [N_TEST] = eval_test,     [N_CAPTURED] = eval_captured,
    };
    uint32_t line = r->trap.line;
    jinja_work(r, 1);
    jinja_enter(r);
    r->trap.line = n->line;
    value v = evaluators[n->kind](r, n);
    r->trap.line = line;
    jinja_leave(r);
    return v;
}

/* ---- statements ---- */

typedef enum { FLOW_ON, FLOW_BREAK, FLOW_CONTINUE } flow;

static flow execute(render *r, const node *n);

static flow exec_text(render *r, const node *n) { return jinja_show(r, n->constant), FLOW_ON; }
static flow exec_output(render *r, const node *n) { return jinja_show(r, jinja_eval(r, n->kids[0])), FLOW_ON; }
static flow exec_break(render *r, const node *n) { return (void)r, n->kind == N_BREAK ? FLOW_BREAK : FLOW_CONTINUE; }

static flow exec_body(render *r, const node *n) {
    flow f = FLOW_ON;
    for (uint32_t i = 0; i < n->count && f == FLOW_ON; i++) f = execute(r, n->kids[i]);
    return f;
}

/* A body that is a frame of its own. */
static flow exec_frame(render *r, const node *body, scope *inner) {
    scope *outer = r->scope;
    hide_names(r, inner, body);
    r->scope = inner;
    flow f = execute(r, body);
    r->scope = outer;
    return f;
}

/* What a frame writes, as text; false where `break` or `continue` left it. */
static bool capture(render *r, const node *body, scope *inner, const text **out, flow *f) {
    size_t mark = jinja_mark(r);
    *f = exec_frame(r, body, inner);
    *out = jinja_cut_text(r, mark);
    return *f == FLOW_ON;
}

value jinja_run_body(render *r, const node *body, scope *inner) {
    const text *t;
    flow        f;
    capture(r, body, inner, &t, &f);
    return text_value(t);
}

static flow exec_if(render *r, const node *n) {
    uint32_t i = 0;
    for (; i + 1 < n->count; i += 2)
        if (jinja_truth(jinja_eval(r, n->kids[i]))) return execute(r, n->kids[i + 1]);
    return i < n->count ? execute(r, n->kids[i]) : FLOW_ON;
}

static flow exec_set(render *r, const node *n) {
    assign(r, r->scope, n->kids[0], jinja_eval(r, n->kids[1]));
    return FLOW_ON;
}

static value filter_captured(render *r, const node *filter, const text *captured) {
    const text *outer = r->captured;
    r->captured = captured;
    value v = jinja_eval(r, filter);
    r->captured = outer;
    return v;
}

static flow exec_set_block(render *r, const node *n) {
    const text *captured;
    flow        f;
    if (!capture(r, n->kids[2], jinja_scope_open(r, r->scope), &captured, &f)) return f;
    assign(r, r->scope, n->kids[0], n->kids[1] ? filter_captured(r, n->kids[1], captured) : text_value(captured));
    return FLOW_ON;
}

static flow exec_filter_block(render *r, const node *n) {
    const text *captured;
    flow        f;
    if (!capture(r, n->kids[1], jinja_scope_open(r, r->scope), &captured, &f)) return f;
    jinja_show(r, filter_captured(r, n->kids[0], captured));
    return FLOW_ON;
}

static value macro_value(render *r, const node *definition) {
    macro *m = jinja_arena_take(&r->arena, 1, sizeof *m);
    *m = (macro){definition, r->scope};
    return (value){.kind = V_MACRO, .macro = m};
}

static flow exec_macro(render *r, const node *n) {
    jinja_scope_set(r, r->scope, n->name, macro_value(r, n));
    return FLOW_ON;
}

static flow exec_call_block(render *r, const node *n) {
    jinja_show(r, call_node(r, n->kids[0], macro_value(r, n->kids[1])));
    return FLOW_ON;
}

static flow exec_with(render *r, const node *n) {
    scope *inner = jinja_scope_open(r, r->scope);
    for (uint32_t i = 0; i + 1 < n->count; i += 2) assign(r, inner, n->kids[i], jinja_eval(r, n->kids[i + 1]));
    return exec_frame(r, n->kids[n->count - 1], inner);
}

static flow exec_block(render *r, const node *n) {
    exec_frame(r, n->kids[0], jinja_scope_open(r, n->flags & BLOCK_SCOPED ? r->scope : r->root));
    return FLOW_ON;
}

/* ---- loops ---- */

/* What the target holds after an assignment; `for a, b in x if ...` walks along tuples (a, b). */
static value target_value(render *r, const node *target) {
    if (target->kind == N_STORE) return look_up(r, target->name);
    array *a = jinja_array_new(r, target->count);
    for (uint32_t i = 0; i < target->count; i++) a->items[i] = target_value(r, target->kids[i]);
    return (value){.kind = V_TUPLE, .array = a};
}

typedef struct {
    const node *loop;
    scope      *outside;
} loop_test;

/* The items of a `for ... if`: the test has a frame of its own, and runs as late as it can. */
static bool next_tested(render *r, iterator *it, value *out) {
    const loop_test *t = it->with;
    scope           *outer = r->scope;
    bool             passed = false;
    while (!passed && jinja_next(r, it->inner, out)) {
        r->scope = jinja_scope_open(r, t->outside);
        assign(r, r->scope, t->loop->kids[FOR_TARGET], *out);
        passed = jinja_truth(jinja_eval(r, t->loop->kids[FOR_TEST]));
        if (passed) *out = target_value(r, t->loop->kids[FOR_TARGET]);
        r->scope = outer;
    }
    return passed;
}

static value tested(render *r, const node *n, scope *outside, value over) {
    loop_test *t = jinja_arena_take(&r->arena, 1, sizeof *t);
    *t = (loop_test){n, outside};
    iterator *it = jinja_iterator_new(r, next_tested, over, "generator");
    it->inner = jinja_iterate(r, over), it->with = t;
    return jinja_iterator_value(it);
}

static bool loop_peek(render *r, loop_state *l) {
    if (!l->peeked) l->peeked = jinja_next(r, l->source, &l->after);
    return l->peeked;
}

static bool loop_advance(render *r, loop_state *l) {
    if (!loop_peek(r, l)) return false;
    l->peeked = false;
    l->index0++;
    l->before = l->current, l->current = l->after;
    return true;
}

static int64_t loop_length(render *r, loop_state *l) {
    if (l->length >= 0) return l->length;
    if (jinja_has_length(l->over, &l->length)) return l->length;
    value rest = jinja_to_list(r, jinja_iterator_value(l->source));
    l->source = jinja_iterate(r, rest);
    l->length = rest.array->count + l->index0 + 1 + l->peeked;
    return l->length;
}

static value loop_neighbour(render *r, loop_state *l, bool next) {
    if (next) return loop_peek(r, l) ? l->after : jinja_undefined_hint(r, "there is no next item");
    return l->index0 > 0 ? l->before : jinja_undefined_hint(r, "there is no previous item");
}

value jinja_loop_attribute(render *r, loop_state *l, const text *name) {
    if (TEXT_IS(name, "index")) return int_value(l->index0 + 1);
    if (TEXT_IS(name, "index0")) return int_value(l->index0);
    if (TEXT_IS(name, "first")) return bool_value(l->index0 == 0);
    if (TEXT_IS(name, "last")) return bool_value(!loop_peek(r, l));
    if (TEXT_IS(name, "length")) return int_value(loop_length(r, l));
    if (TEXT_IS(name, "revindex")) return int_value(loop_length(r, l) - l->index0);
    if (TEXT_IS(name, "revindex0")) return int_value(loop_length(r, l) - l->index0 - 1);
    if (TEXT_IS(name, "depth")) return int_value((int64_t)l->depth0 + 1);
    if (TEXT_IS(name, "depth0")) return int_value(l->depth0);
    if (TEXT_IS(name, "previtem")) return loop_neighbour(r, l, false);
    if (TEXT_IS(name, "nextitem")) return loop_neighbour(r, l, true);
    return (value){0};
}

/* Once around; *complete: the body ran to its end, which is what keeps the `else` from running. */
static flow run_iteration(render *r, const node *n, loop_state *l, bool *complete) {
    static const text loop_name = {"loop", 4, 4};
    scope            *inner = jinja_scope_open(r, l->outside);
    jinja_scope_set(r, inner, &loop_name, (value){.kind = V_LOOP, .loop = l});
    assign(r, inner, n->kids[FOR_TARGET], l->current);
    flow f = exec_frame(r, n->kids[FOR_BODY], inner);
    *complete |= f == FLOW_ON;
    return f;
}

/* The flow that comes out is that of the `else`, which belongs to the loop around this one. */
static flow run_loop(render *r, const node *n, loop_state l) {
    loop_state *kept = jinja_arena_take(&r->arena, 1, sizeof *kept); /* the template may keep it: {% set outer = loop %} */
    bool        complete = false;
    if (n->kids[FOR_TEST]) l.over = tested(r, n, l.outside, l.over);
    *kept = l;
    kept->source = jinja_iterate(r, l.over), kept->index0 = kept->length = -1;
    while (loop_advance(r, kept) && run_iteration(r, n, kept, &complete) != FLOW_BREAK) {
    }
    if (complete || !n->kids[FOR_ELSE]) return FLOW_ON;
    return exec_frame(r, n->kids[FOR_ELSE], jinja_scope_open(r, l.outside));
}

static flow exec_for(render *r, const node *n) {
    value over = jinja_eval(r, n->kids[FOR_ITERABLE]);
    return run_loop(r, n, (loop_state){.over = over, .recursive = n->flags & FOR_RECURSIVE ? n : NULL, .outside = r->scope});
}

value jinja_run_loop(render *r, const node *n, scope *outside, value over, uint32_t depth0) {
    size_t mark = jinja_mark(r);
    run_loop(r, n, (loop_state){.over = over, .recursive = n, .outside = outside, .depth0 = depth0});
    return jinja_cut(r, mark);
}

static flow execute(render *r, const node *n) {
    static flow (*const executors[])(render *, const node *) = {
        [N_TEXT] = exec_text,
        [N_OUTPUT] = exec_output,
        [N_BODY] = exec_body,
        [N_IF] = exec_if,
        [N_FOR] = exec_for,
        [N_SET] = exec_set,
        [N_MACRO] = exec_macro,
        [N_SET_BLOCK] = exec_set_block,
        [N_CALL_BLOCK] = exec_call_block,
        [N_WITH] = exec_with,
        [N_FILTER_BLOCK] = exec_filter_block,
        [N_BLOCK] = exec_block,
        [N_BREAK] = exec_break,
        [N_CONTINUE] = exec_break,
    };
    jinja_work(r, 1);
    jinja_enter(r);
    r->trap.line = n->line;
    flow f = executors[n->kind](r, n);
    jinja_leave(r);
    return f;
}

void jinja_run(render *r) {
    r->root = jinja_scope_open(r, NULL);
    exec_frame(r, r->body, r->root);
}
