/* server/params.h: every row of the table at and beyond its bounds, and the rules between rows. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "server/params.h"

#define MESSAGES "\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]"

/* The least that an endpoint takes. */
static const char *required(endpoint e) {
    return e == ENDPOINT_CHAT ? MESSAGES : e == ENDPOINT_DETOKENIZE ? "\"tokens\":[1]" : "\"prompt\":\"x\"";
}

static fault read_text(const char *text, endpoint e, request_params *p) {
    fault  f = {0};
    cJSON *body = params_parse_body(text, strlen(text), &f);
    if (body) {
        params_read(p, body, e, false, &f);
        params_free(p);
        cJSON_Delete(body);
    }
    return f;
}

static fault read_member(endpoint e, const char *name, const char *value) {
    char           text[8192];
    request_params p;
    snprintf(text, sizeof text, "{%s,\"%s\":%s}", required(e), name, value);
    return read_text(text, e, &p);
}

static endpoint any_endpoint(const param_row *row) {
    for (unsigned e = 1; e <= ENDPOINT_DETOKENIZE; e *= 2)
        if (row->endpoints & e) return (endpoint)e;
    return ENDPOINT_CHAT;
}

static bool is_required_name(const char *name) {
    return !strcmp(name, "messages") || !strcmp(name, "prompt") || !strcmp(name, "tokens");
}

static void rows_are_in_order_and_read_by_somebody(void **state) {
    (void)state;
    for (uint32_t i = 0; i < param_row_count; i++) {
        const param_row *row = &param_rows[i];
        assert_true(row->endpoints && row->help && row->help[0]);
        assert_true((row->kind == PARAM_OTHER) == (row->shape != NULL));
        if (i == 0) continue;
        int order = strcmp(param_rows[i - 1].name, row->name);
        assert_true(order < 0 || (order == 0 && !(param_rows[i - 1].endpoints & row->endpoints)));
    }
}

static void numbers_are_taken_at_their_bounds_and_refused_beyond(void **state) {
    (void)state;
    for (uint32_t i = 0; i < param_row_count; i++) {
        const param_row *row = &param_rows[i];
        endpoint         e = any_endpoint(row);
        char             value[64];
        bool             whole = row->kind == PARAM_INT;
        if (!whole && row->kind != PARAM_NUMBER) continue;
        struct {
            double     value;
            fault_kind wanted;
        } cases[] = {
            {row->min - (whole ? 1 : 0.001), whole ? FAULT_INT_BELOW : FAULT_NUMBER_BELOW},
            {row->max + (whole ? 1 : 0.001), whole ? FAULT_INT_ABOVE : FAULT_NUMBER_ABOVE},
            {-1e300, whole ? FAULT_INT_BELOW : FAULT_NUMBER_BELOW},
            {1e300, whole ? FAULT_INT_ABOVE : FAULT_NUMBER_ABOVE},
            {0x1p53, whole ? FAULT_INT_ABOVE : FAULT_NUMBER_ABOVE},
        };
        for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
            snprintf(value, sizeof value, "%.17g", cases[k].value);
            fault f = read_member(e, row->name, value);
            if (f.kind != cases[k].wanted) fail_msg("%s = %s: %d %s", row->name, value, f.kind, f.message);
            assert_string_equal(f.param, row->name);
        }
        for (int k = 0; k < 2; k++) {
            snprintf(value, sizeof value, "%.17g", k ? row->max : row->min);
            fault f = read_member(e, row->name, value); /* another rule may refuse it; its own row may not */
            assert_true(f.kind != FAULT_INT_ABOVE && f.kind != FAULT_NUMBER_ABOVE && f.kind != FAULT_NUMBER_BELOW &&
                        f.kind != FAULT_TYPE);
        }
        assert_int_equal(read_member(e, row->name, "1e999").kind, whole ? FAULT_INT_ABOVE : FAULT_NUMBER_ABOVE);
        if (whole) assert_int_equal(read_member(e, row->name, "1.5").kind, FAULT_TYPE);
    }
}

