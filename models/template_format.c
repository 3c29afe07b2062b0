/* models/template_format.c: numbers read from text, and Python's two ways to format: '%05.1f' % x and '{:>8}'.format(x).
 *
 * Both come down to one spec (fill, sign, width, precision, type), which is filled from either notation. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/utf8.h"
#include "models/template_render.h"

typedef struct {
    uint32_t fill;
    char     align;    /* '<' '>' '^', '=' (between sign and digits), 0: as the type has it */
    char     sign;     /* '-' '+' ' ' */
    char     grouping; /* ',' '_' 0 */
    char     type;     /* 0: none */
    bool     alternate, from_percent;
    int64_t  width, precision; /* -1: not given */
} spec;

enum { PRECISION_MAX = 1000 };

/* ---- reading numbers ---- */

static text trimmed(const text *t) {
    const char *from = t->data, *to = t->data + t->size;
    while (from < to && jinja_text_is_space((unsigned char)*from) && (unsigned char)*from < 0x80) from++;
    while (to > from && jinja_text_is_space((unsigned char)to[-1]) && (unsigned char)to[-1] < 0x80) to--;
    return (text){from, (uint32_t)(to - from), 0};
}

static int digit_of(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'z' ? c - 'a' + 10 : 99;
}

static int prefix_base(const text *t, uint32_t at) {
    if (at + 1 >= t->size || t->data[at] != '0') return 0;
    char c = t->data[at + 1] | 0x20;
    return c == 'x' ? 16 : c == 'o' ? 8 : c == 'b' ? 2 : 0;
}

bool jinja_parse_int(const text *source, int base, int64_t *out, bool *overflow) {
    text     t = trimmed(source);
    uint32_t at = t.size && (t.data[0] == '-' || t.data[0] == '+');
    bool     negative = at && t.data[0] == '-', after_digit = false, seen = false;
    int      prefixed = prefix_base(&t, at);
    if (prefixed && (base == prefixed || base == 0)) base = prefixed, at += 2, after_digit = true; /* 0x_1 is fine */
    if (base == 0) base = 10;
    *out = 0, *overflow = false;
    for (; at < t.size; at++) {
        if (t.data[at] == '_' && after_digit) {
            after_digit = false;
            continue;
        }
        int digit = digit_of(t.data[at]);
        if (digit >= base) return false;
        *overflow |= __builtin_mul_overflow(*out, base, out) || __builtin_sub_overflow(*out, digit, out);
        after_digit = seen = true;
    }
    if (!negative) *overflow |= __builtin_sub_overflow(0, *out, out);
    return seen && after_digit;
}

bool jinja_parse_real(const text *source, double *out) {
    text   t = trimmed(source);
    char   plain[400];
    size_t n = 0;
    bool   after_digit = false;
    for (uint32_t i = 0; i < t.size; i++) {
        if (t.data[i] == '_' && after_digit && i + 1 < t.size && digit_of(t.data[i + 1]) < 10) continue;
        if (n + 1 >= sizeof plain) return false;
        plain[n++] = t.data[i];
        after_digit = digit_of(t.data[i]) < 10;
    }
    plain[n] = 0;
    const char *word = plain + (plain[0] == '-' || plain[0] == '+');
    bool        named = !strcasecmp(word, "inf") || !strcasecmp(word, "infinity") || !strcasecmp(word, "nan");
    if (n == 0 || (!named && strspn(plain, "0123456789.eE+-") != n)) return false;
    char *end;
    *out = strtod(plain, &end);
    return *end == 0 && end != plain;
}

/* ---- writing by a spec ---- */

