#include "kernels/rows.h"

#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/table.h"
#include "kernels/half.h"

/* ---- norm ---- */

enum { ROWS_PER_TASK = 8 };

typedef struct {
    cpu        *c;
    const void *a;
} rows_job;

static uint32_t tasks_of(uint32_t rows) { return (rows + ROWS_PER_TASK - 1) / ROWS_PER_TASK; }
static uint32_t end_of(uint32_t task, uint32_t rows) {
    return (task + 1) * ROWS_PER_TASK < rows ? (task + 1) * ROWS_PER_TASK : rows;
}

static void run_norm(void *context, uint32_t task, uint32_t worker) {
    (void)worker;
    const rows_job  *j = context;
    const norm_args *a = j->a;
    j->c->kernels->norm(a, task * ROWS_PER_TASK, end_of(task, a->rows));
}

void cpu_norm(cpu *c, const norm_args *a) { pool_run(c->pool, tasks_of(a->rows), run_norm, &(rows_job){c, a}); }

/* ---- embedding ---- */

static float value_at(dtype type, const void *values, size_t i) {
    const char *p = (const char *)values + i * dtype_bytes(type);
    uint16_t    h;
    float       f;
    if (type == DTYPE_F32) return memcpy(&f, p, 4), f;
    memcpy(&h, p, 2);
    return type == DTYPE_BF16 ? bf16_to_f32(h) : f16_to_f32(h);
}

static void embed_packed(const matrix *m, uint32_t token, float *out) {
    const char *panel = (const char *)m->data + token / PANEL_COLS * matrix_panel_bytes(m);
    size_t      column = token % PANEL_COLS;
    for (uint32_t j = 0; j < m->k; j++) {
        size_t i =
            m->type == DTYPE_BF16 ? ((size_t)(j / 2) * PANEL_COLS + column) * 2 + j % 2 : (size_t)j * PANEL_COLS + column;
        out[j] = value_at(m->type, panel, i);
    }
}

static void run_embed(void *context, uint32_t task, uint32_t worker) {
    (void)worker;
    const embed_args *a = ((const rows_job *)context)->a;
    for (uint32_t i = task * ROWS_PER_TASK; i < end_of(task, a->rows); i++) {
        float *out = (void *)row_of(&a->out, i);
        if (a->packed) {
            embed_packed(a->packed, a->tokens[i], out);
            continue;
        }
        const char *row = (const char *)a->table + (size_t)a->tokens[i] * a->width * dtype_bytes(a->table_type);
        for (uint32_t j = 0; j < a->width; j++) out[j] = value_at(a->table_type, row, j);
    }
}

void cpu_embed(cpu *c, const embed_args *a) { pool_run(c->pool, tasks_of(a->rows), run_embed, &(rows_job){c, a}); }

/* ---- routing ---- */

/* The `chosen` largest of p, marked by their weights; the rest stay where they are. Few experts, so repeated scans do. */
static void choose(const float *p, const route_args *a, route *out) {
    bool  taken[EXPERTS_MAX] = {false};
    float sum = 0;
    for (uint32_t n = 0; n < a->chosen; n++) {
        uint32_t best = 0;
        while (taken[best]) best++; /* chosen <= experts: one is left */
        for (uint32_t e = best + 1; e < a->experts; e++)
            if (!taken[e] && p[e] > p[best]) best = e;
        taken[best] = true;
        sum += p[best];
    }
    for (uint32_t e = 0, n = 0; e < a->experts; e++)
        if (taken[e]) out[n++] = (route){e, a->renormalize ? p[e] / sum : p[e]};
}

static void run_route(void *context, uint32_t task, uint32_t worker) {
    const rows_job   *j = context;
    const route_args *a = j->a;
    float            *p = (void *)(j->c->scratch + worker * j->c->scratch_bytes);
    for (uint32_t i = task * ROWS_PER_TASK; i < end_of(task, a->rows); i++) {
        memcpy(p, a->logits + i * a->logits_stride, a->experts * sizeof *p);
        j->c->kernels->softmax(p, a->experts);
        choose(p, a, (void *)row_of(&a->out, i));
    }
}

void cpu_route(cpu *c, const route_args *a) { pool_run(c->pool, tasks_of(a->rows), run_route, &(rows_job){c, a}); }

void cpu_group_by_expert(const route_args *a, expert_groups *g) {
    memset(g->begin, 0, (a->experts + 1) * sizeof *g->begin);
    for (uint32_t i = 0; i < a->rows; i++) {
        const route *r = (const void *)row_of(&a->out, i);
        for (uint32_t n = 0; n < a->chosen; n++) g->begin[r[n].expert + 1]++;
    }
    for (uint32_t e = 0; e < a->experts; e++) g->begin[e + 1] += g->begin[e];
    for (uint32_t i = 0; i < a->rows; i++) { /* begin[e] walks to the end of e's entries ... */
        const route *r = (const void *)row_of(&a->out, i);
        for (uint32_t n = 0; n < a->chosen; n++) g->entry[g->begin[r[n].expert]++] = i * a->chosen + n;
    }
    memmove(g->begin + 1, g->begin, a->experts * sizeof *g->begin); /* ... which is the next one's beginning */
    g->begin[0] = 0;
}
