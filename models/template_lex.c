/* models/template_lex.c: a template's source cut into tokens.
 *
 * Outside tags everything is data; what makes Jinja's data hard is whitespace. With trim_blocks a newline right after a
 * block tag or comment goes; with lstrip_blocks the blanks between the start of a line and such a tag go; a '-' inside a
 * tag takes all whitespace on its side and a '+' keeps it all. Variables ({{ }}) only know '-'. */
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/utf8.h"
#include "models/template_node.h"
#include "models/template_text.h"

enum { IN_DATA, IN_BLOCK, IN_VARIABLE };

#define LEX_FAIL(x, ...) jinja_fail(jinja_trap_at((x)->trap, (x)->line), ERR_INVALID, __VA_ARGS__)

/* All newlines become \n, and one at the very end goes. */
void jinja_lex_start(lexer *x, arena *a, const char *source, size_t n) {
    char  *copy = jinja_arena_take(a, n, 1);
    size_t size = 0;
    for (size_t i = 0; i < n; i++) {
        if (source[i] == '\r' && i + 1 < n && source[i + 1] == '\n') continue;
        copy[size++] = source[i] == '\r' ? '\n' : source[i];
    }
    if (size && copy[size - 1] == '\n') size--;
    *x = (lexer){.arena = a, .trap = a->trap, .source = copy, .size = (uint32_t)size, .line = 1};
}

static bool starts(const lexer *x, uint32_t at, const char *what) {
    size_t n = strlen(what);
    return at + n <= x->size && memcmp(x->source + at, what, n) == 0;
}

static void move_to(lexer *x, uint32_t at) {
    for (; x->at < at; x->at++) x->line += x->source[x->at] == '\n';
}

/* First byte after the whitespace at `at`. */
static uint32_t after_space(const lexer *x, uint32_t at) {
    uint32_t cp;
    int      length;
    while (at < x->size && (length = utf8_decode(x->source + at, x->size - at, &cp)) > 0 && jinja_text_is_space(cp))
        at += (uint32_t)length;
    return at;
}

static uint32_t without_space_behind(const lexer *x, uint32_t from, uint32_t to) {
    while (to > from) {
        uint32_t start = to - 1, cp;
        while (start > from && ((unsigned char)x->source[start] & 0xC0) == 0x80) start--;
        if (utf8_decode(x->source + start, to - start, &cp) <= 0 || !jinja_text_is_space(cp)) break;
        to = start;
    }
    return to;
}

/* What a tag that begins with `sign` leaves of the data x->source[from..to) in front of it. */
static uint32_t trimmed_end(const lexer *x, uint32_t from, uint32_t to, char sign, bool is_variable) {
    if (sign == '-') return without_space_behind(x, from, to);
    if (sign == '+' || is_variable) return to;
    uint32_t line_start = to;
    while (line_start > from && x->source[line_start - 1] != '\n') line_start--;
    bool at_line_start = line_start > from || from == 0 || x->source[from - 1] == '\n';
    if (at_line_start && line_start < to && without_space_behind(x, line_start, to) == line_start) return line_start;
    return to;
}

static char sign_at(const lexer *x, uint32_t at) {
    return at < x->size && (x->source[at] == '-' || x->source[at] == '+') ? x->source[at] : 0;
}

/* If a block tag or comment ends at `at`: the byte after it and what it takes with it, else 0. */
static uint32_t after_end(const lexer *x, uint32_t at, const char *end) {
    if (at < x->size && x->source[at] == '+' && starts(x, at + 1, end)) return at + 3;
    if (at < x->size && x->source[at] == '-' && starts(x, at + 1, end)) return after_space(x, at + 3);
    if (!starts(x, at, end)) return 0;
    return at + 2 + (starts(x, at + 2, "\n") ? 1 : 0);
}

static uint32_t after_variable_end(const lexer *x, uint32_t at) {
    if (starts(x, at, "-}}")) return after_space(x, at + 3);
    return starts(x, at, "}}") ? at + 2 : 0;
}

static token data_token(const lexer *x, uint32_t from, uint32_t to, uint32_t line) {
    return (token){.kind = T_DATA, .line = line, .data = x->source + from, .size = to - from};
}

