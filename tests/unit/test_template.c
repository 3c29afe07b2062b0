/* tests/unit/test_template.c: templates against what Jinja2 3.1.6 gives for them, and the bounds. The expected texts were
 * made by Jinja2, not by this interpreter. Real templates: ../shared/chat_templates, where it is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/json.h"
#include "models/template.h"

enum { NOW = 1741944413 }; /* 2025-03-14 09:26:53 UTC */

static const char context_json[] =
    "{\"s\":\"Hello, World\",\"u\":\"na\xC3\xAFve \xE2\x80\x9C\xE6\x97\xA5\xE6\x9C\xAC\xE2\x80\x9D "
    "\xC3\x9F\",\"n\":5,\"f\":2.5,"
    "\"one\":1.0,\"big\":9007199254740993,\"l\":[3,1,2],\"ls\":[\"b\",\"A\",\"c\"],\"no\":null,\"yes\":true,"
    "\"d\":{\"b\":1,\"a\":2,\"items\":9},\"ld\":[{\"n\":\"x\",\"v\":1},{\"n\":\"y\",\"v\":3},{\"n\":\"z\",\"v\":1}],"
    "\"deep\":{\"a\":[1,{\"b\":[null,true,1.5,\"it's\"]}]},\"html\":\"<a>&'\"}";

static int render(const char *source, size_t n, const cJSON *context, const template_limits *limits, buf *out, error *err) {
    template *t;
    buf_init(out, 1 << 24);
    int code = template_compile(&t, source, n, err);
    if (code == OK) code = template_render(t, context, NOW, limits, out, err);
    if (code == OK) template_free(t);
    if (code == OK && !out->data) buf_append(out, "", 0);
    else if (code != OK && t) template_free(t);
    return code;
}

typedef struct {
    const char *source, *expected; /* expected "!text": an error whose sentence holds the text */
} row;

static void check_rows(const row *rows, size_t count) {
    cJSON *context = json_parse(context_json, sizeof context_json - 1, 16, NULL);
    assert_non_null(context);
    for (size_t i = 0; i < count; i++) {
        buf   out;
        error err = {0};
        int   code = render(rows[i].source, strlen(rows[i].source), context, &template_limits_default, &out, &err);
        if (rows[i].expected[0] != '!') {
            if (code != OK) fail_msg("%s: %s", rows[i].source, err.text);
            assert_string_equal(out.data, rows[i].expected);
        } else {
            if (code == OK) fail_msg("%s gives %s", rows[i].source, out.data);
            if (!strstr(err.text, rows[i].expected + 1)) fail_msg("%s: %s", rows[i].source, err.text);
        }
        buf_free(&out);
    }
    cJSON_Delete(context);
}
#define CHECK(...)                                                                                                          \
    do {                                                                                                                    \
        (void)state;                                                                                                        \
        static const row rows[] = {__VA_ARGS__};                                                                            \
        check_rows(rows, sizeof rows / sizeof *rows);                                                                       \
    } while (0)

/* ---- text around tags ---- */

static void newlines_and_blanks_around_tags_follow_trim_and_lstrip(void **state) {
    CHECK({"a\n  {% if true %}\nb\n  {% endif %}\nc\n", "a\nb\nc"}, {"  {{ n }}\n {%- set y = 1 %}\n z {{- y }}", "  5 z1"},
          {"  {%+ if true %}\n x\n {%+ endif +%}\ny", "   x\n \ny"}, {"a {# c #}\nb{#- c -#} c", "a bc"},
          {"{% raw %}{{ x }}{% endraw %}|{%- raw -%}  {{ a }}  {%- endraw -%}  |", "{{ x }}|{{ a }}|"},
          {"a\r\nb\rc", "a\nb\nc"}, {"{{ n }}\n\n", "5\n"},
          {"{{-1}}{{+1}}", "1"
                           "1"},
          {"{{ {'a':{'b':1}}}}", "{'a': {'b': 1}}"});
}

static void a_syntax_error_names_its_line(void **state) {
    CHECK({"a\n{% if x %}\nb", "!line 2"}, {"\n\n{{ x y }}", "!line 3"}, {"{{ 'abc }}", "!no end"}, {"{% for %}", "!line 1"},
          {"{{ (1] }}", "!unexpected"}, {"{# x", "!no end"}, {"{% nope %}", "!unknown tag"},
          {"{% break %}", "!outside a loop"}, {"{{ n|nope }}", "!no filter"}, {"{{ n is nope }}", "!no test"},
          {"{% include 'x' %}", "!other files"}, {"{% set 1 = 2 %}", "!assigned"});
}

