#include "server/params.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    CHAT = ENDPOINT_CHAT,
    TEXT = ENDPOINT_COMPLETION,
    GENERATE = CHAT | TEXT,
    ENCODE = ENDPOINT_TOKENIZE,
    DECODE = ENDPOINT_DETOKENIZE
};

/* ---- readers of what a row cannot say ---- */
static int wrong_type(fault *f, const char *param, const char *wanted) {
    return fault_set(f, FAULT_TYPE, param, "'%s' must be %s.", param, wanted);
}

/* A number that is a whole one within [min, max]. */
static int whole(const cJSON *value, double min, double max, const char *param, fault *f) {
    double v = value->valuedouble;
    if (!cJSON_IsNumber(value) || isnan(v) || (v != floor(v) && !isinf(v))) return wrong_type(f, param, "an integer");
    if (v > max) return fault_set(f, FAULT_INT_ABOVE, param, "'%s' must be at most %.0f, not %.15g.", param, max, v);
    if (v < min) return fault_set(f, FAULT_INT_BELOW, param, "'%s' must be at least %.0f, not %.15g.", param, min, v);
    return 0;
}

static int add_stop(request_params *p, const cJSON *value, const char *param, fault *f) {
    if (!cJSON_IsString(value)) return wrong_type(f, param, "a string");
    size_t n = strlen(value->valuestring);
    if (n == 0) return fault_set(f, FAULT_INVALID, param, "'%s' must not be empty.", param);
    if (n > STOP_BYTES_MAX)
        return fault_set(f, FAULT_STRING_LONG, param, "'%s' must be at most %d bytes long, not %zu.", param, STOP_BYTES_MAX,
                         n);
    stop_set_add(&p->stops, value->valuestring, n);
    return 0;
}

static int check_length(const cJSON *list, uint32_t max, const char *param, fault *f) {
    uint32_t count = 0;
    for (const cJSON *item = list->child; item; item = item->next) count++;
    if (count > max)
        return fault_set(f, FAULT_ARRAY_LONG, param, "'%s' must have at most %u items, not %u.", param, max, count);
    return 0;
}

static int read_stop(request_params *p, const cJSON *value, const param_row *row, fault *f) {
    char path[64];
    int  index = 0;
    if (cJSON_IsString(value)) return add_stop(p, value, row->name, f);
    if (!cJSON_IsArray(value)) return wrong_type(f, row->name, "a string or a list of strings");
    if (check_length(value, STOPS_MAX, row->name, f) < 0) return -1;
    for (const cJSON *item = value->child; item; item = item->next) {
        snprintf(path, sizeof path, "stop[%d]", index++);
        if (add_stop(p, item, path, f) < 0) return -1;
    }
    return 0;
}

static int read_stop_ids(request_params *p, const cJSON *value, const param_row *row, fault *f) {
    if (!cJSON_IsArray(value)) return wrong_type(f, row->name, "a list of token ids");
    if (check_length(value, STOP_IDS_MAX, row->name, f) < 0) return -1;
    for (const cJSON *item = value->child; item; item = item->next) {
        char path[64];
        snprintf(path, sizeof path, "stop_token_ids[%u]", p->stop_id_count);
        if (whole(item, 0, UINT32_MAX, path, f) < 0) return -1;
        p->stop_ids[p->stop_id_count++] = (uint32_t)item->valuedouble;
    }
    return 0;
}

static int read_bias(request_params *p, const cJSON *value, const param_row *row, fault *f) {
    if (!cJSON_IsObject(value)) return wrong_type(f, row->name, "an object of token ids and numbers");
    if (check_length(value, LOGIT_BIAS_MAX, row->name, f) < 0) return -1;
    uint32_t count = 0;
    for (const cJSON *item = value->child; item; item = item->next) count++;
    if (!count) return 0;
    p->bias_ids = malloc(count * sizeof *p->bias_ids);
    p->bias_values = malloc(count * sizeof *p->bias_values);
    if (!p->bias_ids || !p->bias_values) fatal("out of memory for a logit bias");
    for (const cJSON *item = value->child; item; item = item->next) {
        char *end, path[64];
        snprintf(path, sizeof path, "logit_bias.%.40s", item->string);
        unsigned long long id = strtoull(item->string, &end, 10);
        if (item->string[0] < '0' || item->string[0] > '9' || *end || id > UINT32_MAX)
            return fault_set(f, FAULT_INVALID, path, "'%s': the name must be a token id.", path);
        double v = item->valuedouble;
        if (!cJSON_IsNumber(item)) return wrong_type(f, path, "a number");
        if (!(v >= -100)) return fault_set(f, FAULT_NUMBER_BELOW, path, "'%s' must be at least -100, not %g.", path, v);
        if (!(v <= 100)) return fault_set(f, FAULT_NUMBER_ABOVE, path, "'%s' must be at most 100, not %g.", path, v);
        p->bias_ids[p->bias_count] = (uint32_t)id;
        p->bias_values[p->bias_count++] = (float)v;
    }
    return 0;
}

