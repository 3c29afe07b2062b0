#include "kvcache/retention.h"

#include "base/error.h"

void kept_pages_init(kept_pages *k, uint32_t page_count, carver *c) {
    *k = (kept_pages){.page_count = page_count, .head = NO_PAGE, .tail = NO_PAGE};
    k->next = carve(c, page_count, sizeof *k->next);
    k->previous = carve(c, page_count, sizeof *k->previous);
    k->kept_at = carve(c, page_count, sizeof *k->kept_at);
}

static void list_append(kept_pages *k, uint32_t page) {
    check(page < k->page_count && k->kept_at[page] == 0);
    k->kept_at[page] = ++k->turn;
    k->next[page] = NO_PAGE;
    k->previous[page] = k->tail;
    *(k->tail == NO_PAGE ? &k->head : &k->next[k->tail]) = page;
    k->tail = page;
    k->kept_count++;
}

static void list_remove(kept_pages *k, uint32_t page) {
    check(page < k->page_count && k->kept_at[page] != 0 && k->kept_count > 0);
    uint32_t next = k->next[page], previous = k->previous[page];
    *(previous == NO_PAGE ? &k->head : &k->next[previous]) = next;
    *(next == NO_PAGE ? &k->tail : &k->previous[next]) = previous;
    k->kept_at[page] = 0;
    k->kept_count--;
}

static uint32_t list_head(const kept_pages *k) { return k->head; }

const retention_api retention_lru = {"lru", list_append, list_remove, list_head};

void kept_pages_check(const kept_pages *k) {
    uint32_t seen = 0, previous = NO_PAGE;
    for (uint32_t page = k->head; page != NO_PAGE; page = k->next[page]) {
        check(page < k->page_count && k->kept_at[page] != 0 && k->kept_at[page] <= k->turn);
        check(k->previous[page] == previous);
        check(++seen <= k->kept_count);
        previous = page;
    }
    check(seen == k->kept_count && k->tail == previous);
}
