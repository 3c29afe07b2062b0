/* server/reply.c: what a client reads: one JSON answer, or events as the choices grow (OpenAI's shapes, chat and legacy).
 *
 * Order of a stream: for each choice a role chunk with empty content, its text, an empty delta with the finish reason; then
 * usage with empty choices where asked for; then [DONE]. A stream that fails ends with an error object and no [DONE], so
 * that no client takes it for complete. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/reply.h"

enum { ANSWER_MAX_BYTES = 512 << 20 };

static bool is_chat(const generation *g) { return g->base.kind->endpoint == ENDPOINT_CHAT; }

static const char *finish_name(choice_end end) {
    switch (end) {
    case CHOICE_STOPPED: return "\"stop\"";
    case CHOICE_LENGTH: return "\"length\"";
    default: return "null";
    }
}

/* ---- parts ---- */
void reply_logprob(buf *out, float value) {
    buf_printf(out, "%.7g", value >= -9999.0f ? (double)value : -9999.0); /* minus infinity and NaN are not JSON */
}

static const buf *token_bytes(const generation *g, uint32_t id) {
    buf *out = &g->base.service->scratch;
    buf_clear(out);
    if (g->rules.tokenizer) tokenizer_token_bytes(g->rules.tokenizer, id, out);
    else buf_printf(out, " %u", id);
    return out;
}

static void write_bytes_as_text(buf *out, const buf *bytes) { json_quote(out, bytes->data ? bytes->data : "", bytes->size); }
void        reply_token_text(const generation *g, uint32_t id, buf *out) { write_bytes_as_text(out, token_bytes(g, id)); }

/* "token": ..., "logprob": ..., "bytes": [...] without braces. */
static void write_token(const generation *g, buf *out, uint32_t id, float logprob) {
    const buf *bytes = token_bytes(g, id);
    buf_str(out, "\"token\":");
    write_bytes_as_text(out, bytes);
    buf_str(out, ",\"logprob\":");
    reply_logprob(out, logprob);
    buf_str(out, ",\"bytes\":[");
    for (size_t i = 0; i < bytes->size; i++) buf_printf(out, i ? ",%u" : "%u", (unsigned char)bytes->data[i]);
    buf_char(out, ']');
}

static void write_chat_logprobs(const generation *g, const choice *c, buf *out) {
    buf_str(out, "{\"content\":[");
    for (uint32_t i = c->entry_sent; i < c->entry_ready; i++) {
        const logprob_entry *e = &c->entries[i];
        buf_str(out, i > c->entry_sent ? ",{" : "{");
        write_token(g, out, e->token, e->logprob);
        buf_str(out, ",\"top_logprobs\":[");
        for (uint32_t t = 0; t < e->top_count; t++) {
            buf_str(out, t ? ",{" : "{");
            write_token(g, out, c->tops[e->top_begin + t].token, c->tops[e->top_begin + t].logprob);
            buf_char(out, '}');
        }
        buf_str(out, "]}");
    }
    buf_str(out, "],\"refusal\":null}");
}

/* Of tokens that read the same only the likelier one can be told. */
void reply_legacy_tops(const generation *g, const legacy_top *tops, uint32_t count, legacy_top token, buf *out) {
    bool listed = false;
    buf_char(out, '{');
    for (uint32_t t = 0; t < count + !listed; t++) {
        const legacy_top *top = t < count ? &tops[t] : &token;
        listed |= top->id == token.id;
        if (t) buf_char(out, ',');
        reply_token_text(g, top->id, out);
        buf_char(out, ':');
        reply_logprob(out, top->logprob);
    }
    buf_char(out, '}');
}

