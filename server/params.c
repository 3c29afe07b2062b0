#include "server/params_shapes.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    CHAT = ENDPOINT_CHAT,
    TEXT = ENDPOINT_COMPLETION,
    GENERATE = CHAT | TEXT,
    ENCODE = ENDPOINT_TOKENIZE,
    DECODE = ENDPOINT_DETOKENIZE,
    EVERY = GENERATE | ENCODE | DECODE
};

/* ---- the table, in order of name ---- */
#define AT(member) offsetof(request_params, member)
#define FREE(name, endpoints, help)                                                                                         \
    { name, endpoints, 0, PARAM_IGNORED, 0, 0, 0, 0, NULL, help }
#define REFUSED(name, endpoints, why)                                                                                       \
    { name, endpoints, 0, PARAM_REFUSED, 0, 0, 0, 0, NULL, why }
#define TOOLS_LATER "use 'tools', which a later version will support"
#define FORMAT_LATER "structured output comes in a later version"

const param_row param_rows[] = {
    {"add_generation_prompt", CHAT | ENCODE, 0, PARAM_BOOL, 0, 1, 1, AT(generation_prompt), NULL,
     "end the rendered prompt where the assistant begins"},
    {"add_special_tokens", TEXT | ENCODE, 0, PARAM_BOOL, 0, 1, 1, AT(add_special), NULL,
     "add what the tokenizer puts around a text, such as BOS"},
    REFUSED("allowed_token_ids", GENERATE, "use 'logit_bias'"),
    REFUSED("audio", CHAT, "this model has no audio"),
    REFUSED("bad_words", GENERATE, "use 'logit_bias'"),
    {"best_of", TEXT, 0, PARAM_INT, 0, 20, -1, AT(best_of), NULL,
     "draw so many answers and return the n likeliest; not with stream; 0: n"},
    {"cache_salt", GENERATE, 0, PARAM_STRING, 1, 256, 0, AT(cache_salt), NULL,
     "prefixes are shared only among equal salts of one tenant"},
    REFUSED("chat_template", CHAT | ENCODE, "templates come with the model, never with a request"),
    {"chat_template_kwargs", CHAT | ENCODE, 0, PARAM_OTHER, 0, 0, 0, 0, &shape_template_kwargs,
     "variables for the template: enable_thinking, thinking, thinking_budget, reasoning_effort, preserve_thinking, "
     "clear_thinking, date_string, builtin_tools"},
    {"continue_final_message", CHAT | ENCODE, 0, PARAM_OTHER, 0, 0, 0, 0, &shape_never,
     "the rendered prompt ends where the assistant begins"},
    {"documents", CHAT | ENCODE, 0, PARAM_OTHER, 0, 0, 0, 0, &shape_documents, "told to the template"},
    REFUSED("ebnf", GENERATE, FORMAT_LATER),
    {"echo", TEXT, 0, PARAM_BOOL, 0, 1, 0, AT(echo), NULL, "put the prompt in front of the answer"},
    {"expected_gap_ms", GENERATE, 0, PARAM_NUMBER, 0, DAY_MS, -1, AT(expected_gap_ms), NULL,
     "when the conversation's next turn is expected, after this answer"},
    {"frequency_penalty", GENERATE, 0, PARAM_NUMBER, -2, 2, 0, AT(frequency_penalty), NULL,
     "per earlier occurrence of a token in the answer"},
    REFUSED("function_call", CHAT, TOOLS_LATER),
    REFUSED("functions", CHAT, TOOLS_LATER),
    REFUSED("grammar", GENERATE, FORMAT_LATER),
    REFUSED("guided_choice", GENERATE, FORMAT_LATER),
    REFUSED("guided_grammar", GENERATE, FORMAT_LATER),
    REFUSED("guided_json", GENERATE, FORMAT_LATER),
    REFUSED("guided_regex", GENERATE, FORMAT_LATER),
    {"ignore_eos", GENERATE, 0, PARAM_BOOL, 0, 1, 0, AT(ignore_eos), NULL, "go on past the end-of-sequence token"},
    {"include_reasoning", CHAT, 0, PARAM_BOOL, 0, 1, 1, AT(include_reasoning), NULL,
     "return what the model thought before it answered, where it does"},
    {"include_stop_str_in_output", GENERATE, 0, PARAM_BOOL, 0, 1, 0, AT(include_stop), NULL,
     "keep the stop string in the text"},
    {"job_id", GENERATE, 0, PARAM_STRING, 0, 1024, 0, AT(job), NULL, "session_id by another name"},
    REFUSED("json_schema", GENERATE, FORMAT_LATER),
    {"kv_transfer_params", GENERATE, 0, PARAM_OTHER, 0, 0, 0, 0, &shape_kv_transfer,
     "kept for disaggregated prefill: nothing is transferred, and the answer's member of this name is null"},
    {"last_step", GENERATE, 0, PARAM_BOOL, 0, 1, 0, AT(last_step), NULL, "no turn of the conversation follows"},
    {"logit_bias", GENERATE, 0, PARAM_OTHER, -100, 100, 0, 0, &shape_bias,
     "up to 1024 token ids, each with a number from -100 to 100 that is added to its logit"},
    {"logprobs", CHAT, 0, PARAM_BOOL, 0, 1, 0, AT(logprobs), NULL, "return log-probabilities of the tokens"},
    {"logprobs", TEXT, 0, PARAM_INT, 0, 5, -1, AT(legacy_logprobs), NULL,
     "return log-probabilities, with so many alternatives; with echo of the prompt as well"},
    {"max_completion_tokens", CHAT, 0, PARAM_INT, 1, 1 << 30, -1, AT(max_completion_tokens), NULL,
     "the most tokens of an answer; wins over max_tokens"},
    {"max_tokens", CHAT, 0, PARAM_INT, 1, 1 << 30, -1, AT(max_tokens), NULL,
     "the most tokens of an answer; default: what the context leaves"},
    {"max_tokens", TEXT, 0, PARAM_INT, 0, 1 << 30, -1, AT(max_tokens), NULL,
     "the most tokens of an answer; default 16; 0 only with echo"},
    {"messages", CHAT | ENCODE, CHAT, PARAM_OTHER, 0, 0, 0, 0, &shape_messages, "the conversation"},
    {"metadata", GENERATE, 0, PARAM_OTHER, 0, 0, 0, 0, &shape_metadata,
     "up to 16 names (64 bytes) with texts (512 bytes) for the request's line in the log"},
    {"min_p", GENERATE, 0, PARAM_NUMBER, 0, 1, -1, AT(min_p), NULL,
     "tokens less likely than this share of the likeliest are cut"},
    {"min_tokens", GENERATE, 0, PARAM_INT, 0, 1 << 30, 0, AT(min_tokens), NULL, "no end before so many tokens"},
    {"modalities", CHAT, 0, PARAM_OTHER, 0, 0, 0, 0, &shape_modalities, "[\"text\"]; others are refused"},
    {"model", EVERY, 0, PARAM_STRING, 0, 4096, 0, AT(model), NULL, "the served model's name; may be left out"},
    FREE("moderation", CHAT, "accepted"),
    {"n", GENERATE, 0, PARAM_INT, 1, CHOICES_LIMIT, 1, AT(n), NULL,
     "answers per prompt; all of a request's together at most choices-max"},
    {"parallel_tool_calls", CHAT, 0, PARAM_BOOL, 0, 1, 1, AT(parallel_tool_calls), NULL, "without tools, nothing to do"},
    FREE("prediction", CHAT, "accepted"),
    {"presence_penalty", GENERATE, 0, PARAM_NUMBER, -2, 2, 0, AT(presence_penalty), NULL,
     "once for a token that occurred in the answer"},
    {"priority", GENERATE, 0, PARAM_INT, -1000000, 1000000, 0, AT(priority), NULL,
     "lower goes first; wins over service_tier where it is not 0"},
    {"prompt", TEXT, TEXT, PARAM_OTHER, 0, 0, 0, 0, &shape_prompt, "a string, token ids, or a list of up to 128 of either"},
    {"prompt", ENCODE, 0, PARAM_OTHER, 0, 0, 0, 0, &shape_text, "the text; this or messages"},
    {"prompt_cache_key", GENERATE, 0, PARAM_STRING, 0, 1024, 0, AT(cache_key), NULL,
     "stands for the conversation where session_id does not"},
    FREE("prompt_cache_options", GENERATE, "accepted"),
    {"prompt_cache_retention", GENERATE, 0, PARAM_OTHER, 0, 0, 0, 0, &shape_retention,
     "in_memory, or 24h: as ttl_ms of a day, where that is not given"},
    {"prompt_logprobs", GENERATE, 0, PARAM_INT, 0, TOP_LOGPROBS_MAX, -1, AT(prompt_logprobs), NULL,
     "return how likely each token of the prompt was, with so many alternatives; not with stream"},
    {"reasoning_effort", CHAT, 0, PARAM_STRING, 1, 32, 0, AT(reasoning_effort), NULL,
     "told to the template; none turns thinking off"},
    REFUSED("regex", GENERATE, FORMAT_LATER),
    {"repetition_penalty", GENERATE, 0, PARAM_NUMBER, 0.01, 10, -1, AT(repetition_penalty), NULL,
     "divides the logits of tokens that occurred; 1 is off"},
    {"request_id", GENERATE, 0, PARAM_STRING, 1, 128, 0, AT(request_id), NULL,
     "names the request in answers and logs where the header X-Request-Id does not"},
    {"response_format", GENERATE, 0, PARAM_OTHER, 0, 0, 0, 0, &shape_response_format,
     "{\"type\": \"text\"}; others are refused"},
    {"return_timings", GENERATE, 0, PARAM_BOOL, 0, 1, 0, AT(return_timings), NULL,
     "say in the answer where the time went; a stream says it in its last event"},
    {"return_token_ids", GENERATE, 0, PARAM_BOOL, 0, 1, 0, AT(return_token_ids), NULL,
     "return the ids of prompt and answer"},
    {"return_token_strs", ENCODE, 0, PARAM_BOOL, 0, 1, 0, AT(token_strings), NULL, "return each token's text as well"},
    {"rid", GENERATE, 0, PARAM_STRING, 1, 128, 0, AT(request_id), NULL, "request_id by another name"},
    {"safety_identifier", GENERATE, 0, PARAM_STRING, 0, 1024, 0, AT(safety_identifier), NULL,
     "whose request it is where user does not say"},
    {"seed", GENERATE, 0, PARAM_OTHER, -0x1p63, 0x1p63, 0, 0, &shape_seed,
     "a whole number of 64 bits: the same seed gives the same answer, whoever else is served"},
    {"service_tier", GENERATE, 0, PARAM_OTHER, 0, 0, 0, 0, &shape_service_tier,
     "priority goes first (as priority -100), flex last (100); auto, default and scale are 0; the answer says which was "
     "served"},
    {"session_id", GENERATE, 0, PARAM_STRING, 0, 1024, 0, AT(session), NULL,
     "stands for the conversation; the header X-Session-Id wins"},
    {"skip_special_tokens", GENERATE, 0, PARAM_BOOL, 0, 1, 1, AT(skip_special), NULL,
     "leave special tokens out of the text"},
    {"slo", GENERATE, 0, PARAM_OTHER, 0, 0, 0, 0, &shape_slo,
     "what is wanted of time: ttft_ms, tbt_ms, deadline_ms, of the whole job (which job_id names) from its first request "
     "job_deadline_ms (up to a day each), and value, what keeping it is worth"},
    FREE("spaces_between_special_tokens", GENERATE, "accepted"),
    {"stop", GENERATE, 0, PARAM_OTHER, 0, 0, 0, 0, &shape_stop,
     "a string of up to 1024 bytes, or up to 16 of them; the text ends before the first found"},
    {"stop_token_ids", GENERATE, 0, PARAM_OTHER, 0, 0, 0, 0, &shape_stop_ids, "up to 16 token ids that end the answer"},
    {"store", GENERATE, 0, PARAM_BOOL, 0, 1, 0, AT(store), NULL, "accepted; nothing is stored"},
    {"stream", GENERATE, 0, PARAM_BOOL, 0, 1, 0, AT(stream), NULL, "send the answer as server-sent events"},
    {"stream_options", GENERATE, 0, PARAM_OTHER, 0, 0, 0, 0, &shape_stream_options,
     "include_usage: one more event at the end; continuous_usage_stats: with every event; only with stream"},
    REFUSED("structured_outputs", GENERATE, FORMAT_LATER),
    REFUSED("suffix", TEXT, "text is only ever continued, not filled in"),
    {"temperature", GENERATE, 0, PARAM_NUMBER, 0, 2, -1, AT(temperature), NULL,
     "0 takes the likeliest token; default: the model's, else 1"},
    REFUSED("thinking_token_budget", CHAT, "put 'thinking_budget' into chat_template_kwargs where the template knows it"),
    {"tokens", DECODE, DECODE, PARAM_OTHER, 0, 0, 0, 0, &shape_tokens, "token ids"},
    {"tool", GENERATE, 0, PARAM_STRING, 0, 256, 0, AT(tool), NULL,
     "what runs between this turn and the next, for the expectation of when that comes"},
    {"tool_choice", CHAT, 0, PARAM_OTHER, 0, 0, 0, 0, &shape_tool_choice, "none or auto; others are refused"},
    {"tools", CHAT | ENCODE, 0, PARAM_OTHER, 0, 0, 0, 0, &shape_empty_list, "must be empty: tools come in a later version"},
    {"top_k", GENERATE, 0, PARAM_INT, -1, 0x7FFFFFFF, -2, AT(top_k), NULL, "only the k likeliest tokens; -1 and 0: all"},
    {"top_logprobs", CHAT, 0, PARAM_INT, 0, TOP_LOGPROBS_MAX, -1, AT(top_logprobs), NULL,
     "alternatives per token; only with logprobs"},
    {"top_p", GENERATE, 0, PARAM_NUMBER, 0, 1, -1, AT(top_p), NULL, "the likeliest tokens up to this share"},
    {"truncate_prompt_tokens", GENERATE, 0, PARAM_INT, -1, 1 << 30, -2, AT(truncate_prompt), NULL,
     "keep so many tokens of a longer prompt; -1: what the context and the answer leave; not 0"},
    {"truncation_side", GENERATE, 0, PARAM_OTHER, 0, 0, 0, 0, &shape_truncation_side,
     "left (the default) or right: where truncate_prompt_tokens cuts"},
    {"ttl_ms", GENERATE, 0, PARAM_NUMBER, 0, DAY_MS, -1, AT(ttl_ms), NULL,
     "how long to keep what this turn leaves in the prefix cache, where the retention policy looks at it"},
    {"use_beam_search", GENERATE, 0, PARAM_OTHER, 0, 0, 0, 0, &shape_never, "tokens are drawn"},
    {"user", GENERATE, 0, PARAM_STRING, 0, 1024, 0, AT(user), NULL, "whose request it is, for fairness"},
    FREE("verbosity", CHAT, "accepted"),
    REFUSED("web_search_options", CHAT, "this server searches nothing"),
};
enum { ROW_COUNT = sizeof param_rows / sizeof *param_rows };
const uint32_t param_row_count = ROW_COUNT;

