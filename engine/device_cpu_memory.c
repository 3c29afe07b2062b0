/* Sizes of everything the CPU device takes, computed once for the memory plan and for opening, so that they agree. */
#include <stdio.h>
#include <stdlib.h>
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
    s.host_pages = c->host_pages * (uint64_t)device_kv_layout(f, c).page_stride;
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
    const uint64_t size = round_up(bytes ? bytes : 1, HUGE_PAGE);
    const int      flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    // cppcheck-suppress invalidFunctionArg
    char *all = mmap(NULL, size + HUGE_PAGE, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (all == MAP_FAILED) {
        error_set(err, ERR_MEMORY, "the system gives no %.1f MiB for %s; lower --kv-cache-memory or choose a smaller model",
                  (double)bytes / (1 << 20), what);
        return NULL;
    }
    const uint64_t before = (HUGE_PAGE - (uintptr_t)all % HUGE_PAGE) % HUGE_PAGE; /* an aligned piece is kept */
    char          *kept = all + before;
    if (before) munmap(all, before);
    if (HUGE_PAGE - before) munmap(kept + size, HUGE_PAGE - before);
    madvise(kept, size, MADV_HUGEPAGE);
    return kept; // cppcheck-suppress deallocret
}

void memory_give(void *memory, uint64_t bytes) {
    if (memory) munmap(memory, round_up(bytes ? bytes : 1, HUGE_PAGE));
}

/* The number after `key` on the first line that begins with it and has one; UINT64_MAX where there is none ("max"). */
static uint64_t number_in(const char *path, const char *key) {
    char     line[256];
    uint64_t value = UINT64_MAX;
    FILE    *file = fopen(path, "r");
    if (!file) return value;
    while (value == UINT64_MAX && fgets(line, sizeof line, file)) {
        char *end;
        if (strncmp(line, key, strlen(key)) != 0) continue;
        unsigned long long n = strtoull(line + strlen(key), &end, 10);
        if (end != line + strlen(key)) value = n;
    }
    fclose(file);
    return value;
}

static uint64_t left_in_group(const char *dir, const char *limit_file, const char *used_file) {
    char path[640];
    snprintf(path, sizeof path, "%s/%s", dir, limit_file);
    uint64_t limit = number_in(path, "");
    snprintf(path, sizeof path, "%s/%s", dir, used_file);
    uint64_t used = number_in(path, "");
    if (limit == UINT64_MAX || used == UINT64_MAX) return UINT64_MAX;
    return limit > used ? limit - used : 0;
}

static uint64_t least(uint64_t a, uint64_t b) { return a < b ? a : b; }

/* What the control groups of this process leave it: version 2 ("0::/path") and 1 ("4:memory:/path"), the group itself where
 * its folder is visible, and the root, which is the group itself inside most containers. */
static uint64_t left_in_groups(void) {
    uint64_t left = least(left_in_group("/sys/fs/cgroup", "memory.max", "memory.current"),
                          left_in_group("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"));
    char     line[512], dir[600];
    FILE    *file = fopen("/proc/self/cgroup", "r");
    while (file && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        const char *one = strstr(line, ":memory:");
        if (strncmp(line, "0::", 3) == 0) {
            snprintf(dir, sizeof dir, "/sys/fs/cgroup%s", line + 3);
            left = least(left, left_in_group(dir, "memory.max", "memory.current"));
        } else if (one) {
            snprintf(dir, sizeof dir, "/sys/fs/cgroup/memory%s", one + strlen(":memory:"));
            left = least(left, left_in_group(dir, "memory.limit_in_bytes", "memory.usage_in_bytes"));
        }
    }
    if (file) fclose(file);
    return left;
}

uint64_t memory_available_bytes(void) {
    uint64_t kib = number_in("/proc/meminfo", "MemAvailable:");
    uint64_t bytes = least(kib == UINT64_MAX ? kib : kib * 1024, left_in_groups());
    return bytes == UINT64_MAX ? 0 : bytes;
}