static void write_legacy_entry(const generation *g, const choice *c, const logprob_entry *e, legacy_part part,
                               uint32_t offset_chars, buf *out) {
    legacy_top tops[TOP_LOGPROBS_MAX];
    uint32_t   count = e->top_count < TOP_LOGPROBS_MAX ? e->top_count : TOP_LOGPROBS_MAX;
    switch (part) {
    case LEGACY_TOKENS: reply_token_text(g, e->token, out); break;
    case LEGACY_LOGPROBS: reply_logprob(out, e->logprob); break;
    case LEGACY_OFFSETS: buf_printf(out, "%u", e->char_begin + offset_chars); break;
    default:
        for (uint32_t t = 0; t < count; t++)
            tops[t] = (legacy_top){c->tops[e->top_begin + t].token, c->tops[e->top_begin + t].logprob};
        reply_legacy_tops(g, tops, count, (legacy_top){e->token, e->logprob}, out);
    }
}

/* Of what is ready, of the echo, or of both. */
static void write_legacy_logprobs(const generation *g, const generation_choice *k, bool echo, bool drawn, buf *out) {
    static const char *const names[LEGACY_PARTS] = {"tokens", "token_logprobs", "top_logprobs", "text_offset"};
    const choice            *c = &k->text;
    uint32_t                 offset_chars = g->answer.echo ? g->prompts[k->prompt].text_chars : 0;
    for (int part = 0; part < LEGACY_PARTS; part++) {
        buf_printf(out, part ? ",\"%s\":[" : "{\"%s\":[", names[part]);
        bool comma = echo && reply_echo_part(g, k, (legacy_part)part, out);
        for (uint32_t i = c->entry_sent; drawn && i < c->entry_ready; i++, comma = true) {
            if (comma) buf_char(out, ',');
            write_legacy_entry(g, c, &c->entries[i], (legacy_part)part, offset_chars, out);
        }
        buf_char(out, ']');
    }
    buf_char(out, '}');
}

static void write_logprobs(const generation *g, const generation_choice *k, bool echo, buf *out) {
    echo &= reply_echoes_scores(g);
    if (!echo && (!g->rules.logprobs || k->text.entry_sent == k->text.entry_ready)) buf_str(out, "null");
    else if (is_chat(g)) write_chat_logprobs(g, &k->text, out);
    else write_legacy_logprobs(g, k, echo, true, out);
}

/* What is held for the next turn, and until when. The choices of a request are turns of one conversation, whose last to end
 * is what is pinned. */
static void write_job(const generation *g, buf *out) {
    const generation_choice *last = NULL;
    for (uint32_t i = 0; i < g->choice_count; i++)
        if (g->choices[i].pinned_tokens && (!last || g->choices[i].pinned_until_s > last->pinned_until_s))
            last = &g->choices[i];
    if (!g->job.id) return;
    if (last)
        buf_printf(out, ",\"job\":{\"pinned_tokens\":%u,\"pinned_until\":%.3f}", last->pinned_tokens, last->pinned_until_s);
    else buf_str(out, ",\"job\":{\"pinned_tokens\":0,\"pinned_until\":null}");
}

static void write_usage(const generation *g, buf *out) {
    uint64_t prompt = 0, cached = 0, output = 0, reasoning = 0;
    for (uint32_t i = 0; i < g->prompt_count; i++) prompt += g->prompts[i].count;
    for (uint32_t i = 0; i < g->choice_count; i++) {
        output += g->choices[i].text.token_count, reasoning += g->choices[i].text.reasoning_tokens;
        if (i % g->choices_per_prompt == 0) cached += generation_ledger(&g->choices[i])->cached_tokens;
    }
    buf_printf(out,
               "{\"prompt_tokens\":%" PRIu64 ",\"completion_tokens\":%" PRIu64 ",\"total_tokens\":%" PRIu64
               ",\"prompt_tokens_details\":{\"cached_tokens\":%" PRIu64
               "},\"completion_tokens_details\":{\"reasoning_tokens\":%" PRIu64 "}",
               prompt, output, prompt + output, cached, reasoning);
    write_job(g, out);
    buf_char(out, '}');
}

