/* Traces: what each format says, and the prompts that are made of it. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"
#include "bench/prompt.h"
#include "bench/trace.h"

static trace read_text(const char *text, const char *format) {
    trace t;
    error err = {0};
    if (trace_read_text(&t, text, strlen(text), format, &err) != OK) fail_msg("%s", err.text);
    return t;
}

static void refused(const char *text, const char *format, const char *why) {
    trace t;
    error err = {0};
    assert_int_not_equal(trace_read_text(&t, text, strlen(text), format, &err), OK);
    if (!strstr(err.text, why)) fail_msg("'%s' is not in '%s'", why, err.text);
    assert_null(t.requests);
}

static const prompt_rules plain = {.seed = 1, .vocab_size = 32000, .length_scale = 1};

static token_list build(const prompt_rules *rules, const trace *t, uint32_t request, const token_list *before) {
    token_list none = {0}, out = {0};
    prompt_build(rules, t, request, before ? before : &none, &out);
    return out;
}

static uint32_t common_prefix(const token_list *a, const token_list *b) {
    uint32_t n = 0;
    while (n < a->count && n < b->count && a->ids[n] == b->ids[n]) n++;
    return n;
}

/* ---- formats ---- */

static void an_azure_trace_has_arrivals_and_lengths(void **state) {
    (void)state;
    trace t = read_text("TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
                        "2023-11-16 23:59:59.9799600,4808,10\r\n"
                        "2023-11-17 00:00:01.4799600,110,0\r\n",
                        "azure");
    assert_int_equal(t.request_count, 2);
    assert_int_equal(t.session_count, 2);
    assert_true(t.has_times);
    assert_int_equal(t.requests[0].at_us, 0);
    assert_int_equal(t.requests[1].at_us, 1500000);
    assert_int_equal(t.requests[0].prompt_tokens, 4808);
    assert_int_equal(t.requests[1].output_tokens, 1); /* nothing was generated: one token is the least to ask for */
    trace_close(&t);
}

static void a_table_of_column_names_covers_the_other_tables(void **state) {
    (void)state;
    trace t = read_text(
        "num_prefill_tokens,num_decode_tokens,num_total_tokens,pd_ratio\n3772,54,3826,69.8\n2015,156,2171,12.9\n", "csv");
    assert_false(t.has_times);
    assert_int_equal(t.requests[1].prompt_tokens, 2015);
    assert_int_equal(t.requests[1].output_tokens, 156);
    trace_close(&t);
    t = read_text("Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,ChatGPT,472,18,490,\"a, "
                  "quoted\"\n45,GPT-4,1087,230,1317,API\n",
                  "auto");
    assert_int_equal(t.requests[1].at_us, 40000000);
    assert_int_equal(t.requests[0].prompt_tokens, 472);
    trace_close(&t);
    t = read_text("at_s,prompt_tokens,output_tokens,tenant,ttft_ms\n0,5,6,blue,250\n0.5,7,8,red,\n", "auto");
    assert_int_equal(t.requests[1].at_us, 500000);
    assert_string_equal(t.names[t.requests[1].tenant], "red");
    assert_true(t.requests[0].slo.ttft_ms == 250 && t.requests[1].slo.ttft_ms == 0);
    trace_close(&t);
}

static void a_mooncake_trace_has_blocks(void **state) {
    (void)state;
    trace t =
        read_text("{\"timestamp\": 27000, \"input_length\": 1100, \"output_length\": 52, \"hash_ids\": [46, 47, 2353]}\n"
                  "\n"
                  "{\"timestamp\": 30000, \"input_length\": 700, \"output_length\": 26, \"hash_ids\": [46, 48]}\n",
                  "mooncake");
    assert_int_equal(t.requests[1].at_us, 3000000);
    assert_int_equal(t.requests[0].block_count, 3);
    assert_int_equal(t.blocks[t.requests[1].blocks_at + 1], 48);
    assert_int_equal(t.sessions[0].block_tokens, 512);
    trace_close(&t);
}