static void skip_comment(lexer *x) {
    uint32_t line = x->line;
    for (uint32_t at = x->at + 2, after; at < x->size; at++)
        if ((after = after_end(x, at, "#}"))) {
            move_to(x, after);
            return;
        }
    bool nothing_follows = x->at + 2 == x->size; /* which Jinja's rules let pass */
    move_to(x, x->size);
    x->line = line;
    if (!nothing_follows) LEX_FAIL(x, "a comment that begins here has no end");
}

/* {% raw %} at `at`: the byte after it, else 0. */
static uint32_t after_raw(const lexer *x, uint32_t at, const char *name) {
    if (!starts(x, at, "{%")) return 0;
    at = after_space(x, at + 2 + (sign_at(x, at + 2) != 0));
    return starts(x, at, name) ? after_space(x, at + (uint32_t)strlen(name)) : 0;
}

static uint32_t after_raw_begin(const lexer *x, uint32_t at) {
    if (!(at = after_raw(x, at, "raw"))) return 0;
    if (starts(x, at, "-%}")) return after_space(x, at + 3);
    return starts(x, at, "%}") ? at + 2 : 0;
}

static token lex_raw(lexer *x, uint32_t after_begin) {
    uint32_t line = x->line;
    move_to(x, after_begin);
    uint32_t from = x->at, from_line = x->line;
    for (uint32_t at = from, after; at < x->size; at++) {
        if (x->source[at] != '{' || !(after = after_raw(x, at, "endraw")) || !(after = after_end(x, after, "%}"))) continue;
        move_to(x, after);
        return data_token(x, from, trimmed_end(x, from, at, sign_at(x, at + 2), false), from_line);
    }
    if (from == x->size) return data_token(x, from, from, from_line);
    x->line = line;
    LEX_FAIL(x, "a raw block that begins here has no end");
}

static uint32_t next_tag(const lexer *x, uint32_t at) {
    for (; at + 1 < x->size; at++)
        if (x->source[at] == '{' && (x->source[at + 1] == '{' || x->source[at + 1] == '%' || x->source[at + 1] == '#'))
            return at;
    return x->size;
}

/* The tag at x->at, after its data was handed out: goes into it, past a comment, or through a raw block. */
static token lex_tag(lexer *x) {
    uint32_t after, line = x->line;
    char     what = x->source[x->at + 1];
    if ((after = after_raw_begin(x, x->at))) return lex_raw(x, after);
    if (what == '#') {
        skip_comment(x);
        return data_token(x, x->at, x->at, line);
    }
    x->state = what == '{' ? IN_VARIABLE : IN_BLOCK;
    move_to(x, x->at + 2 + (sign_at(x, x->at + 2) != 0));
    return (token){.kind = what == '{' ? T_VARIABLE_BEGIN : T_BLOCK_BEGIN, .line = line, .data = "", .size = 0};
}

static token lex_data(lexer *x) {
    for (;;) {
        uint32_t from = x->at, line = x->line, tag = next_tag(x, from);
        if (tag == x->size) {
            move_to(x, x->size);
            return from < x->size ? data_token(x, from, x->size, line) : (token){.kind = T_EOF, .line = line, .data = ""};
        }
        uint32_t to = trimmed_end(x, from, tag, sign_at(x, tag + 2), x->source[tag + 1] == '{');
        if (to > from) {
            move_to(x, tag); /* the next call finds the tag right here, and nothing in front of it */
            return data_token(x, from, to, line);
        }
        move_to(x, tag);
        token t = lex_tag(x);
        if (t.kind != T_DATA || t.size) return t;
    }
}

/* ---- inside tags ---- */

static const struct {
    char    spelling[3];
    uint8_t kind;
} operators[] = {
    {"//", T_FLOORDIV}, {"**", T_POW},      {"==", T_EQ},    {"!=", T_NE},    {">=", T_GE},    {"<=", T_LE},
    {"+", T_ADD},       {"-", T_SUB},       {"/", T_DIV},    {"*", T_MUL},    {"%", T_MOD},    {"~", T_TILDE},
    {"[", T_LBRACKET},  {"]", T_RBRACKET},  {"(", T_LPAREN}, {")", T_RPAREN}, {"{", T_LBRACE}, {"}", T_RBRACE},
    {">", T_GT},        {"<", T_LT},        {"=", T_ASSIGN}, {".", T_DOT},    {":", T_COLON},  {"|", T_PIPE},
    {",", T_COMMA},     {";", T_SEMICOLON},
};