/* The members that every chunk and every answer begins with. */
static void write_opening(const generation *g, buf *out, const char *object) {
    const service *sv = g->base.service;
    buf_printf(out, "{\"id\":\"%s-%s\",\"object\":\"%s\",\"created\":%lld,\"model\":", is_chat(g) ? "chatcmpl" : "cmpl",
               g->base.id, object, (long long)g->created_s);
    json_quote(out, sv->model_name, strlen(sv->model_name));
    buf_printf(out, ",\"system_fingerprint\":\"%s\"", sv->fingerprint);
    if (g->tier) buf_printf(out, ",\"service_tier\":\"%s\"", g->tier);
}

/* Where the time went, for those who asked. */
static void write_timings(const generation *g, buf *out) {
    if (!g->answer.timings) return;
    buf_str(out, ",\"timings\":{");
    ledger_write(g, out);
    buf_char(out, '}');
}

/* What was thought, as the members that hold it; whether anything was written. */
static bool write_reasoning(const generation *g, const char *text, size_t n, buf *out) {
    static const char *const names[] = {"reasoning_content", "reasoning"};
    bool                     written = false;
    for (int i = 0; i < 2 && n && g->answer.reasoning; i++) {
        if (!(g->base.service->reasoning_fields >> i & 1)) continue;
        buf_printf(out, written ? ",\"%s\":" : "\"%s\":", names[i]);
        json_quote(out, text, n);
        written = true;
    }
    return written;
}

/* ---- streams ---- */
static buf *event_begin(generation *g) {
    buf *out = http_chunk_begin(g->base.conn);
    buf_append(out, g->prefix.data, g->prefix.size);
    return out;
}

/* What follows the list of choices in an event. `first`: the choice whose first event this is in a chat. */
typedef struct {
    const generation_choice *first;
    bool                     last; /* of the stream */
} event_place;

static void event_end(generation *g, event_place place, buf *out) {
    buf_char(out, ']');
    if (place.first) reply_prompt_ids(g, place.first, out);
    if (g->answer.usage) {
        buf_str(out, ",\"usage\":");
        if (g->answer.usage_each) write_usage(g, out);
        else buf_str(out, "null");
    }
    if (place.last) write_timings(g, out);
    buf_str(out, "}\n\n");
    http_chunk_end(g->base.conn);
}

/* The first event of a choice: the role in a chat; before a legacy completion only what was asked to be repeated, once it is
 * known how likely it was, where that was asked for. */
static void first_event(generation *g, generation_choice *k) {
    const generation_prompt *p = &g->prompts[k->prompt];
    const char              *echo = g->answer.echo ? p->text : NULL;
    if (k->begun || (p->scores && !p->scores_in)) return;
    k->begun = true;
    if (!is_chat(g) && !echo && !g->rules.ids) return;
    buf *out = event_begin(g);
    if (is_chat(g)) {
        buf_printf(out, "{\"index\":%u,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null", k->index);
    } else {
        buf_printf(out, "{\"index\":%u,\"text\":", k->index);
        json_quote(out, echo ? echo : "", echo ? strlen(echo) : 0);
        buf_str(out, ",\"logprobs\":");
        if (reply_echoes_scores(g)) write_legacy_logprobs(g, k, true, false, out);
        else buf_str(out, "null");
    }
    buf_str(out, ",\"finish_reason\":null");
    if (!is_chat(g)) reply_prompt_ids(g, k, out);
    buf_char(out, '}');
    event_end(g, (event_place){is_chat(g) ? k : NULL, false}, out);
}

void reply_stream_begin(generation *g) {
    exchange *x = &g->base;
    buf       headers;
    buf_init(&headers, 1024);
    exchange_headers(x, &headers);
    buf_str(&headers, "Cache-Control: no-cache\r\nX-Accel-Buffering: no\r\n");
    x->status = 200;
    x->service->metrics.count.answers[2]++;
    http_stream_begin(x->conn,
                      &(http_reply){.status = 200, .type = "text/event-stream; charset=utf-8", .headers = headers.data});
    buf_free(&headers);
    buf_init(&g->prefix, 8192);
    buf_str(&g->prefix, "data: ");
    write_opening(g, &g->prefix, is_chat(g) ? "chat.completion.chunk" : "text_completion");
    buf_str(&g->prefix, ",\"choices\":[");
    g->streaming = true;
    for (uint32_t i = 0; i < g->choice_count; i++) first_event(g, &g->choices[i]);
    listener_touch(x->conn);
}

