/* engine/device_cuda.h: private to the files device_cuda*.c: what the CUDA device holds.
 *
 * device_cuda.c          the table of functions; frames, results
 * device_cuda_bind.c     a batch becomes one block of device memory, by one copy
 * device_cuda_ops.c      one function per operator: builds the kernel's arguments from facts, weights and rows
 * device_cuda_weights.c  which matrices a model has; bringing them to the GPU
 * device_cuda_copies.c   pages to host memory and back
 * device_cuda_memory.c   sizes of everything, decided before any of it is taken
 *
 * Operators are only launched: the GPU does them later, in order. The host runs ahead by OPS_AHEAD of them and waits for the
 * oldest before it launches the next, so that a stop is felt soon and a failure found near its operator. It waits for all of
 * them in collect. */
#pragma once
#include "engine/cuda_object.h"
#include "engine/device.h"
#include "engine/rope.h"
#include "kernels/cpu/pool.h"

enum { OPS_AHEAD = 4, BINDS_AHEAD = 4, WINDOWS_MAX = 4, PARTS_MAX = 3, STAGES_OF_LOADING = 2 };

/* Which rows of which tensors make up a matrix's outputs, or a vector's values. */
typedef struct {
    tensor_role roles[PARTS_MAX];
    uint32_t    begin[PARTS_MAX], rows[PARTS_MAX]; /* part i is outputs [begin, begin + rows) */
    uint32_t    part_count;
    bool        is_gate_up; /* parts 0 and 1 alternate in groups of eight (kernels/cuda/blocks.h) */
} gpu_parts;

typedef struct {
    cuda_matrix qkv, attn_out, gate_up, down, router, expert_gate_up, expert_down, shared_gate_up, shared_down,
        shared_router;
    float *attn_norm, *ffn_norm, *q_norm, *k_norm;
    float *qkv_bias, *attn_out_bias, *gate_up_bias, *down_bias; /* by output; NULL: none */
} gpu_layer;

typedef struct {
    cuda_matrix *m;
    uint32_t     layer, experts; /* experts: matrices of this shape, one after another */
    gpu_parts    parts;
} gpu_matrix_item;
typedef struct {
    float   **to;
    uint32_t  layer, count;
    gpu_parts parts;
} gpu_vector_item;

typedef struct {
    gpu_layer       *layers;
    cuda_matrix      lm_head, embedding; /* embedding: where not tied */
    float           *final_norm;
    gpu_matrix_item *matrices;
    gpu_vector_item *vectors;
    uint32_t         matrix_count, vector_count;
} gpu_weights;

/* Lists what a model of these facts has, without any data. */
void gpu_weights_list(gpu_weights *w, const model_facts *f);
void gpu_weights_free(gpu_weights *w);
/* Places all of it in `memory` (NULL: only counts). Returns bytes. */
uint64_t gpu_weights_place(gpu_weights *w, char *memory);
/* Fills them from d->ckpt. */
int gpu_weights_load(device *d, error *err);
/* Copies host values to the GPU through the loading stages: fill(context, first, count, to) writes values of `bytes` each.
 */
typedef void (*gpu_fill)(void *context, uint64_t first, uint64_t count, char *to);
void gpu_upload(device *d, void *to, uint64_t count, uint64_t bytes, gpu_fill fill, void *context);

/* Where a row of a buffer lies: q, k and v are columns of one row, as their product writes it. */
typedef struct {
    char    *base;
    size_t   stride;
    uint32_t bytes; /* of a row, a multiple of 16 */
} gpu_rows;

/* The lists of one kind of attention layer, for the bound rows. */
typedef struct {
    cuda_attention_facts        facts;
    cuda_attention_plan         plan; /* on the host */
    const cuda_attention_item  *items[2];
    const cuda_attention_merge *merges;
} gpu_window;

/* Everything but weights, pages and frames that lies in GPU memory. */
typedef struct {
    gpu_rows            rows[ROW_BUFFER_COUNT];
    float              *logits, *router_logits, *shared_logits, *expert_parts, *rotation;
    cuda_groups         groups;
    char               *bound; /* what the last bind copied here */
    float              *partials;
    cuda_sample_row    *sample_rows;
    uint32_t           *sample_ids;
    float              *sample_values;
    void               *sample_work;
    cuda_sample_result *results;
} gpu_workspace;

