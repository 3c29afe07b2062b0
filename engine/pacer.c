#include "engine/pacer.h"

#define IDLE_NS 1000000 /* an engine that has work comes back sooner */

static uint64_t behind_ns(const pacer *p, uint64_t now_ns) { return now_ns > p->due_ns ? now_ns - p->due_ns : 0; }

void pacer_launch(pacer *p, uint64_t now_ns, uint64_t ns) {
    const uint64_t behind = behind_ns(p, now_ns), debt = now_ns - p->last_ns > IDLE_NS ? 0 : p->debt_ns;
    if (behind > debt) p->due_ns = now_ns - debt;
    p->due_ns += ns;
    p->debt_ns = behind_ns(p, now_ns);
    p->last_ns = now_ns;
}

void pacer_woke(pacer *p, uint64_t now_ns) {
    p->debt_ns = behind_ns(p, now_ns);
    p->last_ns = now_ns;
}
