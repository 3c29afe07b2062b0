/* The matrices of a model as lists of checkpoint tensors; and bringing them to the GPU, some outputs at a time: all threads
 * put rows into one pinned stage while the other is being copied. Experts are repacked into blocks on the way
 * (kernels/cuda/blocks.h); random weights are drawn on the host, which is slow for large shapes. */
#include "engine/device_cuda.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/half.h"

/* ---- the lists ---- */

static gpu_parts one_part(tensor_role role, uint32_t rows) {
    return (gpu_parts){.roles = {role}, .rows = {rows}, .part_count = 1};
}
static gpu_parts gate_up_parts(tensor_role gate, tensor_role up, uint32_t width) {
    return (gpu_parts){.roles = {gate, up}, .rows = {width, width}, .part_count = 2, .is_gate_up = true};
}
static gpu_parts qkv_parts(const model_facts *f, tensor_role q, tensor_role k, tensor_role v) {
    const uint32_t q_rows = f->head_count * f->head_dim, kv_rows = f->kv_head_count * f->head_dim;
    const uint32_t k_begin = (q_rows + 7) / 8 * 8;
    return (gpu_parts){.roles = {q, k, v},
                       .begin = {0, k_begin, k_begin + (kv_rows + 7) / 8 * 8},
                       .rows = {q_rows, kv_rows, kv_rows},
                       .part_count = 3};
}
static uint32_t outputs_of(const gpu_parts *p) {
    if (p->is_gate_up) return gate_up_rows(p->rows[0]);
    const uint32_t last = p->part_count - 1;
    return p->part_count == 1 ? p->rows[0] : p->begin[last] + (p->rows[last] + 7) / 8 * 8;
}

static void add_matrix(gpu_weights *w, const model_facts *f, cuda_matrix *m, uint32_t layer, uint32_t experts, uint32_t k,
                       gpu_parts parts) {
    *m = cuda_matrix_make(f->weights, experts > 0, outputs_of(&parts), k);
    w->matrices[w->matrix_count++] = (gpu_matrix_item){m, layer, experts ? experts : 1, parts};
}
static void add_vector(gpu_weights *w, float **to, uint32_t layer, uint32_t count, gpu_parts parts) {
    w->vectors[w->vector_count++] = (gpu_vector_item){to, layer, count, parts};
}
static void add_norm(gpu_weights *w, float **to, uint32_t layer, tensor_role role, uint32_t count) {
    add_vector(w, to, layer, count, one_part(role, count));
}
/* As many as whole blocks of outputs, as products read it. */
static void add_bias(gpu_weights *w, float **to, uint32_t layer, gpu_parts parts) {
    add_vector(w, to, layer, (outputs_of(&parts) + BLOCK_OUTPUTS - 1) / BLOCK_OUTPUTS * BLOCK_OUTPUTS, parts);
}

static void list_attention(gpu_weights *w, const model_facts *f, uint32_t layer) {
    gpu_layer     *l = &w->layers[layer];
    const uint32_t q = f->head_count * f->head_dim, kv = f->kv_head_count * f->head_dim;
    const bool     full = f->qk_norm == QK_NORM_FULL;
    add_matrix(w, f, &l->qkv, layer, 0, f->width, qkv_parts(f, ROLE_Q, ROLE_K, ROLE_V));
    add_matrix(w, f, &l->attn_out, layer, 0, q, one_part(ROLE_O, f->width));
    add_norm(w, &l->attn_norm, layer, ROLE_ATTN_NORM, f->width);
    add_norm(w, &l->ffn_norm, layer, ROLE_FFN_NORM, f->width);
    if (f->qk_norm != QK_NORM_NONE) {
        add_norm(w, &l->q_norm, layer, ROLE_Q_NORM, full ? q : f->head_dim);
        add_norm(w, &l->k_norm, layer, ROLE_K_NORM, full ? kv : f->head_dim);
    }
    if (f->qkv_bias) add_bias(w, &l->qkv_bias, layer, qkv_parts(f, ROLE_Q_BIAS, ROLE_K_BIAS, ROLE_V_BIAS));
    if (f->out_bias) add_bias(w, &l->attn_out_bias, layer, one_part(ROLE_O_BIAS, f->width));
}

