/* models/architecture.h: the two tables that say what a model consists of.
 *
 * Problem: eight published architectures differ in a few switches, a few default values and the spelling of a few
 * names. Choice: a row per architecture (defaults of its published configuration class, which keys it honours, how it
 * spells its tensors) and a row per tensor role (its shape in terms of the facts, and when it exists). Reading a config,
 * counting parameters, checking a checkpoint and drawing a random one all walk these two tables, so a new relative of
 * the family is a row, and a count cannot disagree with a check. */
#pragma once
#include "models/checkpoint.h"

/* Which layers a `sliding_window` in the config applies to. */
typedef enum {
    WINDOW_NONE,   /* the architecture has no such key */
    WINDOW_ALL,    /* every layer */
    WINDOW_SWITCH, /* every layer, where use_sliding_window says so */
    WINDOW_FROM,   /* with the switch: layers max_window_layers and up, or as layer_types lists */
    WINDOW_EVEN,   /* with the switch: even layers below max_window_layers, or as layer_types lists */
} window_rule;

/* 0 or NULL: the architecture has no such thing, or the value follows from others as the comment says. */
typedef struct {
    const char  *name, *model_type; /* config.json's architectures[0] and model_type */
    uint32_t     kv_head_count;     /* 0: as many as heads */
    uint32_t     head_dim;          /* 0: width / heads */
    uint32_t     context_max;
    float        norm_eps, rope_theta;
    int64_t      bos_id, eos_id; /* -1: none */
    window_rule  window_rule;
    uint32_t     sliding_window;
    const char  *bias_key;                   /* of q, k, v */
    bool         bias_default, bias_on_out;  /* and of o */
    bool         has_mlp_bias, has_qkv_clip; /* keys mlp_bias, clip_qkv */
    qk_norm_kind qk_norm;

    bool        is_moe, has_shared, has_sparse_step; /* keys shared_expert_..., decoder_sparse_step and mlp_only_layers */
    bool        always_renormalizes;                 /* else key norm_topk_prob */
    uint32_t    expert_count, experts_per_token;
    const char *expert_width_key;
    uint32_t    expert_width, shared_width;
    const char *const *names; /* by role, where they differ from the common ones (NULL: not) */
} architecture;

extern const architecture architectures[];
extern const uint32_t     architecture_count;
const architecture       *architecture_find(const char *name); /* NULL: not in the table */

typedef enum { SCOPE_MODEL, SCOPE_LAYER, SCOPE_EXPERT } role_scope;
role_scope  role_scope_of(tensor_role r);
const char *role_label(tensor_role r); /* "attention norm" */
bool        role_is_vector(tensor_role r);
bool        role_is_bias(tensor_role r);

/* Whether layer `layer` of a model with these facts has a tensor of this role (the layer is ignored for SCOPE_MODEL);
 * where it has, its shape. A tied lm_head does not exist. */
bool role_shape(const model_facts *f, tensor_role r, uint32_t layer, uint32_t *rows, uint32_t *cols);

/* The tensor's published name; out holds ROLE_NAME_MAX bytes. */
enum { ROLE_NAME_MAX = 128 };
void role_name(char *out, const model_facts *f, tensor_role r, uint32_t layer, uint32_t expert);