static void balance(lexer *x, char c) {
    const char *opening = "([{", *closing = ")]}", *at;
    if ((at = strchr(opening, c))) {
        if (x->open_count == NESTING_MAX) LEX_FAIL(x, "brackets nest deeper than %d levels", NESTING_MAX);
        x->open[x->open_count++] = closing[at - opening];
    } else if (strchr(closing, c)) {
        if (x->open_count == 0) LEX_FAIL(x, "unexpected '%c'", c);
        if (x->open[--x->open_count] != c) LEX_FAIL(x, "unexpected '%c', expected '%c'", c, x->open[x->open_count]);
    }
}

static token lex_operator(lexer *x) {
    token t = {.line = x->line, .data = x->source + x->at};
    for (size_t i = 0; i < sizeof operators / sizeof *operators; i++) {
        if (!starts(x, x->at, operators[i].spelling)) continue;
        t.kind = operators[i].kind, t.size = (uint32_t)strlen(operators[i].spelling);
        if (t.size == 1) balance(x, *t.data);
        x->at += t.size;
        return t;
    }
    uint32_t cp = 0;
    int      length = utf8_decode(t.data, x->size - x->at, &cp);
    LEX_FAIL(x, "unexpected character '%.*s'", length > 0 ? length : 1, t.data);
}

static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static int  digit_value(char c) {
     if (is_digit(c)) return c - '0';
    c |= 0x20;
     return c >= 'a' && c <= 'f' ? c - 'a' + 10 : 99;
}

/* End of a run of digits of `base` from `at`, where single underscores may stand between digits. */
static uint32_t digits_end(const lexer *x, uint32_t at, int base) {
    while (at < x->size && (digit_value(x->source[at]) < base ||
                            (x->source[at] == '_' && at + 1 < x->size && digit_value(x->source[at + 1]) < base)))
        at++;
    return at;
}

static uint32_t float_end(const lexer *x, uint32_t from) { /* 0: not a float */
    uint32_t at = digits_end(x, from, 10);
    bool     is_float = false;
    if (from && x->source[from - 1] == '.') return 0;
    if (starts(x, at, ".") && at + 1 < x->size && is_digit(x->source[at + 1]))
        at = digits_end(x, at + 1, 10), is_float = true;
    if (at < x->size && (x->source[at] | 0x20) == 'e') {
        uint32_t exponent = at + 1 + (sign_at(x, at + 1) != 0);
        if (exponent < x->size && is_digit(x->source[exponent])) at = digits_end(x, exponent, 10), is_float = true;
    }
    return is_float ? at : 0;
}

static token lex_real(lexer *x, uint32_t end) {
    char  *digits = jinja_arena_take(x->arena, end - x->at + 1, 1);
    size_t n = 0;
    token  t = {.kind = T_FLOAT, .line = x->line, .data = x->source + x->at, .size = end - x->at};
    for (; x->at < end; x->at++)
        if (x->source[x->at] != '_') digits[n++] = x->source[x->at];
    t.real = strtod(digits, NULL);
    return t;
}

static token lex_integer(lexer *x) {
    token    t = {.kind = T_INTEGER, .line = x->line, .data = x->source + x->at};
    char     mark = x->at + 1 < x->size && x->source[x->at] == '0' ? x->source[x->at + 1] | 0x20 : 0;
    int      base = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 10;
    uint32_t end = base == 10 ? 0 : digits_end(x, x->at + 2, base);
    if (base != 10 && end == x->at + 2) base = 10;
    if (base == 10) end = x->source[x->at] == '0' ? digits_end(x, x->at, 1) : digits_end(x, x->at, 10);
    for (uint32_t at = x->at + (base == 10 ? 0 : 2); at < end; at++)
        if (x->source[at] != '_' && (__builtin_mul_overflow(t.integer, base, &t.integer) ||
                                     __builtin_add_overflow(t.integer, digit_value(x->source[at]), &t.integer)))
            LEX_FAIL(x, "the integer %.*s is larger than 64 bits", (int)(end - x->at > 100 ? 100 : end - x->at), t.data);
    t.size = end - x->at;
    x->at = end;
    return t;
}

static bool is_name_start(uint32_t c) {
    if (c < 0x80) return (c | 0x20) - 'a' < 26 || c == '_';
    return jinja_text_is_word(c) && utf8proc_category((utf8proc_int32_t)c) != UTF8PROC_CATEGORY_ND;
}

