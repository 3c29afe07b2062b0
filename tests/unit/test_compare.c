/* Comparisons: the grid, the cost of passes against the device's own, and whole traces under the virtual clock. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/json.h"
#include "base/rng.h"
#include "bench/compare.h"
#include "engine/copy_link.h"
#include "bench/pass_cost.h"

/* ---- the grid ---- */

static void a_grid_is_every_combination_the_last_word_fastest(void **state) {
    (void)state;
    grid  g;
    error err;
    buf   label;
    assert_int_equal(grid_read(&g, " slicing=chunked,layered  running-max=8,16,32 hints=yes", &err), OK);
    assert_int_equal(g.cell_count, 6);
    static const char *const labels[] = {
        "slicing=chunked running-max=8 hints=yes",  "slicing=chunked running-max=16 hints=yes",
        "slicing=chunked running-max=32 hints=yes", "slicing=layered running-max=8 hints=yes",
        "slicing=layered running-max=16 hints=yes", "slicing=layered running-max=32 hints=yes"};
    buf_init(&label, 1 << 10);
    for (uint32_t i = 0; i < 6; i++) {
        settings s = {0};
        options *o;
        clients  said;
        buf_clear(&label), grid_label(&g, i, &label);
        assert_string_equal(label.data, labels[i]);
        assert_int_equal(grid_settings(&g, i, "random:any", &s, &o, &said, &err), OK);
        assert_true(said.hints && !said.sizes && said.max_tokens == 4096);
        assert_int_equal(s.engine.scheduler_settings.running_max, 8u << i % 3);
        assert_int_equal(s.engine.scheduler_settings.slicing.policy, i < 3 ? SLICING_CHUNKED : SLICING_LAYERED);
        options_free(o);
    }
    buf_free(&label), grid_free(&g);
    assert_int_equal(grid_read(&g, "", &err), OK);
    assert_int_equal(g.cell_count, 1);
    grid_free(&g);
}

static void a_grid_that_the_daemon_would_not_take_is_refused_with_a_sentence(void **state) {
    (void)state;
    static const struct {
        const char *grid, *says;
    } cases[] = {
        {"slicing=diagonal", "diagonal"},
        {"slicing", "slicing=chunked,layered"},
        {"slicing=", "no value"},
        {"colour=red", "colour"},
        {"slicing=chunked slicing=whole", "twice"},
        {"running-max=many", "many"},
        {"host=1.2.3.4", "host"},
        {"hints=perhaps", "no, yes or sizes"},
        {"max-tokens=many", "or exact"},
        {"running-max=1,2,3,4,5,6,7,8,9,10,11 waiting-max=1,2,3,4,5,6,7,8,9,10 chunk-tokens=1,2,3,4,5,6,7,8,9,10", "cells"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        grid  g;
        error err = {0};
        assert_int_not_equal(grid_read(&g, cases[i].grid, &err), OK);
        if (!strstr(err.text, cases[i].says)) fail_msg("%s: %s", cases[i].grid, err.text);
    }
}

/* ---- the cost of a pass ---- */

typedef struct {
    checkpoint   *model;
    engine_config config;
} modelled;

static void open_modelled(modelled *m, const char *name, const char *machine) {
    error       err = {0};
    memory_plan memory;
    *m = (modelled){.config = {.device = "sim", .device_settings.sim_hardware = machine}};
    if (checkpoint_open(&m->model, name, &err) != OK || engine_plan(&m->config, m->model, &memory, &err) != OK)
        fail_msg("%s", err.text);
}

/* Op by op, as engine/walk.c would, on a device of its own. */
static uint64_t walked_ns(device *d, const program *p, const slice *slices, uint32_t n, uint32_t until) {
    static batch_run    runs[64];
    static batch_output outputs[64];
    device_stats        before, after;
    uint64_t            ns = 0;
    for (uint32_t at = 0; at < until; at++) {
        batch b = {.runs = runs, .outputs = outputs};
        for (uint32_t i = 0; i < n; i++) {
            const slice *s = &slices[i];
            if (at < s->op_begin || at >= s->op_end) continue;
            const uint32_t all = s->token_end - s->token_begin;
            const uint32_t rows = at < p->outputs_begin || s->op_end < p->op_count ? all : s->samples;
            if (rows == 0) continue;
            runs[b.run_count++] =
                (batch_run){.row_begin = b.row_count, .row_count = rows, .position_begin = s->token_end - rows};
            b.row_count += rows, b.output_count += s->samples;
        }
        if (b.row_count == 0) continue;
        device_sim.read_stats(d, &before);
        assert_int_equal(device_sim.bind(d, &b, NULL), OK);
        assert_int_equal(device_sim.run_op(d, at, NULL), OK);
        device_sim.read_stats(d, &after);
        for (int k = 0; k < OP_KIND_COUNT; k++) ns += after.op_ns[k] - before.op_ns[k];
    }
    return ns;
}

/* Decodes, whole prompts, and prompts between layers: each at random. */
static void throw_slices(rng *r, const program *p, slice *out, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t begin = (uint32_t)rng_below(r, 3000), wide = 1 + (uint32_t)rng_below(r, 200);
        out[i] = (slice){.token_begin = begin, .token_end = begin + 1, .op_end = p->op_count, .samples = true};
        if (rng_below(r, 2)) continue;
        out[i].token_end = begin + wide, out[i].samples = rng_below(r, 2);
        if (rng_below(r, 2)) out[i].op_begin = p->layer_begin[1 + rng_below(r, p->layer_count - 1)];
        if (rng_below(r, 2)) out[i].op_end = p->layer_begin[p->layer_count], out[i].samples = false;
    }
}