static void list_dense(gpu_weights *w, const model_facts *f, uint32_t layer) {
    gpu_layer *l = &w->layers[layer];
    add_matrix(w, f, &l->gate_up, layer, 0, f->width, gate_up_parts(ROLE_GATE, ROLE_UP, f->ffn_width));
    add_matrix(w, f, &l->down, layer, 0, f->ffn_width, one_part(ROLE_DOWN, f->width));
    if (!f->mlp_bias) return;
    add_bias(w, &l->gate_up_bias, layer, gate_up_parts(ROLE_GATE_BIAS, ROLE_UP_BIAS, f->ffn_width));
    add_bias(w, &l->down_bias, layer, one_part(ROLE_DOWN_BIAS, f->width));
}

static void list_experts(gpu_weights *w, const model_facts *f, uint32_t layer) {
    gpu_layer *l = &w->layers[layer];
    add_matrix(w, f, &l->router, layer, 0, f->width, one_part(ROLE_ROUTER, f->expert_count));
    add_matrix(w, f, &l->expert_gate_up, layer, f->expert_count, f->width,
               gate_up_parts(ROLE_EXPERT_GATE, ROLE_EXPERT_UP, f->expert_width));
    add_matrix(w, f, &l->expert_down, layer, f->expert_count, f->expert_width, one_part(ROLE_EXPERT_DOWN, f->width));
    if (!f->shared_width) return;
    add_matrix(w, f, &l->shared_gate_up, layer, 0, f->width,
               gate_up_parts(ROLE_SHARED_GATE, ROLE_SHARED_UP, f->shared_width));
    add_matrix(w, f, &l->shared_down, layer, 0, f->shared_width, one_part(ROLE_SHARED_DOWN, f->width));
    if (f->shared_gate) add_matrix(w, f, &l->shared_router, layer, 0, f->width, one_part(ROLE_SHARED_ROUTER, 1));
}

void gpu_weights_list(gpu_weights *w, const model_facts *f) {
    *w = (gpu_weights){0};
    const size_t layers = f->layer_count;
    w->layers = calloc(layers, sizeof *w->layers);
    w->matrices = calloc(2 + 8 * layers, sizeof *w->matrices);
    w->vectors = calloc(1 + 8 * layers, sizeof *w->vectors);
    if (!w->layers || !w->matrices || !w->vectors) fatal("no memory for the list of weights");
    for (uint32_t i = 0; i < layers; i++) {
        list_attention(w, f, i);
        if (f->is_moe_layer[i]) list_experts(w, f, i);
        else list_dense(w, f, i);
    }
    add_norm(w, &w->final_norm, 0, ROLE_FINAL_NORM, f->width);
    add_matrix(w, f, &w->lm_head, 0, 0, f->width, one_part(ROLE_LM_HEAD, f->vocab_size));
    if (!f->tied_embeddings) add_matrix(w, f, &w->embedding, 0, 0, f->width, one_part(ROLE_EMBED, f->vocab_size));
}

void gpu_weights_free(gpu_weights *w) {
    free(w->layers);
    free(w->matrices);
    free(w->vectors);
    *w = (gpu_weights){0};
}

uint64_t gpu_weights_place(gpu_weights *w, char *memory) {
    uint64_t used = 0;
    for (uint32_t i = 0; i < w->vector_count; i++) {
        *w->vectors[i].to = memory ? (void *)(memory + used) : NULL;
        used += (w->vectors[i].count * sizeof(float) + 255) / 256 * 256;
    }
    for (uint32_t i = 0; i < w->matrix_count; i++) {
        w->matrices[i].m->data = memory ? memory + used : NULL;
        used += w->matrices[i].experts * (uint64_t)w->matrices[i].m->each_bytes;
    }
    return used;
}

/* ---- which row of which tensor ---- */