static void wrong_types_are_refused_by_name(void **state) {
    (void)state;
    static const char *const values[] = {"\"s\"", "true", "[]", "{}", "1"};
    for (uint32_t i = 0; i < param_row_count; i++) {
        const param_row         *row = &param_rows[i];
        static const char *const fits[] = {
            [PARAM_BOOL] = "true", [PARAM_INT] = "1", [PARAM_NUMBER] = "1", [PARAM_STRING] = "\"s\""};
        if (row->kind > PARAM_STRING || is_required_name(row->name)) continue;
        for (size_t k = 0; k < sizeof values / sizeof *values; k++) {
            fault f = read_member(any_endpoint(row), row->name, values[k]);
            if (strcmp(values[k], fits[row->kind]) == 0) {
                assert_true(f.kind != FAULT_TYPE);
                continue;
            }
            if (f.kind != FAULT_TYPE) fail_msg("%s = %s: %d %s", row->name, values[k], f.kind, f.message);
            assert_string_equal(f.param, row->name);
        }
    }
}

static void null_is_the_same_as_nothing(void **state) {
    (void)state;
    for (uint32_t i = 0; i < param_row_count; i++) {
        if (is_required_name(param_rows[i].name)) continue;
        assert_int_equal(read_member(any_endpoint(&param_rows[i]), param_rows[i].name, "null").kind, FAULT_NONE);
    }
}

static void refused_parameters_say_why(void **state) {
    (void)state;
    for (uint32_t i = 0; i < param_row_count; i++) {
        if (param_rows[i].kind != PARAM_REFUSED) continue;
        fault f = read_member(any_endpoint(&param_rows[i]), param_rows[i].name, "{}");
        assert_int_equal(f.kind, FAULT_UNSUPPORTED);
        assert_non_null(strstr(f.message, param_rows[i].name));
    }
}

static void values_arrive_where_they_belong(void **state) {
    (void)state;
    request_params p;
    fault          f = read_text(
                 "{" MESSAGES ",\"temperature\":0.5,\"top_p\":1,\"top_k\":-1,\"n\":3.0,\"seed\":-7,\"max_tokens\":5,\"stream\":true,"
                          "\"stream_options\":{\"include_usage\":true},\"stop\":[\"a\",\"b\"],\"stop_token_ids\":[1,2],\"logit_bias\":{\"5\":-"
                          "100},"
                          "\"logprobs\":true,\"top_logprobs\":20,\"private\":1,\"priority\":-0}",
                 ENDPOINT_CHAT, &p);
    assert_int_equal(f.kind, FAULT_NONE);
    assert_true(p.temperature == 0.5 && p.top_p == 1 && p.top_k == -1 && p.n == 3 && p.seed == -7 && p.has_seed &&
                p.max_tokens == 5);
    assert_true(p.stream && p.include_usage && p.stop_id_count == 2 && p.stop_ids[1] == 2 && p.top_logprobs == 20 &&
                p.skip_special);
    assert_int_equal(p.unknown_count, 1);
    assert_string_equal(p.unknown_names, "'private'");
}

static void defaults_are_those_of_the_table(void **state) {
    (void)state;
    request_params p;
    assert_int_equal(read_text("{\"prompt\":[1,2]}", ENDPOINT_COMPLETION, &p).kind, FAULT_NONE);
    assert_true(p.temperature == -1 && p.n == 1 && p.max_tokens == -1 && p.best_of == -1 && p.legacy_logprobs == -1);
    assert_true(p.skip_special && p.add_special && !p.stream && !p.has_seed && p.top_k == -2);
}

typedef struct {
    endpoint    e;
    const char *body, *param;
    fault_kind  wanted;
} rule_case;

