#include "scheduler/return_model.h"

#include <math.h>

#include "base/hash.h"

enum { JOBS_MIN = 10 };
#define WAIT_WEIGHT 0.05

void return_model_init(return_model *m, carver *c) {
    *m = (return_model){0};
    m->tools = carve(c, RETURN_TOOLS, sizeof *m->tools);
}

/* ---- gaps ---- */

static double edge_s(int bucket) { /* the upper end */
    return RETURN_GAP_MIN_US * 1e-6 *
           pow((double)RETURN_GAP_MAX_US / RETURN_GAP_MIN_US, (double)bucket / (RETURN_BUCKETS - 1));
}

static int bucket_of(uint64_t gap_us) {
    if (gap_us <= RETURN_GAP_MIN_US) return 0;
    if (gap_us >= RETURN_GAP_MAX_US) return RETURN_BUCKETS - 1;
    const double share = log((double)gap_us / RETURN_GAP_MIN_US) / log((double)RETURN_GAP_MAX_US / RETURN_GAP_MIN_US);
    return (int)ceil(share * (RETURN_BUCKETS - 1));
}

/* The tool's place, or a free one; NULL: neither. */
static tool_gaps *find_tool(const return_model *m, uint64_t tool) {
    const uint32_t from = (uint32_t)hash_u64(&tool, sizeof tool, 0);
    for (uint32_t i = 0; i < RETURN_TOOLS && tool; i++) {
        tool_gaps *t = &m->tools[(from + i) % RETURN_TOOLS];
        if (t->tool == tool || t->tool == 0) return t;
    }
    return NULL;
}

static void count(tool_gaps *t, int bucket) { t->buckets[bucket]++, t->seen++; }

void return_model_gap(return_model *m, uint64_t tool, uint64_t gap_us) {
    tool_gaps *t = find_tool(m, tool);
    count(&m->all, bucket_of(gap_us));
    if (!t) return;
    t->tool = tool;
    count(t, bucket_of(gap_us));
}

/* ---- waits and jobs ---- */

void return_model_wait(return_model *m, uint64_t wait_us) {
    m->wait_s += WAIT_WEIGHT * ((double)wait_us * 1e-6 - m->wait_s);
}

/* Sums over the pairs (k, turns - k), k from 1. */
void return_model_job(return_model *m, uint32_t turns) {
    const double n = turns, done = n * (n + 1) / 2, squares = n * (n + 1) * (2 * n + 1) / 6;
    m->jobs++;
    m->pairs += n, m->sum_done += done, m->sum_left += n * n - done;
    m->sum_done2 += squares, m->sum_both += n * done - squares;
    m->sum_left2 += n * n * n - 2 * n * done + squares;
}

double return_model_eta(const return_model *m) {
    if (m->jobs < JOBS_MIN) return 1;
    const double n = m->pairs, both = n * m->sum_both - m->sum_done * m->sum_left;
    const double done = n * m->sum_done2 - m->sum_done * m->sum_done, left = n * m->sum_left2 - m->sum_left * m->sum_left;
    return done > 0 && left > 0 ? -both / sqrt(done * left) : 1;
}

/* ---- the choice ---- */

static uint64_t best_edge_us(const tool_gaps *t, double worth_s, double price) {
    double   best = 0, best_s = 0;
    uint64_t back = 0;
    for (int i = 0; i < RETURN_BUCKETS; i++) {
        back += t->buckets[i];
        if (t->buckets[i] == 0) continue; /* F does not rise here */
        const double gain = (double)back / t->seen * worth_s - (1 + price) * edge_s(i);
        if (gain > best) best = gain, best_s = edge_s(i);
    }
    return (uint64_t)ceil(best_s * 1e6);
}

uint64_t return_model_choose_us(const return_model *m, uint64_t tool, double reload_s, double price) {
    if (m->all.seen <= RETURN_SEEN_MIN) { /* 1 - exp(-t) in place of F, and eta 1 */
        const double worth = (m->wait_s + reload_s) / (1 + price);
        return worth > 1 ? (uint64_t)(log(worth) * 1e6) : 0;
    }
    const tool_gaps *t = find_tool(m, tool);
    const bool       known = t && t->tool == tool && t->seen > RETURN_SEEN_MIN;
    return best_edge_us(known ? t : &m->all, m->wait_s * return_model_eta(m) + reload_s, price);
}