/* body[0..n) with its sign or prefix in the first `lead` bytes, padded to the width. */
static void put_padded(render *r, const spec *s, const char *body, size_t n, size_t lead) {
    int64_t chars = 0;
    for (size_t i = 0; i < n; i++) chars += ((unsigned char)body[i] & 0xC0) != 0x80;
    int64_t missing = s->width > chars ? s->width - chars : 0;
    int64_t left = s->align == '<' ? 0 : s->align == '^' ? missing / 2 : missing;
    if ((uint64_t)missing > r->arena.left) jinja_fail(&r->trap, ERR_TOO_LARGE, "a format's width is larger than the limit");
    if (s->align == '=') {
        jinja_put(r, body, lead);
        body += lead, n -= lead;
    }
    jinja_work(r, (uint64_t)missing / 8);
    for (int64_t i = 0; i < left; i++) jinja_put_char(r, s->fill);
    jinja_put(r, body, n);
    for (int64_t i = left; i < missing; i++) jinja_put_char(r, s->fill);
}

static size_t put_sign(char *out, const spec *s, bool negative) {
    if (negative) return out[0] = '-', 1;
    return s->sign == '-' ? 0 : (out[0] = s->sign, 1);
}

/* Digits with a separator between groups, counted from the right. */
static size_t group_digits(char *out, const char *digits, size_t n, char separator, size_t group) {
    size_t size = 0;
    for (size_t i = 0; i < n; i++) {
        if (separator && i && (n - i) % group == 0) out[size++] = separator;
        out[size++] = digits[i];
    }
    return size;
}

static void put_integer(render *r, const spec *s, int64_t v) {
    char        digits[72 + PRECISION_MAX], body[2 * sizeof digits], *at = digits + sizeof digits;
    uint64_t    magnitude = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;
    unsigned    base = s->type == 'x' || s->type == 'X' ? 16 : s->type == 'o' ? 8 : s->type == 'b' ? 2 : 10;
    const char *alphabet = s->type == 'X' ? "0123456789ABCDEF" : "0123456789abcdef";
    do *--at = alphabet[magnitude % base];
    while (magnitude /= base);
    while (s->precision > digits + sizeof digits - at) *--at = '0';
    size_t lead = put_sign(body, s, v < 0);
    if (s->alternate && base != 10) body[lead++] = '0', body[lead++] = s->type;
    size_t n = lead + group_digits(body + lead, at, (size_t)(digits + sizeof digits - at), s->grouping, base == 10 ? 3 : 4);
    put_padded(r, s, body, n, lead);
}

/* The digits of |f| as the type wants them, without a sign. */
static int real_digits(render *r, const spec *s, double f, char *out, size_t room) {
    char type = s->type == '%' ? 'f' : s->type == 'n' ? 'g' : s->type;
    int  precision = s->precision < 0 ? 6 : (int)s->precision;
    if (!type && s->precision < 0) {
        size_t mark = jinja_mark(r);
        jinja_show_real(r, f);
        int n = snprintf(out, room, "%s", r->out.data + mark);
        r->out.size = mark;
        return n;
    }
    char format[8];
    snprintf(format, sizeof format, "%%%s.*%c", s->alternate ? "#" : "", type ? type : 'g');
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    int n = snprintf(out, room, format, precision, f);
#pragma GCC diagnostic pop
    if (!type && !strpbrk(out, ".ein")) n += snprintf(out + n, room - (size_t)n, ".0");
    return n;
}

static void put_real(render *r, const spec *s, double f) {
    char digits[400 + PRECISION_MAX], body[2 * sizeof digits];
    if (s->type == '%') f *= 100;
    int    n = real_digits(r, s, fabs(f), digits, sizeof digits - 2);
    size_t whole = strspn(digits, "0123456789"), lead = put_sign(body, s, signbit(f) && !isnan(f));
    if (s->type == '%') digits[n++] = '%';
    size_t size = lead + group_digits(body + lead, digits, whole, s->grouping, 3);
    memcpy(body + size, digits + whole, (size_t)n - whole);
    put_padded(r, s, body, size + (size_t)n - whole, lead);
}

static void put_text(render *r, const spec *s, const text *t) {
    uint32_t size = t->size;
    if (s->precision >= 0 && s->precision < t->chars) size = jinja_text_offset(r, t, (uint32_t)s->precision);
    put_padded(r, s, t->data, size, 0);
}

