/* models/template_show.c: how values become text: str(), repr(), tojson, HTML escapes. Byte for byte as Python 3. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "models/template_render.h"

/* The shortest digits that read back as the same double, then Python's rule for when to use an exponent. */
void jinja_show_real(render *r, double f) {
    if (isnan(f) || isinf(f)) {
        jinja_put_str(r, isnan(f) ? "nan" : f < 0 ? "-inf" : "inf");
        return;
    }
    jinja_work(r, 32);
    char digits[32];
    int  precision = 0;
    do snprintf(digits, sizeof digits, "%.*e", precision, f);
    while (strtod(digits, NULL) != f && ++precision < 17);
    int exponent = atoi(strchr(digits, 'e') + 1);
    if (exponent >= 16 || exponent < -4) {
        *strchr(digits, 'e') = 0;
        jinja_put_format(r, "%se%c%02d", digits, exponent < 0 ? '-' : '+', abs(exponent));
    } else {
        int decimals = precision - exponent;
        jinja_put_format(r, "%.*f", decimals > 1 ? decimals : 1, f);
    }
}

static void escape_codepoint(render *r, uint32_t cp) {
    if (cp < 0x100) jinja_put_format(r, "\\x%02x", cp);
    else if (cp < 0x10000) jinja_put_format(r, "\\u%04x", cp);
    else jinja_put_format(r, "\\U%08x", cp);
}

static void repr_char(render *r, uint32_t cp, char quote) {
    static const char short_escapes[] = {['\t'] = 't', ['\n'] = 'n', ['\r'] = 'r'};
    if (cp < sizeof short_escapes && short_escapes[cp]) jinja_put_format(r, "\\%c", short_escapes[cp]);
    else if (cp == '\\' || cp == (unsigned char)quote) jinja_put_format(r, "\\%c", (int)cp);
    else if (jinja_text_is_printable(cp)) jinja_put_char(r, cp);
    else escape_codepoint(r, cp);
}

static void repr_text(render *r, const text *t) {
    char quote = memchr(t->data, '\'', t->size) && !memchr(t->data, '"', t->size) ? '"' : '\'';
    jinja_work(r, t->size);
    jinja_put(r, &quote, 1);
    for (uint32_t i = 0, cp; i < t->size;) {
        i += (uint32_t)utf8_decode(t->data + i, t->size - i, &cp);
        repr_char(r, cp, quote);
    }
    jinja_put(r, &quote, 1);
}

static void repr_items(render *r, value v) {
    iterator *it = jinja_iterate(r, v);
    bool      first = true;
    for (value each; jinja_next(r, it, &each); first = false) {
        if (!first) jinja_put_str(r, ", ");
        jinja_repr(r, each);
    }
}

static void repr_dict(render *r, const dict *d) {
    jinja_put_str(r, "{");
    for (uint32_t i = 0; i < d->count; i++) {
        if (i) jinja_put_str(r, ", ");
        jinja_repr(r, d->pairs[i].key);
        jinja_put_str(r, ": ");
        jinja_repr(r, d->pairs[i].item);
    }
    jinja_put_str(r, "}");
}

static void repr_range(render *r, const range *g) {
    jinja_put_format(r, "range(%lld, %lld", (long long)g->start, (long long)g->stop);
    if (g->step != 1) jinja_put_format(r, ", %lld", (long long)g->step);
    jinja_put_str(r, ")");
}

static void repr_loop(render *r, loop_state *l) {
    long long length = jinja_length(r, (value){.kind = V_LOOP, .loop = l});
    jinja_put_format(r, "<LoopContext %lld/%lld>", (long long)l->index0 + 1, length);
}

static void repr_macro(render *r, const macro *m) {
    const text *name = m->definition->name;
    jinja_put_str(r, "<Macro ");
    if (name) repr_text(r, name);
    else jinja_put_str(r, "anonymous");
    jinja_put_str(r, ">");
}

static void repr_bracketed(render *r, value v) {
    jinja_put_str(r, v.kind == V_LIST ? "[" : "(");
    repr_items(r, v);
    if (v.kind == V_TUPLE && v.array->count == 1) jinja_put_str(r, ",");
    jinja_put_str(r, v.kind == V_LIST ? "]" : ")");
}

