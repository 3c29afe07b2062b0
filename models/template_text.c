/* models/template_text.c: texts as Python's strings: indexed by character, split, stripped, recased by Unicode.
 *
 * Texts are UTF-8 and know their number of characters; where that equals the number of bytes, an index is an offset.
 * Otherwise it is found by walking, and the walk is paid for in steps. */
#include <string.h>
#include <utf8proc.h>

#include "base/utf8.h"
#include "models/template_render.h"

uint32_t jinja_text_offset(render *r, const text *t, uint32_t index) {
    if (t->chars == t->size || index == 0) return index;
    if (index >= t->chars) return t->size;
    uint32_t at = 0;
    jinja_work_bytes(r, index);
    while (index--)
        for (at++; at < t->size && ((unsigned char)t->data[at] & 0xC0) == 0x80;) at++;
    return at;
}

/* Characters in the first `bytes` of t. */
uint32_t jinja_text_chars_before(render *r, const text *t, uint32_t bytes) {
    if (t->chars == t->size) return bytes;
    uint32_t chars = 0;
    jinja_work_bytes(r, bytes);
    for (uint32_t i = 0; i < bytes; i++) chars += ((unsigned char)t->data[i] & 0xC0) != 0x80;
    return chars;
}

value jinja_text_part(render *r, value of, uint32_t from_byte, uint32_t to_byte) {
    const text *t = of.text;
    if (from_byte == 0 && to_byte == t->size) return of;
    jinja_work_bytes(r, to_byte - from_byte);
    return like_value(jinja_text_within(&r->arena, t->data + from_byte, to_byte - from_byte), of);
}

int64_t jinja_text_find(render *r, const text *t, const text *part, size_t from_byte, size_t to_byte) {
    if (from_byte > to_byte || part->size > to_byte - from_byte) return -1;
    jinja_work_bytes(r, to_byte - from_byte);
    const char *found = memmem(t->data + from_byte, to_byte - from_byte, part->data, part->size);
    return found ? found - t->data : -1;
}

int64_t jinja_text_rfind(render *r, const text *t, const text *part, size_t from_byte, size_t to_byte) {
    if (from_byte > to_byte || part->size > to_byte - from_byte) return -1;
    for (size_t at = to_byte - part->size + 1; at-- > from_byte;) {
        jinja_work(r, 1);
        if (memcmp(t->data + at, part->data, part->size) == 0) return (int64_t)at;
    }
    return -1;
}

/* ---- characters ---- */

bool jinja_text_is_space(uint32_t c) {
    if (c < 0x80) return c == ' ' || (c >= 9 && c <= 13) || (c >= 0x1C && c <= 0x1F);
    return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 ||
           c == 0x202F || c == 0x205F || c == 0x3000;
}

bool jinja_text_is_printable(uint32_t c) {
    if (c < 0x7F) return c >= 0x20;
    switch (utf8proc_category((utf8proc_int32_t)c)) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS: return false;
    default: return true;
    }
}

