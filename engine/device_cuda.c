/* An NVIDIA GPU as a device, through the table of kernels/cuda/object.h.
 *
 * As on the CPU everything is taken at open, from sizes that the memory plan prints, and a pass allocates nothing; frames
 * lie on the GPU. Kernels never look at a row's neighbours where that would change its sums, and no library's do the
 * products, so the bits of a sequence are the same in any company.
 *
 * No GPU has run this yet: it is tested with the emulated one. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "engine/device_cuda.h"

static bool available(char *why, size_t why_size) {
    cuda_card card;
    char      reason[256];
    if (!cuda_object_open(&card, reason, sizeof reason)) {
        snprintf(why, why_size, "there is no CUDA device, because %s", reason);
        return false;
    }
    snprintf(why, why_size, "cuda, on %s: %.1f GiB free of %.1f, compute capability %u.%u", card.name,
             (double)card.free_bytes / 0x1p30, (double)card.memory_bytes / 0x1p30, card.capability / 10,
             card.capability % 10);
    return true;
}

static const cuda_object *open_object(cuda_card *card, error *err) {
    char               why[256];
    const cuda_object *o = cuda_object_open(card, why, sizeof why);
    if (!o) error_set(err, ERR_UNSUPPORTED, "there is no CUDA device, because %s", why);
    return o;
}

static int plan_memory(const model_facts *f, const program *p, const device_config *c, memory_plan *out, error *err) {
    cuda_card          card;
    const cuda_object *o = open_object(&card, err);
    if (!o) return ERR_UNSUPPORTED;
    const int status = gpu_sizes_check(f, c, err);
    if (status != OK) return status;
    const gpu_sizes s = gpu_sizes_of(o, f, p, c);
    *out = (memory_plan){.page_bytes = gpu_pages_of(f, c).page_stride, .available_bytes = card.free_bytes};
    const memory_row rows[] = {
        {"weights", true, s.weights},
        {"KV pages", true, s.pages},
        {"host pages", false, s.host_pages},
        {"frames", true, s.frames},
        {"row buffers", true, s.rows},
        {"workspace", true, s.workspace},
        {"pinned host memory", false, s.pinned},
    };
    out->row_count = sizeof rows / sizeof *rows;
    memcpy(out->rows, rows, sizeof rows);
    return OK;
}

/* ---- open and close ---- */

static void give_stages(device *d) {
    for (int i = 0; i < STAGES_OF_LOADING; i++) {
        if (d->host.loading[i]) d->cuda->give_host(d->host.loading[i]);
        d->host.loading[i] = NULL;
    }
}

static void device_close(device *d) {
    if (!d) return;
    const cuda_object *o = d->cuda;
    char               why[256];
    if (o && d->queue) o->wait(d->queue, why, sizeof why);
    if (o) {
        gpu_copies_close(d);
        char *const on_gpu[] = {d->weight_memory, d->page_memory, d->frame_memory, d->row_memory, d->workspace_memory};
        for (size_t i = 0; i < sizeof on_gpu / sizeof *on_gpu; i++)
            if (on_gpu[i]) o->give(on_gpu[i]);
        if (d->pinned_memory) o->give_host(d->pinned_memory);
        give_stages(d);
        for (int i = 0; i < BINDS_AHEAD; i++) o->event_free(d->bound[i]);
        for (int i = 0; i < OPS_AHEAD; i++) o->event_free(d->done[i]);
        for (int i = 0; i < STAGES_OF_LOADING; i++) o->event_free(d->loaded[i]);
        o->event_free(d->sampled);
        o->queue_free(d->queue);
    }
    for (int i = 0; i < WINDOWS_MAX; i++) {
        free(d->windows[i].plan.items[0]);
        free(d->windows[i].plan.items[1]);
        free(d->windows[i].plan.merges);
    }
    free(d->host_runs);
    gpu_weights_free(&d->weights);
    free(d);
}

