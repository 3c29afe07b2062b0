#include "scheduler/step_model.h"

#include <math.h>
#include <string.h>

/* ---- what a pass does ---- */

static void widen(step_load *l, uint32_t op_begin, uint32_t op_end) {
    if (l->op_begin == l->op_end) l->op_begin = op_begin, l->op_end = op_end;
    if (op_begin < l->op_begin) l->op_begin = op_begin;
    if (op_end > l->op_end) l->op_end = op_end;
}

void step_load_add_decode(step_load *l, const model_shape *m, uint32_t position) {
    l->decode_rows++;
    l->decode_context += (uint64_t)position + 1;
    widen(l, 0, m->op_count);
}

void step_load_add_prefill(step_load *l, const model_shape *m, uint32_t begin, uint32_t end, uint32_t op_begin,
                           uint32_t op_end) {
    const double share = (double)(op_end - op_begin) / m->op_count, rows = end - begin;
    l->prefill_rows += rows * share;
    l->prefill_attended += (rows * begin + rows * (rows + 1) / 2) * share;
    widen(l, op_begin, op_end);
}

/* Distinct experts of a layer that so many rows touch, were each choice uniform, as a share of all. */
static double touched(const model_shape *m, double rows) {
    return m->experts ? 1 - pow(1 - (double)m->experts_per_row / m->experts, rows) : 0;
}

/* Units are chosen so that the quantities of an ordinary pass are of one size. */
static void quantities(const step_model *m, const step_load *l, double out[STEP_FEATURES]) {
    const double walked = (double)(l->op_end - l->op_begin) / m->shape.op_count;
    const double rows = l->decode_rows + (walked > 0 ? l->prefill_rows / walked : 0);
    const double all[STEP_FEATURES] = {
        1,
        walked,
        l->decode_rows / 16.0,
        (double)l->decode_context / 16384.0,
        l->prefill_rows / 256.0,
        l->prefill_attended / 262144.0,
        walked * touched(&m->shape, rows),
    };
    memcpy(out, all, sizeof all);
}

/* ---- the fit ---- */

#define NOTHING_KNOWN 1e12 /* variance of a weight before the first pass */
#define NOISE 0.0025       /* variance of a measured time, of its square: one in twenty */
#define FORGETS 0.995      /* weight of a pass after each that follows: two hundred are remembered */
#define MEMORY 0.98        /* of the moving means */

void step_model_init(step_model *m, const model_shape *shape) {
    *m = (step_model){.shape = *shape};
    for (int i = 0; i < STEP_FEATURES; i++) m->covariance[i][i] = NOTHING_KNOWN;
}

static double dot(const double *a, const double *b) {
    double sum = 0;
    for (int i = 0; i < STEP_FEATURES; i++) sum += a[i] * b[i];
    return sum;
}

uint64_t step_model_predict_us(const step_model *m, const step_load *l) {
    double x[STEP_FEATURES];
    if (m->passes < LEARNED_MIN || l->op_begin == l->op_end) return 0;
    quantities(m, l, x);
    const double us = dot(m->weights, x);
    return us < 1 ? 1 : us > 1e15 ? (uint64_t)1e15 : (uint64_t)us;
}

/* Forgetting widens the covariance of what the pass was made of; not once a weight of it is less sure than a whole pass is
 * long: in a long time of equal passes the variance of what they do not tell apart would grow without bound. */
static void forget(step_model *m, const double x[STEP_FEATURES]) {
    for (int i = 0; i < STEP_FEATURES; i++)
        if (x[i] != 0 && m->covariance[i][i] > m->usual_us * m->usual_us) return;
    for (int i = 0; i < STEP_FEATURES; i++)
        for (int k = 0; k <= i; k++) {
            if (x[i] != 0 || x[k] != 0) m->covariance[i][k] /= x[i] != 0 && x[k] != 0 ? FORGETS : sqrt(FORGETS);
            m->covariance[k][i] = m->covariance[i][k];
        }
}

static void follow(double *mean, double value, bool first) { *mean = first ? value : MEMORY * *mean + (1 - MEMORY) * value; }

void step_model_learn(step_model *m, const step_load *l, uint64_t measured_us) {
    double x[STEP_FEATURES], gain[STEP_FEATURES];
    if (measured_us == 0 || l->op_begin == l->op_end) return;
    const uint64_t predicted = step_model_predict_us(m, l);
    const double   scale = 1 / (double)measured_us;
    if (predicted) follow(&m->error_share, fabs((double)predicted * scale - 1), m->passes == LEARNED_MIN);
    follow(&m->usual_us, (double)measured_us, m->passes == 0);
    follow(&m->usual_decodes, l->decode_rows, m->passes == 0);
    quantities(m, l, x);
    for (int i = 0; i < STEP_FEATURES; i++) x[i] *= scale; /* the target is then 1 */
    for (int i = 0; i < STEP_FEATURES; i++) gain[i] = dot(m->covariance[i], x);
    const double spread = NOISE + dot(gain, x), miss = 1 - dot(m->weights, x);
    for (int i = 0; i < STEP_FEATURES; i++) m->weights[i] += gain[i] / spread * miss;
    for (int i = 0; i < STEP_FEATURES; i++)
        for (int k = 0; k <= i; k++) {
            m->covariance[i][k] -= gain[i] * gain[k] / spread;
            m->covariance[k][i] = m->covariance[i][k];
        }
    forget(m, x);
    m->passes++;
}