/* ---- one row at a time ---- */
static void *field(request_params *p, const param_row *row) { return (char *)p + row->offset; }

static int read_int(request_params *p, const cJSON *value, const param_row *row, fault *f) {
    if (param_check_whole(value, row->min, row->max, row->name, f) < 0) return -1;
    *(int64_t *)field(p, row) = (int64_t)value->valuedouble;
    return 0;
}

static int read_number(request_params *p, const cJSON *value, const param_row *row, fault *f) {
    if (param_check_number(value, row->min, row->max, row->name, f) < 0) return -1;
    *(double *)field(p, row) = value->valuedouble;
    return 0;
}

static int read_bool(request_params *p, const cJSON *value, const param_row *row, fault *f) {
    if (!cJSON_IsBool(value)) return param_wrong_type(f, row->name, "true or false");
    *(bool *)field(p, row) = cJSON_IsTrue(value);
    return 0;
}

static int read_string(request_params *p, const cJSON *value, const param_row *row, fault *f) {
    if (!cJSON_IsString(value)) return param_wrong_type(f, row->name, "a string");
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
    *p = (request_params){.n = 1, .slo = {-1, -1, -1, -1, -1}};
    for (uint32_t i = 0; i < ROW_COUNT; i++) {
        const param_row *row = &param_rows[i];
        void            *at = field(p, row);
        if (row->kind == PARAM_BOOL) *(bool *)at = row->fallback != 0;
        if (row->kind == PARAM_INT) *(int64_t *)at = (int64_t)row->fallback;
        if (row->kind == PARAM_NUMBER) *(double *)at = row->fallback;
    }
}

