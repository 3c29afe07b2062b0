#include "scheduler/preemption.h"

/* Recompute: the victim's pages go (what it published stays findable while it lasts), its tokens come back first in the
 * queue. The latest arrival has the least to lose; never the same one twice in a row, so that nobody is starved by two
 * neighbours that outgrow the pool in turn.
 *
 * Progress: every token that was drawn is kept, and between two times that a sequence is taken back at least one token is
 * drawn (it enters with room for its next token, and whoever grew in its place drew one). So memory is taken back at most
 * as often as tokens are drawn, and when one sequence is left it fits: submit refused what does not. */
static uint32_t recompute_victim(const running_view *running, uint32_t count, uint64_t last_victim) {
    uint32_t latest = running[0].arrival == last_victim ? 1 : 0;
    for (uint32_t i = latest + 1; i < count; i++)
        if (running[i].arrival > running[latest].arrival && running[i].arrival != last_victim) latest = i;
    return latest;
}

const reclaim_api reclaim_recompute = {recompute_victim};
