/* kvcache/page_copy.h: one page of keys and values to host memory, or back. Who plans copies and who performs them both
 * include this; scheduler/swap.h says what they promise each other. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

/* Copies that touch the same page, or the same host page, take effect in order of id, and each after the passes before its
 * plan; else they may overlap, with each other and with passes. */
typedef struct {
    uint64_t id; /* from 1, rising */
    bool     to_host;
    uint32_t page, host_page;
} page_copy;
