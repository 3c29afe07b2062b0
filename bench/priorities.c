#include "bench/priorities.h"

#include "base/rng.h"

#define MOVES 0.1f

static int32_t drawn(uint64_t seed, uint32_t session, uint64_t tick) {
    return (int32_t)(rng_u64(seed, session, tick) % PRIORITY_LEVELS);
}

/* At the ends half of the moves lead nowhere, so in the long run all levels are as frequent. */
static int32_t moved(int32_t level, uint64_t seed, uint32_t session, uint64_t tick) {
    const float u = rng_unit(seed, session, tick);
    if (u < MOVES / 2 && level > 0) return level - 1;
    if (u >= MOVES / 2 && u < MOVES && level + 1 < PRIORITY_LEVELS) return level + 1;
    return level;
}

int32_t priority_at(const priority_rules *rules, uint64_t seed, uint32_t session, uint64_t now_us, priority_state *state) {
    const uint64_t tick = now_us / rules->period_us + 1;
    if (rules->pattern == PRIORITIES_RANDOM || state->tick == 0) {
        state->level = drawn(seed, session, tick), state->tick = tick;
        return state->level;
    }
    while (state->tick < tick) state->level = moved(state->level, seed, session, ++state->tick);
    return state->level;
}

uint64_t priority_next_us(const priority_rules *rules, uint64_t now_us) {
    if (rules->pattern == PRIORITIES_OF_TRACE) return UINT64_MAX;
    return (now_us / rules->period_us + 1) * rules->period_us;
}
