/* The matrices of a model, as lists of checkpoint tensors; and packing them into panels, in parallel, a group of tensors at
 * a time so that the mapped file need not stay in memory beside the packed copy. */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "engine/device_cpu.h"
#include "kernels/half.h"

#define NO_ROLE ROLE_COUNT
static const uint64_t GROUP_BYTES = 64 << 20;

/* ---- the lists ---- */

static void add_matrix(model_weights *w, matrix_item item, matrix shape) {
    *item.m = shape;
    w->matrices[w->matrix_count++] = item;
}

static matrix shape_of(const model_facts *f, uint32_t k, part_order order, const uint32_t *rows, uint32_t parts) {
    matrix m = {.type = f->weights, .k = k, .order = order, .part_count = parts};
    for (uint32_t i = 0; i < parts; i++) m.parts[i].rows = rows[i];
    return m;
}
static matrix single(const model_facts *f, uint32_t rows, uint32_t k) { return shape_of(f, k, PARTS_IN_TURN, &rows, 1); }
static matrix gate_up(const model_facts *f, uint32_t width) {
    return shape_of(f, f->width, PARTS_INTERLEAVED, (uint32_t[]){width, width}, 2);
}

static void add_vector(model_weights *w, vector_item item) { w->vectors[w->vector_count++] = item; }
static void add_norm(model_weights *w, float **to, tensor_role role, uint32_t layer, uint32_t count) {
    add_vector(w, (vector_item){to, layer, count, {role, NO_ROLE, NO_ROLE}, NULL});
}
static void add_bias(model_weights *w, float **to, uint32_t layer, const matrix *m, const tensor_role *roles) {
    vector_item item = {to, layer, matrix_panels(m) * PANEL_COLS, {NO_ROLE, NO_ROLE, NO_ROLE}, m};
    memcpy(item.roles, roles, m->part_count * sizeof *roles);
    add_vector(w, item);
}

static void list_attention(model_weights *w, const model_facts *f, uint32_t layer) {
    layer_weights *l = &w->layers[layer];
    uint32_t       q = f->head_count * f->head_dim, kv = f->kv_head_count * f->head_dim;
    bool           full = f->qk_norm == QK_NORM_FULL;
    add_matrix(w, (matrix_item){&l->qkv, layer, 0, {ROLE_Q, ROLE_K, ROLE_V}},
               shape_of(f, f->width, PARTS_IN_TURN, (uint32_t[]){q, kv, kv}, 3));
    add_matrix(w, (matrix_item){&l->attn_out, layer, 0, {ROLE_O, NO_ROLE, NO_ROLE}}, single(f, f->width, q));
    add_norm(w, &l->attn_norm, ROLE_ATTN_NORM, layer, f->width);
    add_norm(w, &l->ffn_norm, ROLE_FFN_NORM, layer, f->width);
    if (f->qk_norm != QK_NORM_NONE) {
        add_norm(w, &l->q_norm, ROLE_Q_NORM, layer, full ? q : f->head_dim);
        add_norm(w, &l->k_norm, ROLE_K_NORM, layer, full ? kv : f->head_dim);
    }
    if (f->qkv_bias) add_bias(w, &l->qkv_bias, layer, &l->qkv, (tensor_role[]){ROLE_Q_BIAS, ROLE_K_BIAS, ROLE_V_BIAS});
    if (f->out_bias) add_bias(w, &l->attn_out_bias, layer, &l->attn_out, (tensor_role[]){ROLE_O_BIAS});
}

static void list_dense(model_weights *w, const model_facts *f, uint32_t layer) {
    layer_weights *l = &w->layers[layer];
    add_matrix(w, (matrix_item){&l->gate_up, layer, 0, {ROLE_GATE, ROLE_UP, NO_ROLE}}, gate_up(f, f->ffn_width));
    add_matrix(w, (matrix_item){&l->down, layer, 0, {ROLE_DOWN, NO_ROLE, NO_ROLE}}, single(f, f->width, f->ffn_width));
    if (!f->mlp_bias) return;
    add_bias(w, &l->gate_up_bias, layer, &l->gate_up, (tensor_role[]){ROLE_GATE_BIAS, ROLE_UP_BIAS});
    add_bias(w, &l->down_bias, layer, &l->down, (tensor_role[]){ROLE_DOWN_BIAS});
}

