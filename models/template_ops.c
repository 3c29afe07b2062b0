/* models/template_ops.c: Python's operators, attributes and items on values. */
#include <math.h>
#include <string.h>

#include "models/template_render.h"

static const char *const spellings[] = {[OP_ADD] = "+",       [OP_SUB] = "-", [OP_MUL] = "*",          [OP_DIV] = "/",
                                        [OP_FLOORDIV] = "//", [OP_MOD] = "%", [OP_POW] = "** or pow()"};

static __attribute__((noreturn)) void fail_operands(render *r, binary_op op, value a, value b) {
    FAIL(r, "unsupported operand type(s) for %s: '%s' and '%s'", spellings[op], jinja_type_name(a), jinja_type_name(b));
}
static __attribute__((noreturn)) void fail_overflow(render *r) { FAIL(r, "an integer grows beyond 64 bits"); }
static __attribute__((noreturn)) void fail_zero(render *r) { FAIL(r, "division by zero"); }

/* ---- numbers ---- */

static int64_t floor_quotient(render *r, int64_t a, int64_t b) {
    if (b == 0) fail_zero(r);
    if (b == -1) {
        if (a == INT64_MIN) fail_overflow(r);
        return -a;
    }
    int64_t q = a / b;
    return a % b != 0 && (a < 0) != (b < 0) ? q - 1 : q;
}

static double floor_remainder(double a, double b) { /* has the sign of b */
    double m = fmod(a, b);
    if (m != 0 ? (m < 0) != (b < 0) : false) return m + b;
    return m == 0 ? copysign(0.0, b) : m;
}

static double floor_quotient_real(double a, double b) { /* as CPython does it: exact where fmod is */
    double m = fmod(a, b), q = (a - m) / b;
    if (m != 0 && (m < 0) != (b < 0)) q -= 1.0;
    if (q == 0) return copysign(0.0, a / b);
    double whole = floor(q);
    return q - whole > 0.5 ? whole + 1.0 : whole;
}

static value power_integers(render *r, int64_t base, int64_t exponent) {
    if (exponent < 0) {
        if (base == 0) FAIL(r, "0.0 cannot be raised to a negative power");
        return real_value(pow((double)base, (double)exponent));
    }
    int64_t result = 1;
    if (base == 0 || base == 1) return int_value(exponent == 0 ? 1 : base);
    if (base == -1) return int_value(exponent & 1 ? -1 : 1);
    for (; exponent; exponent--)
        if (__builtin_mul_overflow(result, base, &result)) fail_overflow(r); /* after 63 rounds at most */
    return int_value(result);
}

static value binary_integers(render *r, binary_op op, int64_t a, int64_t b) {
    int64_t v;
    switch (op) {
    case OP_ADD:
        if (__builtin_add_overflow(a, b, &v)) fail_overflow(r);
        return int_value(v);
    case OP_SUB:
        if (__builtin_sub_overflow(a, b, &v)) fail_overflow(r);
        return int_value(v);
    case OP_MUL:
        if (__builtin_mul_overflow(a, b, &v)) fail_overflow(r);
        return int_value(v);
    case OP_DIV:
        if (b == 0) fail_zero(r);
        return real_value((double)((long double)a / (long double)b));
    case OP_FLOORDIV: return int_value(floor_quotient(r, a, b));
    case OP_MOD: {
        if (b == -1) return int_value(0);
        int64_t q = floor_quotient(r, a, b);
        return int_value((int64_t)((uint64_t)a - (uint64_t)q * (uint64_t)b));
    }
    default: return power_integers(r, a, b);
    }
}

static value power_reals(render *r, double a, double b) {
    if (a == 0 && b < 0) FAIL(r, "0.0 cannot be raised to a negative power");
    double v = pow(a, b);
    if (isnan(v) && !isnan(a) && !isnan(b)) FAIL(r, "a negative number to a fractional power is complex");
    if (isinf(v) && !isinf(a) && !isinf(b)) FAIL(r, "(34, 'Numerical result out of range')");
    return real_value(v);
}

