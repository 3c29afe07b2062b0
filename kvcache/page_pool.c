#include "kvcache/page_pool.h"

#include <string.h>

#include "base/error.h"

void page_pool_init(page_pool *p, uint32_t page_count, carver *c) {
    p->page_count = p->free_count = page_count;
    p->free_pages = carve(c, page_count, sizeof *p->free_pages);
    p->holders = carve(c, page_count, sizeof *p->holders);
    if (!c->memory) return;
    for (uint32_t i = 0; i < page_count; i++) p->free_pages[i] = page_count - 1 - i;
}

uint32_t page_pool_take(page_pool *p) {
    if (p->free_count == 0) return NO_PAGE;
    uint32_t page = p->free_pages[--p->free_count];
    check(page < p->page_count && p->holders[page] == 0);
    p->holders[page] = 1;
    return page;
}

void page_pool_give(page_pool *p, uint32_t page) {
    check(page < p->page_count && p->holders[page] == 0 && p->free_count < p->page_count);
    p->free_pages[p->free_count++] = page;
}

void page_pool_check(const page_pool *p, uint32_t *scratch) {
    memset(scratch, 0, p->page_count * sizeof *scratch);
    check(p->free_count <= p->page_count);
    for (uint32_t i = 0; i < p->free_count; i++) {
        uint32_t page = p->free_pages[i];
        check(page < p->page_count && p->holders[page] == 0);
        check(scratch[page]++ == 0); /* free once */
    }
}
