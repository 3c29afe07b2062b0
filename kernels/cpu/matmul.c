/* Cuts products into tasks. A task is whole panels of a range of rows: with few rows as many neighbouring panels as make a
 * stream worth prefetching, with many rows one panel. The cut never changes a result (kernels/matmul.h). */
#include "kernels/matmul.h"

#include <string.h>

#include "base/error.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/table.h"

static uint32_t ceil_div(uint32_t a, uint32_t b) { return a / b + (a % b != 0); }
static uint32_t part_panels(const matrix *m, uint32_t part) {
    return ceil_div(m->parts[part].rows, m->order == PARTS_INTERLEAVED ? GATE_UP_COLS : PANEL_COLS);
}

uint32_t matrix_panels(const matrix *m) {
    if (m->order == PARTS_INTERLEAVED) return part_panels(m, 0);
    uint32_t n = 0;
    for (uint32_t i = 0; i < m->part_count; i++) n += part_panels(m, i);
    return n;
}

size_t matrix_panel_bytes(const matrix *m) {
    size_t k = m->type == DTYPE_BF16 ? (m->k + 1) / 2 * 2 : m->k;
    return k * PANEL_COLS * dtype_bytes(m->type);
}

matrix_source matrix_panel_source(const matrix *m, uint32_t panel) {
    if (m->order == PARTS_INTERLEAVED) return (matrix_source){0, panel * GATE_UP_COLS};
    uint32_t part = 0;
    while (part + 1 < m->part_count && panel >= part_panels(m, part)) panel -= part_panels(m, part++);
    return (matrix_source){part, panel * PANEL_COLS};
}

bool matrix_column_source(const matrix *m, uint32_t panel, uint32_t column, matrix_source *out) {
    *out = matrix_panel_source(m, panel);
    if (m->order == PARTS_INTERLEAVED) out->part = column / GATE_UP_COLS, column %= GATE_UP_COLS;
    out->row += column;
    return out->row < m->parts[out->part].rows;
}

/* ---- packing ---- */

static size_t row_bytes_padded(const matrix *m) { return ((size_t)m->k * dtype_bytes(m->type) + 127) / 64 * 64; }

size_t cpu_pack_work_bytes(const matrix *m) { return (PANEL_COLS + 1) * row_bytes_padded(m); }

/* Whole words of every column: an odd last value gets a zero beside it. */
static const void *whole_words(const matrix *m, const void *row, char *work) {
    if (m->type != DTYPE_BF16 || m->k % 2 == 0) return row;
    if (row != work) memcpy(work, row, (size_t)m->k * 2);
    memset(work + (size_t)m->k * 2, 0, 2);
    return work;
}

static void interleave16(const void *const rows[PANEL_COLS], uint32_t k, uint16_t *out) {
    for (uint32_t c = 0; c < PANEL_COLS; c++)
        for (uint32_t j = 0; j < k; j++) memcpy(out + (size_t)j * PANEL_COLS + c, (const char *)rows[c] + 2 * (size_t)j, 2);
}

void cpu_pack_panels(const cpu *c, const matrix *m, uint32_t begin, uint32_t end, matrix_row_reader read_row, void *context,
                     void *work) {
    size_t stride = row_bytes_padded(m);
    char  *zero = (char *)work + PANEL_COLS * stride;
    memset(zero, 0, stride);
    for (uint32_t p = begin; p < end; p++) {
        const void *rows[PANEL_COLS];
        for (uint32_t column = 0; column < PANEL_COLS; column++) {
            matrix_source at;
            char         *own = (char *)work + column * stride;
            rows[column] = zero;
            if (matrix_column_source(m, p, column, &at))
                rows[column] = whole_words(m, read_row(context, at.part, at.row, own), own);
        }
        void *out = (char *)m->data + (size_t)p * matrix_panel_bytes(m);
        if (m->type == DTYPE_F16) interleave16(rows, m->k, out);
        else c->kernels->interleave(rows, m->type == DTYPE_BF16 ? (m->k + 1) / 2 : m->k, out);
    }
}

/* ---- cutting ---- */

enum { STREAM_BYTES = 256 << 10, ALONE_BYTES = 96 << 10, FEW_ROWS = 32, ROW_BLOCK_MIN = 48, TASKS_PER_THREAD = 4 };

typedef struct {
    uint32_t panel_tasks, row_tasks;
} task_cut;

static uint32_t between(uint64_t x, uint32_t low, uint32_t high) { return x < low ? low : x > high ? high : (uint32_t)x; }

