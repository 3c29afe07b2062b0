/* scheduler/preemption.c: when a running pass yields.
 *
 * none: nobody does. Only a pass whose rows somebody no longer wants is cut short: the others go on where they were.
 *
 * operator (FlowPrefill): a pass of prefill is stopped before its next operator as soon as a request came that goes before
 * everybody in it. So how soon the urgent run does not depend on how the running are cut: prompts stay whole, which is what
 * is cheapest, and a stop costs one operator of waiting and a copy of rows. Stopped passes nest, each in its frames; with no
 * frame left a pass cannot be stopped, which bounds how much half-done work there is.
 *     What is urgent must not ride with what it was to pass by: beside others a prompt joins only while all are few rows,
 * which is also where joining saves most, for the weights are read once for all of them.
 *     Decodes that all said when they want their tokens may wait for prompts, until the tightest would be late: then they
 * stop the prefill like anybody who is urgent. A pass is then either decodes or prompts, and prompts can be stopped at any
 * time; the price is that weights are read for each. */
#include "scheduler/preemption.h"

#include <stddef.h>

static stop_reason none_stops(const stop_view *v) { return v->cancelled ? STOP_CANCELLED : STOP_NONE; }

static stop_reason operator_stops(const stop_view *v) {
    return v->cancelled ? STOP_CANCELLED : v->token_due ? STOP_TOKEN_DUE : v->outranked ? STOP_OUTRANKED : STOP_NONE;
}

static bool few_join(const scheduler_config *c, uint32_t rows, uint32_t tokens) {
    return (uint64_t)rows + tokens <= (c->preemption.batch_tokens ? c->preemption.batch_tokens : BATCH_TOKENS);
}

/* Not for less than what the decodes take themselves: it would be stops and little else. */
static bool decodes_wait(const scheduler_config *c, const wait_view *v) {
    return c->preemption.decodes_wait && v->decode_us > 0 && v->left_us != UINT64_MAX && v->left_us / 3 >= v->decode_us;
}

const preemption_api preemption_none = {none_stops, NULL, NULL};
const preemption_api preemption_operator = {operator_stops, decodes_wait, few_join};
