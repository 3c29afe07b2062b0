#include "scheduler/length_model.h"

#include <string.h>

#include "base/error.h"

enum { WAYS = 4, EXACT = 8, PER_OCTAVE = 4 }; /* lengths below EXACT have a step each */

void length_model_init(length_model *m, uint32_t class_count, carver *c) {
    check(class_count % WAYS == 0);
    *m = (length_model){.class_count = class_count};
    m->classes = carve(c, class_count, sizeof *m->classes);
}

/* ---- steps ---- */

static uint32_t step_of(uint32_t length) {
    if (length < EXACT) return length;
    const uint32_t octave = 31 - (uint32_t)__builtin_clz(length); /* 3 for 8 to 15 */
    const uint32_t quarter = (length >> (octave - 2)) & 3;
    const uint32_t step = EXACT + (octave - 3) * PER_OCTAVE + quarter;
    return step < LENGTH_STEPS ? step : LENGTH_STEPS - 1;
}

static uint32_t begin_of(uint32_t step) {
    if (step < EXACT) return step;
    const uint32_t octave = (step - EXACT) / PER_OCTAVE + 3, quarter = (step - EXACT) % PER_OCTAVE;
    return (4 + quarter) << (octave - 2);
}

/* ---- one history ---- */

static void halve(length_history *h) {
    h->samples /= 2;
    for (int i = 0; i < LENGTH_STEPS; i++) h->ended[i] /= 2, h->cut[i] /= 2;
}

/* Kaplan-Meier: of those that got to a step, the share that did not end in it goes on. Nobody may ever ask. */
static void estimate(length_history *h) {
    if (!h->stale) return;
    h->stale = false;
    float here[LENGTH_STEPS], sum = 0;
    for (int i = LENGTH_STEPS - 1; i >= 0; i--) here[i] = sum += h->ended[i] + h->cut[i];
    h->longer[0] = 1;
    for (int i = 0; i < LENGTH_STEPS; i++)
        h->longer[i + 1] = here[i] > 0 ? h->longer[i] * (1 - h->ended[i] / here[i]) : h->longer[i];
}

static void learn(length_history *h, uint32_t length, bool ended) {
    if (h->samples >= 2 * SAMPLES_HELD) halve(h);
    (ended ? h->ended : h->cut)[step_of(length)]++;
    h->samples++;
    h->stale = true;
}

/* Share of answers longer than `length`: a line between the steps. */
static double share_longer(const length_history *h, uint32_t length) {
    const uint32_t step = step_of(length), begin = begin_of(step), width = begin_of(step + 1) - begin;
    const double   part = length - begin < width ? (double)(length - begin) / width : 1;
    return h->longer[step] + (h->longer[step + 1] - h->longer[step]) * part;
}

/* The length that only `share` of the answers exceed. */
static uint32_t length_at(const length_history *h, double share) {
    uint32_t low = 0, high = LENGTH_STEPS; /* longer[] never rises: the last step that begins above the share */
    if (h->longer[LENGTH_STEPS] > share) return LENGTH_UNKNOWN;
    while (high - low > 1) {
        const uint32_t middle = (low + high) / 2;
        if (h->longer[middle] > share) low = middle;
        else high = middle;
    }
    const double   fall = h->longer[low] - h->longer[low + 1];
    const uint32_t begin = begin_of(low), width = begin_of(low + 1) - begin;
    return begin + (fall > 0 ? (uint32_t)((h->longer[low] - share) / fall * width) : 0);
}

/* ---- the model ---- */

static length_history *set_of(const length_model *m, uint64_t class) {
    const uint64_t mixed = class * 0x9E3779B97F4A7C15u;
    return m->classes + (uint32_t)((mixed >> 32) % (m->class_count / WAYS)) * WAYS;
}

/* The class' place, or that of the class among its four that has said least. */
static length_history *place_of(const length_model *m, uint64_t class) {
    length_history *set = set_of(m, class), *least = set;
    for (int i = 0; i < WAYS; i++) {
        if (set[i].samples > 0 && set[i].class == class) return &set[i];
        if (set[i].samples < least->samples) least = &set[i];
    }
    return least;
}

void length_model_learn(length_model *m, uint64_t class, uint32_t length, bool ended) {
    if (length == 0) return;
    learn(&m->all, length, ended);
    if (m->class_count == 0) return;
    length_history *h = place_of(m, class);
    if (h->class != class || h->samples == 0) memset(h, 0, sizeof *h), h->class = class;
    learn(h, length, ended);
}

uint32_t length_model_left(length_model *m, uint64_t class, uint32_t said, double quantile) {
    check(quantile > 0 && quantile < 1);
    length_history *h = m->class_count ? place_of(m, class) : &m->all;
    if (h->class != class || h->samples < SAMPLES_MIN) h = &m->all;
    if (h->samples < SAMPLES_MIN) return LENGTH_UNKNOWN;
    estimate(h);
    const double still = share_longer(h, said);
    if (still <= 0) return LENGTH_UNKNOWN; /* longer than any that ended */
    const uint32_t length = length_at(h, still * (1 - quantile));
    return length == LENGTH_UNKNOWN ? LENGTH_UNKNOWN : length > said ? length - said : 1;
}