static void the_generic_trace_says_more_where_it_wants_to(void **state) {
    (void)state;
    trace t = read_text(
        "{\"timestamp\":0,\"input_length\":100,\"output_length\":10,\"job_id\":\"a\",\"tool\":\"grep\",\"gap_s\":2.5,"
        "\"tenant\":\"blue\",\"slo\":{\"ttft_ms\":250,\"tbt_ms\":50,\"deadline_ms\":9000,\"value\":3}}\n"
        "{\"timestamp\":5,\"input_length\":30,\"output_length\":10,\"job_id\":7}\n"
        "{\"timestamp\":9000,\"input_length\":200,\"output_length\":10,\"job_id\":\"a\"}\n"
        "{\"timestamp\":9000,\"input_length\":90,\"output_length\":10,\"job_id\":7}\n",
        "jsonl");
    assert_int_equal(t.session_count, 2);
    const trace_request *a = &t.requests[t.sessions[0].first], *b = &t.requests[t.sessions[1].first];
    assert_int_equal(t.sessions[0].count, 2);
    assert_int_equal(a[1].gap_us, 2500000); /* a gap in place of a time */
    assert_int_equal(a[1].at_us, 0);
    assert_int_equal(b[1].at_us, 9000000); /* a time, and no gap */
    assert_int_equal(b[1].gap_us, 0);
    assert_int_equal(a[1].shared_tokens, 110); /* long enough to go on from prompt and answer */
    assert_int_equal(b[1].shared_tokens, 40);
    assert_string_equal(t.names[a[0].tool], "grep");
    assert_string_equal(t.names[a[0].tenant], "blue");
    assert_true(a[0].slo.ttft_ms == 250 && a[0].slo.tbt_ms == 50 && a[0].slo.e2e_ms == 9000 && a[0].slo.value == 3);
    trace_close(&t);
}

static void a_weka_session_waits_for_tools_and_starts_sub_agents(void **state) {
    (void)state;
    trace t = read_text(
        "{\"id\":\"x\",\"block_size\":64,\"tool_tokens\":100,\"system_tokens\":28,\"requests\":["
        "{\"t\":0,\"type\":\"n\",\"in\":200,\"out\":20,\"hash_ids\":[1,2,3],\"think_time\":0,\"api_time\":4},"
        "{\"t\":110,\"type\":\"subagent\",\"duration_ms\":100000,\"tool_tokens\":5,\"system_tokens\":5,\"requests\":["
        "{\"t\":0,\"type\":\"n\",\"in\":70,\"out\":5,\"hash_ids\":[90],\"think_time\":0,\"api_time\":2}]},"
        "{\"t\":120,\"type\":\"s\",\"in\":400,\"out\":30,\"hash_ids\":[1,2,3,4,5,6],\"think_time\":116,\"api_time\":3},"
        "{\"t\":130,\"type\":\"n\",\"in\":300,\"out\":30,\"hash_ids\":[1,2,8,9],\"think_time\":7,\"api_time\":3}]}\n"
        "{\"id\":\"y\",\"block_size\":64,\"requests\":[{\"t\":0,\"type\":\"n\",\"in\":64,\"out\":1,\"hash_ids\":[1]}]}\n",
        "weka");
    assert_int_equal(t.session_count, 3);
    const trace_session *parent = &t.sessions[0], *child = &t.sessions[1], *other = &t.sessions[2];
    const trace_request *turns = &t.requests[parent->first];
    assert_int_equal(parent->count, 3);
    assert_int_equal(turns[1].gap_us, 116000000);
    assert_int_equal(turns[1].shared_tokens, 220); /* all whole blocks: it goes on from prompt and answer */
    assert_int_equal(turns[1].block_first, 3);
    assert_int_equal(turns[2].shared_tokens, 128); /* two blocks are equal, no more */
    assert_int_equal(child->after, parent->first);
    assert_int_equal(t.requests[child->first].gap_us, 6000000); /* it reported at 110 after 100, the parent was done at 4 */
    assert_int_equal(parent->common_tokens, 128);
    assert_true(child->scope == parent->scope && other->scope != parent->scope);
    assert_false(t.has_times);
    trace_close(&t);
}

