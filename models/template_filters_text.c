/* models/template_filters_text.c: filters over texts and numbers, and tojson. Parameters as in jinja2/filters.py, but for
 * tojson, whose parameters are those that `transformers` gives it. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "models/template_render.h"

#define FILTER(name) static value name(render *r, value self, const value *arg, const call_args *args)
#define UNUSED_ARGS (void)r, (void)self, (void)arg, (void)args

/* A text stays what it is, markup or not; everything else is shown. */
static value soft_text(render *r, value v) { return v.kind == V_TEXT ? v : text_value(jinja_str(r, v)); }

static const text *optional_text(render *r, value v, const char *otherwise) {
    return is_missing(v) ? jinja_text_within(&r->arena, otherwise, strlen(otherwise)) : jinja_arg_text(r, v, "argument");
}

/* ---- case and whitespace ---- */

FILTER(filter_upper) { return (void)arg, (void)args, jinja_text_recase(r, soft_text(r, self), CASE_UPPER); }
FILTER(filter_lower) { return (void)arg, (void)args, jinja_text_recase(r, soft_text(r, self), CASE_LOWER); }
FILTER(filter_capitalize) { return (void)arg, (void)args, jinja_text_recase(r, soft_text(r, self), CASE_CAPITALIZE); }
FILTER(filter_string) { return (void)arg, (void)args, soft_text(r, self); }
FILTER(filter_trim) { return (void)args, jinja_text_strip(r, soft_text(r, self), arg[0], STRIP_LEFT | STRIP_RIGHT); }
FILTER(filter_center) { return (void)args, jinja_text_pad(r, soft_text(r, self), jinja_arg_int(r, arg[0], 80), NULL, 0); }

static bool opens_word(uint32_t c) {
    return c == '-' || c == '(' || c == '{' || c == '[' || c == '<' || jinja_text_is_space(c);
}

FILTER(filter_title) {
    UNUSED_ARGS;
    value       all = text_value(soft_text(r, self).text);
    const text *t = all.text;
    size_t      mark = jinja_mark(r);
    for (uint32_t at = 0, from, cp; at < t->size;) {
        uint32_t length = (uint32_t)utf8_decode(t->data + at, t->size - at, &cp);
        jinja_show(r, jinja_text_recase(r, jinja_text_part(r, all, at, at + length), CASE_UPPER));
        from = at += length;
        if (opens_word(cp)) continue;
        while (at < t->size && (length = (uint32_t)utf8_decode(t->data + at, t->size - at, &cp), !opens_word(cp)))
            at += length;
        jinja_show(r, jinja_text_recase(r, jinja_text_part(r, all, from, at), CASE_LOWER));
    }
    return jinja_cut(r, mark);
}

FILTER(filter_wordcount) {
    UNUSED_ARGS;
    const text *t = soft_text(r, self).text;
    int64_t     words = 0;
    bool        inside = false;
    jinja_work_bytes(r, t->size);
    for (uint32_t i = 0, cp; i < t->size; inside = jinja_text_is_word(cp)) {
        i += (uint32_t)utf8_decode(t->data + i, t->size - i, &cp);
        words += jinja_text_is_word(cp) && !inside;
    }
    return int_value(words);
}

FILTER(filter_replace) {
    (void)args;
    text_change change = {jinja_str(r, arg[0]), jinja_str(r, arg[1]),
                          arg[2].kind == V_NONE ? -1 : jinja_arg_int(r, arg[2], -1)};
    return jinja_text_replace(r, text_value(jinja_str(r, self)), &change);
}

static const text *spaces(render *r, int64_t count) {
    size_t mark = jinja_mark(r);
    for (int64_t i = 0; i < count; i++) jinja_put(r, " ", 1);
    return jinja_cut_text(r, mark);
}

FILTER(filter_indent) {
    (void)args;
    const text *t = jinja_arg_text(r, self, "what is indented");
    const text *by = arg[0].kind == V_TEXT ? arg[0].text : spaces(r, jinja_arg_int(r, arg[0], 4));
    bool        first = jinja_arg_truth(arg[1], false), blank = jinja_arg_truth(arg[2], false);
    if (self.markup && arg[0].kind == V_TEXT) by = jinja_escaped(r, arg[0]);
    size_t mark = jinja_mark(r);
    jinja_put(r, t->data, t->size);
    jinja_put_str(r, "\n"); /* so that a newline at the end opens one more line */
    const array *lines = jinja_text_lines(r, jinja_cut(r, mark), false).array;
    for (uint32_t i = 0; i < lines->count; i++) {
        if (i) jinja_put_str(r, "\n");
        if (i ? blank || lines->items[i].text->size : first) jinja_show(r, text_value(by));
        jinja_show(r, lines->items[i]);
    }
    return like_value(jinja_cut_text(r, mark), self);
}

