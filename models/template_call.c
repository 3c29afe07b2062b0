/* models/template_call.c: arguments bound to parameters, and everything that can be called: built-in rows, macros, loops,
 * joiners, and the functions every template has (range, namespace, raise_exception ...). */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "models/template_render.h"

/* ---- built-in rows ---- */

const builtin *jinja_find_row(const builtin *rows, size_t count, const char *name, size_t n) {
    for (size_t i = 0; i < count; i++)
        if (strlen(rows[i].name) == n && memcmp(rows[i].name, name, n) == 0) return &rows[i];
    return NULL;
}

/* Position of `name` among the words of params, or -1. */
static int parameter_index(const char *params, const text *name) {
    for (int i = 0; *params; i++) {
        size_t n = strcspn(params, " ");
        if (text_is(name, params, n)) return i;
        params += n + (params[n] == ' ');
    }
    return -1;
}

static uint32_t count_words(const char *s) {
    uint32_t n = *s != 0;
    for (; *s; s++) n += *s == ' ';
    return n;
}

static void bind(render *r, const builtin *row, const call_args *args, value *arg) {
    bool        positional_only = row->params[0] == '/';
    const char *params = row->params + (positional_only ? 1 : 0);
    uint32_t    count = count_words(params);
    if (args->count > count)
        FAIL(r, "%s takes at most %u argument%s (%u given)", row->name, count, count == 1 ? "" : "s", args->count);
    for (uint32_t i = 0; i < args->count; i++) arg[i] = args->items[i];
    for (uint32_t i = 0; i < args->named_count; i++) {
        const char *name = jinja_cstr(r, args->names[i]);
        int         at = positional_only ? -1 : parameter_index(params, args->names[i]);
        if (at < 0) FAIL(r, "%s got an unexpected keyword argument '%s'", row->name, name);
        if (!is_missing(arg[at])) FAIL(r, "%s got multiple values for argument '%s'", row->name, name);
        arg[at] = args->named[i];
    }
    for (uint32_t i = 0; i < row->required; i++)
        if (is_missing(arg[i])) FAIL(r, "%s is missing its argument number %u", row->name, i + 1);
}

value jinja_call_row(render *r, const builtin *row, value self, const call_args *args) {
    value arg[BUILTIN_PARAMS_MAX] = {0};
    jinja_enter(r);
    if (row->params) bind(r, row, args, arg);
    value v = row->call(r, self, arg, args);
    jinja_leave(r);
    return v;
}

int64_t jinja_arg_int(render *r, value v, int64_t otherwise) {
    if (is_missing(v)) return otherwise;
    if (v.kind == V_UNDEFINED) jinja_fail_undefined(r, v);
    if (!is_integral(v)) FAIL(r, "'%s' object cannot be interpreted as an integer", jinja_type_name(v));
    return integral(v);
}

bool jinja_arg_truth(value v, bool otherwise) { return is_missing(v) ? otherwise : jinja_truth(v); }

const text *jinja_arg_text(render *r, value v, const char *what) {
    if (v.kind == V_UNDEFINED) jinja_fail_undefined(r, v);
    if (v.kind != V_TEXT) FAIL(r, "%s must be str, not %s", what, jinja_type_name(v));
    return v.text;
}

value jinja_call_filter(render *r, const text *name, value self, const call_args *args) {
    const builtin *row = jinja_find_filter(name->data, name->size);
    if (!row) FAIL(r, "No filter named '%s'.", jinja_cstr(r, name));
    return jinja_call_row(r, row, self, args);
}

bool jinja_call_test(render *r, const text *name, value self, const call_args *args) {
    const builtin *row = jinja_find_test(name->data, name->size);
    if (!row) FAIL(r, "No test named '%s'.", jinja_cstr(r, name));
    return jinja_truth(jinja_call_row(r, row, self, args));
}

/* ---- macros ---- */

static const text caller_name = {"caller", 6, 6}, kwargs_name = {"kwargs", 6, 6}, varargs_name = {"varargs", 7, 7};

static bool same_text(const text *a, const text *b) { return text_is(a, b->data, b->size); }

static const value *named_arg(const call_args *args, const text *name) {
    for (uint32_t i = 0; i < args->named_count; i++)
        if (same_text(args->names[i], name)) return &args->named[i];
    return NULL;
}

static bool is_parameter(const node *definition, const call_args *args, const text *name) {
    for (uint32_t i = 0; i < definition->name_count; i++) /* one that was given by position does not take the name again */
        if (i >= args->count && same_text(definition->kids[i]->name, name)) return true;
    return (definition->flags & MACRO_CALLER) && same_text(name, &caller_name);
}

static value other_named(render *r, const node *definition, const call_args *args) {
    dict *others = jinja_dict_new(r);
    for (uint32_t i = 0; i < args->named_count; i++)
        if (!is_parameter(definition, args, args->names[i]))
            jinja_dict_set(r, others, text_value(args->names[i]), args->named[i]);
    return (value){.kind = V_DICT, .dict = others};
}

