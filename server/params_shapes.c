#include "server/params_shapes.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- what may be wrong with any value ---- */

int param_wrong_type(fault *f, const char *param, const char *wanted) {
    return fault_set(f, FAULT_TYPE, param, "'%s' must be %s.", param, wanted);
}

int param_check_whole(const cJSON *value, double min, double max, const char *param, fault *f) {
    double v = value->valuedouble;
    if (!cJSON_IsNumber(value) || isnan(v) || (v != floor(v) && !isinf(v))) return param_wrong_type(f, param, "an integer");
    if (v > max) return fault_set(f, FAULT_INT_ABOVE, param, "'%s' must be at most %.0f, not %.15g.", param, max, v);
    if (v < min) return fault_set(f, FAULT_INT_BELOW, param, "'%s' must be at least %.0f, not %.15g.", param, min, v);
    return 0;
}

int param_check_number(const cJSON *value, double min, double max, const char *param, fault *f) {
    double v = value->valuedouble;
    if (!cJSON_IsNumber(value) || isnan(v)) return param_wrong_type(f, param, "a number");
    if (v > max) return fault_set(f, FAULT_NUMBER_ABOVE, param, "'%s' must be at most %.10g, not %.15g.", param, max, v);
    if (v < min) return fault_set(f, FAULT_NUMBER_BELOW, param, "'%s' must be at least %.10g, not %.15g.", param, min, v);
    return 0;
}

static int add_stop(request_params *p, const cJSON *value, const char *param, fault *f) {
    if (!cJSON_IsString(value)) return param_wrong_type(f, param, "a string");
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
    if (!cJSON_IsArray(value)) return param_wrong_type(f, row->name, "a string or a list of strings");
    if (check_length(value, STOPS_MAX, row->name, f) < 0) return -1;
    for (const cJSON *item = value->child; item; item = item->next) {
        snprintf(path, sizeof path, "stop[%d]", index++);
        if (add_stop(p, item, path, f) < 0) return -1;
    }
    return 0;
}

static int read_stop_ids(request_params *p, const cJSON *value, const param_row *row, fault *f) {
    if (!cJSON_IsArray(value)) return param_wrong_type(f, row->name, "a list of token ids");
    if (check_length(value, STOP_IDS_MAX, row->name, f) < 0) return -1;
    for (const cJSON *item = value->child; item; item = item->next) {
        char path[64];
        snprintf(path, sizeof path, "stop_token_ids[%u]", p->stop_id_count);
        if (param_check_whole(item, 0, UINT32_MAX, path, f) < 0) return -1;
        p->stop_ids[p->stop_id_count++] = (uint32_t)item->valuedouble;
    }
    return 0;
}

static int read_bias(request_params *p, const cJSON *value, const param_row *row, fault *f) {
    if (!cJSON_IsObject(value)) return param_wrong_type(f, row->name, "an object of token ids and numbers");
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
        if (param_check_number(item, row->min, row->max, path, f) < 0) return -1;
        p->bias_ids[p->bias_count] = (uint32_t)id;
        p->bias_values[p->bias_count++] = (float)item->valuedouble;
    }
    return 0;
}

static int read_seed(request_params *p, const cJSON *value, const param_row *row, fault *f) {
    if (param_check_whole(value, row->min, row->max, row->name, f) < 0) return -1;
    if (!json_whole_number(value, &p->seed)) { /* 1e3, or more digits than 64 bits hold */
        if (value->valuedouble >= 0x1p63)
            return fault_set(f, FAULT_INT_ABOVE, row->name, "'seed' must be at most %" PRId64 ", not %.19g.", INT64_MAX,
                             value->valuedouble);
        p->seed = (int64_t)value->valuedouble;
    }
    p->has_seed = true;
    return 0;
}