/* Host memory that the GPU copies from and to. */
typedef struct {
    char               *bound[BINDS_AHEAD];
    char               *loading[STAGES_OF_LOADING]; /* taken while loading only */
    cuda_sample_row    *sample_rows;
    uint32_t           *sample_ids;
    float              *sample_values;
    cuda_sample_result *results;
    cuda_group_counts  *counts;
} gpu_pinned;

typedef struct {
    uint64_t weights, pages, host_pages, frames, rows, workspace, pinned;
    uint64_t loading_bytes;               /* of one stage */
    uint32_t frame_row_bytes, slot_bytes; /* slot: of one expert's activations in a row of F */
    size_t   logits_stride, part_stride, router_stride;
    uint32_t k_begin, v_begin, qkv_outputs; /* outputs of the merged product */
    uint64_t bound_bytes;
    uint32_t page_ids_max, few_items_max, many_items_max, merges_max, partials_max;
    uint32_t sample_slots, sample_ids_max, sample_values_max;
    uint32_t windows[WINDOWS_MAX], window_count;
} gpu_sizes;

int        gpu_sizes_check(const model_facts *f, const device_config *c, error *err);
gpu_sizes  gpu_sizes_of(const cuda_object *o, const model_facts *f, const program *p, const device_config *c);
cuda_pages gpu_pages_of(const model_facts *f, const device_config *c);
/* Places things in memory (NULL: only counts). Return bytes. */
uint64_t gpu_place_rows(gpu_workspace *w, char *memory, const model_facts *f, const program *p, const device_config *c,
                        const gpu_sizes *s);
uint64_t gpu_place_workspace(gpu_workspace *w, char *memory, const cuda_object *o, const model_facts *f,
                             const device_config *c, const gpu_sizes *s);
uint64_t gpu_place_pinned(gpu_pinned *h, char *memory, const device_config *c, const gpu_sizes *s);

/* Copies of pages that were begun and not told of. */
typedef struct {
    cuda_queue *queue;
    char       *memory; /* the host pages */
    cuda_event *pass, **ended;
    uint64_t   *ids; /* [copies_max], as ended */
    uint64_t    begun, told;
} gpu_copies;

struct device {
    const checkpoint  *ckpt;
    const model_facts *facts;
    const program     *program;
    device_config      config;
    dtype              activation;
    const cuda_object *cuda;
    cuda_queue        *queue;
    gpu_sizes          sizes;
    gpu_weights        weights;
    cuda_pages         layout;

    char         *weight_memory, *page_memory, *frame_memory, *row_memory, *workspace_memory, *pinned_memory;
    gpu_workspace work;
    gpu_pinned    host;
    gpu_copies    copies;

    /* of the last bind */
    uint32_t            row_count, run_count, output_count;
    const batch_run    *runs;
    const batch_output *outputs;
    cuda_batch          batch;
    gpu_window          windows[WINDOWS_MAX];
    uint32_t            grouped; /* 1 + the layer whose rows are grouped by expert; 0: none */
    cuda_run           *host_runs;

    cuda_event *bound[BINDS_AHEAD], *done[OPS_AHEAD], *sampled, *loaded[STAGES_OF_LOADING];
    uint64_t    binds, ops, uploads;
    uint8_t     op_kinds[OPS_AHEAD];

    device_stats stats;
    uint64_t     dense_bytes; /* of weights, read so far */
};

int gpu_bind(device *d, const batch *b, error *err);

int      gpu_copies_open(device *d, error *err);
void     gpu_copies_close(device *d);
int      gpu_copy_pages(device *d, const page_copy *copies, uint32_t count, error *err);
int      gpu_await_copy(device *d, uint64_t id, error *err);
uint32_t gpu_copies_done(device *d, bool wait, copied_page *out, uint32_t max);

typedef void (*gpu_op)(device *d, uint32_t layer);
extern const gpu_op device_cuda_ops[OP_KIND_COUNT];
