/* server/generation_prepare.c: the body of a request for text made into token ids and limits. May run on a worker: it reads
 * only what does not change while the daemon serves. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "server/generation.h"
#include "server/prompt.h"

enum { TOOL_SEED = 4 };

static uint64_t hash_string(const char *s, uint64_t seed) { return s && *s ? hash_u64(s, strlen(s), seed) : 0; }

/* ---- prompts ---- */

static bool is_chat(const generation *g) { return g->base.kind->endpoint == ENDPOINT_CHAT; }

static int64_t asked_tokens(const generation *g) {
    const request_params *p = &g->asked->params;
    if (p->max_completion_tokens >= 0) return p->max_completion_tokens;
    if (p->max_tokens >= 0) return p->max_tokens;
    return is_chat(g) ? -1 : 16;
}

/* Tokens to keep of a longer prompt; 0: all. */
static uint32_t keep_tokens(const generation *g) {
    int64_t keep = g->asked->params.truncate_prompt, answer = asked_tokens(g), context = g->base.service->context_max;
    if (keep == -2) return 0;
    if (keep < 0) keep = context - (answer < 1 ? 1 : answer);
    return keep < 1 ? 1 : (uint32_t)(keep > context ? context : keep);
}

/* Returns whether something was cut away. */
static bool cut_prompt(const generation *g, generation_prompt *p) {
    uint32_t keep = keep_tokens(g);
    bool     right = g->asked->params.truncation_side && strcmp(g->asked->params.truncation_side, "right") == 0;
    if (keep == 0 || p->count <= keep) return false;
    if (!right) memmove(p->ids, p->ids + (p->count - keep), keep * sizeof *p->ids);
    p->count = keep;
    return true;
}

/* What a prompt that is to be cut anyway, or is only worth a refusal, may be encoded to. */
static uint32_t tokens_max(const generation *g) { return keep_tokens(g) ? 0 : g->base.service->context_max; }

static void take_ids(generation_prompt *p, const token_ids *ids) {
    p->ids = ids->ids;
    p->count = (uint32_t)ids->count;
}

/* Some templates begin the thought for the model. */
static bool ends_in_a_thought(const service *sv, const generation_prompt *p) {
    for (uint32_t i = p->count; sv->think_end && i-- > 0;) {
        if (p->ids[i] == sv->think_end) return false;
        if (p->ids[i] == sv->think_begin) return true;
    }
    return false;
}

static int encode_chat(generation *g, cJSON *body, fault *f) {
    token_ids ids = {0};
    int       code = prompt_of_messages(g->base.service, &g->asked->params, body, tokens_max(g), &ids, f);
    g->prompt_count = 1;
    take_ids(&g->prompts[0], &ids);
    cut_prompt(g, &g->prompts[0]);
    g->prompts[0].thinking = ends_in_a_thought(g->base.service, &g->prompts[0]);
    return code;
}

/* The text that the ids stand for, where it is not at hand. */
static int decode_echo(const generation *g, generation_prompt *p, fault *f) {
    const tokenizer *t = g->base.service->tokenizer;
    buf              text;
    error            err = {0};
    buf_init(&text, CHOICE_TEXT_MAX);
    if (t) tokenizer_decode(t, p->ids, p->count, !g->asked->params.skip_special, &text, &err);
    for (uint32_t i = 0; !t && i < p->count; i++) buf_printf(&text, " %u", p->ids[i]);
    p->text = text.data;
    return err.code ? fault_set(f, FAULT_INVALID, "prompt", "%.400s.", err.text) : 0;
}

static int encode_text(generation *g, const char *text, generation_prompt *out, fault *f) {
    token_ids ids = {0};
    int       code = prompt_of_text(g->base.service, &g->asked->params, text, tokens_max(g), &ids, f);
    take_ids(out, &ids);
    if (code < 0) return -1;
    bool cut = cut_prompt(g, out);
    if (!g->asked->params.echo) return 0;
    if (cut) return decode_echo(g, out, f);
    if (!(out->text = strdup(text))) fatal("out of memory for an echo");
    return 0;
}

