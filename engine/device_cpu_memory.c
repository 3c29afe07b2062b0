/* Sizes of everything the CPU device takes, computed once for the memory plan and for opening, so that they agree. */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "engine/device_cpu.h"

enum { HUGE_PAGE = 2 << 20 };

static uint64_t round_up(uint64_t n, uint64_t to) { return (n + to - 1) / to * to; }

int device_sizes_check(const model_facts *f, const device_config *c, error *err) {
    uint64_t heads_dim = (uint64_t)f->head_count * f->head_dim;
    if (c->page_tokens == 0 || c->page_tokens % KV_UNIT)
        return error_set(err, ERR_INVALID, "KV pages of %u tokens: the cpu device needs a multiple of %d", c->page_tokens,
                         KV_UNIT);
    if (f->head_dim == 0 || f->head_dim % 2 || f->head_dim > HEAD_DIM_MAX)
        return error_set(err, ERR_UNSUPPORTED, "head dimension %u: the cpu device supports even ones up to %d", f->head_dim,
                         HEAD_DIM_MAX);
    if (heads_dim > HEADS_DIM_MAX || f->kv_head_count == 0 || f->head_count % f->kv_head_count)
        return error_set(err, ERR_UNSUPPORTED, "%u query heads of %u on %u key heads: not something the cpu device does",
                         f->head_count, f->head_dim, f->kv_head_count);
    if (f->expert_count > EXPERTS_MAX || f->experts_per_token > f->expert_count)
        return error_set(err, ERR_UNSUPPORTED, "%u of %u experts a token: the cpu device supports up to %d experts",
                         f->experts_per_token, f->expert_count, EXPERTS_MAX);
    if (c->rows_max == 0 || c->outputs_max == 0 || c->rows_max >= MATMUL_LIST_MAX)
        return error_set(err, ERR_INVALID,
                         "batches of %u rows and %u outputs: rows must be from 1 to %d, outputs at least 1", c->rows_max,
                         c->outputs_max, MATMUL_LIST_MAX - 1);
    return OK;
}

kv_layout device_kv_layout(const model_facts *f, const device_config *c) {
    dtype type = f->weights == DTYPE_BF16 ? DTYPE_BF16 : DTYPE_F32;
    return kv_layout_make(type, f->layer_count, f->kv_head_count, f->head_dim, c->page_tokens);
}

device_sizes device_sizes_of(const model_facts *f, const program *p, const device_config *c) {
    device_sizes  s = {.logits_stride = round_up(f->vocab_size, 16), .entries = c->rows_max * f->experts_per_token};
    model_weights w;
    weights_list(&w, f);
    s.weights = weights_bytes(&w, c->map_weights);
    weights_free(&w);
    s.pages = c->page_count * (uint64_t)device_kv_layout(f, c).page_stride;
    s.frames = (uint64_t)c->frame_count * c->frame_rows * p->frame_row_bytes;
    for (int b = 0; b < ROW_BUFFER_COUNT; b++) {
        s.row_stride[b] = round_up(p->row_bytes[b], 64);
        s.rows += c->rows_max * s.row_stride[b] + 64;
    }
    s.workspace = workspace_carve(NULL, NULL, f, c, &s);
    return s;
}

uint64_t workspace_carve(pass_workspace *w, char *memory, const model_facts *f, const device_config *c,
                         const device_sizes *s) {
    pass_workspace unused;
    uint64_t       used = 0, rows = c->rows_max, outputs = c->outputs_max;
    if (!w) w = &unused;
#define CARVE(field, count)                                                                                                 \
    do {                                                                                                                    \
        w->field = memory ? (void *)(memory + used) : NULL;                                                                 \
        used += round_up((uint64_t)(count) * sizeof *w->field, 64);                                                         \
    } while (0)
    CARVE(logits, outputs * s->logits_stride);
    CARVE(rotation, rows * f->head_dim);
    CARVE(router_logits, rows * round_up(f->expert_count, PANEL_COLS));
    CARVE(row_scale, rows);
    CARVE(shared_logits, f->shared_width ? rows * PANEL_COLS : 0);
    CARVE(tokens, rows);
    CARVE(embedding, f->tied_embeddings ? 0 : rows * f->width * 4);
    CARVE(runs, rows);
    CARVE(samples, outputs);
    CARVE(results, outputs);
    CARVE(sampled, outputs);
    CARVE(sample_work,
          (c->threads ? c->threads : pool_threads_allowed()) * round_up(cpu_sample_work_bytes(f->vocab_size), 64));
    CARVE(products, f->expert_count);
    CARVE(groups.begin, f->expert_count + 1);
    CARVE(groups.entry, s->entries);
    CARVE(h_offset, s->entries);
    CARVE(f_offset, s->entries);
    CARVE(x_offset, s->entries);
    CARVE(route_weight, s->entries);
    CARVE(output_offset, outputs);
#undef CARVE
    return used;
}

void *memory_take(uint64_t bytes, const char *what, error *err) {
    uint64_t size = round_up(bytes ? bytes : 1, HUGE_PAGE);
    char    *p = mmap(NULL, size + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) {
        error_set(err, ERR_MEMORY, "the system gives no %.1f MiB for %s; lower --kv-cache-memory or choose a smaller model",
                  (double)bytes / (1 << 20), what);
        return NULL;
    }
    uint64_t before = (HUGE_PAGE - (uintptr_t)p % HUGE_PAGE) % HUGE_PAGE; /* keep an aligned piece */
    if (before) munmap(p, before);
    if (HUGE_PAGE - before) munmap(p + before + size, HUGE_PAGE - before);
    madvise(p + before, size, MADV_HUGEPAGE);
    return p + before;
}

void memory_give(void *memory, uint64_t bytes) {
    if (memory) munmap(memory, round_up(bytes ? bytes : 1, HUGE_PAGE));
}

/* First number in a small file; UINT64_MAX where there is none ("max"). */
static uint64_t number_in(const char *path, const char *key) {
    char  line[256];
    FILE *file = fopen(path, "r");
    if (!file) return UINT64_MAX;
    uint64_t value = UINT64_MAX;
    while (fgets(line, sizeof line, file)) {
        unsigned long long n;
        if (strncmp(line, key, strlen(key)) != 0 || sscanf(line + strlen(key), "%llu", &n) != 1) continue;
        value = n;
        break;
    }
    fclose(file);
    return value;
}

uint64_t memory_available_bytes(void) {
    uint64_t kib = number_in("/proc/meminfo", "MemAvailable:"), free_bytes = kib == UINT64_MAX ? UINT64_MAX : kib * 1024;
    static const char *const cgroup[][2] = {
        {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"},
        {"/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"},
    };
    for (int i = 0; i < 2; i++) {
        uint64_t limit = number_in(cgroup[i][0], ""), used = number_in(cgroup[i][1], "");
        if (limit == UINT64_MAX || used == UINT64_MAX) continue;
        uint64_t left = limit > used ? limit - used : 0;
        if (left < free_bytes) free_bytes = left;
    }
    return free_bytes == UINT64_MAX ? 0 : free_bytes;
}