static int read_seed(request_params *p, const cJSON *value, const param_row *row, fault *f) {
    if (whole(value, row->min, row->max, row->name, f) < 0) return -1;
    if (!json_whole_number(value, &p->seed)) p->seed = value->valuedouble < 0x1p63 ? (int64_t)value->valuedouble : INT64_MAX;
    p->has_seed = true;
    return 0;
}

static int read_stream_options(request_params *p, const cJSON *value, const param_row *row, fault *f) {
    if (!cJSON_IsObject(value)) return wrong_type(f, row->name, "an object");
    p->has_stream_options = true;
    static const struct {
        const char *name, *path;
        size_t      offset;
    } flags[] = {
        {"include_usage", "stream_options.include_usage", offsetof(request_params, include_usage)},
        {"continuous_usage_stats", "stream_options.continuous_usage_stats", offsetof(request_params, usage_each)},
    };
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        const cJSON *item = json_get(value, flags[i].name);
        if (!item || cJSON_IsNull(item)) continue;
        if (!cJSON_IsBool(item)) return wrong_type(f, flags[i].path, "true or false");
        *(bool *)((char *)p + flags[i].offset) = cJSON_IsTrue(item);
    }
    return 0;
}

/* Tools and structured output: what asks for nothing is accepted. */
static int read_empty_list(request_params *p, const cJSON *value, const param_row *row, fault *f) {
    (void)p;
    if (!cJSON_IsArray(value)) return wrong_type(f, row->name, "a list");
    if (value->child) return fault_set(f, FAULT_UNSUPPORTED, row->name, "'%s' is not supported by this server.", row->name);
    return 0;
}

static int read_tool_choice(request_params *p, const cJSON *value, const param_row *row, fault *f) {
    (void)p;
    if (cJSON_IsString(value) && (!strcmp(value->valuestring, "none") || !strcmp(value->valuestring, "auto"))) return 0;
    return fault_set(f, FAULT_UNSUPPORTED, row->name,
                     "'tool_choice' other than 'none' or 'auto' is not supported by this server.");
}

static int read_response_format(request_params *p, const cJSON *value, const param_row *row, fault *f) {
    (void)p;
    const cJSON *type = json_get(value, "type");
    if (!cJSON_IsObject(value)) return wrong_type(f, row->name, "an object");
    if (!cJSON_IsString(type))
        return fault_set(f, FAULT_MISSING, "response_format.type", "'response_format.type' is required.");
    if (strcmp(type->valuestring, "text") == 0) return 0;
    return fault_set(f, FAULT_UNSUPPORTED, row->name,
                     "'response_format' of type '%.40s' is not supported by this server; only 'text' is.",
                     type->valuestring);
}

static int read_modalities(request_params *p, const cJSON *value, const param_row *row, fault *f) {
    (void)p;
    if (!cJSON_IsArray(value)) return wrong_type(f, row->name, "a list");
    for (const cJSON *item = value->child; item; item = item->next)
        if (!cJSON_IsString(item) || strcmp(item->valuestring, "text") != 0)
            return fault_set(f, FAULT_UNSUPPORTED, row->name,
                             "'modalities' other than 'text' are not supported by this server.");
    return 0;
}

