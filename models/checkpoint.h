/* models/checkpoint.h: the tensors of a model, found by role.
 *
 * A checkpoint is a folder as published (config.json, model.safetensors or shards with an index) or `random:NAME`, a
 * well-known shape whose weights are drawn from a seed by whoever packs them. Files are mapped, not read; every header
 * is checked before any of it is believed (safetensors.c), and every tensor the facts call for must be there with the
 * expected shape and a supported type. */
#pragma once
#include "base/buf.h"
#include "models/facts.h"

/* clang-format off */
typedef enum {
    ROLE_EMBED,      /* [vocab, width] */
    ROLE_FINAL_NORM, /* [width] */
    ROLE_LM_HEAD,    /* [vocab, width]; the embedding where tied */
    ROLE_ATTN_NORM,  /* [width] */
    ROLE_Q, ROLE_K, ROLE_V,                /* [heads*head_dim, width], [kv_heads*head_dim, width] twice */
    ROLE_Q_BIAS, ROLE_K_BIAS, ROLE_V_BIAS, /* [rows of the matrix] */
    ROLE_Q_NORM, ROLE_K_NORM,              /* [head_dim], or [rows of the matrix] for QK_NORM_FULL */
    ROLE_O, ROLE_O_BIAS,                   /* [width, heads*head_dim], [width] */
    ROLE_FFN_NORM,                         /* [width] */
    ROLE_GATE, ROLE_UP, ROLE_DOWN,         /* [ffn_width, width] twice, [width, ffn_width] */
    ROLE_GATE_BIAS, ROLE_UP_BIAS, ROLE_DOWN_BIAS,
    ROLE_ROUTER,                           /* [experts, width] */
    ROLE_EXPERT_GATE, ROLE_EXPERT_UP, ROLE_EXPERT_DOWN, /* per expert, as the dense ones with expert_width */
    ROLE_SHARED_GATE, ROLE_SHARED_UP, ROLE_SHARED_DOWN, /* with shared_width */
    ROLE_SHARED_ROUTER,                    /* [1, width] */
    ROLE_COUNT
} tensor_role;
/* clang-format on */

typedef struct {
    dtype       type;
    uint32_t    rows, cols; /* a vector has rows 1 */
    const void *data;       /* row-major, aligned to the element; NULL: draw from `seed` (tensor_random_row) */
    uint64_t    seed;
    float       scale; /* random: standard deviation; 0: all ones (norms); negative: all zeros (biases) */
} tensor;

typedef struct checkpoint checkpoint;

/* name: a folder, or "random:NAME". Bounded time: headers and shapes only. */
int  checkpoint_open(checkpoint **out, const char *name, error *err);
void checkpoint_close(checkpoint *c);

const model_facts *checkpoint_facts(const checkpoint *c);
const char        *checkpoint_dir(const checkpoint *c); /* where the tokenizer files are; NULL for random: */
/* Whether there is such a tensor: a role the model has, a layer and an expert in range. Always so for ROLE_LM_HEAD. */
bool checkpoint_has(const checkpoint *c, tensor_role role, uint32_t layer, uint32_t expert);
/* The tensor must exist by the facts (checked at open); layer and expert are ignored where the role has none. */
tensor   checkpoint_tensor(const checkpoint *c, tensor_role role, uint32_t layer, uint32_t expert);
uint64_t checkpoint_bytes(const checkpoint *c); /* of all tensors, as stored; a tied lm_head counts once */

/* Tells the kernel that the mapped bytes of this tensor will be read soon / not again. */
void checkpoint_will_read(const checkpoint *c, const tensor *t);
void checkpoint_was_read(const checkpoint *c, const tensor *t);

/* Row `row` of a random tensor (bf16 or f32), `cols` values of its type, from base/rng.h: the same on every device
 * (the rule is in models/random.c). Threads may draw different rows at once. */
void tensor_random_row(const tensor *t, uint32_t row, void *out);

/* The shapes there are, as given to checkpoint_open ("random:llama-160m"), for --help; NULL past the end. */
const char *checkpoint_random_name(uint32_t i);

/* `penstock inspect`: facts, tensors by role, bytes; some ten lines of text. */
void checkpoint_describe(const checkpoint *c, buf *out);
