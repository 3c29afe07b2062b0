/* bench/cmd_compare.c: `penstock-bench compare`: reads the flags, the grid and the trace, runs every cell, reports. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/command_line.h"
#include "bench/commands.h"
#include "bench/compare.h"
#include "bench/shared_flags.h"

typedef struct {
    const char *trace, *format, *model, *hardware, *grid, *slo, *out;
    double      rate_scale, length_scale, rate;
    uint32_t    requests, seed;
    const char *priority_pattern;
    uint64_t    duration_us, gap_max_us, priority_period_us;
    bool        rate_sweep, json, quiet;
} compare_flags;

#define AT(field) offsetof(compare_flags, field)
static const option_row rows[] = {
    {NULL, "trace", OPTION_STRING, AT(trace), 0, 0, NULL, NULL, "FILE", "what to play; plain or gzip", false},
    {NULL, "format", OPTION_CHOICE, AT(format), 0, 0, "auto", TRACE_FORMATS, NULL,
     "of the trace; auto looks at its first line", false},
    {NULL, "model", OPTION_STRING, AT(model), 0, 0, NULL, NULL, "NAME",
     "a shape that the program knows (Llama-3.1-8B), or the folder of a checkpoint", false},
    {NULL, "hardware", OPTION_STRING, AT(hardware), 0, 0, NULL, NULL, "NAME", "the machine that the sim device models",
     false},
    {NULL, "grid", OPTION_STRING, AT(grid), 0, 0, "", NULL, "WORDS",
     "\"slicing=chunked,layered order=fcfs,deadline\": settings of the scheduler and the engine; every combination is a "
     "cell",
     false},
    {NULL, "rate-sweep", OPTION_BOOL, AT(rate_sweep), 0, 0, "no", NULL, NULL,
     "find each cell's highest rate of arrivals at which 90 % of the requests are in time", false},
    {NULL, "requests", OPTION_U32, AT(requests), 0, TRACE_REQUESTS_MAX, "0", NULL, "N",
     "only the first N of the trace; 0: all", false},
    {NULL, "seed", OPTION_U32, AT(seed), 0, 4294967295.0, "0", NULL, "S", "same seed and trace, same result to the byte",
     false},
    {NULL, "slo", OPTION_STRING, AT(slo), 0, 0, NULL, NULL, "LIMITS",
     "what counts as in time: ttft_ms=..,tpot_ms=..,tbt_ms=..,e2e_ms=.. (some of them); the trace's own win", false},
    {NULL, "rate-scale", OPTION_F64, AT(rate_scale), 1e-6, 1e6, "1", NULL, "X",
     "the trace's time runs X times as fast: arrivals and the gaps of sessions", false},
    {NULL, "rate", OPTION_F64, AT(rate), 0, 1e6, "0", NULL, "R",
     "Poisson arrivals of sessions, R a second, in place of the trace's times; 0: its own, or 1 a second where it has none",
     false},
    {NULL, "length-scale", OPTION_F64, AT(length_scale), 1e-6, 1e3, "1", NULL, "X", "prompts and answers X times as long",
     false},
    {NULL, "gap-max", OPTION_DURATION, AT(gap_max_us), 0, 1e9, "0s", NULL, "TIME",
     "no turn waits longer than it for a tool or a person; 0s: no limit", false},
    {NULL, "priority-pattern", OPTION_CHOICE, AT(priority_pattern), 0, 0, "trace", PRIORITY_PATTERNS, NULL,
     "how urgent conversations are: as the trace says; drawn anew, or moved to a neighbouring level, at each period", false},
    {NULL, "priority-period", OPTION_DURATION, AT(priority_period_us), 1e-3, 1e9, "500ms", NULL, "TIME",
     "how often priorities change under random and markov", false},
    {NULL, "duration", OPTION_DURATION, AT(duration_us), 0, 1e9, "0s", NULL, "TIME",
     "nothing is sent after it (30s, 5min); 0s: no limit", false},
    {NULL, "out", OPTION_STRING, AT(out), 0, 0, NULL, NULL, "DIR",
     "write compare.json, compare.html, and for each cell a page and a line a request there", false},
    {NULL, "json", OPTION_BOOL, AT(json), 0, 0, "no", NULL, NULL, "print the result as JSON in place of the table", false},
    {NULL, "quiet", OPTION_BOOL, AT(quiet), 0, 0, "no", NULL, NULL, "show no progress", false},
};
#undef AT
enum { ROW_COUNT = sizeof rows / sizeof *rows };

static const char usage[] =
    "Plays a trace through the scheduler for every combination of settings, under a virtual clock, on a machine that\n"
    "is only modelled: no server, no device, the same result each time. docs/compare.md says what the figures are.\n\n"
    "Usage: penstock-bench compare --trace FILE --model NAME [--hardware NAME] --grid WORDS [options]\n\n";

/* ---- reports ---- */

static int write_reports(const char *folder, const comparison *c, const cell *cells, error *err) {
    buf json, html;
    buf_init(&json, REPORT_BYTES_MAX), buf_init(&html, REPORT_BYTES_MAX);
    compare_json(c, cells, &json), compare_html(c, cells, true, &html);
    int code = write_file(folder, "compare.json", &json, err);
    if (code == OK) code = write_file(folder, "compare.html", &html, err);
    buf_free(&json), buf_free(&html);
    return code;
}

