#include "models/architecture.h"

#include <stdio.h>
#include <string.h>

static const char *const mixtral_names[ROLE_COUNT] = {
    [ROLE_ROUTER] = "model.layers.*.block_sparse_moe.gate.weight",
    [ROLE_EXPERT_GATE] = "model.layers.*.block_sparse_moe.experts.*.w1.weight",
    [ROLE_EXPERT_UP] = "model.layers.*.block_sparse_moe.experts.*.w3.weight",
    [ROLE_EXPERT_DOWN] = "model.layers.*.block_sparse_moe.experts.*.w2.weight",
};

/* Values are the defaults of the configuration classes of the `transformers` library, where these architectures are
 * published (configuration_llama.py and so on). */
/* clang-format off */
const architecture architectures[] = {
    {.name = "LlamaForCausalLM", .model_type = "llama",
     .context_max = 2048, .norm_eps = 1e-6f, .rope_theta = 1e4f, .bos_id = 1, .eos_id = 2,
     .bias_key = "attention_bias", .bias_on_out = true, .has_mlp_bias = true},
    {.name = "MistralForCausalLM", .model_type = "mistral",
     .kv_head_count = 8, .context_max = 131072, .norm_eps = 1e-6f, .rope_theta = 1e4f, .bos_id = 1, .eos_id = 2,
     .window_rule = WINDOW_ALL, .sliding_window = 4096},
    {.name = "Qwen2ForCausalLM", .model_type = "qwen2",
     .kv_head_count = 32, .context_max = 32768, .norm_eps = 1e-6f, .rope_theta = 1e4f, .bos_id = -1, .eos_id = -1,
     .window_rule = WINDOW_FROM, .sliding_window = 4096, .bias_default = true},
    {.name = "Qwen3ForCausalLM", .model_type = "qwen3",
     .kv_head_count = 32, .head_dim = 128, .context_max = 32768, .norm_eps = 1e-6f, .rope_theta = 1e4f, .bos_id = -1, .eos_id = -1,
     .window_rule = WINDOW_FROM, .sliding_window = 4096, .bias_key = "attention_bias", .bias_on_out = true,
     .qk_norm = QK_NORM_HEAD},
    {.name = "MixtralForCausalLM", .model_type = "mixtral", .names = mixtral_names,
     .kv_head_count = 8, .context_max = 131072, .norm_eps = 1e-5f, .rope_theta = 1e6f, .bos_id = 1, .eos_id = 2,
     .window_rule = WINDOW_ALL,
     .is_moe = true, .always_renormalizes = true, .expert_count = 8, .experts_per_token = 2,
     .expert_width_key = "intermediate_size", .expert_width = 14336},
    {.name = "Qwen2MoeForCausalLM", .model_type = "qwen2_moe",
     .kv_head_count = 16, .context_max = 32768, .norm_eps = 1e-6f, .rope_theta = 1e4f, .bos_id = -1, .eos_id = -1,
     .window_rule = WINDOW_EVEN, .sliding_window = 4096, .bias_key = "qkv_bias", .bias_default = true,
     .is_moe = true, .has_sparse_step = true, .expert_count = 60, .experts_per_token = 4,
     .expert_width_key = "moe_intermediate_size", .expert_width = 1408, .has_shared = true, .shared_width = 5632},
    {.name = "Qwen3MoeForCausalLM", .model_type = "qwen3_moe",
     .kv_head_count = 4, .context_max = 32768, .norm_eps = 1e-6f, .rope_theta = 1e4f, .bos_id = -1, .eos_id = -1,
     .window_rule = WINDOW_SWITCH, .sliding_window = 4096, .bias_key = "attention_bias", .bias_on_out = true,
     .qk_norm = QK_NORM_HEAD,
     .is_moe = true, .has_sparse_step = true, .expert_count = 128, .experts_per_token = 8,
     .expert_width_key = "moe_intermediate_size", .expert_width = 768},
    {.name = "OlmoeForCausalLM", .model_type = "olmoe",
     .context_max = 4096, .norm_eps = 1e-5f, .rope_theta = 1e4f, .bos_id = -1, .eos_id = 50279,
     .bias_key = "attention_bias", .bias_on_out = true, .has_qkv_clip = true, .qk_norm = QK_NORM_FULL,
     .is_moe = true, .expert_count = 64, .experts_per_token = 8,
     .expert_width_key = "intermediate_size", .expert_width = 2048},
};
/* clang-format on */
const uint32_t architecture_count = sizeof architectures / sizeof *architectures;

const architecture *architecture_find(const char *name) {
    for (uint32_t i = 0; i < architecture_count; i++)
        if (strcmp(architectures[i].name, name) == 0) return &architectures[i];
    return NULL;
}