static bool source_of(const gpu_parts *p, uint32_t output, uint32_t *part, uint32_t *row) {
    if (p->is_gate_up) {
        *part = output / GATE_UP_GROUP % 2;
        *row = output / (2 * GATE_UP_GROUP) * GATE_UP_GROUP + output % GATE_UP_GROUP;
        return *row < p->rows[*part];
    }
    *part = 0;
    while (*part + 1 < p->part_count && output >= p->begin[*part + 1]) ++*part;
    *row = output - p->begin[*part];
    return *row < p->rows[*part];
}

/* The row in type `type`: where it is, or made in `work` (two rows of four bytes a value). */
static const void *row_as(const tensor *t, uint32_t row, dtype type, char *work) {
    const char *values = t->data ? (const char *)t->data + (size_t)row * t->cols * dtype_bytes(t->type) : NULL;
    char       *drawn = work + (size_t)t->cols * sizeof(float);
    if (!values) tensor_random_row(t, row, drawn), values = drawn;
    if (t->type == type) return values;
    for (uint32_t i = 0; i < t->cols; i++) value_store(type, work, i, value_load(t->type, values, i));
    return work;
}

/* ---- through two pinned stages ---- */

void gpu_upload(device *d, void *to, uint64_t count, uint64_t bytes, gpu_fill fill, void *context) {
    const cuda_object *o = d->cuda;
    const uint64_t     most = d->sizes.loading_bytes / bytes;
    char               why[256];
    for (uint64_t first = 0; first < count; first += most) {
        const uint64_t n = count - first < most ? count - first : most;
        const int      stage = (int)(d->uploads++ % STAGES_OF_LOADING);
        o->event_wait(d->loaded[stage], why, sizeof why); /* a failure stays for the wait at the end of loading */
        memset(d->host.loading[stage], 0, n * bytes);
        fill(context, first, n, d->host.loading[stage]);
        o->copy(d->queue, (char *)to + first * bytes, d->host.loading[stage], n * bytes);
        o->event_record(d->queue, d->loaded[stage]);
    }
}

typedef struct {
    pool              *threads;
    char              *work; /* for each thread */
    size_t             work_bytes;
    const cuda_matrix *m;
    const gpu_parts   *parts;
    tensor             tensors[PARTS_MAX];
    uint32_t           first, count; /* outputs of this stage, padding included */
    char              *to;
} filling;

enum { OUTPUTS_A_TASK = 16 };

static void fill_outputs(void *context, uint32_t task, uint32_t worker) {
    const filling *j = context;
    const uint32_t begin = task * OUTPUTS_A_TASK,
                   end = begin + OUTPUTS_A_TASK < j->count ? begin + OUTPUTS_A_TASK : j->count;
    const cuda_matrix piece = cuda_matrix_make(j->m->type, j->m->in_blocks, j->count, j->m->k);
    for (uint32_t i = begin; i < end; i++) {
        uint32_t part, row;
        if (j->first + i >= j->m->outputs || !source_of(j->parts, j->first + i, &part, &row)) continue;
        cuda_matrix_put_row(&piece, j->to, i, row_as(&j->tensors[part], row, j->m->type, j->work + worker * j->work_bytes));
    }
}

/* Units are what is one run of memory: 64 outputs of an expert's blocks, one of a dense matrix. */
static uint32_t unit_outputs(const cuda_matrix *m) { return m->in_blocks ? BLOCK_OUTPUTS : 1; }

static void fill_units(void *context, uint64_t first, uint64_t count, char *to) {
    filling *j = context;
    j->first = (uint32_t)first * unit_outputs(j->m), j->count = (uint32_t)count * unit_outputs(j->m), j->to = to;
    pool_run(j->threads, (j->count + OUTPUTS_A_TASK - 1) / OUTPUTS_A_TASK, fill_outputs, j);
}

static void tell(device *d, const filling *j, void (*what)(const checkpoint *, const tensor *)) {
    for (uint32_t i = 0; i < j->parts->part_count; i++)
        if (j->tensors[i].data) what(d->ckpt, &j->tensors[i]);
}