static int read_service_tier(request_params *p, const cJSON *value, const param_row *row, fault *f) {
    static const char *const tiers[] = {"auto", "default", "flex", "scale", "priority"};
    if (!cJSON_IsString(value)) return wrong_type(f, row->name, "a string");
    for (size_t i = 0; i < sizeof tiers / sizeof *tiers; i++)
        if (strcmp(value->valuestring, tiers[i]) == 0) return p->service_tier = tiers[i], 0;
    return fault_set(f, FAULT_INVALID, row->name, "'service_tier' must be one of auto, default, flex, scale and priority.");
}

/* What a template may be told by a request; anything else could change how the conversation itself is written. */
static int read_template_kwargs(request_params *p, const cJSON *value, const param_row *row, fault *f) {
    static const char *const allowed[] = {"enable_thinking",   "thinking",       "thinking_budget", "reasoning_effort",
                                          "preserve_thinking", "clear_thinking", "date_string",     "builtin_tools"};
    if (!cJSON_IsObject(value)) return wrong_type(f, row->name, "an object");
    for (const cJSON *item = value->child; item; item = item->next) {
        bool known = false;
        for (size_t i = 0; i < sizeof allowed / sizeof *allowed; i++) known |= strcmp(allowed[i], item->string) == 0;
        if (!known)
            return fault_set(f, FAULT_INVALID, row->name, "'chat_template_kwargs' may not hold '%.40s'.", item->string);
    }
    p->template_kwargs = value;
    return 0;
}

/* ---- messages ---- */
static int check_parts(const cJSON *parts, int message, fault *f) {
    char path[64];
    int  index = 0;
    for (const cJSON *part = parts->child; part; part = part->next, index++) {
        const cJSON *type = json_get(part, "type"), *text = json_get(part, "text");
        snprintf(path, sizeof path, "messages[%d].content[%d]", message, index);
        if (!cJSON_IsObject(part)) return wrong_type(f, path, "an object");
        if (!cJSON_IsString(type)) return fault_set(f, FAULT_MISSING, path, "'%s.type' is required.", path);
        if (strcmp(type->valuestring, "text") != 0)
            return fault_set(f, FAULT_UNSUPPORTED, path, "'%s' has type '%.40s': this model reads text only.", path,
                             type->valuestring);
        if (!cJSON_IsString(text)) return fault_set(f, FAULT_MISSING, path, "'%s.text' must be a string.", path);
    }
    return 0;
}

static int check_message(const cJSON *message, int index, fault *f) {
    static const char *const roles[] = {"system", "developer", "user", "assistant", "tool", "function"};
    char                     path[64];
    snprintf(path, sizeof path, "messages[%d]", index);
    if (!cJSON_IsObject(message)) return wrong_type(f, path, "an object");
    const cJSON *role = json_get(message, "role"), *content = json_get(message, "content");
    snprintf(path, sizeof path, "messages[%d].role", index);
    if (!role) return fault_set(f, FAULT_MISSING, path, "'%s' is required.", path);
    if (!cJSON_IsString(role)) return wrong_type(f, path, "a string");
    bool known = false;
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++) known |= strcmp(role->valuestring, roles[i]) == 0;
    if (!known)
        return fault_set(f, FAULT_INVALID, path,
                         "'%s' must be one of system, developer, user, assistant, tool and function, not '%.40s'.", path,
                         role->valuestring);
    snprintf(path, sizeof path, "messages[%d].content", index);
    if (cJSON_IsArray(content)) return check_parts(content, index, f);
    bool may_be_empty = strcmp(role->valuestring, "assistant") == 0;
    if (!content && !may_be_empty) return fault_set(f, FAULT_MISSING, path, "'%s' is required.", path);
    if (content && !cJSON_IsString(content) && !(may_be_empty && cJSON_IsNull(content)))
        return wrong_type(f, path, "a string or a list of parts");
    const cJSON *calls = json_get(message, "tool_calls");
    snprintf(path, sizeof path, "messages[%d].tool_calls", index);
    if (calls && !cJSON_IsArray(calls) && !cJSON_IsNull(calls)) return wrong_type(f, path, "a list");
    return 0;
}

static int read_messages(request_params *p, const cJSON *value, const param_row *row, fault *f) {
    int index = 0;
    if (!cJSON_IsArray(value)) return wrong_type(f, row->name, "a list of messages");
    if (!value->child) return fault_set(f, FAULT_ARRAY_SHORT, row->name, "'messages' must hold at least one message.");
    for (const cJSON *item = value->child; item; item = item->next)
        if (check_message(item, index++, f) < 0) return -1;
    p->messages = value;
    return 0;
}