/* Few rows: streams of equal length, as many for each thread; none at all where waking a thread takes longer. */
static uint32_t streams_of(const cpu *c, const matmul_args *a, uint32_t panels) {
    uint64_t bytes = (uint64_t)panels * matrix_panel_bytes(a->w), threads = pool_threads(c->pool);
    if (bytes * a->rows < ALONE_BYTES) return 1;
    return between((bytes + threads * STREAM_BYTES / 2) / (threads * STREAM_BYTES), 1, panels) * (uint32_t)threads;
}

static task_cut cut_of(const cpu *c, const matmul_args *a) {
    uint32_t panels = matrix_panels(a->w), wanted = TASKS_PER_THREAD * pool_threads(c->pool);
    task_cut cut = {panels, ceil_div(a->rows, MATMUL_ROWS_MAX)};
    if (a->rows <= FEW_ROWS) cut.panel_tasks = between(streams_of(c, a, panels), 1, panels);
    else if (panels * cut.row_tasks < wanted)
        cut.row_tasks = between(ceil_div(wanted, panels), cut.row_tasks, ceil_div(a->rows, ROW_BLOCK_MIN));
    return cut;
}

static uint32_t share(uint32_t total, uint32_t i, uint32_t n) { return (uint32_t)((uint64_t)total * i / n); }

static void run_part(const cpu *c, const matmul_args *a, matmul_part part, uint32_t worker) {
    void *scratch = c->scratch + worker * c->scratch_bytes;
    if (a->w->data) c->kernels->matmul[a->w->type](a, part, scratch);
    else c->kernels->matmul_mapped[a->w->type](a, part, scratch);
}

typedef struct {
    cpu               *c;
    const matmul_args *list;
    uint32_t           count;
    uint32_t           panel_tasks;
} matmul_job;

static void run_task(void *context, uint32_t task, uint32_t worker) {
    const matmul_job  *j = context;
    const matmul_args *a = j->list;
    if (j->count > 1) { /* the product this task belongs to: binary search over the first tasks */
        uint32_t low = 0, high = j->count;
        while (high - low > 1) {
            uint32_t middle = (low + high) / 2;
            if (j->c->task_begin[middle] <= task) low = middle;
            else high = middle;
        }
        a += low, task -= j->c->task_begin[low];
    }
    task_cut    cut = cut_of(j->c, a);
    uint32_t    p = task % cut.panel_tasks, r = task / cut.panel_tasks, panels = matrix_panels(a->w);
    matmul_part part = {share(panels, p, cut.panel_tasks), share(panels, p + 1, cut.panel_tasks),
                        share(a->rows, r, cut.row_tasks), share(a->rows, r + 1, cut.row_tasks)};
    run_part(j->c, a, part, worker);
}

void cpu_matmul_each(cpu *c, const matmul_args *list, uint32_t count) {
    check(count <= MATMUL_LIST_MAX);
    uint32_t tasks = 0;
    for (uint32_t i = 0; i < count; i++) {
        task_cut cut = cut_of(c, &list[i]);
        c->task_begin[i] = tasks;
        tasks += cut.panel_tasks * cut.row_tasks;
    }
    pool_run(c->pool, tasks, run_task, &(matmul_job){c, list, count, 0});
}

void cpu_matmul(cpu *c, const matmul_args *a) { cpu_matmul_each(c, a, 1); }

static void run_in_turn(void *context, uint32_t task, uint32_t worker) {
    const matmul_job *j = context;
    uint32_t          panels = matrix_panels(j->list[0].w);
    for (uint32_t i = 0; i < j->count; i++) {
        const matmul_args *a = &j->list[i];
        for (uint32_t row = 0; row < a->rows; row += MATMUL_ROWS_MAX) {
            uint32_t    end = a->rows - row > MATMUL_ROWS_MAX ? row + MATMUL_ROWS_MAX : a->rows;
            matmul_part part = {share(panels, task, j->panel_tasks), share(panels, task + 1, j->panel_tasks), row, end};
            run_part(j->c, a, part, worker);
        }
    }
}

void cpu_matmul_in_turn(cpu *c, const matmul_args *list, uint32_t count) {
    if (count == 0) return;
    uint32_t panels = matrix_panels(list[0].w), tasks = TASKS_PER_THREAD * pool_threads(c->pool);
    if (tasks > panels) tasks = panels;
    pool_run(c->pool, tasks, run_in_turn, &(matmul_job){c, list, count, tasks});
}