static void put_codepoint(render *r, const spec *s, int64_t c) {
    char bytes[4];
    if (c < 0 || c > 0x10FFFF || (c >= 0xD800 && c < 0xE000)) FAIL(r, "%%c arg not in range(0x110000)");
    put_padded(r, s, bytes, (size_t)utf8_encode((uint32_t)c, bytes), 0);
}

/* ---- '...' % values ---- */

typedef struct {
    render      *r;
    value        with;
    const value *items;
    uint32_t     count, used;
    bool         by_name;
} percent_args;

static value next_percent_arg(percent_args *a) {
    if (a->used >= a->count) FAIL(a->r, "not enough arguments for format string");
    return a->items[a->used++];
}

static int64_t read_digits(render *r, const text *t, uint32_t *at) {
    int64_t v = 0;
    for (; *at < t->size && digit_of(t->data[*at]) < 10; ++*at)
        if ((v = v * 10 + digit_of(t->data[*at])) > INT32_MAX) FAIL(r, "too many decimal digits in format string");
    return v;
}

static int64_t read_percent_number(percent_args *a, const text *t, uint32_t *at) {
    if (*at >= t->size || t->data[*at] != '*') return read_digits(a->r, t, at);
    ++*at;
    value v = next_percent_arg(a);
    if (!is_integral(v)) FAIL(a->r, "* wants int");
    int64_t n = integral(v);
    return n < INT32_MIN ? INT32_MIN : n > INT32_MAX ? INT32_MAX : n;
}

static value named_percent_arg(percent_args *a, const text *t, uint32_t *at) {
    uint32_t from = ++*at, depth = 1;
    for (; *at < t->size; ++*at) {
        depth += t->data[*at] == '(';
        if (t->data[*at] == ')' && --depth == 0) break;
    }
    if (*at >= t->size) FAIL(a->r, "incomplete format key");
    if (a->with.kind != V_DICT) FAIL(a->r, "format requires a mapping");
    const text  *key = jinja_text_within(&a->r->arena, t->data + from, *at - from);
    const value *held = jinja_dict_get_text(a->r, a->with.dict, key);
    if (!held) FAIL(a->r, "the format names '%s', which the mapping does not have", jinja_cstr(a->r, key));
    ++*at;
    a->by_name = true;
    return *held;
}

static spec read_percent_spec(percent_args *a, const text *t, uint32_t *at) {
    spec s = {.fill = ' ', .align = '>', .sign = '-', .from_percent = true, .precision = -1};
    bool left = false, zero = false;
    for (; *at < t->size && strchr("-+ #0", t->data[*at]); ++*at) {
        char c = t->data[*at];
        left |= c == '-', zero |= c == '0', s.alternate |= c == '#';
        if (c == '+' || (c == ' ' && s.sign != '+')) s.sign = c;
    }
    s.width = read_percent_number(a, t, at);
    if (s.width < 0) left = true, s.width = -s.width;
    if (*at < t->size && t->data[*at] == '.') {
        ++*at;
        s.precision = read_percent_number(a, t, at);
        if (s.precision < 0) s.precision = 0;
    }
    if (*at < t->size && strchr("hlL", t->data[*at])) ++*at;
    s.type = *at < t->size ? t->data[(*at)++] : 0;
    if (left) s.align = '<';
    else if (zero && s.type && strchr("diuoxXeEfFgG", s.type)) s.align = '=', s.fill = '0';
    return s;
}

static int64_t percent_integer(render *r, const spec *s, value v) {
    bool decimal = strchr("diu", s->type);
    if (is_integral(v)) return integral(v);
    if (v.kind == V_FLOAT && decimal && fabs(v.real) < 9.2e18) return (int64_t)v.real;
    FAIL(r, "%%%c format: %s is required, not %s", s->type, decimal ? "a real number" : "an integer", jinja_type_name(v));
}