/* ---- prompts: a string, a list of strings, token ids, or lists of token ids ---- */
static int check_ids(const cJSON *list, const char *param, fault *f) {
    for (const cJSON *item = list->child; item; item = item->next)
        if (whole(item, 0, UINT32_MAX, param, f) < 0) return -1;
    return 0;
}

static int read_prompt(request_params *p, const cJSON *value, const param_row *row, fault *f) {
    static const char wanted[] = "a string, a list of strings, a list of token ids, or a list of lists of token ids";
    p->prompt = value;
    if (cJSON_IsString(value)) return 0;
    if (!cJSON_IsArray(value)) return wrong_type(f, row->name, wanted);
    const cJSON *first = value->child;
    if (!first) return fault_set(f, FAULT_ARRAY_SHORT, row->name, "'prompt' must not be an empty list.");
    if (cJSON_IsNumber(first)) return check_ids(value, row->name, f);
    if (check_length(value, CHOICES_LIMIT, row->name, f) < 0) return -1;
    for (const cJSON *item = first; item; item = item->next) {
        if (cJSON_IsString(first) ? !cJSON_IsString(item) : !cJSON_IsArray(item)) return wrong_type(f, row->name, wanted);
        if (cJSON_IsArray(item) && check_ids(item, row->name, f) < 0) return -1;
    }
    return 0;
}

static int read_tokens(request_params *p, const cJSON *value, const param_row *row, fault *f) {
    p->tokens = value;
    if (!cJSON_IsArray(value)) return wrong_type(f, row->name, "a list of token ids");
    return check_ids(value, row->name, f);
}

/* ---- the table, in order of name ---- */
#define AT(member) offsetof(request_params, member)
static const char tools_later[] = "use 'tools', which a later version will support";

