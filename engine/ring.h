/* engine/ring.h: the engine's answers on their way to the one consumer: bounded, in order, without a lock.
 *
 * One thread pushes, one thread pops. Nothing is dropped: who pushes asks for room first and does less work where there is
 * none (engine.c). */
#pragma once
#include "engine/engine.h"

typedef struct ring ring;
ring               *ring_new(uint32_t capacity); /* rounded up to a power of two */
void                ring_free(ring *r);
size_t              ring_memory_bytes(uint32_t capacity);
uint32_t            ring_capacity(const scheduler_config *s);  /* the end of every request, and some passes of tokens */
uint32_t            ring_room(const ring *r);                  /* producer */
void                ring_push(ring *r, const engine_event *e); /* producer; there must be room */
uint32_t            ring_pop(ring *r, engine_event *out, uint32_t max); /* consumer */
bool                ring_is_empty(const ring *r);                       /* either */
