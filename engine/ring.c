#include "engine/ring.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "engine/requests.h"

/* Positions count up forever; a slot is the position modulo the capacity. */
struct ring {
    uint32_t         capacity;
    engine_event    *events; /* [capacity] */
    _Atomic uint64_t pushed, popped;
};

static uint32_t round_up(uint32_t n) {
    uint32_t power = 1;
    while (power < n) power *= 2;
    return power;
}

size_t ring_memory_bytes(uint32_t capacity) { return sizeof(ring) + round_up(capacity) * sizeof(engine_event); }

uint32_t ring_capacity(const scheduler_config *s) { return requests_capacity(s) + 4 * s->running_max; }

ring *ring_new(uint32_t capacity) {
    ring *r = calloc(1, sizeof *r);
    if (!r) fatal("out of memory for the event ring");
    r->capacity = round_up(capacity);
    r->events = calloc(r->capacity, sizeof *r->events);
    if (!r->events) fatal("out of memory for the event ring");
    return r;
}

void ring_free(ring *r) {
    if (!r) return;
    free(r->events);
    free(r);
}

uint32_t ring_room(const ring *r) { return r->capacity - (uint32_t)(atomic_load(&r->pushed) - atomic_load(&r->popped)); }

void ring_push(ring *r, const engine_event *e) {
    check(ring_room(r) > 0);
    const uint64_t at = atomic_load_explicit(&r->pushed, memory_order_relaxed);
    r->events[at & (r->capacity - 1)] = *e;
    atomic_store(&r->pushed, at + 1);
}

uint32_t ring_pop(ring *r, engine_event *out, uint32_t max) {
    const uint64_t at = atomic_load_explicit(&r->popped, memory_order_relaxed);
    uint64_t       n = atomic_load(&r->pushed) - at;
    if (n > max) n = max;
    for (uint64_t i = 0; i < n; i++) out[i] = r->events[(at + i) & (r->capacity - 1)];
    atomic_store(&r->popped, at + n);
    return (uint32_t)n;
}

bool ring_is_empty(const ring *r) { return atomic_load(&r->pushed) == atomic_load(&r->popped); }