static void tracelab_rounds_give_the_gaps_between_them(void **state) {
    (void)state;
    trace t = read_text(
        "{\"session_id\":\"s\",\"round_index\":0,\"input_tokens_total\":300,\"prefix_tokens\":200,\"output_tokens\":9,"
        "\"timing_events\":["
        "{\"event_type\":\"user_message\",\"timestamp\":\"2026-06-01T05:40:20.000Z\"},"
        "{\"event_type\":\"tool_call\",\"timestamp\":\"2026-06-01T05:40:31.500Z\"}],\"tools\":[{\"tool_name\":\"Bash\"}]}\n"
        "{\"session_id\":\"s\",\"round_index\":1,\"input_tokens_total\":400,\"prefix_tokens\":305,\"output_tokens\":9,"
        "\"timing_events\":["
        "{\"event_type\":\"tool_result\",\"timestamp\":\"2026-06-01T05:40:34.000Z\"},"
        "{\"event_type\":\"text\",\"timestamp\":\"2026-06-01T05:41:00.000Z\"}],\"tools\":[]}\n",
        "tracelab");
    assert_int_equal(t.session_count, 1);
    assert_string_equal(t.names[t.requests[0].tool], "Bash");
    assert_int_equal(t.requests[1].gap_us, 2500000);
    assert_int_equal(t.requests[1].shared_tokens, 305);
    assert_int_equal(t.sessions[0].common_tokens, 200); /* what the first round finds is what all sessions begin with */
    trace_close(&t);
}

static void tracelab_replay_files_put_the_gap_after_the_round(void **state) {
    (void)state;
    trace t = read_text("session_id,arrival_time,round_idx,prefix_len,input_len,output_len,tool_wait_after_ms\n"
                        "0,117,0,0,2318,200,300\n0,117,1,2518,348,131,0\n1,393,0,0,861,107,0\n",
                        "tracelab");
    assert_int_equal(t.session_count, 2);
    assert_int_equal(t.requests[1].gap_us, 300000);
    assert_int_equal(t.requests[1].prompt_tokens, 2866);
    assert_int_equal(t.requests[1].shared_tokens, 2518);
    assert_int_equal(t.requests[t.sessions[1].first].at_us, 276000);
    trace_close(&t);
}

static void a_damaged_trace_is_refused_with_its_line(void **state) {
    (void)state;
    refused("", "auto", "no request");
    refused("a,b\n1,2\n", "auto", "prompt tokens");
    refused("prompt_tokens,output_tokens\n1,2\n1\n", "auto", "line 3");
    refused("prompt_tokens,output_tokens\n1,x\n", "auto", "'x' is not a number");
    refused("prompt_tokens,output_tokens\n-1,2\n", "auto", "line 2");
    refused("prompt_tokens,output_tokens\n1e99,2\n", "auto", "line 2");
    refused("TIMESTAMP,ContextTokens,GeneratedTokens\nyesterday,1,2\n", "auto", "'yesterday'");
    refused("{\"input_length\":1}\n", "auto", "'output_length' is missing");
    refused("{\"input_length\":1,\"output_length\":1,\"hash_ids\":[1.5]}\n", "auto", "item 0");
    refused("{\"input_length\":1,\"output_length\":1}\n[]\n", "auto", "line 2");
    refused("{\"requests\":3}\n", "auto", "'requests' must be a list");
    refused("{\"client\":0,\"windows\":[]}\n", "auto", "ServeGen");
    refused("{\"input_length\":1,\"output_length\":1}\n", "azure", "does not look like azure");
    refused("{\"timestamp\":-3e13,\"input_length\":1,\"output_length\":1}\n{\"timestamp\":3e13,\"input_length\":1,\"output_"
            "length\":1}\n",
            "auto", "400 days");
}

