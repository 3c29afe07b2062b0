/* scheduler/step_model.h: how long a pass takes, learned from the passes that were measured.
 *
 * Problem: how much prompt may ride beside the decodes, whether a deadline can still be met and what a stop would cost are
 * all questions about the time of a pass that has not run. Decode and prefill times cannot be added: a mixed pass reads
 * the weights once.
 * Choice: one model, joint over everything a pass does (step_load), linear in its quantities, fitted by recursive least
 * squares of the relative error, so that short passes count as much as long ones. It forgets slowly, so it follows a
 * machine whose speed changes. No device is asked and nothing is calibrated beforehand.
 * Cost: some hundred multiplications a pass. Until LEARNED_MIN passes were seen it says 0: unknown. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "scheduler/config.h"

/* What one pass is given to do. Quantities of prefill are weighted with the share of the program that their rows walk. */
typedef struct {
    uint32_t decode_rows;
    uint64_t decode_context; /* positions that decode rows attend to, summed */
    double   prefill_rows;
    double   prefill_attended; /* positions that prefill rows attend to, summed */
    uint32_t op_begin, op_end; /* from the first operator to the last that anybody walks; equal: nobody */
} step_load;

/* One more slice: tokens [begin, end) of a sequence through [op_begin, op_end). */
void step_load_add_decode(step_load *l, const model_shape *m, uint32_t position);
void step_load_add_prefill(step_load *l, const model_shape *m, uint32_t begin, uint32_t end, uint32_t op_begin,
                           uint32_t op_end);

enum { STEP_FEATURES = 7, LEARNED_MIN = 16 };

typedef struct {
    model_shape shape;
    double      weights[STEP_FEATURES]; /* microseconds of one unit of each quantity */
    double      covariance[STEP_FEATURES][STEP_FEATURES];
    double      usual_us;      /* moving mean of measured times */
    double      usual_decodes; /* and of the decode rows in them */
    uint64_t    passes;        /* learned from */
    double      error_share;   /* moving mean of |predicted - measured| / measured, of passes that were predicted */
} step_model;

void     step_model_init(step_model *m, const model_shape *shape);
uint64_t step_model_predict_us(const step_model *m, const step_load *l);            /* 0: unknown yet, or nothing to do */
void     step_model_learn(step_model *m, const step_load *l, uint64_t measured_us); /* 0 us teaches nothing */
