/* base/option_value.c: the text of one setting checked and made into a number. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/options_table.h"

typedef struct {
    const char *suffix;
    double      factor;
} unit;

static const unit size_units[] = {{"", 1},         {"B", 1},      {"K", 0x1p10},   {"KiB", 0x1p10}, {"M", 0x1p20},
                                  {"MiB", 0x1p20}, {"G", 0x1p30}, {"GiB", 0x1p30}, {"T", 0x1p40},   {"TiB", 0x1p40}};
static const unit time_units[] = {{"", 1e6}, {"us", 1}, {"ms", 1e3}, {"s", 1e6}, {"min", 60e6}, {"h", 3600e6}};

static bool out_of_bounds(const option_row *row, double v) {
    return (row->min != 0 || row->max != 0) && !(v >= row->min && v <= row->max);
}

static int refuse_bounds(const option_row *row, const char *label, const char *text, const char *what, error *err) {
    return error_set(err, ERR_INVALID, "%s must be between %.15g and %.15g%s, not %s", label, row->min, row->max, what,
                     text);
}

/* Digits with at most one dot, no sign, no exponent, no "inf"; the end of it in *end. */
static bool read_decimal(const char *text, double *out, const char **end) {
    size_t digits = strspn(text, "0123456789"), n = digits;
    if (text[n] == '.') {
        size_t fraction = strspn(text + n + 1, "0123456789");
        digits += fraction, n += 1 + fraction;
    }
    char copy[64];
    if (!digits || n >= sizeof copy) return false;
    memcpy(copy, text, n), copy[n] = 0;
    *out = strtod(copy, NULL), *end = text + n;
    return true;
}

static bool read_with_unit(const char *text, const unit *units, size_t unit_count, double *out) {
    const char *suffix;
    double      v;
    if (!read_decimal(text, &v, &suffix)) return false;
    while (*suffix == ' ') suffix++;
    for (size_t i = 0; i < unit_count; i++)
        if (strcmp(suffix, units[i].suffix) == 0) {
            *out = v * units[i].factor;
            return *out < 0x1p63;
        }
    return false;
}

static int parse_bool(const option_row *row, const char *label, const char *text, option_value *out, error *err) {
    static const char *const words[][2] = {{"yes", "no"}, {"true", "false"}, {"on", "off"}, {"1", "0"}};
    (void)row;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        for (int no = 0; no < 2; no++)
            if (strcmp(text, words[i][no]) == 0) return out->boolean = !no, OK;
    return error_set(err, ERR_INVALID, "%s must be yes or no, not '%s'", label, text);
}

static int parse_u32(const option_row *row, const char *label, const char *text, option_value *out, error *err) {
    size_t n = strlen(text);
    if (!n || strspn(text, "0123456789") != n)
        return error_set(err, ERR_INVALID, "%s must be a whole number, not '%s'", label, text);
    errno = 0;
    out->integer = strtoull(text, NULL, 10);
    if (errno || out_of_bounds(row, (double)out->integer)) return refuse_bounds(row, label, text, "", err);
    if (out->integer > UINT32_MAX)
        return error_set(err, ERR_INVALID, "%s must be at most %u, not %s", label, UINT32_MAX, text);
    return OK;
}

static int parse_i32(const option_row *row, const char *label, const char *text, option_value *out, error *err) {
    size_t      sign = text[0] == '-', n = strspn(text + sign, "0123456789");
    const char *end = text + sign + n;
    if (!n || *end) return error_set(err, ERR_INVALID, "%s must be a whole number, not '%s'", label, text);
    errno = 0;
    long long v = strtoll(text, NULL, 10);
    if (errno || out_of_bounds(row, (double)v)) return refuse_bounds(row, label, text, "", err);
    if (v < INT32_MIN || v > INT32_MAX)
        return error_set(err, ERR_INVALID, "%s must be between %d and %d, not %s", label, INT32_MIN, INT32_MAX, text);
    out->integer = (uint64_t)v;
    return OK;
}

