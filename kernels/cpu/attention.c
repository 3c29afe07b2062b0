/* Cuts attention and its neighbours into tasks: (run, kv head, some rows), never over positions, which would change the
 * order of sums. The longest go first. */
#include "kernels/attention.h"

#include "base/error.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/table.h"

kv_layout kv_layout_make(dtype type, uint32_t layers, uint32_t kv_heads, uint32_t head_dim, uint32_t page_tokens) {
    kv_layout l = {.type = type, .page_tokens = page_tokens, .kv_heads = kv_heads, .head_dim = head_dim};
    l.dim_padded = (head_dim + 15) / 16 * 16;
    l.unit_bytes = (size_t)KV_UNIT * l.dim_padded * dtype_bytes(type);
    l.head_stride = page_tokens / KV_UNIT * l.unit_bytes;
    l.v_offset = kv_heads * l.head_stride;
    l.layer_stride = 2 * l.v_offset;
    l.page_stride = layers * l.layer_stride;
    return l;
}

enum { TASK_ROWS = 48 };

typedef struct {
    cpu                  *c;
    const attention_args *a;
    const uint32_t       *begin; /* first task of each run; one more at the end */
} attention_job;

static uint32_t row_tasks(const attention_args *a, const kv_run *run) {
    return (run->row_count * (a->heads / a->layout->kv_heads) + TASK_ROWS - 1) / TASK_ROWS;
}

static uint32_t run_of(const uint32_t *begin, uint32_t count, uint32_t task) {
    uint32_t low = 0, high = count;
    while (high - low > 1) {
        uint32_t middle = (low + high) / 2;
        if (begin[middle] <= task) low = middle;
        else high = middle;
    }
    return low;
}

static void run_attention(void *context, uint32_t task, uint32_t worker) {
    const attention_job  *j = context;
    const attention_args *a = j->a;
    uint32_t              i = run_of(j->begin, a->run_count, task);
    const kv_run         *run = &a->runs[i];
    uint32_t              rows = run->row_count * (a->heads / a->layout->kv_heads), tasks = row_tasks(a, run);
    uint32_t              t = task - j->begin[i], block = tasks - 1 - t / a->layout->kv_heads; /* late positions are long */
    attention_part        part = {run, t % a->layout->kv_heads, block * TASK_ROWS, (block + 1) * TASK_ROWS};
    if (part.end > rows) part.end = rows;
    j->c->kernels->attention[a->layout->type](a, part, j->c->scratch + worker * j->c->scratch_bytes);
}

/* A run's tasks start at begin[i]; begin has room for count + 1. */
void cpu_attention(cpu *c, const attention_args *a) {
    check(a->run_count < MATMUL_LIST_MAX);
    uint32_t tasks = 0;
    for (uint32_t i = 0; i < a->run_count; i++)
        c->task_begin[i] = tasks, tasks += row_tasks(a, &a->runs[i]) * a->layout->kv_heads;
    pool_run(c->pool, tasks, run_attention, &(attention_job){c, a, c->task_begin});
}

/* ---- rope + KV write: ranges of rows ---- */

enum { ROPE_ROWS = 16 };

typedef struct {
    cpu                *c;
    const rope_kv_args *a;
} rope_job;

static void run_rope(void *context, uint32_t task, uint32_t worker) {
    const rope_job *j = context;
    uint32_t        i = run_of(j->c->task_begin, j->a->run_count, task);
    const kv_run   *run = &j->a->runs[i];
    uint32_t        begin = (task - j->c->task_begin[i]) * ROPE_ROWS, end = begin + ROPE_ROWS;
    if (end > run->row_count) end = run->row_count;
    j->c->kernels->rope_kv(j->a, run, begin, end, j->c->scratch + worker * j->c->scratch_bytes);
}

void cpu_rope_kv(cpu *c, const rope_kv_args *a) {
    check(a->run_count < MATMUL_LIST_MAX && a->heads * a->layout->head_dim * sizeof(float) <= c->scratch_bytes);
    uint32_t tasks = 0;
    for (uint32_t i = 0; i < a->run_count; i++)
        c->task_begin[i] = tasks, tasks += (a->runs[i].row_count + ROPE_ROWS - 1) / ROPE_ROWS;
    pool_run(c->pool, tasks, run_rope, &(rope_job){c, a});
}
