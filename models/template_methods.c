/* models/template_methods.c: the methods that Python's strings, lists, dicts and Jinja's loops have. What would change its
 * owner is refused in template_ops.c, as the immutable sandbox does. */
#include <math.h>
#include <string.h>
#include <utf8proc.h>

#include "base/utf8.h"
#include "models/template_render.h"

#define METHOD(name) static value name(render *r, value self, const value *arg, const call_args *args)
#define UNUSED_ARGS (void)r, (void)self, (void)arg, (void)args

/* ---- case, padding, stripping ---- */

METHOD(str_upper) { return (void)arg, (void)args, jinja_text_recase(r, self, CASE_UPPER); }
METHOD(str_lower) { return (void)arg, (void)args, jinja_text_recase(r, self, CASE_LOWER); }
METHOD(str_title) { return (void)arg, (void)args, jinja_text_recase(r, self, CASE_TITLE); }
METHOD(str_capitalize) { return (void)arg, (void)args, jinja_text_recase(r, self, CASE_CAPITALIZE); }
METHOD(str_casefold) { return (void)arg, (void)args, jinja_text_recase(r, self, CASE_FOLD); }
METHOD(str_swapcase) { return (void)arg, (void)args, jinja_text_recase(r, self, CASE_SWAP); }
METHOD(str_strip) { return (void)args, jinja_text_strip(r, self, arg[0], STRIP_LEFT | STRIP_RIGHT); }
METHOD(str_lstrip) { return (void)args, jinja_text_strip(r, self, arg[0], STRIP_LEFT); }
METHOD(str_rstrip) { return (void)args, jinja_text_strip(r, self, arg[0], STRIP_RIGHT); }

static value padded(render *r, value self, const value *arg, int where) {
    const text *fill = is_missing(arg[1]) ? NULL : jinja_arg_text(r, arg[1], "fill character");
    return jinja_text_pad(r, self, jinja_arg_int(r, arg[0], 0), fill, where);
}
METHOD(str_ljust) { return (void)args, padded(r, self, arg, -1); }
METHOD(str_rjust) { return (void)args, padded(r, self, arg, 1); }
METHOD(str_center) { return (void)args, padded(r, self, arg, 0); }

METHOD(str_zfill) {
    (void)args;
    const text *t = self.text, *zero = jinja_text_within(&r->arena, "0", 1);
    bool        sign = t->size && (t->data[0] == '-' || t->data[0] == '+');
    int64_t     width = jinja_arg_int(r, arg[0], 0);
    if (!sign || width <= t->chars) return jinja_text_pad(r, self, width, zero, 1);
    value digits = jinja_text_pad(r, jinja_text_part(r, self, 1, t->size), width - 1, zero, 1);
    return jinja_binary(r, OP_ADD, jinja_text_part(r, self, 0, 1), digits);
}

METHOD(str_expandtabs) {
    (void)args;
    const text *t = self.text;
    int64_t     stop = jinja_arg_int(r, arg[0], 8), column = 0;
    size_t      mark = jinja_mark(r);
    for (uint32_t i = 0, cp, length; i < t->size; i += length) {
        length = (uint32_t)utf8_decode(t->data + i, t->size - i, &cp);
        if (cp != '\t') {
            jinja_put(r, t->data + i, length);
            column = cp == '\n' || cp == '\r' ? 0 : column + 1;
            continue;
        }
        int64_t fill = stop > 0 ? stop - column % stop : 0;
        jinja_work(r, (uint64_t)fill);
        for (column += fill; fill > 0; fill--) jinja_put(r, " ", 1);
    }
    return like_value(jinja_cut_text(r, mark), self);
}

/* ---- splitting, joining, replacing ---- */

static const text *separator_of(render *r, value v) {
    return is_missing(v) || v.kind == V_NONE ? NULL : jinja_arg_text(r, v, "separator");
}
METHOD(str_split) { return (void)args, jinja_text_split(r, self, separator_of(r, arg[0]), jinja_arg_int(r, arg[1], -1)); }
METHOD(str_rsplit) { return (void)args, jinja_text_rsplit(r, self, separator_of(r, arg[0]), jinja_arg_int(r, arg[1], -1)); }
METHOD(str_splitlines) { return (void)args, jinja_text_lines(r, self, jinja_arg_truth(arg[0], false)); }

