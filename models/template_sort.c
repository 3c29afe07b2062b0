/* models/template_sort.c: a stable merge sort, since the order of equal keys shows and comparing may fail or cost steps. */
#include <string.h>

#include "models/template_render.h"

typedef struct {
    render      *r;
    const value *keys;
    uint32_t    *order, *spare; /* indices into keys */
    int          sign;
} sorter;

static void merge(sorter *s, uint32_t from, uint32_t middle, uint32_t to) {
    uint32_t a = from, b = middle, n = from;
    while (a < middle && b < to) {
        int  order = jinja_order(s->r, s->keys[s->order[b]], s->keys[s->order[a]], "<");
        bool later_first = order != 2 && s->sign * order < 0;
        s->spare[n++] = s->order[later_first ? b++ : a++];
    }
    while (a < middle) s->spare[n++] = s->order[a++];
    while (b < to) s->spare[n++] = s->order[b++];
    memcpy(s->order + from, s->spare + from, (to - from) * sizeof *s->order);
}

static void sort_part(sorter *s, uint32_t from, uint32_t to) {
    if (to - from < 2) return;
    uint32_t middle = from + (to - from) / 2;
    sort_part(s, from, middle);
    sort_part(s, middle, to);
    merge(s, from, middle, to);
}

void jinja_sort(render *r, value *items, const value *keys, uint32_t count, bool reverse) {
    sorter s = {.r = r, .keys = keys, .sign = reverse ? -1 : 1};
    s.order = jinja_arena_take(&r->arena, count, sizeof *s.order),
    s.spare = jinja_arena_take(&r->arena, count, sizeof *s.spare);
    for (uint32_t i = 0; i < count; i++) s.order[i] = i;
    sort_part(&s, 0, count);
    value *sorted = jinja_arena_take(&r->arena, count, sizeof *sorted);
    for (uint32_t i = 0; i < count; i++) sorted[i] = items[s.order[i]];
    if (count) memcpy(items, sorted, count * sizeof *items);
}