static value binary_reals(render *r, binary_op op, double a, double b) {
    if (b == 0 && (op == OP_DIV || op == OP_FLOORDIV || op == OP_MOD)) fail_zero(r);
    switch (op) {
    case OP_ADD: return real_value(a + b);
    case OP_SUB: return real_value(a - b);
    case OP_MUL: return real_value(a * b);
    case OP_DIV: return real_value(a / b);
    case OP_FLOORDIV: return real_value(floor_quotient_real(a, b));
    case OP_MOD: return real_value(floor_remainder(a, b));
    default: return power_reals(r, a, b);
    }
}

/* ---- texts and lists ---- */

static value add_texts(render *r, value a, value b) {
    bool        markup = a.markup || b.markup;
    const text *left = markup ? jinja_escaped(r, a) : a.text, *right = markup ? jinja_escaped(r, b) : b.text;
    if (!markup && right->size == 0) return a;
    if (!markup && left->size == 0) return b;
    size_t mark = jinja_mark(r);
    jinja_put(r, left->data, left->size);
    jinja_put(r, right->data, right->size);
    return (value){.kind = V_TEXT, .markup = markup, .text = jinja_cut_text(r, mark)};
}

static value add_arrays(render *r, value a, value b) {
    array *sum = jinja_array_new(r, a.array->count + b.array->count);
    if (a.array->count) memcpy(sum->items, a.array->items, a.array->count * sizeof(value));
    if (b.array->count) memcpy(sum->items + a.array->count, b.array->items, b.array->count * sizeof(value));
    return (value){.kind = a.kind, .array = sum};
}

static value repeat(render *r, value v, int64_t times) {
    if (times < 0) times = 0;
    if (is_array(v)) {
        uint64_t count;
        if (__builtin_mul_overflow((uint64_t)v.array->count, (uint64_t)times, &count) ||
            count > r->arena.left / sizeof(value))
            jinja_fail(&r->trap, ERR_TOO_LARGE, "a list repeated %lld times is larger than the limit", (long long)times);
        array *all = jinja_array_new(r, (uint32_t)count);
        for (uint64_t i = 0; i < count; i++) all->items[i] = v.array->items[i % v.array->count];
        return (value){.kind = v.kind, .array = all};
    }
    uint64_t size;
    if (__builtin_mul_overflow((uint64_t)v.text->size, (uint64_t)times, &size) || size > r->arena.left)
        jinja_fail(&r->trap, ERR_TOO_LARGE, "a string repeated %lld times is larger than the limit", (long long)times);
    size_t mark = jinja_mark(r);
    for (int64_t i = 0; v.text->size && i < times; i++) jinja_put(r, v.text->data, v.text->size);
    return like_value(jinja_cut_text(r, mark), v);
}

static value add_others(render *r, value a, value b) {
    if (a.kind == V_TEXT && b.kind == V_TEXT) return add_texts(r, a, b);
    if (is_array(a) && a.kind == b.kind) return add_arrays(r, a, b);
    if (a.kind == V_TEXT || is_array(a)) {
        const char *type = a.kind == V_TEXT ? "str" : jinja_type_name(a);
        FAIL(r, "can only concatenate %s (not \"%s\") to %s", type, jinja_type_name(b), type);
    }
    fail_operands(r, OP_ADD, a, b);
}