static void repr_view(render *r, value v) {
    jinja_put_format(r, "%s([", jinja_type_name(v));
    repr_items(r, v);
    jinja_put_str(r, "])");
}

static void repr_markup(render *r, value v) {
    jinja_put_str(r, "Markup(");
    repr_text(r, v.text);
    jinja_put_str(r, ")");
}

void jinja_repr(render *r, value v) {
    jinja_work(r, 1);
    jinja_enter(r);
    switch (v.kind) {
    case V_UNDEFINED: jinja_put_str(r, "Undefined"); break;
    case V_NONE: jinja_put_str(r, "None"); break;
    case V_BOOL: jinja_put_str(r, v.truth ? "True" : "False"); break;
    case V_INT: jinja_put_format(r, "%lld", (long long)v.integer); break;
    case V_FLOAT: jinja_show_real(r, v.real); break;
    case V_TEXT: (v.markup ? repr_markup(r, v) : repr_text(r, v.text)); break;
    case V_LIST:
    case V_TUPLE: repr_bracketed(r, v); break;
    case V_DICT: repr_dict(r, v.dict); break;
    case V_VIEW: repr_view(r, v); break;
    case V_RANGE: repr_range(r, v.range); break;
    case V_NAMESPACE:
        jinja_put_str(r, "<Namespace ");
        repr_dict(r, v.dict);
        jinja_put_str(r, ">");
        break;
    case V_LOOP: repr_loop(r, v.loop); break;
    case V_MACRO: repr_macro(r, v.macro); break;
    default: jinja_put_format(r, "<%s object>", jinja_type_name(v)); /* Python prints an address here */
    }
    jinja_leave(r);
}

void jinja_show(render *r, value v) {
    if (v.kind == V_TEXT) jinja_work_bytes(r, v.text->size), jinja_put(r, v.text->data, v.text->size);
    else if (v.kind != V_UNDEFINED) jinja_repr(r, v);
}

const text *jinja_str(render *r, value v) {
    if (v.kind == V_TEXT) return v.text;
    size_t mark = jinja_mark(r);
    jinja_show(r, v);
    return jinja_cut_text(r, mark);
}

/* ---- HTML ---- */

void jinja_escape_html(render *r, const text *t) {
    static const char *const entities[] = {
        ['&'] = "&amp;", ['<'] = "&lt;", ['>'] = "&gt;", ['\''] = "&#39;", ['"'] = "&#34;"};
    jinja_work(r, t->size);
    for (uint32_t i = 0; i < t->size; i++) {
        unsigned char c = (unsigned char)t->data[i];
        if (c < sizeof entities / sizeof *entities && entities[c]) jinja_put_str(r, entities[c]);
        else jinja_put(r, &t->data[i], 1);
    }
}

const text *jinja_escaped(render *r, value v) {
    if (v.kind == V_TEXT && v.markup) return v.text;
    const text *plain = jinja_str(r, v);
    size_t      mark = jinja_mark(r);
    jinja_escape_html(r, plain);
    return jinja_cut_text(r, mark);
}

/* ---- JSON ---- */