/* Ids as the client gave them; for echo, as text. */
static int copy_ids(generation *g, const cJSON *list, generation_prompt *out, fault *f) {
    const service *sv = g->base.service;
    uint32_t       count = 0, most = tokens_max(g);
    for (const cJSON *item = list->child; item; item = item->next) count++;
    if (most && count > most) return prompt_too_long(sv, "prompt", "", count, f);
    out->ids = malloc((count + 1) * sizeof *out->ids);
    if (!out->ids) fatal("out of memory for %u token ids", count);
    for (const cJSON *item = list->child; item; item = item->next) {
        out->ids[out->count] = (uint32_t)item->valuedouble;
        if (out->ids[out->count] >= sv->vocab_size)
            return fault_set(f, FAULT_INVALID, "prompt", "Token id %u is outside the vocabulary of %u.",
                             out->ids[out->count], sv->vocab_size);
        out->count++;
    }
    cut_prompt(g, out);
    return g->asked->params.echo ? decode_echo(g, out, f) : 0;
}

static uint32_t count_chars(const char *text) {
    uint32_t chars = 0;
    for (; text && *text; text++) chars += ((unsigned char)*text & 0xC0) != 0x80;
    return chars;
}

/* One prompt: a string, or a list of ids. */
static int encode_prompt(generation *g, const cJSON *item, fault *f) {
    const tokenizer   *t = g->base.service->tokenizer;
    generation_prompt *out = &g->prompts[g->prompt_count++];
    if ((cJSON_IsString(item) ? encode_text(g, item->valuestring, out, f) : copy_ids(g, item, out, f)) < 0) return -1;
    for (uint32_t i = 0; t && i < out->count && !out->has_text; i++) out->has_text = !tokenizer_is_special(t, out->ids[i]);
    out->text_chars = count_chars(out->text);
    return 0;
}

static int encode_prompts(generation *g, fault *f) {
    const cJSON *prompt = g->asked->params.prompt;
    if (cJSON_IsString(prompt) || cJSON_IsNumber(prompt->child)) return encode_prompt(g, prompt, f);
    for (const cJSON *item = prompt->child; item; item = item->next)
        if (encode_prompt(g, item, f) < 0) return -1;
    return 0;
}

/* ---- how likely the prompts are ---- */
enum { SCORES_MAX = 1 << 20 }; /* log-probabilities in one answer: some 60 MB of JSON */

/* Alternatives per token; -1: not asked for. */
static int64_t prompt_tops(const generation *g) {
    const request_params *p = &g->asked->params;
    int64_t               echoed = p->echo ? p->legacy_logprobs : -1;
    return p->prompt_logprobs > echoed ? p->prompt_logprobs : echoed;
}

static void *room(size_t count, size_t item_bytes) {
    void *p = calloc(count ? count : 1, item_bytes);
    if (!p) fatal("out of memory for %zu log-probabilities", count);
    return p;
}

static int make_scores(generation *g, fault *f) {
    int64_t  tops = prompt_tops(g);
    uint64_t tokens = 0;
    if (tops < 0) return 0;
    for (uint32_t i = 0; i < g->prompt_count; i++) tokens += g->prompts[i].count;
    if (tokens * (uint64_t)(tops + 1) > SCORES_MAX)
        return fault_set(f, FAULT_INVALID, g->asked->params.echo ? "logprobs" : "prompt_logprobs",
                         "%" PRIu64 " log-probabilities of the prompt were asked for; one answer holds up to %d.",
                         tokens * (uint64_t)(tops + 1), SCORES_MAX);
    for (uint32_t i = 0; i < g->prompt_count; i++) {
        generation_prompt *p = &g->prompts[i];
        size_t             n = p->count;
        p->scores = room(1, sizeof *p->scores);
        *p->scores = (prompt_scores){.logprobs = room(n, sizeof(float)),
                                     .ranks = room(n, sizeof(uint32_t)),
                                     .tops = (uint32_t)tops,
                                     .top_ids = room(n * (size_t)tops, sizeof(uint32_t)),
                                     .top_logprobs = room(n * (size_t)tops, sizeof(float))};
    }
    return 0;
}