const param_row param_rows[] = {
    {"add_generation_prompt", CHAT | ENCODE, 0, PARAM_BOOL, 0, 1, 1, AT(generation_prompt), NULL,
     "end the rendered prompt where the assistant begins"},
    {"add_special_tokens", TEXT | ENCODE, 0, PARAM_BOOL, 0, 1, 1, AT(add_special), NULL,
     "add what the tokenizer puts around a text, such as BOS"},
    {"audio", CHAT, 0, PARAM_REFUSED, 0, 0, 0, 0, NULL, "this model has no audio"},
    {"best_of", TEXT, 0, PARAM_INT, 1, 20, -1, AT(best_of), NULL,
     "draw so many answers and return the n likeliest; not with stream"},
    {"cache_salt", GENERATE, 0, PARAM_STRING, 1, 256, 0, AT(cache_salt), NULL, "prefixes are shared only among equal salts"},
    {"chat_template", CHAT | ENCODE, 0, PARAM_REFUSED, 0, 0, 0, 0, NULL,
     "templates come with the model, never with a request"},
    {"chat_template_kwargs", CHAT | ENCODE, 0, PARAM_OTHER, 0, 0, 0, 0, read_template_kwargs,
     "variables for the template, from a short list of names"},
    {"echo", TEXT, 0, PARAM_BOOL, 0, 1, 0, AT(echo), NULL, "put the prompt in front of the answer"},
    {"frequency_penalty", GENERATE, 0, PARAM_NUMBER, -2, 2, 0, AT(frequency_penalty), NULL,
     "per earlier occurrence of a token"},
    {"function_call", CHAT, 0, PARAM_REFUSED, 0, 0, 0, 0, NULL, tools_later},
    {"functions", CHAT, 0, PARAM_REFUSED, 0, 0, 0, 0, NULL, tools_later},
    {"guided_choice", GENERATE, 0, PARAM_REFUSED, 0, 0, 0, 0, NULL, "structured output is not supported"},
    {"guided_grammar", GENERATE, 0, PARAM_REFUSED, 0, 0, 0, 0, NULL, "structured output is not supported"},
    {"guided_json", GENERATE, 0, PARAM_REFUSED, 0, 0, 0, 0, NULL, "structured output is not supported"},
    {"guided_regex", GENERATE, 0, PARAM_REFUSED, 0, 0, 0, 0, NULL, "structured output is not supported"},
    {"ignore_eos", GENERATE, 0, PARAM_BOOL, 0, 1, 0, AT(ignore_eos), NULL, "go on past the end-of-sequence token"},
    {"include_stop_str_in_output", GENERATE, 0, PARAM_BOOL, 0, 1, 0, AT(include_stop), NULL,
     "keep the stop string in the text"},
    {"logit_bias", GENERATE, 0, PARAM_OTHER, -100, 100, 0, 0, read_bias, "token id to a number added to its logit"},
    {"logprobs", CHAT, 0, PARAM_BOOL, 0, 1, 0, AT(logprobs), NULL, "return log-probabilities of the tokens"},
    {"logprobs", TEXT, 0, PARAM_INT, 0, 5, -1, AT(legacy_logprobs), NULL,
     "return log-probabilities, with so many alternatives"},
    {"max_completion_tokens", CHAT, 0, PARAM_INT, 1, 1 << 30, -1, AT(max_completion_tokens), NULL,
     "the most tokens of an answer; wins over max_tokens"},
    {"max_tokens", CHAT, 0, PARAM_INT, 1, 1 << 30, -1, AT(max_tokens), NULL,
     "the most tokens of an answer; default: what the context leaves"},
    {"max_tokens", TEXT, 0, PARAM_INT, 0, 1 << 30, -1, AT(max_tokens), NULL,
     "the most tokens of an answer; default 16; 0 only with echo"},
    {"messages", CHAT | ENCODE, CHAT, PARAM_OTHER, 0, 0, 0, 0, read_messages, "the conversation"},
    {"metadata", GENERATE, 0, PARAM_IGNORED, 0, 0, 0, 0, NULL, "accepted"},
    {"min_p", GENERATE, 0, PARAM_NUMBER, 0, 1, -1, AT(min_p), NULL,
     "tokens less likely than this share of the likeliest are cut"},
    {"min_tokens", GENERATE, 0, PARAM_INT, 0, 1 << 30, 0, AT(min_tokens), NULL, "no end before so many tokens"},
    {"modalities", CHAT, 0, PARAM_OTHER, 0, 0, 0, 0, read_modalities, "only text"},
    {"model", 15, 0, PARAM_STRING, 0, 4096, 0, AT(model), NULL, "the served model's name; may be left out"},
    {"moderation", CHAT, 0, PARAM_IGNORED, 0, 0, 0, 0, NULL, "accepted"},
    {"n", GENERATE, 0, PARAM_INT, 1, CHOICES_LIMIT, 1, AT(n), NULL, "answers per prompt"},
    {"parallel_tool_calls", CHAT, 0, PARAM_IGNORED, 0, 0, 0, 0, NULL, "accepted"},
    {"prediction", CHAT, 0, PARAM_IGNORED, 0, 0, 0, 0, NULL, "accepted"},
    {"presence_penalty", GENERATE, 0, PARAM_NUMBER, -2, 2, 0, AT(presence_penalty), NULL, "once for a token that occurred"},
    {"priority", GENERATE, 0, PARAM_INT, -1000000, 1000000, 0, AT(priority), NULL, "lower goes first"},
    {"prompt", TEXT | ENCODE, TEXT, PARAM_OTHER, 0, 0, 0, 0, read_prompt,
     "a string, a list of strings, token ids, or lists of token ids"},
    {"prompt_cache_key", GENERATE, 0, PARAM_STRING, 0, 1024, 0, AT(cache_key), NULL, "stands for the conversation"},
    {"prompt_cache_options", GENERATE, 0, PARAM_IGNORED, 0, 0, 0, 0, NULL, "accepted"},
    {"prompt_cache_retention", GENERATE, 0, PARAM_IGNORED, 0, 0, 0, 0, NULL, "accepted"},
    {"prompt_logprobs", GENERATE, 0, PARAM_REFUSED, 0, 0, 0, 0, NULL, "log-probabilities of the prompt are not computed"},
    {"reasoning_effort", CHAT, 0, PARAM_STRING, 1, 32, 0, AT(reasoning_effort), NULL,
     "told to the template; none turns thinking off"},
    {"repetition_penalty", GENERATE, 0, PARAM_NUMBER, 0.01, 10, -1, AT(repetition_penalty), NULL,
     "divides the logits of tokens that occurred; 1 is off"},
    {"request_id", GENERATE, 0, PARAM_STRING, 1, 128, 0, AT(request_id), NULL, "names the request in answers and logs"},
    {"response_format", GENERATE, 0, PARAM_OTHER, 0, 0, 0, 0, read_response_format, "only {\"type\": \"text\"}"},
    {"return_token_ids", GENERATE, 0, PARAM_BOOL, 0, 1, 0, AT(return_token_ids), NULL,
     "return the ids of prompt and answer"},
    {"return_token_strs", ENCODE, 0, PARAM_BOOL, 0, 1, 0, AT(token_strings), NULL, "return each token's text as well"},
    {"safety_identifier", GENERATE, 0, PARAM_IGNORED, 0, 0, 0, 0, NULL, "accepted"},
    {"seed", GENERATE, 0, PARAM_OTHER, -0x1p63, 0x1p63, 0, 0, read_seed,
     "the same seed gives the same answer, whoever else is served"},
    {"service_tier", GENERATE, 0, PARAM_OTHER, 0, 0, 0, 0, read_service_tier, "auto, default, flex, scale or priority"},
    {"session_id", GENERATE, 0, PARAM_STRING, 0, 1024, 0, AT(session), NULL, "stands for the conversation"},
    {"skip_special_tokens", GENERATE, 0, PARAM_BOOL, 0, 1, 1, AT(skip_special), NULL,
     "leave special tokens out of the text"},
    {"spaces_between_special_tokens", GENERATE, 0, PARAM_IGNORED, 0, 0, 0, 0, NULL, "accepted"},
    {"stop", GENERATE, 0, PARAM_OTHER, 0, 0, 0, 0, read_stop,
     "a string or up to 16 of them; the text ends before the first found"},
    {"stop_token_ids", GENERATE, 0, PARAM_OTHER, 0, 0, 0, 0, read_stop_ids, "up to 16 token ids that end the answer"},
    {"store", GENERATE, 0, PARAM_IGNORED, 0, 0, 0, 0, NULL, "accepted; nothing is stored"},
    {"stream", GENERATE, 0, PARAM_BOOL, 0, 1, 0, AT(stream), NULL, "send the answer as server-sent events"},
    {"stream_options", GENERATE, 0, PARAM_OTHER, 0, 0, 0, 0, read_stream_options,
     "include_usage, continuous_usage_stats; only with stream"},
    {"structured_outputs", GENERATE, 0, PARAM_REFUSED, 0, 0, 0, 0, NULL, "structured output is not supported"},
    {"suffix", TEXT, 0, PARAM_REFUSED, 0, 0, 0, 0, NULL, "text is only ever continued, not filled in"},
    {"temperature", GENERATE, 0, PARAM_NUMBER, 0, 2, -1, AT(temperature), NULL,
     "0 takes the likeliest token; default: the model's, else 1"},
    {"tokens", DECODE, DECODE, PARAM_OTHER, 0, 0, 0, 0, read_tokens, "token ids"},
    {"tool_choice", CHAT, 0, PARAM_OTHER, 0, 0, 0, 0, read_tool_choice, "none or auto"},
    {"tools", CHAT | ENCODE, 0, PARAM_OTHER, 0, 0, 0, 0, read_empty_list, "must be empty"},
    {"top_k", GENERATE, 0, PARAM_INT, -1, 0x7FFFFFFF, -2, AT(top_k), NULL, "only the k likeliest tokens; -1 and 0: all"},
    {"top_logprobs", CHAT, 0, PARAM_INT, 0, TOP_LOGPROBS_MAX, -1, AT(top_logprobs), NULL,
     "alternatives per token; only with logprobs"},
    {"top_p", GENERATE, 0, PARAM_NUMBER, 0, 1, -1, AT(top_p), NULL, "the likeliest tokens up to this share"},
    {"user", GENERATE, 0, PARAM_STRING, 0, 1024, 0, AT(user), NULL, "whose request it is, for fairness"},
    {"verbosity", CHAT, 0, PARAM_IGNORED, 0, 0, 0, 0, NULL, "accepted"},
    {"web_search_options", CHAT, 0, PARAM_REFUSED, 0, 0, 0, 0, NULL, "this server searches nothing"},
};
enum { ROW_COUNT = sizeof param_rows / sizeof *param_rows };
const uint32_t param_row_count = ROW_COUNT;

