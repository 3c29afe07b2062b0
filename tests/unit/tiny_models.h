/* tests/unit/tiny_models.h: a small random checkpoint of every architecture, written to writer_dir as published. */
#pragma once
#include "base/dtype.h"
#include "base/rng.h"
#include "models/architecture.h"
#include "models/checkpoint.h"
#include "tests/unit/safetensors_writer.h"

#define TINY_COMMON                                                                                                         \
    "\"hidden_act\":\"silu\",\"hidden_size\":48,\"num_hidden_layers\":3,\"vocab_size\":97,\"rms_norm_eps\":1e-5,"           \
    "\"max_position_embeddings\":512,\"num_attention_heads\":4,\"bos_token_id\":1,\"eos_token_id\":2,"

static const struct {
    const char *name, *config; /* without the common part and the type */
} tiny_models[] = {
    {"llama", TINY_COMMON "\"architectures\":[\"LlamaForCausalLM\"],\"intermediate_size\":100,\"num_key_value_heads\":2,"
                          "\"head_dim\":16,\"mlp_bias\":true,\"attention_bias\":true,\"rope_theta\":500000,\"rope_scaling\":"
                          "{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":1,\"high_freq_factor\":4,"
                          "\"original_max_position_embeddings\":64},"},
    {"mistral", TINY_COMMON "\"architectures\":[\"MistralForCausalLM\"],\"intermediate_size\":70,\"num_key_value_heads\":1,"
                            "\"head_dim\":12,\"sliding_window\":20,"},
    {"qwen2", TINY_COMMON "\"architectures\":[\"Qwen2ForCausalLM\"],\"intermediate_size\":64,\"num_key_value_heads\":2,"
                          "\"tie_word_embeddings\":true,"},
    {"qwen3", TINY_COMMON "\"architectures\":[\"Qwen3ForCausalLM\"],\"intermediate_size\":64,\"num_key_value_heads\":4,"
                          "\"head_dim\":20,"},
    {"mixtral", TINY_COMMON "\"architectures\":[\"MixtralForCausalLM\"],\"intermediate_size\":40,\"num_key_value_heads\":2,"
                            "\"num_local_experts\":5,\"num_experts_per_tok\":2,"},
    {"qwen2_moe",
     TINY_COMMON "\"architectures\":[\"Qwen2MoeForCausalLM\"],\"intermediate_size\":64,\"num_key_value_heads\":2,"
                 "\"num_experts\":6,\"num_experts_per_tok\":3,\"moe_intermediate_size\":24,"
                 "\"shared_expert_intermediate_size\":56,\"norm_topk_prob\":false,"},
    {"qwen3_moe",
     TINY_COMMON "\"architectures\":[\"Qwen3MoeForCausalLM\"],\"intermediate_size\":64,\"num_key_value_heads\":2,"
                 "\"head_dim\":16,\"num_experts\":9,\"num_experts_per_tok\":4,\"moe_intermediate_size\":16,"
                 "\"norm_topk_prob\":true,\"mlp_only_layers\":[1],"},
    {"olmoe", TINY_COMMON "\"architectures\":[\"OlmoeForCausalLM\"],\"intermediate_size\":24,\"num_key_value_heads\":4,"
                          "\"num_experts\":8,\"num_experts_per_tok\":2,\"clip_qkv\":0.7,"},
    {"qwen3 with wide heads", TINY_COMMON "\"architectures\":[\"Qwen3ForCausalLM\"],\"intermediate_size\":64,"
                                          "\"num_key_value_heads\":2,\"head_dim\":64,"},
};
enum { TINY_MODELS = sizeof tiny_models / sizeof *tiny_models };

static void tiny_append(writer *w, const char *name, dtype type, uint32_t rows, uint32_t cols, bool vector, rng *r) {
    char   shape[32];
    size_t begin = w->data.size;
    float  center = strstr(name, "norm") ? 1 : 0;
    for (uint64_t i = 0; i < (uint64_t)rows * cols; i++) {
        float    x = center + ((float)(rng_next(r) >> 40) * 0x1p-23f - 1) * 0.3f;
        uint16_t h = f32_to_bf16(x);
        buf_append(&w->data, type == DTYPE_BF16 ? (void *)&h : (void *)&x, dtype_bytes(type));
    }
    if (vector) snprintf(shape, sizeof shape, "%u", cols);
    else snprintf(shape, sizeof shape, "%u,%u", rows, cols);
    buf_printf(&w->header, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[%zu,%zu]}", name,
               dtype_facts[type].name, shape, begin, w->data.size);
}

/* Writes model i in `type` (bf16 or f32) and opens it. */
static inline checkpoint *tiny_open(uint32_t i, dtype type, uint64_t seed) {
    char        config[2048];
    model_facts f;
    error       err;
    writer      w;
    rng         r = {seed, 0};
    checkpoint *c;
    snprintf(config, sizeof config, "{%s\"torch_dtype\":\"%s\"}", tiny_models[i].config, dtype_facts[type].config_name);
    if (facts_parse(&f, "tiny", config, strlen(config), &err) != OK) fatal("%s: %s", tiny_models[i].name, err.text);
    writer_begin(&w);
    for (uint32_t role = 0; role < ROLE_COUNT; role++)
        for (uint32_t layer = 0; layer < (role_scope_of(role) == SCOPE_MODEL ? 1 : f.layer_count); layer++)
            for (uint32_t e = 0; e < (role_scope_of(role) == SCOPE_EXPERT ? f.expert_count : 1); e++) {
                char     name[ROLE_NAME_MAX];
                uint32_t rows, cols;
                if (!role_shape(&f, role, layer, &rows, &cols)) continue;
                role_name(name, &f, role, layer, e);
                tiny_append(&w, name, type, rows, cols, role_is_vector(role), &r);
            }
    writer_put_text("config.json", config);
    writer_put_buf("model.safetensors", writer_end(&w));
    if (checkpoint_open(&c, writer_dir, &err) != OK) fatal("%s: %s", tiny_models[i].name, err.text);
    return c;
}