static void a_compressed_trace_is_read_like_a_plain_one(void **state) {
    (void)state;
    char folder[] = "/tmp/penstock-trace-XXXXXX", path[64], command[256];
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/t.csv.gz", folder);
    snprintf(command, sizeof command, "printf 'prompt_tokens,output_tokens\\n3,4\\n5,6\\n' | gzip > %s", path);
    bool  made = system(command) == 0;
    trace t;
    error err = {0};
    int   code = trace_open(&t, path, "auto", 1, &err);
    snprintf(command, sizeof command, "printf '\\037\\213garbage' > %s", path);
    bool damaged = system(command) == 0;
    int  damaged_code = damaged ? trace_open(&(trace){0}, path, "auto", 0, NULL) : OK;
    unlink(path), rmdir(folder);
    if (!made || !damaged) skip();
    assert_int_equal(code, OK);
    assert_int_equal(t.request_count, 1); /* as many as were asked for */
    assert_int_equal(t.requests[0].output_tokens, 4);
    assert_int_not_equal(damaged_code, OK);
    trace_close(&t);
}

static void a_missing_file_is_named(void **state) {
    (void)state;
    trace t;
    error err = {0};
    assert_int_equal(trace_open(&t, "/nonexistent/trace", "auto", 0, &err), ERR_NOT_FOUND);
    assert_non_null(strstr(err.text, "/nonexistent/trace"));
}

static void a_thousand_jobs_in_turns_become_a_thousand_sessions(void **state) {
    (void)state;
    buf text;
    buf_init(&text, 1 << 20);
    for (int turn = 0; turn < 3; turn++)
        for (int job = 0; job < 1000; job++)
            buf_printf(&text, "{\"timestamp\":%d,\"input_length\":%d,\"output_length\":1,\"job_id\":\"job %d\"}\n", turn,
                       10 + turn, job);
    trace t = read_text(text.data, "auto");
    assert_int_equal(t.session_count, 1000);
    for (uint32_t i = 0; i < 1000; i++) {
        const trace_request *q = &t.requests[t.sessions[i].first];
        assert_int_equal(t.sessions[i].count, 3);
        for (uint32_t turn = 0; turn < 3; turn++) {
            assert_int_equal(q[turn].session, i);
            assert_int_equal(q[turn].turn, turn);
            assert_int_equal(q[turn].prompt_tokens, 10 + turn);
        }
    }
    trace_close(&t), buf_free(&text);
}

static void drawn_arrivals_have_the_rate_and_repeat_with_the_seed(void **state) {
    (void)state;
    buf text;
    buf_init(&text, 1 << 20);
    buf_str(&text, "prompt_tokens,output_tokens\n");
    for (int i = 0; i < 10001; i++) buf_str(&text, "1,1\n");
    trace a = read_text(text.data, "csv"), b = read_text(text.data, "csv");
    trace_draw_arrivals(&a, 50, 3), trace_draw_arrivals(&b, 50, 3);
    double mean_s = (double)a.requests[10000].at_us * 1e-6 / 10000;
    assert_true(fabs(mean_s - 0.02) < 0.001); /* five standard errors */
    for (uint32_t i = 0; i < 10001; i++) assert_int_equal(a.requests[i].at_us, b.requests[i].at_us);
    trace_draw_arrivals(&b, 50, 4);
    assert_true(a.requests[5000].at_us != b.requests[5000].at_us);
    trace_close(&a), trace_close(&b), buf_free(&text);
}

/* ---- prompts ---- */

static void equal_blocks_make_equal_tokens_and_others_do_not(void **state) {
    (void)state;
    trace        t = read_text("{\"input_length\":1100,\"output_length\":5,\"hash_ids\":[1,2,3]}\n"
                                      "{\"input_length\":1536,\"output_length\":5,\"hash_ids\":[1,2,4]}\n"
                                      "{\"input_length\":1024,\"output_length\":5,\"hash_ids\":[9,2]}\n"
                                      "{\"input_length\":1100,\"output_length\":5}\n",
                               "auto");
    const double scales[] = {1, 0.3, 0.01, 2.7};
    for (int i = 0; i < 4; i++) {
        prompt_rules rules = plain;
        rules.length_scale = scales[i];
        token_list a = build(&rules, &t, 0, NULL), b = build(&rules, &t, 1, NULL), c = build(&rules, &t, 2, NULL),
                   d = build(&rules, &t, 3, NULL);
        assert_int_equal(a.count, (uint32_t)(1100 * scales[i] + 0.5));
        assert_int_equal(common_prefix(&a, &b), (uint32_t)(1024 * scales[i] + 0.5));
        assert_int_equal(common_prefix(&a, &c), 0);
        assert_int_equal(common_prefix(&a, &d), 0);
        if (scales[i] == 1) assert_memory_equal(a.ids + 512, c.ids + 512, 512 * sizeof *a.ids);
        token_list_free(&a), token_list_free(&b), token_list_free(&c), token_list_free(&d);
    }
    trace_close(&t);
}

