/* A pass is a list of operators at which the set of rows changes: where slices begin, where they end, and the first operator
 * that only drawn rows are of use to. Between two changes the rows are bound once and each operator is one call; at a change
 * leavers are saved, the rest closes ranks, joiners are appended. So rows are always dense, and a decode-only pass, which
 * has no change, is one bind and a plain loop. */
#include "engine/walk.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "base/clock.h"
#include "engine/frames.h"

/* The rows of one slice that are in the batch now. */
typedef struct {
    uint32_t slice;
    uint32_t skip; /* rows of the slice, from its first, that are not needed any more */
    uint32_t row_begin, row_count;
} span;

struct walker {
    walker_config    config;
    const plan      *plan;
    walk_sequence   *sequences;    /* [slices_max]: of the plan's slices */
    uint32_t        *output_index; /* [slices_max] */
    span            *spans;        /* [slices_max]: in order of row */
    uint32_t         span_count;
    uint32_t         row_count;
    batch_run       *runs;                       /* [slices_max] */
    batch_output    *outputs;                    /* [outputs_room] */
    sampled         *sampled;                    /* [outputs_room] */
    uint32_t         output_count, outputs_done; /* of the pass; collected already, where they go in groups */
    uint32_t        *slice_of_slot;              /* [slots_max]: last slice of the plan seen in this slot; checks only */
    frames          *frames;
    uint64_t         passes, op_ns, longest_wait_ns;
    uint32_t         ops_walked; /* of this pass */
    _Atomic uint64_t operators_done;
};

static void *take(size_t n, size_t bytes) {
    void *p = calloc(n ? n : 1, bytes);
    if (!p) fatal("out of memory for the pass walker");
    return p;
}

static uint32_t outputs_room(const walker_config *c) { return c->rows_max > c->outputs_max ? c->rows_max : c->outputs_max; }

walker *walker_new(const walker_config *c) {
    walker *w = take(1, sizeof *w);
    w->config = *c;
    w->sequences = take(c->slices_max, sizeof *w->sequences);
    w->output_index = take(c->slices_max, sizeof *w->output_index);
    w->spans = take(c->slices_max, sizeof *w->spans);
    w->runs = take(c->slices_max, sizeof *w->runs);
    w->outputs = take(outputs_room(c), sizeof *w->outputs);
    w->sampled = take(outputs_room(c), sizeof *w->sampled);
    w->slice_of_slot = take(c->slots_max, sizeof *w->slice_of_slot);
    w->frames = frames_new(c->frame_count, c->frame_rows);
    return w;
}

void walker_free(walker *w) {
    if (!w) return;
    free(w->sequences);
    free(w->output_index);
    free(w->spans);
    free(w->runs);
    free(w->outputs);
    free(w->sampled);
    free(w->slice_of_slot);
    frames_free(w->frames);
    free(w);
}

/* ---- what must hold of any plan ---- */

static bool fits(const walker *w, frame_place place, const slice *s) {
    return place.frame < w->config.frame_count && place.row <= w->config.frame_rows &&
           s->token_end - s->token_begin <= w->config.frame_rows - place.row;
}

/* Rows at the slice's end that go on to the logits. */
static uint32_t outputs_of(const slice *s, const walk_sequence *q) {
    return q->score_rows + (s->samples ? q->output_rows : 0);
}

/* Logits are not kept across a stop, so a slice ends before the final norm or goes to the end. */
static void check_slice(const walker *w, const slice *s, const walk_sequence *q) {
    const program *p = w->config.program;
    check(s->slot < w->config.slots_max);
    check(s->token_begin < s->token_end && s->op_begin < s->op_end);
    check(s->op_end == p->op_count || s->op_end <= p->layer_begin[p->layer_count]);
    check((s->op_begin > 0) == (s->frame_in.frame != NO_FRAME));
    check(s->op_end == p->op_count || s->frame_out.frame != NO_FRAME);
    check(s->frame_in.frame == NO_FRAME || fits(w, s->frame_in, s));
    check(s->frame_out.frame == NO_FRAME || fits(w, s->frame_out, s));
    check(!w->plan->stoppable || s->frame_out.frame != NO_FRAME);
    check((uint64_t)q->page_count * w->config.page_tokens >= s->token_end);
    check(outputs_of(s, q) == 0 || s->op_end == p->op_count);
    check(outputs_of(s, q) <= s->token_end - s->token_begin);
    check(q->banned_count <= BANNED_MAX);
}