static void check_macro_args(render *r, const node *definition, const call_args *args) {
    const char *name = definition->name ? jinja_cstr(r, definition->name) : "None";
    if (!(definition->flags & MACRO_VARARGS) && args->count > definition->name_count)
        FAIL(r, "macro '%s' takes not more than %u argument(s)", name, definition->name_count);
    if (definition->flags & MACRO_KWARGS) return;
    for (uint32_t i = 0; i < args->named_count; i++)
        if (!is_parameter(definition, args, args->names[i]))
            FAIL(r, "macro '%s' takes no keyword argument '%s'", name, jinja_cstr(r, args->names[i]));
}

static void set_special(render *r, const node *definition, const call_args *args, scope *inner) {
    uint32_t count = definition->name_count;
    if (definition->flags & MACRO_CALLER) {
        const value *caller = named_arg(args, &caller_name);
        jinja_scope_set(r, inner, &caller_name, caller ? *caller : jinja_undefined_hint(r, "No caller defined"));
    }
    if (definition->flags & MACRO_KWARGS) jinja_scope_set(r, inner, &kwargs_name, other_named(r, definition, args));
    if (definition->flags & MACRO_VARARGS) {
        uint32_t extra = args->count > count ? args->count - count : 0;
        array   *rest = jinja_array_new(r, extra);
        if (extra) memcpy(rest->items, args->items + count, extra * sizeof(value));
        jinja_scope_set(r, inner, &varargs_name, (value){.kind = V_TUPLE, .array = rest});
    }
}

static value missing_parameter(render *r, const text *name) {
    char hint[300];
    snprintf(hint, sizeof hint, "parameter '%s' was not provided", jinja_cstr(r, name));
    return jinja_undefined_hint(r, jinja_text(&r->arena, hint, strlen(hint) + 1)->data);
}

static value call_macro(render *r, const macro *m, const call_args *args) {
    const node *definition = m->definition;
    uint32_t    count = definition->name_count, defaults = definition->count - 1 - count;
    scope      *inner = jinja_scope_open(r, m->outside), *outer = r->scope;
    check_macro_args(r, definition, args);
    set_special(r, definition, args, inner);
    r->scope = inner; /* defaults see the parameters before them */
    for (uint32_t i = 0; i < count; i++) {
        const text  *name = definition->kids[i]->name;
        const value *named = named_arg(args, name);
        if (i < args->count) jinja_scope_set(r, inner, name, args->items[i]);
        else if (named) jinja_scope_set(r, inner, name, *named);
        else if (i + defaults >= count) jinja_scope_set(r, inner, name, jinja_eval(r, definition->kids[i + defaults]));
        else jinja_scope_set(r, inner, name, missing_parameter(r, name));
    }
    value v = jinja_run_body(r, definition->kids[definition->count - 1], inner);
    r->scope = outer;
    return v;
}

/* ---- functions every template has ---- */

static value make_range(render *r, value self, const value *arg, const call_args *args) {
    enum { RANGE_MAX = 100000 }; /* the sandbox's bound */
    (void)self, (void)arg;
    int64_t bound[3] = {0, 0, 1};
    if (args->count < 1 || args->count > 3 || args->named_count) FAIL(r, "range takes 1 to 3 arguments");
    for (uint32_t i = 0; i < args->count; i++) bound[i] = jinja_arg_int(r, args->items[i], 0);
    if (args->count == 1) bound[1] = bound[0], bound[0] = 0;
    if (bound[2] == 0) FAIL(r, "range() arg 3 must not be zero");
    bool     up = bound[2] > 0;
    uint64_t span = up ? (uint64_t)bound[1] - (uint64_t)bound[0] : (uint64_t)bound[0] - (uint64_t)bound[1];
    uint64_t stride = up ? (uint64_t)bound[2] : 0 - (uint64_t)bound[2];
    uint64_t count = (up ? bound[1] > bound[0] : bound[0] > bound[1]) ? (span - 1) / stride + 1 : 0;
    if (count > RANGE_MAX) FAIL(r, "Range too big. The sandbox blocks ranges larger than %d.", RANGE_MAX);
    range *g = jinja_arena_take(&r->arena, 1, sizeof *g);
    *g = (range){bound[0], bound[1], bound[2], (int64_t)count};
    return (value){.kind = V_RANGE, .range = g};
}

static void add_pairs(render *r, dict *d, value from) {
    if (from.kind == V_DICT) {
        for (uint32_t i = 0; i < from.dict->count; i++)
            jinja_dict_set(r, d, from.dict->pairs[i].key, from.dict->pairs[i].item);
        return;
    }
    iterator *it = jinja_iterate(r, from);
    for (value each; jinja_next(r, it, &each);) {
        value both = jinja_to_list(r, each);
        if (both.array->count != 2)
            FAIL(r, "dictionary update sequence element has length %u; 2 is required", both.array->count);
        jinja_dict_set(r, d, both.array->items[0], both.array->items[1]);
    }
}