static void write_new_ids(const generation *g, const choice *c, buf *out) {
    if (!g->rules.ids) return;
    buf_str(out, ",\"token_ids\":");
    reply_ids(out, c->ids + c->id_sent, c->id_count - c->id_sent);
}

static void write_delta(const generation *g, const choice *c, const char *text, buf *out) {
    size_t thought = choice_reasoning(c, c->sent), n = choice_unsent(c);
    bool   comma = write_reasoning(g, text, thought, out);
    if (comma && thought == n) return;
    buf_str(out, comma ? ",\"content\":" : "\"content\":");
    json_quote(out, text + thought, n - thought);
}

static void text_event(generation *g, generation_choice *k) {
    const choice *c = &k->text;
    const char   *text = c->text.data ? c->text.data + c->sent : "";
    buf          *out = event_begin(g);
    buf_str(out, "{\"index\":"), buf_u64(out, k->index);
    buf_str(out, is_chat(g) ? ",\"delta\":{" : ",\"text\":");
    if (is_chat(g)) write_delta(g, c, text, out);
    else json_quote(out, text, choice_unsent(c));
    buf_str(out, is_chat(g) ? "},\"logprobs\":" : ",\"logprobs\":");
    write_logprobs(g, k, false, out);
    buf_str(out, ",\"finish_reason\":null");
    write_new_ids(g, c, out);
    buf_char(out, '}');
    event_end(g, (event_place){0}, out);
}

static void finish_event(generation *g, generation_choice *k) {
    buf *out = event_begin(g);
    buf_printf(out,
               is_chat(g) ? "{\"index\":%u,\"delta\":{},\"logprobs\":null,\"finish_reason\":%s"
                          : "{\"index\":%u,\"text\":\"\",\"logprobs\":null,\"finish_reason\":%s",
               k->index, finish_name(k->text.end));
    buf_char(out, '}');
    event_end(g, (event_place){.last = ++g->closed == g->choice_count && !g->answer.usage}, out);
}

/* Thoughts that nobody wants to read are no reason for an event. */
static bool has_text(const generation *g, const choice *c) {
    return choice_unsent(c) > (g->answer.reasoning ? 0 : choice_reasoning(c, c->sent));
}

void reply_stream_choice(generation *g, generation_choice *k) {
    choice *c = &k->text;
    first_event(g, k);
    if (k->closed || !k->begun) return;
    if (has_text(g, c) || c->entry_ready > c->entry_sent || (g->rules.ids && c->id_count > c->id_sent)) text_event(g, k);
    choice_sent(c, true);
    if (c->end == CHOICE_GROWING) return;
    k->closed = true;
    finish_event(g, k);
}

void reply_stream_end(generation *g) {
    http_conn *c = g->base.conn;
    if (g->answer.usage) {
        buf *out = http_chunk_begin(c);
        buf_append(out, g->prefix.data, g->prefix.size);
        buf_str(out, "],\"usage\":");
        write_usage(g, out);
        write_timings(g, out);
        buf_str(out, "}\n\n");
        http_chunk_end(c);
    }
    buf_str(http_chunk_begin(c), "data: [DONE]\n\n");
    http_chunk_end(c);
    http_stream_end(c, false);
    g->base.conn = NULL;
}

void reply_stream_fail(generation *g, const fault *f) {
    http_conn *c = g->base.conn;
    buf       *out = http_chunk_begin(c);
    g->base.status = fault_status(f);
    buf_str(out, "data: ");
    fault_write(f, out);
    buf_str(out, "\n\n");
    http_chunk_end(c);
    http_stream_end(c, true);
}

