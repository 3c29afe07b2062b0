/* kernels/cpu/cpu.h: the operators on this machine's CPU.
 *
 * `cpu` is a pool of threads, a table of kernels for one instruction set and scratch for each thread. Each function below
 * runs one operator over all its rows and returns when it is done; the contracts are in kernels/<operator>.h. */
#pragma once
#include <stdbool.h>

#include "base/buf.h"
#include "base/error.h"
#include "kernels/attention.h"
#include "kernels/cpu/pool.h"
#include "kernels/matmul.h"
#include "kernels/rows.h"
#include "kernels/sample.h"

/* Limits of one call: products or runs in a list, experts, values of all heads of a row. */
enum { MATMUL_LIST_MAX = 8192, EXPERTS_MAX = 1024, HEADS_DIM_MAX = 32768 };

typedef struct cpu_kernels cpu_kernels;

typedef struct {
    pool              *pool;
    const cpu_kernels *kernels;
    char              *scratch; /* scratch_bytes for each thread */
    size_t             scratch_bytes;
    uint32_t          *task_begin; /* [MATMUL_LIST_MAX + 1] */
} cpu;

/* isa: "auto", "avx512", "avx2", "plain". ERR_UNSUPPORTED where this machine lacks it. */
int  cpu_open(cpu *out, const char *isa, uint32_t threads, error *err);
void cpu_close(cpu *c);

const char *cpu_isa_name(uint32_t i); /* best first; NULL past the end */
bool        cpu_has_isa(const char *isa);
void        cpu_describe(const cpu *c, buf *out); /* which function serves which operator and type */

/* Bytes of weights the products read are counted by whoever builds the arguments. */
void cpu_matmul(cpu *c, const matmul_args *a);
/* Independent products in one loop over all threads. */
void cpu_matmul_each(cpu *c, const matmul_args *list, uint32_t count);
/* Products that add to the same rows: list[0] first, then list[1], ...; all of one shape. */
void cpu_matmul_in_turn(cpu *c, const matmul_args *list, uint32_t count);
void cpu_attention(cpu *c, const attention_args *a);
void cpu_rope_kv(cpu *c, const rope_kv_args *a);
void cpu_norm(cpu *c, const norm_args *a);
void cpu_embed(cpu *c, const embed_args *a);
void cpu_route(cpu *c, const route_args *a);
void cpu_group_by_expert(const route_args *a, expert_groups *out);
/* One row each, all of one vocabulary. work: cpu_sample_work_bytes for each thread, 64-byte aligned, zero before first use.
 */
void   cpu_sample(cpu *c, const sample_args *list, uint32_t count, void *work, sample_result *out);
size_t cpu_sample_work_bytes(uint32_t vocab);

/* Packing. `read` returns row `row` of part `part` in the matrix's type, k values; it may put them into `work` (k values
 * and 64 bytes more). It is called from any thread; each brings its own cpu_pack_work_bytes. */
typedef struct {
    const void *(*read)(const void *context, uint32_t part, uint32_t row, void *work);
    const void *context;
} matrix_rows;
void   cpu_pack_panel(const cpu *c, const matrix *m, uint32_t panel, const matrix_rows *rows, void *work);
size_t cpu_pack_work_bytes(const matrix *m);