typedef enum { ONE, VOCAB, WIDTH, Q_ROWS, KV_ROWS, Q_NORM, K_NORM, FFN, EXPERTS, EXPERT, SHARED } extent;
typedef enum {
    ALWAYS,
    IF_UNTIED,
    IF_QKV_BIAS,
    IF_OUT_BIAS,
    IF_QK_NORM,
    IF_DENSE,
    IF_DENSE_BIAS,
    IF_MOE,
    IF_SHARED,
    IF_SHARED_GATE
} presence;
typedef enum { VECTOR, BIAS, MATRIX } tensor_kind;

/* A vector is one row. The first * of a name is the layer, the second the expert. */
static const struct {
    role_scope  scope;
    presence    when;
    tensor_kind kind;
    extent      rows, cols;
    const char *label, *name;
} roles[ROLE_COUNT] = {
#define L "model.layers.*."
    [ROLE_EMBED] = {SCOPE_MODEL, ALWAYS, MATRIX, VOCAB, WIDTH, "embedding", "model.embed_tokens.weight"},
    [ROLE_FINAL_NORM] = {SCOPE_MODEL, ALWAYS, VECTOR, ONE, WIDTH, "final norm", "model.norm.weight"},
    [ROLE_LM_HEAD] = {SCOPE_MODEL, IF_UNTIED, MATRIX, VOCAB, WIDTH, "lm head", "lm_head.weight"},
    [ROLE_ATTN_NORM] = {SCOPE_LAYER, ALWAYS, VECTOR, ONE, WIDTH, "attention norm", L "input_layernorm.weight"},
    [ROLE_Q] = {SCOPE_LAYER, ALWAYS, MATRIX, Q_ROWS, WIDTH, "q", L "self_attn.q_proj.weight"},
    [ROLE_K] = {SCOPE_LAYER, ALWAYS, MATRIX, KV_ROWS, WIDTH, "k", L "self_attn.k_proj.weight"},
    [ROLE_V] = {SCOPE_LAYER, ALWAYS, MATRIX, KV_ROWS, WIDTH, "v", L "self_attn.v_proj.weight"},
    [ROLE_Q_BIAS] = {SCOPE_LAYER, IF_QKV_BIAS, BIAS, ONE, Q_ROWS, "q bias", L "self_attn.q_proj.bias"},
    [ROLE_K_BIAS] = {SCOPE_LAYER, IF_QKV_BIAS, BIAS, ONE, KV_ROWS, "k bias", L "self_attn.k_proj.bias"},
    [ROLE_V_BIAS] = {SCOPE_LAYER, IF_QKV_BIAS, BIAS, ONE, KV_ROWS, "v bias", L "self_attn.v_proj.bias"},
    [ROLE_Q_NORM] = {SCOPE_LAYER, IF_QK_NORM, VECTOR, ONE, Q_NORM, "q norm", L "self_attn.q_norm.weight"},
    [ROLE_K_NORM] = {SCOPE_LAYER, IF_QK_NORM, VECTOR, ONE, K_NORM, "k norm", L "self_attn.k_norm.weight"},
    [ROLE_O] = {SCOPE_LAYER, ALWAYS, MATRIX, WIDTH, Q_ROWS, "o", L "self_attn.o_proj.weight"},
    [ROLE_O_BIAS] = {SCOPE_LAYER, IF_OUT_BIAS, BIAS, ONE, WIDTH, "o bias", L "self_attn.o_proj.bias"},
    [ROLE_FFN_NORM] = {SCOPE_LAYER, ALWAYS, VECTOR, ONE, WIDTH, "ffn norm", L "post_attention_layernorm.weight"},
    [ROLE_GATE] = {SCOPE_LAYER, IF_DENSE, MATRIX, FFN, WIDTH, "gate", L "mlp.gate_proj.weight"},
    [ROLE_UP] = {SCOPE_LAYER, IF_DENSE, MATRIX, FFN, WIDTH, "up", L "mlp.up_proj.weight"},
    [ROLE_DOWN] = {SCOPE_LAYER, IF_DENSE, MATRIX, WIDTH, FFN, "down", L "mlp.down_proj.weight"},
    [ROLE_GATE_BIAS] = {SCOPE_LAYER, IF_DENSE_BIAS, BIAS, ONE, FFN, "gate bias", L "mlp.gate_proj.bias"},
    [ROLE_UP_BIAS] = {SCOPE_LAYER, IF_DENSE_BIAS, BIAS, ONE, FFN, "up bias", L "mlp.up_proj.bias"},
    [ROLE_DOWN_BIAS] = {SCOPE_LAYER, IF_DENSE_BIAS, BIAS, ONE, WIDTH, "down bias", L "mlp.down_proj.bias"},
    [ROLE_ROUTER] = {SCOPE_LAYER, IF_MOE, MATRIX, EXPERTS, WIDTH, "router", L "mlp.gate.weight"},
    [ROLE_EXPERT_GATE] = {SCOPE_EXPERT, IF_MOE, MATRIX, EXPERT, WIDTH, "expert gate", L "mlp.experts.*.gate_proj.weight"},
    [ROLE_EXPERT_UP] = {SCOPE_EXPERT, IF_MOE, MATRIX, EXPERT, WIDTH, "expert up", L "mlp.experts.*.up_proj.weight"},
    [ROLE_EXPERT_DOWN] = {SCOPE_EXPERT, IF_MOE, MATRIX, WIDTH, EXPERT, "expert down", L "mlp.experts.*.down_proj.weight"},
    [ROLE_SHARED_GATE] = {SCOPE_LAYER, IF_SHARED, MATRIX, SHARED, WIDTH, "shared gate",
                          L "mlp.shared_expert.gate_proj.weight"},
    [ROLE_SHARED_UP] = {SCOPE_LAYER, IF_SHARED, MATRIX, SHARED, WIDTH, "shared up", L "mlp.shared_expert.up_proj.weight"},
    [ROLE_SHARED_DOWN] = {SCOPE_LAYER, IF_SHARED, MATRIX, WIDTH, SHARED, "shared down",
                          L "mlp.shared_expert.down_proj.weight"},
    [ROLE_SHARED_ROUTER] = {SCOPE_LAYER, IF_SHARED_GATE, MATRIX, ONE, WIDTH, "shared router",
                            L "mlp.shared_expert_gate.weight"},
#undef L
};

