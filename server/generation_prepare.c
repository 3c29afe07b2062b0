/* server/generation_prepare.c: the body of a request for text made into token ids and limits. May run on a worker: it reads
 * only what does not change while the daemon serves. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/hash.h"
#include "server/generation.h"

static uint64_t hash_string(const char *s, uint64_t seed) { return s && *s ? hash_u64(s, strlen(s), seed) : 0; }

/* ---- prompts ---- */
static int tokenizer_missing(fault *f, const char *param) {
    return fault_set(f, FAULT_UNSUPPORTED, param,
                     "This model has no tokenizer: send 'prompt' as token ids to /v1/completions.");
}

static int encode_failed(fault *f, const char *param, const error *err) {
    bool theirs = err->code == ERR_INVALID || err->code == ERR_TOO_LARGE || err->code == ERR_UNSUPPORTED;
    return fault_set(f, theirs ? FAULT_INVALID : FAULT_INTERNAL, param, "%.400s.", err->text);
}

static void move_members(cJSON *from, cJSON *to) {
    for (cJSON *item; (item = from->child);) {
        cJSON_DetachItemViaPointer(from, item);
        cJSON_AddItemToObject(to, item->string, item);
    }
}

static int encode_chat(generation *g, cJSON *body, fault *f) {
    const service  *sv = g->base.service;
    request_params *p = &g->params;
    if (!sv->tokenizer || !sv->chat) return tokenizer_missing(f, "messages");
    cJSON *context = cJSON_CreateObject();
    cJSON_AddItemToObject(context, "messages", cJSON_DetachItemViaPointer(body, (cJSON *)(uintptr_t)p->messages));
    cJSON_AddBoolToObject(context, "add_generation_prompt", p->generation_prompt);
    if (p->template_kwargs) move_members((cJSON *)(uintptr_t)p->template_kwargs, context);
    if (p->reasoning_effort) {
        cJSON_AddStringToObject(context, "reasoning_effort", p->reasoning_effort);
        if (strcmp(p->reasoning_effort, "none") == 0) cJSON_AddBoolToObject(context, "enable_thinking", false);
    }
    token_ids ids = {0};
    error     err;
    int       code = chat_encode(sv->chat, sv->tokenizer, context, time(NULL), &ids, &err);
    cJSON_Delete(context);
    g->prompt_count = 1;
    g->prompts[0].ids = ids.ids;
    g->prompts[0].count = (uint32_t)ids.count;
    return code == OK ? 0 : encode_failed(f, "messages", &err);
}

static int encode_text(generation *g, const char *text, generation_prompt *out, fault *f) {
    const service *sv = g->base.service;
    token_ids      ids = {0};
    error          err;
    if (!sv->tokenizer) return tokenizer_missing(f, "prompt");
    int code = tokenizer_encode(sv->tokenizer, text, strlen(text), g->params.add_special ? TOKENIZE_BOS : 0, &ids, &err);
    out->ids = ids.ids;
    out->count = (uint32_t)ids.count;
    if (code != OK) return encode_failed(f, "prompt", &err);
    if (g->params.echo && !(out->text = strdup(text))) fatal("out of memory for an echo");
    return 0;
}

/* Ids as the client gave them; for echo, as text. */
static int copy_ids(generation *g, const cJSON *list, generation_prompt *out, fault *f) {
    const service *sv = g->base.service;
    uint32_t       count = 0;
    for (const cJSON *item = list->child; item; item = item->next) count++;
    out->ids = malloc((count + 1) * sizeof *out->ids);
    if (!out->ids) fatal("out of memory for %u token ids", count);
    for (const cJSON *item = list->child; item; item = item->next) {
        out->ids[out->count] = (uint32_t)item->valuedouble;
        if (out->ids[out->count] >= sv->vocab_size)
            return fault_set(f, FAULT_INVALID, "prompt", "Token id %u is outside the vocabulary of %u.",
                             out->ids[out->count], sv->vocab_size);
        out->count++;
    }
    if (!g->params.echo) return 0;
    buf   text;
    error err = {0};
    buf_init(&text, CHOICE_TEXT_MAX);
    if (sv->tokenizer) tokenizer_decode(sv->tokenizer, out->ids, out->count, !g->params.skip_special, &text, &err);
    else
        for (uint32_t i = 0; i < out->count; i++) buf_printf(&text, " %u", out->ids[i]);
    out->text = text.data;
    return err.code ? encode_failed(f, "prompt", &err) : 0;
}