/* ---- one row at a time ---- */
static void *field(request_params *p, const param_row *row) { return (char *)p + row->offset; }

static int read_int(request_params *p, const cJSON *value, const param_row *row, fault *f) {
    if (whole(value, row->min, row->max, row->name, f) < 0) return -1;
    *(int64_t *)field(p, row) = (int64_t)value->valuedouble;
    return 0;
}

static int read_number(request_params *p, const cJSON *value, const param_row *row, fault *f) {
    double v = value->valuedouble;
    if (!cJSON_IsNumber(value) || isnan(v)) return wrong_type(f, row->name, "a number");
    if (v > row->max)
        return fault_set(f, FAULT_NUMBER_ABOVE, row->name, "'%s' must be at most %g, not %.15g.", row->name, row->max, v);
    if (v < row->min)
        return fault_set(f, FAULT_NUMBER_BELOW, row->name, "'%s' must be at least %g, not %.15g.", row->name, row->min, v);
    *(double *)field(p, row) = v;
    return 0;
}

static int read_bool(request_params *p, const cJSON *value, const param_row *row, fault *f) {
    if (!cJSON_IsBool(value)) return wrong_type(f, row->name, "true or false");
    *(bool *)field(p, row) = cJSON_IsTrue(value);
    return 0;
}