FILTER(filter_truncate) {
    (void)args;
    const text *end = optional_text(r, arg[2], "...");
    int64_t     length = jinja_arg_int(r, arg[0], 255);
    int64_t     leeway = arg[3].kind == V_NONE ? 5 : jinja_arg_int(r, arg[3], 5);
    if (length < end->chars || leeway < 0) FAIL(r, "expected length >= %u and leeway >= 0", end->chars);
    if (length > INT32_MAX || leeway > INT32_MAX || jinja_length(r, self) <= length + leeway) return self;
    jinja_arg_text(r, self, "what is truncated");
    value head = jinja_text_slice(r, self, none_value(), int_value(length - end->chars), none_value());
    if (!jinja_arg_truth(arg[1], false)) {
        int64_t space = jinja_text_rfind(r, head.text, jinja_text_within(&r->arena, " ", 1), 0, head.text->size);
        if (space >= 0) head = jinja_text_part(r, head, 0, (uint32_t)space);
    }
    return jinja_binary(r, OP_ADD, head, is_missing(arg[2]) ? text_value(end) : arg[2]);
}

/* ---- HTML and URLs ---- */

static value markup_value(const text *t) { return (value){.kind = V_TEXT, .markup = true, .text = t}; }

FILTER(filter_safe) { return (void)arg, (void)args, markup_value(jinja_str(r, self)); }
FILTER(filter_escape) { return (void)arg, (void)args, markup_value(jinja_escaped(r, self)); }
FILTER(filter_forceescape) { return (void)arg, (void)args, markup_value(jinja_escaped(r, text_value(jinja_str(r, self)))); }

FILTER(filter_xmlattr) {
    (void)args;
    if (self.kind != V_DICT) FAIL(r, "'%s' object has no attribute 'items'", jinja_type_name(self));
    size_t mark = jinja_mark(r);
    for (uint32_t i = 0; i < self.dict->count; i++) {
        const pair *p = &self.dict->pairs[i];
        if (p->item.kind == V_NONE || p->item.kind == V_UNDEFINED) continue;
        const text *key = jinja_arg_text(r, p->key, "attribute name"), *item = jinja_escaped(r, p->item);
        for (uint32_t k = 0; k < key->size; k++)
            if (strchr(" \t\n\r\f\v/>=", key->data[k]))
                FAIL(r, "Invalid character in attribute name: '%s'", jinja_cstr(r, key));
        if (r->out.size > mark || jinja_arg_truth(arg[0], true)) jinja_put_str(r, " ");
        jinja_escape_html(r, key);
        jinja_put_str(r, "=\"");
        jinja_put(r, item->data, item->size);
        jinja_put_str(r, "\"");
    }
    return jinja_cut(r, mark);
}

static void put_quoted_url(render *r, value v, bool in_query) {
    const text *t = jinja_str(r, v);
    jinja_work(r, t->size);
    for (uint32_t i = 0; i < t->size; i++) {
        unsigned char c = (unsigned char)t->data[i];
        if ((c < 0x80 && jinja_text_is_word(c)) || (c && strchr(".-~", c)) || (c == '/' && !in_query))
            jinja_put(r, &t->data[i], 1);
        else if (c == ' ' && in_query) jinja_put_str(r, "+");
        else jinja_put_format(r, "%%%02X", c);
    }
}

FILTER(filter_urlencode) {
    UNUSED_ARGS;
    size_t mark = jinja_mark(r);
    if (self.kind == V_TEXT || !jinja_is_iterable(self)) {
        put_quoted_url(r, self, false);
        return jinja_cut(r, mark);
    }
    value from = self, each;
    view  items = {self.dict, VIEW_ITEMS};
    if (self.kind == V_DICT) from = (value){.kind = V_VIEW, .view = &items};
    iterator *it = jinja_iterate(r, from);
    while (jinja_next(r, it, &each)) {
        value both = jinja_to_list(r, each);
        if (both.array->count != 2) FAIL(r, "urlencode needs pairs of name and value");
        if (r->out.size > mark) jinja_put_str(r, "&");
        put_quoted_url(r, both.array->items[0], true);
        jinja_put_str(r, "=");
        put_quoted_url(r, both.array->items[1], true);
    }
    return jinja_cut(r, mark);
}

