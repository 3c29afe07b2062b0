#include "bench/compare.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench/shared_flags.h"

/* ---- a cell's machine ---- */

typedef struct {
    settings settings; /* the engine in it is planned */
    options *options;  /* owns its strings */
    clients  clients;
} machine;

static int machine_open(machine *m, const comparison *c, uint32_t index, error *err) {
    memory_plan memory;
    *m = (machine){0};
    int code = grid_settings(c->grid, index, "", &m->settings, &m->options, &m->clients, err);
    if (c->hardware) m->settings.engine.device_settings.sim_hardware = c->hardware;
    m->settings.engine.scheduler_settings.seed = c->seed;
    if (code == OK) code = engine_plan(&m->settings.engine, c->model, &memory, err);
    if (code == OK) return OK;
    buf label;
    buf_init(&label, 1 << 12);
    grid_label(c->grid, index, &label);
    error_prefix(err, "%s", label.data);
    buf_free(&label);
    return code;
}

static void machine_close(machine *m) { options_free(m->options); }

/* ---- one run ---- */

typedef struct {
    record    record;
    simulated figures;
    summary   summary;
} run_result;

static int run_open(run_result *r, const comparison *c, const machine *m, double arrival_scale, error *err) {
    simulation s = {.model = c->model,
                    .engine = &m->settings.engine,
                    .pace = c->pace,
                    .length_scale = c->length_scale,
                    .seed = c->seed,
                    .slo = c->slo,
                    .clients = m->clients,
                    .priorities = c->priorities};
    s.pace.arrival_scale = arrival_scale;
    record_init(&r->record, c->trace->request_count);
    const int code = simulate(&s, c->trace, &r->record, &r->figures, err);
    if (code != OK) return record_free(&r->record), code;
    summarize(&r->record, c->trace, &r->summary);
    return OK;
}

static void run_close(run_result *r) { record_free(&r->record), simulated_free(&r->figures), summary_free(&r->summary); }

static double offered_rps(const comparison *c, double arrival_scale) {
    const double span_s = trace_span_s(c->trace) / c->pace.rate_scale / arrival_scale;
    return span_s > 0 ? c->trace->request_count / span_s : 0;
}

/* ---- the highest rate ---- */

enum { SWEEP_DOUBLINGS = 10, SWEEP_BISECTIONS = 5 };

static int attainment_at(const comparison *c, uint32_t index, const machine *m, cell *out, double scale, bool *attained,
                         error *err) {
    run_result r;
    if (c->progress) c->progress(c->progress_context, index, scale);
    const int code = run_open(&r, c, m, scale, err);
    if (code != OK) return code;
    check(out->sweep_count < SWEEP_POINTS_MAX);
    out->sweep[out->sweep_count++] = (sweep_point){offered_rps(c, scale), r.summary.attainment};
    *attained = r.summary.attainment >= SWEEP_ATTAINMENT;
    return run_close(&r), OK;
}

static int by_rate(const void *a, const void *b) {
    const double x = ((const sweep_point *)a)->rate_rps, y = ((const sweep_point *)b)->rate_rps;
    return (x > y) - (x < y);
}

/* Doubles or halves the rate until it lies between two tried ones, then halves what lies between, in ratios: to 2.2 %. The
 * run at the trace's own rate has been made. Attainment is taken as falling with the rate. */
static int sweep(const comparison *c, uint32_t index, const machine *m, cell *out, error *err) {
    double low = 1, high = 1;
    bool   attained = out->attainment >= SWEEP_ATTAINMENT, up = attained;
    int    code = OK;
    out->sweep[out->sweep_count++] = (sweep_point){offered_rps(c, 1), out->attainment};
    for (int i = 0; i < SWEEP_DOUBLINGS && attained == up && code == OK; i++) {
        if (up) low = high, high *= 2;
        else high = low, low /= 2;
        code = attainment_at(c, index, m, out, up ? high : low, &attained, err);
    }
    out->unbounded = up && attained;
    if (!up && !attained) return code; /* at no rate */
    if (out->unbounded) low = high;
    for (int i = 0; i < SWEEP_BISECTIONS && !out->unbounded && code == OK; i++) {
        const double middle = sqrt(low * high);
        code = attainment_at(c, index, m, out, middle, &attained, err);
        if (attained) low = middle;
        else high = middle;
    }
    out->max_rate_rps = offered_rps(c, low);
    qsort(out->sweep, out->sweep_count, sizeof *out->sweep, by_rate);
    return code;
}

/* ---- a cell ---- */

static distribution in_seconds(distribution d) {
    double *all[] = {&d.mean, &d.std, &d.min, &d.max, &d.p50, &d.p90, &d.p95, &d.p99, &d.p999};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) *all[i] *= 1e-3;
    return d;
}