static int read_string(request_params *p, const cJSON *value, const param_row *row, fault *f) {
    if (!cJSON_IsString(value)) return wrong_type(f, row->name, "a string");
    size_t n = strlen(value->valuestring);
    if ((double)n < row->min) return fault_set(f, FAULT_INVALID, row->name, "'%s' must not be empty.", row->name);
    if ((double)n > row->max)
        return fault_set(f, FAULT_STRING_LONG, row->name, "'%s' must be at most %.0f bytes long, not %zu.", row->name,
                         row->max, n);
    *(const char **)field(p, row) = value->valuestring;
    return 0;
}

static int read_refused(request_params *p, const cJSON *value, const param_row *row, fault *f) {
    (void)p, (void)value;
    return fault_set(f, FAULT_UNSUPPORTED, row->name, "'%s' is not supported: %s.", row->name, row->help);
}

static int read_ignored(request_params *p, const cJSON *value, const param_row *row, fault *f) {
    (void)p, (void)value, (void)row, (void)f;
    return 0;
}

typedef int (*param_reader)(request_params *, const cJSON *, const param_row *, fault *);
static const param_reader readers[] = {
    [PARAM_BOOL] = read_bool,     [PARAM_INT] = read_int,         [PARAM_NUMBER] = read_number,
    [PARAM_STRING] = read_string, [PARAM_IGNORED] = read_ignored, [PARAM_REFUSED] = read_refused,
};

static void set_defaults(request_params *p) {
    *p = (request_params){.n = 1};
    for (uint32_t i = 0; i < ROW_COUNT; i++) {
        const param_row *row = &param_rows[i];
        void            *at = field(p, row);
        if (row->kind == PARAM_BOOL) *(bool *)at = row->fallback != 0;
        if (row->kind == PARAM_INT) *(int64_t *)at = (int64_t)row->fallback;
        if (row->kind == PARAM_NUMBER) *(double *)at = row->fallback;
    }
}

/* Index of the row, or -1. Names are in order; two endpoints may read one name differently, in neighbouring rows. */
static int find_row(const char *name, endpoint e) {
    uint32_t low = 0, high = ROW_COUNT;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (strcmp(param_rows[middle].name, name) < 0) low = middle + 1;
        else high = middle;
    }
    for (; low < ROW_COUNT && strcmp(param_rows[low].name, name) == 0; low++)
        if (param_rows[low].endpoints & e) return (int)low;
    return -1;
}

