/* bench/priorities.h: how urgent conversations are, where that changes while they go on.
 *
 * Problem: what taking memory back costs shows where it is taken back often: under fair sharing, or a policy above the
 * engine that ranks its clients anew again and again. There is no public trace of such ranks; FastSwitch (arXiv 2411.18424)
 * draws them, in two patterns, and changes them every 25th (8B) or 50th pass. Choice: ranks change at ticks of the clock and
 * not of passes, so that every cell of a comparison is given the same ones at the same times. Of `LEVELS` levels a
 * conversation's is random: drawn anew at each tick; markov: its last one, or with probability MOVES a neighbour of it: who
 * is urgent stays so for a while. The paper's matrix is not known to us; MOVES is ours. Both are pure functions of seed,
 * conversation and tick. */
#pragma once
#include <stdint.h>

typedef enum { PRIORITIES_OF_TRACE, PRIORITIES_RANDOM, PRIORITIES_MARKOV } priority_pattern;
#define PRIORITY_PATTERNS "trace|random|markov"

typedef struct {
    priority_pattern pattern;
    uint64_t         period_us; /* of a tick; at least 1 */
} priority_rules;

typedef struct {
    int32_t  level;
    uint64_t tick; /* 1 + that of the level; 0: it has none yet */
} priority_state;

enum { PRIORITY_LEVELS = 4 };

/* The level at a time that never goes backwards for one conversation; lower is more urgent. */
int32_t priority_at(const priority_rules *rules, uint64_t seed, uint32_t session, uint64_t now_us, priority_state *state);
/* When it may be another. UINT64_MAX: never. */
uint64_t priority_next_us(const priority_rules *rules, uint64_t now_us);
