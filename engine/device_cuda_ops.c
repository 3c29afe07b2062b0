/* Operators of the forward program on the GPU: each builds its kernel's arguments and launches it. No arithmetic here. */
#include <string.h>

#include "engine/device_cuda.h"

static gpu_rows  *rows_of(device *d, row_buffer b) { return &d->work.rows[b]; }
static gpu_layer *layer_of(const device *d, uint32_t layer) { return &d->weights.layers[layer]; }

/* ---- products ---- */

static cuda_product_args product_of(device *d, const cuda_matrix *w, row_buffer from) {
    const gpu_rows *a = rows_of(d, from);
    return (cuda_product_args){.w = *w,
                               .rows = d->row_count,
                               .a = a->base,
                               .a_stride = a->stride,
                               .out_type = d->activation,
                               .out_width = w->outputs};
}
static void into(cuda_product_args *a, const gpu_rows *out) { a->out = out->base, a->out_stride = out->stride; }
static void multiply(device *d, const cuda_product_args *a) {
    d->cuda->product(d->queue, a);
    d->dense_bytes += a->w.each_bytes;
}

static void add_product(device *d, const cuda_matrix *w, row_buffer from, const float *bias) {
    cuda_product_args a = product_of(d, w, from);
    into(&a, rows_of(d, ROW_X));
    a.finish = PRODUCT_ADD, a.out_type = DTYPE_F32, a.bias = bias;
    multiply(d, &a);
}

static void logits_of(device *d, const cuda_matrix *w, float *out, size_t stride, uint32_t rows) {
    cuda_product_args a = product_of(d, w, ROW_H);
    a.rows = rows, a.out = out, a.out_stride = stride, a.out_type = DTYPE_F32;
    multiply(d, &a);
}

/* ---- embedding and norms ---- */

static void op_embed(device *d, uint32_t layer) {
    (void)layer;
    const cuda_matrix *table = d->facts->tied_embeddings ? &d->weights.lm_head : &d->weights.embedding;
    const gpu_rows    *x = rows_of(d, ROW_X);
    d->cuda->embed(d->queue, &(cuda_embed_args){.rows = d->row_count,
                                                .width = d->facts->width,
                                                .tokens = d->batch.tokens,
                                                .table = table->data,
                                                .table_type = table->type,
                                                .table_stride = table->row_bytes,
                                                .out = (float *)(void *)x->base,
                                                .out_stride = x->stride});
    d->stats.rows += d->row_count;
}

/* Row i of H from row i of X, or from x_row[i]. */
static void normalize(device *d, const float *weight, uint32_t rows, const uint32_t *x_row) {
    const gpu_rows *x = rows_of(d, ROW_X), *h = rows_of(d, ROW_H);
    d->cuda->norm(d->queue, &(cuda_norm_args){.rows = rows,
                                              .width = d->facts->width,
                                              .eps = d->facts->norm_eps,
                                              .weight = weight,
                                              .x = (float *)(void *)x->base,
                                              .x_row = x_row,
                                              .out = h->base,
                                              .x_stride = x->stride,
                                              .out_stride = h->stride,
                                              .out_type = d->activation});
}
static void op_attn_norm(device *d, uint32_t layer) { normalize(d, layer_of(d, layer)->attn_norm, d->row_count, NULL); }
static void op_ffn_norm(device *d, uint32_t layer) { normalize(d, layer_of(d, layer)->ffn_norm, d->row_count, NULL); }

/* ---- attention ---- */

static void op_qkv(device *d, uint32_t layer) {
    cuda_product_args a = product_of(d, &layer_of(d, layer)->qkv, ROW_H);
    into(&a, rows_of(d, ROW_Q));
    a.bias = layer_of(d, layer)->qkv_bias;
    multiply(d, &a);
}