static int take(device *d, char **to, uint64_t bytes, const char *what, error *err) {
    *to = d->cuda->take(bytes);
    if (!*to)
        return error_set(err, ERR_MEMORY,
                         "the GPU gives no %.1f MiB for %s; lower --kv-cache-memory or take a smaller model",
                         (double)bytes / (1 << 20), what);
    d->cuda->zero(d->queue, *to, bytes); /* what pads a row must be finite */
    return OK;
}

static int take_memory(device *d, error *err) {
    const gpu_sizes *s = &d->sizes;
    int              status = take(d, &d->weight_memory, s->weights, "weights", err);
    if (status == OK) status = take(d, &d->page_memory, s->pages, "KV pages", err);
    if (status == OK) status = take(d, &d->frame_memory, s->frames, "frames", err);
    if (status == OK) status = take(d, &d->row_memory, s->rows, "row buffers", err);
    if (status == OK) status = take(d, &d->workspace_memory, s->workspace, "workspace", err);
    if (status != OK) return status;
    d->pinned_memory = d->cuda->take_host(s->pinned);
    if (!d->pinned_memory)
        return error_set(err, ERR_MEMORY, "the system gives no %.1f MiB of pinned memory", (double)s->pinned / (1 << 20));
    gpu_place_rows(&d->work, d->row_memory, d->facts, d->program, &d->config, s);
    gpu_place_workspace(&d->work, d->workspace_memory, d->cuda, d->facts, &d->config, s);
    gpu_place_pinned(&d->host, d->pinned_memory, &d->config, s);
    return OK;
}

static int take_events(device *d, error *err) {
    bool all = true;
    for (int i = 0; i < BINDS_AHEAD; i++) all = (d->bound[i] = d->cuda->event_new()) && all;
    for (int i = 0; i < OPS_AHEAD; i++) all = (d->done[i] = d->cuda->event_new()) && all;
    for (int i = 0; i < STAGES_OF_LOADING; i++) all = (d->loaded[i] = d->cuda->event_new()) && all;
    all = (d->sampled = d->cuda->event_new()) && all;
    return all ? OK : error_set(err, ERR_DEVICE, "the GPU gives no events");
}

static void set_up_windows(device *d) {
    const gpu_sizes   *s = &d->sizes;
    const model_facts *f = d->facts;
    for (uint32_t i = 0; i < s->window_count; i++) {
        gpu_window *w = &d->windows[i];
        w->facts = (cuda_attention_facts){d->activation, f->head_count, f->kv_head_count, f->head_dim, s->windows[i]};
        w->plan = (cuda_attention_plan){.items = {calloc(s->few_items_max + 1, sizeof(cuda_attention_item)),
                                                  calloc(s->many_items_max + 1, sizeof(cuda_attention_item))},
                                        .merges = calloc(s->merges_max + 1, sizeof(cuda_attention_merge)),
                                        .item_max = {s->few_items_max, s->many_items_max},
                                        .merge_max = s->merges_max,
                                        .partial_max = s->partials_max};
        if (!w->plan.items[0] || !w->plan.items[1] || !w->plan.merges) fatal("no memory for lists of attention tiles");
    }
    d->host_runs = calloc(d->config.rows_max, sizeof *d->host_runs);
    if (!d->host_runs) fatal("no memory for %u runs", d->config.rows_max);
}

typedef struct {
    const double *frequency;
    uint32_t      half;
} angles;

static void fill_rotation(void *context, uint64_t first, uint64_t count, char *to) {
    const angles *a = context;
    float        *out = (void *)to;
    for (uint64_t i = 0; i < count; i++, out += 2 * (size_t)a->half)
        for (uint32_t j = 0; j < a->half; j++) {
            const double angle = (double)(first + i) * a->frequency[j];
            out[j] = (float)cos(angle), out[a->half + j] = (float)sin(angle);
        }
}

static void load_rotation(device *d) {
    double      *frequency = rope_inverse_frequencies(d->facts);
    const angles a = {frequency, d->facts->head_dim / 2};
    gpu_upload(d, d->work.rotation, d->config.context_max, d->facts->head_dim * sizeof(float), fill_rotation, (void *)&a);
    free(frequency);
}

