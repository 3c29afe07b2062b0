/* bench/compare.h: one trace under every cell of a grid, and what is said of that: a table, JSON, pages of HTML. */
#pragma once
#include <stdio.h>

#include "bench/grid.h"
#include "bench/simulate.h"

typedef struct {
    const char       *trace_name, *model_name, *hardware; /* for the reader; hardware NULL: the sim device's own choice */
    const trace      *trace;
    const checkpoint *model;
    const grid       *grid;
    agenda_rules      pace;
    double            length_scale;
    uint64_t          seed;
    slo               slo; /* of requests that have none of their own */
    priority_rules    priorities;
    bool              rate_sweep;
    void (*progress)(void *context, uint32_t cell, double arrival_scale); /* before each run; or NULL */
    void *progress_context;
} comparison;

/* A run of a cell, at some rate. */
typedef struct {
    double rate_rps, attainment;
} sweep_point;

enum { SWEEP_POINTS_MAX = 32 };

/* What came of a cell, in seconds, bytes and shares. */
typedef struct {
    distribution ttft_s, tpot_s, itl_s, e2e_s, jct_s, stop_reaction_s;
    double       completed, failed, goodput_rps, attainment, requests_rps, tokens_per_s, input_tokens_per_s;
    double       expert_bytes, weight_bytes, evictions, evictions_per_1000, displaced, recomputed_tokens, pages_evicted;
    double       prefix_hit_rate, kv_usage, jain, busy_share;
    double       swap_out_pages, swap_in_pages, swap_clean_pages, swap_in_tokens, copy_wait_s;
    double       rate_rps;     /* offered by the trace */
    double       max_rate_rps; /* the highest with attainment >= SWEEP_ATTAINMENT; 0 where no rate tried had it */
    bool         unbounded;    /* even the highest rate tried had it */
    sweep_point  sweep[SWEEP_POINTS_MAX];
    uint32_t     sweep_count;
    uint64_t     events;               /* of the run at the trace's own rate */
    series       curves[METRIC_COUNT]; /* sorted milliseconds, for plots */
} cell;

#define SWEEP_ATTAINMENT 0.9

/* Runs all cells into cells[grid->cell_count]; each cell's own page, and a line a request, are written into `folder` (NULL:
 * none). */
int  compare_run(const comparison *c, cell *cells, const char *folder, error *err);
void cells_free(cell *cells, uint32_t count);

void compare_table(const comparison *c, const cell *cells, FILE *out);
void compare_json(const comparison *c, const cell *cells, buf *out);
void compare_html(const comparison *c, const cell *cells, bool with_pages, buf *out);
