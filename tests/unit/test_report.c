/* Reports: figures held against numbers that were computed elsewhere (NumPy, or by hand in the comments). */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/json.h"
#include "bench/plot.h"
#include "bench/report.h"

static void near(double a, double b) {
    if (!(fabs(a - b) <= 1e-9 * fmax(1, fabs(b)))) fail_msg("%.12g is not %.12g", a, b);
}

static void seven_samples_are_described_as_numpy_does(void **state) {
    (void)state;
    const double values[] = {12.5, 3.25, 99, 7, 7, 41.125, 0.5};
    series       s = {0};
    for (int i = 0; i < 7; i++) series_add(&s, values[i]);
    distribution d = series_describe(&s);
    assert_int_equal(d.count, 7);
    near(d.mean, 24.339285714285715), near(d.std, 32.97298097669963), near(d.min, 0.5), near(d.max, 99);
    near(d.p50, 7), near(d.p90, 64.275), near(d.p95, 81.6375), near(d.p99, 95.5275), near(d.p999, 98.65275);
    near(series_percentile(&s, 0), 0.5), near(series_percentile(&s, 100), 99);
    near(series_share_below(&s, 7), 4.0 / 7), near(series_share_below(&s, 0.4), 0), near(series_share_below(&s, 1000), 1);
    series_free(&s);
}

static void a_thousand_samples_are_described_as_numpy_does(void **state) {
    (void)state;
    series s = {0};
    for (int i = 0; i < 1000; i++) series_add(&s, i * 7919 % 1009 / 8.0);
    distribution d = series_describe(&s);
    near(d.mean, 63.08475), near(d.std, 36.419883888303374), near(d.min, 0), near(d.max, 126);
    near(d.p50, 63.1875), near(d.p90, 113.3875), near(d.p95, 119.75625), near(d.p99, 124.75125);
    series_free(&s);
}

static void no_samples_and_one_sample_are_described_too(void **state) {
    (void)state;
    series       s = {0};
    distribution d = series_describe(&s);
    assert_true(d.count == 0 && d.mean == 0 && d.p99 == 0);
    series_add(&s, 5);
    d = series_describe(&s);
    assert_true(d.mean == 5 && d.std == 0 && d.p50 == 5 && d.p99 == 5);
    series_free(&s);
}

/* Four requests of two sessions; times in microseconds.
 *
 *   s0 t0: due 0, sent 1000, first token 101000, end 501000, 5 tokens:   TTFT 100, TPOT 100, E2E 500
 *   s0 t1: due 600000, sent 600000, first 650000, end 1050000, 9 tokens: TTFT 50,  TPOT 50,  E2E 450
 *   s1 t0: due 200000, sent 202000, first 602000, end 602000, 1 token:   TTFT 400, no TPOT,  E2E 400
 *   s2 t0: failed at 900000;  s2 t1: never sent */
typedef struct {
    record        r;
    trace         t;
    trace_request requests[5];
    trace_session sessions[3];
    char         *names[1];
    summary       s;
} fixture;

