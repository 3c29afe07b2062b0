#include "server/peers.h"

#include <stdlib.h>

#include "base/error.h"
#include "base/hash.h"

/* Open addressing with linear probing; a removed key's followers move up, so that there are no marks to sweep. */
typedef struct {
    uint64_t key; /* 0: free */
    uint32_t count;
} peer;

struct peers {
    peer    *slots;
    uint32_t mask, used;
    uint64_t salt; /* strangers choose addresses; they shall not choose slots */
};

enum { SLOTS_FIRST = 64 };

static peer *slots_of(uint32_t count) {
    peer *slots = calloc(count, sizeof *slots);
    if (!slots) fatal("out of memory for %u addresses", count);
    return slots;
}

peers *peers_new(void) {
    peers *p = calloc(1, sizeof *p);
    if (!p) fatal("out of memory for addresses");
    p->slots = slots_of(SLOTS_FIRST);
    p->mask = SLOTS_FIRST - 1;
    p->salt = (uint64_t)(uintptr_t)p->slots;
    return p;
}

void peers_free(peers *p) {
    if (!p) return;
    free(p->slots);
    free(p);
}

static uint32_t home(const peers *p, uint64_t key) { return (uint32_t)hash_u64(&key, sizeof key, p->salt) & p->mask; }

/* Where key is, or the free slot where it would be. */
static uint32_t find(const peers *p, uint64_t key) {
    uint32_t i = home(p, key);
    while (p->slots[i].key && p->slots[i].key != key) i = (i + 1) & p->mask;
    return i;
}

uint32_t peers_count(const peers *p, uint64_t key) { return p->slots[find(p, key)].count; }
uint32_t peers_known(const peers *p) { return p->used; }

static void grow(peers *p) {
    peer    *old = p->slots;
    uint32_t count = p->mask + 1;
    p->slots = slots_of(count * 2);
    p->mask = count * 2 - 1;
    for (uint32_t i = 0; i < count; i++)
        if (old[i].key) p->slots[find(p, old[i].key)] = old[i];
    free(old);
}

void peers_add(peers *p, uint64_t key) {
    if (p->used * 2 > p->mask) grow(p);
    peer *at = &p->slots[find(p, key)];
    p->used += at->count == 0;
    at->key = key;
    at->count++;
}

void peers_remove(peers *p, uint64_t key) {
    uint32_t hole = find(p, key);
    check(p->slots[hole].count > 0);
    if (--p->slots[hole].count) return;
    p->used--;
    for (uint32_t i = hole;;) {
        p->slots[hole] = (peer){0};
        do {
            i = (i + 1) & p->mask;
            if (!p->slots[i].key) return;
        } while (((i - home(p, p->slots[i].key)) & p->mask) < ((i - hole) & p->mask)); /* it does not reach back so far */
        p->slots[hole] = p->slots[i];
        hole = i;
    }
}
