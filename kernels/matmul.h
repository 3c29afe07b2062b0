/* kernels/matmul.h: rows times a weight matrix, with what follows it done while the result is still in the cache.
 *
 *     out[i, c] = finish( sum over j of a[i, j] * w[c, j] )        w: [n, k], a row per output, as checkpoints store it
 *
 * Layout. A matrix is stored in panels of 64 output columns: bf16 as [panel][k/2][64][2], f16 and f32 as [panel][k][64]
 * (k rounded up to even, columns up to 64, both with zeros). So one row of the panel is what one step over k needs, and a
 * thread that walks a panel reads one sequential stream. Columns come from up to three checkpoint tensors ("parts"), placed
 * by `order`; `data == NULL` leaves the matrix where it is, row-major in the mapped file (less memory, slower).
 *
 * Numbers. Each output is one chain of multiply-adds over j in rising order, for any number of rows, any tiling and any
 * thread. That is the whole trick behind "numbers do not depend on the neighbour", and it costs nothing: the many-row
 * tile keeps 24 such chains in registers, the one-row tile 4. (Unpacked matrices use another fixed order.) */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/dtype.h"

enum { PANEL_COLS = 64, GATE_UP_COLS = PANEL_COLS / 2, MATRIX_PARTS_MAX = 3 };

typedef enum {
    PARTS_IN_TURN,    /* part 0, then 1, then 2, each starting a new panel: q, k, v */
    PARTS_INTERLEAVED /* a panel is 32 columns of part 0 (gate), then the same 32 of part 1 (up) */
} part_order;

typedef struct {
    uint32_t    rows; /* output columns that come from this part */
    const void *data; /* row-major [rows][k] of the matrix's type, any alignment; may be NULL once packed */
} matrix_part;

typedef struct {
    dtype       type;
    uint32_t    k;
    part_order  order;
    uint32_t    part_count;
    matrix_part parts[MATRIX_PARTS_MAX];
    void       *data; /* packed, 64-byte aligned; NULL: use the parts */
} matrix;

uint32_t             matrix_panels(const matrix *m);
size_t               matrix_panel_bytes(const matrix *m);
static inline size_t matrix_bytes(const matrix *m) { return matrix_panels(m) * matrix_panel_bytes(m); } /* when packed */

/* Where column `column` of panel `panel` comes from: part and row in it; false: padding. */
typedef struct {
    uint32_t part, row;
} matrix_source;
bool matrix_column_source(const matrix *m, uint32_t panel, uint32_t column, matrix_source *out);
/* The part a panel belongs to and the first of its columns there (PARTS_INTERLEAVED: of both parts; part is 0). */
matrix_source matrix_panel_source(const matrix *m, uint32_t panel);

typedef enum {
    OUT_F32,       /* out[part][row, c] = v */
    OUT_BF16,      /* the same, rounded */
    OUT_ADD,       /* out[0][row, c] += v; f32 (the residual stream) */
    OUT_SILU_F32,  /* PARTS_INTERLEAVED: out[0][row, c] = silu(gate) * up, in f32 ... */
    OUT_SILU_BF16, /* ... or rounded */
} out_kind;

/* Row i of an operand starts at base + (offsets ? offsets[i] : i * stride), all in bytes. */
typedef struct {
    void           *base;
    size_t          stride;
    const uint64_t *offsets;
} rows_at;
static inline char *row_of(const rows_at *r, uint32_t i) {
    return (char *)r->base + (r->offsets ? r->offsets[i] : (size_t)i * r->stride);
}

typedef struct {
    const matrix *w;
    uint32_t      rows;
    rows_at       a; /* bf16 where w is bf16, else f32; k values a row, 4-byte aligned; for odd k the value past the
                        end is read (and multiplied by zero): it must be there and finite */
    out_kind     kind;
    rows_at      out[MATRIX_PARTS_MAX];
    const float *bias;  /* by packed column, panels * 64; added first; NULL: none */
    const float *scale; /* [rows], multiplies after the activation, before OUT_ADD adds; NULL: none */
} matmul_args;