value jinja_binary(render *r, binary_op op, value a, value b) {
    if (is_integral(a) && is_integral(b)) return binary_integers(r, op, integral(a), integral(b));
    if (is_number(a) && is_number(b)) return binary_reals(r, op, real_of(a), real_of(b));
    if (op == OP_MOD && a.kind == V_TEXT) return jinja_format_percent(r, a, b);
    if (a.kind == V_UNDEFINED) jinja_fail_undefined(r, a);
    if (b.kind == V_UNDEFINED) jinja_fail_undefined(r, b);
    if (op == OP_ADD) return add_others(r, a, b);
    if (op == OP_MUL) {
        bool a_repeats = a.kind == V_TEXT || is_array(a), b_repeats = b.kind == V_TEXT || is_array(b);
        if (a_repeats && is_integral(b)) return repeat(r, a, integral(b));
        if (b_repeats && is_integral(a)) return repeat(r, b, integral(a));
        if (a_repeats || b_repeats)
            FAIL(r, "can't multiply sequence by non-int of type '%s'", jinja_type_name(a_repeats ? b : a));
    }
    fail_operands(r, op, a, b);
}

static value unary(render *r, value v, bool negate) {
    if (v.kind == V_UNDEFINED) jinja_fail_undefined(r, v);
    if (v.kind == V_FLOAT) return real_value(negate ? -v.real : v.real);
    if (!is_integral(v)) FAIL(r, "bad operand type for unary %c: '%s'", negate ? '-' : '+', jinja_type_name(v));
    if (negate && integral(v) == INT64_MIN) fail_overflow(r);
    return int_value(negate ? -integral(v) : integral(v));
}
value jinja_negate(render *r, value v) { return unary(r, v, true); }
value jinja_plus(render *r, value v) { return unary(r, v, false); }

bool jinja_compare(render *r, compare_op op, value a, value b) {
    static const char *const signs[] = {[CMP_LT] = "<", [CMP_LE] = "<=", [CMP_GT] = ">", [CMP_GE] = ">="};
    switch (op) {
    case CMP_EQ: return jinja_equal(r, a, b);
    case CMP_NE: return !jinja_equal(r, a, b);
    case CMP_IN: return jinja_contains(r, b, a);
    case CMP_NOT_IN: return !jinja_contains(r, b, a);
    default: break;
    }
    int order = jinja_order(r, a, b, signs[op]);
    if (order == 2) return false;
    return op == CMP_LT ? order < 0 : op == CMP_LE ? order <= 0 : op == CMP_GT ? order > 0 : order >= 0;
}

/* ---- attributes and items ---- */

/* Names that exist on every Python object and that the sandbox keeps from templates. */
static bool is_dunder(const text *name) {
    return name->size > 4 && memcmp(name->data, "__", 2) == 0 && memcmp(name->data + name->size - 2, "__", 2) == 0;
}

static value unsafe_attribute(render *r, value owner, const text *name) {
    size_t mark = jinja_mark(r);
    jinja_put_format(r, "access to attribute '%s' of '%s' object is unsafe.", jinja_cstr(r, name), jinja_type_name(owner));
    const text *hint = jinja_cut_text(r, mark);
    return jinja_undefined_hint(r, jinja_cstr(r, hint));
}

/* Methods that change a list or dict exist, but the sandbox does not let a template call them. */
static bool changes_its_owner(value owner, const text *name) {
    static const char *const of_list[] = {"append", "clear", "pop", "reverse", "insert", "sort", "extend", "remove", NULL},
                             *const of_dict[] = {"clear", "pop", "popitem", "setdefault", "update", NULL};
    if (owner.kind != V_LIST && owner.kind != V_DICT) return false;
    for (const char *const *word = owner.kind == V_LIST ? of_list : of_dict; *word; word++)
        if (text_is(name, *word, strlen(*word))) return true;
    return false;
}

static value group_attribute(value owner, const text *name) {
    if (owner.kind != V_TUPLE || !owner.array->group) return (value){0};
    if (TEXT_IS(name, "grouper")) return owner.array->items[0];
    return TEXT_IS(name, "list") ? owner.array->items[1] : (value){0};
}