/* ---- rules that need two parameters ---- */
static int check_rules(const request_params *p, endpoint e, fault *f) {
    if (p->has_stream_options && !p->stream)
        return fault_set(f, FAULT_INVALID, "stream_options", "'stream_options' is only allowed when 'stream' is true.");
    if (p->top_logprobs >= 0 && !p->logprobs)
        return fault_set(f, FAULT_INVALID, "top_logprobs", "'top_logprobs' is only allowed when 'logprobs' is true.");
    if (p->best_of >= 0 && p->best_of < p->n)
        return fault_set(f, FAULT_INVALID, "best_of", "'best_of' (%" PRId64 ") must not be less than 'n' (%" PRId64 ").",
                         p->best_of, p->n);
    if (p->best_of > p->n && p->stream)
        return fault_set(f, FAULT_INVALID, "best_of", "'best_of' greater than 'n' cannot be streamed.");
    if (e == ENDPOINT_COMPLETION && p->echo && p->legacy_logprobs >= 0)
        return fault_set(f, FAULT_UNSUPPORTED, "logprobs",
                         "'logprobs' with 'echo' is not supported: log-probabilities of the prompt "
                         "are not computed.");
    if (p->max_tokens == 0 && !p->echo)
        return fault_set(f, FAULT_INT_BELOW, "max_tokens", "'max_tokens' must be at least 1 unless 'echo' is true.");
    if (e == ENDPOINT_TOKENIZE && !p->prompt == !p->messages)
        return fault_set(f, FAULT_MISSING, "prompt", "exactly one of 'prompt' and 'messages' is required.");
    if (e == ENDPOINT_TOKENIZE && p->prompt && !cJSON_IsString(p->prompt)) return wrong_type(f, "prompt", "a string");
    return 0;
}

static int check_required(uint64_t *seen, endpoint e, fault *f) {
    for (uint32_t i = 0; i < ROW_COUNT; i++)
        if ((param_rows[i].required & e) && !(seen[i / 64] >> i % 64 & 1))
            return fault_set(f, FAULT_MISSING, param_rows[i].name, "'%s' is required.", param_rows[i].name);
    return 0;
}

static void note_unknown(request_params *p, const char *name) {
    if (p->unknown_count++ == 0) snprintf(p->unknown_first, sizeof p->unknown_first, "%s", name);
}

int params_read(request_params *p, const cJSON *body, endpoint e, fault *f) {
    uint64_t seen[(ROW_COUNT + 63) / 64] = {0};
    set_defaults(p);
    for (const cJSON *item = body->child; item; item = item->next) {
        int index = find_row(item->string, e);
        if (index < 0) {
            note_unknown(p, item->string);
            continue;
        }
        if (seen[index / 64] >> index % 64 & 1)
            return fault_set(f, FAULT_BODY, item->string, "'%.40s' is given twice.", item->string);
        if (cJSON_IsNull(item)) continue; /* null is the same as leaving it out */
        seen[index / 64] |= 1ull << index % 64;
        const param_row *row = &param_rows[index];
        param_reader     reader = row->kind == PARAM_OTHER ? row->read : readers[row->kind];
        if (reader(p, item, row, f) < 0) return -1;
    }
    if (check_required(seen, e, f) < 0) return -1;
    return check_rules(p, e, f);
}

void params_free(request_params *p) {
    stop_set_free(&p->stops);
    free(p->bias_ids), free(p->bias_values);
    p->bias_ids = NULL, p->bias_values = NULL;
}

/* A value costs about 80 bytes once parsed, so a body of commas would grow by forty: count them first. */
static bool too_many_values(const char *text, size_t n) {
    size_t count = 0;
    for (size_t i = 0; i < n; i++) count += text[i] == ',';
    return count > BODY_VALUES_MAX;
}

cJSON *params_parse_body(const char *text, size_t n, fault *f) {
    error err;
    if (n == 0) return fault_set(f, FAULT_BODY, NULL, "The body is empty; a JSON object is expected."), NULL;
    if (too_many_values(text, n))
        return fault_set(f, FAULT_BODY, NULL, "The body holds more than %d values.", BODY_VALUES_MAX), NULL;
    cJSON *body = json_parse(text, n, BODY_DEPTH_MAX, &err);
    if (!body) return fault_set(f, FAULT_BODY, NULL, "The body cannot be read: %.400s.", err.text), NULL;
    if (cJSON_IsObject(body)) return body;
    cJSON_Delete(body);
    return fault_set(f, FAULT_BODY, NULL, "The body must be a JSON object."), NULL;
}