static void a_turn_goes_on_from_the_prompt_and_the_answer_before(void **state) {
    (void)state;
    trace t = read_text("{\"input_length\":100,\"output_length\":20,\"job_id\":1}\n{\"input_length\":150,\"output_length\":"
                        "20,\"job_id\":1}\n",
                        "auto");
    token_list context = build(&plain, &t, 0, NULL);
    token_list_reserve(&context, 120);
    for (uint32_t i = 0; i < 20; i++) context.ids[context.count++] = 7 + i; /* what the server said */
    token_list next = build(&plain, &t, 1, &context);
    assert_int_equal(next.count, 150);
    assert_int_equal(common_prefix(&context, &next), 120);
    token_list_free(&context), token_list_free(&next), trace_close(&t);
}

static void sessions_with_the_same_tools_begin_alike(void **state) {
    (void)state;
    trace t = read_text(
        "{\"tool_tokens\":90,\"system_tokens\":10,\"requests\":[{\"t\":0,\"in\":200,\"out\":1,\"hash_ids\":[1,2,3]}]}\n"
        "{\"tool_tokens\":90,\"system_tokens\":10,\"requests\":[{\"t\":0,\"in\":200,\"out\":1,\"hash_ids\":[1,2,3]}]}\n"
        "{\"tool_tokens\":91,\"system_tokens\":10,\"requests\":[{\"t\":0,\"in\":200,\"out\":1,\"hash_ids\":[1,2,3]}]}\n",
        "weka");
    token_list a = build(&plain, &t, 0, NULL), b = build(&plain, &t, 1, NULL), c = build(&plain, &t, 2, NULL);
    assert_int_equal(common_prefix(&a, &b), 100);
    assert_int_equal(common_prefix(&a, &c), 0);
    token_list_free(&a), token_list_free(&b), token_list_free(&c), trace_close(&t);
}

static void prompts_repeat_with_the_seed_and_stay_inside_the_vocabulary(void **state) {
    (void)state;
    trace        t = read_text("{\"input_length\":5000,\"output_length\":5,\"hash_ids\":[1,2]}\n", "auto");
    prompt_rules rules = plain;
    rules.vocab_size = 745;
    token_list a = build(&rules, &t, 0, NULL), b = build(&rules, &t, 0, NULL);
    rules.seed = 2;
    token_list c = build(&rules, &t, 0, NULL);
    assert_int_equal(common_prefix(&a, &b), 5000);
    assert_true(common_prefix(&a, &c) < 10);
    for (uint32_t i = 0; i < a.count; i++) assert_in_range(a.ids[i], 745 / 8, 745 / 8 + 745 / 2);
    token_list_free(&a), token_list_free(&b), token_list_free(&c), trace_close(&t);
}