/* As strcmp, which is asked where the first letter does not say it. */
static int compare(const char *a, const char *b) { return *a != *b ? (unsigned char)*a - (unsigned char)*b : strcmp(a, b); }

/* Index of the row, or -1. Names are in order; two endpoints may read one name differently, in neighbouring rows. */
static int find_row(const char *name, endpoint e) {
    uint32_t low = 0, high = ROW_COUNT;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (compare(param_rows[middle].name, name) < 0) low = middle + 1;
        else high = middle;
    }
    for (; low < ROW_COUNT && strcmp(param_rows[low].name, name) == 0; low++)
        if (param_rows[low].endpoints & e) return (int)low;
    return -1;
}

/* ---- rules that need two parameters ---- */
static int check_rules(const request_params *p, endpoint e, fault *f) {
    if (p->has_stream_options && !p->stream)
        return fault_set(f, FAULT_RULE, "stream_options", "'stream_options' is only allowed when 'stream' is true.");
    if (p->top_logprobs >= 0 && !p->logprobs)
        return fault_set(f, FAULT_RULE, "top_logprobs", "'top_logprobs' is only allowed when 'logprobs' is true.");
    if (p->best_of > 0 && p->best_of < p->n)
        return fault_set(f, FAULT_RULE, "best_of", "'best_of' (%" PRId64 ") must not be less than 'n' (%" PRId64 ").",
                         p->best_of, p->n);
    if (p->best_of > p->n && p->stream)
        return fault_set(f, FAULT_RULE, "best_of", "'best_of' greater than 'n' cannot be streamed.");
    if (p->max_tokens == 0 && !p->echo)
        return fault_set(f, FAULT_INT_BELOW, "max_tokens", "'max_tokens' must be at least 1 unless 'echo' is true.");
    if (p->prompt_logprobs >= 0 && p->stream)
        return fault_set(f, FAULT_RULE, "prompt_logprobs", "'prompt_logprobs' cannot be streamed.");
    if (p->truncate_prompt == 0)
        return fault_set(f, FAULT_INT_BELOW, "truncate_prompt_tokens",
                         "'truncate_prompt_tokens' must be at least 1, or -1, not 0.");
    if (e == ENDPOINT_TOKENIZE && !p->prompt == !p->messages)
        return fault_set(f, FAULT_MISSING, "prompt", "exactly one of 'prompt' and 'messages' is required.");
    return 0;
}