static void op_rope_kv(device *d, uint32_t layer) {
    const gpu_layer   *l = layer_of(d, layer);
    const model_facts *f = d->facts;
    const gpu_rows    *q = rows_of(d, ROW_Q), *k = rows_of(d, ROW_K), *v = rows_of(d, ROW_V);
    d->cuda->rope(d->queue, &(cuda_rope_args){.layout = d->layout,
                                              .pages = d->page_memory,
                                              .layer = layer,
                                              .heads = f->head_count,
                                              .batch = d->batch,
                                              .q = q->base,
                                              .k = k->base,
                                              .v = v->base,
                                              .q_stride = q->stride,
                                              .k_stride = k->stride,
                                              .v_stride = v->stride,
                                              .rotation = d->work.rotation,
                                              .q_norm = l->q_norm,
                                              .k_norm = l->k_norm,
                                              .norm_full = f->qk_norm == QK_NORM_FULL,
                                              .norm_eps = f->norm_eps,
                                              .clip = f->qkv_clip});
}

static const double ATTENTION_FLOPS_MAX = 0.5e12; /* of one launch: well under a millisecond */

static gpu_window *window_of(device *d, uint32_t layer) {
    uint32_t i = 0;
    while (d->sizes.windows[i] != d->facts->sliding_window[layer]) i++;
    return &d->windows[i];
}

/* A kind's whole list, in launches that are not longer than a stop may wait. */
static void walk_items(device *d, const gpu_window *w, cuda_attention_args *a, cuda_attention_kind kind) {
    const cuda_attention_plan *p = &w->plan;
    a->kind = kind;
    for (a->begin = 0; a->begin < p->item_count[kind]; a->begin += a->count) {
        a->count = d->cuda->attention_within(&w->facts, p->items[kind], a->begin, p->item_count[kind], ATTENTION_FLOPS_MAX);
        d->cuda->attention(d->queue, a);
    }
}

static void op_attention(device *d, uint32_t layer) {
    const gpu_window   *w = window_of(d, layer);
    const gpu_rows     *q = rows_of(d, ROW_Q), *out = rows_of(d, ROW_A);
    cuda_attention_args a = {.layout = d->layout,
                             .pages = d->page_memory,
                             .layer = layer,
                             .heads = d->facts->head_count,
                             .window = w->facts.window,
                             .batch = d->batch,
                             .q = q->base,
                             .out = out->base,
                             .q_stride = q->stride,
                             .out_stride = out->stride,
                             .items = {w->items[0], w->items[1]},
                             .merges = w->merges,
                             .partials = d->work.partials};
    if (!d->cuda->attention_has_tiles(&w->facts)) {
        a.kind = ATTENTION_PLAIN, a.count = d->row_count;
        d->cuda->attention(d->queue, &a);
        return;
    }
    walk_items(d, w, &a, ATTENTION_MANY);
    walk_items(d, w, &a, ATTENTION_FEW);
    a.kind = ATTENTION_MERGE, a.begin = 0, a.count = w->plan.merge_count;
    if (a.count) d->cuda->attention(d->queue, &a);
}

static void op_attn_out(device *d, uint32_t layer) {
    add_product(d, &layer_of(d, layer)->attn_out, ROW_A, layer_of(d, layer)->attn_out_bias);
}

/* ---- feed forward ---- */

static void op_gate_up(device *d, uint32_t layer) {
    cuda_product_args a = product_of(d, &layer_of(d, layer)->gate_up, ROW_H);
    into(&a, rows_of(d, ROW_F));
    a.finish = PRODUCT_SILU, a.out_width = d->facts->ffn_width, a.bias = layer_of(d, layer)->gate_up_bias;
    multiply(d, &a);
}
static void op_down(device *d, uint32_t layer) {
    add_product(d, &layer_of(d, layer)->down, ROW_F, layer_of(d, layer)->down_bias);
}

/* ---- experts ---- */

static void op_route(device *d, uint32_t layer) {
    const model_facts *f = d->facts;
    const gpu_rows    *r = rows_of(d, ROW_R);
    logits_of(d, &layer_of(d, layer)->router, d->work.router_logits, d->sizes.router_stride, d->row_count);
    d->cuda->route(d->queue, &(cuda_route_args){.rows = d->row_count,
                                                .experts = f->expert_count,
                                                .chosen = f->experts_per_token,
                                                .renormalize = f->renormalize_topk,
                                                .logits = d->work.router_logits,
                                                .logits_stride = d->sizes.router_stride,
                                                .out = (route *)(void *)r->base,
                                                .out_stride = r->stride});
}