bool jinja_text_is_word(uint32_t c) { /* \w */
    if (c < 0x80) return (c | 0x20) - 'a' < 26 || c - '0' < 10 || c == '_';
    switch (utf8proc_category((utf8proc_int32_t)c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO: return true;
    default: return false;
    }
}

/* The character that ends before byte `at`. */
static uint32_t char_before(const text *t, uint32_t at, uint32_t *start) {
    uint32_t cp = 0;
    for (*start = at - 1; *start && ((unsigned char)t->data[*start] & 0xC0) == 0x80;) --*start;
    utf8_decode(t->data + *start, at - *start, &cp);
    return cp;
}

static bool strips(const text *chars, const char *c, uint32_t length, uint32_t cp) {
    return chars ? memmem(chars->data, chars->size, c, length) != NULL : jinja_text_is_space(cp);
}

value jinja_text_strip(render *r, value of, value chars, unsigned sides) {
    const text *t = of.text, *set = NULL;
    if (!is_missing(chars) && chars.kind != V_NONE) set = jinja_arg_text(r, chars, "strip arg");
    uint32_t from = 0, to = t->size, cp;
    while ((sides & STRIP_LEFT) && from < to) {
        uint32_t length = (uint32_t)utf8_decode(t->data + from, to - from, &cp);
        if (!strips(set, t->data + from, length, cp)) break;
        jinja_work_bytes(r, set ? set->size : 1);
        from += length;
    }
    while ((sides & STRIP_RIGHT) && to > from) {
        uint32_t start;
        cp = char_before(t, to, &start);
        if (!strips(set, t->data + start, to - start, cp)) break;
        jinja_work_bytes(r, set ? set->size : 1);
        to = start;
    }
    return jinja_text_part(r, of, from, to);
}

/* ---- case ---- */

/* Characters whose upper-case form is several characters (Unicode SpecialCasing.txt); title case takes the first as upper
 * and the rest as lower. What follows the base is given as it is in upper case. */
static const struct {
    uint16_t from;
    uint16_t upper[3];
} long_upper[] = {
    {0x00DF, {'S', 'S', 0}},
    {0x0149, {0x02BC, 'N', 0}},
    {0x01F0, {'J', 0x030C, 0}},
    {0x0390, {0x0399, 0x0308, 0x0301}},
    {0x03B0, {0x03A5, 0x0308, 0x0301}},
    {0x0587, {0x0535, 0x0552, 0}},
    {0x1E96, {'H', 0x0331, 0}},
    {0x1E97, {'T', 0x0308, 0}},
    {0x1E98, {'W', 0x030A, 0}},
    {0x1E99, {'Y', 0x030A, 0}},
    {0x1E9A, {'A', 0x02BE, 0}},
    {0xFB00, {'F', 'F', 0}},
    {0xFB01, {'F', 'I', 0}},
    {0xFB02, {'F', 'L', 0}},
    {0xFB03, {'F', 'F', 'I'}},
    {0xFB04, {'F', 'F', 'L'}},
    {0xFB05, {'S', 'T', 0}},
    {0xFB06, {'S', 'T', 0}},
    {0xFB13, {0x0544, 0x0546, 0}},
    {0xFB14, {0x0544, 0x0535, 0}},
    {0xFB15, {0x0544, 0x053B, 0}},
    {0xFB16, {0x054E, 0x0546, 0}},
    {0xFB17, {0x0544, 0x053D, 0}},
};

static void put_upper(render *r, uint32_t c, bool title) {
    if (c >= 0x80)
        for (size_t i = 0; i < sizeof long_upper / sizeof *long_upper; i++)
            if (long_upper[i].from == c) {
                for (int k = 0; k < 3 && long_upper[i].upper[k]; k++) {
                    utf8proc_int32_t u = long_upper[i].upper[k];
                    jinja_put_char(r, (uint32_t)(title && k && c != 0x0149 ? utf8proc_tolower(u) : u));
                }
                return;
            }
    if (c < 0x80) jinja_put_char(r, c - 'a' < 26 ? c - 32 : c);
    else
        jinja_put_char(r, (uint32_t)(title ? utf8proc_totitle((utf8proc_int32_t)c) : utf8proc_toupper((utf8proc_int32_t)c)));
}

static bool is_cased(uint32_t c) {
    if (c < 0x80) return (c | 0x20) - 'a' < 26;
    return utf8proc_toupper((utf8proc_int32_t)c) != (int32_t)c || utf8proc_tolower((utf8proc_int32_t)c) != (int32_t)c ||
           utf8proc_category((utf8proc_int32_t)c) == UTF8PROC_CATEGORY_LL;
}

/* A capital sigma at the end of a word has its own lower-case form. */
static bool is_final_sigma(const text *t, uint32_t at) {
    uint32_t cp, start;
    if (at == 0 || !is_cased(char_before(t, at, &start))) return false;
    uint32_t after = at + 2; /* U+03A3 is two bytes */
    return after >= t->size || utf8_decode(t->data + after, t->size - after, &cp) <= 0 || !is_cased(cp);
}

static void put_lower(render *r, const text *t, uint32_t at, uint32_t c) {
    if (c < 0x80) jinja_put_char(r, c - 'A' < 26 ? c + 32 : c);
    else if (c == 0x0130) jinja_put_str(r, "i\xCC\x87"); /* I with dot: i and a combining dot */
    else if (c == 0x03A3) jinja_put_char(r, is_final_sigma(t, at) ? 0x03C2 : 0x03C3);
    else jinja_put_char(r, (uint32_t)utf8proc_tolower((utf8proc_int32_t)c));
}

static void put_folded(render *r, uint32_t c) {
    utf8proc_int32_t folded[8];
    int              boundary = 0;
    utf8proc_ssize_t n = utf8proc_decompose_char((utf8proc_int32_t)c, folded, 8, UTF8PROC_CASEFOLD, &boundary);
    for (utf8proc_ssize_t i = 0; i < n && i < 8; i++) jinja_put_char(r, (uint32_t)folded[i]);
}

value jinja_text_recase(render *r, value of, text_case how) {
    const text *t = of.text;
    size_t      mark = jinja_mark(r);
    bool        inside = false; /* a word, for title case; the text, for capitalize */
    jinja_work(r, t->size);
    for (uint32_t i = 0, cp, length; i < t->size; i += length) {
        length = (uint32_t)utf8_decode(t->data + i, t->size - i, &cp);
        bool initial = !inside;
        inside = how == CASE_CAPITALIZE || is_cased(cp);
        bool is_upper = utf8proc_tolower((utf8proc_int32_t)cp) != (int32_t)cp;
        if (how == CASE_FOLD) put_folded(r, cp);
        else if (how == CASE_UPPER || (how == CASE_SWAP && !is_upper)) put_upper(r, cp, false);
        else if ((how == CASE_TITLE || how == CASE_CAPITALIZE) && initial) put_upper(r, cp, true);
        else put_lower(r, t, i, cp);
    }
    return like_value(jinja_cut_text(r, mark), of);
}

/* ---- replace, split, lines ---- */

/* An empty `old` stands before each character and at the end. */
static value replace_empty(render *r, value of, const text_change *change) {
    const text *t = of.text;
    size_t      mark = jinja_mark(r);
    int64_t     left = change->count_max < 0 ? INT64_MAX : change->count_max;
    for (uint32_t i = 0, cp, length; i < t->size; i += length) {
        length = (uint32_t)utf8_decode(t->data + i, t->size - i, &cp);
        if (left > 0) left--, jinja_show(r, text_value(change->new));
        jinja_put(r, t->data + i, length);
    }
    if (left > 0) jinja_show(r, text_value(change->new));
    return like_value(jinja_cut_text(r, mark), of);
}

value jinja_text_replace(render *r, value of, const text_change *change) {
    const text *t = of.text;
    if (change->old->size == 0) return replace_empty(r, of, change);
    size_t  mark = jinja_mark(r), from = 0;
    int64_t left = change->count_max < 0 ? INT64_MAX : change->count_max, found;
    while (left-- > 0 && (found = jinja_text_find(r, t, change->old, from, t->size)) >= 0) {
        jinja_put(r, t->data + from, (size_t)found - from);
        jinja_show(r, text_value(change->new));
        from = (size_t)found + change->old->size;
    }
    if (from == 0) return of;
    jinja_put(r, t->data + from, t->size - from);
    return like_value(jinja_cut_text(r, mark), of);
}

static value split_at_space(render *r, value of, int64_t splits_max) {
    const text *t = of.text;
    growing     parts = {0};
    uint32_t    i = 0, cp, length;
    jinja_work_bytes(r, t->size);
    for (;;) {
        while (i < t->size && (length = (uint32_t)utf8_decode(t->data + i, t->size - i, &cp), jinja_text_is_space(cp)))
            i += length;
        if (i == t->size) break;
        uint32_t from = i;
        if (splits_max >= 0 && parts.count == splits_max) {
            jinja_grow(r, &parts, jinja_text_part(r, of, from, t->size));
            break;
        }
        while (i < t->size && (length = (uint32_t)utf8_decode(t->data + i, t->size - i, &cp), !jinja_text_is_space(cp)))
            i += length;
        jinja_grow(r, &parts, jinja_text_part(r, of, from, i));
    }
    return jinja_grown(r, &parts);
}

static void check_separator(render *r, const text *separator) {
    if (separator->size == 0) FAIL(r, "empty separator");
}

value jinja_text_split(render *r, value of, const text *separator, int64_t splits_max) {
    if (!separator) return split_at_space(r, of, splits_max);
    check_separator(r, separator);
    const text *t = of.text;
    growing     parts = {0};
    size_t      from = 0;
    int64_t     found;
    while ((splits_max < 0 || parts.count < splits_max) && (found = jinja_text_find(r, t, separator, from, t->size)) >= 0) {
        jinja_grow(r, &parts, jinja_text_part(r, of, (uint32_t)from, (uint32_t)found));
        from = (size_t)found + separator->size;
    }
    jinja_grow(r, &parts, jinja_text_part(r, of, (uint32_t)from, t->size));
    return jinja_grown(r, &parts);
}

static void reverse_parts(growing *parts) {
    for (uint32_t i = 0, j = parts->count; i + 1 < j; i++) {
        value swap = parts->items[i];
        parts->items[i] = parts->items[--j], parts->items[j] = swap;
    }
}

static value rsplit_at_space(render *r, value of, int64_t splits_max) {
    const text *t = of.text;
    growing     parts = {0};
    uint32_t    to = t->size, start;
    for (;;) {
        while (to && jinja_text_is_space(char_before(t, to, &start))) to = start;
        if (to == 0) break;
        if (splits_max >= 0 && parts.count == splits_max) {
            jinja_grow(r, &parts, jinja_text_part(r, of, 0, to));
            break;
        }
        uint32_t from = to;
        while (from && !jinja_text_is_space(char_before(t, from, &start))) from = start;
        jinja_grow(r, &parts, jinja_text_part(r, of, from, to));
        to = from;
    }
    reverse_parts(&parts);
    return jinja_grown(r, &parts);
}

value jinja_text_rsplit(render *r, value of, const text *separator, int64_t splits_max) {
    if (!separator) return rsplit_at_space(r, of, splits_max);
    check_separator(r, separator);
    const text *t = of.text;
    growing     parts = {0};
    size_t      to = t->size;
    int64_t     found;
    while ((splits_max < 0 || parts.count < splits_max) && (found = jinja_text_rfind(r, t, separator, 0, to)) >= 0) {
        jinja_grow(r, &parts, jinja_text_part(r, of, (uint32_t)found + separator->size, (uint32_t)to));
        to = (size_t)found;
    }
    jinja_grow(r, &parts, jinja_text_part(r, of, 0, (uint32_t)to));
    reverse_parts(&parts);
    return jinja_grown(r, &parts);
}

static bool ends_line(uint32_t c) {
    return (c >= '\n' && c <= '\r') || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

value jinja_text_lines(render *r, value of, bool keep_ends) {
    const text *t = of.text;
    growing     lines = {0};
    uint32_t    from = 0;
    jinja_work_bytes(r, t->size);
    for (uint32_t i = 0, cp; i < t->size;) {
        uint32_t start = i;
        i += (uint32_t)utf8_decode(t->data + i, t->size - i, &cp);
        if (!ends_line(cp)) continue;
        if (cp == '\r' && i < t->size && t->data[i] == '\n') i++;
        jinja_grow(r, &lines, jinja_text_part(r, of, from, keep_ends ? i : start));
        from = i;
    }
    if (from < t->size) jinja_grow(r, &lines, jinja_text_part(r, of, from, t->size));
    return jinja_grown(r, &lines);
}

/* ---- slices, padding ---- */

value jinja_text_slice(render *r, value of, value start, value stop, value step) {
    const text *t = of.text;
    int64_t     first;
    value       bounds[3] = {start, stop, step};
    int64_t     count = jinja_slice_bounds(r, t->chars, bounds, &first), by = bounds[2].integer;
    if (count == 0) return jinja_text_part(r, of, 0, 0);
    if (by == 1) {
        uint32_t from = jinja_text_offset(r, t, (uint32_t)first);
        text     rest = {t->data + from, t->size - from, t->chars - (uint32_t)first};
        return jinja_text_part(r, of, from, from + jinja_text_offset(r, &rest, (uint32_t)count));
    }
    /* Characters are collected going forward from the leftmost one; a negative step turns them round at the end. */
    int64_t   low = by > 0 ? first : first + (count - 1) * by, stride = by > 0 ? by : -by;
    size_t    mark = jinja_mark(r);
    uint32_t *at = jinja_arena_take(&r->arena, (size_t)count + 1, sizeof *at);
    uint32_t  offset = jinja_text_offset(r, t, (uint32_t)low);
    for (int64_t i = 0; i < count; i++) {
        at[i] = offset;
        text rest = {t->data + offset, t->size - offset, t->chars - (uint32_t)(low + i * stride)};
        if (i + 1 < count) offset += jinja_text_offset(r, &rest, (uint32_t)stride);
    }
    for (int64_t i = 0; i < count; i++) {
        uint32_t cp, from = at[by > 0 ? i : count - 1 - i];
        jinja_put(r, t->data + from, (size_t)utf8_decode(t->data + from, t->size - from, &cp));
    }
    return like_value(jinja_cut_text(r, mark), of);
}

value jinja_text_pad(render *r, value of, int64_t width, const text *fill, int where) {
    const text *t = of.text;
    if (fill && fill->chars != 1) FAIL(r, "The fill character must be exactly one character long");
    if (width <= t->chars) return of;
    int64_t missing = width - t->chars;
    int64_t left = where < 0 ? 0 : where > 0 ? missing : missing / 2 + (missing & width & 1);
    size_t  mark = jinja_mark(r);
    if (!fill) fill = jinja_text_within(&r->arena, " ", 1);
    if ((uint64_t)missing > r->steps_left) jinja_out_of_steps(r);
    for (int64_t i = 0; i < left; i++) jinja_show(r, text_value(fill));
    jinja_show(r, of);
    for (int64_t i = left; i < missing; i++) jinja_show(r, text_value(fill));
    return like_value(jinja_cut_text(r, mark), of);
}