/* ---- expressions ---- */

static void numbers_behave_as_in_python(void **state) {
    CHECK(
        {"{{ 7 // -2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 4 / 2 }} {{ 2 ** 3 ** 2 }} {{ -2 ** 2 }} {{ 2 ** -1 }}",
         "-4 2 3.5 2.0 64 4 0.5"},
        {"{{ 1e16 }} {{ 1e15 }} {{ 1e-5 }} {{ 0.1 + 0.2 }} {{ 5e-324 }} {{ 1.0 }}",
         "1e+16 1000000000000000.0 1e-05 0.30000000000000004 5e-324 1.0"},
        {"{{ -7.5 // 2 }} {{ 7.5 % -2 }} {{ true + 1 }} {{ 1 == 1.0 }} {{ 0x1f }} {{ 1_000 }}", "-4.0 -0.5 2 True 31 1000"},
        {"{{ one }} {{ n }} {{ f }} {{ big }} {{ one|tojson }}", "1.0 5 2.5 9007199254740993 1.0"},
        {"{{ 1 / 0 }}", "!division by zero"}, {"{{ 9223372036854775807 + 1 }}", "!64 bits"},
        {"{{ 99999999999999999999 }}", "!64 bits"}, {"{{ 10 ** 30 }}", "!64 bits"}, {"{{ 'a' + 1 }}", "!concatenate"},
        {"{{ 1 < 'a' }}", "!not supported"});
}

static void texts_are_counted_and_cut_by_character(void **state) {
    CHECK({"{{ u|length }} {{ u[7] }} {{ u[::-1] }} {{ u[-3:] }} {{ u[10:2:-3] }}",
           "12 \xE6\x97\xA5 \xC3\x9F \xE2\x80\x9D\xE6\x9C\xAC\xE6\x97\xA5\xE2\x80\x9C ev\xC3\xAF"
           "an \xE2\x80\x9D \xC3\x9F  \xE6\x97\xA5"
           "e"},
          {"{{ u.upper() }} {{ s.find('o', 5) }} {{ u.find('\xE6\x9C\xAC') }}",
           "NA\xC3\x8FVE \xE2\x80\x9C\xE6\x97\xA5\xE6\x9C\xAC\xE2\x80\x9D SS 8 8"},
          {"{{ s.split('l', 1) }} {{ ' a  b c '.split(none, 1) }} {{ s.rsplit('o', 1) }} {{ 'a\\r\\nb\\u2028c'.splitlines() "
           "}}",
           "['He', 'lo, World'] ['a', 'b c '] ['Hello, W', 'rld'] ['a', 'b', 'c']"},
          {"{{ 'ab' * 3 }} {{ 'b' in s }} {{ 'ell' in s }} {{ s.strip('Hd') }} {{ s.replace('l', 'L', 1) }}",
           "ababab False True ello, Worl HeLlo, World"});
}

static void values_print_as_python_prints_them(void **state) {
    CHECK({"{{ deep }} {{ no }} {{ yes }} {{ (1,) }} {{ () }} {{ ['a\\n', \"'\", '\\x07'] }}",
           "{'a': [1, {'b': [None, True, 1.5, \"it's\"]}]} None True (1,) () ['a\\n', \"'\", '\\x07']"},
          {"{{ deep|tojson }} {{ d|tojson(indent=2) }} {{ u|tojson(ensure_ascii=true) }} {{ html|tojson }} {{ "
           "d|tojson(sort_keys=true, separators=(',', ':')) }}",
           "{\"a\": [1, {\"b\": [null, true, 1.5, \"it's\"]}]} {\n  \"b\": 1,\n  \"a\": 2,\n  \"items\": 9\n} "
           "\"na\\u00efve \\u201c\\u65e5\\u672c\\u201d \\u00df\" \"<a>&'\" {\"a\":2,\"b\":1,\"items\":9}"},
          {"{{ d.keys() }} {{ range(3) }} {{ namespace(a=1) }}",
           "dict_keys(['b', 'a', 'items']) range(0, 3) <Namespace {'a': 1}>"});
}