role_scope  role_scope_of(tensor_role r) { return roles[r].scope; }
const char *role_label(tensor_role r) { return roles[r].label; }
bool        role_is_vector(tensor_role r) { return roles[r].kind != MATRIX; }
bool        role_is_bias(tensor_role r) { return roles[r].kind == BIAS; }

static uint32_t extent_of(const model_facts *f, extent e) {
    bool per_head = f->qk_norm == QK_NORM_HEAD;
    switch (e) {
    case ONE: return 1;
    case VOCAB: return f->vocab_size;
    case WIDTH: return f->width;
    case Q_ROWS: return f->head_count * f->head_dim;
    case KV_ROWS: return f->kv_head_count * f->head_dim;
    case Q_NORM: return per_head ? f->head_dim : f->head_count * f->head_dim;
    case K_NORM: return per_head ? f->head_dim : f->kv_head_count * f->head_dim;
    case FFN: return f->ffn_width;
    case EXPERTS: return f->expert_count;
    case EXPERT: return f->expert_width;
    case SHARED: return f->shared_width;
    }
    return 0;
}

static bool exists(const model_facts *f, presence when, uint32_t layer) {
    bool moe = f->is_moe_layer[layer];
    switch (when) {
    case ALWAYS: return true;
    case IF_UNTIED: return !f->tied_embeddings;
    case IF_QKV_BIAS: return f->qkv_bias;
    case IF_OUT_BIAS: return f->out_bias;
    case IF_QK_NORM: return f->qk_norm != QK_NORM_NONE;
    case IF_DENSE: return !moe;
    case IF_DENSE_BIAS: return !moe && f->mlp_bias;
    case IF_MOE: return moe;
    case IF_SHARED: return moe && f->shared_width > 0;
    case IF_SHARED_GATE: return moe && f->shared_gate;
    }
    return false;
}

bool role_shape(const model_facts *f, tensor_role r, uint32_t layer, uint32_t *rows, uint32_t *cols) {
    if (!exists(f, roles[r].when, roles[r].scope == SCOPE_MODEL ? 0 : layer)) return false;
    *rows = extent_of(f, roles[r].rows);
    *cols = extent_of(f, roles[r].cols);
    return true;
}

void role_name(char *out, const model_facts *f, tensor_role r, uint32_t layer, uint32_t expert) {
    const architecture *a = architecture_find(f->architecture);
    const char         *from = a && a->names && a->names[r] ? a->names[r] : roles[r].name;
    uint32_t            index[2] = {layer, expert}, used = 0;
    char               *to = out, *end = out + ROLE_NAME_MAX - 12; /* room for one more number */
    for (; *from && to < end; from++) {
        if (*from == '*') to += snprintf(to, 12, "%u", index[used++ & 1]);
        else *to++ = *from;
    }
    *to = 0;
}
