/* scheduler/length_model.h: how long answers become, learned from the ones that ended.
 *
 * Problem: memory, deadlines and order depend on how much a request will still say, and nobody knows. Neighbouring windows
 * of a service's traffic look alike, so the past is the best guess; but an answer that was cut off at its limit, or whose
 * client left, did not end there: it is longer than that (censored), and counting it as ended makes every guess short.
 * Choice: per class (a tenant's key, say) and for all together, a histogram of lengths in steps of a fifth or so, answers
 * that ended and answers that were cut off apart, of which Kaplan and Meier's estimator makes the share that is longer
 * than x. Old answers count half after every SAMPLES_HELD. A guess is a quantile of what is left given what was said, so
 * it is the same each time it is asked; each policy reads the quantile that suits it.
 * Cost: a kilobyte a class; the first guess after a lesson walks LENGTH_STEPS, others halve them. A class with fewer than
 * SAMPLES_MIN answers speaks for all; so does one whose place was taken by another's (a place is found by its hash among
 * four). */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/carve.h"

enum { LENGTH_STEPS = 96, SAMPLES_MIN = 50, SAMPLES_HELD = 1024 };
#define LENGTH_UNKNOWN UINT32_MAX

typedef struct {
    uint64_t class;
    double samples;                                /* weight held */
    float  ended[LENGTH_STEPS], cut[LENGTH_STEPS]; /* weight of answers in this step */
    bool   stale;                                  /* more was learned than `longer` says */
    float  longer[LENGTH_STEPS + 1];               /* share of answers that are longer than where the step begins */
} length_history;

typedef struct {
    uint32_t        class_count; /* a multiple of 4 */
    length_history *classes;
    length_history  all;
} length_model;

void length_model_init(length_model *m, uint32_t class_count, carver *c);
/* An answer of `length` tokens ended by itself, or was cut off (by its limit, or its client). 0 tokens teach nothing. */
void length_model_learn(length_model *m, uint64_t class, uint32_t length, bool ended);
/* Whether enough answers ended for a guess. */
static inline bool length_model_knows(const length_model *m) { return m->all.samples >= SAMPLES_MIN; }
/* Tokens that an answer of this class which has said `said` will still say, in `quantile` of all such cases (0 < quantile
 * < 1); at least 1. LENGTH_UNKNOWN: too few answers were seen, or too few of them that are so long have ended. */
uint32_t length_model_left(length_model *m, uint64_t class, uint32_t said, double quantile);
