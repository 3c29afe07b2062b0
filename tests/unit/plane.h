/* tests/unit/plane.h: walks sequences over the prefill plane in every way the walker allows.
 *
 * With seed 0 a sequence runs by itself: its prompt in one slice, then token by token. With any other seed all run
 * together and the seed decides at each pass who takes part, where slices are cut (between tokens, between operators,
 * both), and whether and where the pass is stopped. What a sequence draws must not depend on any of it. */
#pragma once
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/rng.h"
#include "engine/walk.h"

enum {
    PLANE_FRAME_ROWS = 4096,
    PLANE_SEGMENTS = 8,
    PLANE_TOKENS = 512,
    PLANE_PAGES = 256,
    PLANE_SEQUENCES = 16,
    PLANE_SLICES = 64
};

typedef struct {
    uint32_t    begin, end, op; /* a suspended slice: tokens [begin, end) before operator op */
    frame_place place;
} plane_segment;

typedef struct {
    /* what is asked for */
    uint32_t prompt_tokens, output_tokens;
    uint32_t tokens[PLANE_TOKENS]; /* prompt, then what was drawn */
    sampling params;
    bool     scored;        /* how likely its prompt's tokens are is asked for; never with shares_with */
    int      shares_with;   /* index of an earlier sequence whose prompt begins alike, or -1 */
    uint32_t shared_tokens; /* of that prompt: whole pages */
    /* what came out */
    uint32_t drawn;
    uint64_t logits_hash[PLANE_TOKENS];
    uint64_t score_hash[PLANE_TOKENS]; /* of each prompt token but the first */
    uint32_t scored_tokens;
    /* state */
    bool          started, finished;
    uint32_t      cached_tokens, next_token; /* where the next new slice begins */
    plane_segment segments[PLANE_SEGMENTS];
    uint32_t      segment_count;
    uint32_t      pages[PLANE_PAGES], page_count;
} plane_sequence;

typedef struct {
    const device_api *api;
    device           *device;
    const program    *program;
    uint32_t          rows_max, frame_count, frame_rows, page_count, page_tokens, vocab_size;
    bool              never_stop;
} plane_config;

typedef struct {
    const plane_config *config;
    plane_sequence     *sequences;
    uint32_t            count;
    rng                 random;
    bool                row_taken[PLANE_FRAME_ROWS]; /* frame * frame_rows + row */
    uint32_t            pages_taken;
    slice               slices[PLANE_SLICES];
    int                 segment_of[PLANE_SLICES]; /* index in its sequence; -1: a new one */
    uint32_t            slice_count;
    uint32_t            rows_left;
    plan                plan;
    atomic_bool         stop;
    int64_t             ops_until_stop; /* counted down by plane_op_done */
    float              *logits;
    bool                scoring; /* somebody's: logits go in groups, and cannot be read back */
    uint64_t            passes, stops;
} plane;

static plane *plane_now; /* of the run in progress: where plane_op_done counts */

/* The device under test is wrapped so that a stop request can arrive after any operator. */
static int plane_run_op(device *d, uint32_t op_index, error *err) {
    const int status = plane_now->config->api->run_op(d, op_index, err);
    if (plane_now->ops_until_stop-- == 0) atomic_store(&plane_now->stop, true);
    return status;
}

/* Rows of the slice that lead to prompt tokens, but for one that draws. */
static uint32_t plane_score_rows(const plane_sequence *q, const slice *s, uint32_t op_count) {
    const uint32_t last = q->prompt_tokens - 1, end = s->token_end - s->samples < last ? s->token_end - s->samples : last;
    return q->scored && s->op_end == op_count && end > s->token_begin ? end - s->token_begin : 0;
}

static void plane_find(void *context, const slice *s, walk_sequence *out) {
    plane_sequence *q = &((plane *)context)->sequences[s->slot];
    out->tokens = q->tokens;
    out->prompt_tokens = q->prompt_tokens;
    out->cached_tokens = q->cached_tokens;
    out->pages = q->pages;
    out->page_count = q->page_count;
    out->params = &q->params;
    out->score_rows = plane_score_rows(q, s, ((plane *)context)->config->program->op_count);
    out->score_params = &q->params;
}