static void load_expert(device *d, const gpu_matrix_item *item, uint32_t expert, filling *j) {
    const cuda_matrix *m = item->m;
    const uint32_t     unit = unit_outputs(m);
    const cuda_blocks  b = cuda_blocks_make(m->type, unit, m->k);
    for (uint32_t i = 0; i < item->parts.part_count; i++) {
        j->tensors[i] = checkpoint_tensor(d->ckpt, item->parts.roles[i], item->layer, expert);
        check(j->tensors[i].rows == item->parts.rows[i] && j->tensors[i].cols == m->k);
    }
    tell(d, j, checkpoint_will_read);
    gpu_upload(d, (char *)(uintptr_t)m->data + expert * m->each_bytes, (m->outputs + unit - 1) / unit,
               m->in_blocks ? cuda_blocks_bytes(&b) : m->row_bytes, fill_units, j);
    tell(d, j, checkpoint_was_read);
}

/* ---- vectors ---- */

typedef struct {
    const gpu_vector_item *v;
    const checkpoint      *ckpt;
} vector_filling;

static void fill_vector(void *context, uint64_t first, uint64_t count, char *to) {
    const vector_filling  *j = context;
    const gpu_vector_item *v = j->v;
    float                 *out = (void *)to;
    for (uint32_t part = 0; part < v->parts.part_count; part++) {
        const tensor t = checkpoint_tensor(j->ckpt, v->parts.roles[part], v->layer, 0);
        char        *work = malloc((size_t)t.cols * 8); /* two floats for each */
        if (!work) fatal("no memory for a vector of %u values", t.cols);
        const float *values = row_as(&t, 0, DTYPE_F32, work);
        for (uint32_t i = 0; i < count; i++) {
            uint32_t from, row;
            if (source_of(&v->parts, (uint32_t)first + i, &from, &row) && from == part && row < t.cols)
                value_store(DTYPE_F32, out, i, value_load(DTYPE_F32, values, row));
        }
        free(work);
    }
}

/* ---- everything ---- */

static int take_stages(device *d, error *err) {
    for (int i = 0; i < STAGES_OF_LOADING; i++)
        if (!(d->host.loading[i] = d->cuda->take_host(d->sizes.loading_bytes)))
            return error_set(err, ERR_MEMORY, "the system gives no %.1f MiB of pinned memory to load weights through",
                             (double)d->sizes.loading_bytes / (1 << 20));
    return OK;
}

static void load_all(device *d, filling *j) {
    const device_config *c = &d->config;
    uint64_t             done = 0;
    for (uint32_t i = 0; i < d->weights.vector_count; i++)
        gpu_upload(d, *d->weights.vectors[i].to, d->weights.vectors[i].count, sizeof(float), fill_vector,
                   &(vector_filling){&d->weights.vectors[i], d->ckpt});
    for (uint32_t i = 0; i < d->weights.matrix_count; i++) {
        const gpu_matrix_item *item = &d->weights.matrices[i];
        j->m = item->m, j->parts = &item->parts;
        for (uint32_t e = 0; e < item->experts; e++) {
            load_expert(d, item, e, j);
            done += item->m->each_bytes;
        }
        if (c->progress) c->progress(c->progress_context, "weights", done, d->sizes.weights);
    }
}

int gpu_weights_load(device *d, error *err) {
    filling j = {.threads = pool_new(d->config.threads)};
    char    why[256];
    int     status = take_stages(d, err);
    for (uint32_t i = 0; i < d->weights.matrix_count; i++) {
        const size_t bytes = (size_t)d->weights.matrices[i].m->k * 2 * sizeof(float);
        if (bytes > j.work_bytes) j.work_bytes = bytes;
    }
    j.work = malloc(j.work_bytes * pool_threads(j.threads));
    if (!j.work) fatal("no memory to read weights");
    if (status == OK) load_all(d, &j);
    if (status == OK && !d->cuda->wait(d->queue, why, sizeof why))
        status = error_set(err, ERR_DEVICE, "the GPU failed while weights were copied to it: %s", why);
    pool_free(j.threads);
    free(j.work);
    return status;
}