static int report(const compare_flags *f, const comparison *c, const cell *cells, error *err) {
    if (f->json) {
        buf json;
        buf_init(&json, REPORT_BYTES_MAX);
        compare_json(c, cells, &json);
        fputs(json.data, stdout);
        buf_free(&json);
    } else {
        compare_table(c, cells, stdout);
    }
    const int code = f->out ? write_reports(f->out, c, cells, err) : OK;
    if (code == OK && f->out && !f->json) printf("%s/compare.html shows it in plots\n", f->out);
    return code;
}

/* ---- the whole ---- */

static void show_progress(void *context, uint32_t index, double arrival_scale) {
    const comparison *c = context;
    buf               label;
    buf_init(&label, 1 << 12);
    grid_label(c->grid, index, &label);
    fprintf(stderr, "%s[%u of %u] %s", isatty(STDERR_FILENO) ? "\r\033[K" : "", index + 1, c->grid->cell_count, label.data);
    if (arrival_scale != 1) fprintf(stderr, ", arrivals %.3g times as fast", arrival_scale);
    if (!isatty(STDERR_FILENO)) fputc('\n', stderr);
    buf_free(&label);
}

static bool some_slo(const comparison *c) {
    if (slo_given(&c->slo)) return true;
    for (uint32_t i = 0; i < c->trace->request_count; i++)
        if (slo_given(&c->trace->requests[i].slo)) return true;
    return false;
}

static int compare_cells(const compare_flags *f, comparison *c, error *err) {
    const uint64_t begin_ns = clock_ns();
    uint64_t       events = 0;
    if (f->rate_sweep && !some_slo(c))
        return error_set(err, ERR_USAGE,
                         "--rate-sweep asks for the rate at which requests are in time, and nobody says what that is: give "
                         "--slo ttft_ms=500,tpot_ms=50, or a trace that does");
    if (f->rate_sweep && !(trace_span_s(c->trace) > 0))
        return error_set(err, ERR_USAGE, "--rate-sweep needs requests that come at different times; give --rate R");
    cell *cells = calloc(c->grid->cell_count, sizeof *cells);
    if (!cells) fatal("out of memory for %u cells", c->grid->cell_count);
    if (!f->quiet) c->progress = show_progress, c->progress_context = c;
    int code = compare_run(c, cells, f->out, err);
    if (!f->quiet && isatty(STDERR_FILENO)) fputs("\r\033[K", stderr);
    for (uint32_t i = 0; i < c->grid->cell_count; i++) events += cells[i].events;
    if (code == OK) code = report(f, c, cells, err);
    if (code == OK && !f->quiet && !f->rate_sweep)
        fprintf(stderr, "%.2f M arrivals and passes in %.2f s\n", (double)events * 1e-6,
                (double)(clock_ns() - begin_ns) * 1e-9);
    cells_free(cells, c->grid->cell_count), free(cells);
    return code;
}

static int with_model(const compare_flags *f, const grid *g, trace *t, error *err) {
    checkpoint *model;
    char        hardware[64] = "";
    if (f->hardware) name_lower(f->hardware, hardware, sizeof hardware);
    comparison c = {
        .trace_name = file_name(f->trace),
        .model_name = f->model,
        .hardware = f->hardware ? hardware : NULL,
        .trace = t,
        .grid = g,
        .pace = {.rate_scale = f->rate_scale, .gap_max_us = f->gap_max_us, .duration_us = f->duration_us},
        .length_scale = f->length_scale,
        .seed = f->seed,
        .priorities = {(priority_pattern)option_choice_index(PRIORITY_PATTERNS, f->priority_pattern), f->priority_period_us},
        .rate_sweep = f->rate_sweep};
    int code = f->slo ? read_slo(f->slo, &c.slo, err) : OK;
    if (code == OK) code = open_model(&model, f->model, err);
    if (code != OK) return code;
    c.model = model;
    code = compare_cells(f, &c, err);
    checkpoint_close(model);
    return code;
}

static int compare(const compare_flags *f, error *err) {
    grid  g;
    trace t;
    if (!f->trace) return error_set(err, ERR_USAGE, "no trace was given; write --trace FILE (bench/traces holds two)");
    if (!f->model)
        return error_set(err, ERR_USAGE, "no model was given; write --model llama-3.1-8b, or a checkpoint's folder");
    int code = grid_read(&g, f->grid, err);
    if (code != OK) return code;
    if (f->out) code = make_folder(f->out, err);
    if (code == OK) code = trace_open(&t, f->trace, f->format, f->requests, err);
    if (code != OK) return grid_free(&g), code;
    if (f->rate > 0 || !t.has_times) trace_draw_arrivals(&t, f->rate > 0 ? f->rate : 1, f->seed);
    code = with_model(f, &g, &t, err);
    trace_close(&t), grid_free(&g);
    return code;
}

int cmd_compare(int argc, char **argv) {
    compare_flags f = {0};
    command_line  line = {.usage = usage, .rows = rows, .row_count = ROW_COUNT, .values = &f, .words_max = 1};
    error         err = {0};
    int           code = command_line_read(&line, argc, argv, &err);
    if (code == OK && !line.help && line.word_count)
        code =
            error_set(&err, ERR_USAGE,
                      "'%s' is not a flag; flags are written --name VALUE, and a grid is one word in quotes", line.words[0]);
    if (code == OK && !line.help) code = compare(&f, &err);
    if (code != OK) fprintf(stderr, "penstock-bench compare: %s\n", err.text);
    command_line_free(&line);
    return error_exit_status(code);
}
