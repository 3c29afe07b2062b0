/* Where all memory goes, decided before any of it is taken. Every pool gets its size here: what was asked for where
 * something was, what suits the device elsewhere, and KV pages from what is left. */
#include <string.h>

#include "engine/engine.h"
#include "engine/requests.h"
#include "engine/ring.h"

/* What suits a device. On a CPU a row costs about an eighth of reading all weights, so a few prompt rows beside running
 * answers double their step; on a GPU a few hundred are free. */
typedef struct {
    const char *device;
    uint32_t    batch_tokens_max, chunk_tokens;
    double      kv_share; /* of what is free once everything else is taken */
    bool        is_host;  /* the device's memory is the host's */
} device_defaults;

static const device_defaults defaults[] = {
    {"cpu", 512, 16, 0.4, true},
    {"cuda", 8192, 512, 0.9, false},
    {"sim", 8192, 512, 0.9, false},
};
enum { DEFAULTS = sizeof defaults / sizeof *defaults };

static const device_defaults *defaults_of(const device_api *api) {
    for (int i = 1; i < DEFAULTS; i++)
        if (strcmp(defaults[i].device, api->name) == 0) return &defaults[i];
    return &defaults[0];
}

enum {
    RUNNING_MAX = 64,
    WAITING_MAX = 1024,
    PAGE_TOKENS = 16,
    FRAME_COUNT = 4,
    COPIES_MAX = 4096,
    PAGE_COUNT_MAX = 1 << 29
};
#define UNKNOWN_MEMORY_BYTES (UINT64_C(1) << 30) /* for KV pages where the device cannot say what it has */

static void default_u32(uint32_t *value, uint32_t standard) {
    if (*value == 0) *value = standard;
}

static void size_pools(engine_config *c, const device_defaults *suits) {
    scheduler_config *s = &c->scheduler_settings;
    device_config    *d = &c->device_settings;
    default_u32(&s->running_max, RUNNING_MAX);
    default_u32(&s->waiting_max, WAITING_MAX);
    default_u32(&s->page_tokens, PAGE_TOKENS);
    if (s->batch_tokens_max == 0) {
        s->batch_tokens_max = suits->batch_tokens_max;
        if (s->batch_tokens_max < 2 * s->running_max) s->batch_tokens_max = 2 * s->running_max;
    }
    default_u32(&s->slicing.chunk_tokens, suits->chunk_tokens);
    default_u32(&s->frame_count, FRAME_COUNT);
    default_u32(&s->frame_tokens, s->batch_tokens_max);
    default_u32(&s->reclaim.copies_max, COPIES_MAX);
    d->rows_max = s->batch_tokens_max;
    d->outputs_max = s->running_max;
    d->page_tokens = s->page_tokens;
    d->frame_count = s->frame_count;
    d->frame_rows = s->frame_tokens;
    d->copies_max = s->reclaim.copies_max;
}

static void set_pages(engine_config *c, uint64_t pages) {
    if (pages > PAGE_COUNT_MAX) pages = PAGE_COUNT_MAX;
    c->scheduler_settings.page_count = c->device_settings.page_count = (uint32_t)pages;
}

/* The scheduler is told of them in any case, so that it can warn of memory that nothing is copied to. */
static void set_host_pages(engine_config *c, uint64_t page_bytes) {
    const uint64_t  pages = c->host_cache_bytes / page_bytes;
    reclaim_config *r = &c->scheduler_settings.reclaim;
    r->host_pages = pages < PAGE_COUNT_MAX ? (uint32_t)pages : PAGE_COUNT_MAX;
    c->device_settings.host_pages = r->policy == RECLAIM_RECOMPUTE ? 0 : r->host_pages;
}

static void set_context(engine_config *c, uint32_t context) {
    c->context_max = c->scheduler_settings.context_max = c->device_settings.context_max = context;
}

static uint64_t on_device_bytes(const memory_plan *m) {
    uint64_t sum = 0;
    for (uint32_t i = 0; i < m->row_count; i++)
        if (m->rows[i].on_device) sum += m->rows[i].bytes;
    return sum;
}

static uint64_t pages_of_context(const engine_config *c) {
    return (c->context_max + (uint64_t)c->scheduler_settings.page_tokens - 1) / c->scheduler_settings.page_tokens;
}

static double gib(uint64_t bytes) { return (double)bytes / (double)(UINT64_C(1) << 30); }

/* As many as were asked for; else a share of what is free, but no more than all running sequences can fill. */
static void choose_pages(engine_config *c, const memory_plan *without, const device_defaults *suits) {
    const uint64_t host = suits->is_host ? c->device_settings.host_pages * without->page_bytes : 0;
    const uint64_t fixed = on_device_bytes(without) + host, available = without->available_bytes;
    if (c->kv_cache_bytes) {
        set_pages(c, c->kv_cache_bytes / without->page_bytes);
        return;
    }
    uint64_t budget =
        available ? available > fixed ? (uint64_t)((double)(available - fixed) * suits->kv_share) : 0 : UNKNOWN_MEMORY_BYTES;
    uint64_t pages = budget / without->page_bytes, needed = c->scheduler_settings.running_max * pages_of_context(c);
    set_pages(c, pages < needed ? pages : needed);
}

