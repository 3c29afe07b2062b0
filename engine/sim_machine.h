/* engine/sim_machine.h: how fast a modelled machine is: a row of a table, or a file of measurements.
 *
 * An operator of a row costs a launch and the longer of its bytes over the bandwidth and its operations over the rate (a
 * roofline: on a GPU loads and arithmetic overlap). An operator that was calibrated costs what was fitted to measurements:
 *
 *     ns = (fixed + rows * ns_per_row + bytes * ns_per_byte + flops * ns_per_flop) * by_rows(rows)
 *
 * The sum is what a machine does to first order. Kernels are not of first order: one row may have a path of its own, and
 * rows go by tiles. by_rows is what was measured over the sum, at the numbers of rows that were, and a straight line
 * between. Bytes and operations are program_cost's. What the host takes for a pass and the way to the client for a request
 * are costs of the machine as well, known only from measurements, and 0 in the table: whoever plays both sides spends them
 * anyway, so only a simulation without a server counts them (bench/simulate.h). Which experts are read is a matter of how
 * alike neighbouring tokens choose: `rows` of them touch as many experts as min(rows, 2.25 rows^0.54) independent choices of
 * k of E would,
 *
 *     touched = E (1 - (1 - k/E)^min(rows, 2.25 rows^0.54))
 *
 * fitted to the coverage published for Qwen3-30B-A3B (arXiv 2510.08055: under half of 128 experts at 16 rows, under 70 % at
 * 64, 86 % at 128, all at 512; the formula gives 48, 75, 86 and 99 %). Random weights choose independently, so a calibration
 * on them says "uniform". */
#pragma once
#include "engine/program.h"

enum { SIM_POINTS_MAX = 32 };

typedef struct {
    bool     known;
    double   fixed_ns, ns_per_row, ns_per_byte, ns_per_flop;
    uint32_t point_count;                                  /* of by_rows; 0: 1 everywhere */
    double   rows[SIM_POINTS_MAX], factor[SIM_POINTS_MAX]; /* rows rise */
} sim_fit;

typedef struct {
    char     name[64];
    double   bytes_per_s, flops_per_s; /* reached by good kernels, not the datasheet's */
    double   launch_ns;                /* of one operator */
    double   link_bytes_per_s;         /* to host memory, and as much back at the same time */
    uint64_t memory_bytes;
    bool     uniform_experts; /* tokens choose independently */
    double   pass_ns;         /* of a pass, outside its operators: planning, and telling what came of it */
    double   request_ns;      /* of a request, outside the engine, until its first token is at the client */
    sim_fit  fits[OP_KIND_COUNT];
} sim_machine;

/* The row named `name` (NULL: the first), with what the calibration file says in its place (NULL: none). ERR_NOT_FOUND,
 * ERR_INVALID with a sentence. */
int sim_machine_find(sim_machine *out, const char *name, const char *calibration, error *err);
/* The text of a calibration file, read into *m; `path` is for sentences. */
int sim_machine_parse(sim_machine *m, const char *path, const char *text, size_t bytes, error *err);

double sim_machine_copy_ns(const sim_machine *m, uint64_t bytes); /* to host memory, or back */
double sim_machine_op_ns(const sim_machine *m, op_kind kind, const op_cost *cost);
double sim_fit_ns(const sim_fit *f, const op_cost *cost);
double sim_machine_experts(const sim_machine *m, const model_facts *f, uint32_t rows); /* distinct ones, of a layer */
