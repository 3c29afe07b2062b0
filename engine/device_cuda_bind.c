/* What the kernels must know of a batch, as one block of memory: put together in pinned memory, copied once. Several binds
 * may be under way: each has a block of its own on the host until its copy is done; on the GPU the queue's order is enough.
 */
#include <string.h>

#include "engine/device_cuda.h"

/* A block that grows on the host, and where the same bytes will be on the GPU. */
typedef struct {
    char    *host, *gpu;
    uint64_t used, most;
} block;

/* Room for n values of `bytes`; *at: on the GPU. */
static void *room(block *b, uint64_t n, uint64_t bytes, const void **at) {
    const uint64_t begin = (b->used + 15) / 16 * 16;
    check(begin + n * bytes <= b->most);
    b->used = begin + n * bytes;
    *at = b->gpu + begin;
    return b->host + begin;
}

static void put_rows(device *d, block *b) {
    const void *at[3];
    uint32_t   *tokens = room(b, d->row_count, 4, &at[0]), *positions = room(b, d->row_count, 4, &at[1]);
    uint32_t   *run_of_row = room(b, d->row_count, 4, &at[2]);
    for (uint32_t r = 0; r < d->run_count; r++) {
        const batch_run *run = &d->runs[r];
        memcpy(tokens + run->row_begin, run->tokens, run->row_count * sizeof *tokens);
        for (uint32_t i = 0; i < run->row_count; i++)
            positions[run->row_begin + i] = run->position_begin + i, run_of_row[run->row_begin + i] = r;
    }
    d->batch.tokens = at[0], d->batch.positions = at[1], d->batch.run_of_row = at[2];
}

static int put_runs(device *d, block *b, error *err) {
    const void *at;
    cuda_run   *runs = room(b, d->run_count, sizeof *runs, &at);
    uint64_t    ids = 0;
    d->batch.runs = at;
    for (uint32_t r = 0; r < d->run_count; r++) {
        const batch_run *run = &d->runs[r];
        const uint32_t   end = run->position_begin + run->row_count;
        runs[r] = (cuda_run){run->row_begin, run->row_count, run->position_begin, (uint32_t)ids};
        ids += (end + d->config.page_tokens - 1) / d->config.page_tokens;
    }
    if (ids > d->sizes.page_ids_max)
        return error_set(err, ERR_DEVICE, "the runs of a batch name %llu pages, and there is room for %u",
                         (unsigned long long)ids, d->sizes.page_ids_max);
    uint32_t *page_ids = room(b, ids, sizeof *page_ids, &at);
    d->batch.page_ids = at;
    for (uint32_t r = 0; r < d->run_count; r++) {
        const uint64_t end = r + 1 < d->run_count ? runs[r + 1].page_begin : ids;
        memcpy(page_ids + runs[r].page_begin, d->runs[r].pages, (end - runs[r].page_begin) * sizeof *page_ids);
    }
    memcpy(d->host_runs, runs, d->run_count * sizeof *runs);
    return OK;
}

static void put_outputs(device *d, block *b) {
    const void *at;
    uint32_t   *rows = room(b, d->output_count, sizeof *rows, &at);
    for (uint32_t i = 0; i < d->output_count; i++) rows[i] = d->outputs[i].row;
    d->batch.output_rows = at;
}

/* Which tiles of which rows the attention kernels walk, for layers of each window. */
static void put_attention(device *d, block *b) {
    for (uint32_t i = 0; i < d->sizes.window_count; i++) {
        gpu_window          *w = &d->windows[i];
        cuda_attention_plan *p = &w->plan;
        const void          *at;
        if (!d->cuda->attention_has_tiles(&w->facts)) continue;
        check(d->cuda->attention_make(p, &w->facts, d->host_runs, d->run_count));
        for (int kind = 0; kind < 2; kind++) {
            memcpy(room(b, p->item_count[kind], sizeof *p->items[kind], &at), p->items[kind],
                   p->item_count[kind] * sizeof *p->items[kind]);
            w->items[kind] = at;
        }
        memcpy(room(b, p->merge_count, sizeof *p->merges, &at), p->merges, p->merge_count * sizeof *p->merges);
        w->merges = at;
    }
}

int gpu_bind(device *d, const batch *in, error *err) {
    const int slot = (int)(d->binds % BINDS_AHEAD);
    block     b = {d->host.bound[slot], d->work.bound, 0, d->sizes.bound_bytes};
    char      why[256];
    int       status = device_check_batch(&d->config, in, err);
    if (status != OK) return status;
    if (d->binds >= BINDS_AHEAD && !d->cuda->event_wait(d->bound[slot], why, sizeof why))
        return error_set(err, ERR_DEVICE, "the GPU failed: %s", why);
    d->row_count = in->row_count, d->run_count = in->run_count, d->output_count = in->output_count;
    d->runs = in->runs, d->outputs = in->outputs;
    d->grouped = 0;
    d->batch = (cuda_batch){.row_count = in->row_count, .run_count = in->run_count, .output_count = in->output_count};
    put_rows(d, &b);
    if ((status = put_runs(d, &b, err)) != OK) return status;
    put_outputs(d, &b);
    put_attention(d, &b);
    d->cuda->copy(d->queue, d->work.bound, b.host, b.used);
    d->cuda->event_record(d->queue, d->bound[slot]);
    d->binds++;
    return OK;
}