static void rules_between_parameters_are_kept(void **state) {
    (void)state;

    static const rule_case cases[] = {
        {ENDPOINT_CHAT, "{}", "messages", FAULT_MISSING},
        {ENDPOINT_COMPLETION, "{}", "prompt", FAULT_MISSING},
        {ENDPOINT_DETOKENIZE, "{}", "tokens", FAULT_MISSING},
        {ENDPOINT_TOKENIZE, "{}", "prompt", FAULT_MISSING},
        {ENDPOINT_TOKENIZE, "{\"prompt\":\"x\"," MESSAGES "}", "prompt", FAULT_MISSING},
        {ENDPOINT_TOKENIZE, "{\"prompt\":[1]}", "prompt", FAULT_TYPE},
        {ENDPOINT_CHAT, "{" MESSAGES ",\"stream_options\":{}}", "stream_options", FAULT_RULE},
        {ENDPOINT_CHAT, "{" MESSAGES ",\"top_logprobs\":1}", "top_logprobs", FAULT_RULE},
        {ENDPOINT_COMPLETION, "{\"prompt\":\"x\",\"n\":3,\"best_of\":2}", "best_of", FAULT_RULE},
        {ENDPOINT_COMPLETION, "{\"prompt\":\"x\",\"best_of\":2,\"stream\":true}", "best_of", FAULT_RULE},
        {ENDPOINT_COMPLETION, "{\"prompt\":\"x\",\"suffix\":\"y\"}", "suffix", FAULT_UNSUPPORTED},
        {ENDPOINT_COMPLETION, "{\"prompt\":\"x\",\"max_tokens\":0}", "max_tokens", FAULT_INT_BELOW},
        {ENDPOINT_COMPLETION, "{\"prompt\":\"x\",\"max_tokens\":0,\"echo\":true}", "", FAULT_NONE},
        {ENDPOINT_COMPLETION, "{\"prompt\":[]}", "prompt", FAULT_ARRAY_SHORT},
        {ENDPOINT_COMPLETION, "{\"prompt\":[1,\"a\"]}", "prompt", FAULT_TYPE},
        {ENDPOINT_COMPLETION, "{\"prompt\":[\"a\",1]}", "prompt", FAULT_TYPE},
        {ENDPOINT_COMPLETION, "{\"prompt\":[[1],[2,-1]]}", "prompt", FAULT_INT_BELOW},
        {ENDPOINT_COMPLETION, "{\"prompt\":[[1],[2.5]]}", "prompt", FAULT_TYPE},
        {ENDPOINT_COMPLETION, "{\"prompt\":[[1],[2]]}", "", FAULT_NONE},
        {ENDPOINT_COMPLETION, "{\"prompt\":[\"a\",\"b\"]}", "", FAULT_NONE},
        {ENDPOINT_COMPLETION, "{\"prompt\":{}}", "prompt", FAULT_TYPE},
        {ENDPOINT_CHAT, "{\"messages\":[]}", "messages", FAULT_ARRAY_SHORT},
        {ENDPOINT_CHAT, "{\"messages\":[1]}", "messages[0]", FAULT_TYPE},
        {ENDPOINT_CHAT, "{\"messages\":[{\"content\":\"x\"}]}", "messages[0].role", FAULT_MISSING},
        {ENDPOINT_CHAT, "{\"messages\":[{\"role\":\"king\",\"content\":\"x\"}]}", "messages[0].role", FAULT_INVALID},
        {ENDPOINT_CHAT, "{\"messages\":[{\"role\":\"user\"}]}", "messages[0].content", FAULT_MISSING},
        {ENDPOINT_CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":3}]}", "messages[0].content", FAULT_TYPE},
        {ENDPOINT_CHAT, "{\"messages\":[{\"role\":\"assistant\",\"content\":null}]}", "", FAULT_NONE},
        {ENDPOINT_CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"x\"}]}]}", "",
         FAULT_NONE},
        {ENDPOINT_CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}]}",
         "messages[0].content[0]", FAULT_UNSUPPORTED},
        {ENDPOINT_CHAT, "{" MESSAGES ",\"tools\":[]}", "", FAULT_NONE},
        {ENDPOINT_CHAT, "{" MESSAGES ",\"tools\":[{}]}", "tools", FAULT_UNSUPPORTED},
        {ENDPOINT_CHAT, "{" MESSAGES ",\"tool_choice\":\"required\"}", "tool_choice", FAULT_UNSUPPORTED},
        {ENDPOINT_CHAT, "{" MESSAGES ",\"response_format\":{\"type\":\"text\"}}", "", FAULT_NONE},
        {ENDPOINT_CHAT, "{" MESSAGES ",\"response_format\":{\"type\":\"json_object\"}}", "response_format", FAULT_RULE},
        {ENDPOINT_CHAT, "{" MESSAGES ",\"stop\":\"\"}", "stop", FAULT_INVALID},
        {ENDPOINT_CHAT, "{" MESSAGES ",\"stop\":[\"a\",1]}", "stop[1]", FAULT_TYPE},
        {ENDPOINT_CHAT, "{" MESSAGES ",\"logit_bias\":{\"x\":1}}", "logit_bias.x", FAULT_INVALID},
        {ENDPOINT_CHAT, "{" MESSAGES ",\"logit_bias\":{\"1\":101}}", "logit_bias.1", FAULT_NUMBER_ABOVE},
        {ENDPOINT_CHAT, "{" MESSAGES ",\"logit_bias\":{\"-1\":1}}", "logit_bias.-1", FAULT_INVALID},
        {ENDPOINT_CHAT, "{" MESSAGES ",\"chat_template_kwargs\":{\"enable_thinking\":false}}", "", FAULT_NONE},
        {ENDPOINT_CHAT, "{" MESSAGES ",\"chat_template_kwargs\":{\"messages\":[]}}", "chat_template_kwargs", FAULT_INVALID},
        {ENDPOINT_CHAT, "{" MESSAGES ",\"temperature\":1,\"temperature\":1}", "", FAULT_BODY},
        {ENDPOINT_CHAT, "{" MESSAGES ",\"seed\":9223372036854775807}", "", FAULT_NONE},
        {ENDPOINT_CHAT, "{" MESSAGES ",\"seed\":18446744073709551615}", "seed", FAULT_INT_ABOVE},
        {ENDPOINT_CHAT, "{" MESSAGES ",\"seed\":9007199254740993}", "", FAULT_NONE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        request_params p;
        fault          f = read_text(cases[i].body, cases[i].e, &p);
        if (f.kind != cases[i].wanted || strcmp(f.param, cases[i].param) != 0)
            fail_msg("%s: %d '%s' %s", cases[i].body, f.kind, f.param, f.message);
    }
}