static void undefined_is_empty_but_has_no_attributes(void **state) {
    CHECK({"{{ q }}{{ q is defined }}{{ d.q is defined }}{{ q|default('x') }}{{ l[9] }}{{ q == w }}{{ not q }}",
           "FalseFalsexTrueTrue"},
          {"{{ q.x }}", "!'q' is undefined"}, {"{{ d.q.x }}", "!'dict object' has no attribute 'q'"},
          {"{{ q + 1 }}", "!undefined"}, {"{{ no.x.y }}", "!'None' has no attribute 'x'"}, {"\n\n{{ q() }}", "!line 3"},
          {"{{ [q]|tojson }}", "!JSON"});
}

static void the_sandbox_refuses_what_changes_or_reflects(void **state) {
    CHECK({"{{ l.append(4) }}", "!unsafe"}, {"{{ d.update({}) }}", "!unsafe"}, {"{{ s.__class__.__mro__ }}", "!unsafe"},
          {"{{ range(100001) }}", "!Range too big"}, {"{{ l.append is defined }}", "False"},
          {"{{ d.items is callable }} {{ d['items'] }}", "True 9"});
}

/* ---- statements ---- */

static void loops_know_where_they_are(void **state) {
    CHECK({"{% for i in l %}{{ loop.index }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.previtem }}{{ "
           "loop.nextitem }} {% endfor %}",
           "12TrueFalse1 21FalseFalse32 30FalseTrue1 "},
          {"{% for i in l if i > 1 %}{{ loop.index }}/{{ loop.length }} {% else %}x{% endfor %}{% for i in [] %}{% else "
           "%}none{% endfor %}",
           "1/2 2/2 none"},
          {"{% for i in range(9) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 4 %}{% break %}{% endif %}{{ i }}{% "
           "endfor %}",
           "013"},
          {"{% for i in [1, [2, [3]]] recursive %}{{ '<' ~ loop(i) ~ '>' if i is iterable else i }}{% endfor %}", "1<2<3>>"},
          {"{% for a, (b, c) in [(1, (2, 3))] %}{{ a + b + c }}{% endfor %}", "6"},
          {"{% for a, b in [1] %}{% endfor %}", "!unpack"},
          {"{% for i in l %}{% set o = loop %}{% for j in [1] %}{{ o.index }}{% endfor %}{% endfor %}", "123"},
          {"{% for i in [1,1,2] %}{{ loop.changed(i) }}{{ loop.cycle('a', 'b') }}{% endfor %}", "TrueaFalsebTruea"},
          {"{% for i in no %}{% endfor %}", "!not iterable"});
}

static void an_assignment_stays_in_its_frame(void **state) {
    CHECK({"{% set x = 1 %}{% for i in l %}{% set x = i %}{% endfor %}{{ x }}{% if yes %}{% set x = 2 %}{% endif %}{{ x }}",
           "12"},
          {"{% set ns = namespace(c=0) %}{% for i in l %}{% set ns.c = ns.c + i %}{% endfor %}{{ ns.c }}", "6"},
          {"{% for i in [1] %}[{{ n }}]{% endfor %}{% set n = 1 %}{{ n }}", "[]1"},
          {"{% if no %}{% set n = 9 %}{% endif %}{{ n }}", "5"},
          {"{% for i in [1, 2] %}{{ n }}{% set n = i %}{{ n }}{% endfor %}{{ n }}", "51525"},
          {"{% with a = 1 %}{{ a }}{% endwith %}{{ a is defined }}", "1False"},
          {"{% set b | upper %}x{{ n }}{% endset %}{{ b }}{% set p, q = 1, 2 %}{{ p + q }}", "X53"},
          {"{% set s.x = 1 %}", "!non-namespace"});
}