static int check_required(uint64_t *seen, endpoint e, fault *f) {
    for (uint32_t i = 0; i < ROW_COUNT; i++)
        if ((param_rows[i].required & e) && !(seen[i / 64] >> i % 64 & 1))
            return fault_set(f, FAULT_MISSING, param_rows[i].name, "'%s' is required.", param_rows[i].name);
    return 0;
}

/* The names, for one line of log. */
static void note_unknown(request_params *p, const char *name) {
    size_t n = strlen(p->unknown_names);
    if (p->unknown_count++ < UNKNOWN_NAMED_MAX)
        snprintf(p->unknown_names + n, sizeof p->unknown_names - n, "%s'%.40s'", n ? ", " : "", name);
}

int params_read(request_params *p, const cJSON *body, endpoint e, bool strict, fault *f) {
    uint64_t seen[(ROW_COUNT + 63) / 64] = {0};
    set_defaults(p);
    for (const cJSON *item = body->child; item; item = item->next) {
        int index = find_row(item->string, e);
        if (index < 0 && strict)
            return fault_set(f, FAULT_UNKNOWN, item->string, "Unknown parameter: '%.40s'.", item->string);
        if (index < 0) {
            note_unknown(p, item->string);
            continue;
        }
        if (cJSON_IsNull(item)) continue; /* null is the same as leaving it out */
        seen[index / 64] |= 1ull << index % 64;
        const param_row *row = &param_rows[index];
        param_reader     reader = row->shape ? row->shape->read : readers[row->kind];
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

static int by_name(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

static const char *name_twice_of_many(const cJSON *object, size_t count) {
    const char  *twice = NULL;
    const char **names = malloc(count * sizeof *names);
    size_t       n = 0;
    if (!names) fatal("out of memory for %zu names", count);
    for (const cJSON *item = object->child; item; item = item->next) names[n++] = item->string;
    qsort(names, n, sizeof *names, by_name);
    for (size_t i = 1; i < n && !twice; i++)
        if (strcmp(names[i - 1], names[i]) == 0) twice = names[i];
    free(names);
    return twice;
}

/* The first name that an object holds twice, or NULL. Which of the two counts is a question readers of JSON answer
 * differently, so nobody should have to. */
static const char *name_twice(const cJSON *object) {
    enum { FEW = 16 };
    size_t count = 0;
    for (const cJSON *item = object->child; item; item = item->next) {
        if (++count > FEW) continue;
        for (const cJSON *other = object->child; other != item; other = other->next)
            if (other->string[0] == item->string[0] && strcmp(other->string, item->string) == 0) return item->string;
    }
    return count > FEW ? name_twice_of_many(object, count) : NULL;
}

static const char *name_twice_within(const cJSON *value) {
    const char *twice = cJSON_IsObject(value) ? name_twice(value) : NULL;
    for (const cJSON *item = value->child; item && !twice; item = item->next)
        if (item->child) twice = name_twice_within(item); /* as deep as BODY_DEPTH_MAX */
    return twice;
}

cJSON *params_parse_body(const char *text, size_t n, fault *f) {
    error       err;
    const char *twice;
    if (n == 0) return fault_set(f, FAULT_BODY, NULL, "The body is empty; a JSON object is expected."), NULL;
    if (too_many_values(text, n))
        return fault_set(f, FAULT_BODY, NULL, "The body holds more than %d values.", BODY_VALUES_MAX), NULL;
    cJSON *body = json_parse(text, n, BODY_DEPTH_MAX, &err);
    if (!body) return fault_set(f, FAULT_BODY, NULL, "The body cannot be read: %.400s.", err.text), NULL;
    if (!cJSON_IsObject(body)) fault_set(f, FAULT_BODY, NULL, "The body must be a JSON object.");
    else if ((twice = name_twice_within(body))) fault_set(f, FAULT_BODY, NULL, "'%.40s' is given twice.", twice);
    else return body;
    cJSON_Delete(body);
    return NULL;
}