static void the_cost_of_a_pass_is_the_sum_of_its_operators(void **state) {
    (void)state;
    static const char *const models[] = {"random:llama-3.1-8b", "random:qwen3-30b-a3b", "random:mixtral-8x7b"};
    for (size_t m = 0; m < sizeof models / sizeof *models; m++) {
        modelled   x;
        pass_cost *cost;
        device    *d;
        error      err = {0};
        open_modelled(&x, models[m], "h200");
        assert_int_equal(pass_cost_open(&cost, x.model, &x.config, &err), OK);
        const program *p = pass_cost_program(cost);
        assert_int_equal(device_sim.open(&d, x.model, p, &x.config.device_settings, &err), OK);
        rng r = {.seed = 5 + m};
        for (int round = 0; round < 40; round++) {
            slice          slices[24];
            const uint32_t n = 1 + (uint32_t)rng_below(&r, 24);
            throw_slices(&r, p, slices, n);
            const uint64_t ns = pass_cost_of(cost, &(plan){.slice_count = n, .slices = slices});
            assert_true(ns > 0);
            assert_int_equal(ns, walked_ns(d, p, slices, n, p->op_count));
            uint64_t       boundary_ns, asked_ns = rng_below(&r, (uint32_t)ns);
            const uint32_t stop = pass_cost_stop(cost, asked_ns, &boundary_ns);
            if (stop == p->op_count) continue;
            assert_true(boundary_ns >= asked_ns && stop > 0 && stop <= p->layer_begin[p->layer_count]);
            assert_int_equal(boundary_ns, walked_ns(d, p, slices, n, stop));
        }
        device_sim.close(d), pass_cost_close(cost), checkpoint_close(x.model);
    }
}

/* ---- the link to host memory ---- */

static uint64_t take_at_end(copy_link *l, uint64_t *end_us) {
    *end_us = copy_link_next_us(l);
    assert_int_equal(copy_link_take(l, *end_us - 1), 0);
    return copy_link_take(l, *end_us);
}