/* One whole context must fit. Where nobody asked for a length, it is shortened to what does. */
static int fit_context(engine_config *c, bool asked_for, uint64_t page_bytes, error *err) {
    const scheduler_config *s = &c->scheduler_settings;
    const uint64_t          tokens = (uint64_t)s->page_count * s->page_tokens;
    if (tokens >= c->context_max) return OK;
    if (!asked_for && tokens >= s->page_tokens) {
        set_context(c, (uint32_t)tokens);
        return OK;
    }
    return error_set(err, ERR_MEMORY,
                     "a context of %u tokens needs %.1f MiB of KV pages and there is room for %.1f MiB (%llu tokens); raise "
                     "--kv-cache-memory or lower --max-model-len",
                     c->context_max, 1024 * gib(pages_of_context(c) * page_bytes), 1024 * gib(s->page_count * page_bytes),
                     (unsigned long long)tokens);
}

static int check_fits(const engine_config *c, const memory_plan *m, bool is_host, error *err) {
    const uint64_t sum = on_device_bytes(m), pages = c->scheduler_settings.page_count * m->page_bytes;
    if (m->available_bytes == 0 || sum <= m->available_bytes) return OK;
    if (sum - pages > m->available_bytes)
        return error_set(err, ERR_MEMORY,
                         "weights and buffers need %.2f GiB, before any KV page, and %.2f GiB are available; take a smaller "
                         "model%s",
                         gib(sum - pages), gib(m->available_bytes),
                         is_host && !c->device_settings.map_weights ? ", or --map-weights to compute from the mapped file"
                                                                    : "");
    return error_set(
        err, ERR_MEMORY,
        "%.2f GiB are needed (%.2f for KV pages, %.2f for weights and buffers) and %.2f GiB are available; lower "
        "--kv-cache-memory, --max-model-len or --batch-tokens-max",
        gib(sum), gib(pages), gib(sum - pages), gib(m->available_bytes));
}

static void add_host_row(const engine_config *c, const program *p, bool is_host, memory_plan *m) {
    scheduler_config s = c->scheduler_settings;
    s.model.op_count = p->op_count;
    s.model.op_cuts = p->layer_begin + 1;
    s.model.op_cut_count = p->layer_count - 1;
    check(m->row_count < MEMORY_ROWS_MAX);
    m->rows[m->row_count++] = (memory_row){.name = "scheduler and queues",
                                           .on_device = is_host,
                                           .bytes = scheduler_memory_bytes(&s) + ring_memory_bytes(ring_capacity(&s)) +
                                                    requests_memory_bytes(requests_capacity(&s))};
}

static int choose_context(engine_config *c, const model_facts *f, error *err) {
    if (c->context_max > f->context_max)
        return error_set(err, ERR_INVALID, "--max-model-len is %u and the model was made for %u tokens; lower it",
                         c->context_max, f->context_max);
    set_context(c, c->context_max ? c->context_max : f->context_max);
    return OK;
}

/* Once without KV pages, to see what they may take, and once with them. */
static int plan_pools(engine_config *c, const device_api *api, const model_facts *f, const program *p, memory_plan *out,
                      error *err) {
    const device_defaults *suits = defaults_of(api);
    const bool             context_asked_for = c->context_max > 0;
    for (int with_pages = 0; with_pages < 2; with_pages++) {
        int status = OK;
        if (!with_pages) {
            status = choose_context(c, f, err);
            size_pools(c, suits);
            set_pages(c, 0);
            c->device_settings.host_pages = 0;
        } else {
            set_host_pages(c, out->page_bytes);
            choose_pages(c, out, suits);
            status = fit_context(c, context_asked_for, out->page_bytes, err);
        }
        if (status == OK) status = api->plan_memory(f, p, &c->device_settings, out, err);
        if (status != OK) return status;
        add_host_row(c, p, suits->is_host, out);
        status = check_fits(c, out, suits->is_host, err);
        if (status != OK) return status;
    }
    return OK;
}

int engine_plan(engine_config *c, const checkpoint *ckpt, memory_plan *out, error *err) {
    char              why[256];
    const device_api *api = c->device_table ? c->device_table : device_find(c->device, why, sizeof why);
    if (!api) return error_set(err, ERR_UNSUPPORTED, "%s", why);
    const model_facts *f = checkpoint_facts(ckpt);
    program            p;
    int                status = program_build(&p, f, program_activation(f), err);
    if (status != OK) return status;
    status = plan_pools(c, api, f, &p, out, err);
    program_free(&p);
    return status;
}