static void json_escape(render *r, uint32_t cp) {
    static const char short_escapes[] = {
        ['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n', ['\f'] = 'f', ['\r'] = 'r', ['"'] = '"', ['\\'] = '\\'};
    if (cp < sizeof short_escapes && short_escapes[cp]) jinja_put_format(r, "\\%c", short_escapes[cp]);
    else if (cp < 0x10000) jinja_put_format(r, "\\u%04x", cp);
    else jinja_put_format(r, "\\u%04x\\u%04x", 0xD800 + ((cp - 0x10000) >> 10), 0xDC00 + ((cp - 0x10000) & 0x3FF));
}

static void json_text(render *r, const text *t, bool ascii) {
    jinja_work_bytes(r, t->size);
    jinja_put_str(r, "\"");
    for (uint32_t i = 0, run = 0, cp; i <= t->size; run = i) {
        while (i < t->size && (unsigned char)t->data[i] >= 0x20 && t->data[i] != '"' && t->data[i] != '\\' &&
               (!ascii || (unsigned char)t->data[i] < 0x7F))
            i++;
        jinja_put(r, t->data + run, i - run);
        if (i == t->size) break;
        i += (uint32_t)utf8_decode(t->data + i, t->size - i, &cp);
        json_escape(r, cp);
    }
    jinja_put_str(r, "\"");
}

static void json_real(render *r, double f) {
    if (isnan(f) || isinf(f)) jinja_put_str(r, isnan(f) ? "NaN" : f < 0 ? "-Infinity" : "Infinity");
    else jinja_show_real(r, f);
}

static void json_at(render *r, value v, const json_style *s, uint32_t level);

static void json_newline(render *r, const json_style *s, uint32_t level) {
    if (!s->indent) return;
    jinja_put_str(r, "\n");
    for (uint32_t i = 0; i < level; i++) jinja_show(r, text_value(s->indent));
}

static void json_array(render *r, value v, const json_style *s, uint32_t level) {
    jinja_put_str(r, "[");
    for (uint32_t i = 0; i < v.array->count; i++) {
        if (i) jinja_show(r, text_value(s->item_separator));
        json_newline(r, s, level + 1);
        json_at(r, v.array->items[i], s, level + 1);
    }
    if (v.array->count) json_newline(r, s, level);
    jinja_put_str(r, "]");
}

static void json_key(render *r, value key, const json_style *s) {
    if (key.kind != V_TEXT && key.kind != V_NONE && !is_number(key))
        FAIL(r, "keys must be str, int, float, bool or None, not %s", jinja_type_name(key));
    if (key.kind != V_TEXT) jinja_put_str(r, "\"");
    json_at(r, key, s, 0);
    if (key.kind != V_TEXT) jinja_put_str(r, "\"");
}

static const pair *sorted_pairs(render *r, const dict *d) {
    value *keys = jinja_arena_take(&r->arena, d->count, sizeof *keys),
          *order = jinja_arena_take(&r->arena, d->count, sizeof *order);
    pair *sorted = jinja_arena_take(&r->arena, d->count, sizeof *sorted);
    for (uint32_t i = 0; i < d->count; i++) keys[i] = d->pairs[i].key, order[i] = int_value(i);
    jinja_sort(r, order, keys, d->count, false);
    for (uint32_t i = 0; i < d->count; i++) sorted[i] = d->pairs[order[i].integer];
    return sorted;
}

static void json_object(render *r, const dict *d, const json_style *s, uint32_t level) {
    const pair *pairs = s->sort_keys ? sorted_pairs(r, d) : d->pairs;
    jinja_put_str(r, "{");
    for (uint32_t i = 0; i < d->count; i++) {
        if (i) jinja_show(r, text_value(s->item_separator));
        json_newline(r, s, level + 1);
        json_key(r, pairs[i].key, s);
        jinja_show(r, text_value(s->key_separator));
        json_at(r, pairs[i].item, s, level + 1);
    }
    if (d->count) json_newline(r, s, level);
    jinja_put_str(r, "}");
}

static void json_at(render *r, value v, const json_style *s, uint32_t level) {
    jinja_work(r, 1);
    jinja_enter(r);
    switch (v.kind) {
    case V_NONE: jinja_put_str(r, "null"); break;
    case V_BOOL: jinja_put_str(r, v.truth ? "true" : "false"); break;
    case V_INT: jinja_repr(r, v); break;
    case V_FLOAT: json_real(r, v.real); break;
    case V_TEXT: json_text(r, v.text, s->ascii); break;
    case V_LIST:
    case V_TUPLE: json_array(r, v, s, level); break;
    case V_DICT: json_object(r, v.dict, s, level); break;
    default: FAIL(r, "Object of type %s is not JSON serializable", jinja_type_name(v));
    }
    jinja_leave(r);
}

void jinja_show_json(render *r, value v, const json_style *style) { json_at(r, v, style, 0); }
