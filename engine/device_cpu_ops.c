/* Operators of the forward program on the CPU: each builds its kernel's arguments and calls it. No arithmetic here. */
#include <math.h>
#include <string.h>

#include "engine/device_cpu.h"

static rows_at        rows_of(const device *d, row_buffer b) { return (rows_at){d->rows[b], d->sizes.row_stride[b], NULL}; }
static bool           is_bf16(const device *d) { return d->activation == DTYPE_BF16; }
static layer_weights *layer_of(const device *d, uint32_t layer) { return &d->weights.layers[layer]; }

static void product(device *d, const matmul_args *a) {
    cpu_matmul(&d->cpu, a);
    d->stats.weight_bytes += matrix_bytes(a->w);
}

/* ---- embedding and norms ---- */

/* Rows of a table that exists only as a seed are drawn here, and then looked up by their place. */
static const uint32_t *draw_embedding(device *d) {
    const tensor *t = &d->weights.embedding;
    for (uint32_t i = 0; i < d->row_count; i++) {
        tensor_random_row(t, d->work.tokens[i], d->work.embedding + (size_t)i * t->cols * dtype_bytes(t->type));
        d->work.tokens[i] = i;
    }
    return d->work.tokens;
}

static void gather_tokens(device *d) {
    for (uint32_t r = 0; r < d->run_count; r++)
        memcpy(d->work.tokens + d->runs[r].row_begin, d->runs[r].tokens, d->runs[r].row_count * sizeof *d->work.tokens);
}

static void op_embed(device *d, uint32_t layer) {
    (void)layer;
    gather_tokens(d);
    const model_weights *w = &d->weights;
    embed_args a = {.rows = d->row_count, .width = d->facts->width, .tokens = d->work.tokens, .out = rows_of(d, ROW_X)};
    if (!w->tied) a.table = w->embedding.data, a.table_type = w->embedding.type;
    else if (w->lm_head.data) a.packed = &w->lm_head;
    else a.table = w->lm_head.parts[0].data, a.table_type = w->lm_head.type;
    if (!a.packed && !a.table) {
        a.tokens = draw_embedding(d);
        a.table = d->work.embedding;
    }
    cpu_embed(&d->cpu, &a);
    d->stats.rows += d->row_count;
}

static void normalize(device *d, const float *weight) {
    cpu_norm(&d->cpu, &(norm_args){.rows = d->row_count,
                                   .width = d->facts->width,
                                   .eps = d->facts->norm_eps,
                                   .weight = weight,
                                   .x = rows_of(d, ROW_X),
                                   .out = rows_of(d, ROW_H),
                                   .out_type = d->activation});
}
static void op_attn_norm(device *d, uint32_t layer) { normalize(d, layer_of(d, layer)->attn_norm); }
static void op_ffn_norm(device *d, uint32_t layer) { normalize(d, layer_of(d, layer)->ffn_norm); }

/* ---- attention ---- */

static void op_qkv(device *d, uint32_t layer) {
    const layer_weights *l = layer_of(d, layer);
    product(d, &(matmul_args){.w = &l->qkv,
                              .rows = d->row_count,
                              .a = rows_of(d, ROW_H),
                              .bias = l->qkv_bias,
                              .kind = is_bf16(d) ? OUT_BF16 : OUT_F32,
                              .out = {rows_of(d, ROW_Q), rows_of(d, ROW_K), rows_of(d, ROW_V)}});
}

static void op_rope_kv(device *d, uint32_t layer) {
    const layer_weights *l = layer_of(d, layer);
    const model_facts   *f = d->facts;
    cpu_rope_kv(&d->cpu, &(rope_kv_args){.layout = &d->layout,
                                         .pages = d->page_memory,
                                         .layer = layer,
                                         .heads = f->head_count,
                                         .run_count = d->run_count,
                                         .runs = d->work.runs,
                                         .q = rows_of(d, ROW_Q),
                                         .k = rows_of(d, ROW_K),
                                         .v = rows_of(d, ROW_V),
                                         .rotation = d->work.rotation,
                                         .q_norm = l->q_norm,
                                         .k_norm = l->k_norm,
                                         .norm_full = f->qk_norm == QK_NORM_FULL,
                                         .norm_eps = f->norm_eps,
                                         .clip = f->qkv_clip});
}