static void put_percent_text(render *r, const spec *s, value v, bool markup) {
    size_t mark = jinja_mark(r);
    if (s->type == 's') jinja_show(r, v);
    else jinja_repr(r, v);
    const text *shown = jinja_cut_text(r, mark);
    if (markup && !(v.kind == V_TEXT && v.markup && s->type == 's')) shown = jinja_escaped(r, text_value(shown));
    put_text(r, s, shown);
}

static void put_percent(render *r, spec *s, value v, bool markup) {
    if (s->precision > PRECISION_MAX && s->type && !strchr("sra", s->type))
        FAIL(r, "a format's precision is larger than %d", PRECISION_MAX);
    if (s->type && strchr("sra", s->type)) {
        put_percent_text(r, s, v, markup);
    } else if (s->type && strchr("diuoxX", s->type)) {
        put_integer(r, s, percent_integer(r, s, v));
    } else if (s->type && strchr("eEfFgG", s->type)) {
        if (!is_number(v)) FAIL(r, "must be real number, not %s", jinja_type_name(v));
        put_real(r, s, real_of(v));
    } else if (s->type == 'c') {
        if (v.kind == V_TEXT && v.text->chars == 1) put_text(r, s, v.text);
        else if (is_integral(v)) put_codepoint(r, s, integral(v));
        else FAIL(r, "%%c requires int or char");
    } else {
        FAIL(r, "unsupported format character '%c'", s->type ? s->type : ' ');
    }
}

static bool is_percent_mapping(value v) { /* what Python does not insist on using up */
    return v.kind == V_DICT || v.kind == V_LIST || v.kind == V_RANGE || v.kind == V_UNDEFINED;
}

value jinja_format_percent(render *r, value format, value with) {
    const text  *t = format.text;
    value        one[1] = {with};
    percent_args a = {.r = r, .with = with, .items = one, .count = 1};
    size_t       mark = jinja_mark(r);
    if (with.kind == V_TUPLE) a.items = with.array->items, a.count = with.array->count;
    jinja_work_bytes(r, t->size);
    for (uint32_t at = 0; at < t->size;) {
        uint32_t from = at;
        while (at < t->size && t->data[at] != '%') at++;
        jinja_put(r, t->data + from, at - from);
        if (at++ >= t->size) break;
        if (at < t->size && t->data[at] == '%') {
            jinja_put_char(r, '%'), at++;
            continue;
        }
        bool  named = at < t->size && t->data[at] == '(';
        value v = {0};
        if (named) v = named_percent_arg(&a, t, &at);
        spec s = read_percent_spec(&a, t, &at);
        if (!s.type) FAIL(r, "incomplete format");
        put_percent(r, &s, named ? v : next_percent_arg(&a), format.markup);
    }
    if (a.used < a.count && !a.by_name && !is_percent_mapping(with))
        FAIL(r, "not all arguments converted during string formatting");
    return like_value(jinja_cut_text(r, mark), format);
}

/* ---- '{}'.format(values) ---- */

typedef struct {
    render          *r;
    const call_args *args;
    const dict      *mapping; /* format_map; NULL: the keyword arguments */
    uint32_t         automatic;
    bool             numbered, markup;
} brace_args;

static spec read_spec(render *r, const text *t) {
    spec     s = {.fill = ' ', .sign = '-', .precision = -1};
    uint32_t at = 0, cp = 0;
    int      first = t->size ? utf8_decode(t->data, t->size, &cp) : 0;
    if (first > 0 && t->size > (uint32_t)first && strchr("<>=^", t->data[first]))
        s.fill = cp, s.align = t->data[first], at = (uint32_t)first + 1;
    else if (t->size && strchr("<>=^", t->data[0])) s.align = t->data[at++];
    bool filled = at > 1;
    if (at < t->size && strchr("+- ", t->data[at])) s.sign = t->data[at++];
    if (at < t->size && t->data[at] == '#') s.alternate = true, at++;
    if (at < t->size && t->data[at] == '0') {
        if (!filled) s.fill = '0';
        if (!s.align) s.align = '=';
        at++;
    }
    s.width = read_digits(r, t, &at);
    if (at < t->size && strchr(",_", t->data[at])) s.grouping = t->data[at++];
    if (at < t->size && t->data[at] == '.') {
        at++;
        if (at >= t->size || digit_of(t->data[at]) > 9) FAIL(r, "Format specifier missing precision");
        s.precision = read_digits(r, t, &at);
    }
    if (at < t->size) s.type = t->data[at++];
    if (at < t->size) FAIL(r, "Invalid format specifier '%s'", jinja_cstr(r, t));
    return s;
}

