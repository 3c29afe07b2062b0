/* Sizes of everything the CUDA device takes, computed once for the memory plan and for opening, so that they agree. */
#include "engine/device_cuda.h"

enum {
    ALIGNMENT = 256,
    LOADING_BYTES = 16 << 20,
    FEW_ITEMS = 8192,
    MERGES = 2048,
    PARTIALS = 16384, /* partial rows: runs that find no room left are computed in one pass */
    SAMPLE_SLOTS = 64,
    SAMPLE_IDS = 1 << 20 /* of histories and lists of one launch */
};

static uint64_t round_up(uint64_t n, uint64_t to) { return (n + to - 1) / to * to; }
static uint64_t larger(uint64_t a, uint64_t b) { return a > b ? a : b; }

int gpu_sizes_check(const model_facts *f, const device_config *c, error *err) {
    if (c->page_tokens == 0 || c->page_tokens % 16)
        return error_set(err, ERR_INVALID, "KV pages of %u tokens: the cuda device needs a multiple of 16", c->page_tokens);
    if (f->head_dim == 0 || f->head_dim % 2 || f->head_dim > CUDA_HEAD_DIM_MAX)
        return error_set(err, ERR_UNSUPPORTED, "head dimension %u: the cuda device supports even ones up to %d", f->head_dim,
                         CUDA_HEAD_DIM_MAX);
    if (f->kv_head_count == 0 || f->head_count % f->kv_head_count)
        return error_set(err, ERR_UNSUPPORTED, "%u query heads on %u key heads: not something the cuda device does",
                         f->head_count, f->kv_head_count);
    if (f->expert_count > CUDA_EXPERTS_MAX || f->experts_per_token > f->expert_count)
        return error_set(err, ERR_UNSUPPORTED, "%u of %u experts a token: the cuda device supports up to %d experts",
                         f->experts_per_token, f->expert_count, CUDA_EXPERTS_MAX);
    if (f->width > CUDA_NORM_WIDTH_MAX)
        return error_set(err, ERR_UNSUPPORTED, "a width of %u: the cuda device supports up to %d", f->width,
                         CUDA_NORM_WIDTH_MAX);
    if (c->rows_max == 0 || c->outputs_max == 0)
        return error_set(err, ERR_INVALID, "batches of %u rows and %u outputs: there must be at least 1 of each",
                         c->rows_max, c->outputs_max);
    uint32_t windows[WINDOWS_MAX], count = 0;
    for (uint32_t layer = 0; layer < f->layer_count; layer++) {
        uint32_t i = 0;
        while (i < count && windows[i] != f->sliding_window[layer]) i++;
        if (i < count) continue;
        if (count == WINDOWS_MAX)
            return error_set(err, ERR_UNSUPPORTED, "layers of more than %d different sliding windows", WINDOWS_MAX);
        windows[count++] = f->sliding_window[layer];
    }
    return OK;
}

cuda_pages gpu_pages_of(const model_facts *f, const device_config *c) {
    return cuda_pages_make(program_activation(f), f->layer_count, f->kv_head_count, f->head_dim, c->page_tokens);
}

static void find_windows(gpu_sizes *s, const model_facts *f) {
    for (uint32_t layer = 0; layer < f->layer_count; layer++) {
        uint32_t i = 0;
        while (i < s->window_count && s->windows[i] != f->sliding_window[layer]) i++;
        if (i == s->window_count) s->windows[s->window_count++] = f->sliding_window[layer];
    }
}

static cuda_attention_facts attention_facts(const model_facts *f) {
    return (cuda_attention_facts){program_activation(f), f->head_count, f->kv_head_count, f->head_dim, 0};
}

/* A batch's tables at their longest. Page lists: each running sequence's whole context, twice, as several slices of one
 * sequence may be in a batch. */