static bool plane_chance(plane *p, uint32_t percent) { return rng_below(&p->random, 100) < percent; }

static void plane_start(plane *p, plane_sequence *q) {
    if (q->shares_with >= 0) {
        const plane_sequence *other = &p->sequences[q->shares_with];
        if (other->drawn == 0) return; /* its prompt has not crossed all layers yet */
        q->cached_tokens = q->shared_tokens;
        memcpy(q->pages, other->pages, q->shared_tokens / p->config->page_tokens * sizeof(uint32_t));
    }
    const uint32_t per_page = p->config->page_tokens;
    q->page_count = (q->prompt_tokens + q->output_tokens + per_page - 1) / per_page;
    for (uint32_t i = q->cached_tokens / per_page; i < q->page_count; i++) {
        check(p->pages_taken < p->config->page_count);
        q->pages[i] =
            (uint32_t)((p->pages_taken++ * 7919u + 3) % p->config->page_count); /* scattered; page_count is prime to 7919 */
    }
    q->next_token = q->cached_tokens;
    q->started = true;
}

static void plane_mark(plane *p, frame_place place, uint32_t rows, bool taken) {
    for (uint32_t i = 0; i < rows; i++) {
        bool *row = &p->row_taken[place.frame * p->config->frame_rows + place.row + i];
        check(*row != taken);
        *row = taken;
    }
}

static bool plane_take_place(plane *p, uint32_t rows, frame_place *out) {
    for (uint32_t frame = 0; frame < p->config->frame_count; frame++)
        for (uint32_t row = 0, run = 0; row < p->config->frame_rows; row++) {
            run = p->row_taken[frame * p->config->frame_rows + row] ? 0 : run + 1;
            if (run < rows) continue;
            *out = (frame_place){frame, row + 1 - rows};
            plane_mark(p, *out, rows, true);
            return true;
        }
    return false;
}

static bool plane_push(plane *p, uint32_t index, const plane_segment *from, slice s) {
    plane_sequence *q = &p->sequences[index];
    const uint32_t  rows = s.token_end - s.token_begin, ops = p->config->program->op_count;
    if (p->slice_count == PLANE_SLICES || rows > p->rows_left) return false;
    s.frame_in = s.frame_out = from ? from->place : (frame_place){NO_FRAME, 0};
    if (!from && !plane_take_place(p, rows, &s.frame_out)) return false;
    s.id = index + 1, s.slot = index;
    s.samples = s.op_end == ops && s.token_end == q->prompt_tokens + q->drawn;
    p->rows_left -= rows;
    p->segment_of[p->slice_count] = from ? (int)(from - q->segments) : -1;
    p->slices[p->slice_count++] = s;
    return true;
}

/* A slice may end anywhere before the final norm, or go to the end. */
static uint32_t plane_cut(plane *p, uint32_t after, uint32_t limit) {
    const program *forward = p->config->program;
    if (plane_chance(p, 40)) return limit;
    const uint32_t at = after + 1 + (uint32_t)rng_below(&p->random, limit - after);
    return at > forward->layer_begin[forward->layer_count] ? forward->op_count : at;
}

/* A suspended slice may be taken up in parts. */
static void plane_split(plane *p, plane_sequence *q) {
    const uint32_t i = (uint32_t)rng_below(&p->random, PLANE_SEGMENTS);
    if (i >= q->segment_count || q->segment_count == PLANE_SEGMENTS) return;
    plane_segment *g = &q->segments[i];
    if (g->end - g->begin < 2) return;
    const uint32_t head = 1 + (uint32_t)rng_below(&p->random, g->end - g->begin - 1);
    memmove(g + 1, g, (q->segment_count - i) * sizeof *g);
    q->segment_count++;
    g[0].end = g[1].begin = g->begin + head;
    g[1].place.row += head;
}