static void op_attention(device *d, uint32_t layer) {
    cpu_attention(&d->cpu, &(attention_args){.layout = &d->layout,
                                             .pages = d->page_memory,
                                             .layer = layer,
                                             .heads = d->facts->head_count,
                                             .window = d->facts->sliding_window[layer],
                                             .run_count = d->run_count,
                                             .runs = d->work.runs,
                                             .q = rows_of(d, ROW_Q),
                                             .out = rows_of(d, ROW_A)});
}

static void add_product(device *d, const matrix *w, row_buffer from, const float *bias) {
    product(
        d,
        &(matmul_args){
            .w = w, .rows = d->row_count, .a = rows_of(d, from), .bias = bias, .kind = OUT_ADD, .out = {rows_of(d, ROW_X)}});
}

static void op_attn_out(device *d, uint32_t layer) {
    add_product(d, &layer_of(d, layer)->attn_out, ROW_A, layer_of(d, layer)->attn_out_bias);
}

/* ---- feed forward ---- */

static out_kind silu_kind(const device *d) { return is_bf16(d) ? OUT_SILU_BF16 : OUT_SILU_F32; }

static void op_gate_up(device *d, uint32_t layer) {
    const layer_weights *l = layer_of(d, layer);
    product(d, &(matmul_args){.w = &l->gate_up,
                              .rows = d->row_count,
                              .a = rows_of(d, ROW_H),
                              .bias = l->gate_up_bias,
                              .kind = silu_kind(d),
                              .out = {rows_of(d, ROW_F)}});
}
static void op_down(device *d, uint32_t layer) {
    add_product(d, &layer_of(d, layer)->down, ROW_F, layer_of(d, layer)->down_bias);
}

static uint32_t panels_up(uint32_t n) { return (n + PANEL_COLS - 1) / PANEL_COLS * PANEL_COLS; }

static route_args routing(const device *d) {
    const model_facts *f = d->facts;
    return (route_args){.rows = d->row_count,
                        .experts = f->expert_count,
                        .chosen = f->experts_per_token,
                        .renormalize = f->renormalize_topk,
                        .logits = d->work.router_logits,
                        .logits_stride = panels_up(f->expert_count),
                        .out = rows_of(d, ROW_R)};
}

static void op_route(device *d, uint32_t layer) {
    route_args a = routing(d);
    rows_at    logits = {d->work.router_logits, a.logits_stride * sizeof(float), NULL};
    product(d, &(matmul_args){.w = &layer_of(d, layer)->router,
                              .rows = d->row_count,
                              .a = rows_of(d, ROW_H),
                              .kind = OUT_F32,
                              .out = {logits}});
    cpu_route(&d->cpu, &a);
}

/* Groups the rows by expert and fills where each entry's rows are. */
static void group_rows(device *d) {
    const model_facts *f = d->facts;
    route_args         a = routing(d);
    pass_workspace    *w = &d->work;
    size_t             slot_bytes = f->expert_width * dtype_bytes(d->activation);
    cpu_group_by_expert(&a, &w->groups);
    for (uint32_t i = 0; i < d->row_count * f->experts_per_token; i++) {
        uint32_t     row = w->groups.entry[i] / f->experts_per_token, slot = w->groups.entry[i] % f->experts_per_token;
        const route *r = (const void *)row_of(&a.out, row);
        w->h_offset[i] = row * d->sizes.row_stride[ROW_H];
        w->x_offset[i] = row * d->sizes.row_stride[ROW_X];
        w->f_offset[i] = row * d->sizes.row_stride[ROW_F] + slot * slot_bytes;
        w->route_weight[i] = r[slot].weight;
    }
}