/* One prompt: a string, or a list of ids. */
static int encode_prompt(generation *g, const cJSON *item, fault *f) {
    const tokenizer   *t = g->base.service->tokenizer;
    generation_prompt *out = &g->prompts[g->prompt_count++];
    if ((cJSON_IsString(item) ? encode_text(g, item->valuestring, out, f) : copy_ids(g, item, out, f)) < 0) return -1;
    for (uint32_t i = 0; t && i < out->count && !out->has_text; i++) out->has_text = !tokenizer_is_special(t, out->ids[i]);
    return 0;
}

static int encode_prompts(generation *g, fault *f) {
    const cJSON *prompt = g->params.prompt;
    if (cJSON_IsString(prompt) || cJSON_IsNumber(prompt->child)) return encode_prompt(g, prompt, f);
    for (const cJSON *item = prompt->child; item; item = item->next)
        if (encode_prompt(g, item, f) < 0) return -1;
    return 0;
}

/* ---- limits ---- */
static int64_t asked_tokens(const generation *g) {
    const request_params *p = &g->params;
    if (p->max_completion_tokens >= 0) return p->max_completion_tokens;
    if (p->max_tokens >= 0) return p->max_tokens;
    return g->base.kind->endpoint == ENDPOINT_CHAT ? -1 : 16;
}

static int limit_prompt(generation *g, generation_prompt *prompt, fault *f) {
    const char *param = g->base.kind->endpoint == ENDPOINT_CHAT ? "messages" : "prompt";
    uint32_t    context = g->base.service->context_max, n = prompt->count;
    int64_t     asked = asked_tokens(g);
    bool        defaulted = g->params.max_tokens < 0 && g->params.max_completion_tokens < 0;
    if (n == 0) return fault_set(f, FAULT_INVALID, param, "'%s' holds no tokens.", param);
    if (n >= context && asked != 0)
        return fault_set(
            f, FAULT_CONTEXT, param,
            "This model's maximum context length is %u tokens. However, your %s resulted in %u tokens. Please reduce "
            "the length of the %s.",
            context, param, n, param);
    if (asked < 0 || (defaulted && asked > context - n)) asked = context - n;
    if (n + asked > context)
        return fault_set(f, FAULT_CONTEXT, param,
                         "This model's maximum context length is %u tokens. However, you requested %" PRId64
                         " tokens (%u in the %s, %" PRId64 " "
                         "in the completion). Please reduce the length of the %s or completion.",
                         context, n + asked, n, param, asked, param);
    if (g->params.min_tokens > asked)
        return fault_set(f, FAULT_INVALID, "min_tokens",
                         "'min_tokens' (%" PRId64 ") must not be more than the tokens that may be drawn (%" PRId64 ").",
                         g->params.min_tokens, asked);
    prompt->output_tokens_max = (uint32_t)asked;
    return 0;
}

static int limit_choices(generation *g, fault *f) {
    uint32_t most = g->base.service->config->choices_max;
    g->choices_per_prompt = (uint32_t)(g->params.best_of > g->params.n ? g->params.best_of : g->params.n);
    if ((uint64_t)g->choices_per_prompt * g->prompt_count > most)
        return fault_set(f, FAULT_INT_ABOVE, "n",
                         "'n' (or 'best_of') times the number of prompts must be at most %u, not %" PRIu64 ".", most,
                         (uint64_t)g->choices_per_prompt * g->prompt_count);
    for (uint32_t i = 0; i < g->prompt_count; i++)
        if (limit_prompt(g, &g->prompts[i], f) < 0) return -1;
    return 0;
}

/* ---- sampling ---- */
static float or_default(double given, float model, float otherwise) {
    return given >= 0 ? (float)given : model >= 0 ? model : otherwise;
}

