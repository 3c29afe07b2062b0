/* The CPU as a device: the default on a machine without a GPU, and the numerical reference.
 *
 * Everything is taken at open, from sizes that the memory plan prints; a pass allocates nothing. Weights are packed once
 * into panels in huge pages (kernels/matmul.h), or left mapped. The checkpoint must outlive the device: embedding rows are
 * read from the mapped file. What bind is given (tokens, pages, histories) is borrowed until the next bind. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "engine/device_cpu.h"

static bool available(char *why, size_t why_size) {
    buf text;
    buf_init(&text, why_size);
    buf_str(&text, "the cpu device runs anywhere; instruction set: ");
    for (uint32_t i = 0; cpu_isa_name(i); i++)
        if (cpu_has_isa(cpu_isa_name(i))) {
            buf_str(&text, cpu_isa_name(i));
            break;
        }
    if (why_size) {
        size_t n = text.size < why_size ? text.size : why_size - 1;
        if (n) memcpy(why, text.data, n);
        why[n] = 0;
    }
    buf_free(&text);
    return true;
}

static int plan_memory(const model_facts *f, const program *p, const device_config *c, memory_plan *out, error *err) {
    int status = device_sizes_check(f, c, err);
    if (status != OK) return status;
    device_sizes s = device_sizes_of(f, p, c);
    *out = (memory_plan){.page_bytes = device_kv_layout(f, c).page_stride, .available_bytes = memory_available_bytes()};
    const memory_row rows[] = {
        {c->map_weights ? "weights (matrices stay in the mapped file)" : "weights", true, s.weights},
        {"KV pages", true, s.pages},
        {"host pages", true, s.host_pages},
        {"frames", true, s.frames},
        {"row buffers", true, s.rows},
        {"workspace", true, s.workspace},
    };
    out->row_count = sizeof rows / sizeof *rows;
    memcpy(out->rows, rows, sizeof rows);
    return OK;
}

/* ---- open and close ---- */

static void device_close(device *d) {
    if (!d) return;
    page_copier_free(d->copier);
    if (d->cpu.pool) cpu_close(&d->cpu);
    memory_give(d->weight_memory, d->sizes.weights);
    memory_give(d->page_memory, d->sizes.pages);
    memory_give(d->host_page_memory, d->sizes.host_pages);
    memory_give(d->frame_memory, d->sizes.frames);
    memory_give(d->row_memory, d->sizes.rows);
    memory_give(d->workspace_memory, d->sizes.workspace);
    weights_free(&d->weights);
    free(d->inverse_frequency);
    free(d);
}

static int take_memory(device *d, error *err) {
    const device_sizes *s = &d->sizes;
    if (!(d->weight_memory = memory_take(s->weights, "weights", err))) return ERR_MEMORY;
    if (!(d->page_memory = memory_take(s->pages, "KV pages", err))) return ERR_MEMORY;
    if (s->host_pages && !(d->host_page_memory = memory_take(s->host_pages, "host pages", err))) return ERR_MEMORY;
    if (!(d->frame_memory = memory_take(s->frames, "frames", err))) return ERR_MEMORY;
    if (!(d->row_memory = memory_take(s->rows, "row buffers", err))) return ERR_MEMORY;
    if (!(d->workspace_memory = memory_take(s->workspace, "workspace", err))) return ERR_MEMORY;
    char *next = d->row_memory;
    for (int b = 0; b < ROW_BUFFER_COUNT; b++) d->rows[b] = next, next += d->config.rows_max * s->row_stride[b] + 64;
    workspace_carve(&d->work, d->workspace_memory, d->facts, &d->config, s);
    return OK;
}

static int set_up(device *d, error *err) {
    int status = device_sizes_check(d->facts, &d->config, err);
    if (status != OK) return status;
    d->sizes = device_sizes_of(d->facts, d->program, &d->config);
    d->layout = device_kv_layout(d->facts, &d->config);
    d->activation = d->layout.type;
    if ((status = cpu_open(&d->cpu, d->config.isa, d->config.threads, err)) != OK) return status;
    if ((status = take_memory(d, err)) != OK) return status;
    weights_list(&d->weights, d->facts);
    d->inverse_frequency = rope_inverse_frequencies(d->facts);
    if (d->config.host_pages)
        d->copier = page_copier_new(&(page_copier_config){.pages = d->page_memory,
                                                          .host_pages = d->host_page_memory,
                                                          .page_bytes = d->layout.page_stride,
                                                          .copies_max = d->config.copies_max});
    return weights_load(d, err);
}

static int device_open(device **out, const checkpoint *c, const program *p, const device_config *config, error *err) {
    device *d = calloc(1, sizeof *d);
    if (!d) fatal("no memory for the cpu device");
    *d = (device){.ckpt = c, .facts = checkpoint_facts(c), .program = p, .config = *config};
    int status = set_up(d, err);
    if (status != OK) {
        device_close(d);
        d = NULL;
    }
    *out = d;
    return status;
}

/* ---- a batch ---- */

