#include "engine/copy_link.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"

static uint64_t *ends_of(uint32_t pages) {
    uint64_t *ends = calloc((size_t)pages + 1, sizeof *ends);
    if (!ends) fatal("out of memory for the copies of %u pages", pages);
    return ends;
}

void copy_link_open(copy_link *l, uint64_t page_ns, uint32_t page_count, uint32_t host_pages) {
    *l = (copy_link){.page_ns = page_ns, .page_ends = ends_of(page_count), .host_ends = ends_of(host_pages)};
}

void copy_link_close(copy_link *l) {
    free(l->lanes[0].copies), free(l->lanes[1].copies), free(l->page_ends), free(l->host_ends);
    *l = (copy_link){0};
}

static link_copy *add(link_lane *lane) {
    if (lane->first > 0 && lane->count == lane->capacity) {
        lane->count -= lane->first;
        memmove(lane->copies, lane->copies + lane->first, lane->count * sizeof *lane->copies);
        lane->first = 0;
    }
    if (lane->count == lane->capacity) {
        lane->capacity = lane->capacity ? lane->capacity * 2 : 64;
        lane->copies = realloc(lane->copies, lane->capacity * sizeof *lane->copies);
        if (!lane->copies) fatal("out of memory for %zu copies", lane->capacity);
    }
    return &lane->copies[lane->count++];
}

static uint64_t later(uint64_t a, uint64_t b) { return a > b ? a : b; }
static uint64_t us_of_ns(uint64_t ns) { return (ns + 999) / 1000; }

void copy_link_queue(copy_link *l, uint64_t now_us, const page_copy *copies, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        const page_copy *c = &copies[i];
        link_lane       *lane = &l->lanes[c->to_host];
        uint64_t        *page = &l->page_ends[c->page], *host = &l->host_ends[c->host_page];
        const uint64_t   begin_ns = later(later(now_us * 1000, lane->end_ns), later(*page, *host));
        *page = *host = lane->end_ns = begin_ns + l->page_ns;
        *add(lane) = (link_copy){c->id, lane->end_ns};
    }
}

static const link_copy *first(const link_lane *lane) {
    return lane->first < lane->count ? &lane->copies[lane->first] : NULL;
}

uint64_t copy_link_end_us(const copy_link *l, uint64_t id) {
    for (int i = 0; i < 2; i++) {
        size_t low = l->lanes[i].first, high = l->lanes[i].count;
        while (low < high) {
            const size_t     middle = low + (high - low) / 2;
            const link_copy *c = &l->lanes[i].copies[middle];
            if (c->id == id) return us_of_ns(c->end_ns);
            if (c->id < id) low = middle + 1;
            else high = middle;
        }
    }
    return 0;
}

/* The lane whose first copy ends first; -1: nothing is under way. */
static int earliest(const copy_link *l) {
    const link_copy *in = first(&l->lanes[0]), *out = first(&l->lanes[1]);
    if (!in && !out) return -1;
    return !in || (out && out->end_ns < in->end_ns);
}

uint64_t copy_link_next_us(const copy_link *l) {
    const int lane = earliest(l);
    return lane < 0 ? LINK_IDLE : us_of_ns(first(&l->lanes[lane])->end_ns);
}

uint64_t copy_link_take(copy_link *l, uint64_t now_us) {
    const int lane = earliest(l);
    return copy_link_next_us(l) <= now_us ? l->lanes[lane].copies[l->lanes[lane].first++].id : 0;
}