static void size_tables(gpu_sizes *s, const cuda_object *o, const model_facts *f, const device_config *c) {
    const cuda_attention_facts a = attention_facts(f);
    const uint64_t             pages = c->context_max / c->page_tokens + 1, ids = 2 * pages * c->outputs_max;
    s->page_ids_max = ids < UINT32_MAX ? (uint32_t)ids : UINT32_MAX;
    if (o->attention_has_tiles(&a)) {
        s->few_items_max = FEW_ITEMS, s->merges_max = MERGES, s->partials_max = PARTIALS;
        s->many_items_max = o->attention_many_max(&a, c->rows_max, c->rows_max) + FEW_ITEMS;
    }
    const uint64_t lists = (s->few_items_max + (uint64_t)s->many_items_max) * sizeof(cuda_attention_item) +
                           s->merges_max * sizeof(cuda_attention_merge) + 3 * ALIGNMENT;
    s->bound_bytes = round_up(c->rows_max * (3 * 4 + sizeof(cuda_run)) + ids * 4 + c->outputs_max * 4 + 6 * ALIGNMENT +
                                  s->window_count * lists,
                              ALIGNMENT);
    s->sample_slots = c->outputs_max < SAMPLE_SLOTS ? c->outputs_max : SAMPLE_SLOTS;
    s->sample_values_max = LOGIT_BIAS_MAX * 16;
    s->sample_ids_max = (uint32_t)larger(SAMPLE_IDS, c->context_max + LOGIT_BIAS_MAX + BANNED_MAX);
}

gpu_sizes gpu_sizes_of(const cuda_object *o, const model_facts *f, const program *p, const device_config *c) {
    const uint32_t size = (uint32_t)dtype_bytes(p->activation);
    gpu_sizes      s = {.logits_stride = round_up(f->vocab_size * 4, 16)};
    gpu_weights    w;
    gpu_workspace  work;
    gpu_pinned     host;
    s.part_stride = round_up(f->width * 4, 16);
    s.router_stride = round_up(f->expert_count * 4, 16);
    s.slot_bytes = (uint32_t)round_up(f->expert_width * size, 16);
    s.k_begin = (uint32_t)round_up(f->head_count * f->head_dim, 8);
    s.v_begin = s.k_begin + (uint32_t)round_up(f->kv_head_count * f->head_dim, 8);
    s.qkv_outputs = s.v_begin + (uint32_t)round_up(f->kv_head_count * f->head_dim, 8);
    find_windows(&s, f);
    size_tables(&s, o, f, c);
    gpu_weights_list(&w, f);
    s.weights = gpu_weights_place(&w, NULL);
    s.loading_bytes = LOADING_BYTES;
    for (uint32_t i = 0; i < w.matrix_count; i++) {
        const cuda_matrix *m = w.matrices[i].m;
        const cuda_matrix  block = cuda_matrix_make(m->type, m->in_blocks, BLOCK_OUTPUTS, m->k);
        s.loading_bytes = larger(s.loading_bytes, block.each_bytes);
    }
    gpu_weights_free(&w);
    s.pages = c->page_count * (uint64_t)gpu_pages_of(f, c).page_stride;
    s.host_pages = c->host_pages * (uint64_t)gpu_pages_of(f, c).page_stride;
    s.rows = gpu_place_rows(&work, NULL, f, p, c, &s);
    for (uint32_t i = 0; i <= p->op_count; i++) {
        uint32_t bytes = 0;
        for (int b = 0; b < ROW_BUFFER_COUNT; b++)
            if (p->live[i] >> b & 1) bytes += work.rows[b].bytes;
        s.frame_row_bytes = (uint32_t)larger(s.frame_row_bytes, bytes);
    }
    s.frames = (uint64_t)c->frame_count * c->frame_rows * s.frame_row_bytes;
    s.workspace = gpu_place_workspace(&work, NULL, o, f, c, &s);
    s.pinned = gpu_place_pinned(&host, NULL, c, &s);
    return s;
}

/* ---- placing ---- */

typedef struct {
    char    *memory;
    uint64_t used;
} placing;

static void *place(placing *at, uint64_t count, uint64_t bytes) {
    void *here = at->memory ? at->memory + at->used : NULL;
    at->used += round_up(count * bytes, ALIGNMENT);
    return here;
}

