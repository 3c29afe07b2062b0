/* The forward pass as a table: which operators a layer has, and which row buffers each reads and writes. Everything that
 * differs between architectures is in the facts; liveness and cost follow from the table. */
#include "engine/program.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define X (1u << ROW_X)
#define H (1u << ROW_H)
#define Q (1u << ROW_Q)
#define K (1u << ROW_K)
#define V (1u << ROW_V)
#define A (1u << ROW_A)
#define R (1u << ROW_R)
#define F (1u << ROW_F)
#define S (1u << ROW_S)

static const struct {
    const char *name;
    uint16_t    reads, writes;
} op_facts[OP_KIND_COUNT] = {
    [OP_EMBED] = {"embed", 0, X},
    [OP_ATTN_NORM] = {"attention norm", X, H},
    [OP_QKV] = {"qkv", H, Q | K | V},
    [OP_ROPE_KV] = {"rope and kv write", Q | K | V, Q},
    [OP_ATTENTION] = {"attention", Q, A},
    [OP_ATTN_OUT] = {"attention output", A | X, X},
    [OP_FFN_NORM] = {"ffn norm", X, H},
    [OP_GATE_UP] = {"gate and up", H, F},
    [OP_DOWN] = {"down", F | X, X},
    [OP_ROUTE] = {"route", H, R},
    [OP_EXPERTS_UP] = {"experts up", H | R, F},
    [OP_EXPERTS_DOWN] = {"experts down", F | R | X, X},
    [OP_SHARED_UP] = {"shared expert up", H, S},
    [OP_SHARED_DOWN] = {"shared expert down", S | X, X},
    [OP_FINAL_NORM] = {"final norm", X, H},
    [OP_LOGITS] = {"logits", H, 0},
    [OP_SAMPLE] = {"sample", 0, 0},
};

static const uint8_t attention_ops[] = {OP_ATTN_NORM, OP_QKV, OP_ROPE_KV, OP_ATTENTION, OP_ATTN_OUT, OP_FFN_NORM};
static const uint8_t dense_ops[] = {OP_GATE_UP, OP_DOWN};
static const uint8_t moe_ops[] = {OP_ROUTE, OP_EXPERTS_UP, OP_EXPERTS_DOWN};
static const uint8_t shared_ops[] = {OP_SHARED_UP, OP_SHARED_DOWN};
static const uint8_t final_ops[] = {OP_FINAL_NORM, OP_LOGITS, OP_SAMPLE};
enum { LAYER_OPS_MAX = 11 };
_Static_assert(sizeof attention_ops + sizeof moe_ops + sizeof shared_ops <= LAYER_OPS_MAX, "a layer fits");

const char *op_name(op_kind kind) { return op_facts[kind].name; }

static void append(program *p, const uint8_t *kinds, size_t n, uint32_t layer) {
    for (size_t i = 0; i < n; i++)
        p->ops[p->op_count++] = (op){kinds[i], (uint16_t)layer, op_facts[kinds[i]].reads, op_facts[kinds[i]].writes};
}

static void append_layer(program *p, const model_facts *f, uint32_t layer) {
    p->layer_begin[layer] = p->op_count;
    append(p, attention_ops, sizeof attention_ops, layer);
    if (!f->is_moe_layer[layer]) {
        append(p, dense_ops, sizeof dense_ops, layer);
        return;
    }
    append(p, moe_ops, sizeof moe_ops, layer);
    if (f->shared_width) append(p, shared_ops, sizeof shared_ops, layer);
}

/* Backwards: what an operator writes need not have been kept, what it reads must. */
static void find_live(program *p) {
    p->live[p->op_count] = 0;
    for (uint32_t i = p->op_count; i-- > 0;) p->live[i] = (uint16_t)((p->live[i + 1] & ~p->ops[i].writes) | p->ops[i].reads);
}

static uint32_t widest_live_set(const program *p) {
    uint32_t widest = 0;
    for (uint32_t i = 0; i <= p->op_count; i++) {
        uint32_t bytes = 0;
        for (uint32_t b = 0; b < ROW_BUFFER_COUNT; b++)
            if (p->live[i] >> b & 1) bytes += p->row_bytes[b];
        if (bytes > widest) widest = bytes;
    }
    return widest;
}

/* Bytes of one row in each buffer. Nine of them must add up to less than 4 GiB. */
static int find_widths(program *p, const model_facts *f, error *err) {
    const uint64_t a = dtype_bytes(p->activation), heads = f->head_count, kv_heads = f->kv_head_count;
    uint64_t       dense = f->ffn_width, experts = (uint64_t)f->experts_per_token * f->expert_width;
    const uint64_t bytes[ROW_BUFFER_COUNT] = {
        [ROW_X] = (uint64_t)f->width * sizeof(float),
        [ROW_H] = (uint64_t)f->width * a,
        [ROW_Q] = heads * f->head_dim * a,
        [ROW_K] = kv_heads * f->head_dim * a,
        [ROW_V] = kv_heads * f->head_dim * a,
        [ROW_A] = heads * f->head_dim * a,
        [ROW_R] = (uint64_t)f->experts_per_token * (sizeof(uint32_t) + sizeof(float)),
        [ROW_F] = (dense > experts ? dense : experts) * a,
        [ROW_S] = (uint64_t)f->shared_width * a,
    };
    for (int b = 0; b < ROW_BUFFER_COUNT; b++) {
        if (bytes[b] > UINT32_MAX / ROW_BUFFER_COUNT)
            return error_set(err, ERR_TOO_LARGE,
                             "one token needs %llu bytes in one buffer, which is more than any model has",
                             (unsigned long long)bytes[b]);
        p->row_bytes[b] = (uint32_t)bytes[b];
    }
    p->kv_row_bytes = p->row_bytes[ROW_K] + p->row_bytes[ROW_V];
    return OK;
}

