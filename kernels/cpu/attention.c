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

enum { TASKS_PER_THREAD = 2 };

typedef struct {
    cpu                  *c;
    const attention_args *a;
    uint32_t              heads; /* kv heads of one task where the run is one block of rows */
} attention_job;

static uint32_t rows_of(const attention_args *a, const kv_run *run) {
    return run->row_count * (a->heads / a->layout->kv_heads);
}
static uint32_t ceil_div(uint32_t a, uint32_t b) { return a / b + (a % b != 0); }

typedef struct {
    uint32_t row_tasks, head_tasks;
} task_cut;
static task_cut cut_of(const attention_args *a, const kv_run *run, uint32_t heads) {
    uint32_t rows = ceil_div(rows_of(a, run), ATTENTION_ROWS), kv_heads = a->layout->kv_heads;
    return (task_cut){rows, rows > 1 ? kv_heads : ceil_div(kv_heads, heads)};
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
    uint32_t              i = run_of(j->c->task_begin, a->run_count, task), t = task - j->c->task_begin[i];
    const kv_run         *run = &a->runs[i];
    task_cut              cut = cut_of(a, run, j->heads);
    uint32_t       block = cut.row_tasks - 1 - t / cut.head_tasks, head = t % cut.head_tasks; /* late positions are long */
    uint32_t       heads = a->layout->kv_heads, rows = rows_of(a, run);
    attention_part part = {run, heads * head / cut.head_tasks, heads * (head + 1) / cut.head_tasks, block * ATTENTION_ROWS,
                           (block + 1) * ATTENTION_ROWS};
    if (part.end > rows) part.end = rows;
    j->c->kernels->attention[a->layout->type](a, part, j->c->scratch + worker * j->c->scratch_bytes);
}

void cpu_attention(cpu *c, const attention_args *a) {
    check(a->run_count < MATMUL_LIST_MAX);
    uint32_t tasks = 0, heads = a->run_count * a->layout->kv_heads / (TASKS_PER_THREAD * pool_threads(c->pool));
    if (heads < 1) heads = 1;
    for (uint32_t i = 0; i < a->run_count; i++) {
        task_cut cut = cut_of(a, &a->runs[i], heads);
        c->task_begin[i] = tasks;
        tasks += cut.row_tasks * cut.head_tasks;
    }
    pool_run(c->pool, tasks, run_attention, &(attention_job){c, a, heads});
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
