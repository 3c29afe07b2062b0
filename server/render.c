/* server/render.c: POST /v1/chat/completions/render and /v1/completions/render: a request as the token ids it would be
 * computed as, and what its sampling would be, in vLLM's shapes: one object for a conversation, a list of them for the
 * prompts of a completion. Routers that place requests by their prefixes (llm-d) ask for it. Nothing is submitted, so a
 * full queue is no obstacle. */
#include <inttypes.h>
#include <string.h>

#include "server/reply.h"

enum { RENDERED_MAX_BYTES = 64 << 20 };

static void write_sampling(const generation *g, const generation_prompt *p, buf *out) {
    const sampling *s = &g->asked->sampling;
    buf_printf(out,
               "{\"n\":%u,\"temperature\":%.9g,\"top_p\":%.9g,\"top_k\":%u,\"min_p\":%.9g,\"frequency_penalty\":%.9g,"
               "\"presence_penalty\":%.9g,\"repetition_penalty\":%.9g,\"max_tokens\":%u,\"min_tokens\":%" PRId64
               ",\"ignore_eos\":%s",
               g->choices_per_prompt, (double)s->temperature, (double)s->top_p, s->top_k, (double)s->min_p,
               (double)s->frequency_penalty, (double)s->presence_penalty, (double)s->repetition_penalty,
               p->output_tokens_max, g->asked->params.min_tokens, g->asked->params.ignore_eos ? "true" : "false");
    if (g->asked->params.has_seed) buf_printf(out, ",\"seed\":%" PRId64, g->asked->params.seed);
    buf_str(out, ",\"stop_token_ids\":");
    reply_ids(out, g->asked->params.stop_ids, g->asked->params.stop_id_count);
    buf_char(out, '}');
}

static void write_rendered(const generation *g, const generation_prompt *p, bool chat, buf *out) {
    const char *model = g->base.service->model_name;
    buf_printf(out, "{\"request_id\":\"%s-%s\",\"model\":", chat ? "chatcmpl" : "cmpl", g->base.id);
    json_quote(out, model, strlen(model));
    buf_str(out, ",\"token_ids\":");
    reply_ids(out, p->ids, p->count);
    buf_str(out, ",\"features\":null,\"sampling_params\":");
    write_sampling(g, p, out);
    buf_printf(out, ",\"stream\":%s,\"priority\":%d}", g->asked->params.stream ? "true" : "false", g->priority);
}

static void finish(exchange *x) {
    generation *g = generation_of(x);
    bool        chat = x->kind->endpoint == ENDPOINT_CHAT;
    buf         json;
    exchange_rename(x, g->asked->id);
    buf_init(&json, RENDERED_MAX_BYTES);
    if (!chat) buf_char(&json, '[');
    for (uint32_t i = 0; i < g->prompt_count; i++) {
        if (i) buf_char(&json, ',');
        write_rendered(g, &g->prompts[i], chat, &json);
    }
    if (!chat) buf_char(&json, ']');
    if (buf_overflowed(&json)) {
        fault_set(exchange_fault(x), FAULT_INVALID, "prompt", "The answer would be larger than %d bytes.",
                  RENDERED_MAX_BYTES);
        exchange_refuse(x);
    } else {
        exchange_answer(x, 200, &json);
        exchange_release(x);
    }
    buf_free(&json);
}

const exchange_kind chat_render_exchange = {sizeof(generation), ENDPOINT_CHAT, generation_prepare, finish, exchange_release,
                                            generation_destroy, NULL};
const exchange_kind completion_render_exchange = {
    sizeof(generation), ENDPOINT_COMPLETION, generation_prepare, finish, exchange_release, generation_destroy, NULL};