static void copies_of_one_direction_follow_one_another_and_the_other_direction_does_not_wait(void **state) {
    (void)state;
    copy_link l;
    uint64_t  end_us;
    copy_link_open(&l, 2500, 8, 8);
    copy_link_queue(&l, 100, (page_copy[]){{1, true, 0, 0}, {2, true, 1, 1}, {3, false, 2, 2}, {5, true, 3, 3}}, 4);
    assert_int_equal(copy_link_end_us(&l, 5), 108); /* 107.5 */
    assert_int_equal(copy_link_end_us(&l, 4), 0);
    assert_true(take_at_end(&l, &end_us) != take_at_end(&l, &end_us)); /* 1 and 3 are over at the same time */
    assert_int_equal(end_us, 103);
    assert_int_equal(take_at_end(&l, &end_us), 2);
    assert_int_equal(end_us, 105);
    copy_link_queue(&l, 200, (page_copy[]){{6, true, 4, 4}}, 1); /* what was idle saves nothing up */
    assert_int_equal(take_at_end(&l, &end_us), 5);
    assert_int_equal(take_at_end(&l, &end_us), 6);
    assert_int_equal(end_us, 203);
    assert_int_equal(copy_link_next_us(&l), LINK_IDLE);
    copy_link_close(&l);
}

static void copies_that_touch_the_same_page_take_effect_in_order(void **state) {
    (void)state;
    copy_link l;
    copy_link_open(&l, 1000, 8, 8);
    copy_link_queue(&l, 0, (page_copy[]){{1, true, 0, 0}, {2, true, 1, 1}}, 2);
    copy_link_queue(&l, 0, (page_copy[]){{3, false, 1, 5}}, 1); /* into the page that 2 still reads */
    copy_link_queue(&l, 0, (page_copy[]){{4, true, 4, 5}}, 1);  /* over the host page that 3 still reads */
    assert_int_equal(copy_link_end_us(&l, 2), 2);
    assert_int_equal(copy_link_end_us(&l, 3), 3);
    assert_int_equal(copy_link_end_us(&l, 4), 4);
    copy_link_close(&l);
}

/* ---- priorities that change ---- */

static void a_markov_pattern_moves_to_neighbours_now_and_then_and_all_levels_are_as_frequent(void **state) {
    (void)state;
    const priority_rules rules = {PRIORITIES_MARKOV, 1000};
    uint32_t             at_level[PRIORITY_LEVELS] = {0}, moves = 0;
    enum { SESSIONS = 50, TICKS = 4000 };
    for (uint32_t session = 0; session < SESSIONS; session++) {
        priority_state s = {0}, seldom = {0};
        int32_t        before = priority_at(&rules, 9, session, 0, &s);
        assert_int_equal(priority_at(&rules, 9, session, 0, &seldom), before);
        for (uint64_t tick = 1; tick < TICKS; tick++) {
            const int32_t now = priority_at(&rules, 9, session, tick * 1000 + 7, &s);
            assert_true(now >= 0 && now < PRIORITY_LEVELS && abs(now - before) <= 1);
            at_level[now]++, moves += now != before, before = now;
        }
        assert_int_equal(priority_at(&rules, 9, session, (TICKS - 1) * 1000, &seldom), before); /* whoever asked before */
    }
    const double all = SESSIONS * TICKS;
    assert_true(fabs(moves / all - 0.075) < 0.005); /* a tenth, less what would leave the ends */
    for (int i = 0; i < PRIORITY_LEVELS; i++) assert_true(fabs(at_level[i] / all - 0.25) < 0.03);
    assert_int_equal(priority_next_us(&rules, 1999), 2000);
    assert_int_equal(priority_next_us(&rules, 2000), 3000);
}