/* Within the pass: an earlier slice of the same sequence is at least as far, before and after. */
static void check_staircase(walker *w, uint32_t index) {
    const slice *s = &w->plan->slices[index];
    uint32_t    *last = &w->slice_of_slot[s->slot];
    if (*last < index && w->plan->slices[*last].slot == s->slot) {
        const slice *earlier = &w->plan->slices[*last];
        check(earlier->id == s->id && earlier->token_end <= s->token_begin);
        check(earlier->op_begin >= s->op_begin && earlier->op_end >= s->op_end);
    }
    *last = index;
    frames_check_staircase(w->frames, s, w->sequences[index].cached_tokens, w->passes);
}

static void begin(walker *w, const plan *p) {
    w->plan = p;
    w->passes++;
    w->span_count = w->row_count = 0;
    check(p->slice_count <= w->config.slices_max);
    w->output_count = 0;
    for (uint32_t i = 0; i < p->slice_count; i++) {
        walk_sequence *q = &w->sequences[i];
        *q = (walk_sequence){.output_rows = 1};
        w->config.find(w->config.context, &p->slices[i], q);
        check_slice(w, &p->slices[i], q);
        if (p->slices[i].op_begin > 0) frames_resume(w->frames, &p->slices[i], w->passes);
        w->output_count += outputs_of(&p->slices[i], q);
    }
    check(w->output_count <= outputs_room(&w->config));
    for (uint32_t i = 0; i < p->slice_count; i++) check_staircase(w, i);
}

/* ---- rows join, leave and close ranks at operator `at` ---- */

static uint32_t smaller(uint32_t a, uint32_t b) { return a < b ? a : b; }

/* How many of a slice's rows, from its last, are of use at operator `at`. */
static uint32_t rows_needed(const walker *w, uint32_t slice_index, uint32_t at) {
    const program *p = w->config.program;
    const slice   *s = &w->plan->slices[slice_index];
    if (at < p->outputs_begin || s->op_end < p->op_count) return s->token_end - s->token_begin;
    return outputs_of(s, &w->sequences[slice_index]);
}

static int put_in_frame(walker *w, const span *x, uint32_t at) {
    const slice   *s = &w->plan->slices[x->slice];
    const uint16_t live = w->config.program->live[at];
    frames_put(w->frames, s, at, x->row_count, w->passes);
    if (x->row_count == 0) return OK;
    return w->config.api->save_rows(w->config.device, live, x->row_begin, x->row_count, s->frame_out.frame,
                                    s->frame_out.row + x->skip);
}

static int take_from_frame(walker *w, const span *x, uint32_t at) {
    const frame_place from = w->plan->slices[x->slice].frame_in;
    const uint16_t    live = w->config.program->live[at];
    if (x->row_count == 0) return OK;
    return w->config.api->load_rows(w->config.device, live, x->row_begin, x->row_count, from.frame, from.row + x->skip);
}

/* Slices that end here leave; of those that go on to the logits only rows that need them stay. Then the gaps close. */
static int leave_and_close_ranks(walker *w, uint32_t at) {
    uint32_t kept = 0, row = 0;
    int      status = OK;
    for (uint32_t i = 0; i < w->span_count && status == OK; i++) {
        span x = w->spans[i];
        if (w->plan->slices[x.slice].op_end == at) {
            status = put_in_frame(w, &x, at);
            continue;
        }
        const uint32_t needed = smaller(rows_needed(w, x.slice, at), x.row_count), dropped = x.row_count - needed;
        x.skip += dropped, x.row_begin += dropped, x.row_count = needed;
        if (x.row_begin != row && needed > 0)
            status = w->config.api->move_rows(w->config.device, w->config.program->live[at], x.row_begin, row, needed);
        x.row_begin = row;
        row += needed;
        w->spans[kept++] = x;
    }
    w->span_count = kept;
    w->row_count = row;
    return status;
}

