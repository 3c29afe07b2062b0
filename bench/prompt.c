#include "bench/prompt.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/rng.h"

enum { KIND_OWN, KIND_COMMON, KIND_BLOCK, KIND_ANSWER };

void token_list_reserve(token_list *l, uint32_t count) {
    if (count <= l->capacity) return;
    l->capacity = count > l->capacity * 2 ? count : l->capacity * 2;
    l->ids = realloc(l->ids, l->capacity * sizeof *l->ids);
    if (!l->ids) fatal("out of memory for a prompt of %u tokens", count);
}

void token_list_free(token_list *l) {
    free(l->ids);
    *l = (token_list){0};
}

static uint64_t key_of(uint64_t kind, uint64_t a, uint64_t b) {
    return hash_u64((uint64_t[]){kind, a, b}, 3 * sizeof(uint64_t), 0);
}

/* Ids [from, from + count) of the endless sequence named by key. Clear of the special tokens that vocabularies begin and end
 * with: the middle half. A draw of the generator gives four. */
static void draw(const prompt_rules *rules, uint64_t key, uint64_t from, uint32_t count, token_list *out) {
    const uint32_t low = rules->vocab_size / 8, span = rules->vocab_size / 2 + 1;
    rng_block      block = {{0}};
    token_list_reserve(out, out->count + count);
    uint32_t *to = out->ids + out->count;
    for (uint64_t i = from; i < from + count; i++) {
        if (i == from || i % 4 == 0) block = rng_philox(rules->seed, key, i / 4);
        *to++ = low + (uint32_t)((uint64_t)block.word[i % 4] * span >> 32);
    }
    out->count += count;
}

static uint32_t scale(const prompt_rules *rules, uint64_t tokens) {
    double scaled = (double)tokens * rules->length_scale;
    return scaled < 1 ? tokens > 0 : scaled >= TRACE_TOKENS_MAX ? TRACE_TOKENS_MAX : (uint32_t)(scaled + 0.5);
}

prompt_lengths prompt_measure(const prompt_rules *rules, const trace_request *q) {
    prompt_lengths l = {scale(rules, q->prompt_tokens), scale(rules, q->output_tokens), scale(rules, q->shared_tokens),
                        false};
    const uint32_t most = rules->context_max;
    if (most && (uint64_t)l.prompt_tokens + l.output_tokens > most) {
        uint32_t room = l.output_tokens < most ? most - l.output_tokens : 0, half = (most + 1) / 2;
        uint32_t prompt_max = room > half ? room : half;
        l.cut = true;
        if (l.prompt_tokens > prompt_max) l.prompt_tokens = prompt_max;
        if (l.output_tokens > most - l.prompt_tokens) l.output_tokens = most - l.prompt_tokens;
    }
    if (l.shared_tokens > l.prompt_tokens) l.shared_tokens = l.prompt_tokens;
    return l;
}

static uint32_t less(uint64_t a, uint64_t b) { return (uint32_t)(a < b ? a : b); }

/* Block b of the trace covers tokens [b * width, (b + 1) * width), scaled. */
static void draw_blocks(const prompt_rules *rules, const trace *t, const trace_request *q, uint32_t prompt_tokens,
                        token_list *out) {
    const trace_session *s = &t->sessions[q->session];
    for (uint32_t i = 0; i < q->block_count && out->count < prompt_tokens; i++) {
        uint64_t b = (uint64_t)q->block_first + i;
        uint32_t begin = scale(rules, b * s->block_tokens),
                 end = less(scale(rules, (b + 1) * s->block_tokens), prompt_tokens);
        if (out->count < begin || out->count >= end) continue; /* before the first block that is known, or past this one */
        draw(rules, key_of(KIND_BLOCK, s->scope, t->blocks[q->blocks_at + i]), out->count - begin, end - out->count, out);
    }
}

void prompt_build(const prompt_rules *rules, const trace *t, uint32_t request, const token_list *before, token_list *out) {
    const trace_request *q = &t->requests[request];
    const trace_session *s = &t->sessions[q->session];
    const prompt_lengths l = prompt_measure(rules, q);
    const uint32_t       shared = q->turn ? less(l.shared_tokens, before->count) : 0;
    out->count = 0;
    token_list_reserve(out, l.prompt_tokens);
    if (shared) memcpy(out->ids, before->ids, shared * sizeof *out->ids), out->count = shared;
    const uint32_t common = less(scale(rules, s->common_tokens), l.prompt_tokens);
    if (out->count < common) draw(rules, key_of(KIND_COMMON, s->common_id, 0), out->count, common - out->count, out);
    draw_blocks(rules, t, q, l.prompt_tokens, out);
    draw(rules, key_of(KIND_OWN, request, 0), out->count, l.prompt_tokens - out->count, out);
}

void prompt_make_answer(const prompt_rules *rules, uint32_t request, uint32_t count, token_list *out) {
    draw(rules, key_of(KIND_ANSWER, request, 0), 0, count, out);
}
