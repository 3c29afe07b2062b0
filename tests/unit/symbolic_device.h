/* tests/unit/symbolic_device.h: a device whose numbers are hashes of everything a row's result must depend on.
 *
 * A row buffer is one 64-bit word. Each operator hashes what it reads into what it writes; attention hashes the K and V
 * words of all positions up to its own. Whatever a pass does not carry over, and whatever was never written, is poison
 * that no operator may read. So one word at the end tells whether every row saw exactly the right data. */
#pragma once
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "engine/device.h"

enum { SYMBOLIC_ROWS = 256, SYMBOLIC_OUTPUTS = 64, SYMBOLIC_FRAMES = 64, SYMBOLIC_OPS = 128 };
#define POISON UINT64_C(0xDEADDEADDEADDEAD)

struct device {
    const program *program;
    device_config  config;
    uint64_t       rows[SYMBOLIC_ROWS][ROW_BUFFER_COUNT];
    uint64_t (*frames)[ROW_BUFFER_COUNT]; /* [frame_count * frame_rows] */
    uint64_t    *kv;                      /* [page][token][layer]; POISON: not written */
    batch_run    runs[SYMBOLIC_ROWS];
    batch_output outputs[SYMBOLIC_OUTPUTS];
    batch        batch;
    uint64_t     logits[SYMBOLIC_OUTPUTS];
    uint64_t     rows_of_op[SYMBOLIC_OPS]; /* rows that each operator was run over, in all */
    int64_t      fail_after;               /* operators until one fails; -1: none does */
};

static inline uint64_t symbolic_mix(uint64_t a, uint64_t b) {
    const uint64_t both[2] = {a, b};
    return hash_u64(both, sizeof both, 1);
}

static inline uint64_t *symbolic_kv(device *d, const batch_run *r, uint32_t position, uint32_t layer) {
    const uint32_t page = r->pages[position / d->config.page_tokens];
    check(position / d->config.page_tokens < r->page_count && page < d->config.page_count);
    return &d->kv[((uint64_t)page * d->config.page_tokens + position % d->config.page_tokens) * d->program->layer_count +
                  layer];
}

static inline device *symbolic_new(const program *p, const device_config *c) {
    device *d = calloc(1, sizeof *d);
    check(d && p->op_count <= SYMBOLIC_OPS && c->rows_max <= SYMBOLIC_ROWS);
    d->program = p, d->config = *c, d->fail_after = -1;
    d->frames = calloc((size_t)c->frame_count * c->frame_rows + 1, sizeof *d->frames);
    const size_t words = (size_t)c->page_count * c->page_tokens * p->layer_count;
    d->kv = malloc(words * sizeof *d->kv);
    check(d->frames && d->kv);
    for (size_t i = 0; i < words; i++) d->kv[i] = POISON;
    return d;
}

static inline void symbolic_close(device *d) {
    free(d->frames);
    free(d->kv);
    free(d);
}

static inline int symbolic_bind(device *d, const batch *b, error *err) {
    (void)err;
    uint32_t rows = 0;
    for (uint32_t i = 0; i < b->run_count; i++) {
        check(b->runs[i].row_begin == rows && b->runs[i].row_count > 0);
        rows += b->runs[i].row_count;
    }
    check(rows == b->row_count && rows <= d->config.rows_max && b->output_count <= d->config.outputs_max);
    check(b->output_count <= SYMBOLIC_OUTPUTS);
    for (uint32_t i = 0; i < b->output_count; i++) {
        check(b->outputs[i].row < rows && (i == 0 || b->outputs[i].row > b->outputs[i - 1].row));
        d->outputs[i] = b->outputs[i];
    }
    for (uint32_t i = 0; i < b->run_count; i++) d->runs[i] = b->runs[i];
    d->batch = (batch){b->row_count, b->run_count, b->output_count, d->runs, d->outputs};
    return OK;
}

static inline uint64_t symbolic_attend(device *d, const batch_run *r, uint32_t position, uint32_t layer) {
    uint64_t all = 0;
    for (uint32_t i = 0; i <= position; i++) {
        const uint64_t word = *symbolic_kv(d, r, i, layer);
        check(word != POISON);
        all = symbolic_mix(all, word);
    }
    return all;
}

