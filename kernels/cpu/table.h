/* kernels/cpu/table.h: what an instruction set provides: each operator's inner loop over a part of its work, on the calling
 * thread. The drivers (matmul.c, attention.c, rows.c) cut the work and are the same for all. */
#pragma once
#include "kernels/attention.h"
#include "kernels/matmul.h"
#include "kernels/rows.h"

typedef struct {
    uint32_t panel_begin, panel_end, row_begin, row_end;
} matmul_part;

/* Of each of these kv heads, rows [begin, end) of (position in the run) x (its query heads), heads innermost. */
enum { ATTENTION_ROWS = 48 }; /* at most */
typedef struct {
    const kv_run *run;
    uint32_t      kv_head_begin, kv_head_end, begin, end;
} attention_part;

typedef struct cpu_kernels {
    const char *isa;
    void (*matmul[DTYPE_COUNT])(const matmul_args *a, matmul_part part, void *scratch);        /* packed */
    void (*matmul_mapped[DTYPE_COUNT])(const matmul_args *a, matmul_part part, void *scratch); /* row-major */
    void (*attention[DTYPE_COUNT])(const attention_args *a, attention_part part, void *scratch);
    void (*rope_kv)(const rope_kv_args *a, const kv_run *run, uint32_t row_begin, uint32_t row_end, void *scratch);
    void (*norm)(const norm_args *a, uint32_t row_begin, uint32_t row_end);
    void (*softmax)(float *x, uint32_t n); /* in place */
    float (*row_max)(const float *x, uint32_t n, float *block_max, bool *all_finite);
    uint64_t (*row_weights)(const float *x, uint32_t n, float maximum, float temperature, float *out, uint64_t *block_mass);
    void (*interleave)(const void *const rows[PANEL_COLS], uint32_t words, uint32_t *out); /* out[i][64] = rows[64][i] */
} cpu_kernels;
extern const cpu_kernels cpu_kernels_avx512, cpu_kernels_avx2, cpu_kernels_plain;

/* Sampling looks at logits in blocks, and counts mass in units of 2^-40 of the most likely token. */
enum { LOGIT_BLOCK = 64 };
#define MASS_ONE 0x1p40f

/* Rows of one matmul_part at most; scratch of a thread: the sums of one panel, or a row of heads, or an attention tile. */
enum { MATMUL_ROWS_MAX = 512, CPU_SCRATCH_BYTES = MATMUL_ROWS_MAX * PANEL_COLS * 4 };