static int read_stream_options(request_params *p, const cJSON *value, const param_row *row, fault *f) {
    if (!cJSON_IsObject(value)) return param_wrong_type(f, row->name, "an object");
    p->has_stream_options = true;
    static const struct {
        const char *name, *path;
        size_t      offset;
    } flags[] = {
        {"include_usage", "stream_options.include_usage", offsetof(request_params, include_usage)},
        {"continuous_usage_stats", "stream_options.continuous_usage_stats", offsetof(request_params, usage_each)},
        {"include_obfuscation", "stream_options.include_obfuscation", offsetof(request_params, obfuscation)}, /* no effect */
    };
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        const cJSON *item = json_get(value, flags[i].name);
        if (!item || cJSON_IsNull(item)) continue;
        if (!cJSON_IsBool(item)) return param_wrong_type(f, flags[i].path, "true or false");
        *(bool *)((char *)p + flags[i].offset) = cJSON_IsTrue(item);
    }
    return 0;
}

/* Tools and structured output: what asks for nothing is accepted. */
static int read_empty_list(request_params *p, const cJSON *value, const param_row *row, fault *f) {
    (void)p;
    if (!cJSON_IsArray(value)) return param_wrong_type(f, row->name, "a list");
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
    if (!cJSON_IsObject(value)) return param_wrong_type(f, row->name, "an object");
    const cJSON *type = json_get(value, "type");
    if (!cJSON_IsString(type))
        return fault_set(f, FAULT_MISSING, "response_format.type", "'response_format.type' is required.");
    if (strcmp(type->valuestring, "text") == 0) return 0;
    return fault_set(f, FAULT_RULE, row->name,
                     "'response_format' of type '%.40s' is not supported by this server; only 'text' is.",
                     type->valuestring);
}

static int read_modalities(request_params *p, const cJSON *value, const param_row *row, fault *f) {
    (void)p;
    if (!cJSON_IsArray(value)) return param_wrong_type(f, row->name, "a list");
    for (const cJSON *item = value->child; item; item = item->next)
        if (!cJSON_IsString(item) || strcmp(item->valuestring, "text") != 0)
            return fault_set(f, FAULT_UNSUPPORTED, row->name,
                             "'modalities' other than 'text' are not supported by this server.");
    return 0;
}

/* One of the words, which it becomes. */
static int read_word(const cJSON *value, const char *const *words, size_t count, const char **out, const param_row *row,
                     fault *f) {
    char list[128] = "";
    if (!cJSON_IsString(value)) return param_wrong_type(f, row->name, "a string");
    for (size_t i = 0; i < count; i++) {
        if (strcmp(value->valuestring, words[i]) == 0) return *out = words[i], 0;
        snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s", i ? i + 1 < count ? ", " : " and " : "", words[i]);
    }
    return fault_set(f, FAULT_INVALID, row->name, "'%s' must be one of %s, not '%.40s'.", row->name, list,
                     value->valuestring);
}

static int read_service_tier(request_params *p, const cJSON *value, const param_row *row, fault *f) {
    static const char *const tiers[] = {"auto", "default", "flex", "scale", "priority"};
    return read_word(value, tiers, 5, &p->service_tier, row, f);
}

static int read_retention(request_params *p, const cJSON *value, const param_row *row, fault *f) {
    static const char *const words[] = {"in_memory", "in-memory", "24h"};
    return read_word(value, words, 3, &p->retention, row, f);
}

static int read_truncation_side(request_params *p, const cJSON *value, const param_row *row, fault *f) {
    static const char *const sides[] = {"left", "right"};
    return read_word(value, sides, 2, &p->truncation_side, row, f);
}

/* ---- objects of a few members ---- */