static value partition(render *r, value self, value separator, bool last) {
    const text *t = self.text, *s = jinja_arg_text(r, separator, "separator");
    if (s->size == 0) FAIL(r, "empty separator");
    int64_t at = last ? jinja_text_rfind(r, t, s, 0, t->size) : jinja_text_find(r, t, s, 0, t->size);
    array  *parts = jinja_array_new(r, 3);
    value   none = jinja_text_part(r, self, 0, 0);
    parts->items[0] = parts->items[1] = parts->items[2] = none;
    if (at < 0) {
        parts->items[last ? 2 : 0] = self;
    } else {
        uint32_t from = (uint32_t)at, to = from + s->size;
        parts->items[0] = jinja_text_part(r, self, 0, from);
        parts->items[1] = jinja_text_part(r, self, from, to);
        parts->items[2] = jinja_text_part(r, self, to, t->size);
    }
    return (value){.kind = V_TUPLE, .array = parts};
}
METHOD(str_partition) { return (void)args, partition(r, self, arg[0], false); }
METHOD(str_rpartition) { return (void)args, partition(r, self, arg[0], true); }

METHOD(str_join) {
    (void)args;
    iterator *it = jinja_iterate(r, arg[0]);
    size_t    mark = jinja_mark(r);
    int64_t   i = 0;
    for (value each; jinja_next(r, it, &each); i++) {
        if (!self.markup && each.kind != V_TEXT)
            FAIL(r, "sequence item %lld: expected str instance, %s found", (long long)i, jinja_type_name(each));
        if (i) jinja_show(r, self);
        jinja_show(r, self.markup ? text_value(jinja_escaped(r, each)) : each);
    }
    return like_value(jinja_cut_text(r, mark), self);
}

METHOD(str_replace) {
    (void)args;
    const text *new = self.markup ? jinja_escaped(r, arg[1]) : jinja_arg_text(r, arg[1], "replace() argument 2");
    text_change change = {jinja_arg_text(r, arg[0], "replace() argument 1"), new, jinja_arg_int(r, arg[2], -1)};
    return jinja_text_replace(r, self, &change);
}

static bool has_affix(const text *t, const text *affix, bool at_end) {
    return affix->size <= t->size && memcmp(t->data + (at_end ? t->size - affix->size : 0), affix->data, affix->size) == 0;
}

METHOD(str_removeprefix) {
    (void)args;
    const text *prefix = jinja_arg_text(r, arg[0], "prefix");
    return has_affix(self.text, prefix, false) ? jinja_text_part(r, self, prefix->size, self.text->size) : self;
}
METHOD(str_removesuffix) {
    (void)args;
    const text *suffix = jinja_arg_text(r, arg[0], "suffix");
    return has_affix(self.text, suffix, true) ? jinja_text_part(r, self, 0, self.text->size - suffix->size) : self;
}

METHOD(str_format) { return (void)arg, jinja_format_braces(r, self, args, NULL); }
METHOD(str_format_map) {
    if (arg[0].kind != V_DICT) FAIL(r, "format_map() needs a mapping");
    return jinja_format_braces(r, self, args, arg[0].dict);
}

/* ---- searching: part, start, end in characters ---- */

typedef struct {
    size_t from, to; /* bytes; from > to: nothing can be found there */
} span;

static span search_span(render *r, const text *t, const value *arg) {
    value   bounds[3] = {arg[1], arg[2], none_value()};
    int64_t first, length = t->chars, start = arg[1].kind == V_NONE ? 0 : jinja_arg_int(r, arg[1], 0);
    int64_t count = jinja_slice_bounds(r, length, bounds, &first);
    if (start > length) return (span){1, 0};
    size_t from = jinja_text_offset(r, t, (uint32_t)first);
    if (count == 0) {
        int64_t stop = is_missing(arg[2]) || arg[2].kind == V_NONE ? length : integral(arg[2]);
        if (stop < 0) stop += length;
        return stop < first ? (span){1, 0} : (span){from, from};
    }
    return (span){from, jinja_text_offset(r, t, (uint32_t)(first + count))};
}

static int64_t found_at(render *r, value self, const value *arg, bool last) { /* in characters, or -1 */
    const text *t = self.text, *part = jinja_arg_text(r, arg[0], "what is searched for");
    span        s = search_span(r, t, arg);
    int64_t     at = last ? jinja_text_rfind(r, t, part, s.from, s.to) : jinja_text_find(r, t, part, s.from, s.to);
    return at < 0 ? -1 : (int64_t)jinja_text_chars_before(r, t, (uint32_t)at);
}

