#include "engine/ledger.h"

#include <stdbool.h>

const char *const ledger_part_names[LEDGER_PARTS] = {"queued", "prefill", "stopped", "recompute", "decode"};

static void account(request_ledger *l, ledger_clock *c, ledger_part part, uint64_t now_us) {
    if (now_us <= c->since_us) return;
    l->part_us[part] += now_us - c->since_us;
    c->since_us = now_us;
}

/* The time since the last pass that it was in, or since it came. */
static void account_gap(request_ledger *l, ledger_clock *c, bool goes_on, uint64_t now_us) {
    const bool lost_its_memory = c->preemptions != l->preemptions;
    account(l, c, c->last_pass == 0 || lost_its_memory ? LEDGER_QUEUED : goes_on ? c->work : LEDGER_STOPPED, now_us);
    if (lost_its_memory) c->work = LEDGER_RECOMPUTE;
    l->preemptions = c->preemptions;
}

void ledger_submitted(request_ledger *l, ledger_clock *c, uint32_t prompt_tokens, uint64_t now_us) {
    *l = (request_ledger){.submitted_us = now_us, .prompt_tokens = prompt_tokens};
    *c = (ledger_clock){.work = LEDGER_PREFILL, .since_us = now_us};
}

void ledger_preempted(request_ledger *l, ledger_clock *c, uint32_t preemptions, uint32_t recomputed_tokens) {
    c->preemptions = preemptions;
    l->recomputed_tokens = recomputed_tokens;
}

void ledger_pass_begins(request_ledger *l, ledger_clock *c, uint64_t pass, uint64_t now_us) {
    account_gap(l, c, c->last_pass + 1 == pass, now_us);
    if (c->last_pass == 0) l->admitted_us = now_us;
}

void ledger_pass_ends(request_ledger *l, ledger_clock *c, uint64_t pass, uint64_t now_us) {
    account(l, c, c->work, now_us);
    c->last_pass = pass;
}

void ledger_token(request_ledger *l, ledger_clock *c, uint64_t now_us) {
    if (l->output_tokens++ == 0) l->first_token_us = now_us;
    c->work = LEDGER_DECODE;
}

void ledger_finished(request_ledger *l, ledger_clock *c, uint64_t last_pass, uint64_t now_us) {
    account_gap(l, c, c->last_pass == last_pass, now_us);
    l->finished_us = now_us;
}