/* What a request wants of time, in milliseconds on the wire. */
static int read_slo(request_params *p, const cJSON *value, const param_row *row, fault *f) {
    static const struct {
        const char *name, *path;
        size_t      offset;
        double      max;
    } members[] = {
        {"ttft_ms", "slo.ttft_ms", offsetof(request_params, slo.ttft_ms), SLO_MS_MAX},
        {"tbt_ms", "slo.tbt_ms", offsetof(request_params, slo.tbt_ms), SLO_MS_MAX},
        {"deadline_ms", "slo.deadline_ms", offsetof(request_params, slo.deadline_ms), SLO_MS_MAX},
        {"job_deadline_ms", "slo.job_deadline_ms", offsetof(request_params, slo.job_deadline_ms), SLO_MS_MAX},
        {"value", "slo.value", offsetof(request_params, slo.value), 1e6},
    };
    if (!cJSON_IsObject(value)) return param_wrong_type(f, row->name, "an object");
    for (size_t i = 0; i < sizeof members / sizeof *members; i++) {
        const cJSON *item = json_get(value, members[i].name);
        if (!item || cJSON_IsNull(item)) continue;
        if (param_check_number(item, SLO_MS_MIN, members[i].max, members[i].path, f) < 0) return -1;
        *(double *)((char *)p + members[i].offset) = item->valuedouble;
    }
    for (const cJSON *item = value->child; item; item = item->next) {
        bool known = false;
        for (size_t i = 0; i < sizeof members / sizeof *members; i++) known |= strcmp(members[i].name, item->string) == 0;
        if (!known)
            return fault_set(f, FAULT_INVALID, row->name,
                             "'slo' may hold ttft_ms, tbt_ms, deadline_ms, job_deadline_ms and value, not '%.40s'.",
                             item->string);
    }
    return 0;
}

/* Sixteen pairs of short strings, as OpenAI has it. */
static int read_metadata(request_params *p, const cJSON *value, const param_row *row, fault *f) {
    enum { PAIRS_MAX = 16, KEY_MAX = 64, VALUE_MAX = 512 };
    if (!cJSON_IsObject(value)) return param_wrong_type(f, row->name, "an object of strings");
    uint32_t pairs = 0;
    for (const cJSON *item = value->child; item; item = item->next, pairs++) {
        char path[64];
        snprintf(path, sizeof path, "metadata.%.50s", item->string);
        if (!cJSON_IsString(item)) return param_wrong_type(f, path, "a string");
        if (strlen(item->string) > KEY_MAX || strlen(item->valuestring) > VALUE_MAX)
            return fault_set(f, FAULT_STRING_LONG, path, "'%s': a name may have %d bytes and its text %d.", path, KEY_MAX,
                             VALUE_MAX);
    }
    if (pairs > PAIRS_MAX)
        return fault_set(f, FAULT_RULE, row->name, "'metadata' may hold %d pairs, not %u.", PAIRS_MAX, pairs);
    p->metadata = value;
    return 0;
}

static int read_documents(request_params *p, const cJSON *value, const param_row *row, fault *f) {
    if (!cJSON_IsArray(value)) return param_wrong_type(f, row->name, "a list of objects");
    for (const cJSON *item = value->child; item; item = item->next)
        if (!cJSON_IsObject(item)) return param_wrong_type(f, row->name, "a list of objects");
    p->documents = value;
    return 0;
}

static int read_kv_transfer(request_params *p, const cJSON *value, const param_row *row, fault *f) {
    if (!cJSON_IsObject(value)) return param_wrong_type(f, row->name, "an object");
    p->kv_transfer = true;
    return 0;
}

/* What is not offered, where saying so changes nothing. */
static int read_never(request_params *p, const cJSON *value, const param_row *row, fault *f) {
    (void)p;
    if (!cJSON_IsBool(value)) return param_wrong_type(f, row->name, "true or false");
    if (cJSON_IsFalse(value)) return 0;
    return fault_set(f, FAULT_UNSUPPORTED, row->name, "'%s' is not supported: %s.", row->name, row->help);
}