static void macros_take_defaults_keywords_and_callers(void **state) {
    CHECK(
        {"{% macro m(a, b=2, c=a) %}{{ a }}{{ b }}{{ c }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1) }} {{ m(1, 2, 3, 4) "
         "}} {{ m(1, c=9, z=8) }}",
         "121(){} 123(4,){} 129(){'z': 8}"},
        {"{% macro m(l) %}{% for i in l %}{{ caller(i) }}{% endfor %}{% endmacro %}{% call(i) m(l) %}[{{ i }}]{% endcall %}",
         "[3][1][2]"},
        {"{% macro f(k) %}{{ k * f(k - 1)|int if k > 1 else 1 }}{% endmacro %}{{ f(6) }}", "720"},
        {"{% macro m(a) %}{{ a is defined }}{% endmacro %}{{ m() }}{{ m(none) }}", "FalseTrue"},
        {"{% macro m() %}{% endmacro %}{{ m(1) }}", "!argument"},
        {"{% filter upper %}a{{ n }}{% endfilter %}{% generation %}b{% endgeneration %}", "A5b"});
}

/* ---- filters ---- */

static void filters_over_sequences_match(void **state) {
    CHECK({"{{ ld|map(attribute='n')|join(',') }} {{ ld|selectattr('v', 'equalto', 1)|map(attribute='n')|list }} {{ "
           "l|reject('odd')|list }}",
           "x,y,z ['x', 'z'] [2]"},
          {"{{ l|sort }} {{ ls|sort }} {{ ls|sort(case_sensitive=true, reverse=true) }} {{ ld|sort(attribute='v,n', "
           "reverse=true)|map(attribute='n')|join }}",
           "[1, 2, 3] ['A', 'b', 'c'] ['c', 'b', 'A'] yzx"},
          {"{{ d|dictsort }} {{ l|sum }} {{ l|min }} {{ ls|max }} {{ l|first }} {{ l|last }} {{ l|reverse|list }} {{ [1, "
           "1.0, 2]|unique|list }}",
           "[('a', 2), ('b', 1), ('items', 9)] 6 1 c 3 2 [2, 1, 3] [1, 2]"},
          {"{% for k, g in ld|groupby('v') %}{{ k }}:{{ g|length }} {% endfor %}{{ [1, 2, 3]|batch(2, 0)|list }} {{ [1, 2, "
           "3]|slice(2)|list }}",
           "1:2 3:1 [[1, 2], [3, 0]] [[1, 2], [3]]"},
          {"{{ (l|map('string')|list)[0] }}{{ no|map('upper')|list }}{{ d|items|list }}",
           "3[][('b', 1), ('a', 2), ('items', 9)]"},
          {"{{ no|items|list }}", "!mapping"}, {"{{ l|map('nope')|list }}", "!No filter"},
          {"{{ l|map('upper')|length }}", "!no len()"});
}

static void filters_over_texts_and_numbers_match(void **state) {
    CHECK({"{{ 'foo bar-baz (q'|title }} {{ s|truncate(8, leeway=0) }} {{ 'a\\nb\\n'|indent(2) }}|{{ 'a\\n\\nb'|indent('> "
           "', true, true) }} {{ s|wordcount }}",
           "Foo Bar-Baz (Q Hello... a\n  b\n|> a\n> \n> b 2"},
          {"{{ '42'|int }} {{ 'x'|int(7) }} {{ '1f'|int(base=16) }} {{ '4.7'|int }} {{ '1e3'|float }} {{ 2.675|round(2) }} "
           "{{ 2.5|round }} {{ 1250|round(-2) }} {{ 4.1|round(0, 'ceil') }}",
           "42 7 31 4 1000.0 2.67 2.0 1200 5.0"},
          {"{{ '%05.1f|%-4s|%x|%r' % (2.25, 'a', 255, 'q') }} {{ '{:>5}|{:,}|{:.2%}|{0[0]}'.format('a', 1234567, 0.5) if "
           "false else '{:>5}|{:,}|{:.2%}'.format('a', 1234567, 0.5) }} {{ '%s-%s'|format(1, 2) }}",
           "002.2|a   |ff|'q'     a|1,234,567|50.00% 1-2"},
          {"{{ html|e }} {{ (html|safe) + '<' }} {{ (html|safe) ~ '<' }} {{ [html|safe] }} {{ 'a b/c'|urlencode }}",
           "&lt;a&gt;&amp;&#39; <a>&'&lt; <a>&'< [Markup(\"<a>&'\")] a%20b/c"},
          {"{{ strftime_now('%d %b %Y %H:%M:%S') }} {{ 6 is divisibleby 3 }} {{ n is not none and n is number }} {{ d is "
           "mapping }}",
           "14 Mar 2025 09:26:53 True True True"});
}