static void bodies_that_are_no_json_object_are_refused(void **state) {
    (void)state;
    static const char *const bodies[] = {
        "", "[]", "1", "null", "{", "{\"a\":NaN}", "{\"a\":Infinity}", "{} x", "{\"a\":\"\\u0000\"}", "{\"a\":\"\xff\"}"};
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
        request_params p;
        fault          f = read_text(bodies[i], ENDPOINT_CHAT, &p);
        if (f.kind != FAULT_BODY) fail_msg("%s: %d %s", bodies[i], f.kind, f.message);
        assert_int_equal(fault_status(&f), 400);
        assert_null(fault_code(&f));
    }
}

static void a_body_of_a_million_values_is_refused_before_it_is_parsed(void **state) {
    (void)state;
    buf            text;
    request_params p;
    buf_init(&text, 8 << 20);
    buf_str(&text, "{\"prompt\":[1");
    for (int i = 0; i < BODY_VALUES_MAX + 1; i++) buf_append(&text, ",1", 2);
    buf_str(&text, "]}");
    assert_int_equal(read_text(text.data, ENDPOINT_COMPLETION, &p).kind, FAULT_BODY);
    buf_clear(&text);
    for (int i = 0; i < 100; i++) buf_str(&text, "{\"a\":");
    assert_int_equal(read_text(text.data, ENDPOINT_COMPLETION, &p).kind, FAULT_BODY);
    buf_free(&text);
}

static void an_error_has_openai_s_shape_whatever_was_in_it(void **state) {
    (void)state;
    fault f;
    buf   json;
    buf_init(&json, 4096);
    fault_set(&f, FAULT_MODEL, "model", "no \"%s\" here\n", "m\xff");
    fault_write(&f, &json);
    assert_string_equal(
        json.data,
        "{\"error\":{\"message\":\"no \\\"m?\\\" here\\n\",\"type\":\"invalid_request_error\",\"param\":\"model\","
        "\"code\":\"model_not_found\"}}");
    buf_free(&json);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_in_order_and_read_by_somebody),
        cmocka_unit_test(numbers_are_taken_at_their_bounds_and_refused_beyond),
        cmocka_unit_test(wrong_types_are_refused_by_name),
        cmocka_unit_test(null_is_the_same_as_nothing),
        cmocka_unit_test(refused_parameters_say_why),
        cmocka_unit_test(values_arrive_where_they_belong),
        cmocka_unit_test(defaults_are_those_of_the_table),
        cmocka_unit_test(rules_between_parameters_are_kept),
        cmocka_unit_test(bodies_that_are_no_json_object_are_refused),
        cmocka_unit_test(a_body_of_a_million_values_is_refused_before_it_is_parsed),
        cmocka_unit_test(an_error_has_openai_s_shape_whatever_was_in_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