static __attribute__((noreturn)) void fail_type(render *r, const spec *s, value v) {
    FAIL(r, "Unknown format code '%c' for object of type '%s'", s->type, jinja_type_name(v));
}

static void put_formatted(render *r, value v, const text *how) {
    spec s = read_spec(r, how);
    if (v.kind == V_TEXT) {
        if (s.type && s.type != 's') fail_type(r, &s, v);
        if (s.align == '=' && s.fill != '0') FAIL(r, "'=' alignment not allowed in string format specifier");
        if (!s.align || s.align == '=') s.align = '<';
        put_text(r, &s, v.text);
        return;
    }
    if (!is_number(v)) FAIL(r, "unsupported format string passed to %s.__format__", jinja_type_name(v));
    if (s.precision > PRECISION_MAX) FAIL(r, "a format's precision is larger than %d", PRECISION_MAX);
    if (!s.align) s.align = '>';
    if (s.type && strchr("eEfFgG%", s.type)) {
        put_real(r, &s, real_of(v));
    } else if (v.kind == V_FLOAT) {
        if (s.type && s.type != 'n') fail_type(r, &s, v);
        put_real(r, &s, v.real);
    } else if (s.type == 'c') {
        put_codepoint(r, &s, integral(v));
    } else if (!s.type || strchr("bdoxXn", s.type)) {
        if (s.precision >= 0) FAIL(r, "Precision not allowed in integer format specifier");
        put_integer(r, &s, integral(v));
    } else {
        fail_type(r, &s, v);
    }
}

static value brace_first(brace_args *a, const text *name) {
    bool digits = name->size > 0;
    for (uint32_t i = 0; i < name->size; i++) digits = digits && digit_of(name->data[i]) < 10;
    if (digits || name->size == 0) {
        uint32_t at = 0;
        int64_t  index = digits ? read_digits(a->r, name, &at) : a->automatic++;
        if (digits ? a->automatic > 0 : a->numbered) FAIL(a->r, "cannot mix numbered and automatic fields in a format");
        a->numbered |= digits;
        if (a->mapping || index >= a->args->count)
            FAIL(a->r, "Replacement index %lld out of range for positional args tuple", (long long)index);
        return a->args->items[index];
    }
    if (a->mapping) {
        const value *held = jinja_dict_get_text(a->r, a->mapping, name);
        if (held) return *held;
    } else {
        for (uint32_t i = 0; i < a->args->named_count; i++)
            if (text_is(a->args->names[i], name->data, name->size)) return a->args->named[i];
    }
    FAIL(a->r, "the format names '%s', which was not given", jinja_cstr(a->r, name));
}

static const text *piece(brace_args *a, const text *t, uint32_t from, uint32_t to) {
    return jinja_text_within(&a->r->arena, t->data + from, to - from);
}