static void a_random_pattern_draws_every_level_anew(void **state) {
    (void)state;
    const priority_rules rules = {PRIORITIES_RANDOM, 10};
    priority_state       s = {0};
    uint32_t             same = 0;
    int32_t              before = priority_at(&rules, 1, 3, 0, &s);
    for (uint64_t tick = 1; tick < 4000; tick++) {
        const int32_t now = priority_at(&rules, 1, 3, tick * 10, &s);
        same += now == before, before = now;
    }
    assert_true(same > 800 && same < 1200);
    assert_true(priority_next_us(&(priority_rules){PRIORITIES_OF_TRACE, 10}, 5) == UINT64_MAX);
}

/* ---- whole traces ---- */

typedef struct {
    trace       trace;
    grid        grid;
    checkpoint *model;
    comparison  c;
    cell       *cells;
    buf         json;
} fixture;

static void play(fixture *f, const char *trace_text, const char *cells, const comparison *like) {
    error err = {0};
    *f = (fixture){0};
    if (trace_read_text(&f->trace, trace_text, strlen(trace_text), "auto", &err) != OK) fail_msg("%s", err.text);
    if (grid_read(&f->grid, cells, &err) != OK) fail_msg("%s", err.text);
    assert_int_equal(checkpoint_open(&f->model, "random:llama-3.1-8b", &err), OK);
    f->c = like ? *like : (comparison){0};
    f->c.trace_name = "a trace", f->c.model_name = "llama-3.1-8b", f->c.hardware = "h100";
    f->c.trace = &f->trace, f->c.model = f->model, f->c.grid = &f->grid;
    if (!(f->c.pace.rate_scale > 0)) f->c.pace.rate_scale = 1;
    if (!(f->c.length_scale > 0)) f->c.length_scale = 1;
    f->cells = calloc(f->grid.cell_count, sizeof *f->cells);
    if (compare_run(&f->c, f->cells, NULL, &err) != OK) fail_msg("%s", err.text);
    buf_init(&f->json, 1 << 24);
    compare_json(&f->c, f->cells, &f->json);
}

static void stop_playing(fixture *f) {
    cells_free(f->cells, f->grid.cell_count), free(f->cells);
    trace_close(&f->trace), grid_free(&f->grid), checkpoint_close(f->model), buf_free(&f->json);
}

/* Requests of two tenants, some with a common beginning, at random times. */
static char *make_trace(uint32_t requests) {
    buf    text;
    rng    r = {.seed = 3};
    double at_ms = 0;
    buf_init(&text, 1 << 24);
    for (uint32_t i = 0; i < requests; i++) {
        at_ms += rng_below(&r, 40);
        const uint32_t blocks = 1 + (uint32_t)rng_below(&r, 4);
        buf_printf(&text, "{\"timestamp\":%.0f,\"input_length\":%u,\"output_length\":%u,\"tenant\":\"%s\",\"hash_ids\":[",
                   at_ms, blocks * 512 - 100, 1 + (uint32_t)rng_below(&r, 60), rng_below(&r, 4) ? "many" : "few");
        for (uint32_t b = 0; b < blocks; b++) buf_printf(&text, "%s%u", b ? "," : "", b < 2 ? b : 10 * i + b);
        buf_str(&text, "]}\n");
    }
    return text.data;
}

static void the_same_seed_and_trace_give_the_same_bytes(void **state) {
    (void)state;
    char   *text = make_trace(150);
    fixture a, b;
    play(&a, text, "slicing=chunked,layered admission=greedy,conservative", NULL);
    play(&b, text, "slicing=chunked,layered admission=greedy,conservative", NULL);
    assert_int_equal(a.json.size, b.json.size);
    assert_memory_equal(a.json.data, b.json.data, a.json.size);
    stop_playing(&a), stop_playing(&b), free(text);
}

