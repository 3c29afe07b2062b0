#include "scheduler/id_map.h"

#include "base/error.h"
#include "base/hash.h"

void id_map_init(id_map *m, uint32_t capacity, uint64_t seed, carver *c) {
    uint32_t size = 2;
    while (size < 2 * (uint64_t)capacity && size < 1u << 31) size *= 2;
    *m = (id_map){.mask = size - 1, .seed = seed};
    m->places = carve(c, size, sizeof *m->places);
    if (!c->memory) return;
    for (uint32_t i = 0; i < size; i++) m->places[i].sequence = NO_SEQUENCE;
}

static uint32_t home(const id_map *m, uint64_t id) { return (uint32_t)hash_u64(&id, sizeof id, m->seed) & m->mask; }

/* Where the id is, or the empty place where it would be. */
static uint32_t place_of(const id_map *m, uint64_t id) {
    uint32_t at = home(m, id);
    for (uint32_t probes = 0; probes <= m->mask; probes++, at = (at + 1) & m->mask)
        if (m->places[at].sequence == NO_SEQUENCE || m->places[at].id == id) return at;
    fatal("the id map is full");
}

uint32_t id_map_find(const id_map *m, uint64_t id) { return m->places[place_of(m, id)].sequence; }

void id_map_add(id_map *m, uint64_t id, uint32_t sequence) {
    uint32_t at = place_of(m, id);
    check(m->places[at].sequence == NO_SEQUENCE && m->count <= m->mask / 2);
    m->places[at] = (id_place){id, sequence};
    m->count++;
}

void id_map_remove(id_map *m, uint64_t id) {
    uint32_t gap = place_of(m, id);
    check(m->places[gap].sequence != NO_SEQUENCE);
    for (uint32_t at = (gap + 1) & m->mask; m->places[at].sequence != NO_SEQUENCE; at = (at + 1) & m->mask) {
        if (((at - home(m, m->places[at].id)) & m->mask) < ((at - gap) & m->mask))
            continue; /* its home lies after the gap */
        m->places[gap] = m->places[at];
        gap = at;
    }
    m->places[gap].sequence = NO_SEQUENCE;
    m->count--;
}