/* name.attribute[item]... */
static value brace_field(brace_args *a, const text *t) {
    uint32_t at = 0;
    while (at < t->size && t->data[at] != '.' && t->data[at] != '[') at++;
    if (at == 0 && t->size) FAIL(a->r, "a field of the format begins with '%c'; it needs a name in front", t->data[0]);
    value v = brace_first(a, piece(a, t, 0, at));
    while (at < t->size) {
        bool     attribute = t->data[at] == '.';
        uint32_t from = ++at;
        while (at < t->size && (attribute ? t->data[at] != '.' && t->data[at] != '[' : t->data[at] != ']')) at++;
        const text *key = piece(a, t, from, at);
        int64_t     index;
        bool        overflow;
        if (key->size == 0) FAIL(a->r, "Empty attribute in format string");
        if (!attribute && at++ >= t->size) FAIL(a->r, "Missing ']' in format string");
        if (attribute) v = jinja_attribute(a->r, v, key);
        else
            v = jinja_item(a->r, v,
                           digit_of(key->data[0]) < 10 && jinja_parse_int(key, 10, &index, &overflow) ? int_value(index)
                                                                                                      : text_value(key));
    }
    return v;
}

static const text *format_pieces(brace_args *a, const text *t, int depth);

/* One replacement field: t without its braces. */
static void put_field(brace_args *a, const text *t, int depth) {
    render  *r = a->r;
    uint32_t name_end = 0, brackets = 0;
    for (; name_end < t->size && (brackets || (t->data[name_end] != '!' && t->data[name_end] != ':')); name_end++) {
        if (t->data[name_end] == '[') brackets = 1;
        if (t->data[name_end] == ']') brackets = 0;
    }
    value    v = brace_field(a, piece(a, t, 0, name_end));
    uint32_t at = name_end;
    if (at < t->size && t->data[at] == '!') {
        char conversion = at + 1 < t->size ? t->data[at + 1] : 0;
        if (!conversion || !strchr("rsa", conversion)) FAIL(r, "Unknown conversion specifier in a format");
        size_t mark = jinja_mark(r);
        if (conversion == 's') jinja_show(r, v);
        else jinja_repr(r, v);
        v = jinja_cut(r, mark);
        at += 2;
    }
    if (at < t->size && t->data[at] != ':') FAIL(r, "expected ':' after conversion specifier");
    const text *how = at < t->size ? format_pieces(a, piece(a, t, at + 1, t->size), depth - 1) : piece(a, t, 0, 0);
    size_t      mark = jinja_mark(r);
    bool        markup = v.kind == V_TEXT && v.markup;
    if (how->size) put_formatted(r, v, how);
    else jinja_show(r, v);
    if (a->markup && !markup) {
        const text *escaped = jinja_escaped(r, jinja_cut(r, mark));
        jinja_put(r, escaped->data, escaped->size);
    }
}

static uint32_t field_end(brace_args *a, const text *t, uint32_t at) {
    for (uint32_t depth = 1; at < t->size; at++) {
        depth += t->data[at] == '{';
        depth -= t->data[at] == '}';
        if (depth == 0) return at;
    }
    FAIL(a->r, "expected '}' before end of string");
}

static const text *format_pieces(brace_args *a, const text *t, int depth) {
    size_t mark = jinja_mark(a->r);
    if (depth < 0) FAIL(a->r, "Max string recursion exceeded");
    jinja_work_bytes(a->r, t->size);
    for (uint32_t at = 0; at < t->size;) {
        uint32_t from = at;
        while (at < t->size && t->data[at] != '{' && t->data[at] != '}') at++;
        jinja_put(a->r, t->data + from, at - from);
        if (at >= t->size) break;
        char c = t->data[at++];
        if (at < t->size && t->data[at] == c) {
            jinja_put(a->r, &t->data[at++], 1);
            continue;
        }
        if (c == '}') FAIL(a->r, "Single '}' encountered in format string");
        uint32_t end = field_end(a, t, at);
        put_field(a, piece(a, t, at, end), depth);
        at = end + 1;
    }
    return jinja_cut_text(a->r, mark);
}

value jinja_format_braces(render *r, value format, const call_args *args, const dict *mapping_or_null) {
    brace_args a = {.r = r, .args = args, .mapping = mapping_or_null, .markup = format.markup};
    return like_value(format_pieces(&a, format.text, 2), format);
}