static void list_experts(model_weights *w, const model_facts *f, uint32_t layer) {
    layer_weights *l = &w->layers[layer];
    l->expert_gate_up = calloc(f->expert_count, sizeof *l->expert_gate_up);
    l->expert_down = calloc(f->expert_count, sizeof *l->expert_down);
    if (!l->expert_gate_up || !l->expert_down) fatal("no memory for %u experts", f->expert_count);
    add_matrix(w, (matrix_item){&l->router, layer, 0, {ROLE_ROUTER, NO_ROLE, NO_ROLE}},
               single(f, f->expert_count, f->width));
    for (uint32_t e = 0; e < f->expert_count; e++) {
        add_matrix(w, (matrix_item){&l->expert_gate_up[e], layer, e, {ROLE_EXPERT_GATE, ROLE_EXPERT_UP, NO_ROLE}},
                   gate_up(f, f->expert_width));
        add_matrix(w, (matrix_item){&l->expert_down[e], layer, e, {ROLE_EXPERT_DOWN, NO_ROLE, NO_ROLE}},
                   single(f, f->width, f->expert_width));
    }
    if (!f->shared_width) return;
    add_matrix(w, (matrix_item){&l->shared_gate_up, layer, 0, {ROLE_SHARED_GATE, ROLE_SHARED_UP, NO_ROLE}},
               gate_up(f, f->shared_width));
    add_matrix(w, (matrix_item){&l->shared_down, layer, 0, {ROLE_SHARED_DOWN, NO_ROLE, NO_ROLE}},
               single(f, f->width, f->shared_width));
    if (f->shared_gate)
        add_matrix(w, (matrix_item){&l->shared_router, layer, 0, {ROLE_SHARED_ROUTER, NO_ROLE, NO_ROLE}},
                   single(f, 1, f->width));
}

void weights_list(model_weights *w, const model_facts *f) {
    *w = (model_weights){.tied = f->tied_embeddings};
    size_t matrices = 1 + (size_t)f->layer_count * (8 + 2 * (size_t)f->expert_count),
           vectors = 1 + 8 * (size_t)f->layer_count;
    w->layers = calloc(f->layer_count, sizeof *w->layers);
    w->matrices = calloc(matrices, sizeof *w->matrices);
    w->vectors = calloc(vectors, sizeof *w->vectors);
    if (!w->layers || !w->matrices || !w->vectors) fatal("no memory for the list of weights");
    for (uint32_t i = 0; i < f->layer_count; i++) {
        list_attention(w, f, i);
        if (f->is_moe_layer[i]) list_experts(w, f, i);
        else list_dense(w, f, i);
    }
    add_norm(w, &w->final_norm, ROLE_FINAL_NORM, 0, f->width);
    add_matrix(w, (matrix_item){&w->lm_head, 0, 0, {ROLE_LM_HEAD, NO_ROLE, NO_ROLE}}, single(f, f->vocab_size, f->width));
}

void weights_free(model_weights *w) {
    for (uint32_t i = 0; i < w->matrix_count; i++) {
        if (w->matrices[i].roles[0] != ROLE_ROUTER) continue;
        layer_weights *l = &w->layers[w->matrices[i].layer];
        free(l->expert_gate_up);
        free(l->expert_down);
    }
    free(w->layers);
    free(w->matrices);
    free(w->vectors);
    *w = (model_weights){0};
}

static uint64_t padded(uint64_t bytes) { return (bytes + 63) / 64 * 64; }

uint64_t weights_bytes(const model_weights *w, bool map_weights) {
    uint64_t total = 0;
    for (uint32_t i = 0; i < w->vector_count; i++) total += padded(w->vectors[i].count * sizeof(float));
    for (uint32_t i = 0; i < w->matrix_count && !map_weights; i++) total += padded(matrix_bytes(w->matrices[i].m));
    return total;
}