/* A slice that was stopped on its last way has kept only what it still needed. */
static int join(walker *w, uint32_t at) {
    int status = OK;
    for (uint32_t i = 0; i < w->plan->slice_count && status == OK; i++) {
        const slice *s = &w->plan->slices[i];
        if (s->op_begin != at) continue;
        const uint32_t kept = at > 0 ? frames_take(w->frames, s) : UINT32_MAX;
        const uint32_t needed = smaller(rows_needed(w, i, at), kept);
        const span     x = {i, s->token_end - s->token_begin - needed, w->row_count, needed};
        check(needed <= w->config.rows_max - w->row_count);
        w->spans[w->span_count++] = x;
        w->row_count += needed;
        if (at > 0) status = take_from_frame(w, &x, at);
    }
    return status;
}

/* The first of the operators over output rows alone. */
static uint32_t final_operator(const program *p) { return p->layer_begin[p->layer_count]; }

/* More outputs than the device holds at once. */
static bool in_groups(const walker *w) { return w->output_count > w->config.outputs_max; }

/* The next operator at which the set of rows changes, or the outputs begin to go in groups. */
static uint32_t next_change(const walker *w, uint32_t at) {
    const uint32_t outputs_begin = w->config.program->outputs_begin;
    uint32_t       next = w->config.program->op_count;
    for (uint32_t i = 0; i < w->plan->slice_count; i++) {
        const slice *s = &w->plan->slices[i];
        if (s->op_begin > at && s->op_begin < next) next = s->op_begin;
        if (s->op_end > at && s->op_end < next) next = s->op_end;
        const bool drops = rows_needed(w, i, outputs_begin) < s->token_end - s->token_begin;
        if (drops && at < outputs_begin && outputs_begin < next) next = outputs_begin;
    }
    const uint32_t final_op = final_operator(w->config.program);
    return in_groups(w) && at < final_op && final_op < next ? final_op : next;
}

/* ---- one batch over a run of operators ---- */

static void describe_outputs(walker *w, const span *x, uint32_t output) {
    const slice         *s = &w->plan->slices[x->slice];
    const walk_sequence *q = &w->sequences[x->slice];
    const uint32_t       count = outputs_of(s, q);
    for (uint32_t i = 0; i < count; i++) {
        batch_output *o = &w->outputs[output + i];
        o->row = x->row_begin + x->row_count - count + i;
        o->scores = i < q->score_rows;
        o->params = o->scores ? q->score_params : q->params;
        o->history = q->tokens;
        o->prompt_count = q->prompt_tokens;
        o->history_count = s->token_end - count + i + 1;
        o->banned_count = o->scores ? 0 : q->banned_count;
        for (uint32_t b = 0; b < o->banned_count; b++) o->banned[b] = q->banned[b];
    }
}

/* With at most `most` outputs, from the one at `first`. */
static int bind(walker *w, uint32_t first, uint32_t most, error *err) {
    uint32_t runs = 0, outputs = 0;
    for (uint32_t i = 0; i < w->span_count; i++) {
        const span          *x = &w->spans[i];
        const slice         *s = &w->plan->slices[x->slice];
        const walk_sequence *q = &w->sequences[x->slice];
        if (x->row_count == 0) continue;
        const uint32_t position = s->token_begin + x->skip;
        w->runs[runs++] = (batch_run){.row_begin = x->row_begin,
                                      .row_count = x->row_count,
                                      .position_begin = position,
                                      .tokens = q->tokens + position,
                                      .pages = q->pages,
                                      .page_count = q->page_count,
                                      .slot = s->slot};
        w->output_index[x->slice] = outputs;
        describe_outputs(w, x, outputs);
        outputs += outputs_of(s, q);
    }
    const batch b = {.row_count = w->row_count,
                     .run_count = runs,
                     .output_count = smaller(outputs - smaller(first, outputs), most),
                     .runs = w->runs,
                     .outputs = w->outputs + first};
    return w->config.api->bind(w->config.device, &b, err);
}

static int stop(walker *w, uint32_t at, walk_result *out) {
    int status = OK;
    for (uint32_t i = 0; i < w->span_count && status == OK; i++) status = put_in_frame(w, &w->spans[i], at);
    out->stopped = true;
    out->stop_op = at;
    return status;
}

static bool stop_wanted(const walker *w, uint32_t at) {
    const program *p = w->config.program;
    if (!w->plan->stoppable || w->ops_walked == 0 || at > final_operator(p) || w->outputs_done > 0) return false;
    return w->config.stop && w->config.stop(w->config.context);
}