static double share(double part, double whole) { return whole > 0 ? part / whole : 0; }

static void fill(const comparison *c, run_result *r, cell *out) {
    const summary         *s = &r->summary;
    const scheduler_stats *q = &r->figures.scheduler;
    *out = (cell){
        .ttft_s = in_seconds(s->of[METRIC_TTFT]),
        .tpot_s = in_seconds(s->of[METRIC_TPOT]),
        .itl_s = in_seconds(s->of[METRIC_ITL]),
        .e2e_s = in_seconds(s->of[METRIC_E2EL]),
        .jct_s = in_seconds(s->of[METRIC_JCT]),
        .stop_reaction_s = series_describe(&r->figures.stop_reactions_s),
        .completed = s->completed,
        .failed = s->failed,
        .goodput_rps = s->goodput,
        .attainment = s->attainment,
        .requests_rps = s->request_throughput,
        .tokens_per_s = s->output_throughput,
        .input_tokens_per_s = s->input_throughput,
        .expert_bytes = r->figures.expert_bytes,
        .weight_bytes = r->figures.weight_bytes,
        .evictions = (double)q->preempted,
        .evictions_per_1000 = 1e3 * share((double)q->preempted, s->completed),
        .displaced = (double)q->displaced,
        .recomputed_tokens = (double)q->recomputed_tokens,
        .pages_evicted = (double)q->pages_evicted,
        .prefix_hit_rate = share((double)q->prompt_cached_tokens, (double)q->prompt_tokens),
        .kv_usage = isnan(s->kv_usage) ? 0 : s->kv_usage,
        .swap_out_pages = (double)q->swap_out_pages,
        .swap_in_pages = (double)q->swap_in_pages,
        .swap_clean_pages = (double)q->swap_clean_pages,
        .swap_in_tokens = (double)q->swap_in_tokens,
        .copy_wait_s = r->figures.copy_wait_s,
        .jain = q->jain,
        .busy_share = share(r->figures.busy_s, s->duration_s),
        .rate_rps = offered_rps(c, 1),
        .events = r->figures.events,
    };
    for (int m = 0; m < METRIC_COUNT; m++) out->curves[m] = r->summary.samples[m], r->summary.samples[m] = (series){0};
}

static int write_page(const comparison *c, uint32_t index, run_result *r, const char *folder, error *err) {
    char name[64];
    buf  page, label;
    buf_init(&page, REPORT_BYTES_MAX), buf_init(&label, 1 << 12);
    grid_label(c->grid, index, &label);
    r->record.title = label.data, r->record.trace_name = c->trace_name, r->record.model = c->model_name;
    r->record.url = c->hardware, r->record.seed = c->seed;
    r->record.rate_scale = c->pace.rate_scale, r->record.length_scale = c->length_scale;
    report_html(&r->record, &r->summary, &page);
    snprintf(name, sizeof name, "cell-%u.html", index + 1);
    int code = write_file(folder, name, &page, err);
    buf_clear(&page);
    report_requests(&r->record, c->trace, &page);
    snprintf(name, sizeof name, "cell-%u.jsonl", index + 1);
    if (code == OK) code = write_file(folder, name, &page, err);
    buf_free(&page), buf_free(&label);
    return code;
}

static int run_cell(const comparison *c, uint32_t index, const char *folder, cell *out, error *err) {
    machine    m;
    run_result r;
    int        code = machine_open(&m, c, index, err);
    if (code == OK) {
        if (c->progress) c->progress(c->progress_context, index, 1);
        code = run_open(&r, c, &m, 1, err);
    }
    if (code == OK) {
        if (folder) code = write_page(c, index, &r, folder, err);
        fill(c, &r, out);
        run_close(&r);
    }
    if (code == OK && c->rate_sweep) code = sweep(c, index, &m, out, err);
    machine_close(&m);
    return code;
}

int compare_run(const comparison *c, cell *cells, const char *folder, error *err) {
    for (uint32_t i = 0; i < c->grid->cell_count; i++) { /* a refusal is told before hours of work */
        machine m;
        int     code = machine_open(&m, c, i, err);
        if (code == OK) code = simulation_check(c->model, &m.settings.engine, err);
        machine_close(&m);
        if (code != OK) return code;
    }
    for (uint32_t i = 0; i < c->grid->cell_count; i++) {
        const int code = run_cell(c, i, folder, &cells[i], err);
        if (code != OK) return code;
    }
    return OK;
}

void cells_free(cell *cells, uint32_t count) {
    for (uint32_t i = 0; i < count; i++)
        for (int m = 0; m < METRIC_COUNT; m++) series_free(&cells[i].curves[m]);
}
