/* engine/pacer.h: when a device that only pretends is done, for who sleeps until then.
 *
 * Problem: nobody is woken on time. A sleep ends some 60 us late, on a busy machine milliseconds; where each piece of work
 * is counted from when its sleeper woke, a pass of many sleeps becomes a fifth longer than what it pretends to be. Choice:
 * pieces are counted one from the end of the other, and what the sleeper came late by is a debt: the work that follows
 * begins that much earlier. The debt is of sleeping alone: time that passed because nothing was launched (an idle engine, a
 * slow host) is not made up for, since a real device would have stood still as well. Pure: the time is an argument. */
#pragma once
#include <stdint.h>

typedef struct {
    uint64_t due_ns;  /* when all that was launched is finished */
    uint64_t last_ns; /* of the last call */
    uint64_t debt_ns; /* what sleeping was late by and is not made up for */
} pacer;

/* Work that takes `ns` is launched. */
void pacer_launch(pacer *p, uint64_t now_ns, uint64_t ns);
/* Someone slept until due_ns, and it is now_ns. */
void pacer_woke(pacer *p, uint64_t now_ns);
