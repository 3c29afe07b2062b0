/* base/clock.h: monotonic time. For the doing leg and the server only: the thinking leg is told the time. */
#pragma once
#include <stdint.h>
#include <time.h>

static inline uint64_t clock_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}
static inline uint64_t clock_us(void) { return clock_ns() / 1000; }
