/* server/ledger.c: where the time of a request went. Its parts add up to the whole, to the microsecond:
 *
 *     arrived ── tokenizing ──▶ submitted ── queued, prefill, stopped, recompute, decode ──▶ finished ── writing ──▶ told
 *
 * The engine counts the middle (engine.h, spent_on). Of several choices it is that of the one that finished last: all were
 * submitted at once, so its time is the request's. What the engine does not know of (parsing, rendering, making ids) came
 * before, and what is left (the way to the client: text, stop strings, JSON, handing over the last of it) is writing. */
#include <inttypes.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/log.h"
#include "server/generation.h"

typedef struct {
    uint64_t total_us, tokenizing_us, part_us[LEDGER_PARTS], writing_us, first_token_us; /* the last: from arrival on; 0 */
    uint64_t prompt_tokens, cached_tokens, output_tokens, recomputed_tokens;             /* of all prompts, all choices */
    uint32_t preemptions;
} ledger;

static const generation_choice *last_to_finish(const generation *g) {
    const generation_choice *last = NULL;
    for (uint32_t i = 0; i < g->choice_count; i++) {
        const generation_choice *k = &g->choices[i];
        if (generation_ledger(k)->finished_us &&
            (!last || generation_ledger(k)->finished_us > generation_ledger(last)->finished_us))
            last = k;
    }
    return last;
}

static void add_up(const generation *g, ledger *l) {
    for (uint32_t i = 0; i < g->prompt_count; i++) l->prompt_tokens += g->prompts[i].count;
    for (uint32_t i = 0; i < g->choice_count; i++) {
        const generation_choice *k = &g->choices[i];
        uint64_t                 first_us = k->first_us ? k->first_us - g->base.arrived_us : 0;
        l->output_tokens += k->text.token_count;
        l->preemptions += generation_ledger(k)->preemptions, l->recomputed_tokens += generation_ledger(k)->recomputed_tokens;
        if (i % g->choices_per_prompt == 0) l->cached_tokens += generation_ledger(k)->cached_tokens;
        if (first_us && (!l->first_token_us || first_us < l->first_token_us)) l->first_token_us = first_us;
    }
}

static ledger read_ledger(const generation *g) {
    const generation_choice *last = last_to_finish(g);
    uint64_t                 now_us = clock_us(), arrived_us = g->base.arrived_us, engine_us = 0;
    ledger                   l = {.total_us = now_us - arrived_us, .tokenizing_us = g->base.prepared_us - arrived_us};
    add_up(g, &l);
    if (last) {
        uint64_t submitted_us = generation_ledger(last)->submitted_us;
        if (submitted_us >= g->base.prepared_us && submitted_us <= now_us) l.tokenizing_us = submitted_us - arrived_us;
        for (int i = 0; i < LEDGER_PARTS; i++) engine_us += l.part_us[i] = generation_ledger(last)->part_us[i];
    }
    uint64_t known_us = l.tokenizing_us + engine_us;
    l.writing_us = l.total_us > known_us ? l.total_us - known_us : 0;
    return l;
}

static void write_ms(buf *out, const char *name, uint64_t us) {
    buf_printf(out, ",\"%s_ms\":%" PRIu64 ".%03u", name, us / 1000, (unsigned)(us % 1000));
}

static void write_members(const ledger *l, buf *out) {
    buf_printf(out,
               "\"prompt_tokens\":%" PRIu64 ",\"cached_tokens\":%" PRIu64 ",\"output_tokens\":%" PRIu64
               ",\"recomputed_tokens\":%" PRIu64 ",\"preemptions\":%u",
               l->prompt_tokens, l->cached_tokens, l->output_tokens, l->recomputed_tokens, l->preemptions);
    write_ms(out, "tokenizing", l->tokenizing_us);
    for (int i = 0; i < LEDGER_PARTS; i++) write_ms(out, ledger_part_names[i], l->part_us[i]);
    write_ms(out, "writing", l->writing_us);
    write_ms(out, "total", l->total_us);
    write_ms(out, "first_token", l->first_token_us);
}

void ledger_write(const generation *g, buf *out) {
    ledger l = read_ledger(g);
    write_members(&l, out);
}

void ledger_log(const generation *g) {
    if (!log_enabled(LOG_INFO)) return;
    const exchange *x = &g->base;
    ledger          l = read_ledger(g);
    char            text[512];
    buf             members;
    snprintf(text, sizeof text,
             "%s %s %d: %" PRIu64 " prompt tokens (%" PRIu64 " cached), %" PRIu64
             " generated; %.1f ms in all, %.1f to the first token, %.1f queued",
             x->id, x->path, x->status, l.prompt_tokens, l.cached_tokens, l.output_tokens, (double)l.total_us * 1e-3,
             (double)l.first_token_us * 1e-3, (double)l.part_us[LEDGER_QUEUED] * 1e-3);
    buf_init(&members, 160 << 10);
    buf_printf(
        &members,
        "\"request\":\"%s\",\"path\":\"%s\",\"tenant\":\"%s\",\"status\":%d,\"stream\":%s,\"choices\":%u,\"priority\":%d,",
        x->id, x->path, x->tenant ? x->tenant->name : "", x->status, g->answer.stream ? "true" : "false", g->choice_count,
        g->priority);
    write_members(&l, &members);
    if (g->metadata) buf_str(&members, ",\"metadata\":"), buf_str(&members, g->metadata);
    log_object(LOG_INFO, "request", text, members.data);
    buf_free(&members);
}