/* ---- limits ---- */
static int limit_prompt(generation *g, generation_prompt *prompt, fault *f) {
    const char *param = is_chat(g) ? "messages" : "prompt";
    uint32_t    context = g->base.service->context_max, n = prompt->count;
    int64_t     asked = asked_tokens(g), drawn = asked == 0 && prompt_tops(g) >= 0 ? 1 : asked;
    bool        defaulted = g->asked->params.max_tokens < 0 && g->asked->params.max_completion_tokens < 0;
    if (n == 0) return fault_set(f, FAULT_INVALID, param, "'%s' holds no tokens.", param);
    if (n >= context && drawn != 0) return prompt_too_long(g->base.service, param, "", n, f);
    if (asked < 0 || (defaulted && asked > context - n)) asked = context - n;
    if (n + asked > context)
        return fault_set(f, FAULT_CONTEXT, param,
                         "This model's maximum context length is %u tokens. However, you requested %" PRId64
                         " tokens (%u in the %s, %" PRId64 " "
                         "in the completion). Please reduce the length of the %s or completion.",
                         context, n + asked, n, param, asked, param);
    if (g->asked->params.min_tokens > asked)
        return fault_set(f, FAULT_RULE, "min_tokens",
                         "'min_tokens' (%" PRId64 ") must not be more than the tokens that may be drawn (%" PRId64 ").",
                         g->asked->params.min_tokens, asked);
    prompt->output_tokens_max = (uint32_t)asked;
    return 0;
}