FILTER(filter_refused) {
    UNUSED_ARGS;
    FAIL(r, "this filter makes web pages or depends on chance; prompts have no use for it");
}

/* ---- format, tojson ---- */

FILTER(filter_format) {
    (void)arg;
    if (args->count && args->named_count) FAIL(r, "can't handle positional and keyword arguments at the same time");
    value with = {.kind = V_TUPLE, .array = jinja_array_new(r, args->count)};
    if (args->count) memcpy(with.array->items, args->items, args->count * sizeof(value));
    if (args->named_count) {
        with = (value){.kind = V_DICT, .dict = jinja_dict_new(r)};
        for (uint32_t i = 0; i < args->named_count; i++)
            jinja_dict_set(r, with.dict, text_value(args->names[i]), args->named[i]);
    }
    return jinja_format_percent(r, soft_text(r, self), with);
}

static void read_separators(render *r, value v, json_style *s) {
    value both = jinja_to_list(r, v);
    if (both.array->count != 2) FAIL(r, "separators are two strings: between items, and after keys");
    s->item_separator = jinja_arg_text(r, both.array->items[0], "separator");
    s->key_separator = jinja_arg_text(r, both.array->items[1], "separator");
}

FILTER(filter_tojson) {
    (void)args;
    json_style s = {.ascii = jinja_arg_truth(arg[0], false), .sort_keys = jinja_arg_truth(arg[3], false)};
    if (arg[1].kind == V_TEXT) s.indent = arg[1].text;
    else if (!is_missing(arg[1]) && arg[1].kind != V_NONE) s.indent = spaces(r, jinja_arg_int(r, arg[1], 0));
    s.item_separator = jinja_text_within(&r->arena, s.indent ? "," : ", ", s.indent ? 1 : 2);
    s.key_separator = jinja_text_within(&r->arena, ": ", 2);
    if (!is_missing(arg[2]) && arg[2].kind != V_NONE) read_separators(r, arg[2], &s);
    size_t mark = jinja_mark(r);
    jinja_show_json(r, self, &s);
    return jinja_cut(r, mark);
}

/* ---- numbers ---- */

FILTER(filter_abs) {
    UNUSED_ARGS;
    if (self.kind == V_FLOAT) return real_value(fabs(self.real));
    if (!is_integral(self)) FAIL(r, "bad operand type for abs(): '%s'", jinja_type_name(self));
    return integral(self) < 0 ? jinja_negate(r, self) : int_value(integral(self));
}

static bool whole_part(double f, value *out) {
    if (!(fabs(f) < 9.2e18)) return false;
    *out = int_value((int64_t)f);
    return true;
}

FILTER(filter_int) {
    (void)args;
    value   otherwise = is_missing(arg[0]) ? int_value(0) : arg[0], v;
    int64_t base = jinja_arg_int(r, arg[1], 10), i;
    double  f;
    bool    overflow;
    if (self.kind == V_UNDEFINED) jinja_fail_undefined(r, self);
    if (is_integral(self)) return int_value(integral(self));
    if (self.kind == V_FLOAT) {
        if (isinf(self.real) || (fabs(self.real) >= 9.2e18))
            FAIL(r, "cannot convert float %g to an integer of 64 bits", self.real);
        return whole_part(self.real, &v) ? v : otherwise;
    }
    if (self.kind != V_TEXT) return otherwise;
    if (base == 0 || (base >= 2 && base <= 36))
        if (jinja_parse_int(self.text, (int)base, &i, &overflow)) {
            if (overflow) FAIL(r, "the integer %s is larger than 64 bits", jinja_cstr(r, self.text));
            return int_value(i);
        }
    return jinja_parse_real(self.text, &f) && whole_part(f, &v) ? v : otherwise;
}

FILTER(filter_float) {
    (void)args;
    double f;
    if (self.kind == V_UNDEFINED) jinja_fail_undefined(r, self);
    if (is_number(self)) return real_value(real_of(self));
    if (self.kind == V_TEXT && jinja_parse_real(self.text, &f)) return real_value(f);
    return is_missing(arg[0]) ? real_value(0) : arg[0];
}

