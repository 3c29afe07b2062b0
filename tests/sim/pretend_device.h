/* tests/sim/pretend_device.h: a device that computes nothing and remembers everything.
 *
 * Where a real page holds keys and values, a pretend cell holds what they depend on: the hash of all tokens up to this one
 * (and the salt), and how many operators it has crossed. So whatever a slice reads can be compared, at every operator, with
 * what its prefix must contain; a page that was reused, shared too early or written by somebody else cannot go unnoticed.
 * Frames likewise hold which row they saved, and at which operator. */
#pragma once
#include <stdlib.h>

#include "base/error.h"
#include "scheduler/scheduler.h"

typedef struct {
    uint64_t prefix; /* hash of the salt and all tokens up to this one */
    uint32_t op;     /* operators crossed */
} cell;

typedef struct {
    const uint64_t *prefix; /* [token] of this slice's sequence */
    const uint32_t *pages;
    uint32_t        page_count;
} slice_data;

/* A copy that the scheduler asked for. */
typedef struct {
    page_copy copy;
    bool      fails, done; /* done: and not yet reported */
} pretend_copy;

typedef struct {
    scheduler_config config;
    cell            *pages;  /* [page_count][page_tokens] */
    cell            *frames; /* [frame_count][frame_tokens] */
    cell            *host;   /* [host_pages][page_tokens] */
    slice_data      *data;   /* [batch_tokens_max] of the plan's slices */
    uint64_t         cells_read;
} pretend_device;

static void device_open(pretend_device *d, const scheduler_config *c) {
    *d = (pretend_device){.config = *c};
    d->pages = calloc((size_t)c->page_count * c->page_tokens, sizeof *d->pages);
    d->frames = calloc((size_t)c->frame_count * c->frame_tokens + 1, sizeof *d->frames);
    d->host = calloc((size_t)c->reclaim.host_pages * c->page_tokens + 1, sizeof *d->host);
    d->data = calloc(c->batch_tokens_max, sizeof *d->data);
    check(d->pages && d->frames && d->host && d->data);
}

static void device_close(pretend_device *d) {
    free(d->pages);
    free(d->frames);
    free(d->host);
    free(d->data);
}

static cell *cell_at(const pretend_device *d, const slice_data *x, uint32_t position) {
    uint32_t page = position / d->config.page_tokens;
    check(page < x->page_count && x->pages[page] < d->config.page_count);
    return &d->pages[(size_t)x->pages[page] * d->config.page_tokens + position % d->config.page_tokens];
}

static cell *frame_at(const pretend_device *d, frame_place place, uint32_t row) {
    check(place.frame < d->config.frame_count && place.row + row < d->config.frame_tokens);
    return &d->frames[(size_t)place.frame * d->config.frame_tokens + place.row + row];
}

/* Rows that start take their cells; rows that continue must find in their frame what they left, in cells that are theirs. */
static void device_join(pretend_device *d, const slice *s, const slice_data *x) {
    for (uint32_t p = s->token_begin; p < s->token_end; p++) {
        cell *c = cell_at(d, x, p);
        if (s->op_begin == 0) {
            *c = (cell){x->prefix[p], 0};
            continue;
        }
        const cell *f = frame_at(d, s->frame_in, p - s->token_begin);
        check(f->prefix == x->prefix[p] && f->op == s->op_begin);
        check(c->prefix == x->prefix[p] && c->op == s->op_begin);
    }
}

static void device_leave(pretend_device *d, const slice *s, const slice_data *x, uint32_t op) {
    for (uint32_t p = s->token_begin; p < s->token_end; p++)
        *frame_at(d, s->frame_out, p - s->token_begin) = (cell){x->prefix[p], op};
}

/* One operator over one slice: its rows must be exactly here; everything before them must be at least as far after it.
 * A decode's past has crossed everything, so it is looked at once. */
static void device_write(pretend_device *d, const slice *s, const slice_data *x, uint32_t op) {
    for (uint32_t p = s->token_begin; p < s->token_end; p++) {
        cell *c = cell_at(d, x, p);
        check(c->op == op && c->prefix == x->prefix[p]);
        c->op = op + 1;
    }
}

static void device_read(pretend_device *d, const slice *s, const slice_data *x, uint32_t op, bool decodes) {
    if (decodes && op > 0) return;
    uint32_t least = decodes ? d->config.model.op_count : op + 1;
    for (uint32_t p = 0; p < s->token_begin; p++) {
        const cell *c = cell_at(d, x, p);
        check(c->prefix == x->prefix[p] && c->op >= least);
    }
    d->cells_read += s->token_begin;
}

/* Walks the plan up to (not including) operator `end`; d->data describes its slices. */
static void device_walk(pretend_device *d, const plan *p, uint32_t end) {
    for (uint32_t op = 0; op < end; op++) {
        for (uint32_t i = 0; i < p->slice_count; i++) {
            const slice *s = &p->slices[i];
            if (op < s->op_begin || op >= s->op_end) continue;
            if (op == s->op_begin) device_join(d, s, &d->data[i]);
            device_write(d, s, &d->data[i], op);
        }
        for (uint32_t i = 0; i < p->slice_count; i++) {
            const slice *s = &p->slices[i];
            if (op >= s->op_begin && op < s->op_end) device_read(d, s, &d->data[i], op, i < p->decode_rows);
        }
    }
    for (uint32_t i = 0; i < p->slice_count; i++) {
        const slice *s = &p->slices[i];
        uint32_t     reached = end < s->op_end ? end : s->op_end;
        if (reached > s->op_begin && reached < d->config.model.op_count) device_leave(d, s, &d->data[i], reached);
    }
}

/* Only what crossed all operators is copied. A copy that fails leaves what nobody may read. */
static void device_copy(pretend_device *d, const pretend_copy *c) {
    const uint32_t n = d->config.page_tokens;
    check(c->copy.page < d->config.page_count && c->copy.host_page < d->config.reclaim.host_pages);
    cell *page = &d->pages[(size_t)c->copy.page * n], *host = &d->host[(size_t)c->copy.host_page * n];
    cell *from = c->copy.to_host ? page : host, *to = c->copy.to_host ? host : page;
    for (uint32_t i = 0; i < n; i++) {
        check(from[i].op == d->config.model.op_count);
        to[i] = c->fails ? (cell){0xBAD, 0} : from[i];
    }
}