/* Good until other rows are bound. */
static void group_rows(device *d, uint32_t layer) {
    const gpu_rows *r = rows_of(d, ROW_R);
    if (d->grouped == layer + 1) return;
    d->cuda->group(d->queue,
                   &(cuda_group_args){d->row_count, (const route *)(const void *)r->base, r->stride, d->work.groups});
    d->grouped = layer + 1;
}

static void op_experts_up(device *d, uint32_t layer) {
    cuda_product_args a = product_of(d, &layer_of(d, layer)->expert_gate_up, ROW_H);
    d->grouped = 0; /* it is here that experts are counted */
    group_rows(d, layer);
    into(&a, rows_of(d, ROW_F));
    a.finish = PRODUCT_SILU, a.out_width = d->facts->expert_width;
    a.out_slot_stride = d->sizes.slot_bytes, a.groups = d->work.groups;
    d->cuda->product(d->queue, &a);
}

static void op_experts_down(device *d, uint32_t layer) {
    const uint32_t    chosen = d->facts->experts_per_token;
    const gpu_rows   *r = rows_of(d, ROW_R), *x = rows_of(d, ROW_X);
    cuda_product_args a = product_of(d, &layer_of(d, layer)->expert_down, ROW_F);
    group_rows(d, layer);
    a.a_slot_stride = d->sizes.slot_bytes, a.groups = d->work.groups;
    a.out = d->work.expert_parts, a.out_type = DTYPE_F32;
    a.out_slot_stride = d->sizes.part_stride, a.out_stride = chosen * d->sizes.part_stride;
    d->cuda->product(d->queue, &a);
    d->cuda->combine(d->queue, &(cuda_combine_args){.rows = d->row_count,
                                                    .width = d->facts->width,
                                                    .chosen = chosen,
                                                    .routes = (const route *)(const void *)r->base,
                                                    .routes_stride = r->stride,
                                                    .parts = d->work.expert_parts,
                                                    .part_stride = d->sizes.part_stride,
                                                    .x = (float *)(void *)x->base,
                                                    .x_stride = x->stride,
                                                    .counts = d->work.groups.counts});
}

/* S = silu(gate) * up * sigmoid(shared router): the gate is linear in what follows, so it may be applied here. */
static void op_shared_up(device *d, uint32_t layer) {
    const gpu_layer  *l = layer_of(d, layer);
    cuda_product_args a = product_of(d, &l->shared_gate_up, ROW_H);
    into(&a, rows_of(d, ROW_S));
    a.finish = PRODUCT_SILU, a.out_width = d->facts->shared_width;
    if (d->facts->shared_gate) {
        logits_of(d, &l->shared_router, d->work.shared_logits, sizeof(float), d->row_count);
        a.scale_logit = d->work.shared_logits;
    }
    multiply(d, &a);
}
static void op_shared_down(device *d, uint32_t layer) { add_product(d, &layer_of(d, layer)->shared_down, ROW_S, NULL); }

/* ---- output rows: from here on row i of H and L belongs to output i ---- */

static void op_final_norm(device *d, uint32_t layer) {
    (void)layer;
    normalize(d, d->weights.final_norm, d->output_count, d->batch.output_rows);
}
static void op_logits(device *d, uint32_t layer) {
    (void)layer;
    if (d->output_count > 0) logits_of(d, &d->weights.lm_head, d->work.logits, d->sizes.logits_stride, d->output_count);
}

/* ---- sampling: in as many launches as the room for lists makes necessary ---- */

typedef struct {
    uint32_t ids, values;
} lists;

static uint32_t put_ids(device *d, lists *l, const uint32_t *ids, uint32_t n) {
    const uint32_t begin = l->ids;
    if (n) memcpy(d->host.sample_ids + begin, ids, n * sizeof *ids);
    l->ids += n;
    return begin;
}

static bool wants_history(const sampling *s) {
    return s->repetition_penalty != 1 || s->frequency_penalty != 0 || s->presence_penalty != 0;
}

static bool has_room(const device *d, const lists *l, const batch_output *o) {
    const uint64_t ids =
        (uint64_t)o->params->bias_count + o->banned_count + (wants_history(o->params) ? o->history_count : 0);
    return l->ids + ids <= d->sizes.sample_ids_max && l->values + o->params->bias_count <= d->sizes.sample_values_max;
}