static void what_does_not_fit_the_context_is_cut(void **state) {
    (void)state;
    static const struct {
        uint32_t prompt, output, context, want_prompt, want_output;
    } cases[] = {
        {100, 50, 0, 100, 50},       {100, 50, 150, 100, 50},  {100, 50, 149, 99, 50}, {1000, 50, 200, 150, 50},
        {1000, 1000, 200, 100, 100}, {10, 1000, 200, 10, 190}, {5, 5, 2, 1, 1},        {9000, 1, 8192, 8191, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        prompt_rules   rules = plain;
        trace_request  q = {.prompt_tokens = cases[i].prompt, .output_tokens = cases[i].output};
        prompt_lengths l;
        rules.context_max = cases[i].context;
        l = prompt_measure(&rules, &q);
        assert_int_equal(l.prompt_tokens, cases[i].want_prompt);
        assert_int_equal(l.output_tokens, cases[i].want_output);
        assert_int_equal(l.cut, l.prompt_tokens != cases[i].prompt || l.output_tokens != cases[i].output);
    }
}

/* ---- published traces ---- */

static void published_traces_hold_what_their_page_says(void **state) {
    (void)state;
    static const struct {
        const char *file;
        uint32_t    limit, requests, sessions;
    } files[] = {
        {"azure2023_code_first40min.csv.gz", 0, 7148, 7148},
        {"azure2023_conv_first40min.csv.gz", 0, 13828, 13828},
        {"mooncake_fast25_conversation_first40min.jsonl.gz", 0, 7851, 7851},
        {"vidur_arxiv_summarization_lengths_first75pct.csv.gz", 0, 21192, 21192},
        {"tracelab_replay_1_session.csv", 0, 11, 1},
        {"tracelab_replay_48_sessions_synthetic.csv", 0, 303, 48},
        {"tracelab_sanitized_example_rounds.jsonl", 0, 19, 2},
        {"weka_claude_code_220_sessions.jsonl.gz", 500, 500, 11},
    };
    const char *shared = getenv("PENSTOCK_SHARED");
    char        path[1024];
    snprintf(path, sizeof path, "%s/traces", shared ? shared : "../shared");
    if (access(path, R_OK) != 0) {
        printf("the published traces are not here\n");
        skip();
    }
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        trace t;
        error err = {0};
        snprintf(path, sizeof path, "%s/traces/%s", shared ? shared : "../shared", files[i].file);
        if (trace_open(&t, path, "auto", files[i].limit, &err) != OK) fail_msg("%s", err.text);
        assert_int_equal(t.request_count, files[i].requests);
        assert_int_equal(t.session_count, files[i].sessions);
        trace_close(&t);
    }
}

static void the_slices_in_the_repository_are_readable(void **state) {
    (void)state;
    trace t;
    error err = {0};
    assert_int_equal(trace_open(&t, "bench/traces/mooncake_conversation_200.jsonl", "mooncake", 0, &err), OK);
    assert_int_equal(t.request_count, 200);
    trace_close(&t);
    assert_int_equal(trace_open(&t, "bench/traces/azure_code_200.csv", "azure", 0, &err), OK);
    assert_int_equal(t.request_count, 200);
    trace_close(&t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_azure_trace_has_arrivals_and_lengths),
        cmocka_unit_test(a_table_of_column_names_covers_the_other_tables),
        cmocka_unit_test(a_mooncake_trace_has_blocks),
        cmocka_unit_test(the_generic_trace_says_more_where_it_wants_to),
        cmocka_unit_test(a_weka_session_waits_for_tools_and_starts_sub_agents),
        cmocka_unit_test(tracelab_rounds_give_the_gaps_between_them),
        cmocka_unit_test(tracelab_replay_files_put_the_gap_after_the_round),
        cmocka_unit_test(a_damaged_trace_is_refused_with_its_line),
        cmocka_unit_test(a_compressed_trace_is_read_like_a_plain_one),
        cmocka_unit_test(a_missing_file_is_named),
        cmocka_unit_test(a_thousand_jobs_in_turns_become_a_thousand_sessions),
        cmocka_unit_test(drawn_arrivals_have_the_rate_and_repeat_with_the_seed),
        cmocka_unit_test(equal_blocks_make_equal_tokens_and_others_do_not),
        cmocka_unit_test(a_turn_goes_on_from_the_prompt_and_the_answer_before),
        cmocka_unit_test(sessions_with_the_same_tools_begin_alike),
        cmocka_unit_test(prompts_repeat_with_the_seed_and_stay_inside_the_vocabulary),
        cmocka_unit_test(what_does_not_fit_the_context_is_cut),
        cmocka_unit_test(published_traces_hold_what_their_page_says),
        cmocka_unit_test(the_slices_in_the_repository_are_readable),
    };
    return cmocka_run_group_tests_name("trace", tests, NULL, NULL);
}
