/* scheduler/id_map.h: from the caller's request id to the number of its sequence. Open addressing at most half full; ids
 * are the caller's and may be any value, so their hash is seeded. Removal closes the gap, no tombstones. */
#pragma once
#include <stdint.h>

#include "base/carve.h"

#define NO_SEQUENCE UINT32_MAX

typedef struct {
    uint64_t id;
    uint32_t sequence; /* NO_SEQUENCE: empty place */
} id_place;

typedef struct {
    uint32_t  mask, count;
    uint64_t  seed;
    id_place *places; /* [mask + 1] */
} id_map;

void     id_map_init(id_map *m, uint32_t capacity, uint64_t seed, carver *c);
uint32_t id_map_find(const id_map *m, uint64_t id); /* NO_SEQUENCE: not there */
void     id_map_add(id_map *m, uint64_t id, uint32_t sequence);
void     id_map_remove(id_map *m, uint64_t id);