static void put_output(device *d, uint32_t i, lists *l) {
    const batch_output *o = &d->outputs[i];
    const sampling     *s = o->params;
    const bool          history = wants_history(s);
    cuda_sample_row    *r = &d->host.sample_rows[i];
    *r = (cuda_sample_row){.temperature = s->temperature,
                           .top_p = s->top_p,
                           .min_p = s->min_p,
                           .repetition_penalty = s->repetition_penalty,
                           .frequency_penalty = s->frequency_penalty,
                           .presence_penalty = s->presence_penalty,
                           .top_k = s->top_k,
                           .bias_values_begin = l->values,
                           .bias_count = s->bias_count,
                           .banned_count = o->banned_count,
                           .prompt_count = history ? o->prompt_count : 0,
                           .history_count = history ? o->history_count : 0,
                           .seed = s->seed,
                           .draw = o->history_count,
                           .top_logprobs = s->top_logprobs > TOP_LOGPROBS_MAX ? TOP_LOGPROBS_MAX : s->top_logprobs,
                           .scores = o->scores,
                           .scored = o->scores ? o->history[o->history_count] : 0};
    r->bias_begin = put_ids(d, l, s->bias_ids, s->bias_count);
    r->banned_begin = put_ids(d, l, o->banned, o->banned_count);
    r->history_begin = put_ids(d, l, o->history, r->history_count);
    if (s->bias_count) memcpy(d->host.sample_values + l->values, s->bias_values, s->bias_count * sizeof *s->bias_values);
    l->values += s->bias_count;
}

static void sample_outputs(device *d, uint32_t begin, uint32_t end, const lists *l) {
    const cuda_object *o = d->cuda;
    gpu_workspace     *w = &d->work;
    const uint32_t     n = end - begin;
    o->copy(d->queue, w->sample_rows + begin, d->host.sample_rows + begin, n * sizeof *w->sample_rows);
    o->copy(d->queue, w->sample_ids, d->host.sample_ids, l->ids * sizeof *w->sample_ids);
    o->copy(d->queue, w->sample_values, d->host.sample_values, l->values * sizeof *w->sample_values);
    o->event_record(d->queue, d->sampled);
    o->sample(d->queue, &(cuda_sample_args){.count = n,
                                            .vocab = d->facts->vocab_size,
                                            .slots = d->sizes.sample_slots,
                                            .logits = w->logits + begin * (d->sizes.logits_stride / sizeof(float)),
                                            .logits_stride = d->sizes.logits_stride,
                                            .rows = w->sample_rows + begin,
                                            .ids = w->sample_ids,
                                            .values = w->sample_values,
                                            .work = w->sample_work,
                                            .results = w->results + begin});
}

static void op_sample(device *d, uint32_t layer) {
    char why[256];
    (void)layer;
    for (uint32_t begin = 0, end; begin < d->output_count; begin = end) {
        lists l = {0, 0};
        d->cuda->event_wait(d->sampled, why, sizeof why); /* the lists before have been copied; collect tells of failures */
        for (end = begin; end < d->output_count && has_room(d, &l, &d->outputs[end]); end++) put_output(d, end, &l);
        check(end > begin);
        sample_outputs(d, begin, end, &l);
    }
}

const gpu_op device_cuda_ops[OP_KIND_COUNT] = {
    [OP_EMBED] = op_embed,         [OP_ATTN_NORM] = op_attn_norm,     [OP_QKV] = op_qkv,
    [OP_ROPE_KV] = op_rope_kv,     [OP_ATTENTION] = op_attention,     [OP_ATTN_OUT] = op_attn_out,
    [OP_FFN_NORM] = op_ffn_norm,   [OP_GATE_UP] = op_gate_up,         [OP_DOWN] = op_down,
    [OP_ROUTE] = op_route,         [OP_EXPERTS_UP] = op_experts_up,   [OP_EXPERTS_DOWN] = op_experts_down,
    [OP_SHARED_UP] = op_shared_up, [OP_SHARED_DOWN] = op_shared_down, [OP_FINAL_NORM] = op_final_norm,
    [OP_LOGITS] = op_logits,       [OP_SAMPLE] = op_sample,
};