static int fill_sampling(generation *g, fault *f) {
    const request_params *p = &g->params;
    const service        *sv = g->base.service;
    const model_facts    *m = engine_facts(sv->engine);
    bool                  chat = g->base.kind->endpoint == ENDPOINT_CHAT;
    for (uint32_t i = 0; i < p->bias_count; i++)
        if (p->bias_ids[i] >= sv->vocab_size)
            return fault_set(f, FAULT_INVALID, "logit_bias", "'logit_bias' names token %u, outside the vocabulary of %u.",
                             p->bias_ids[i], sv->vocab_size);
    int64_t top_k = p->top_k != -2 ? p->top_k : m->default_top_k > 0 ? (int64_t)m->default_top_k : 0;
    int64_t tops = chat ? (p->top_logprobs < 0 ? 0 : p->top_logprobs) : p->legacy_logprobs;
    g->rules.logprobs = chat ? p->logprobs : p->legacy_logprobs >= 0;
    g->sampling = (sampling){
        .temperature = or_default(p->temperature, m->default_temperature, 1),
        .top_k = top_k < 0 ? 0 : (uint32_t)top_k,
        .top_p = or_default(p->top_p, m->default_top_p, 1),
        .min_p = or_default(p->min_p, m->default_min_p, 0),
        .repetition_penalty = or_default(p->repetition_penalty, m->default_repetition_penalty, 1),
        .frequency_penalty = (float)p->frequency_penalty,
        .presence_penalty = (float)p->presence_penalty,
        .seed = (uint64_t)p->seed,
        .top_logprobs = g->rules.logprobs              ? (int8_t)tops
                        : g->choices_per_prompt > p->n ? 0
                                                       : -1,
    };
    return 0;
}

static void fill_rules(generation *g) {
    const request_params *p = &g->params;
    g->rules.tokenizer = g->base.service->tokenizer;
    g->rules.stops = p->stops; /* freed with the parameters */
    g->rules.tokens_min = (uint32_t)p->min_tokens;
    g->rules.keep_special = !p->skip_special;
    g->rules.include_stop = p->include_stop;
    g->rules.ids = p->return_token_ids;
}

/* Who asks, and in which class: numbers from here on. */
static void fill_identity(generation *g) {
    const request_params *p = &g->params;
    exchange             *x = &g->base;
    const char           *tier = p->service_tier ? p->service_tier : "";
    const tenant         *who = x->tenant;
    g->priority = (int32_t)p->priority;
    if (!p->priority)
        g->priority = strcmp(tier, "flex") == 0 ? 100 : strcmp(tier, "priority") == 0 ? -100 : who ? who->priority : 0;
    if (who && g->priority < who->priority_min) g->priority = who->priority_min;
    g->tenant = who ? who->id : hash_string(p->user ? p->user : x->fairness, 1);
    g->cache_salt = tenant_cache_salt(who, p->cache_salt);
    exchange_rename(x, p->request_id);
    const char *session = p->session ? p->session : p->cache_key;
    if (session && !x->session[0]) strncpy(x->session, session, sizeof x->session - 1);
}

static size_t prompt_room(const request_params *p) {
    size_t n = 0;
    if (!p->prompt || !cJSON_IsArray(p->prompt) || cJSON_IsNumber(p->prompt->child)) return 1;
    for (const cJSON *item = p->prompt->child; item; item = item->next) n++;
    return n;
}

static int check_model(const generation *g, fault *f) {
    const char *served = g->base.service->model_name, *asked = g->params.model;
    if (!asked || strcmp(asked, served) == 0) return 0;
    return fault_set(f, FAULT_MODEL, "model", "The model '%.200s' does not exist; '%.200s' is served here.", asked, served);
}

static int prepare(generation *g, cJSON *body, fault *f) {
    endpoint e = g->base.kind->endpoint;
    if (params_read(&g->params, body, e, f) < 0 || check_model(g, f) < 0) return -1;
    g->prompts = calloc(prompt_room(&g->params), sizeof *g->prompts);
    if (!g->prompts) fatal("out of memory for prompts");
    if ((e == ENDPOINT_CHAT ? encode_chat(g, body, f) : encode_prompts(g, f)) < 0) return -1;
    if (limit_choices(g, f) < 0 || fill_sampling(g, f) < 0) return -1;
    fill_rules(g);
    fill_identity(g);
    return 0;
}

void generation_prepare(exchange *x) {
    generation *g = generation_of(x);
    cJSON      *body = params_parse_body(x->body.data ? x->body.data : "", x->body.size, &x->fault);
    if (!body) return;
    prepare(g, body, &x->fault);
    cJSON_Delete(body);
}