static void every_request_ends_with_its_exact_length_and_the_json_tells_all_figures(void **state) {
    (void)state;
    char   *text = make_trace(100);
    fixture f;
    play(&f, text, "slicing=chunked,whole", NULL);
    uint64_t output = 0;
    for (uint32_t i = 0; i < f.trace.request_count; i++) output += f.trace.requests[i].output_tokens;
    cJSON       *all = cJSON_Parse(f.json.data);
    const cJSON *list = cJSON_GetObjectItem(all, "cells"), *item;
    assert_int_equal(cJSON_GetArraySize(list), 2);
    cJSON_ArrayForEach(item, list) {
        static const char *const objects[] = {"ttft_s", "tpot_s", "itl_s", "e2e_s", "jct_s"};
        static const char *const shares[] = {"mean", "p50", "p90", "p99", "p99_9"};
        static const char *const numbers[] = {"expert_bytes",    "goodput_rps",   "attainment",         "tokens_per_s",
                                              "evictions",       "jain",          "recomputed_tokens",  "prefix_hit_rate",
                                              "stop_reaction_s", "completed",     "evictions_per_1000", "kv_usage",
                                              "displaced",       "swap_out_pages"};
        for (int i = 0; i < 5; i++)
            for (int k = 0; k < 5; k++)
                assert_true(cJSON_IsNumber(cJSON_GetObjectItem(cJSON_GetObjectItem(item, objects[i]), shares[k])));
        for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
            assert_true(cJSON_IsNumber(cJSON_GetObjectItem(item, numbers[i])));
        assert_true(cJSON_IsString(cJSON_GetObjectItem(cJSON_GetObjectItem(item, "settings"), "slicing")));
    }
    for (int i = 0; i < 2; i++) {
        assert_true(f.cells[i].completed == 100 && f.cells[i].failed == 0);
        assert_true(f.cells[i].itl_s.count == output - 100); /* a gap for each token after the first */
        assert_true(f.cells[i].prefix_hit_rate > 0.2 && f.cells[i].prefix_hit_rate < 1);
        assert_true(f.cells[i].jain > 0 && f.cells[i].jain <= 1);
        assert_true(f.cells[i].ttft_s.mean > 0 && f.cells[i].e2e_s.mean > f.cells[i].ttft_s.mean);
    }
    cJSON_Delete(all), stop_playing(&f), free(text);
}

static void a_turn_waits_for_the_turn_before_and_its_gap_and_finds_what_that_left(void **state) {
    (void)state;
    fixture f;
    play(&f,
         "{\"timestamp\":0,\"input_length\":1000,\"output_length\":50,\"job_id\":\"a\",\"gap_s\":3}\n"
         "{\"timestamp\":0,\"input_length\":1500,\"output_length\":50,\"job_id\":\"a\",\"gap_s\":4}\n"
         "{\"timestamp\":0,\"input_length\":1800,\"output_length\":50,\"job_id\":\"a\"}\n",
         "", NULL);
    const cell *q = &f.cells[0];
    assert_true(q->completed == 3 && q->jct_s.count == 1);
    assert_true(fabs(q->jct_s.mean - 7 - 3 * q->e2e_s.mean) < 1e-3);
    /* of the second and third prompt, what the turn before held in full pages: its prompt and all but the last token of its
     * answer, which never crossed the program */
    assert_true(fabs(q->prefix_hit_rate - (1049 / 16 * 16 + 1549 / 16 * 16) / 4300.0) < 1e-9);
    stop_playing(&f);
}

static void what_the_host_takes_and_the_way_to_the_client_count(void **state) {
    (void)state;
    static const char *const request = "{\"timestamp\":0,\"input_length\":100,\"output_length\":11}\n";
    static const char *const costs[] = {"{\"operators\":{}}", "{\"operators\":{},\"pass_ns\":2e6,\"request_ns\":5e6}"};
    fixture                  f[2];
    for (int i = 0; i < 2; i++) {
        char      path[] = "/tmp/calibration-XXXXXX", cells[64];
        const int file = mkstemp(path);
        assert_true(file >= 0 && write(file, costs[i], strlen(costs[i])) == (ssize_t)strlen(costs[i]));
        snprintf(cells, sizeof cells, "sim-calibration=%s", path);
        play(&f[i], request, cells, NULL);
        close(file), unlink(path);
    }
    assert_true(fabs(f[1].cells->ttft_s.mean - f[0].cells->ttft_s.mean - 7e-3) < 2e-6);
    assert_true(fabs(f[1].cells->tpot_s.mean - f[0].cells->tpot_s.mean - 2e-3) < 2e-6);
    assert_true(fabs(f[1].cells->e2e_s.mean - f[0].cells->e2e_s.mean - 27e-3) < 20e-6);
    stop_playing(&f[0]), stop_playing(&f[1]);
}