static void play(fixture *f, slo limits) {
    static const trace_request turns[5] = {
        {.session = 0}, {.session = 0, .turn = 1}, {.session = 1}, {.session = 2}, {.session = 2, .turn = 1}};
    static const outcome outcomes[5] = {
        {.start_us = 1000,
         .first_us = 101000,
         .end_us = 501000,
         .gap_max_us = 200000,
         .prompt_tokens = 10,
         .output_tokens = 5,
         .cached_tokens = 4,
         .state = OUTCOME_COMPLETED},
        {.due_us = 600000,
         .start_us = 600000,
         .first_us = 650000,
         .end_us = 1050000,
         .gap_max_us = 50000,
         .turn = 1,
         .prompt_tokens = 20,
         .output_tokens = 9,
         .state = OUTCOME_COMPLETED},
        {.due_us = 200000,
         .start_us = 202000,
         .first_us = 602000,
         .end_us = 602000,
         .session = 1,
         .prompt_tokens = 30,
         .output_tokens = 1,
         .state = OUTCOME_COMPLETED},
        {.due_us = 300000, .start_us = 300000, .end_us = 900000, .session = 2, .state = OUTCOME_FAILED},
        {.session = 2, .turn = 1},
    };
    memset(f, 0, sizeof *f);
    memcpy(f->requests, turns, sizeof turns);
    f->sessions[0] = (trace_session){.first = 0, .count = 2, .after = TRACE_NONE};
    f->sessions[1] = (trace_session){.first = 2, .count = 1, .after = TRACE_NONE};
    f->sessions[2] = (trace_session){.first = 3, .count = 2, .after = TRACE_NONE};
    f->t =
        (trace){.requests = f->requests, .sessions = f->sessions, .names = f->names, .request_count = 5, .session_count = 3};
    record_init(&f->r, 5);
    memcpy(f->r.outcomes, outcomes, sizeof outcomes);
    for (int i = 0; i < 5; i++) f->r.outcomes[i].slo = limits;
    f->r.outcomes[3].reason = record_reason(&f->r, "HTTP 429: <full> & \"tired\"");
    f->r.duration_us = 1049000, f->r.in_flight_max = 3;
    f->r.title = "Replay", f->r.url = "http://x", f->r.model = "m", f->r.trace_name = "a<b>.jsonl";
    for (int i = 0; i < 14; i++) record_chunk(&f->r, 100000 + (uint64_t)i * 50000);
    record_gap(&f->r, 50000), record_gap(&f->r, 200000);
    record_sample(&f->r, &(sample){0, 0, 0, 0, 0.25});
    record_sample(&f->r, &(sample){1, 2, 1, 1, NAN});
    summarize(&f->r, &f->t, &f->s);
}

static void finish(fixture *f) { summary_free(&f->s), record_free(&f->r); }

static void each_figure_is_what_its_formula_says(void **state) {
    (void)state;
    fixture f;
    play(&f, (slo){0});
    const summary *s = &f.s;
    assert_int_equal(s->completed, 3);
    assert_int_equal(s->failed, 1);
    assert_int_equal(s->unsent, 1);
    near(s->of[METRIC_TTFT].mean, 550.0 / 3), near(s->of[METRIC_TTFT].p50, 100);
    assert_int_equal(s->of[METRIC_TPOT].count, 2); /* a single token has no time per further token */
    near(s->of[METRIC_TPOT].mean, 75);
    near(s->of[METRIC_E2EL].mean, 450), near(s->of[METRIC_E2EL].max, 500);
    near(s->of[METRIC_ITL].mean, 125);
    assert_int_equal(s->sessions_completed, 1); /* one turn is no job, and a job with a failed turn has no end */
    near(s->of[METRIC_JCT].mean, 1050);
    near(s->of[METRIC_LAG].max, 2);
    assert_int_equal(s->input_tokens, 60);
    assert_int_equal(s->output_tokens, 15);
    assert_int_equal(s->cached_tokens, 4);
    near(s->request_throughput, 3 / 1.049), near(s->output_throughput, 15 / 1.049), near(s->total_throughput, 75 / 1.049);
    near(s->output_peak, 15); /* all chunks fall into one second */
    assert_false(s->has_slo);
    finish(&f);
}

static void a_request_is_good_when_it_keeps_every_limit(void **state) {
    (void)state;
    static const struct {
        slo      limits;
        uint32_t good;
    } cases[] = {
        {{.ttft_ms = 100}, 2},
        {{.ttft_ms = 99.9}, 1},
        {{.tpot_ms = 60}, 2},
        {{.tbt_ms = 60}, 2},
        {{.e2e_ms = 450}, 2},
        {{.e2e_ms = 399}, 0},
        {{.ttft_ms = 450, .tpot_ms = 60}, 2},
        {{.ttft_ms = 1e9}, 3},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fixture f;
        play(&f, cases[i].limits);
        assert_true(f.s.has_slo);
        assert_int_equal(f.s.good, cases[i].good);
        near(f.s.attainment, cases[i].good / 4.0); /* a failed request was not in time; one never sent does not count */
        near(f.s.goodput, cases[i].good / 1.049);
        finish(&f);
    }
}