/* What a template may be told by a request; anything else could change how the conversation itself is written. */
static int read_template_kwargs(request_params *p, const cJSON *value, const param_row *row, fault *f) {
    static const char *const allowed[] = {"enable_thinking",   "thinking",       "thinking_budget", "reasoning_effort",
                                          "preserve_thinking", "clear_thinking", "date_string",     "builtin_tools"};
    if (!cJSON_IsObject(value)) return param_wrong_type(f, row->name, "an object");
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

/* Written where something is wrong only: most messages are not. */
static const char *path_of(char path[64], int message, const char *member) {
    snprintf(path, 64, "messages[%d]%s", message, member);
    return path;
}

static int check_part(const cJSON *part, const char *path, fault *f) {
    const cJSON *type = json_get(part, "type");
    if (!cJSON_IsObject(part)) return param_wrong_type(f, path, "an object");
    if (!cJSON_IsString(type)) return fault_set(f, FAULT_MISSING, path, "'%s.type' is required.", path);
    if (strcmp(type->valuestring, "text") != 0)
        return fault_set(f, FAULT_UNSUPPORTED, path, "'%s' has type '%.40s': this model reads text only.", path,
                         type->valuestring);
    return fault_set(f, FAULT_MISSING, path, "'%s.text' must be a string.", path);
}

static int check_parts(const cJSON *parts, int message, fault *f) {
    int index = 0;
    for (const cJSON *part = parts->child; part; part = part->next, index++) {
        const cJSON *type = json_get(part, "type"), *text = json_get(part, "text");
        char         path[64];
        if (cJSON_IsString(type) && strcmp(type->valuestring, "text") == 0 && cJSON_IsString(text)) continue;
        snprintf(path, sizeof path, "messages[%d].content[%d]", message, index);
        return check_part(part, path, f);
    }
    return 0;
}

static int check_role(const cJSON *role, int index, fault *f) {
    static const char *const roles[] = {"user", "assistant", "system", "tool", "developer", "function"};
    char                     path[64];
    for (size_t i = 0; cJSON_IsString(role) && i < sizeof roles / sizeof *roles; i++)
        if (strcmp(role->valuestring, roles[i]) == 0) return 0;
    path_of(path, index, ".role");
    if (!role) return fault_set(f, FAULT_MISSING, path, "'%s' is required.", path);
    if (!cJSON_IsString(role)) return param_wrong_type(f, path, "a string");
    return fault_set(f, FAULT_INVALID, path,
                     "'%s' must be one of system, developer, user, assistant, tool and function, not '%.40s'.", path,
                     role->valuestring);
}

static int check_message(const cJSON *message, int index, fault *f) {
    char path[64];
    if (!cJSON_IsObject(message)) return param_wrong_type(f, path_of(path, index, ""), "an object");
    const cJSON *role = json_get(message, "role"), *content = json_get(message, "content"),
                *calls = json_get(message, "tool_calls");
    if (check_role(role, index, f) < 0) return -1;
    if (calls && !cJSON_IsArray(calls) && !cJSON_IsNull(calls))
        return param_wrong_type(f, path_of(path, index, ".tool_calls"), "a list");
    if (cJSON_IsString(content)) return 0;
    if (cJSON_IsArray(content)) return check_parts(content, index, f);
    bool nothing = !content || cJSON_IsNull(content);
    if (nothing && strcmp(role->valuestring, "assistant") == 0) return 0;
    path_of(path, index, ".content");
    if (!content) return fault_set(f, FAULT_MISSING, path, "'%s' is required.", path);
    return param_wrong_type(f, path, "a string or a list of parts");
}

static int read_messages(request_params *p, const cJSON *value, const param_row *row, fault *f) {
    int index = 0;
    if (!cJSON_IsArray(value)) return param_wrong_type(f, row->name, "a list of messages");
    if (!value->child) return fault_set(f, FAULT_ARRAY_SHORT, row->name, "'messages' must hold at least one message.");
    for (const cJSON *item = value->child; item; item = item->next)
        if (check_message(item, index++, f) < 0) return -1;
    p->messages = value;
    return 0;
}

/* ---- prompts: a string, a list of strings, token ids, or lists of token ids ---- */
static int check_ids(const cJSON *list, const char *param, fault *f) {
    for (const cJSON *item = list->child; item; item = item->next)
        if (param_check_whole(item, 0, UINT32_MAX, param, f) < 0) return -1;
    return 0;
}

static int read_prompt(request_params *p, const cJSON *value, const param_row *row, fault *f) {
    static const char wanted[] = "a string, a list of strings, a list of token ids, or a list of lists of token ids";
    p->prompt = value;
    if (cJSON_IsString(value)) return 0;
    if (!cJSON_IsArray(value)) return param_wrong_type(f, row->name, wanted);
    const cJSON *first = value->child;
    if (!first) return fault_set(f, FAULT_ARRAY_SHORT, row->name, "'prompt' must not be an empty list.");
    if (cJSON_IsNumber(first)) return check_ids(value, row->name, f);
    if (check_length(value, CHOICES_LIMIT, row->name, f) < 0) return -1;
    for (const cJSON *item = first; item; item = item->next) {
        if (cJSON_IsString(first) ? !cJSON_IsString(item) : !cJSON_IsArray(item))
            return param_wrong_type(f, row->name, wanted);
        if (cJSON_IsArray(item) && check_ids(item, row->name, f) < 0) return -1;
    }
    return 0;
}

static int read_text(request_params *p, const cJSON *value, const param_row *row, fault *f) {
    p->prompt = value;
    return cJSON_IsString(value) ? 0 : param_wrong_type(f, row->name, "a string");
}

static int read_tokens(request_params *p, const cJSON *value, const param_row *row, fault *f) {
    p->tokens = value;
    if (!cJSON_IsArray(value)) return param_wrong_type(f, row->name, "a list of token ids");
    return check_ids(value, row->name, f);
}

/* ---- the shapes ---- */
#define TOKEN_ID "{\"type\":\"integer\",\"minimum\":0,\"maximum\":4294967295}"
#define TOKEN_IDS(least) "{\"type\":\"array\",\"minItems\":" least ",\"items\":" TOKEN_ID "}"
#define MS "{\"type\":[\"number\",\"null\"],\"minimum\":0.001,\"maximum\":86400000}"
#define FLAG "{\"type\":[\"boolean\",\"null\"]}"
_Static_assert(SLO_MS_MAX == 86400000 && STOPS_MAX == 16 && STOP_IDS_MAX == 16 && LOGIT_BIAS_MAX == 1024 &&
                   STOP_BYTES_MAX == 1024 && CHOICES_LIMIT == 128,
               "the schemas below say so too");

const param_shape shape_stop = {
    read_stop, "{\"anyOf\":[{\"type\":\"string\",\"minLength\":1,\"maxLength\":1024},"
               "{\"type\":\"array\",\"maxItems\":16,\"items\":{\"type\":\"string\",\"minLength\":1,\"maxLength\":1024}}]}"};
const param_shape shape_stop_ids = {read_stop_ids, "{\"type\":\"array\",\"maxItems\":16,\"items\":" TOKEN_ID "}"};
const param_shape shape_bias = {read_bias,
                                "{\"type\":\"object\",\"maxProperties\":1024,\"propertyNames\":{\"pattern\":\"^[0-9]+$\"},"
                                "\"additionalProperties\":{\"type\":\"number\",\"minimum\":-100,\"maximum\":100}}"};
const param_shape shape_seed = {read_seed,
                                "{\"type\":\"integer\",\"minimum\":-9223372036854775808,\"maximum\":9223372036854775807}"};
const param_shape shape_stream_options = {read_stream_options,
                                          "{\"type\":\"object\",\"properties\":{\"include_usage\":" FLAG
                                          ",\"continuous_usage_stats\":" FLAG ",\"include_obfuscation\":" FLAG "}}"};
const param_shape shape_empty_list = {read_empty_list, "{\"type\":\"array\",\"maxItems\":0}"};
const param_shape shape_tool_choice = {read_tool_choice, "{\"enum\":[\"none\",\"auto\"]}"};
const param_shape shape_response_format = {
    read_response_format, "{\"type\":\"object\",\"required\":[\"type\"],\"properties\":{\"type\":{\"const\":\"text\"}}}"};
const param_shape shape_modalities = {read_modalities, "{\"type\":\"array\",\"items\":{\"const\":\"text\"}}"};
const param_shape shape_service_tier = {read_service_tier,
                                        "{\"enum\":[\"auto\",\"default\",\"flex\",\"scale\",\"priority\"]}"};
const param_shape shape_retention = {read_retention, "{\"enum\":[\"in_memory\",\"in-memory\",\"24h\"]}"};
const param_shape shape_truncation_side = {read_truncation_side, "{\"enum\":[\"left\",\"right\"]}"};
const param_shape shape_slo = {read_slo,
                               "{\"type\":\"object\",\"additionalProperties\":false,\"properties\":{\"ttft_ms\":" MS
                               ",\"tbt_ms\":" MS ",\"deadline_ms\":" MS ",\"job_deadline_ms\":" MS
                               ",\"value\":{\"type\":[\"number\",\"null\"],\"minimum\":0.001,\"maximum\":1000000}}}"};
const param_shape shape_metadata = {read_metadata,
                                    "{\"type\":\"object\",\"maxProperties\":16,\"propertyNames\":{\"maxLength\":64},"
                                    "\"additionalProperties\":{\"type\":\"string\",\"maxLength\":512}}"};
const param_shape shape_documents = {read_documents, "{\"type\":\"array\",\"items\":{\"type\":\"object\"}}"};
const param_shape shape_kv_transfer = {read_kv_transfer, "{\"type\":\"object\"}"};
const param_shape shape_never = {read_never, "{\"const\":false}"};
const param_shape shape_template_kwargs = {
    read_template_kwargs,
    "{\"type\":\"object\",\"propertyNames\":{\"enum\":[\"enable_thinking\",\"thinking\",\"thinking_budget\","
    "\"reasoning_effort\",\"preserve_thinking\",\"clear_thinking\",\"date_string\",\"builtin_tools\"]}}"};
const param_shape shape_messages = {
    read_messages,
    "{\"type\":\"array\",\"minItems\":1,\"items\":{\"type\":\"object\",\"required\":[\"role\"],\"properties\":{"
    "\"role\":{\"enum\":[\"system\",\"developer\",\"user\",\"assistant\",\"tool\",\"function\"]},"
    "\"content\":{\"anyOf\":[{\"type\":\"string\"},{\"type\":\"null\"},{\"type\":\"array\",\"items\":{\"type\":\"object\","
    "\"required\":[\"type\",\"text\"],\"properties\":{\"type\":{\"const\":\"text\"},\"text\":{\"type\":\"string\"}}}}]},"
    "\"tool_calls\":{\"type\":[\"array\",\"null\"]}},"
    "\"if\":{\"properties\":{\"role\":{\"const\":\"assistant\"}}},"
    "\"else\":{\"required\":[\"content\"],\"properties\":{\"content\":{\"type\":[\"string\",\"array\"]}}}}}"};
const param_shape shape_prompt = {
    read_prompt, "{\"anyOf\":[{\"type\":\"string\"},"
                 "{\"type\":\"array\",\"minItems\":1,\"maxItems\":128,\"items\":{\"type\":\"string\"}}," TOKEN_IDS(
                     "1") ","
                          "{\"type\":\"array\",\"minItems\":1,\"maxItems\":128,\"items\":" TOKEN_IDS("0") "}]}"};
const param_shape shape_text = {read_text, "{\"type\":\"string\"}"};
const param_shape shape_tokens = {read_tokens, TOKEN_IDS("0")};