/* ---- reading rows ---- */

static float element(const tensor *t, const char *row, size_t i) {
    const char *p = row + i * dtype_bytes(t->type);
    uint16_t    h;
    float       f;
    if (t->type == DTYPE_F32) return memcpy(&f, p, 4), f;
    memcpy(&h, p, 2);
    return t->type == DTYPE_BF16 ? bf16_to_f32(h) : f16_to_f32(h);
}

static void store_element(dtype type, char *to, float v) {
    uint16_t h = type == DTYPE_BF16 ? f32_to_bf16(v) : f32_to_f16(v);
    if (type == DTYPE_F32) memcpy(to, &v, 4);
    else memcpy(to, &h, 2);
}

/* The row's bytes where they are, or drawn into work (cols values of the tensor's type). */
static const char *tensor_row(const tensor *t, uint32_t row, void *work) {
    if (t->data) return (const char *)t->data + (size_t)row * t->cols * dtype_bytes(t->type);
    tensor_random_row(t, row, work);
    return work;
}

typedef struct {
    const matrix *m;
    tensor        parts[MATRIX_PARTS_MAX];
} packing;

static const void *read_row(void *context, uint32_t part, uint32_t row, void *work) {
    const packing *p = context;
    const tensor  *t = &p->parts[part];
    if (t->type == p->m->type) return tensor_row(t, row, work);
    float *own = malloc((size_t)t->cols * sizeof(float)); /* a tensor of another type than the rest: rare */
    if (!own) fatal("no memory for a row of %u values", t->cols);
    const char *values = tensor_row(t, row, own);
    for (uint32_t i = 0; i < t->cols; i++)
        store_element(p->m->type, (char *)work + i * dtype_bytes(p->m->type), element(t, values, i));
    free(own);
    return work;
}

/* ---- packing ---- */

typedef struct {
    cpu      *c;
    packing  *items; /* of this group */
    uint32_t *panel_begin;
    uint32_t  count;
    char     *work; /* per thread */
    size_t    work_bytes;
} pack_job;

static void pack_panel(void *context, uint32_t panel, uint32_t worker) {
    const pack_job *j = context;
    uint32_t        low = 0, high = j->count;
    while (high - low > 1) {
        uint32_t middle = (low + high) / 2;
        if (j->panel_begin[middle] <= panel) low = middle;
        else high = middle;
    }
    uint32_t p = panel - j->panel_begin[low];
    cpu_pack_panels(j->c, j->items[low].m, p, p + 1, read_row, &j->items[low], j->work + worker * j->work_bytes);
}

static packing packing_of(const matrix_item *item, const checkpoint *ckpt) {
    packing p = {.m = item->m};
    for (uint32_t i = 0; i < item->m->part_count; i++) {
        p.parts[i] = checkpoint_tensor(ckpt, item->roles[i], item->layer, item->expert);
        check(p.parts[i].rows == item->m->parts[i].rows && p.parts[i].cols == item->m->k);
    }
    return p;
}

static bool can_stay_mapped(const packing *p) {
    for (uint32_t i = 0; i < p->m->part_count; i++)
        if (!p->parts[i].data || p->parts[i].type != p->m->type) return false;
    return true;
}

typedef struct {
    model_weights       *w;
    const checkpoint    *ckpt;
    const device_config *config;
    cpu                 *c;
    pack_job             job;
    char                *next; /* free memory */
    uint64_t             done_bytes, total_bytes;
} loading;

static void report(loading *l) {
    if (l->config->progress) l->config->progress(l->config->progress_context, "weights", l->done_bytes, l->total_bytes);
}

static void for_tensors(const pack_job *j, const checkpoint *ckpt, void (*tell)(const checkpoint *, const tensor *)) {
    for (uint32_t i = 0; i < j->count; i++)
        for (uint32_t k = 0; k < j->items[i].m->part_count; k++)
            if (j->items[i].parts[k].data) tell(ckpt, &j->items[i].parts[k]);
}