/* To the nearest, ties to even, of the decimal value that the double really has. */
static double round_real(double f, int64_t digits) {
    char shown[1024];
    if (!isfinite(f) || digits > 323) return f;
    if (digits < 0) {
        long double unit = powl(10, digits < -400 ? 400 : (long double)-digits);
        return (double)(rintl(f / unit) * unit);
    }
    snprintf(shown, sizeof shown, "%.*f", (int)digits, f);
    return strtod(shown, NULL);
}

static value round_integer(render *r, int64_t i, int64_t digits) {
    if (digits >= 0) return int_value(i);
    if (digits < -18) return int_value(0);
    int64_t unit = 1;
    while (digits++) unit *= 10;
    int64_t down = i / unit * unit, rest = i - down, twice;
    if (rest < 0) down -= unit, rest += unit;
    twice = rest - (unit - rest);
    bool up = twice > 0 || (twice == 0 && (down / unit) % 2 != 0);
    if (up && __builtin_add_overflow(down, unit, &down)) FAIL(r, "an integer grows beyond 64 bits");
    return int_value(down);
}

FILTER(filter_round) {
    (void)args;
    int64_t     digits = jinja_arg_int(r, arg[0], 0);
    const text *how = optional_text(r, arg[1], "common");
    if (self.kind == V_UNDEFINED) jinja_fail_undefined(r, self);
    if (!is_number(self)) FAIL(r, "type %s doesn't define __round__ method", jinja_type_name(self));
    if (TEXT_IS(how, "common")) {
        if (self.kind == V_FLOAT) return real_value(round_real(self.real, digits));
        return round_integer(r, integral(self), digits);
    }
    if (!TEXT_IS(how, "ceil") && !TEXT_IS(how, "floor")) FAIL(r, "method must be common, ceil or floor");
    double unit = pow(10, (double)digits), scaled = real_of(self) * unit;
    if (!isfinite(scaled)) FAIL(r, "cannot convert float infinity to integer");
    return real_value((TEXT_IS(how, "ceil") ? ceil(scaled) : floor(scaled)) / unit);
}

FILTER(filter_filesizeformat) {
    (void)args;
    static const char *const decimal[] = {"kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"}, *const binary[] = {
                                                                                               "KiB", "MiB", "GiB", "TiB",
                                                                                               "PiB", "EiB", "ZiB", "YiB"};
    bool   is_binary = jinja_arg_truth(arg[0], false);
    double base = is_binary ? 1024 : 1000, bytes = real_of(filter_float(r, self, &(value){0}, NULL)), unit = base;
    size_t mark = jinja_mark(r);
    if (bytes == 1) {
        jinja_put_str(r, "1 Byte");
    } else if (bytes < base) {
        jinja_put_format(r, "%lld Bytes", (long long)bytes);
    } else {
        int i = 0;
        for (unit *= base; i < 7 && bytes >= unit; i++) unit *= base;
        jinja_put_format(r, "%.1f %s", base * bytes / unit, (is_binary ? binary : decimal)[i]);
    }
    return jinja_cut(r, mark);
}

const builtin jinja_text_filters[] = {
    {"abs", "/", 0, filter_abs},
    {"capitalize", "", 0, filter_capitalize},
    {"center", "width", 0, filter_center},
    {"e", "/", 0, filter_escape},
    {"escape", "/", 0, filter_escape},
    {"filesizeformat", "binary", 0, filter_filesizeformat},
    {"float", "default", 0, filter_float},
    {"forceescape", "", 0, filter_forceescape},
    {"format", NULL, 0, filter_format},
    {"indent", "width first blank", 0, filter_indent},
    {"int", "default base", 0, filter_int},
    {"lower", "", 0, filter_lower},
    {"pprint", NULL, 0, filter_refused},
    {"replace", "old new count", 2, filter_replace},
    {"round", "precision method", 0, filter_round},
    {"safe", "", 0, filter_safe},
    {"string", "", 0, filter_string},
    {"striptags", NULL, 0, filter_refused},
    {"title", "", 0, filter_title},
    {"tojson", "ensure_ascii indent separators sort_keys", 0, filter_tojson},
    {"trim", "chars", 0, filter_trim},
    {"truncate", "length killwords end leeway", 0, filter_truncate},
    {"upper", "", 0, filter_upper},
    {"urlencode", "", 0, filter_urlencode},
    {"urlize", NULL, 0, filter_refused},
    {"wordcount", "", 0, filter_wordcount},
    {"wordwrap", NULL, 0, filter_refused},
    {"xmlattr", "autospace", 0, filter_xmlattr},
};
const size_t jinja_text_filter_count = sizeof jinja_text_filters / sizeof *jinja_text_filters;
