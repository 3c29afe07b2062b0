/* models/template_text.h: texts as Python's strings: sequences of characters, with Unicode's cases. The argument `of` is a
 * V_TEXT; the result is markup where that was. */
#pragma once
#include "models/template_value.h"

uint32_t jinja_text_offset(render *r, const text *t, uint32_t index);       /* byte offset of character `index` */
uint32_t jinja_text_chars_before(render *r, const text *t, uint32_t bytes); /* characters in the first `bytes` */
value    jinja_text_part(render *r, value of, uint32_t from_byte, uint32_t to_byte);
int64_t  jinja_text_find(render *r, const text *t, const text *part, size_t from_byte, size_t to_byte); /* byte, or -1 */
int64_t  jinja_text_rfind(render *r, const text *t, const text *part, size_t from_byte, size_t to_byte);
bool     jinja_text_is_space(uint32_t codepoint);
bool     jinja_text_is_printable(uint32_t codepoint);
bool     jinja_text_is_word(uint32_t codepoint);
enum { STRIP_LEFT = 1, STRIP_RIGHT = 2 };
value jinja_text_strip(render *r, value of, value chars, unsigned sides);
typedef enum { CASE_UPPER, CASE_LOWER, CASE_TITLE, CASE_FOLD, CASE_SWAP, CASE_CAPITALIZE } text_case;
value jinja_text_recase(render *r, value of, text_case how);
typedef struct {
    const text *old, *new;
    int64_t     count_max; /* negative: all */
} text_change;
value jinja_text_replace(render *r, value of, const text_change *change);
value jinja_text_split(render *r, value of, const text *separator_or_null, int64_t splits_max);
value jinja_text_rsplit(render *r, value of, const text *separator_or_null, int64_t splits_max);
value jinja_text_lines(render *r, value of, bool keep_ends);
value jinja_text_slice(render *r, value of, value start, value stop, value step);
value jinja_text_pad(render *r, value of, int64_t width, const text *fill, int where); /* <0 left, 0 center, >0 right */

/* ---- template_format.c ---- */

value jinja_format_percent(render *r, value format, value with); /* "%s" % x */
value jinja_format_braces(render *r, value format, const call_args *args,
                          const dict *mapping_or_null);                       /* format, format_map */
bool  jinja_parse_int(const text *t, int base, int64_t *out, bool *overflow); /* as int(str, base) */
bool  jinja_parse_real(const text *t, double *out);