static token lex_name(lexer *x) {
    token    t = {.kind = T_NAME, .line = x->line, .data = x->source + x->at};
    uint32_t cp;
    int      length;
    while (x->at < x->size && (length = utf8_decode(x->source + x->at, x->size - x->at, &cp)) > 0 && jinja_text_is_word(cp))
        x->at += (uint32_t)length;
    t.size = (uint32_t)(x->source + x->at - t.data);
    return t;
}

/* `count` hexadecimal (or up to `count` octal) digits at *at. */
static uint32_t escape_digits(lexer *x, uint32_t *at, uint32_t end, int count, int base) {
    uint32_t v = 0;
    int      seen = 0;
    for (; seen < count && *at < end && digit_value(x->source[*at]) < base; seen++)
        v = v * (uint32_t)base + (uint32_t)digit_value(x->source[(*at)++]);
    if (base == 16 && seen < count) LEX_FAIL(x, "a string holds a truncated \\x, \\u or \\U escape");
    return v;
}

/* The escape after the backslash at x->source[*at - 1]: appends its bytes to out, returns how many. */
static size_t resolve_escape(lexer *x, uint32_t *at, uint32_t end, char *out) {
    static const char plain[] = {['n'] = '\n', ['t'] = '\t', ['r'] = '\r',  ['a'] = 7,     ['b'] = 8,
                                 ['f'] = 12,   ['v'] = 11,   ['\\'] = '\\', ['\''] = '\'', ['"'] = '"'};
    unsigned char     c = (unsigned char)x->source[(*at)++];
    uint32_t          cp;
    if (c == '\n') return 0;
    if (c < sizeof plain && plain[c]) return out[0] = plain[c], 1;
    if (c == 'x' || c == 'u' || c == 'U') cp = escape_digits(x, at, end, c == 'x' ? 2 : c == 'u' ? 4 : 8, 16);
    else if (c >= '0' && c <= '7') --*at, cp = escape_digits(x, at, end, 3, 8);
    else if (c == 'N') LEX_FAIL(x, "a string holds \\N{...}; write the character itself or its number (\\u....)");
    else return out[0] = '\\', out[1] = (char)c, 2; /* an unknown escape stays as it is */
    if (cp > 0x10FFFF || (cp >= 0xD800 && cp < 0xE000))
        LEX_FAIL(x, "a string holds an escape for U+%X, which is no character", cp);
    return (size_t)utf8_encode(cp, out);
}

static token lex_string(lexer *x) {
    char     quote = x->source[x->at];
    uint32_t from = x->at + 1, end = from;
    while (end < x->size && x->source[end] != quote) end += x->source[end] == '\\' ? 2 : 1;
    if (end >= x->size) LEX_FAIL(x, "a string that begins here has no end");
    char *bytes = jinja_arena_take(x->arena, end - from + 1, 1); /* no escape is shorter than what it stands for */
    token t = {.kind = T_STRING, .line = x->line, .data = bytes};
    for (uint32_t at = from; at < end;) {
        if (x->source[at] != '\\') bytes[t.size++] = x->source[at++];
        else at++, t.size += (uint32_t)resolve_escape(x, &at, end, bytes + t.size);
    }
    move_to(x, end + 1);
    return t;
}

static bool lex_end(lexer *x, token *t) {
    if (x->open_count) return false;
    uint32_t after = x->state == IN_BLOCK ? after_end(x, x->at, "%}") : after_variable_end(x, x->at);
    if (!after) return false;
    *t = (token){.kind = x->state == IN_BLOCK ? T_BLOCK_END : T_VARIABLE_END, .line = x->line, .data = ""};
    move_to(x, after);
    x->state = IN_DATA;
    return true;
}

token jinja_lex(lexer *x) {
    token t;
    if (x->state == IN_DATA) return lex_data(x);
    if (lex_end(x, &t)) return t;
    move_to(x, after_space(x, x->at));
    if (lex_end(x, &t)) return t;
    if (x->at == x->size) return (token){.kind = T_EOF, .line = x->line, .data = ""};
    uint32_t cp, end;
    char     c = x->source[x->at];
    if (is_digit(c)) return (end = float_end(x, x->at)) ? lex_real(x, end) : lex_integer(x);
    if (c == '"' || c == '\'') return lex_string(x);
    if (utf8_decode(x->source + x->at, x->size - x->at, &cp) > 0 && is_name_start(cp)) return lex_name(x);
    return lex_operator(x);
}
