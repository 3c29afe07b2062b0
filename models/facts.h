/* models/facts.h: what a checkpoint is, in numbers. Architectures are rows of facts, not source files.
 *
 * config.json names an architecture; a table in facts.c says which of the variations below it has and how its config
 * keys and tensor names map. Everything after this header (program, kernels, memory plan, simulator) reads facts and
 * never an architecture's name. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/dtype.h"
#include "base/error.h"

typedef enum {
    QK_NORM_NONE,
    QK_NORM_HEAD, /* Qwen3: over head_dim */
    QK_NORM_FULL, /* OLMoE: over all heads together */
} qk_norm_kind;

typedef struct {
    float theta;
    enum { ROPE_PLAIN, ROPE_LINEAR, ROPE_LLAMA3 } scaling;
    float    factor;                            /* linear, llama3 */
    float    low_freq_factor, high_freq_factor; /* llama3 */
    uint32_t original_context;                  /* llama3 */
} rope_facts;

enum { MODEL_LAYERS_MAX = 256, MODEL_EOS_MAX = 8 };

typedef struct {
    const char  *architecture; /* "LlamaForCausalLM"; static */
    uint32_t     vocab_size, width, layer_count, head_count, kv_head_count, head_dim, ffn_width;
    uint32_t     context_max; /* max_position_embeddings */
    float        norm_eps;
    rope_facts   rope;
    bool         tied_embeddings, qkv_bias, out_bias, mlp_bias;
    qk_norm_kind qk_norm;
    float        qkv_clip;                         /* OLMoE clip_qkv; 0: none */
    uint32_t     sliding_window[MODEL_LAYERS_MAX]; /* tokens visible, self included; 0: all */

    /* 0 where the model has none */
    uint32_t expert_count, experts_per_token, expert_width, shared_width;
    bool     renormalize_topk; /* router weights of the chosen experts sum to 1 */
    bool     shared_gate;      /* Qwen2-MoE: sigmoid gate on the shared expert */
    bool     is_moe_layer[MODEL_LAYERS_MAX];

    dtype    weights; /* of the matrices */
    uint32_t bos_id, eos_ids[MODEL_EOS_MAX], eos_count;
    bool     has_bos;
    /* generation_config.json's sampling defaults; negative where it gives none */
    float default_temperature, default_top_p, default_top_k, default_min_p, default_repetition_penalty;
} model_facts;

/* From DIR/config.json (and generation_config.json). Refuses in one sentence what is not supported, listing what is. */
int facts_read(model_facts *out, const char *dir, error *err);
/* From a config text; `name` is for sentences. */
int facts_parse(model_facts *out, const char *name, const char *config_json, size_t n, error *err);
/* Adds what a generation_config.json says: more eos ids, sampling defaults. */
int facts_parse_generation(model_facts *f, const char *name, const char *json_text, size_t n, error *err);

uint64_t facts_parameter_count(const model_facts *f);
/* Those read for one token: all but the embedding (unless it is the lm_head too) and the experts that are not chosen. */
uint64_t facts_active_parameter_count(const model_facts *f);

uint32_t    facts_architecture_count(void);
const char *facts_architecture_name(uint32_t i); /* NULL past the end */
