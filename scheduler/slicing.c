#include "scheduler/slicing.h"

static uint32_t least(uint32_t a, uint32_t b) { return a < b ? a : b; }

/* Cuts between tokens: at most chunk_tokens prefill rows while anybody decodes, so that a long prompt costs each decode a
 * little of every pass rather than a lot of one; as many as fit when nobody does. */
static bool chunked_next(const scheduler_config *c, const pass_budget *b, const prefill_piece *p, prefill_cut *out) {
    uint32_t left = b->rows_left;
    if (b->decode_rows > 0)
        left = least(left, c->slicing.chunk_tokens > b->prefill_rows ? c->slicing.chunk_tokens - b->prefill_rows : 0);
    *out = (prefill_cut){least(left, p->tokens), p->op_end};
    return out->tokens > 0;
}

/* Does not cut, except a prompt that is longer than a whole pass. The baseline: decodes stall for the longest prompt. */
static bool whole_next(const scheduler_config *c, const pass_budget *b, const prefill_piece *p, prefill_cut *out) {
    (void)c;
    *out = (prefill_cut){least(b->rows_left, p->tokens), p->op_end};
    return out->tokens == p->tokens || b->prefill_rows == 0;
}

static uint32_t next_cut(const scheduler_config *c, uint32_t op) {
    for (uint32_t i = 0; i < c->model.op_cut_count; i++)
        if (c->model.op_cuts[i] > op) return c->model.op_cuts[i];
    return c->model.op_count;
}

/* Cuts between operators while anybody decodes: as many tokens as a frame holds walk to the next of a fixed list of
 * boundaries, so that each weight is read once per prompt instead of once per chunk (papers: layered prefill). */
static bool layered_next(const scheduler_config *c, const pass_budget *b, const prefill_piece *p, prefill_cut *out) {
    uint32_t end = b->decode_rows > 0 ? least(next_cut(c, p->op_begin), p->op_end) : p->op_end;
    *out = (prefill_cut){least(least(b->rows_left, c->frame_tokens), p->tokens), end};
    return true;
}

const slicing_api slicing_chunked = {chunked_next};
const slicing_api slicing_whole = {whole_next};
const slicing_api slicing_layered = {layered_next};
