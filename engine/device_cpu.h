/* engine/device_cpu.h: private to the files device_cpu*.c: what the CPU device holds.
 *
 * device_cpu.c          the table of functions; rows, frames, binding, results
 * device_cpu_ops.c      one function per operator: builds the kernel's arguments from facts, weights and rows
 * device_cpu_weights.c  which matrices a model has; packing them
 * device_cpu_memory.c   sizes of everything, and huge pages
 * page_copier.c         pages to host memory and back */
#pragma once
#include "engine/device.h"
#include "engine/page_copier.h"
#include "engine/rope.h"
#include "kernels/cpu/cpu.h"

typedef struct {
    matrix  qkv, attn_out, gate_up, down, router, shared_gate_up, shared_down, shared_router;
    matrix *expert_gate_up, *expert_down; /* [expert_count] */
    float  *attn_norm, *ffn_norm, *q_norm, *k_norm;
    float  *qkv_bias, *attn_out_bias, *gate_up_bias, *down_bias; /* by packed column; NULL: none */
} layer_weights;

/* A matrix and the tensors it is made of; a vector and its. */
typedef struct {
    matrix     *m;
    uint32_t    layer, expert;
    tensor_role roles[MATRIX_PARTS_MAX];
} matrix_item;
typedef struct {
    float       **to;
    uint32_t      layer, count;
    tensor_role   roles[MATRIX_PARTS_MAX];
    const matrix *columns; /* biases are stored by this matrix's packed columns; NULL: as they are */
} vector_item;

typedef struct {
    layer_weights *layers;
    matrix         lm_head;
    float         *final_norm;
    bool           tied;      /* embedding rows are read from lm_head */
    tensor         embedding; /* where not tied */

    matrix_item *matrices;
    vector_item *vectors;
    uint32_t     matrix_count, vector_count;
} model_weights;

/* Lists what a model of these facts has, without any data. */
void     weights_list(model_weights *w, const model_facts *f);
void     weights_free(model_weights *w);
uint64_t weights_bytes(const model_weights *w, bool map_weights);
/* Fills d->weights, which are listed, from d->ckpt into d->weight_memory. */
int weights_load(device *d, error *err);

/* Sizes in bytes, from facts, program and configuration alone. */
typedef struct {
    uint64_t weights, pages, host_pages, frames, rows, workspace;
    uint64_t row_stride[ROW_BUFFER_COUNT];
    uint64_t logits_stride;
    uint32_t entries; /* rows_max * experts_per_token */
} device_sizes;
int          device_sizes_check(const model_facts *f, const device_config *c, error *err);
device_sizes device_sizes_of(const model_facts *f, const program *p, const device_config *c);
kv_layout    device_kv_layout(const model_facts *f, const device_config *c);
uint64_t     memory_available_bytes(void); /* 0: unknown */
/* Zeroed, in huge pages where the kernel gives them; never NULL without an error. */
void *memory_take(uint64_t bytes, const char *what, error *err);
void  memory_give(void *memory, uint64_t bytes);

/* Fixed buffers of a pass, overwritten by each. */
typedef struct {
    float         *logits;        /* [outputs_max][logits_stride] */
    float         *rotation;      /* [rows_max][head_dim] */
    float         *router_logits; /* [rows_max][experts up to 64] */
    float         *row_scale;     /* [rows_max], shared expert's gate */
    float         *shared_logits; /* [rows_max][64] */
    uint32_t      *tokens;        /* [rows_max] */
    char          *embedding;     /* [rows_max][width], random models */
    kv_run        *runs;          /* [rows_max] */
    sample_args   *samples;       /* [outputs_max] */
    sample_result *results;
    sampled       *sampled;
    char          *sample_work;
    matmul_args   *products; /* [expert_count] */
    expert_groups  groups;
    uint64_t      *h_offset, *f_offset, *x_offset; /* [entries] in order of expert */
    float         *route_weight;
    uint64_t      *output_offset; /* [outputs_max] of the output rows in X */
} pass_workspace;

struct device {
    const checkpoint  *ckpt;
    const model_facts *facts;
    const program     *program;
    device_config      config;
    device_sizes       sizes;
    dtype              activation;
    cpu                cpu;
    model_weights      weights;
    kv_layout          layout;
    double            *inverse_frequency; /* [head_dim / 2] */

    char          *weight_memory, *page_memory, *host_page_memory, *frame_memory, *row_memory, *workspace_memory;
    char          *rows[ROW_BUFFER_COUNT];
    pass_workspace work;
    page_copier   *copier; /* NULL: there are no host pages */

    uint32_t            row_count, run_count, output_count; /* of the last bind */
    const batch_run    *runs;
    const batch_output *outputs;
    device_stats        stats;
};

/* Carves pass_workspace out of memory; with memory NULL only counts. Returns bytes. */
uint64_t workspace_carve(pass_workspace *w, char *memory, const model_facts *f, const device_config *c,
                         const device_sizes *s);

typedef void (*device_op)(device *d, uint32_t layer);
extern const device_op device_cpu_ops[OP_KIND_COUNT];
void                   device_fill_rotation(device *d);