uint64_t gpu_place_rows(gpu_workspace *w, char *memory, const model_facts *f, const program *p, const device_config *c,
                        const gpu_sizes *s) {
    placing        at = {memory, 0};
    const uint32_t size = (uint32_t)dtype_bytes(p->activation);
    for (int b = 0; b < ROW_BUFFER_COUNT; b++) {
        uint32_t bytes = (uint32_t)round_up(p->row_bytes[b], 16);
        if (b == ROW_F) bytes = (uint32_t)larger(round_up(f->ffn_width * size, 16), f->experts_per_token * s->slot_bytes);
        if (b == ROW_K || b == ROW_V) { /* beside the queries, as the product writes them */
            w->rows[b] = w->rows[ROW_Q];
            if (memory) w->rows[b].base += (b == ROW_K ? s->k_begin : s->v_begin) * size;
            w->rows[b].bytes = bytes;
            continue;
        }
        const size_t stride = b == ROW_Q ? s->qkv_outputs * size : bytes;
        w->rows[b] = (gpu_rows){place(&at, c->rows_max, stride), stride, bytes};
    }
    return at.used;
}

uint64_t gpu_place_workspace(gpu_workspace *w, char *memory, const cuda_object *o, const model_facts *f,
                             const device_config *c, const gpu_sizes *s) {
    placing                    at = {memory, 0};
    const uint64_t             rows = c->rows_max, outputs = c->outputs_max, entries = rows * f->experts_per_token;
    const cuda_attention_facts a = attention_facts(f);
    w->logits = place(&at, outputs, s->logits_stride);
    w->router_logits = place(&at, rows, s->router_stride);
    w->shared_logits = place(&at, f->shared_gate ? rows : 0, sizeof(float));
    w->expert_parts = place(&at, entries, s->part_stride);
    w->rotation = place(&at, (uint64_t)c->context_max * f->head_dim, sizeof(float));
    w->groups = (cuda_groups){.experts = f->expert_count, .chosen = f->experts_per_token};
    w->groups.begin = place(&at, f->expert_count + 1, sizeof *w->groups.begin);
    w->groups.entry = place(&at, entries, sizeof *w->groups.entry);
    w->groups.few = place(&at, o->few_tiles_max(c->rows_max, f->experts_per_token, f->expert_count), sizeof(cuda_tile));
    w->groups.many = place(&at, o->many_tiles_max(c->rows_max, f->experts_per_token, f->expert_count), sizeof(cuda_tile));
    w->groups.counts = place(&at, 1, sizeof *w->groups.counts);
    w->bound = place(&at, 1, s->bound_bytes);
    w->partials = place(&at, 1, s->partials_max ? o->attention_partial_bytes(&a, s->partials_max) : 0);
    w->sample_rows = place(&at, outputs, sizeof *w->sample_rows);
    w->sample_ids = place(&at, s->sample_ids_max, sizeof *w->sample_ids);
    w->sample_values = place(&at, s->sample_values_max, sizeof *w->sample_values);
    w->sample_work = place(&at, s->sample_slots, o->sample_work_bytes(f->vocab_size));
    w->results = place(&at, outputs, sizeof *w->results);
    return at.used;
}

uint64_t gpu_place_pinned(gpu_pinned *h, char *memory, const device_config *c, const gpu_sizes *s) {
    placing at = {memory, 0};
    for (int i = 0; i < BINDS_AHEAD; i++) h->bound[i] = place(&at, 1, s->bound_bytes);
    h->sample_rows = place(&at, c->outputs_max, sizeof *h->sample_rows);
    h->sample_ids = place(&at, s->sample_ids_max, sizeof *h->sample_ids);
    h->sample_values = place(&at, s->sample_values_max, sizeof *h->sample_values);
    h->results = place(&at, c->outputs_max, sizeof *h->results);
    h->counts = place(&at, 1, sizeof *h->counts);
    return at.used;
}