static value index_of(render *r, value self, const value *arg, bool last) {
    int64_t at = found_at(r, self, arg, last);
    if (at < 0) FAIL(r, "substring not found");
    return int_value(at);
}
METHOD(str_find) { return (void)args, int_value(found_at(r, self, arg, false)); }
METHOD(str_rfind) { return (void)args, int_value(found_at(r, self, arg, true)); }
METHOD(str_index) { return (void)args, index_of(r, self, arg, false); }
METHOD(str_rindex) { return (void)args, index_of(r, self, arg, true); }

METHOD(str_count) {
    (void)args;
    const text *t = self.text, *part = jinja_arg_text(r, arg[0], "what is counted");
    span        s = search_span(r, t, arg);
    int64_t     count = 0, at;
    if (s.from > s.to) return int_value(0);
    if (part->size == 0)
        return int_value((int64_t)jinja_text_chars_before(r, t, (uint32_t)s.to) -
                         jinja_text_chars_before(r, t, (uint32_t)s.from) + 1);
    for (; (at = jinja_text_find(r, t, part, s.from, s.to)) >= 0; count++) s.from = (size_t)at + part->size;
    return int_value(count);
}

static bool affix_matches(render *r, const text *t, span s, value affix, bool at_end) {
    const text *a = jinja_arg_text(r, affix, at_end ? "endswith first arg" : "startswith first arg");
    text        part = {t->data + s.from, (uint32_t)(s.to - s.from), 0};
    return s.from <= s.to && has_affix(&part, a, at_end);
}

static value with_affix(render *r, value self, const value *arg, bool at_end) {
    span s = search_span(r, self.text, arg);
    if (arg[0].kind != V_TUPLE) return bool_value(affix_matches(r, self.text, s, arg[0], at_end));
    for (uint32_t i = 0; i < arg[0].array->count; i++)
        if (affix_matches(r, self.text, s, arg[0].array->items[i], at_end)) return bool_value(true);
    return bool_value(false);
}
METHOD(str_startswith) { return (void)args, with_affix(r, self, arg, false); }
METHOD(str_endswith) { return (void)args, with_affix(r, self, arg, true); }

/* ---- classes of characters ---- */

static bool is_alpha(uint32_t c) {
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    return k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO;
}
static bool is_decimal(uint32_t c) { return utf8proc_category((utf8proc_int32_t)c) == UTF8PROC_CATEGORY_ND; }
static bool is_digit(uint32_t c) { /* decimals, and superscript, subscript and circled digits */
    return is_decimal(c) || c == 0xB2 || c == 0xB3 || c == 0xB9 || c == 0x2070 || (c >= 0x2074 && c <= 0x2079) ||
           (c >= 0x2080 && c <= 0x2089) || (c >= 0x2460 && c <= 0x2468) || (c >= 0x2474 && c <= 0x247C) ||
           (c >= 0x2488 && c <= 0x2490) || c == 0x24EA || (c >= 0x24F5 && c <= 0x24FD) || c == 0x24FF ||
           (c >= 0x2776 && c <= 0x277E) || (c >= 0x2780 && c <= 0x2788) || (c >= 0x278A && c <= 0x2792);
}
static bool is_numeric(uint32_t c) {
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    return k == UTF8PROC_CATEGORY_ND || k == UTF8PROC_CATEGORY_NL || k == UTF8PROC_CATEGORY_NO;
}
static bool is_alnum(uint32_t c) { return is_alpha(c) || is_numeric(c); }
static bool is_ascii(uint32_t c) { return c < 0x80; }

static value all_chars(render *r, value self, bool (*is)(uint32_t), bool if_empty) {
    const text *t = self.text;
    jinja_work_bytes(r, t->size);
    for (uint32_t i = 0, cp; i < t->size;) {
        i += (uint32_t)utf8_decode(t->data + i, t->size - i, &cp);
        if (!is(cp)) return bool_value(false);
    }
    return bool_value(t->size > 0 || if_empty);
}
METHOD(str_isalpha) { return (void)arg, (void)args, all_chars(r, self, is_alpha, false); }
METHOD(str_isalnum) { return (void)arg, (void)args, all_chars(r, self, is_alnum, false); }
METHOD(str_isdigit) { return (void)arg, (void)args, all_chars(r, self, is_digit, false); }
METHOD(str_isdecimal) { return (void)arg, (void)args, all_chars(r, self, is_decimal, false); }
METHOD(str_isnumeric) { return (void)arg, (void)args, all_chars(r, self, is_numeric, false); }
METHOD(str_isspace) { return (void)arg, (void)args, all_chars(r, self, jinja_text_is_space, false); }
METHOD(str_isascii) { return (void)arg, (void)args, all_chars(r, self, is_ascii, true); }
METHOD(str_isprintable) { return (void)arg, (void)args, all_chars(r, self, jinja_text_is_printable, true); }

