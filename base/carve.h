/* base/carve.h: one allocation handed out in pieces.
 *
 * The same function runs twice: over a carver without memory it only adds up what it will take (that sum is printed in the
 * memory plan), over one with that much zeroed memory it hands the pieces out. So the plan cannot disagree with the use. */
#pragma once
#include <stddef.h>
#include <stdint.h>

enum { CARVE_ALIGN = 64 }; /* a cache line; `memory` itself is aligned to it */

typedef struct {
    char  *memory; /* NULL: only add up */
    size_t used;   /* bytes; SIZE_MAX once the sum no longer fits */
} carver;

/* count x size bytes; NULL while adding up. */
static inline void *carve(carver *c, size_t count, size_t size) {
    size_t bytes, end;
    if (c->used == SIZE_MAX || __builtin_mul_overflow(count, size, &bytes) || __builtin_add_overflow(c->used, bytes, &end) ||
        end > SIZE_MAX / 2) {
        c->used = SIZE_MAX;
        return NULL;
    }
    void *piece = c->memory ? c->memory + c->used : NULL;
    c->used = (end + CARVE_ALIGN - 1) / CARVE_ALIGN * CARVE_ALIGN;
    return piece;
}
