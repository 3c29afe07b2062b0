/* base/json.h: what is refused before cJSON sees it, and what is remembered of numbers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <regex.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/json.h"
#include "base/json_scan.h"
#include "base/rng.h"
#include "base/utf8.h"

static cJSON *parse(const char *text) { return json_parse(text, strlen(text), 8, NULL); }

static void refuse(const char *text, size_t n, const char *why) {
    error  err = {0};
    cJSON *value = json_parse(text, n, 8, &err);
    if (value) fail_msg("accepted: %s", text);
    if (!strstr(err.text, why)) fail_msg("'%s' does not say '%s'", err.text, why);
}
#define REFUSE(text, why) refuse(text, sizeof(text) - 1, why)

static void what_cjson_lets_through_is_refused(void **state) {
    (void)state;
    REFUSE("\"\xFF\"", "not valid UTF-8 at offset 1");
    REFUSE("\"12345678\xC3\"", "not valid UTF-8 at offset 9");
    REFUSE("\"\\\xFF\"", "not valid UTF-8 at offset 2");
    REFUSE("[\xFF]", "not valid UTF-8 at offset 1");
    REFUSE("\"\xED\xA0\x80\"", "not valid UTF-8"); /* a surrogate */
    REFUSE("\"\xC0\x80\"", "not valid UTF-8");     /* an overlong NUL */
    REFUSE("\"a\0b\"", "NUL byte at offset 2");
    REFUSE("[1,\0 2]", "NUL byte at offset 3");
    REFUSE("\"\\\0\"", "NUL byte at offset 2");
    REFUSE("\"1234567\n\"", "control character in a string at offset 8");
    REFUSE("\"\\u0000\"", "\\u0000 at offset 1");
    REFUSE("[[[[[[[[[1]]]]]]]]]", "deeper than 8 levels at offset 8");
    REFUSE("{} x", "after the JSON value at offset 3");
    REFUSE("{\"a\":}", "malformed");
    REFUSE("\"open", "malformed");
    REFUSE("\"open\\", "malformed");
    REFUSE("", "malformed");
    REFUSE("\"\\u12g4\"", "malformed"); /* of which cJSON makes a NUL */
    REFUSE("\"\\ud83d\"", "malformed");
    REFUSE("\"\\udca7\"", "malformed");
    REFUSE("\"\\ud83d\\u0041\"", "malformed");
    REFUSE("\"\\x\"", "malformed");
    REFUSE("[1,]", "malformed");
    REFUSE("{\"a\":1,}", "malformed");
}

static void text_of_every_language_passes_as_it_is(void **state) {
    (void)state;
    cJSON *value = parse("\"\\\\u0000 caf\xC3\xA9 \xE6\xB0\xB4 \xF0\x9F\x92\xA7 {[]}\"");
    assert_non_null(value);
    assert_string_equal(value->valuestring, "\\u0000 caf\xC3\xA9 \xE6\xB0\xB4 \xF0\x9F\x92\xA7 {[]}");
    cJSON_Delete(value);
}

static void escapes_mean_what_they_say_and_a_byte_order_mark_is_passed_over(void **state) {
    (void)state;
    cJSON *value = parse("\xEF\xBB\xBF [\"\\\"\\\\\\/\\b\\f\\n\\r\\t \\u0041\\u00E9\\u6c34\\ud83d\\udca7.\"]");
    assert_non_null(value);
    assert_string_equal(value->child->valuestring, "\"\\/\b\f\n\r\t A\xC3\xA9\xE6\xB0\xB4\xF0\x9F\x92\xA7.");
    cJSON_Delete(value);
}

static void how_a_number_was_written_is_remembered(void **state) {
    (void)state;
    static const struct {
        const char *text;
        bool        whole;
        int64_t     value;
    } cases[] = {
        {"3", true, 3},
        {"-7", true, -7},
        {"3.0", false, 0},
        {"1e2", false, 0},
        {"1E2", false, 0},
        {"9007199254740993", true, 9007199254740993},
        {"9223372036854775807", true, INT64_MAX},
        {"-9223372036854775808", true, INT64_MIN},
        {"9223372036854775808", false, 0},
        {"123456789012345", true, 123456789012345},
    };
    enum { COUNT = sizeof cases / sizeof *cases };
    /* all in one document, with numbers inside strings that must not be counted */
    buf text;
    buf_init(&text, 4096);
    buf_str(&text, "{\"1.5\":\"2.5 \\\" 3.5\",\"a\":[");
    for (int i = 0; i < COUNT; i++) buf_printf(&text, i ? ",[%s,\"4.5\"]" : "[%s,\"4.5\"]", cases[i].text);
    buf_str(&text, "]}");
    cJSON *value = json_parse(text.data, text.size, 8, NULL);
    assert_non_null(value);
    const cJSON *item = json_get(value, "a")->child;
    for (int i = 0; i < COUNT; i++, item = item->next) {
        int64_t got = 0;
        if (json_whole_number(item->child, &got) != cases[i].whole) fail_msg("%s", cases[i].text);
        if (cases[i].whole) assert_true(got == cases[i].value);
    }
    cJSON_Delete(value);
    buf_free(&text);
}

static bool is_number_plainly(const char *text, size_t n) {
    static regex_t grammar;
    static bool    compiled;
    char           number[300];
    if (!compiled) assert_int_equal(regcomp(&grammar, "^-?(0|[1-9][0-9]*)([.][0-9]+)?([eE][+-]?[0-9]+)?$", REG_EXTENDED), 0);
    compiled = true;
    snprintf(number, sizeof number, "%.*s", (int)n, text);
    return regexec(&grammar, number, 0, NULL, 0) == 0;
}