static uint32_t plane_offer_suspended(plane *p, uint32_t index) {
    plane_sequence *q = &p->sequences[index];
    uint32_t        limit = p->config->program->op_count;
    for (uint32_t i = 0; i < q->segment_count; i++) {
        const plane_segment *g = &q->segments[i];
        uint32_t             reached = g->op;
        if (g->op < limit && plane_chance(p, 70)) {
            const slice s = {
                .token_begin = g->begin, .token_end = g->end, .op_begin = g->op, .op_end = plane_cut(p, g->op, limit)};
            if (plane_push(p, index, g, s)) reached = s.op_end;
        }
        limit = reached;
    }
    return limit;
}

static void plane_offer(plane *p, uint32_t index) {
    plane_sequence *q = &p->sequences[index];
    plane_split(p, q);
    uint32_t       limit = plane_offer_suspended(p, index);
    const uint32_t ready = q->prompt_tokens + q->drawn;
    for (int more = 0; more < 2 && limit > 0 && q->next_token < ready && q->segment_count + 2 < PLANE_SEGMENTS; more++) {
        uint32_t rows = ready - q->next_token;
        if (rows > p->rows_left) rows = p->rows_left;
        if (rows > p->config->frame_rows) rows = p->config->frame_rows;
        if (rows == 0) return;
        if (plane_chance(p, 60)) rows = 1 + (uint32_t)rng_below(&p->random, rows);
        const slice s = {.token_begin = q->next_token, .token_end = q->next_token + rows, .op_end = plane_cut(p, 0, limit)};
        if (!plane_push(p, index, NULL, s)) return;
        q->next_token += rows;
        limit = s.op_end;
    }
}

static void plane_offer_alone(plane *p, uint32_t index) {
    plane_sequence *q = &p->sequences[index];
    const slice     s = {
            .token_begin = q->next_token, .token_end = q->prompt_tokens + q->drawn, .op_end = p->config->program->op_count};
    check(plane_push(p, index, NULL, s));
    q->next_token = s.token_end;
}

static void plane_draw(plane *p, const walker *w, uint32_t slice_index) {
    plane_sequence *q = &p->sequences[p->slices[slice_index].slot];
    const sampled  *r = walker_sampled(w, slice_index);
    check(!r->corrupt);
    if (!p->scoring) {
        check(p->config->api->read_logits(p->config->device, walker_output_index(w, slice_index), p->logits) == OK);
        q->logits_hash[q->drawn] = hash_u64(p->logits, p->config->vocab_size * sizeof(float), 0);
    }
    q->tokens[q->prompt_tokens + q->drawn++] = r->token;
    q->finished = q->drawn == q->output_tokens;
}

static void plane_score(plane *p, const walker *w, uint32_t slice_index) {
    plane_sequence *q = &p->sequences[p->slices[slice_index].slot];
    const sampled  *r = walker_scored(w, slice_index);
    const uint32_t  rows = plane_score_rows(q, &p->slices[slice_index], p->config->program->op_count);
    for (uint32_t i = 0; i < rows; i++) {
        const uint32_t at = p->slices[slice_index].token_begin + i + 1;
        const uint32_t found[] = {r[i].token, r[i].rank, r[i].corrupt};
        check(q->score_hash[at] == 0);
        q->score_hash[at] = hash_u64(found, sizeof found, hash_u64(&r[i].logprob, sizeof(float), 1)) | 1;
        q->scored_tokens++;
    }
}

static int plane_by_begin(const void *a, const void *b) {
    const plane_segment *x = a, *y = b;
    return (x->begin > y->begin) - (x->begin < y->begin);
}

/* Puts the slice's rows where they are now; those of a slice that had not joined a stopped pass stay where they were. */
static void plane_settle(plane *p, uint32_t i, const walk_result *r) {
    const slice    *s = &p->slices[i];
    plane_sequence *q = &p->sequences[s->slot];
    uint32_t        reached = r->stopped && r->stop_op < s->op_end ? r->stop_op : s->op_end;
    if (reached < s->op_begin) reached = s->op_begin;
    const plane_segment now = {s->token_begin, s->token_end, reached, s->frame_out};
    if (p->segment_of[i] >= 0) q->segments[p->segment_of[i]] = now;
    else q->segments[q->segment_count++] = now;
}