/* One product per expert that has rows, in order of expert; `all` is what they would be together. Returns how many. */
static uint32_t expert_products(device *d, const matrix *experts, const matmul_args *all) {
    uint32_t n = 0;
    for (uint32_t e = 0; e < d->facts->expert_count; e++) {
        uint32_t begin = d->work.groups.begin[e], end = d->work.groups.begin[e + 1];
        if (begin == end) continue;
        matmul_args *a = &d->work.products[n++];
        *a = *all;
        a->w = &experts[e], a->rows = end - begin;
        a->a.offsets += begin, a->out[0].offsets += begin;
        if (a->scale) a->scale += begin;
        d->stats.weight_bytes += matrix_bytes(a->w), d->stats.expert_bytes += matrix_bytes(a->w);
    }
    return n;
}

static rows_at rows_by_expert(const device *d, row_buffer b, const uint64_t *offsets) {
    return (rows_at){d->rows[b], 0, offsets};
}

static void op_experts_up(device *d, uint32_t layer) {
    group_rows(d);
    matmul_args all = {.a = rows_by_expert(d, ROW_H, d->work.h_offset),
                       .kind = silu_kind(d),
                       .out = {rows_by_expert(d, ROW_F, d->work.f_offset)}};
    cpu_matmul_each(&d->cpu, d->work.products, expert_products(d, layer_of(d, layer)->expert_gate_up, &all));
}

static void op_experts_down(device *d, uint32_t layer) {
    group_rows(d); /* the rows may not be those of op_experts_up */
    matmul_args all = {.a = rows_by_expert(d, ROW_F, d->work.f_offset),
                       .scale = d->work.route_weight,
                       .kind = OUT_ADD,
                       .out = {rows_by_expert(d, ROW_X, d->work.x_offset)}};
    cpu_matmul_in_turn(&d->cpu, d->work.products, expert_products(d, layer_of(d, layer)->expert_down, &all));
}

/* S = silu(gate) * up * sigmoid(shared router): the gate is linear in what follows, so it may be applied here. */
static void op_shared_up(device *d, uint32_t layer) {
    const layer_weights *l = layer_of(d, layer);
    matmul_args          a = {.w = &l->shared_gate_up,
                              .rows = d->row_count,
                              .a = rows_of(d, ROW_H),
                              .kind = silu_kind(d),
                              .out = {rows_of(d, ROW_S)}};
    if (d->facts->shared_gate) {
        product(d, &(matmul_args){.w = &l->shared_router,
                                  .rows = d->row_count,
                                  .a = a.a,
                                  .kind = OUT_F32,
                                  .out = {{d->work.shared_logits, PANEL_COLS * sizeof(float), NULL}}});
        for (uint32_t i = 0; i < d->row_count; i++)
            d->work.row_scale[i] = 1 / (1 + expf(-d->work.shared_logits[(size_t)i * PANEL_COLS]));
        a.scale = d->work.row_scale;
    }
    product(d, &a);
}
static void op_shared_down(device *d, uint32_t layer) { add_product(d, &layer_of(d, layer)->shared_down, ROW_S, NULL); }

/* ---- output rows: from here on row i of H and L belongs to output i ---- */

static void op_final_norm(device *d, uint32_t layer) {
    (void)layer;
    for (uint32_t i = 0; i < d->output_count; i++) d->work.output_offset[i] = d->outputs[i].row * d->sizes.row_stride[ROW_X];
    norm_args a = {.rows = d->output_count,
                   .width = d->facts->width,
                   .eps = d->facts->norm_eps,
                   .weight = d->weights.final_norm,
                   .x = rows_of(d, ROW_X),
                   .out = rows_of(d, ROW_H),
                   .out_type = d->activation};
    a.x.offsets = d->work.output_offset;
    cpu_norm(&d->cpu, &a);
}

static void op_logits(device *d, uint32_t layer) {
    (void)layer;
    if (d->output_count == 0) return;
    product(d, &(matmul_args){.w = &d->weights.lm_head,
                              .rows = d->output_count,
                              .a = rows_of(d, ROW_H),
                              .kind = OUT_F32,
                              .out = {{d->work.logits, d->sizes.logits_stride * sizeof(float), NULL}}});
}