static int set_up(device *d, error *err) {
    cuda_card card;
    int       status = gpu_sizes_check(d->facts, &d->config, err);
    if (status != OK) return status;
    if (!(d->cuda = open_object(&card, err))) return ERR_UNSUPPORTED;
    if (!(d->queue = d->cuda->queue_new())) return error_set(err, ERR_DEVICE, "the GPU gives no queue");
    d->cuda->queue_says(d->queue, getenv("PENSTOCK_CUDA_SAYS") != NULL);
    d->activation = d->program->activation;
    d->layout = gpu_pages_of(d->facts, &d->config);
    d->sizes = gpu_sizes_of(d->cuda, d->facts, d->program, &d->config);
    gpu_weights_list(&d->weights, d->facts);
    if ((status = take_events(d, err)) != OK) return status;
    if ((status = take_memory(d, err)) != OK) return status;
    if ((status = gpu_copies_open(d, err)) != OK) return status;
    gpu_weights_place(&d->weights, d->weight_memory);
    set_up_windows(d);
    status = gpu_weights_load(d, err);
    if (status == OK) load_rotation(d);
    char why[256];
    if (status == OK && !d->cuda->wait(d->queue, why, sizeof why))
        status = error_set(err, ERR_DEVICE, "the GPU failed: %s", why);
    give_stages(d);
    return status;
}

static int device_open(device **out, const checkpoint *c, const program *p, const device_config *config, error *err) {
    device *d = calloc(1, sizeof *d);
    if (!d) fatal("no memory for the cuda device");
    *d = (device){.ckpt = c, .facts = checkpoint_facts(c), .program = p, .config = *config};
    const int status = set_up(d, err);
    if (status != OK) {
        device_close(d);
        d = NULL;
    }
    *out = d;
    return status;
}

/* ---- a batch ---- */

static int device_run_op(device *d, uint32_t op_index, error *err) {
    const op *o = &d->program->ops[op_index];
    const int slot = (int)(d->ops % OPS_AHEAD);
    char      why[256];
    if (o->kind == OP_EMBED) {
        const int status = device_check_tokens(d->runs, d->run_count, d->facts->vocab_size, err);
        if (status != OK) return status;
    }
    const uint64_t begin = clock_ns();
    if (d->ops >= OPS_AHEAD && !d->cuda->event_wait(d->done[slot], why, sizeof why))
        return error_set(err, ERR_DEVICE, "the GPU failed at or before %s, %d operators ago: %s",
                         op_name((op_kind)d->op_kinds[slot]), OPS_AHEAD, why);
    device_cuda_ops[o->kind](d, o->layer);
    d->cuda->event_record(d->queue, d->done[slot]);
    d->op_kinds[slot] = o->kind, d->ops++;
    d->stats.op_ns[o->kind] += clock_ns() - begin; /* the host's time: to launch it, and for the oldest to end */
    return OK;
}

static void count_bytes(device *d) {
    const gpu_weights       *w = &d->weights;
    const cuda_group_counts *c = d->host.counts;
    uint64_t                 up = 0, down = 0;
    for (uint32_t i = 0; i < d->program->layer_count; i++) /* all layers of experts are of one shape */
        if (d->facts->is_moe_layer[i])
            up = w->layers[i].expert_gate_up.each_bytes, down = w->layers[i].expert_down.each_bytes;
    d->stats.expert_bytes = c->touched_ever * up + c->combined_ever * down;
    d->stats.weight_bytes = d->dense_bytes + d->stats.expert_bytes;
}