static void plane_sweep(plane *p, plane_sequence *q) {
    uint32_t kept = 0;
    for (uint32_t i = 0; i < q->segment_count; i++) {
        const plane_segment g = q->segments[i];
        if (g.op == p->config->program->op_count) plane_mark(p, g.place, g.end - g.begin, false);
        else q->segments[kept++] = g;
    }
    q->segment_count = kept;
    qsort(q->segments, kept, sizeof *q->segments, plane_by_begin);
}

static bool plane_stop(void *context) { return atomic_load(&((plane *)context)->stop); }

static void plane_pass(plane *p, walker *w) {
    walk_result r;
    error       err;
    p->plan = (plan){.slice_count = p->slice_count, .slices = p->slices, .stoppable = !p->config->never_stop};
    p->ops_until_stop =
        p->random.seed && plane_chance(p, 40) ? (int64_t)rng_below(&p->random, p->config->program->op_count) : -1;
    atomic_store(&p->stop, false);
    if (walker_walk(w, &p->plan, &r, &err) != OK) fatal("%s", err.text);
    p->passes++, p->stops += r.stopped;
    for (uint32_t i = 0; i < p->slice_count; i++) plane_settle(p, i, &r);
    if (!r.stopped)
        for (uint32_t i = 0; i < p->slice_count; i++) plane_score(p, w, i);
    for (uint32_t i = 0; i < p->slice_count && !r.stopped; i++)
        if (p->slices[i].samples) plane_draw(p, w, i);
    for (uint32_t i = 0; i < p->count; i++) plane_sweep(p, &p->sequences[i]);
}

static void plane_reset(plane_sequence *q) {
    q->drawn = q->cached_tokens = q->next_token = q->segment_count = q->page_count = 0;
    q->started = q->finished = false;
    q->scored_tokens = 0;
    memset(q->score_hash, 0, sizeof q->score_hash);
}

static uint32_t plane_choose(plane *p) {
    uint32_t unfinished = 0;
    p->slice_count = 0;
    p->rows_left = p->config->rows_max;
    const uint32_t first = p->random.seed ? (uint32_t)rng_below(&p->random, p->count) : 0;
    for (uint32_t k = 0; k < p->count; k++) {
        const uint32_t  i = (first + k) % p->count;
        plane_sequence *q = &p->sequences[i];
        if (q->finished) continue;
        unfinished++;
        if (!q->started) plane_start(p, q);
        if (!q->started) continue;
        if (!p->random.seed) {
            plane_offer_alone(p, i);
            break;
        }
        if (plane_chance(p, 80)) plane_offer(p, i);
    }
    return unfinished;
}

/* Runs all sequences to their end. Returns the number of stopped passes. */
static uint64_t plane_run(const plane_config *c, plane_sequence *sequences, uint32_t count, uint64_t seed) {
    plane     *p = calloc(1, sizeof *p);
    device_api wrapped = *c->api;
    wrapped.run_op = plane_run_op;
    *p = (plane){.config = c, .sequences = sequences, .count = count, .random = {seed, 0}};
    p->logits = calloc(c->vocab_size, sizeof *p->logits);
    check(c->frame_count * c->frame_rows <= PLANE_FRAME_ROWS);
    for (uint32_t i = 0; i < count; i++) plane_reset(&sequences[i]), p->scoring |= sequences[i].scored;
    walker *w = walker_new(&(walker_config){.api = &wrapped,
                                            .device = c->device,
                                            .program = c->program,
                                            .slices_max = PLANE_SLICES,
                                            .slots_max = PLANE_SEQUENCES,
                                            .rows_max = c->rows_max,
                                            .outputs_max = PLANE_SEQUENCES,
                                            .frame_count = c->frame_count,
                                            .frame_rows = c->frame_rows,
                                            .page_tokens = c->page_tokens,
                                            .stop = plane_stop,
                                            .find = plane_find,
                                            .context = p});
    plane_now = p;
    while (plane_choose(p) > 0)
        if (p->slice_count > 0) plane_pass(p, w);
    for (uint32_t i = 0; i < PLANE_FRAME_ROWS; i++) check(!p->row_taken[i]);
    const uint64_t stops = p->stops;
    walker_free(w);
    free(p->logits);
    free(p);
    return stops;
}