static void the_json_has_the_names_of_vllm_bench_serve(void **state) {
    (void)state;
    static const char *const names[] = {
        "completed",
        "failed",
        "total_input_tokens",
        "total_output_tokens",
        "request_throughput",
        "request_goodput",
        "output_throughput",
        "total_token_throughput",
        "max_concurrent_requests",
        "duration",
        "num_prompts",
        "model_id",
        "date",
        "max_output_tokens_per_s",
    };
    static const char *const metrics[] = {"ttft", "tpot", "itl", "e2el"}, *const kinds[] = {"mean", "median", "std", "p50",
                                                                                            "p90",  "p95",    "p99"};
    fixture f;
    buf     text;
    error   err = {0};
    play(&f, (slo){.ttft_ms = 100});
    buf_init(&text, 1 << 20);
    report_json(&f.r, &f.s, &text);
    cJSON *o = json_parse(text.data, text.size, 8, &err);
    if (!o) fail_msg("%s", err.text);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!json_get(o, names[i])) fail_msg("%s is missing", names[i]);
    for (int m = 0; m < 4; m++)
        for (int k = 0; k < 7; k++) {
            char name[64];
            snprintf(name, sizeof name, "%s_%s_ms", kinds[k], metrics[m]);
            if (!cJSON_IsNumber(json_get(o, name))) fail_msg("%s is missing", name);
        }
    near(json_get(o, "median_ttft_ms")->valuedouble, 100);
    near(json_get(o, "slo_attainment")->valuedouble, 0.5);
    assert_int_equal(cJSON_GetArraySize(json_get(json_get(o, "server"), "samples")), 2);
    assert_true(cJSON_IsNull(json_get(cJSON_GetArrayItem(json_get(json_get(o, "server"), "samples"), 1), "kv_usage")));
    assert_int_equal(json_get(json_get(o, "failure_reasons"), "HTTP 429: <full> & \"tired\"")->valuedouble, 1);
    cJSON_Delete(o), buf_free(&text), finish(&f);
}

static void the_page_is_complete_in_itself_and_quotes_what_it_is_told(void **state) {
    (void)state;
    fixture f;
    buf     page;
    play(&f, (slo){.ttft_ms = 100});
    buf_init(&page, 1 << 20);
    report_html(&f.r, &f.s, &page);
    assert_false(buf_overflowed(&page));
    assert_null(strstr(page.data, "<script"));
    assert_null(strstr(page.data, "src="));
    assert_null(strstr(page.data, "href="));
    assert_null(strstr(page.data, "@import"));
    assert_null(strstr(page.data, "url("));
    assert_null(strstr(page.data, "nan"));
    assert_null(strstr(page.data, "inf"));
    assert_non_null(strstr(page.data, "a&lt;b&gt;.jsonl"));
    assert_non_null(strstr(page.data, "HTTP 429: &lt;full&gt; &amp; &quot;tired&quot;"));
    assert_non_null(strstr(page.data, "Time to first token"));
    assert_non_null(strstr(page.data, "KV cache in use"));
    buf_free(&page), finish(&f);
}

static void a_run_in_which_nothing_happened_has_a_report(void **state) {
    (void)state;
    trace   t = {0};
    record  r;
    summary s;
    buf     out;
    record_init(&r, 0);
    r.title = "Replay";
    summarize(&r, &t, &s);
    buf_init(&out, 1 << 20);
    report_html(&r, &s, &out), report_json(&r, &s, &out), report_requests(&r, &t, &out);
    assert_null(strstr(out.data, "nan"));
    buf_free(&out), summary_free(&s), record_free(&r);
}

static void a_page_of_a_hundred_thousand_requests_stays_small(void **state) {
    (void)state;
    enum { COUNT = 100000 };
    record         r;
    summary        s;
    buf            out;
    trace_session *sessions = calloc(COUNT, sizeof *sessions);
    trace_request *requests = calloc(COUNT, sizeof *requests);
    trace          t = {.sessions = sessions, .requests = requests, .session_count = COUNT, .request_count = COUNT};
    record_init(&r, COUNT);
    r.title = "Replay";
    for (uint32_t i = 0; i < COUNT; i++) {
        sessions[i] = (trace_session){.first = i, .count = 1, .after = TRACE_NONE};
        r.outcomes[i] = (outcome){.start_us = i * 1000ull,
                                  .due_us = i * 1000ull,
                                  .first_us = i * 1000ull + 5000 + i % 977,
                                  .end_us = i * 1000ull + 900000,
                                  .prompt_tokens = i % 8000,
                                  .output_tokens = 30,
                                  .state = OUTCOME_COMPLETED};
    }
    r.duration_us = 101000000;
    summarize(&r, &t, &s);
    buf_init(&out, 1 << 20);
    report_html(&r, &s, &out);
    assert_false(buf_overflowed(&out));
    assert_true(out.size < 300000);
    buf_free(&out), summary_free(&s), record_free(&r), free(sessions), free(requests);
}