static int limit_choices(generation *g, fault *f) {
    uint32_t most = g->base.service->config->choices_max;
    g->choices_per_prompt =
        (uint32_t)(g->asked->params.best_of > g->asked->params.n ? g->asked->params.best_of : g->asked->params.n);
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
    const request_params *p = &g->asked->params;
    const service        *sv = g->base.service;
    const model_facts    *m = engine_facts(sv->engine);
    bool                  chat = is_chat(g);
    for (uint32_t i = 0; i < p->bias_count; i++)
        if (p->bias_ids[i] >= sv->vocab_size)
            return fault_set(f, FAULT_INVALID, "logit_bias", "'logit_bias' names token %u, outside the vocabulary of %u.",
                             p->bias_ids[i], sv->vocab_size);
    int64_t top_k = p->top_k != -2 ? p->top_k : m->default_top_k > 0 ? (int64_t)m->default_top_k : 0;
    int64_t tops = chat ? (p->top_logprobs < 0 ? 0 : p->top_logprobs) : p->legacy_logprobs;
    g->rules.logprobs = chat ? p->logprobs : p->legacy_logprobs >= 0;
    g->asked->sampling = (sampling){
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
    request_params *p = &g->asked->params;
    g->rules.tokenizer = g->base.service->tokenizer;
    g->rules.stops = p->stops; /* which are the rules' from here on */
    p->stops = (stop_set){0};
    g->rules.tokens_min = (uint32_t)p->min_tokens;
    g->rules.keep_special = !p->skip_special;
    g->rules.include_stop = p->include_stop;
    g->rules.ids = p->return_token_ids;
    if (!is_chat(g)) return;
    g->rules.think_begin = g->base.service->think_begin;
    g->rules.think_end = g->base.service->think_end;
}

static void fill_shape(generation *g) {
    const request_params *p = &g->asked->params;
    g->answer = (answer_shape){.n = (uint32_t)p->n,
                               .stream = p->stream,
                               .echo = p->echo,
                               .timings = p->return_timings,
                               .reasoning = p->include_reasoning,
                               .usage = p->include_usage,
                               .usage_each = p->usage_each,
                               .prompt_logprobs = p->prompt_logprobs >= 0,
                               .kv_transfer = p->kv_transfer,
                               .sized = asked_tokens(g) >= 0,
                               .echo_tops = (int8_t)p->legacy_logprobs};
}

/* The class that is served: a priority that was given in numbers is one of them by its sign. */
static const char *tier_of(int32_t priority) { return priority < 0 ? "priority" : priority > 0 ? "flex" : "default"; }

static void fill_class(generation *g) {
    const request_params *p = &g->asked->params;
    const char           *tier = p->service_tier ? p->service_tier : "";
    const tenant         *who = g->base.tenant;
    g->priority = (int32_t)p->priority;
    if (!p->priority)
        g->priority = strcmp(tier, "flex") == 0 ? 100 : strcmp(tier, "priority") == 0 ? -100 : who ? who->priority : 0;
    if (who && g->priority < who->priority_min) g->priority = who->priority_min;
    if (p->service_tier) g->tier = tier_of(g->priority);
    g->slo = p->slo;
    if (g->slo.ttft_ms < 0) g->slo.ttft_ms = g->base.slo.ttft_ms;
    if (g->slo.tbt_ms < 0) g->slo.tbt_ms = g->base.slo.tbt_ms;
}

static uint64_t us_of(double ms) { return ms > 0 ? (uint64_t)(ms * 1000) : 0; }

static uint64_t own_job(uint64_t name, const tenant *who) {
    return name && who ? hash_u64((uint64_t[]){name, who->id}, 2 * sizeof(uint64_t), SESSION_SEED) : name;
}
uint64_t generation_job_named(const char *name, const tenant *who) { return own_job(hash_string(name, SESSION_SEED), who); }

/* Which conversation it is a turn of: the header, else the first name that the body gives. */
static void fill_job(generation *g) {
    const request_params *p = &g->asked->params;
    const char *const     names[] = {p->session, p->job, p->cache_key};
    double                ttl_ms = p->ttl_ms >= 0 ? p->ttl_ms : p->retention && p->retention[0] == '2' ? DAY_MS : -1;
    g->job = (request_job){.id = g->base.session,
                           .tool = hash_string(p->tool, TOOL_SEED),
                           .expected_gap_us = us_of(p->expected_gap_ms),
                           .ttl_us = us_of(ttl_ms),
                           .last_step = p->last_step};
    for (int i = 0; i < 3 && !g->job.id; i++) g->job.id = hash_string(names[i], SESSION_SEED);
    g->job.id = own_job(g->job.id, g->base.tenant);
    if (p->ttl_ms == 0) g->job.ttl_us = 1; /* said, and not at all */
}

/* Else it would change nothing, and nobody would be told. */
static int check_job(const generation *g, fault *f) {
    if (g->job.id || g->slo.job_deadline_ms < 0) return 0;
    return fault_set(f, FAULT_RULE, "slo.job_deadline_ms",
                     "'slo.job_deadline_ms' is the deadline of a job, and the request names none; say which with 'job_id'.");
}

/* As the log writes JSON: nothing in it ends a line. */
static char *metadata_of(const cJSON *pairs) {
    enum { METADATA_MAX_BYTES = 128 << 10 }; /* sixteen pairs of which each byte is escaped */
    buf out;
    buf_init(&out, METADATA_MAX_BYTES);
    buf_char(&out, '{');
    for (const cJSON *item = pairs->child; item; item = item->next) {
        json_quote(&out, item->string, strlen(item->string)), buf_char(&out, ':');
        json_quote(&out, item->valuestring, strlen(item->valuestring));
        if (item->next) buf_char(&out, ',');
    }
    buf_char(&out, '}');
    return out.data;
}

/* Who asks: the key, else what the body says, else the header. A client's salt comes on top of its key's, never instead. */
static void fill_identity(generation *g) {
    const request_params *p = &g->asked->params;
    exchange             *x = &g->base;
    const char           *user = p->user && *p->user ? p->user : p->safety_identifier;
    g->asked->tenant = x->tenant ? x->tenant->id : user && *user ? hash_string(user, TENANT_SEED) : x->fairness;
    g->asked->cache_salt = tenant_cache_salt(x->tenant, p->cache_salt);
    if (p->request_id) snprintf(g->asked->id, sizeof g->asked->id, "%s", p->request_id);
    if (p->metadata) g->metadata = metadata_of(p->metadata);
}

static size_t prompt_room(const request_params *p) {
    size_t n = 0;
    if (!p->prompt || !cJSON_IsArray(p->prompt) || cJSON_IsNumber(p->prompt->child)) return 1;
    for (const cJSON *item = p->prompt->child; item; item = item->next) n++;
    return n;
}

static int prepare(generation *g, cJSON *body, fault *f) {
    const service *sv = g->base.service;
    endpoint       e = g->base.kind->endpoint;
    if (!(g->asked = calloc(1, sizeof *g->asked))) fatal("out of memory for the parameters of a request");
    if (params_read(&g->asked->params, body, e, sv->config->strict_params, f) < 0) return -1;
    if (prompt_check_model(sv, &g->asked->params, f) < 0) return -1;
    g->prompts = calloc(prompt_room(&g->asked->params), sizeof *g->prompts);
    if (!g->prompts) fatal("out of memory for prompts");
    if ((e == ENDPOINT_CHAT ? encode_chat(g, body, f) : encode_prompts(g, f)) < 0) return -1;
    if (limit_choices(g, f) < 0 || make_scores(g, f) < 0 || fill_sampling(g, f) < 0) return -1;
    g->only_echo = g->prompts[0].output_tokens_max == 0;
    fill_rules(g);
    fill_shape(g);
    fill_class(g);
    fill_job(g);
    fill_identity(g);
    return check_job(g, f);
}

void generation_prepare(exchange *x, fault *f) {
    cJSON *body = params_parse_body(x->body.data ? x->body.data : "", x->body.size, f);
    if (!body) return;
    prepare(generation_of(x), body, f);
    cJSON_Delete(body);
}
