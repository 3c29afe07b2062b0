/* bench/progress.h: how far a replay is: a bar on a terminal, a line now and then elsewhere. On standard error. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

typedef struct {
    uint32_t total, completed, failed, in_flight, held;
    uint64_t chunks, next_us; /* when the next is due; 0: none is */
    bool     has_metrics;
    uint64_t shown_us, shown_chunks; /* when it was last shown */
} progress;

void progress_show(progress *p, uint64_t now_us, bool last);