static void a_sweep_finds_the_rate_beyond_which_requests_are_late(void **state) {
    (void)state;
    char            *text = make_trace(150);
    const comparison like = {.slo = {.ttft_ms = 250, .tpot_ms = 25}, .rate_sweep = true};
    fixture          f;
    play(&f, text, "running-max=2,32", &like);
    for (int i = 0; i < 2; i++) {
        const cell *q = &f.cells[i];
        bool        reached = false;
        assert_true(q->max_rate_rps > 0 && !q->unbounded && q->sweep_count >= 5);
        for (uint32_t k = 0; k < q->sweep_count; k++) {
            if (k) assert_true(q->sweep[k].rate_rps > q->sweep[k - 1].rate_rps);
            if (q->sweep[k].rate_rps == q->max_rate_rps) reached = q->sweep[k].attainment >= SWEEP_ATTAINMENT;
        }
        assert_true(reached);
    }
    assert_true(f.cells[0].max_rate_rps < f.cells[1].max_rate_rps); /* two at once are fewer than thirty-two */
    stop_playing(&f), free(text);
}

/* One run with the scheduler's settings as `set` makes them, which are those of a daemon with little memory else. */
typedef void (*setter)(scheduler_config *c, simulation *s);

static void simulate_with(const char *trace_text, setter set, simulated *figures, summary *sums) {
    modelled x;
    error    err = {0};
    trace    t;
    record   r;
    open_modelled(&x, "random:llama-3.1-8b", "a100-80g");
    scheduler_config *c = &x.config.scheduler_settings;
    simulation        s = {.model = x.model, .engine = &x.config, .pace = {.rate_scale = 1}, .length_scale = 1};
    c->page_count = 400, c->retention.prefix_cache = true;
    c->order = (order_config){.policy = ORDER_PRIORITY, .age_ms = 1000000}, c->reclaim.displaces = true;
    set(c, &s);
    if (trace_read_text(&t, trace_text, strlen(trace_text), "auto", &err) != OK) fail_msg("%s", err.text);
    record_init(&r, t.request_count);
    if (simulate(&s, &t, &r, figures, &err) != OK) fail_msg("%s", err.text);
    summarize(&r, &t, sums);
    assert_int_equal(sums->completed, t.request_count);
    record_free(&r), trace_close(&t), checkpoint_close(x.model);
}

static void recompute(scheduler_config *c, simulation *s) {
    (void)c;
    s->priorities = (priority_rules){PRIORITIES_MARKOV, 100000};
}
static void swaps(scheduler_config *c, simulation *s) {
    recompute(c, s);
    c->reclaim.policy = RECLAIM_SWAP, c->reclaim.host_pages = 4000;
}
static void swaps_little(scheduler_config *c, simulation *s) {
    swaps(c, s);
    c->reclaim.host_pages = 20, c->reclaim.copies_max = 7;
}
static void steady_priorities(scheduler_config *c, simulation *s) {
    recompute(c, s);
    s->priorities.pattern = PRIORITIES_OF_TRACE;
}