/* The plain definition, byte by byte. */
static bool scan_plainly(const char *text, size_t n, unsigned depth_max) {
    unsigned depth = 0;
    bool     in_string = false;
    if (!utf8_valid(text, n) || memchr(text, 0, n)) return false;
    for (size_t i = 0; i < n; i++) {
        char   c = text[i];
        size_t number = 0;
        if (!in_string && (c == '-' || (c >= '0' && c <= '9')))
            while (i + number < n && strchr("0123456789.eE+-", text[i + number])) number++;
        if (number && !is_number_plainly(text + i, number)) return false;
        if (number) i += number - 1;
        if (!in_string && (unsigned char)c < 0x20 && !strchr("\t\n\r", c)) return false;
        if (in_string && (unsigned char)c < 0x20) return false;
        if (in_string && c == '\\') {
            if (n - i >= 6 && memcmp(text + i, "\\u0000", 6) == 0) return false;
            i++; /* whatever it is: json_tree refuses what is no escape, so control characters may stay for it */
        } else if (c == '"') {
            in_string = !in_string;
        } else if (!in_string && (c == '{' || c == '[')) {
            if (++depth > depth_max) return false;
        } else if (!in_string && (c == '}' || c == ']') && depth) {
            depth--;
        }
    }
    return true;
}

static void the_quick_look_sees_what_a_plain_one_sees(void **state) {
    (void)state;
    static const char *const pieces[] = {
        "\"",  "\\", "\\\"", "{",  "[",    "]",        "a",        "0",    "1.5",          "\\u0000", "-",
        "e+7", ".5", "12",   "\n", "\x01", "\xC3\xA9", "\xE6\xB0", "\xFF", "abcdefghijkl", "    ",    "\xF0\x9F\x92\xA7"};
    rng r = {.seed = 11};
    int accepted = 0;
    for (int round = 0; round < 100000; round++) {
        char   text[256];
        size_t n = 0;
        for (uint64_t k = rng_below(&r, 12); k > 0; k--) {
            const char *piece = pieces[rng_below(&r, round % 2 ? 22 : 14)];
            memcpy(text + n, piece, strlen(piece));
            n += strlen(piece);
        }
        char *exact = malloc(n ? n : 1); /* the sanitizer sees a read past it */
        memcpy(exact, text, n);
        const bool quick = json_scan_text(exact, n, 3, NULL) == OK, plain = scan_plainly(exact, n, 3);
        if (quick != plain) fail_msg("round %d: %.*s", round, (int)n, text);
        accepted += quick;
        free(exact);
    }
    assert_true(accepted > 10000);
}

/* What the scan lets through, cJSON's own parser and ours agree on: whether it is JSON, and the whole tree. */
static void the_tree_is_the_one_that_cjson_makes(void **state) {
    (void)state;
    static const char *const pieces[] = {
        "{",           "}",          "[",       "]",       ",",        ":",
        "\"a\"",       "\"b\":",     "1",       "-0",      "12.5",     "true",
        "false",       "null",       " ",       "\n",      "\"\"",     "1e3",
        "\"",          "\\\"",       "\\n",     "\\u00e9", "\\u6c34",  "\\ud83d",
        "\\udca7",     "\\/",        "tru",     "nullx",   "x",        "\xC3\xA9",
        "{}",          "[1,2]",      "{\"k\":", "\"s\",",  "\"\\\\\"", "1234567890123456789",
        "-2147483649", "2147483648", "1e400"};
    rng r = {.seed = 12};
    int accepted = 0;
    for (int round = 0; round < 300000; round++) {
        char   text[400];
        size_t n = 0;
        for (uint64_t k = rng_below(&r, 10); k > 0; k--) {
            const char *piece = pieces[rng_below(&r, sizeof pieces / sizeof *pieces)];
            memcpy(text + n, piece, strlen(piece));
            n += strlen(piece);
        }
        char *exact = malloc(n ? n : 1); /* the sanitizer sees a read past it */
        memcpy(exact, text, n);
        const bool  clean = json_scan_text(exact, n, 8, NULL) == OK;
        cJSON      *ours = json_parse(exact, n, 8, NULL), *theirs = NULL;
        const char *end = NULL;
        if (clean) theirs = cJSON_ParseWithLengthOpts(exact, n, &end, 0);
        while (theirs && end < exact + n && strchr(" \t\r\n", *end)) end++;
        const bool good = theirs && end == exact + n;
        if (good != (ours != NULL)) fail_msg("round %d: %.*s", round, (int)n, text);
        if (good) {
            char *a = cJSON_PrintUnformatted(ours), *b = cJSON_PrintUnformatted(theirs);
            if (strcmp(a, b) != 0) fail_msg("round %d: %s is not %s", round, a, b);
            assert_int_equal(ours->valueint, theirs->valueint);
            cJSON_free(a), cJSON_free(b);
        }
        accepted += good;
        cJSON_Delete(ours), cJSON_Delete(theirs), free(exact);
    }
    assert_true(accepted > 3000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_cjson_lets_through_is_refused),
        cmocka_unit_test(text_of_every_language_passes_as_it_is),
        cmocka_unit_test(escapes_mean_what_they_say_and_a_byte_order_mark_is_passed_over),
        cmocka_unit_test(how_a_number_was_written_is_remembered),
        cmocka_unit_test(the_quick_look_sees_what_a_plain_one_sees),
        cmocka_unit_test(the_tree_is_the_one_that_cjson_makes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
