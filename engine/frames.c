#include "engine/frames.h"

#include <stdlib.h>

struct frames {
    uint32_t   frame_count, frame_rows, count, capacity;
    suspended *entries; /* [capacity]: in no order; each covers at least one row of its own, so there is always room */
};

frames *frames_new(uint32_t frame_count, uint32_t frame_rows) {
    frames *f = calloc(1, sizeof *f);
    if (!f) fatal("out of memory for the frames' bookkeeping");
    *f = (frames){.frame_count = frame_count, .frame_rows = frame_rows, .capacity = frame_count * frame_rows};
    f->entries = calloc((size_t)f->capacity + 1, sizeof *f->entries);
    if (!f->entries) fatal("out of memory for the frames' bookkeeping");
    return f;
}

void frames_free(frames *f) {
    if (!f) return;
    free(f->entries);
    free(f);
}

static uint32_t tokens_of(const suspended *x) { return x->token_end - x->token_begin; }

static void forget(frames *f, uint32_t i) { f->entries[i] = f->entries[--f->count]; }

/* The entry that holds the row at `place`, or NULL. */
static suspended *find(const frames *f, frame_place place) {
    for (uint32_t i = 0; i < f->count; i++) {
        suspended *x = &f->entries[i];
        if (x->place.frame == place.frame && place.row - x->place.row < tokens_of(x)) return x;
    }
    return NULL;
}

static uint32_t smaller(uint32_t a, uint32_t b) { return a < b ? a : b; }

/* Cuts *x before token `at`; what follows becomes an entry of its own. */
static void cut(frames *f, suspended *x, uint32_t at) {
    check(f->count < f->capacity);
    suspended *rest = &f->entries[f->count++];
    *rest = *x;
    rest->token_begin = at;
    rest->place.row += at - x->token_begin;
    rest->rows_kept = smaller(x->rows_kept, tokens_of(rest));
    x->rows_kept -= rest->rows_kept;
    x->token_end = at;
}

void frames_resume(frames *f, const slice *s, uint64_t pass) {
    suspended *x = find(f, s->frame_in);
    check(x && x->id == s->id && x->op == s->op_begin);
    check(s->token_begin - x->token_begin == s->frame_in.row - x->place.row && s->token_end <= x->token_end);
    if (s->token_begin > x->token_begin) {
        cut(f, x, s->token_begin);
        x = find(f, s->frame_in);
    }
    if (s->token_end < x->token_end) cut(f, x, s->token_end);
    x->resumed_in_pass = pass;
}

uint32_t frames_take(frames *f, const slice *s) {
    const suspended *x = find(f, s->frame_in);
    check(x && x->id == s->id && x->token_begin == s->token_begin && x->token_end == s->token_end);
    const uint32_t rows_kept = x->rows_kept;
    forget(f, (uint32_t)(x - f->entries));
    return rows_kept;
}

static bool overlap(const suspended *x, const slice *s) {
    const uint32_t begin = s->frame_out.row, end = begin + (s->token_end - s->token_begin);
    return x->place.frame == s->frame_out.frame && x->place.row < end && begin < x->place.row + tokens_of(x);
}

void frames_put(frames *f, const slice *s, uint32_t op, uint32_t rows_kept, uint64_t pass) {
    for (uint32_t i = f->count; i-- > 0;) {
        if (!overlap(&f->entries[i], s)) continue;
        check(f->entries[i].resumed_in_pass != pass);
        forget(f, i);
    }
    check(f->count < f->capacity);
    f->entries[f->count++] = (suspended){.id = s->id,
                                         .token_begin = s->token_begin,
                                         .token_end = s->token_end,
                                         .op = op,
                                         .rows_kept = rows_kept,
                                         .place = s->frame_out};
}

void frames_check_staircase(frames *f, const slice *s, uint32_t cached_tokens, uint64_t pass) {
    for (uint32_t i = f->count; i-- > 0;) {
        const suspended *x = &f->entries[i];
        if (x->id != s->id || x->resumed_in_pass == pass) continue;
        const bool restarted = s->op_begin == 0 && x->token_end > s->token_begin && x->token_begin < s->token_end;
        if (restarted || x->token_end <= cached_tokens) forget(f, i);
        else if (x->token_end <= s->token_begin) check(x->op >= s->op_end);
    }
}