static void who_loses_its_memory_to_the_more_urgent_gets_it_back_by_copies(void **state) {
    (void)state;
    char     *text = make_trace(150);
    simulated by_computing, by_copies, by_few, again, steady;
    summary   sums[5];
    simulate_with(text, recompute, &by_computing, &sums[0]);
    simulate_with(text, swaps, &by_copies, &sums[1]);
    simulate_with(text, swaps_little, &by_few, &sums[2]);
    simulate_with(text, swaps, &again, &sums[3]);
    simulate_with(text, steady_priorities, &steady, &sums[4]);
    const scheduler_stats *a = &by_computing.scheduler, *b = &by_copies.scheduler, *c = &by_few.scheduler;
    assert_true(a->displaced > 20 && steady.scheduler.displaced == 0); /* only priorities that change displace */
    assert_true(a->swap_out_pages + a->swap_in_pages == 0);
    assert_true(b->swap_out_pages > 0 && b->swap_in_pages > 0 && b->swap_clean_pages > 0 && b->swap_failed_pages == 0);
    assert_true(b->recomputed_tokens < a->recomputed_tokens / 4);
    assert_true(c->swap_out_pages > 0 && c->recomputed_tokens > b->recomputed_tokens);
    assert_true(b->copies_open + b->arriving + b->swapped == 0);
    /* a page over the link takes 2 MiB / (25 GB/s) */
    assert_true(fabs(b->page_copy_us - 84) < 10);
    assert_true(sums[1].of[METRIC_TTFT].mean < sums[0].of[METRIC_TTFT].mean);
    assert_true(sums[1].kv_usage > 0 && sums[1].kv_usage <= 1);
    const scheduler_stats *d = &again.scheduler; /* the same call, the same run */
    assert_true(d->swap_in_pages == b->swap_in_pages && d->passes_us == b->passes_us && again.events == by_copies.events);
    simulated *const all[] = {&by_computing, &by_copies, &by_few, &again, &steady};
    for (int i = 0; i < 5; i++) simulated_free(all[i]), summary_free(&sums[i]);
    free(text);
}

static void a_page_tells_every_cell_and_needs_nothing_from_outside(void **state) {
    (void)state;
    char   *text = make_trace(40);
    fixture f;
    buf     page;
    play(&f, text, "slicing=chunked,layered", NULL);
    buf_init(&page, 1 << 24);
    compare_html(&f.c, f.cells, true, &page);
    assert_non_null(strstr(page.data, "slicing=chunked"));
    assert_non_null(strstr(page.data, "slicing=layered"));
    assert_non_null(strstr(page.data, "<svg"));
    assert_null(strstr(page.data, "http"));
    assert_null(strstr(page.data, "nan"));
    buf_free(&page), stop_playing(&f), free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_grid_is_every_combination_the_last_word_fastest),
        cmocka_unit_test(a_grid_that_the_daemon_would_not_take_is_refused_with_a_sentence),
        cmocka_unit_test(the_cost_of_a_pass_is_the_sum_of_its_operators),
        cmocka_unit_test(copies_of_one_direction_follow_one_another_and_the_other_direction_does_not_wait),
        cmocka_unit_test(copies_that_touch_the_same_page_take_effect_in_order),
        cmocka_unit_test(a_markov_pattern_moves_to_neighbours_now_and_then_and_all_levels_are_as_frequent),
        cmocka_unit_test(a_random_pattern_draws_every_level_anew),
        cmocka_unit_test(who_loses_its_memory_to_the_more_urgent_gets_it_back_by_copies),
        cmocka_unit_test(the_same_seed_and_trace_give_the_same_bytes),
        cmocka_unit_test(every_request_ends_with_its_exact_length_and_the_json_tells_all_figures),
        cmocka_unit_test(a_turn_waits_for_the_turn_before_and_its_gap_and_finds_what_that_left),
        cmocka_unit_test(what_the_host_takes_and_the_way_to_the_client_count),
        cmocka_unit_test(a_sweep_finds_the_rate_beyond_which_requests_are_late),
        cmocka_unit_test(a_page_tells_every_cell_and_needs_nothing_from_outside),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