static value make_dict(render *r, value self, const value *arg, const call_args *args) {
    (void)self, (void)arg;
    dict *d = jinja_dict_new(r);
    if (args->count > 1) FAIL(r, "dict expected at most 1 argument, got %u", args->count);
    if (args->count) add_pairs(r, d, args->items[0]);
    for (uint32_t i = 0; i < args->named_count; i++) jinja_dict_set(r, d, text_value(args->names[i]), args->named[i]);
    return (value){.kind = V_DICT, .dict = d};
}

static value make_namespace(render *r, value self, const value *arg, const call_args *args) {
    value v = make_dict(r, self, arg, args);
    v.kind = V_NAMESPACE;
    return v;
}

static value make_cycler(render *r, value self, const value *arg, const call_args *args) {
    (void)self, (void)arg;
    if (args->count == 0) FAIL(r, "at least one item has to be provided");
    cycler *c = jinja_arena_take(&r->arena, 1, sizeof *c);
    array  *items = jinja_array_new(r, args->count);
    memcpy(items->items, args->items, args->count * sizeof(value));
    c->items = items;
    return (value){.kind = V_CYCLER, .cycler = c};
}

static value make_joiner(render *r, value self, const value *arg, const call_args *args) {
    (void)self, (void)args;
    cycler *c = jinja_arena_take(&r->arena, 1, sizeof *c);
    c->separator = is_missing(arg[0]) ? text_value(jinja_text_within(&r->arena, ", ", 2)) : arg[0];
    return (value){.kind = V_JOINER, .cycler = c};
}

static value raise_exception(render *r, value self, const value *arg, const call_args *args) {
    (void)self, (void)args;
    const text *message = jinja_str(r, arg[0]);
    r->trap.line = 0; /* the message is the template's own */
    FAIL(r, "%.*s", message->size < 500 ? (int)message->size : 500, message->data);
}

/* A naive datetime has no zone: %z and %Z are empty, and its microseconds are 0. */
static const char *without_zone(render *r, const text *format) {
    size_t mark = jinja_mark(r);
    for (uint32_t i = 0; i < format->size; i++) {
        bool is_directive = format->data[i] == '%' && i + 1 < format->size;
        if (is_directive && format->data[i + 1] == 'f') jinja_put_str(r, "000000");
        if (is_directive && strchr("zZf", format->data[i + 1])) i++;
        else
            jinja_put(r, format->data + i, 1 + (size_t)(is_directive && format->data[i + 1] == '%')),
                i += is_directive && format->data[i + 1] == '%';
    }
    jinja_put(r, "", 1);
    return jinja_cut_text(r, mark)->data;
}

static value strftime_now(render *r, value self, const value *arg, const call_args *args) {
    (void)self, (void)args;
    const text *format = jinja_arg_text(r, arg[0], "strftime_now's format");
    char        shown[4096];
    struct tm   now;
    time_t      seconds = (time_t)r->now_unix_s;
    if (format->size > 1000) FAIL(r, "strftime_now's format is longer than 1000 bytes");
    if (!gmtime_r(&seconds, &now)) FAIL(r, "the time %lld is out of range", (long long)r->now_unix_s);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    size_t n = strftime(shown, sizeof shown, without_zone(r, format), &now);
#pragma GCC diagnostic pop
    return text_value(jinja_text(&r->arena, shown, n));
}

static const builtin functions[] = {
    {"range", NULL, 0, make_range},
    {"dict", NULL, 0, make_dict},
    {"namespace", NULL, 0, make_namespace},
    {"cycler", NULL, 0, make_cycler},
    {"joiner", "sep", 0, make_joiner},
    {"raise_exception", "message", 1, raise_exception},
    {"strftime_now", "format", 1, strftime_now},
};

const builtin *jinja_find_function(const text *name) {
    return jinja_find_row(functions, sizeof functions / sizeof *functions, name->data, name->size);
}

/* ---- calling ---- */

static value call_joiner(render *r, cycler *c) {
    if (c->at++) return c->at = 1, c->separator;
    return text_value(jinja_text_within(&r->arena, "", 0));
}

static value call_loop(render *r, loop_state *l, const call_args *args) {
    if (!l->recursive) FAIL(r, "The loop must have the 'recursive' marker to be called recursively.");
    if (args->count != 1 || args->named_count) FAIL(r, "loop() takes one argument: what to walk along");
    return jinja_run_loop(r, l->recursive, l->outside, args->items[0], l->depth0 + 1);
}

value jinja_call(render *r, value callee, const call_args *args) {
    switch (callee.kind) {
    case V_UNDEFINED: jinja_fail_undefined(r, callee);
    case V_FUNCTION: return jinja_call_row(r, callee.function, none_value(), args);
    case V_METHOD: return jinja_call_row(r, callee.method->row, callee.method->self, args);
    case V_MACRO: return call_macro(r, callee.macro, args);
    case V_LOOP: return call_loop(r, callee.loop, args);
    case V_JOINER: return call_joiner(r, callee.cycler);
    default: FAIL(r, "'%s' object is not callable", jinja_type_name(callee));
    }
}
