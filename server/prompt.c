#include "server/prompt.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

/* Where a prompt may be longer than the context (it is only counted, or cut afterwards), it is looked at up to here: so that
 * no body is answered with many times its size. */
static uint32_t most_tokens(const service *sv, uint32_t tokens_max) {
    enum { CONTEXTS = 8, AT_LEAST = 1 << 20 };
    uint64_t most = (uint64_t)CONTEXTS * sv->context_max;
    return tokens_max ? tokens_max : most > UINT32_MAX ? UINT32_MAX : most > AT_LEAST ? (uint32_t)most : AT_LEAST;
}

int prompt_too_long(const service *sv, const char *param, const char *at_least, uint64_t tokens, fault *f) {
    return fault_set(f, FAULT_CONTEXT, param,
                     "This model's maximum context length is %u tokens. However, your %s resulted in %s%" PRIu64
                     " tokens. Please reduce the length of the %s.",
                     sv->context_max, param, at_least, tokens, param);
}

int prompt_check_model(const service *sv, const request_params *p, fault *f) {
    if (!p->model || strcmp(p->model, sv->model_name) == 0) return 0;
    return fault_set(f, FAULT_MODEL, "model", "The model '%.200s' does not exist; '%.200s' is served here.", p->model,
                     sv->model_name);
}

static int tokenizer_missing(fault *f, const char *param) {
    return fault_set(f, FAULT_UNSUPPORTED, param,
                     "This model has no tokenizer: send 'prompt' as token ids to /v1/completions.");
}

static int encoded(const service *sv, int code, const char *param, const token_ids *ids, const error *err, fault *f) {
    if (code == OK) return 0;
    if (code == ERR_TOO_LARGE && ids->max > sv->context_max)
        return fault_set(f, FAULT_CONTEXT, param, "Your %s has more than %zu tokens; no more are looked at in one request.",
                         param, ids->max);
    if (code == ERR_TOO_LARGE && ids->max) return prompt_too_long(sv, param, "at least ", (uint64_t)ids->max + 1, f);
    bool theirs = code == ERR_INVALID || code == ERR_TOO_LARGE || code == ERR_UNSUPPORTED;
    return fault_set(f, theirs ? FAULT_INVALID : FAULT_INTERNAL, param, "%.400s.", err->text);
}

static void move_members(cJSON *from, cJSON *to) {
    for (cJSON *item; (item = from->child);) {
        cJSON_DetachItemViaPointer(from, item);
        cJSON_AddItemToObject(to, item->string, item);
    }
}

static void move_item(cJSON *body, const cJSON *item, cJSON *to) {
    if (item) cJSON_AddItemToObject(to, item->string, cJSON_DetachItemViaPointer(body, (cJSON *)(uintptr_t)item));
}

/* What was thought goes back to the template by the name it knows, whichever of the two a client kept. */
static void rename_reasoning(const cJSON *messages) {
    for (cJSON *message = messages->child; message; message = message->next) {
        const cJSON *item = json_get(message, "reasoning");
        if (!cJSON_IsString(item) || json_get(message, "reasoning_content")) continue;
        cJSON *moved = cJSON_DetachItemViaPointer(message, (cJSON *)(uintptr_t)item);
        cJSON_AddItemToObject(message, "reasoning_content", moved);
    }
}

int prompt_of_messages(const service *sv, const request_params *p, cJSON *body, uint32_t tokens_max, token_ids *out,
                       fault *f) {
    if (!sv->tokenizer || !sv->chat) return tokenizer_missing(f, "messages");
    error  err = {0};
    cJSON *context = cJSON_CreateObject();
    cJSON_AddBoolToObject(context, "add_generation_prompt", p->generation_prompt);
    if (p->template_kwargs) move_members((cJSON *)(uintptr_t)p->template_kwargs, context);
    if (p->reasoning_effort) {
        cJSON_AddStringToObject(context, "reasoning_effort", p->reasoning_effort);
        if (strcmp(p->reasoning_effort, "none") == 0) cJSON_AddBoolToObject(context, "enable_thinking", false);
    }
    rename_reasoning(p->messages);
    move_item(body, p->messages, context);
    move_item(body, p->documents, context);
    out->max = most_tokens(sv, tokens_max);
    int code = chat_encode(sv->chat, sv->tokenizer, context, time(NULL), out, &err);
    cJSON_Delete(context);
    return encoded(sv, code, "messages", out, &err, f);
}

int prompt_of_text(const service *sv, const request_params *p, const char *text, uint32_t tokens_max, token_ids *out,
                   fault *f) {
    error err = {0};
    if (!sv->tokenizer) return tokenizer_missing(f, "prompt");
    out->max = most_tokens(sv, tokens_max);
    int code = tokenizer_encode(sv->tokenizer, text, strlen(text), p->add_special ? TOKENIZE_BOS : 0, out, &err);
    return encoded(sv, code, "prompt", out, &err, f);
}