/* All K and V of the batch are written before any row attends: two sweeps where the operator is ROPE_KV or ATTENTION. */
static inline void symbolic_row(device *d, const op *o, uint32_t op_index, const batch_run *r, uint32_t i) {
    uint64_t *row = d->rows[r->row_begin + i], in = symbolic_mix(op_index, o->layer);
    for (int b = 0; b < ROW_BUFFER_COUNT; b++) {
        if (!(o->reads >> b & 1)) continue;
        check(row[b] != POISON);
        in = symbolic_mix(in, row[b]);
    }
    const uint32_t position = r->position_begin + i;
    if (o->kind == OP_EMBED) in = symbolic_mix(in, r->tokens[i]);
    if (o->kind == OP_ROPE_KV) *symbolic_kv(d, r, position, o->layer) = symbolic_mix(in, position);
    if (o->kind == OP_ATTENTION) in = symbolic_mix(in, symbolic_attend(d, r, position, o->layer));
    for (int b = 0; b < ROW_BUFFER_COUNT; b++)
        if (o->writes >> b & 1) row[b] = symbolic_mix(in, (uint64_t)b);
        else if (!(d->program->live[op_index + 1] >> b & 1)) row[b] = POISON;
}

static inline int symbolic_run_op(device *d, uint32_t op_index, error *err) {
    const op *o = &d->program->ops[op_index];
    if (d->fail_after >= 0 && d->fail_after-- == 0) return error_set(err, ERR_DEVICE, "the device was told to fail");
    if (o->kind >= OP_FINAL_NORM) { /* of the output rows, whose X stays */
        for (uint32_t i = 0; i < d->batch.output_count && o->kind == OP_LOGITS; i++) {
            check(d->rows[d->outputs[i].row][ROW_X] != POISON);
            d->logits[i] = symbolic_mix(op_index, d->rows[d->outputs[i].row][ROW_X]);
        }
        d->rows_of_op[op_index] += d->batch.output_count;
        return OK;
    }
    d->rows_of_op[op_index] += d->batch.row_count;
    for (uint32_t k = 0; k < d->batch.run_count; k++)
        for (uint32_t i = 0; i < d->runs[k].row_count; i++) symbolic_row(d, o, op_index, &d->runs[k], i);
    return OK;
}

static inline void symbolic_copy(uint64_t *to, const uint64_t *from, uint16_t live) {
    for (int b = 0; b < ROW_BUFFER_COUNT; b++) {
        check(!(live >> b & 1) || from[b] != POISON);
        to[b] = live >> b & 1 ? from[b] : POISON;
    }
}

static inline int symbolic_save_rows(device *d, uint16_t live, uint32_t row, uint32_t count, uint32_t frame,
                                     uint32_t frame_row) {
    check(row + count <= d->config.rows_max && frame < d->config.frame_count && frame_row + count <= d->config.frame_rows);
    for (uint32_t i = 0; i < count; i++)
        symbolic_copy(d->frames[frame * d->config.frame_rows + frame_row + i], d->rows[row + i], live);
    return OK;
}

static inline int symbolic_load_rows(device *d, uint16_t live, uint32_t row, uint32_t count, uint32_t frame,
                                     uint32_t frame_row) {
    check(row + count <= d->config.rows_max && frame < d->config.frame_count && frame_row + count <= d->config.frame_rows);
    for (uint32_t i = 0; i < count; i++)
        symbolic_copy(d->rows[row + i], d->frames[frame * d->config.frame_rows + frame_row + i], live);
    return OK;
}

static inline int symbolic_move_rows(device *d, uint16_t live, uint32_t from, uint32_t to, uint32_t count) {
    check(to <= from && from + count <= d->config.rows_max);
    for (uint32_t i = 0; i < count; i++) symbolic_copy(d->rows[to + i], d->rows[from + i], live);
    return OK;
}

static inline int symbolic_collect(device *d, sampled *out, error *err) {
    (void)err;
    for (uint32_t i = 0; i < d->batch.output_count; i++) {
        const batch_output *o = &d->outputs[i];
        out[i] = (sampled){.token = (uint32_t)(d->logits[i] % 97)};
        if (o->scores) out[i].rank = o->history[o->history_count], out[i].token = (uint32_t)(d->logits[i] % 89);
    }
    return OK;
}

static inline int symbolic_read_logits(device *d, uint32_t output, float *out) {
    memcpy(out, &d->logits[output], sizeof(uint64_t)); /* a vocabulary of two floats */
    return OK;
}

static const device_api device_symbolic = {
    .name = "symbolic",
    .close = symbolic_close,
    .bind = symbolic_bind,
    .run_op = symbolic_run_op,
    .save_rows = symbolic_save_rows,
    .load_rows = symbolic_load_rows,
    .move_rows = symbolic_move_rows,
    .collect = symbolic_collect,
    .read_logits = symbolic_read_logits,
};