int program_build(program *out, const model_facts *f, dtype activation, error *err) {
    if (f->layer_count == 0 || f->layer_count > MODEL_LAYERS_MAX)
        return error_set(err, ERR_UNSUPPORTED, "a model of %u layers is not supported, only 1 to %d", f->layer_count,
                         MODEL_LAYERS_MAX);
    const uint32_t ops_max = 1 + f->layer_count * LAYER_OPS_MAX + (uint32_t)sizeof final_ops;
    *out = (program){.layer_count = f->layer_count, .activation = activation};
    const int widths = find_widths(out, f, err);
    if (widths != OK) return widths;
    out->ops = calloc(ops_max, sizeof *out->ops);
    out->live = calloc(ops_max + 1, sizeof *out->live);
    out->layer_begin = calloc(f->layer_count + 1, sizeof *out->layer_begin);
    if (!out->ops || !out->live || !out->layer_begin) fatal("out of memory for a program of %u operators", ops_max);

    append(out, (const uint8_t[]){OP_EMBED}, 1, 0);
    for (uint32_t layer = 0; layer < f->layer_count; layer++) append_layer(out, f, layer);
    out->layer_begin[f->layer_count] = out->op_count;
    append(out, final_ops, sizeof final_ops, 0);

    out->outputs_begin = out->layer_begin[f->layer_count - 1];
    while (out->ops[out->outputs_begin].kind != OP_ATTENTION) out->outputs_begin++;
    find_live(out);
    out->frame_row_bytes = widest_live_set(out);
    return OK;
}

void program_free(program *p) {
    free(p->ops);
    free(p->live);
    free(p->layer_begin);
    *p = (program){0};
}

/* ---- cost ---- */

/* `rows` rows through a matrix [out, in], `times` of them. */
static op_cost matrix_cost(double rows, double out, double in, double times, dtype type) {
    return (op_cost){.flops = 2 * rows * out * in, .weight_bytes = times * out * in * (double)dtype_bytes(type)};
}

static op_cost weights_and_flops(const program *p, const model_facts *f, const op *o, const op_load *l) {
    const double rows = l->rows, width = f->width, hd = f->head_dim, k = f->experts_per_token;
    const double heads_width = f->head_count * hd, kv_width = f->kv_head_count * hd;
    const dtype  w = f->weights;
    switch ((op_kind)o->kind) {
    case OP_EMBED: return (op_cost){.weight_bytes = rows * width * (double)dtype_bytes(w)};
    case OP_QKV: return matrix_cost(rows, heads_width + 2 * kv_width, width, 1, w);
    case OP_ROPE_KV: return (op_cost){.kv_bytes = rows * p->kv_row_bytes};
    case OP_ATTENTION:
        return (op_cost){.flops = 4 * heads_width * (double)l->context_tokens,
                         .kv_bytes = (double)l->kv_tokens * p->kv_row_bytes};
    case OP_ATTN_OUT: return matrix_cost(rows, width, heads_width, 1, w);
    case OP_GATE_UP: return matrix_cost(rows, 2.0 * f->ffn_width, width, 1, w);
    case OP_DOWN: return matrix_cost(rows, width, f->ffn_width, 1, w);
    case OP_ROUTE: return matrix_cost(rows, f->expert_count, width, 1, w);
    case OP_EXPERTS_UP: return matrix_cost(rows * k, 2.0 * f->expert_width, width, l->experts_touched, w);
    case OP_EXPERTS_DOWN: return matrix_cost(rows * k, width, f->expert_width, l->experts_touched, w);
    case OP_SHARED_UP: return matrix_cost(rows, 2.0 * f->shared_width + (f->shared_gate ? 1 : 0), width, 1, w);
    case OP_SHARED_DOWN: return matrix_cost(rows, width, f->shared_width, 1, w);
    case OP_LOGITS: return matrix_cost(l->outputs, f->vocab_size, width, 1, w);
    default: return (op_cost){0}; /* norms and sampling: activations only */
    }
}

op_cost program_cost(const program *p, const model_facts *f, uint32_t op_index, const op_load *load) {
    const op  *o = &p->ops[op_index];
    op_cost    c = weights_and_flops(p, f, o, load);
    const bool outputs_only = o->kind >= OP_FINAL_NORM;
    double     row_bytes = 0;
    for (uint32_t b = 0; b < ROW_BUFFER_COUNT; b++)
        row_bytes += (double)p->row_bytes[b] * ((o->reads >> b & 1) + (o->writes >> b & 1));
    c.rows = outputs_only ? load->outputs : load->rows;
    c.activation_bytes = row_bytes * c.rows;
    if (o->kind == OP_LOGITS || o->kind == OP_SAMPLE)
        c.activation_bytes += (double)load->outputs * f->vocab_size * sizeof(float);
    return c;
}

double program_expected_experts(const model_facts *f, uint32_t rows) {
    if (!f->expert_count) return 0;
    const double e = f->expert_count;
    return e * (1 - pow(1 - f->experts_per_token / e, rows));
}
