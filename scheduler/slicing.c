/* scheduler/slicing.c: how a prompt is cut beside decodes. Where nobody decodes nothing is gained by cutting, and every
 * policy takes as much as fits; a stop (preemption.h) is the brake then.
 *
 * Beside decodes a pass has a budget of prompt work: rows, each weighted with the share of the layers that it walks. It is
 *     fixed       chunk_tokens; or
 *     deadline    as much as lets the whole pass end when the tightest of its decodes wants its token, by the step-time
 *                 model: decodes and prompts share the reading of weights, so their times cannot be added. Where no decode
 *                 says, or nothing was learned yet: fixed. Never below an eighth of chunk_tokens, so that prompts get on
 *                 where every deadline is lost already.
 * and the policy says along which side of the rectangle it is spent:
 *     chunked     a few tokens through all layers. Each chunk reads all weights once more, which costs nothing where the
 *                 decodes read them anyway;
 *     layered     all tokens (of a frame) through a few layers. With experts, few rows touch few of them, so that each
 *                 chunk of a prompt would read nearly all of them for itself: here a prompt reads each once. The price is
 *                 a frame, and nothing is saved on a dense model;
 *     auto        layered with experts where the prompt is longer than the budget, else chunked;
 *     whole       does not cut. The baseline: decodes stall for the longest prompt. */
#include "scheduler/slicing.h"

enum { TILE = 64 }; /* rows that products work on at once: a chunk is a multiple where it can be */

static uint32_t least(uint32_t a, uint32_t b) { return a < b ? a : b; }

/* ---- the budget ---- */

static bool has_deadline(const scheduler_config *c, const pass_budget *b) {
    return c->slicing.budget == SLICING_BUDGET_DEADLINE && b->left_us != NO_DUE &&
           step_model_predict_us(b->steps, b->load) > 0;
}

/* An eighth of the time is left for what the prediction may be wrong by. */
static bool in_time(const scheduler_config *c, const pass_budget *b, const prefill_piece *p, prefill_cut cut) {
    step_load load = *b->load;
    step_load_add_prefill(&load, &c->model, p->begin, p->begin + cut.tokens, p->op_begin, cut.op_end);
    return step_model_predict_us(b->steps, &load) <= b->left_us - b->left_us / 8;
}

/* Of the least that a pass with decodes must take. */
static double work_left_at_least(const scheduler_config *c, const pass_budget *b) {
    const double least_work = c->slicing.chunk_tokens < 8 ? 1 : c->slicing.chunk_tokens / 8;
    return least_work - b->load->prefill_rows;
}

static double work_left(const scheduler_config *c, const pass_budget *b) {
    return c->slicing.chunk_tokens - b->load->prefill_rows;
}

/* ---- between tokens ---- */

static uint32_t in_tiles(uint32_t tokens, uint32_t all) {
    return tokens < all && tokens >= TILE ? tokens - tokens % TILE : tokens;
}

static uint32_t rows_in_time(const scheduler_config *c, const pass_budget *b, const prefill_piece *p, uint32_t most) {
    uint32_t low = 0, high = most;
    while (low < high) {
        const uint32_t middle = high - (high - low) / 2;
        if (in_time(c, b, p, (prefill_cut){middle, p->op_end})) low = middle;
        else high = middle - 1;
    }
    return low;
}

/* How many of a piece's tokens go as far as they may. */
static uint32_t rows_of(const scheduler_config *c, const pass_budget *b, const prefill_piece *p) {
    const uint32_t most = least(b->rows_left, p->tokens);
    if (b->decode_rows == 0) return most;
    if (!has_deadline(c, b)) {
        const uint32_t left = c->slicing.chunk_tokens > b->prefill_rows ? c->slicing.chunk_tokens - b->prefill_rows : 0;
        return least(most, left);
    }
    const uint32_t rows = in_tiles(rows_in_time(c, b, p, most), most);
    const double   must = work_left_at_least(c, b);
    return must > rows ? least(most, (uint32_t)must) : rows;
}

static bool chunked_next(const scheduler_config *c, const pass_budget *b, const prefill_piece *p, prefill_cut *out) {
    *out = (prefill_cut){rows_of(c, b, p), p->op_end};
    return out->tokens > 0;
}

static bool whole_next(const scheduler_config *c, const pass_budget *b, const prefill_piece *p, prefill_cut *out) {
    (void)c;
    *out = (prefill_cut){least(b->rows_left, p->tokens), p->op_end};
    return out->tokens == p->tokens || b->prefill_rows == 0;
}

/* ---- between layers ---- */

/* The first place for a cut that is beyond `op`, or the end. */
static uint32_t cut_after(const model_shape *m, uint32_t at) {
    uint32_t low = 0, high = m->op_cut_count;
    while (low < high) {
        const uint32_t middle = (low + high) / 2;
        if (m->op_cuts[middle] > at) high = middle;
        else low = middle + 1;
    }
    return low < m->op_cut_count ? m->op_cuts[low] : m->op_count;
}

static bool group_fits(const scheduler_config *c, const pass_budget *b, const prefill_piece *p, prefill_cut cut) {
    const double share = (double)(cut.op_end - p->op_begin) / c->model.op_count, work = cut.tokens * share;
    if (!has_deadline(c, b)) return work <= work_left(c, b) + cut.tokens / (2.0 * c->model.op_count); /* layers are uneven */
    return work <= work_left_at_least(c, b) || in_time(c, b, p, cut);
}

/* The group of layers that a piece walks: as many as the budget has for all its tokens, at least one in a pass that has
 * nothing else of a prompt. With the fixed budget these are the published groups: a prompt of L tokens crosses the layers in
 * about L / chunk_tokens passes. */
static bool layered_next(const scheduler_config *c, const pass_budget *b, const prefill_piece *p, prefill_cut *out) {
    *out = (prefill_cut){least(least(b->rows_left, c->frame_tokens), p->tokens), p->op_end};
    if (b->decode_rows == 0) return true;
    uint32_t end = p->op_begin;
    while (end < p->op_end) {
        const uint32_t next = least(cut_after(&c->model, end), p->op_end);
        if (!group_fits(c, b, p, (prefill_cut){out->tokens, next}) && (end > p->op_begin || b->prefill_rows > 0)) break;
        end = next;
    }
    out->op_end = end;
    return end > p->op_begin;
}

/* ---- whichever suits the model ---- */

static bool auto_next(const scheduler_config *c, const pass_budget *b, const prefill_piece *p, prefill_cut *out) {
    const bool by_layers = c->model.experts > 0 && c->frame_count > 0 && c->model.op_cut_count > 0 &&
                           (p->op_begin > 0 || p->tokens > c->slicing.chunk_tokens);
    return by_layers ? layered_next(c, b, p, out) : chunked_next(c, b, p, out);
}

const slicing_api slicing_chunked = {chunked_next};
const slicing_api slicing_whole = {whole_next};
const slicing_api slicing_layered = {layered_next};
const slicing_api slicing_auto = {auto_next};