static value ask_test(render *r, const char *test, value self) {
    return jinja_call_row(r, jinja_find_test(test, strlen(test)), self, &(call_args){0});
}
METHOD(str_isupper) { return (void)arg, (void)args, ask_test(r, "upper", self); }
METHOD(str_islower) { return (void)arg, (void)args, ask_test(r, "lower", self); }

METHOD(str_istitle) {
    UNUSED_ARGS;
    value titled = jinja_text_recase(r, self, CASE_TITLE);
    bool  cased = jinja_truth(ask_test(r, "upper", jinja_text_recase(r, self, CASE_UPPER)));
    return bool_value(cased && jinja_same(titled, (value){.kind = V_TEXT, .text = self.text}));
}

METHOD(str_isidentifier) {
    UNUSED_ARGS;
    uint32_t cp;
    if (self.text->size == 0 || utf8_decode(self.text->data, self.text->size, &cp) <= 0 || is_numeric(cp))
        return bool_value(false);
    return all_chars(r, self, jinja_text_is_word, false);
}

static const builtin text_methods[] = {
    {"capitalize", "/", 0, str_capitalize},
    {"casefold", "/", 0, str_casefold},
    {"center", "/width fillchar", 1, str_center},
    {"count", "/sub start end", 1, str_count},
    {"endswith", "/suffix start end", 1, str_endswith},
    {"expandtabs", "tabsize", 0, str_expandtabs},
    {"find", "/sub start end", 1, str_find},
    {"format", NULL, 0, str_format},
    {"format_map", "/mapping", 1, str_format_map},
    {"index", "/sub start end", 1, str_index},
    {"isalnum", "/", 0, str_isalnum},
    {"isalpha", "/", 0, str_isalpha},
    {"isascii", "/", 0, str_isascii},
    {"isdecimal", "/", 0, str_isdecimal},
    {"isdigit", "/", 0, str_isdigit},
    {"isidentifier", "/", 0, str_isidentifier},
    {"islower", "/", 0, str_islower},
    {"isnumeric", "/", 0, str_isnumeric},
    {"isprintable", "/", 0, str_isprintable},
    {"isspace", "/", 0, str_isspace},
    {"istitle", "/", 0, str_istitle},
    {"isupper", "/", 0, str_isupper},
    {"join", "/iterable", 1, str_join},
    {"ljust", "/width fillchar", 1, str_ljust},
    {"lower", "/", 0, str_lower},
    {"lstrip", "/chars", 0, str_lstrip},
    {"partition", "/sep", 1, str_partition},
    {"removeprefix", "/prefix", 1, str_removeprefix},
    {"removesuffix", "/suffix", 1, str_removesuffix},
    {"replace", "/old new count", 2, str_replace},
    {"rfind", "/sub start end", 1, str_rfind},
    {"rindex", "/sub start end", 1, str_rindex},
    {"rjust", "/width fillchar", 1, str_rjust},
    {"rpartition", "/sep", 1, str_rpartition},
    {"rsplit", "sep maxsplit", 0, str_rsplit},
    {"rstrip", "/chars", 0, str_rstrip},
    {"split", "sep maxsplit", 0, str_split},
    {"splitlines", "keepends", 0, str_splitlines},
    {"startswith", "/prefix start end", 1, str_startswith},
    {"strip", "/chars", 0, str_strip},
    {"swapcase", "/", 0, str_swapcase},
    {"title", "/", 0, str_title},
    {"upper", "/", 0, str_upper},
    {"zfill", "/width", 1, str_zfill},
};

/* ---- dicts, lists, tuples, ranges ---- */

static value view_of(render *r, value self, view_kind kind) {
    view *w = jinja_arena_take(&r->arena, 1, sizeof *w);
    *w = (view){self.dict, kind};
    return (value){.kind = V_VIEW, .view = w};
}
METHOD(dict_keys) { return (void)arg, (void)args, view_of(r, self, VIEW_KEYS); }
METHOD(dict_values) { return (void)arg, (void)args, view_of(r, self, VIEW_VALUES); }
METHOD(dict_items) { return (void)arg, (void)args, view_of(r, self, VIEW_ITEMS); }