static void pack_group(loading *l) {
    pack_job *j = &l->job;
    if (j->count == 0) return;
    for_tensors(j, l->ckpt, checkpoint_will_read);
    pool_run(l->c->pool, j->panel_begin[j->count], pack_panel, j);
    for_tensors(j, l->ckpt, checkpoint_was_read);
    j->count = 0;
    report(l);
}

static int map_matrix(const packing *p, matrix *m, error *err) {
    if (!can_stay_mapped(p))
        return error_set(err, ERR_UNSUPPORTED,
                         "these weights cannot stay mapped: they are drawn from a seed or of more than one type; leave out "
                         "--map-weights");
    for (uint32_t k = 0; k < m->part_count; k++) m->parts[k].data = p->parts[k].data;
    return OK;
}

static int load_matrices(loading *l, error *err) {
    pack_job *j = &l->job;
    uint64_t  group_bytes = 0;
    for (uint32_t i = 0; i < l->w->matrix_count; i++) {
        matrix *m = l->w->matrices[i].m;
        packing p = packing_of(&l->w->matrices[i], l->ckpt);
        if (l->config->map_weights) {
            int status = map_matrix(&p, m, err);
            if (status != OK) return status;
            continue;
        }
        m->data = l->next;
        l->next += padded(matrix_bytes(m));
        if (j->count == 0) j->panel_begin[0] = 0;
        j->items[j->count++] = p;
        j->panel_begin[j->count] = j->panel_begin[j->count - 1] + matrix_panels(m);
        l->done_bytes += matrix_bytes(m), group_bytes += matrix_bytes(m);
        if (group_bytes < GROUP_BYTES) continue;
        pack_group(l);
        group_bytes = 0;
    }
    pack_group(l);
    return OK;
}

static void load_vector(loading *l, const vector_item *v) {
    float *to = (void *)l->next;
    *v->to = to;
    l->next += padded(v->count * sizeof *to);
    for (uint32_t part = 0; part < MATRIX_PARTS_MAX && v->roles[part] != NO_ROLE; part++) {
        tensor t = checkpoint_tensor(l->ckpt, v->roles[part], v->layer, 0);
        float *work = malloc((size_t)t.cols * sizeof *work);
        if (!work) fatal("no memory for a vector of %u values", t.cols);
        const char *values = tensor_row(&t, 0, work);
        for (uint32_t i = 0; i < v->count; i++) {
            matrix_source at = {part, i};
            if (v->columns && !matrix_column_source(v->columns, i / PANEL_COLS, i % PANEL_COLS, &at)) continue;
            if (at.part == part && at.row < t.cols) to[i] = element(&t, values, at.row);
        }
        free(work);
    }
}

int weights_load(model_weights *w, const checkpoint *ckpt, cpu *c, const device_config *config, char *memory, error *err) {
    loading l = {.w = w,
                 .ckpt = ckpt,
                 .config = config,
                 .c = c,
                 .next = memory,
                 .total_bytes = weights_bytes(w, config->map_weights)};
    l.job.c = c;
    l.job.items = malloc(w->matrix_count * sizeof *l.job.items);
    l.job.panel_begin = malloc((w->matrix_count + 1) * sizeof *l.job.panel_begin);
    for (uint32_t i = 0; i < w->matrix_count; i++) {
        size_t bytes = (cpu_pack_work_bytes(w->matrices[i].m) + 63) / 64 * 64;
        if (bytes > l.job.work_bytes) l.job.work_bytes = bytes;
    }
    l.job.work = aligned_alloc(64, l.job.work_bytes * pool_threads(c->pool));
    if (!l.job.items || !l.job.panel_begin || !l.job.work) fatal("no memory to pack weights");
    for (uint32_t i = 0; i < w->vector_count; i++) load_vector(&l, &w->vectors[i]);
    int status = load_matrices(&l, err);
    if (!w->tied) w->embedding = checkpoint_tensor(ckpt, ROLE_EMBED, 0, 0);
    free(l.job.items);
    free(l.job.panel_begin);
    free(l.job.work);
    return status;
}
