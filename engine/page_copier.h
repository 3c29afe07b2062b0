/* engine/page_copier.h: copies pages between two arrays in the same memory, beside the passes: what the CPU device swaps by.
 *
 * Problem: a copy of a page takes as long as a small pass, and whoever runs must not wait for it. Choice: one thread, in
 * order of id, which is all the order that scheduler/swap.h asks for; where a copy engine would be, here is a core's time
 * and the memory's bandwidth, so on a machine whose cores are all in the pass a copy slows it by about its own length. */
#pragma once
#include <stddef.h>

#include "engine/device.h"

typedef struct page_copier page_copier;

typedef struct {
    char    *pages, *host_pages; /* arrays of pages */
    size_t   page_bytes;
    uint32_t copies_max; /* begun and not told of */
} page_copier_config;

/* The arrays must outlive it. Takes all its memory here; a machine without threads or memory ends the process. */
page_copier *page_copier_new(const page_copier_config *c);
void         page_copier_free(page_copier *c); /* what was not begun yet is not; NULL: nothing */

/* One thread. What they promise is said in engine/device.h. */
void     page_copier_begin(page_copier *c, const page_copy *copies, uint32_t count);
void     page_copier_await(page_copier *c, uint64_t id);
uint32_t page_copier_done(page_copier *c, bool wait, copied_page *out, uint32_t max);