static value macro_attribute(render *r, const macro *m, const text *name) {
    const node *n = m->definition;
    if (TEXT_IS(name, "name")) return n->name ? text_value(n->name) : none_value();
    if (TEXT_IS(name, "caller")) return bool_value(n->flags & MACRO_CALLER);
    if (TEXT_IS(name, "catch_kwargs")) return bool_value(n->flags & MACRO_KWARGS);
    if (TEXT_IS(name, "catch_varargs")) return bool_value(n->flags & MACRO_VARARGS);
    if (!TEXT_IS(name, "arguments")) return (value){0};
    array *names = jinja_array_new(r, n->name_count);
    for (uint32_t i = 0; i < n->name_count; i++) names->items[i] = text_value(n->kids[i]->name);
    return (value){.kind = V_TUPLE, .array = names};
}

static value number_attribute(value owner, const text *name) {
    if (TEXT_IS(name, "real")) return owner.kind == V_BOOL ? int_value(owner.truth) : owner;
    if (TEXT_IS(name, "imag")) return owner.kind == V_FLOAT ? real_value(0) : int_value(0);
    if (owner.kind == V_FLOAT) return (value){0};
    if (TEXT_IS(name, "numerator")) return int_value(integral(owner));
    return TEXT_IS(name, "denominator") ? int_value(1) : (value){0};
}

/* What Python's getattr finds, or V_MISSING. */
static value own_attribute(render *r, value owner, const text *name) {
    value v = {0};
    if (owner.kind == V_UNDEFINED) jinja_fail_undefined(r, owner);
    if (owner.kind == V_NAMESPACE) {
        const value *held = jinja_dict_get_text(r, owner.dict, name);
        return held ? *held : v;
    }
    if (is_dunder(name) || changes_its_owner(owner, name)) return unsafe_attribute(r, owner, name);
    if (owner.kind == V_LOOP) v = jinja_loop_attribute(r, owner.loop, name);
    if (owner.kind == V_MACRO) v = macro_attribute(r, owner.macro, name);
    if (owner.kind == V_TUPLE) v = group_attribute(owner, name);
    if (is_number(owner)) v = number_attribute(owner, name);
    if (owner.kind == V_CYCLER && TEXT_IS(name, "current")) return owner.cycler->items->items[owner.cycler->at];
    if (!is_missing(v)) return v;
    const builtin *row = jinja_find_method(owner.kind, name);
    if (!row) return v;
    method *m = jinja_arena_take(&r->arena, 1, sizeof *m);
    *m = (method){owner, row};
    return (value){.kind = V_METHOD, .method = m};
}

static value index_array(render *r, value owner, int64_t i) {
    int64_t length = 0;
    jinja_has_length(owner, &length);
    if (i < 0) i += length;
    if (i < 0 || i >= length) return (value){0};
    if (owner.kind == V_RANGE) return jinja_range_at(owner.range, i);
    if (owner.kind != V_TEXT) return owner.array->items[i];
    uint32_t    from = jinja_text_offset(r, owner.text, (uint32_t)i);
    const text *t = owner.text;
    text        rest = {t->data + from, t->size - from, t->chars - (uint32_t)i};
    return jinja_text_part(r, owner, from, from + jinja_text_offset(r, &rest, 1));
}

/* What Python's owner[key] finds, or V_MISSING. */
static value own_item(render *r, value owner, value key) {
    switch (owner.kind) {
    case V_UNDEFINED: jinja_fail_undefined(r, owner);
    case V_DICT: {
        const value *held = jinja_hashable(key) ? jinja_dict_get(r, owner.dict, key) : NULL;
        return held ? *held : (value){0};
    }
    case V_TEXT:
    case V_LIST:
    case V_TUPLE:
    case V_RANGE: return is_integral(key) ? index_array(r, owner, integral(key)) : (value){0};
    default: return (value){0};
    }
}

/* owner.name: the attribute first, then the item. */
value jinja_attribute(render *r, value owner, const text *name) {
    value v = own_attribute(r, owner, name);
    if (is_missing(v) || (v.kind == V_UNDEFINED && is_dunder(name))) {
        value item = own_item(r, owner, text_value(name));
        if (!is_missing(item)) return item;
    }
    return is_missing(v) ? jinja_undefined_member(r, owner, text_value(name)) : v;
}