static int parse_f64(const option_row *row, const char *label, const char *text, option_value *out, error *err) {
    char *end;
    out->real = strtod(text, &end);
    if (!*text || *end || !isfinite(out->real))
        return error_set(err, ERR_INVALID, "%s must be a number, not '%s'", label, text);
    return out_of_bounds(row, out->real) ? refuse_bounds(row, label, text, "", err) : OK;
}

static int parse_size(const option_row *row, const char *label, const char *text, option_value *out, error *err) {
    double bytes;
    if (!read_with_unit(text, size_units, sizeof size_units / sizeof *size_units, &bytes))
        return error_set(err, ERR_INVALID, "%s must be a size such as 512M, 2GiB or 1.5G (powers of 1024), not '%s'", label,
                         text);
    out->integer = (uint64_t)bytes;
    return out_of_bounds(row, bytes) ? refuse_bounds(row, label, text, " bytes", err) : OK;
}

static int parse_duration(const option_row *row, const char *label, const char *text, option_value *out, error *err) {
    double us;
    if (!read_with_unit(text, time_units, sizeof time_units / sizeof *time_units, &us))
        return error_set(err, ERR_INVALID, "%s must be a time such as 250ms, 30s or 5min, not '%s'", label, text);
    out->integer = (uint64_t)us;
    return out_of_bounds(row, us * 1e-6) ? refuse_bounds(row, label, text, " seconds", err) : OK;
}

static int parse_string(const option_row *row, const char *label, const char *text, option_value *out, error *err) {
    (void)row, (void)out;
    for (const char *p = text; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7F)
            return error_set(err, ERR_INVALID, "%s must not hold control characters such as a line break", label);
    return OK;
}

/* Index of the word among "a|b|c", or -1. */
static int find_choice(const char *choices, const char *value) {
    size_t n = strlen(value);
    int    index = 0;
    for (const char *p = choices; *p; index++) {
        size_t word = strcspn(p, "|");
        if (word == n && memcmp(p, value, n) == 0) return index;
        p += word + (p[word] == '|');
    }
    return -1;
}

int option_choice_index(const char *choices, const char *value) {
    int index = find_choice(choices, value);
    check(index >= 0);
    return index;
}

static int parse_choice(const option_row *row, const char *label, const char *text, option_value *out, error *err) {
    (void)out;
    if (find_choice(row->choices, text) >= 0) return OK;
    return error_set(err, ERR_INVALID, "%s must be one of %s, not '%s'", label, row->choices, text);
}

int option_parse(const option_row *row, const char *label, const char *text, option_value *out, error *err) {
    static int (*const parsers[])(const option_row *, const char *, const char *, option_value *, error *) = {
        [OPTION_BOOL] = parse_bool,         [OPTION_U32] = parse_u32,       [OPTION_U64_SIZE] = parse_size,
        [OPTION_F64] = parse_f64,           [OPTION_STRING] = parse_string, [OPTION_CHOICE] = parse_choice,
        [OPTION_DURATION] = parse_duration, [OPTION_I32] = parse_i32};
    *out = (option_value){0};
    if (strlen(text) > OPTION_TEXT_MAX)
        return error_set(err, ERR_TOO_LARGE, "%s is longer than %d bytes", label, OPTION_TEXT_MAX);
    return parsers[row->kind](row, label, text, out, err);
}

void option_store(const option_row *row, void *settings, const option_value *value, const char *text) {
    void *field = (char *)settings + row->offset;
    switch (row->kind) {
    case OPTION_BOOL: *(bool *)field = value->boolean; break;
    case OPTION_U32: *(uint32_t *)field = (uint32_t)value->integer; break;
    case OPTION_I32: *(int32_t *)field = (int32_t)(int64_t)value->integer; break;
    case OPTION_F64: *(double *)field = value->real; break;
    case OPTION_U64_SIZE:
    case OPTION_DURATION: *(uint64_t *)field = value->integer; break;
    case OPTION_STRING:
    case OPTION_CHOICE: *(const char **)field = text; break;
    }
}