METHOD(dict_get) {
    (void)args;
    const value *held = jinja_dict_get(r, self.dict, arg[0]);
    return held ? *held : is_missing(arg[1]) ? none_value() : arg[1];
}

METHOD(self_copy) { return UNUSED_ARGS, self; } /* values never change: a copy is the thing itself */

METHOD(sequence_index) {
    (void)args;
    int64_t length = jinja_length(r, self), first, i = 0;
    value   bounds[3] = {arg[1], arg[2], none_value()}, each;
    int64_t count = jinja_slice_bounds(r, length, bounds, &first);
    for (iterator *it = jinja_iterate(r, self); jinja_next(r, it, &each); i++)
        if (i >= first && i < first + count && jinja_equal(r, each, arg[0])) return int_value(i);
    FAIL(r, "the value is not in the %s", jinja_type_name(self));
}

METHOD(sequence_count) {
    (void)args;
    int64_t count = 0;
    value   each;
    for (iterator *it = jinja_iterate(r, self); jinja_next(r, it, &each);) count += jinja_equal(r, each, arg[0]);
    return int_value(count);
}

static const builtin dict_methods[] = {
    {"copy", "/", 0, self_copy}, {"get", "/key default", 1, dict_get}, {"items", "/", 0, dict_items},
    {"keys", "/", 0, dict_keys}, {"values", "/", 0, dict_values},
};
static const builtin list_methods[] = {
    {"copy", "/", 0, self_copy},
    {"count", "/value", 1, sequence_count},
    {"index", "/value start stop", 1, sequence_index},
};
static const builtin tuple_methods[] = {
    {"count", "/value", 1, sequence_count},
    {"index", "/value start stop", 1, sequence_index},
};

/* ---- numbers ---- */

METHOD(float_is_integer) { return UNUSED_ARGS, bool_value(isfinite(self.real) && floor(self.real) == self.real); }
METHOD(int_bit_length) {
    UNUSED_ARGS;
    uint64_t magnitude = integral(self) < 0 ? 0 - (uint64_t)integral(self) : (uint64_t)integral(self);
    return int_value(magnitude ? 64 - __builtin_clzll(magnitude) : 0);
}
static const builtin float_methods[] = {{"is_integer", "/", 0, float_is_integer}};
static const builtin int_methods[] = {{"bit_length", "/", 0, int_bit_length}};

/* ---- loops and cyclers ---- */

METHOD(loop_cycle) {
    (void)arg;
    if (args->count == 0 || args->named_count) FAIL(r, "no items for cycling given");
    return args->items[self.loop->index0 % args->count];
}

METHOD(loop_changed) {
    (void)arg;
    value now = {.kind = V_TUPLE, .array = jinja_array_new(r, args->count)};
    if (args->count) memcpy(now.array->items, args->items, args->count * sizeof(value));
    if (!is_missing(self.loop->changed) && jinja_equal(r, self.loop->changed, now)) return bool_value(false);
    self.loop->changed = now;
    return bool_value(true);
}

METHOD(cycler_next) {
    UNUSED_ARGS;
    cycler *c = self.cycler;
    value   v = c->items->items[c->at];
    c->at = (c->at + 1) % c->items->count;
    return v;
}
METHOD(cycler_reset) { return UNUSED_ARGS, self.cycler->at = 0, none_value(); }

static const builtin loop_methods[] = {{"cycle", NULL, 0, loop_cycle}, {"changed", NULL, 0, loop_changed}};
static const builtin cycler_methods[] = {{"next", "/", 0, cycler_next}, {"reset", "/", 0, cycler_reset}};

#define ROWS(table)                                                                                                         \
    { (table), sizeof(table) / sizeof *(table) }
const builtin *jinja_find_method(value_kind kind, const text *name) {
    static const struct {
        const builtin *rows;
        size_t         count;
    } tables[] = {
        [V_TEXT] = ROWS(text_methods),     [V_DICT] = ROWS(dict_methods),   [V_LIST] = ROWS(list_methods),
        [V_TUPLE] = ROWS(tuple_methods),   [V_RANGE] = ROWS(tuple_methods), [V_FLOAT] = ROWS(float_methods),
        [V_INT] = ROWS(int_methods),       [V_BOOL] = ROWS(int_methods),    [V_LOOP] = ROWS(loop_methods),
        [V_CYCLER] = ROWS(cycler_methods),
    };
    if (kind >= sizeof tables / sizeof *tables) return NULL;
    return jinja_find_row(tables[kind].rows, tables[kind].count, name->data, name->size);
}