static sample_args sampling_of(const device *d, uint32_t i) {
    const batch_output *o = &d->outputs[i];
    const sampling     *s = o->params;
    return (sample_args){
        .logits = d->work.logits + i * d->sizes.logits_stride,
        .vocab = d->facts->vocab_size,
        .temperature = s->temperature,
        .top_k = s->top_k,
        .top_p = s->top_p,
        .min_p = s->min_p,
        .repetition_penalty = s->repetition_penalty,
        .frequency_penalty = s->frequency_penalty,
        .presence_penalty = s->presence_penalty,
        .bias_ids = s->bias_ids,
        .bias_values = s->bias_values,
        .bias_count = s->bias_count,
        .banned = o->banned,
        .banned_count = o->banned_count,
        .history = o->history,
        .prompt_count = o->prompt_count,
        .history_count = o->history_count,
        .seed = s->seed,
        .draw = o->history_count,
        .top_logprobs = s->top_logprobs > TOP_LOGPROBS_MAX ? TOP_LOGPROBS_MAX : s->top_logprobs,
        .scores = o->scores,
        .scored = o->scores ? o->history[o->history_count] : 0,
    };
}

static void op_sample(device *d, uint32_t layer) {
    (void)layer;
    pass_workspace *w = &d->work;
    for (uint32_t i = 0; i < d->output_count; i++) {
        w->samples[i] = sampling_of(d, i);
        w->results[i] = (sample_result){.top_ids = w->sampled[i].top_ids, .top_logprobs = w->sampled[i].top_logprobs};
    }
    cpu_sample(&d->cpu, w->samples, d->output_count, w->sample_work, w->results);
    for (uint32_t i = 0; i < d->output_count; i++) {
        const sample_result *r = &w->results[i];
        w->sampled[i].token = r->token, w->sampled[i].logprob = r->logprob, w->sampled[i].rank = r->rank;
        w->sampled[i].top_count = r->top_count, w->sampled[i].corrupt = r->corrupt;
    }
}

const device_op device_cpu_ops[OP_KIND_COUNT] = {
    [OP_EMBED] = op_embed,         [OP_ATTN_NORM] = op_attn_norm,     [OP_QKV] = op_qkv,
    [OP_ROPE_KV] = op_rope_kv,     [OP_ATTENTION] = op_attention,     [OP_ATTN_OUT] = op_attn_out,
    [OP_FFN_NORM] = op_ffn_norm,   [OP_GATE_UP] = op_gate_up,         [OP_DOWN] = op_down,
    [OP_ROUTE] = op_route,         [OP_EXPERTS_UP] = op_experts_up,   [OP_EXPERTS_DOWN] = op_experts_down,
    [OP_SHARED_UP] = op_shared_up, [OP_SHARED_DOWN] = op_shared_down, [OP_FINAL_NORM] = op_final_norm,
    [OP_LOGITS] = op_logits,       [OP_SAMPLE] = op_sample,
};

/* ---- rotary angles ---- */

enum { ROTATION_ROWS = 16 };

static void fill_rotation(void *context, uint32_t task, uint32_t worker) {
    (void)worker;
    const device *d = context;
    uint32_t      half = d->facts->head_dim / 2;
    for (uint32_t r = 0; r < d->run_count; r++) {
        const kv_run *run = &d->work.runs[r];
        for (uint32_t i = 0; i < run->row_count; i++) {
            uint32_t row = run->row_begin + i;
            if (row / ROTATION_ROWS != task) continue;
            float *out = d->work.rotation + (size_t)row * d->facts->head_dim;
            for (uint32_t j = 0; j < half; j++) {
                double angle = (run->position_begin + i) * d->inverse_frequency[j];
                out[j] = (float)cos(angle), out[half + j] = (float)sin(angle);
            }
        }
    }
}

void device_fill_rotation(device *d) {
    pool_run(d->cpu.pool, (d->row_count + ROTATION_ROWS - 1) / ROTATION_ROWS, fill_rotation, d);
}