static void count_operator(walker *w) { atomic_fetch_add_explicit(&w->operators_done, 1, memory_order_relaxed); }

static int run(walker *w, uint32_t begin_op, uint32_t end_op, walk_result *out, error *err) {
    const program *p = w->config.program;
    const uint64_t begin_ns = clock_ns();
    uint64_t       now_ns = begin_ns;
    int            status = OK;
    for (uint32_t i = begin_op; i < end_op && status == OK; i++) {
        if (stop_wanted(w, i)) {
            status = stop(w, i, out);
            break;
        }
        status = w->config.api->run_op(w->config.device, i, err);
        if (status != OK)
            error_prefix(err, "%s, layer %u, %u rows, pass %llu", op_name(p->ops[i].kind), p->ops[i].layer, w->row_count,
                         (unsigned long long)w->passes);
        w->ops_walked++;
        count_operator(w);
        const uint64_t done_ns = clock_ns();
        if (w->plan->stoppable && done_ns - now_ns > w->longest_wait_ns) w->longest_wait_ns = done_ns - now_ns;
        now_ns = done_ns;
    }
    w->op_ns += now_ns - begin_ns;
    return status;
}

static int collect(walker *w, error *err) {
    const uint64_t begin_ns = clock_ns();
    const int      status = w->config.api->collect(w->config.device, w->sampled + w->outputs_done, err);
    w->op_ns += clock_ns() - begin_ns;
    count_operator(w); /* waiting for what was launched ahead may take as long as all of it */
    if (status != OK) error_prefix(err, "results of pass %llu", (unsigned long long)w->passes);
    return status;
}

static int run_in_groups(walker *w, walk_result *out, error *err) {
    const program *p = w->config.program;
    int            status = OK;
    while (w->outputs_done < w->output_count && status == OK && !out->stopped) {
        status = bind(w, w->outputs_done, w->config.outputs_max, err);
        if (status == OK) status = run(w, final_operator(p), p->op_count, out, err);
        if (status == OK && !out->stopped) status = collect(w, err);
        w->outputs_done += smaller(w->config.outputs_max, w->output_count - w->outputs_done);
    }
    return status;
}

static uint32_t first_operator(const plan *p) {
    uint32_t first = UINT32_MAX;
    for (uint32_t i = 0; i < p->slice_count; i++)
        if (p->slices[i].op_begin < first) first = p->slices[i].op_begin;
    return first;
}

int walker_walk(walker *w, const plan *p, walk_result *out, error *err) {
    const uint32_t op_count = w->config.program->op_count;
    *out = (walk_result){0};
    w->ops_walked = w->outputs_done = 0;
    begin(w, p);
    out->output_count = w->output_count;
    for (uint32_t at = first_operator(p), next; at < op_count; at = next) {
        next = next_change(w, at);
        int status = leave_and_close_ranks(w, at);
        if (status == OK) status = join(w, at);
        if (status != OK)
            return error_set(err, ERR_DEVICE, "rows could not be moved before operator %u of pass %llu", at,
                             (unsigned long long)w->passes);
        if (w->row_count == 0) continue; /* nobody is here; others join later */
        if (in_groups(w) && at == final_operator(w->config.program)) return run_in_groups(w, out, err);
        status = bind(w, 0, in_groups(w) ? 0 : w->output_count, err);
        if (status == OK) status = run(w, at, next, out, err);
        if (status != OK || out->stopped) return status;
    }
    return collect(w, err);
}

static uint32_t first_drawn(const walker *w, uint32_t slice_index) {
    return w->output_index[slice_index] + w->sequences[slice_index].score_rows;
}

const sampled *walker_scored(const walker *w, uint32_t slice_index) { return &w->sampled[w->output_index[slice_index]]; }
const sampled *walker_sampled(const walker *w, uint32_t slice_index) { return &w->sampled[first_drawn(w, slice_index)]; }
uint32_t       walker_output_index(const walker *w, uint32_t slice_index) {
          return in_groups(w) ? NO_OUTPUT : first_drawn(w, slice_index);
}
uint64_t walker_op_ns(const walker *w) { return w->op_ns; }
uint64_t walker_longest_wait_ns(const walker *w) { return w->longest_wait_ns; }
uint64_t walker_operators_done(const walker *w) { return atomic_load_explicit(&w->operators_done, memory_order_relaxed); }