static int device_collect(device *d, sampled *out, error *err) {
    char why[256];
    d->cuda->copy(d->queue, d->host.results, d->work.results, d->output_count * sizeof *d->host.results);
    d->cuda->copy(d->queue, d->host.counts, d->work.groups.counts, sizeof *d->host.counts);
    if (!d->cuda->wait(d->queue, why, sizeof why)) return error_set(err, ERR_DEVICE, "the GPU failed: %s", why);
    for (uint32_t i = 0; i < d->output_count; i++) {
        const batch_output *o = &d->outputs[i];
        sample_result       r = {.top_ids = out[i].top_ids, .top_logprobs = out[i].top_logprobs};
        d->cuda->sample_finish(&d->host.results[i], o->scores || o->params->top_logprobs >= 0, &r);
        out[i].token = r.token, out[i].logprob = r.logprob, out[i].rank = r.rank;
        out[i].top_count = r.top_count, out[i].corrupt = r.corrupt;
    }
    count_bytes(d);
    d->stats.passes++;
    return OK;
}

static int device_read_logits(device *d, uint32_t output, float *out) {
    char why[256];
    if (output >= d->output_count) return ERR_INVALID;
    d->cuda->copy(d->queue, out, (char *)d->work.logits + output * d->sizes.logits_stride,
                  d->facts->vocab_size * sizeof *out);
    return d->cuda->wait(d->queue, why, sizeof why) ? OK : ERR_DEVICE;
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
    if (!fits(&d->config, f)) return ERR_INVALID;
    const size_t stride = d->sizes.frame_row_bytes;
    char        *at = d->frame_memory + ((uint64_t)f->frame * d->config.frame_rows + f->frame_row) * stride;
    for (int b = 0; b < ROW_BUFFER_COUNT; b++) {
        if (!(f->live >> b & 1)) continue;
        const gpu_rows *rows = &d->work.rows[b];
        char           *in_batch = rows->base + f->row * rows->stride;
        if (to_frame) d->cuda->copy_rows(d->queue, at, stride, in_batch, rows->stride, rows->bytes, f->count);
        else d->cuda->copy_rows(d->queue, in_batch, rows->stride, at, stride, rows->bytes, f->count);
        at += rows->bytes;
    }
    return OK;
}

static int device_save_rows(device *d, uint16_t live, uint32_t row, uint32_t count, uint32_t frame, uint32_t frame_row) {
    return copy_frame(d, &(frame_copy){live, row, count, frame, frame_row}, true);
}
static int device_load_rows(device *d, uint16_t live, uint32_t row, uint32_t count, uint32_t frame, uint32_t frame_row) {
    return copy_frame(d, &(frame_copy){live, row, count, frame, frame_row}, false);
}

/* In pieces as long as the gap, which do not overlap. What left is seldom one row while many stay. */
static int device_move_rows(device *d, uint16_t live, uint32_t from_row, uint32_t to_row, uint32_t count) {
    const uint32_t rows_max = d->config.rows_max, gap = from_row - to_row;
    if (to_row > from_row || from_row > rows_max || count > rows_max - from_row) return ERR_INVALID;
    for (uint32_t done = 0; gap > 0 && done < count; done += gap)
        for (int b = 0; b < ROW_BUFFER_COUNT; b++) {
            const gpu_rows *r = &d->work.rows[b];
            const uint32_t  n = count - done < gap ? count - done : gap;
            if (live >> b & 1)
                d->cuda->copy_rows(d->queue, r->base + (to_row + done) * r->stride, r->stride,
                                   r->base + (from_row + done) * r->stride, r->stride, r->bytes, n);
        }
    return OK;
}

static void     device_read_stats(const device *d, device_stats *out) { *out = d->stats; }
static uint64_t device_now_us(const device *d) { return (void)d, clock_us(); }

const device_api device_cuda = {
    .name = "cuda",
    .available = available,
    .plan_memory = plan_memory,
    .open = device_open,
    .close = device_close,
    .bind = gpu_bind,
    .run_op = device_run_op,
    .save_rows = device_save_rows,
    .load_rows = device_load_rows,
    .move_rows = device_move_rows,
    .collect = device_collect,
    .copy_pages = gpu_copy_pages,
    .await_copy = gpu_await_copy,
    .copies_done = gpu_copies_done,
    .read_logits = device_read_logits,
    .read_stats = device_read_stats,
    .now_us = device_now_us,
};