static void more_reasons_than_there_is_room_for_are_counted_together(void **state) {
    (void)state;
    record r;
    record_init(&r, 1);
    for (int i = 0; i < 100; i++) {
        char why[32];
        snprintf(why, sizeof why, "reason %d", i);
        record_reason(&r, why), record_reason(&r, why);
    }
    assert_int_equal(r.reason_count, REASONS_MAX);
    assert_int_equal(r.reason_counts[3], 2);
    assert_string_equal(r.reasons[REASONS_MAX - 1], "other reasons");
    assert_int_equal(r.reason_counts[REASONS_MAX - 1], 2 * (100 - (REASONS_MAX - 1)));
    record_free(&r);
}

static void a_metrics_page_is_read_whoever_wrote_it(void **state) {
    (void)state;
    static const char ours[] =
        "# HELP penstock_requests_running x\npenstock_requests_running 3\nvllm:num_requests_running{engine=\"0\"} 99\n"
        "penstock_kv_cache_use 0.5\r\npenstock_prefix_cache_hits_total 12 1700000000\n";
    static const char theirs[] = "vllm:num_requests_running{model_name=\"a b\",engine=\"0\"} "
                                 "2\nvllm:num_requests_running{model_name=\"}\\\"\",engine=\"1\"} 5\n"
                                 "vllm:kv_cache_usage_perc{engine=\"0\"} 0.2\nvllm:kv_cache_usage_perc{engine=\"1\"} "
                                 "0.4\nvllm:num_requests_waiting NaN\nbroken{\n";
    scrape            s;
    scrape_read(ours, sizeof ours - 1, &s);
    near(s.value[SCRAPE_RUNNING], 3), near(s.value[SCRAPE_KV_USAGE], 0.5), near(s.value[SCRAPE_PREFIX_HITS], 12);
    assert_true(isnan(s.value[SCRAPE_WAITING]));
    scrape_read(theirs, sizeof theirs - 1, &s);
    near(s.value[SCRAPE_RUNNING], 7), near(s.value[SCRAPE_KV_USAGE], 0.3);
    assert_true(isnan(s.value[SCRAPE_WAITING]));
}

static void axes_have_round_numbers(void **state) {
    (void)state;
    buf out;
    buf_init(&out, 1 << 16);
    plot p = plot_open(
        &out,
        &(plot_axes){.title = "t", .x_label = "x", .y_label = "", .x_max = 47, .y_max = 1, .width = 372, .height = 200});
    plot_close(&out);
    assert_non_null(strstr(out.data, ">20</text>"));
    assert_non_null(strstr(out.data, ">40</text>"));
    assert_null(strstr(out.data, ">47</text>"));
    near(plot_x(&p, 47), plot_x(&p, 1000)); /* what lies outside is held at the edge */
    buf_clear(&out);
    plot_number(&out, 12500), plot_number(&out, 0.25), plot_number(&out, 3e6);
    assert_string_equal(out.data, "12.5k0.253M");
    buf_free(&out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(seven_samples_are_described_as_numpy_does),
        cmocka_unit_test(a_thousand_samples_are_described_as_numpy_does),
        cmocka_unit_test(no_samples_and_one_sample_are_described_too),
        cmocka_unit_test(each_figure_is_what_its_formula_says),
        cmocka_unit_test(a_request_is_good_when_it_keeps_every_limit),
        cmocka_unit_test(the_json_has_the_names_of_vllm_bench_serve),
        cmocka_unit_test(the_page_is_complete_in_itself_and_quotes_what_it_is_told),
        cmocka_unit_test(a_run_in_which_nothing_happened_has_a_report),
        cmocka_unit_test(a_page_of_a_hundred_thousand_requests_stays_small),
        cmocka_unit_test(more_reasons_than_there_is_room_for_are_counted_together),
        cmocka_unit_test(a_metrics_page_is_read_whoever_wrote_it),
        cmocka_unit_test(axes_have_round_numbers),
    };
    return cmocka_run_group_tests_name("report", tests, NULL, NULL);
}