static void raise_exception_gives_the_templates_own_message(void **state) {
    (void)state;
    static const char source[] = "a{{ raise_exception('No system role!') }}";
    cJSON            *context = cJSON_CreateObject();
    buf               out;
    error             err;
    assert_int_equal(render(source, sizeof source - 1, context, &template_limits_default, &out, &err), ERR_INVALID);
    assert_string_equal(err.text, "No system role!");
    assert_int_equal(out.size, 0);
    buf_free(&out);
    cJSON_Delete(context);
}

/* ---- bounds ---- */

static void what_does_not_end_is_stopped(void **state) {
    CHECK(
        {"{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "!limit"},
        {"{{ 'a' * 10 ** 12 }}", "!limit"}, {"{{ [1] * 10 ** 12 }}", "!limit"},
        {"{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "!deeper"},
        {"{% set ns = namespace(x='aaaaaaaa') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}", "!limit"},
        {"{% set ns = namespace(x=[]) %}{% for i in range(5000) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}", "!deeper"},
        {"{% set ns = namespace(x=l) %}{% for i in range(5000) %}{% set ns.x = ns.x|map('string') %}{% endfor %}{{ "
         "ns.x|list }}",
         "!deeper"},
        {"{{ 'a'.center(10 ** 12) }}", "!limit"}, {"{{ '%99999999999d' % 1 }}", "!digits"},
        {"{{ '%999999999d' % 1 }}", "!limit"}, {"{{ 'a'|indent(10 ** 12) }}", "!limit"},
        {"{{ ('x' * 100000).replace('', 'y' * 100000) }}", "!limit"}, {"{{ [1]|batch(10**12, 2)|list }}", "!limit"},
        {"{{ [1]|slice(10**12)|list }}", "!limit"}, {"{{ 'a'.expandtabs(10**12) ~ '\\t'.expandtabs(10**12) }}", "!limit"});
}

static void deep_nesting_in_the_source_is_refused(void **state) {
    (void)state;
    static const char *const pairs[][2] = {{"(", ")"}, {"[", "]"}, {"-", ""}, {"not ", ""}, {"1 if ", ""}, {"{1:", "}"}};
    cJSON                   *context = cJSON_CreateObject();
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        buf   source, out;
        error err;
        buf_init(&source, 1 << 20);
        buf_str(&source, "{{ ");
        for (int k = 0; k < 20000; k++) buf_str(&source, pairs[i][0]);
        buf_str(&source, "1");
        for (int k = 0; k < 20000; k++) buf_str(&source, pairs[i][1]);
        buf_str(&source, " }}");
        assert_int_not_equal(render(source.data, source.size, context, &template_limits_default, &out, &err), OK);
        buf_free(&out);
        buf_clear(&source);
        for (int k = 0; k < 5000; k++) buf_str(&source, "{% if 1 %}");
        assert_int_not_equal(render(source.data, source.size, context, &template_limits_default, &out, &err), OK);
        buf_free(&out);
        buf_free(&source);
    }
    cJSON_Delete(context);
}

static void deep_nesting_in_the_data_is_refused(void **state) {
    (void)state;
    cJSON *context = cJSON_CreateObject(), *inner = cJSON_AddArrayToObject(context, "x");
    for (int i = 0; i < 5000; i++) {
        cJSON *next = cJSON_CreateArray();
        cJSON_AddItemToArray(inner, next);
        inner = next;
    }
    buf   out;
    error err;
    assert_int_equal(render("{{ x }}", 7, context, &template_limits_default, &out, &err), ERR_TOO_LARGE);
    buf_free(&out);
    cJSON_Delete(context);
}

static void the_limits_of_a_rendering_are_the_callers(void **state) {
    (void)state;
    cJSON                *context = cJSON_CreateObject();
    const template_limits few_steps = {100, 100, 1 << 20}, shallow = {100000, 5, 1 << 20}, small = {100000, 100, 4096};
    buf                   out;
    error                 err;
    assert_int_equal(render("{% for i in range(99) %}{% endfor %}", 36, context, &few_steps, &out, &err), ERR_TOO_LARGE);
    buf_free(&out);
    assert_int_equal(render("{{ [[[[[[1]]]]]] }}", 19, context, &shallow, &out, &err), ERR_TOO_LARGE);
    buf_free(&out);
    assert_int_equal(render("{{ 'a' * 5000 }}", 16, context, &small, &out, &err), ERR_TOO_LARGE);
    buf_free(&out);
    cJSON_Delete(context);
}

/* ---- real templates ---- */

static cJSON *shared_json(const char *name) {
    char        path[4096];
    const char *shared = getenv("PENSTOCK_SHARED");
    snprintf(path, sizeof path, "%s/chat_templates/%s", shared ? shared : "../shared", name);
    if (!file_exists(path)) {
        skip();
    }
    buf text;
    buf_init(&text, 64 << 20);
    assert_int_equal(file_read(&text, path, NULL), OK);
    cJSON *json = json_parse(text.data, text.size, 64, NULL);
    assert_non_null(json);
    buf_free(&text);
    return json;
}

static const char *member(const cJSON *item, const char *name) { /* NULL: it has none */
    const cJSON *m = json_get(item, name);
    return cJSON_IsString(m) ? m->valuestring : NULL;
}

/* An item with `expected` gives exactly that; any other is an error. */
static void check_item(const cJSON *item, const char *source, size_t n, const char *variables) {
    buf   out;
    error err = {0};
    int   code = render(source, n, json_get(item, variables), &template_limits_default, &out, &err);
    if (member(item, "expected")) {
        if (code != OK) fail_msg("%.200s: %s", source, err.text);
        assert_string_equal(out.data, member(item, "expected"));
    } else {
        assert_int_not_equal(code, OK);
        if (member(item, "raise_exception")) assert_string_equal(err.text, member(item, "raise_exception"));
    }
    buf_free(&out);
}

static void check_sources(const char *file, const char *variables, int count) {
    cJSON *cases = shared_json(file);
    for (const cJSON *c = cases->child; c; c = c->next, count--)
        check_item(c, member(c, "template"), strlen(member(c, "template")), variables);
    assert_int_equal(count, 0);
    cJSON_Delete(cases);
}

static void the_small_published_cases_match(void **state) {
    (void)state, check_sources("jinja_unit_cases.json", "vars", 131);
}
static void the_inline_published_templates_match(void **state) {
    (void)state, check_sources("inline_templates_expected.json", "context", 13);
}

static void the_real_templates_render_byte_for_byte(void **state) {
    (void)state;
    cJSON      *cases = shared_json("renderings.json");
    const char *shared = getenv("PENSTOCK_SHARED");
    int         count = 0;
    for (const cJSON *c = cases->child; c; c = c->next, count++) {
        char path[4096];
        buf  source;
        assert_non_null(member(c, "template"));
        snprintf(path, sizeof path, "%s/chat_templates/%s", shared ? shared : "../shared",
                 json_get(c, "template")->valuestring);
        buf_init(&source, 1 << 20);
        assert_int_equal(file_read(&source, path, NULL), OK);
        check_item(c, source.data, source.size, "context");
        buf_free(&source);
    }
    assert_int_equal(count, 220);
    cJSON_Delete(cases);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(newlines_and_blanks_around_tags_follow_trim_and_lstrip),
        cmocka_unit_test(a_syntax_error_names_its_line),
        cmocka_unit_test(numbers_behave_as_in_python),
        cmocka_unit_test(texts_are_counted_and_cut_by_character),
        cmocka_unit_test(values_print_as_python_prints_them),
        cmocka_unit_test(undefined_is_empty_but_has_no_attributes),
        cmocka_unit_test(the_sandbox_refuses_what_changes_or_reflects),
        cmocka_unit_test(loops_know_where_they_are),
        cmocka_unit_test(an_assignment_stays_in_its_frame),
        cmocka_unit_test(macros_take_defaults_keywords_and_callers),
        cmocka_unit_test(filters_over_sequences_match),
        cmocka_unit_test(filters_over_texts_and_numbers_match),
        cmocka_unit_test(raise_exception_gives_the_templates_own_message),
        cmocka_unit_test(what_does_not_end_is_stopped),
        cmocka_unit_test(deep_nesting_in_the_source_is_refused),
        cmocka_unit_test(deep_nesting_in_the_data_is_refused),
        cmocka_unit_test(the_limits_of_a_rendering_are_the_callers),
        cmocka_unit_test(the_small_published_cases_match),
        cmocka_unit_test(the_inline_published_templates_match),
        cmocka_unit_test(the_real_templates_render_byte_for_byte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
