/* kernels/cuda/object.h: the table of functions that penstock-cuda.so exports, and all that the daemon knows of CUDA.
 *
 * The daemon needs no library of CUDA's. It opens the object at start (engine/cuda_object.h), which is linked to the CUDA
 * runtime and looks for the driver itself, and takes from it one table. The tests put a table in its place whose GPU is
 * tests/cuda/emulation.h.
 *
 * A queue does what it is given in that order, later; two queues know nothing of each other but by events. `wait` is when
 * trouble comes to light: whatever failed since the last one, with CUDA's own word for it. Host memory that a queue copies
 * from or to must be from take_host, or the copy is waited for. One thread uses a queue. */
#pragma once
#include "kernels/cuda/attention.h"
#include "kernels/cuda/experts.h"
#include "kernels/cuda/rope.h"
#include "kernels/cuda/rows.h"
#include "kernels/cuda/sample.h"

enum { CUDA_OBJECT_VERSION = 1, CUDA_CAPABILITY_MIN = 80 };
#define CUDA_OBJECT_SYMBOL "penstock_cuda_object"

typedef struct {
    char     name[64];
    uint32_t capability, multiprocessors; /* 90: compute capability 9.0 */
    uint64_t memory_bytes, free_bytes;
} cuda_card;

typedef struct cuda_event cuda_event;

typedef struct {
    uint32_t version, bytes; /* CUDA_OBJECT_VERSION; of this table */

    /* The GPU that the calling thread will use. false: none, and why not, as what follows "because". */
    bool (*find)(cuda_card *out, char *why, size_t why_size);

    /* Memory of the GPU, and of the host where the GPU can reach it; 256-byte aligned, uninitialized. NULL: there is none.
     */
    void *(*take)(size_t bytes);
    void (*give)(void *memory);
    void *(*take_host)(size_t bytes);
    void (*give_host)(void *memory);

    cuda_queue *(*queue_new)(void); /* NULL: none */
    void (*queue_free)(cuda_queue *q);
    void (*queue_says)(cuda_queue *q, bool says); /* prints each launch */
    /* Waits for all that was given to the queue. false: something failed since the last wait; the device is lost. */
    bool (*wait)(cuda_queue *q, char *why, size_t why_size);

    cuda_event *(*event_new)(void); /* NULL: none */
    void (*event_free)(cuda_event *e);
    void (*event_record)(cuda_queue *q, cuda_event *e); /* passes when the queue gets there */
    void (*event_await)(cuda_queue *q, cuda_event *e);  /* what is given to this queue from now on is done after it */
    bool (*event_passed)(cuda_event *e);
    bool (*event_wait)(cuda_event *e, char *why, size_t why_size); /* the host waits; false as wait. Unrecorded: at once */

    /* Between any two memories, which do not overlap. copy_rows: `bytes` of each of `rows` rows. */
    void (*copy)(cuda_queue *q, void *to, const void *from, size_t bytes);
    void (*copy_rows)(cuda_queue *q, void *to, size_t to_stride, const void *from, size_t from_stride, size_t bytes,
                      size_t rows);
    void (*zero)(cuda_queue *q, void *memory, size_t bytes);

    void (*embed)(cuda_queue *q, const cuda_embed_args *a);
    void (*norm)(cuda_queue *q, const cuda_norm_args *a);
    void (*product)(cuda_queue *q, const cuda_product_args *a);
    void (*rope)(cuda_queue *q, const cuda_rope_args *a);
    void (*route)(cuda_queue *q, const cuda_route_args *a);
    void (*group)(cuda_queue *q, const cuda_group_args *a);
    void (*combine)(cuda_queue *q, const cuda_combine_args *a);
    void (*attention)(cuda_queue *q, const cuda_attention_args *a);
    void (*sample)(cuda_queue *q, const cuda_sample_args *a);

    /* What the host must know of them: their headers say what it is. */
    uint32_t (*few_tiles_max)(uint32_t rows, uint32_t chosen, uint32_t experts);
    uint32_t (*many_tiles_max)(uint32_t rows, uint32_t chosen, uint32_t experts);
    bool (*attention_has_tiles)(const cuda_attention_facts *f);
    uint32_t (*attention_many_max)(const cuda_attention_facts *f, uint32_t rows, uint32_t runs);
    bool (*attention_make)(cuda_attention_plan *p, const cuda_attention_facts *f, const cuda_run *runs, uint32_t count);
    uint32_t (*attention_within)(const cuda_attention_facts *f, const cuda_attention_item *items, uint32_t begin,
                                 uint32_t count, double flops_max);
    size_t (*attention_partial_bytes)(const cuda_attention_facts *f, uint32_t partials);
    size_t (*sample_work_bytes)(uint32_t vocab);
    void (*sample_finish)(const cuda_sample_result *r, bool with_logprobs, sample_result *out);
} cuda_object;

CUDA_C const cuda_object *penstock_cuda_object(void);
