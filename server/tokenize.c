/* server/tokenize.c: POST /tokenize and /detokenize, in vLLM's shapes. */
#include <stdlib.h>
#include <string.h>

#include "server/prompt.h"

enum { JSON_MAX_BYTES = 512 << 20 };

typedef struct {
    exchange base; /* first */
    buf      json; /* the answer, made where the work was done */
} tokenization;

static void write_tokens(const exchange *x, const token_ids *ids, bool strings, buf *json) {
    const tokenizer *t = x->service->tokenizer;
    buf              text;
    buf_printf(json, "{\"count\":%zu,\"max_model_len\":%u,\"tokens\":[", ids->count, x->service->context_max);
    for (size_t i = 0; i < ids->count; i++) buf_printf(json, i ? ",%u" : "%u", ids->ids[i]);
    buf_str(json, "],\"token_strs\":");
    if (!strings) return buf_str(json, "null}");
    buf_init(&text, 4096);
    buf_char(json, '[');
    for (size_t i = 0; i < ids->count; i++) {
        buf_clear(&text);
        tokenizer_token_bytes(t, ids->ids[i], &text);
        if (i) buf_char(json, ',');
        json_quote(json, text.data ? text.data : "", text.size);
    }
    buf_str(json, "]}");
    buf_free(&text);
}

static void tokenize(exchange *x, request_params *p, cJSON *body, buf *json, fault *f) {
    token_ids ids = {0};
    int       code = p->prompt ? prompt_of_text(x->service, p, p->prompt->valuestring, 0, &ids, f)
                               : prompt_of_messages(x->service, p, body, 0, &ids, f);
    if (code == 0) write_tokens(x, &ids, p->token_strings, json);
    token_ids_free(&ids);
}

static void detokenize(exchange *x, request_params *p, cJSON *body, buf *json, fault *f) {
    error     err = {0};
    uint32_t  count = 0;
    uint32_t *ids;
    buf       text;
    (void)body;
    for (const cJSON *item = p->tokens->child; item; item = item->next) count++;
    ids = malloc((count + 1) * sizeof *ids);
    if (!ids) fatal("out of memory for %u token ids", count);
    count = 0;
    for (const cJSON *item = p->tokens->child; item; item = item->next) ids[count++] = (uint32_t)item->valuedouble;
    buf_init(&text, JSON_MAX_BYTES / 8);
    if (tokenizer_decode(x->service->tokenizer, ids, count, true, &text, &err) != OK) {
        fault_set(f, FAULT_INVALID, "tokens", "%.400s.", err.text);
    } else {
        buf_str(json, "{\"prompt\":");
        json_quote(json, text.data ? text.data : "", text.size);
        buf_char(json, '}');
    }
    buf_free(&text);
    free(ids);
}

static void prepare(exchange *x, fault *f) {
    tokenization  *t = (tokenization *)x;
    request_params p;
    buf_init(&t->json, JSON_MAX_BYTES);
    cJSON *body = params_parse_body(x->body.data ? x->body.data : "", x->body.size, f);
    if (!body) return;
    bool back = x->kind->endpoint == ENDPOINT_DETOKENIZE;
    if (params_read(&p, body, x->kind->endpoint, x->service->config->strict_params, f) == 0 &&
        prompt_check_model(x->service, &p, f) == 0) {
        if (!x->service->tokenizer) fault_set(f, FAULT_UNSUPPORTED, NULL, "This model has no tokenizer.");
        else (back ? detokenize : tokenize)(x, &p, body, &t->json, f);
        if (!f->kind && buf_overflowed(&t->json))
            fault_set(f, FAULT_INVALID, NULL, "The answer would be larger than %d bytes.", JSON_MAX_BYTES);
    }
    params_free(&p);
    cJSON_Delete(body);
}

static void finish(exchange *x) {
    exchange_answer(x, 200, &((tokenization *)x)->json);
    exchange_release(x);
}

/* Nothing is left to do between finish and the answer, so a client can only leave while a worker has the exchange. */
static void lost(exchange *x) { exchange_release(x); }

static void destroy(exchange *x) { buf_free(&((tokenization *)x)->json); }

const exchange_kind tokenize_exchange = {sizeof(tokenization), ENDPOINT_TOKENIZE, prepare, finish, lost, destroy, NULL};
const exchange_kind detokenize_exchange = {sizeof(tokenization), ENDPOINT_DETOKENIZE, prepare, finish, lost, destroy, NULL};
