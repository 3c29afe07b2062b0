#include "scheduler/reclaim.h"

#include <stddef.h>

#include "base/error.h"
#include "scheduler/state.h"

/* ---- from whom ---- */

/* Who goes last, by the ranks that they were let in with: the least urgent, or whose tenant is furthest ahead. First come,
 * first served so takes from the latest arrival, which has the least to lose. Never the same one twice in a row, so that
 * nobody is starved by two neighbours that outgrow the pool in turn.
 *
 * Progress: every token that was drawn is kept, and between two times that a sequence is taken back at least one token is
 * drawn (it enters with room for its next token, and whoever grew in its place drew one). So memory is taken back at most
 * as often as tokens are drawn, and when one sequence is left it fits: submit refused what does not. */
static uint32_t last_of(const scheduler *s, const running_list *l, uint32_t last) {
    for (uint32_t i = 0; i < l->count; i++) {
        const uint32_t one = l->sequences[i];
        if (s->records[one].arrival == s->last_victim) continue;
        if (last == NO_SEQUENCE || runs_before(s, last, one)) last = one;
    }
    return last;
}

uint32_t reclaim_victim(const scheduler *s) {
    const uint32_t last = last_of(s, &s->prefilling, last_of(s, &s->decoding, NO_SEQUENCE));
    check(last != NO_SEQUENCE);
    return last;
}

/* Ranks of the priority order are times, and a level is worth one (order.c): who is nearer to the next level than to its own
 * is behind. Ranks do not change by themselves, so two never take each other's place in turn. */
static bool is_level_behind(const scheduler *s, uint32_t one, uint32_t than) {
    const order_rank *a = &s->records[one].rank, *b = &s->records[than].rank;
    return runs_before(s, than, one) && a->key > b->key && a->key - b->key > order_level_us(&s->config) / 2;
}

uint32_t reclaim_displaced(const scheduler *s, uint32_t index, uint64_t *pages) {
    const running_list *lists[] = {&s->decoding, &s->prefilling};
    *pages = 0;
    for (int k = 0; k < 2; k++)
        for (uint32_t i = 0; i < lists[k]->count; i++) {
            const uint32_t one = lists[k]->sequences[i];
            uint32_t       held;
            if (s->records[one].arrival == s->last_victim || !is_level_behind(s, one, index)) continue;
            kvcache_pages(s->kv, s->sequences[one].slot, &held);
            *pages += held;
        }
    const uint32_t last = *pages > 0 ? reclaim_victim(s) : NO_SEQUENCE;
    return last != NO_SEQUENCE && is_level_behind(s, last, index) ? last : NO_SEQUENCE;
}

/* ---- what becomes of the pages ---- */

static bool always(const swap_view *v) { return (void)v, true; }

/* Both ways count, and what is queued before: a copy costs the device nothing, but its sequence waits for it. Until passes
 * have been learned from, copies are taken to be cheaper. */
static bool if_cheaper(const swap_view *v) {
    return v->compute_us == 0 || v->queue_us + ((double)v->pages_out + v->pages_in) * v->copy_us < (double)v->compute_us;
}

const reclaim_api reclaim_recompute = {NULL};
const reclaim_api reclaim_swap = {always};
const reclaim_api reclaim_auto = {if_cheaper};
