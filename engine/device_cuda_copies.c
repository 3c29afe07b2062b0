/* Pages to host memory and back: on a queue of their own, beside the passes. One queue for both directions keeps the order
 * that scheduler/swap.h asks for; events tie it to the passes: a copy begins after what was launched before it, and what
 * awaits a copy is launched behind its event, without the host waiting. */
#include <stdlib.h>

#include "engine/device_cuda.h"

/* A ring with two marks, each a count since the beginning: told <= begun <= told + copies_max. */
static uint32_t place_of(const device *d, uint64_t i) { return (uint32_t)(i % d->config.copies_max); }

int gpu_copies_open(device *d, error *err) {
    gpu_copies        *c = &d->copies;
    const cuda_object *o = d->cuda;
    if (d->config.host_pages == 0) return OK;
    c->memory = o->take_host(d->sizes.host_pages);
    if (!c->memory)
        return error_set(err, ERR_MEMORY,
                         "the system gives no %.1f MiB of pinned memory for pages; lower --host-cache-memory",
                         (double)d->sizes.host_pages / (1 << 20));
    c->ids = calloc(d->config.copies_max, sizeof *c->ids);
    c->ended = calloc(d->config.copies_max, sizeof *c->ended);
    if (!c->ids || !c->ended) fatal("out of memory for %u copies of pages", d->config.copies_max);
    bool all = (c->queue = o->queue_new()) && (c->pass = o->event_new());
    for (uint32_t i = 0; i < d->config.copies_max; i++) all = (c->ended[i] = o->event_new()) && all;
    return all ? OK : error_set(err, ERR_DEVICE, "the GPU gives no queue for copies of pages");
}

void gpu_copies_close(device *d) {
    gpu_copies        *c = &d->copies;
    const cuda_object *o = d->cuda;
    char               why[256];
    if (c->queue) o->wait(c->queue, why, sizeof why);
    for (uint32_t i = 0; c->ended && i < d->config.copies_max; i++) o->event_free(c->ended[i]);
    if (c->pass) o->event_free(c->pass);
    if (c->queue) o->queue_free(c->queue);
    if (c->memory) o->give_host(c->memory);
    free(c->ids);
    free(c->ended);
}

int gpu_copy_pages(device *d, const page_copy *copies, uint32_t count, error *err) {
    gpu_copies        *c = &d->copies;
    const cuda_object *o = d->cuda;
    const size_t       bytes = d->layout.page_stride;
    (void)err;
    check(c->begun + count - c->told <= d->config.copies_max);
    o->event_record(d->queue, c->pass);
    o->event_await(c->queue, c->pass);
    for (uint32_t i = 0; i < count; i++) {
        check(copies[i].page < d->config.page_count && copies[i].host_page < d->config.host_pages);
        char *page = d->page_memory + copies[i].page * bytes, *host = c->memory + copies[i].host_page * bytes;
        if (copies[i].to_host) o->copy(c->queue, host, page, bytes);
        else o->copy(c->queue, page, host, bytes);
        o->event_record(c->queue, c->ended[place_of(d, c->begun)]);
        c->ids[place_of(d, c->begun++)] = copies[i].id;
    }
    return OK;
}

/* Ids rise along the ring; what was told of is over. */
int gpu_await_copy(device *d, uint64_t id, error *err) {
    gpu_copies *c = &d->copies;
    (void)err;
    for (uint64_t i = c->begun; i-- > c->told;)
        if (c->ids[place_of(d, i)] <= id) {
            d->cuda->event_await(d->queue, c->ended[place_of(d, i)]);
            return OK;
        }
    return OK;
}

uint32_t gpu_copies_done(device *d, bool wait, copied_page *out, uint32_t max) {
    gpu_copies *c = &d->copies;
    uint32_t    n = 0;
    char        why[256];
    for (; n < max && c->told < c->begun; n++, c->told++) {
        cuda_event *ended = c->ended[place_of(d, c->told)];
        if (!(wait && n == 0) && !d->cuda->event_passed(ended)) break;
        out[n] = (copied_page){.id = c->ids[place_of(d, c->told)], .ok = d->cuda->event_wait(ended, why, sizeof why)};
    }
    return n;
}
