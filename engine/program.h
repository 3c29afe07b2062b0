/* engine/program.h: the forward pass as data: a straight line of operators over named row buffers.
 *
 * A row is one token of one sequence. Each operator reads and writes row buffers (a bit mask each), so what must be kept
 * to stop before any operator and come back is not a special case: it is the set of buffers that are live there, found
 * by one backward walk over the program. The same table is costed by the memory plan, the simulator and the benches. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "models/facts.h"

typedef enum {
    OP_EMBED,        /* token -> X */
    OP_ATTN_NORM,    /* X -> H */
    OP_QKV,          /* H -> Q, K, V (bias) */
    OP_ROPE_KV,      /* Q, K, V -> Q in place; K and V into the pages (QK norm, clip, rotary embedding) */
    OP_ATTENTION,    /* Q, pages -> A */
    OP_ATTN_OUT,     /* A, X -> X */
    OP_FFN_NORM,     /* X -> H */
    OP_GATE_UP,      /* H -> F; dense layers */
    OP_DOWN,         /* F, X -> X; dense layers */
    OP_ROUTE,        /* H -> R: expert ids and weights */
    OP_EXPERTS_UP,   /* H, R -> F: one activation row per chosen expert */
    OP_EXPERTS_DOWN, /* F, R, X -> X: weighted sum in the order of R */
    OP_SHARED_UP,    /* H -> S; models with a shared expert: also its gate */
    OP_SHARED_DOWN,  /* S, X -> X */
    OP_FINAL_NORM,   /* X -> H; output rows only, from here on */
    OP_LOGITS,       /* H -> L */
    OP_SAMPLE,       /* L -> one token id per output row */
    OP_KIND_COUNT
} op_kind;

typedef enum { ROW_X, ROW_H, ROW_Q, ROW_K, ROW_V, ROW_A, ROW_R, ROW_F, ROW_S, ROW_BUFFER_COUNT } row_buffer;
/* L (logits) belongs to the output rows and never outlives a pass. */

typedef struct {
    uint8_t  kind; /* op_kind */
    uint16_t layer;
    uint16_t reads, writes; /* masks of 1 << row_buffer */
} op;

typedef struct {
    uint32_t  op_count, layer_count;
    dtype     activation; /* of every buffer but X and R, and of K and V in the pages */
    op       *ops;
    uint16_t *live;          /* [op_count + 1]: buffers of a row that must survive a stop before operator i */
    uint32_t *layer_begin;   /* [layer_count + 1]: first operator of each layer; [layer_count] is OP_FINAL_NORM */
    uint32_t  outputs_begin; /* past the last KV write: from here on only rows whose next token is drawn are of use */
    uint32_t  row_bytes[ROW_BUFFER_COUNT]; /* width of one row in each buffer */
    uint32_t  frame_row_bytes;             /* the widest live set */
    uint32_t  kv_row_bytes;                /* K and V of one token in one layer */
} program;

/* activation: DTYPE_BF16 where matrices are bf16, else DTYPE_F32. X and R are f32 (R: {u32 id, f32 weight} pairs). */
int  program_build(program *out, const model_facts *f, dtype activation, error *err);
void program_free(program *p);

static inline dtype program_activation(const model_facts *f) { return f->weights == DTYPE_BF16 ? DTYPE_BF16 : DTYPE_F32; }

const char *op_name(op_kind kind); /* "attention" */

/* What one operator is given to do in one pass. */
typedef struct {
    uint32_t rows, outputs;   /* bound rows; rows whose next token is drawn */
    uint64_t context_tokens;  /* positions each row attends to in this layer, summed over the rows */
    uint64_t kv_tokens;       /* distinct positions among them: a sequence's rows of one pass share what they read */
    uint32_t experts_touched; /* distinct experts (OP_EXPERTS_*) */
} op_load;

/* What that costs, for roofline lines and the simulator. Weights count once however many rows use them. */
typedef struct {
    double flops, weight_bytes, kv_bytes, activation_bytes, rows;
} op_cost;
op_cost program_cost(const program *p, const model_facts *f, uint32_t op_index, const op_load *load);

/* Experts that `rows` rows are expected to touch in one layer, were each choice uniform: E (1 - (1 - k/E)^rows). */
double program_expected_experts(const model_facts *f, uint32_t rows);