/* owner[key]: the item first, then the attribute. */
value jinja_item(render *r, value owner, value key) {
    value v = own_item(r, owner, key);
    if (is_missing(v) && key.kind == V_TEXT) v = own_attribute(r, owner, key.text);
    return is_missing(v) ? jinja_undefined_member(r, owner, key) : v;
}

/* ---- slices ---- */

static bool read_bound(render *r, value v, int64_t *out) {
    if (v.kind == V_NONE || is_missing(v)) return false;
    if (!is_integral(v)) FAIL(r, "slice indices must be integers or None or have an __index__ method");
    *out = integral(v);
    return true;
}

static int64_t clamp_bound(int64_t at, int64_t length, int64_t low, int64_t high) {
    if (at < 0) at = at < -length ? -1 : at + length;
    return at < low ? low : at > high ? high : at;
}

int64_t jinja_slice_bounds(render *r, int64_t length, value bounds[3], int64_t *first) {
    int64_t step = 1, start, stop;
    if (read_bound(r, bounds[2], &step) && step == 0) FAIL(r, "slice step cannot be zero");
    if (step < -INT64_MAX / 2) step = -INT64_MAX / 2;
    if (step > INT64_MAX / 2) step = INT64_MAX / 2;
    int64_t low = step > 0 ? 0 : -1, high = step > 0 ? length : length - 1;
    start = read_bound(r, bounds[0], &start) ? clamp_bound(start, length, low, high) : step > 0 ? low : high;
    stop = read_bound(r, bounds[1], &stop) ? clamp_bound(stop, length, low, high) : step > 0 ? high : low;
    bounds[1] = int_value(stop), bounds[2] = int_value(step);
    *first = start;
    int64_t span = step > 0 ? stop - start : start - stop, stride = step > 0 ? step : -step;
    return span <= 0 ? 0 : (span - 1) / stride + 1;
}

static value slice_array(render *r, value of, value *bounds) {
    int64_t first, count = jinja_slice_bounds(r, of.array->count, bounds, &first);
    if (bounds[2].integer == 1 && count) {
        value v = jinja_list(r, of.array->items + first, (size_t)count); /* values never change: the items are shared */
        v.kind = of.kind;
        return v;
    }
    array *part = jinja_array_new(r, (uint32_t)count);
    for (int64_t i = 0; i < count; i++) part->items[i] = of.array->items[first + i * bounds[2].integer];
    return (value){.kind = of.kind, .array = part};
}

static value slice_range(render *r, const range *of, value *bounds) {
    int64_t first, count = jinja_slice_bounds(r, of->count, bounds, &first), step;
    range  *part = jinja_arena_take(&r->arena, 1, sizeof *part);
    int64_t start, stop;
    if (__builtin_mul_overflow(of->step, bounds[2].integer, &step) || __builtin_mul_overflow(first, of->step, &start) ||
        __builtin_add_overflow(of->start, start, &start) || __builtin_mul_overflow(bounds[1].integer, of->step, &stop) ||
        __builtin_add_overflow(of->start, stop, &stop))
        fail_overflow(r);
    *part = (range){start, stop, step, count};
    return (value){.kind = V_RANGE, .range = part};
}

value jinja_slice(render *r, value of, value start, value stop, value step) {
    value bounds[3] = {start, stop, step};
    if (of.kind == V_UNDEFINED) jinja_fail_undefined(r, of);
    if (of.kind == V_TEXT) return jinja_text_slice(r, of, start, stop, step);
    if (is_array(of)) return slice_array(r, of, bounds);
    if (of.kind == V_RANGE) return slice_range(r, of.range, bounds);
    if (of.kind == V_DICT) FAIL(r, "unhashable type: 'slice'");
    FAIL(r, "'%s' object is not subscriptable", jinja_type_name(of));
}
