/* server/reply_prompt.c: a prompt as part of its answer: its ids, and how likely its tokens were. */
#include "server/reply.h"

void reply_ids(buf *out, const uint32_t *ids, uint32_t n) {
    buf_char(out, '[');
    for (uint32_t i = 0; i < n; i++) buf_printf(out, i ? ",%u" : "%u", ids[i]);
    buf_char(out, ']');
}

void reply_prompt_ids(const generation *g, const generation_choice *k, buf *out) {
    if (!g->rules.ids) return;
    buf_str(out, ",\"prompt_token_ids\":");
    reply_ids(out, g->prompts[k->prompt].ids, g->prompts[k->prompt].count);
}

/* "id": {"logprob", "rank", "decoded_token"} */
static void write_rated(const generation *g, uint32_t id, float logprob, uint32_t rank, buf *out) {
    buf_printf(out, "\"%u\":{\"logprob\":", id);
    reply_logprob(out, logprob);
    buf_printf(out, ",\"rank\":%u,\"decoded_token\":", rank);
    reply_token_text(g, id, out);
    buf_char(out, '}');
}

static void write_position(const generation *g, const generation_prompt *p, uint32_t i, buf *out) {
    const prompt_scores *s = p->scores;
    bool                 listed = false;
    buf_char(out, '{');
    for (uint32_t t = 0; t < s->tops; t++) {
        uint32_t id = s->top_ids[(size_t)i * s->tops + t];
        if (id == PROMPT_TOP_NONE) break;
        if (t) buf_char(out, ',');
        write_rated(g, id, s->top_logprobs[(size_t)i * s->tops + t], t + 1, out);
        listed |= id == p->ids[i];
    }
    if (!listed) {
        if (s->tops && s->top_ids[(size_t)i * s->tops] != PROMPT_TOP_NONE) buf_char(out, ',');
        write_rated(g, p->ids[i], s->logprobs[i], s->ranks[i], out);
    }
    buf_char(out, '}');
}

void reply_prompt_scores(const generation *g, const generation_choice *k, buf *out) {
    const generation_prompt *p = &g->prompts[k->prompt];
    if (!g->answer.prompt_logprobs) return;
    buf_str(out, ",\"prompt_logprobs\":[null");
    for (uint32_t i = 1; i < p->count; i++) buf_char(out, ','), write_position(g, p, i, out);
    buf_char(out, ']');
}

/* Where the text of each token of an echo begins, in characters: what a detokenizer has said by then. */
static void write_offsets(const generation *g, const generation_prompt *p, buf *out) {
    detokenizer d;
    buf         text;
    uint32_t    chars = 0;
    buf_init(&text, 1 << 20);
    if (g->rules.tokenizer) detokenizer_init(&d, g->rules.tokenizer, g->rules.keep_special);
    for (uint32_t i = 0; i < p->count; i++) {
        buf_printf(out, i ? ",%u" : "%u", chars < p->text_chars ? chars : p->text_chars);
        buf_clear(&text);
        if (g->rules.tokenizer) detokenizer_feed(&d, p->ids[i], &text);
        else buf_printf(&text, " %u", p->ids[i]);
        for (size_t b = 0; b < text.size; b++) chars += ((unsigned char)text.data[b] & 0xC0) != 0x80;
    }
    buf_free(&text);
}

static void write_tops(const generation *g, const generation_prompt *p, uint32_t i, buf *out) {
    const prompt_scores *s = p->scores;
    legacy_top           tops[TOP_LOGPROBS_MAX];
    uint32_t             count = 0, wanted = (uint32_t)g->answer.echo_tops;
    for (uint32_t t = 0; t < s->tops && t < wanted && s->top_ids[(size_t)i * s->tops + t] != PROMPT_TOP_NONE; t++)
        tops[count++] = (legacy_top){s->top_ids[(size_t)i * s->tops + t], s->top_logprobs[(size_t)i * s->tops + t]};
    reply_legacy_tops(g, tops, count, (legacy_top){p->ids[i], s->logprobs[i]}, out);
}

/* Each writes the prompt's part of one of the four arrays; whether it wrote anything. */
bool reply_echo_part(const generation *g, const generation_choice *k, legacy_part part, buf *out) {
    const generation_prompt *p = &g->prompts[k->prompt];
    if (!reply_echoes_scores(g)) return false;
    for (uint32_t i = 0; i < p->count && part != LEGACY_OFFSETS; i++) {
        if (i) buf_char(out, ',');
        if (part == LEGACY_TOKENS) reply_token_text(g, p->ids[i], out);
        else if (i == 0) buf_str(out, "null"); /* nothing comes before the first */
        else if (part == LEGACY_LOGPROBS) reply_logprob(out, p->scores->logprobs[i]);
        else write_tops(g, p, i, out);
    }
    if (part == LEGACY_OFFSETS) write_offsets(g, p, out);
    return p->count > 0;
}