static int device_bind(device *d, const batch *b, error *err) {
    int status = device_check_batch(&d->config, b, err);
    if (status != OK) return status;
    d->row_count = b->row_count, d->run_count = b->run_count, d->output_count = b->output_count;
    d->runs = b->runs, d->outputs = b->outputs;
    for (uint32_t i = 0; i < b->run_count; i++) {
        const batch_run *r = &b->runs[i];
        d->work.runs[i] = (kv_run){r->row_begin, r->row_count, r->position_begin, r->pages};
    }
    device_fill_rotation(d);
    return OK;
}

static int device_run_op(device *d, uint32_t op_index, error *err) {
    const op *o = &d->program->ops[op_index];
    if (o->kind == OP_EMBED) {
        int status = device_check_tokens(d->runs, d->run_count, d->facts->vocab_size, err);
        if (status != OK) return status;
    }
    uint64_t begin = clock_ns();
    device_cpu_ops[o->kind](d, o->layer);
    d->stats.op_ns[o->kind] += clock_ns() - begin;
    return OK;
}

static int device_collect(device *d, sampled *out, error *err) {
    (void)err;
    memcpy(out, d->work.sampled, d->output_count * sizeof *out);
    d->stats.passes++;
    return OK;
}

static int device_read_logits(device *d, uint32_t output, float *out) {
    if (output >= d->output_count) return ERR_INVALID;
    memcpy(out, d->work.logits + output * d->sizes.logits_stride, d->facts->vocab_size * sizeof *out);
    return OK;
}

/* ---- rows that stop and come back ---- */

typedef struct {
    uint16_t live;
    uint32_t row, count, frame, frame_row;
} frame_copy;

static bool fits(const device_config *c, const frame_copy *f) {
    return f->frame < c->frame_count && f->frame_row <= c->frame_rows && f->count <= c->frame_rows - f->frame_row &&
           f->row <= c->rows_max && f->count <= c->rows_max - f->row;
}

/* A frame row holds the live buffers one after another, in order of buffer. */
static int copy_frame(device *d, const frame_copy *f, bool to_frame) {
    const program *p = d->program;
    if (!fits(&d->config, f)) return ERR_INVALID;
    for (uint32_t i = 0; i < f->count; i++) {
        char *at = d->frame_memory + ((uint64_t)f->frame * d->config.frame_rows + f->frame_row + i) * p->frame_row_bytes;
        for (int b = 0; b < ROW_BUFFER_COUNT; b++) {
            if (!(f->live >> b & 1)) continue;
            char *in_batch = d->rows[b] + (f->row + i) * d->sizes.row_stride[b];
            if (to_frame) memcpy(at, in_batch, p->row_bytes[b]);
            else memcpy(in_batch, at, p->row_bytes[b]);
            at += p->row_bytes[b];
        }
    }
    return OK;
}

static int device_save_rows(device *d, uint16_t live, uint32_t row, uint32_t count, uint32_t frame, uint32_t frame_row) {
    return copy_frame(d, &(frame_copy){live, row, count, frame, frame_row}, true);
}
static int device_load_rows(device *d, uint16_t live, uint32_t row, uint32_t count, uint32_t frame, uint32_t frame_row) {
    return copy_frame(d, &(frame_copy){live, row, count, frame, frame_row}, false);
}

static int device_move_rows(device *d, uint16_t live, uint32_t from_row, uint32_t to_row, uint32_t count) {
    uint32_t rows_max = d->config.rows_max;
    if (to_row > from_row || from_row > rows_max || count > rows_max - from_row) return ERR_INVALID;
    for (int b = 0; b < ROW_BUFFER_COUNT; b++) {
        size_t stride = d->sizes.row_stride[b];
        if (live >> b & 1) memmove(d->rows[b] + to_row * stride, d->rows[b] + from_row * stride, count * stride);
    }
    return OK;
}

/* ---- pages that leave and come back ---- */

static int device_copy_pages(device *d, const page_copy *copies, uint32_t count, error *err) {
    (void)err;
    for (uint32_t i = 0; i < count; i++)
        check(copies[i].page < d->config.page_count && copies[i].host_page < d->config.host_pages);
    page_copier_begin(d->copier, copies, count);
    return OK;
}

static int device_await_copy(device *d, uint64_t id, error *err) {
    (void)err;
    page_copier_await(d->copier, id);
    return OK;
}

static uint32_t device_copies_done(device *d, bool wait, copied_page *out, uint32_t max) {
    return page_copier_done(d->copier, wait, out, max);
}

static void     device_read_stats(const device *d, device_stats *out) { *out = d->stats; }
static uint64_t device_now_us(const device *d) { return (void)d, clock_us(); }

const device_api device_cpu = {
    .name = "cpu",
    .available = available,
    .plan_memory = plan_memory,
    .open = device_open,
    .close = device_close,
    .bind = device_bind,
    .run_op = device_run_op,
    .save_rows = device_save_rows,
    .load_rows = device_load_rows,
    .move_rows = device_move_rows,
    .collect = device_collect,
    .copy_pages = device_copy_pages,
    .await_copy = device_await_copy,
    .copies_done = device_copies_done,
    .read_logits = device_read_logits,
    .read_stats = device_read_stats,
    .now_us = device_now_us,
};