/* ---- one answer ---- */
static void write_message(const generation *g, const generation_choice *k, buf *out) {
    const choice *c = &k->text;
    const char   *text = c->text.data ? c->text.data : "", *echo = g->answer.echo ? g->prompts[k->prompt].text : NULL;
    if (is_chat(g)) {
        size_t thought = choice_reasoning(c, 0);
        buf_str(out, ",\"message\":{\"role\":\"assistant\",\"content\":");
        if (thought && thought == c->ready) buf_str(out, "null"); /* it was not done thinking */
        else json_quote(out, text + thought, c->ready - thought);
        buf_str(out, ",\"refusal\":null");
        if (thought && g->answer.reasoning) buf_char(out, ','), write_reasoning(g, text, thought, out);
        buf_char(out, '}');
        return;
    }
    buf_str(out, ",\"text\":");
    json_quote(out, echo ? echo : "", echo ? strlen(echo) : 0);
    out->size--; /* the closing quote: the answer follows the prompt in one string */
    size_t at = out->size;
    json_quote(out, text, c->ready);
    if (buf_overflowed(out)) return;
    memmove(out->data + at, out->data + at + 1, out->size - at); /* and its opening one */
    out->size--;
}

static void write_choice(const generation *g, const generation_choice *k, uint32_t index, buf *out) {
    buf_printf(out, "{\"index\":%u", index);
    write_message(g, k, out);
    buf_str(out, ",\"logprobs\":");
    write_logprobs(g, k, true, out);
    buf_printf(out, ",\"finish_reason\":%s", finish_name(k->text.end));
    write_new_ids(g, &k->text, out);
    if (!is_chat(g)) reply_prompt_ids(g, k, out), reply_prompt_scores(g, k, out);
    buf_char(out, '}');
}

static int likelier(const void *a, const void *b) {
    const generation_choice *const *x = a, *const *y = b;
    double                          p = (*x)->text.logprob_sum / ((*x)->text.token_count ? (*x)->text.token_count : 1);
    double                          q = (*y)->text.logprob_sum / ((*y)->text.token_count ? (*y)->text.token_count : 1);
    return p != q ? (p < q) - (p > q) : ((*x)->index > (*y)->index) - ((*x)->index < (*y)->index);
}

/* The n choices of each prompt, the likeliest per token where more were drawn. */
static void write_choices(const generation *g, buf *out) {
    uint32_t                 per = g->choices_per_prompt, index = 0;
    const generation_choice *order[CHOICES_LIMIT];
    for (uint32_t p = 0; p < g->prompt_count; p++) {
        for (uint32_t i = 0; i < per; i++) order[i] = &g->choices[p * per + i];
        if (per > g->answer.n) qsort(order, per, sizeof *order, likelier);
        for (uint32_t i = 0; i < g->answer.n; i++) {
            if (index) buf_char(out, ',');
            write_choice(g, order[i], index++, out);
        }
    }
}

void reply_whole(generation *g) {
    buf json;
    buf_init(&json, ANSWER_MAX_BYTES);
    write_opening(g, &json, is_chat(g) ? "chat.completion" : "text_completion");
    buf_str(&json, ",\"choices\":[");
    write_choices(g, &json);
    buf_str(&json, "],\"usage\":");
    write_usage(g, &json);
    if (is_chat(g)) reply_prompt_ids(g, &g->choices[0], &json), reply_prompt_scores(g, &g->choices[0], &json);
    write_timings(g, &json);
    buf_char(&json, '}');
    if (buf_overflowed(&json)) {
        fault_set(exchange_fault(&g->base), FAULT_INTERNAL, NULL, "The answer is larger than %d bytes.", ANSWER_MAX_BYTES);
        buf_clear(&json);
        fault_write(g->base.fault, &json);
    }
    exchange_answer(&g->base, g->base.fault ? 500 : 200, &json);
    buf_free(&json);
}
