/* JSON lines: Mooncake's (also the generic one), WEKA's sessions, TraceLab's rounds. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/json.h"
#include "bench/trace_read.h"

enum { DEPTH_MAX = 16 };
#define SECONDS_MAX ((double)TRACE_TIME_MAX_US * 1e-6)

static cJSON *parse_object(const char *line, size_t n, error *err) {
    cJSON *o = json_parse(line, n, DEPTH_MAX, err);
    if (!o || cJSON_IsObject(o)) return o;
    error_set(err, ERR_INVALID, "the line is JSON, but not an object");
    return cJSON_Delete(o), NULL;
}

/* Reads object[name] times scale into *us; tells whether it was there. */
static int read_time(const cJSON *object, const char *name, double scale_us, double *us, bool *has, error *err) {
    double value = NAN;
    int    code = json_read_f64(object, name, -SECONDS_MAX * 1e6, SECONDS_MAX * 1e6, &value, err);
    if (code == OK && !isnan(value)) *us = value * scale_us, *has = true;
    return code;
}

static int read_lengths(const cJSON *o, const char *prompt, const char *output, trace_row *row, error *err) {
    row->prompt_tokens = row->output_tokens = -1;
    int code = json_read_f64(o, prompt, 0, TRACE_TOKENS_MAX, &row->prompt_tokens, err);
    if (code == OK) code = json_read_f64(o, output, 0, TRACE_TOKENS_MAX, &row->output_tokens, err);
    if (code == OK && (row->prompt_tokens < 0 || row->output_tokens < 0))
        code = error_set(err, ERR_INVALID, "'%s' is missing", row->prompt_tokens < 0 ? prompt : output);
    return code;
}

/* ---- Mooncake, and the generic trace ---- */

static int read_slo(const cJSON *o, slo *out, error *err) {
    const cJSON *limits = json_get(o, "slo");
    if (!limits || cJSON_IsNull(limits)) return OK;
    if (!cJSON_IsObject(limits)) return error_set(err, ERR_INVALID, "'slo' must be an object");
    const struct {
        const char *name;
        double     *to;
    } members[] = {{"ttft_ms", &out->ttft_ms}, {"tpot_ms", &out->tpot_ms},    {"tbt_ms", &out->tbt_ms},
                   {"e2e_ms", &out->e2e_ms},   {"deadline_ms", &out->e2e_ms}, {"job_deadline_ms", &out->job_ms},
                   {"value", &out->value}};
    int code = OK;
    for (size_t i = 0; i < sizeof members / sizeof *members && code == OK; i++)
        code = json_read_f64(limits, members[i].name, 0, 1e12, members[i].to, err);
    return code;
}

/* A job's name may be a string or a number. */
static uint32_t read_session(trace_reader *r, const cJSON *o) {
    const cJSON *id = json_get(o, "job_id");
    char         number[32];
    if (!id) id = json_get(o, "session_id");
    if (cJSON_IsString(id)) return trace_session_named(r, id->valuestring, strlen(id->valuestring));
    if (!cJSON_IsNumber(id)) return trace_session_new(r);
    int n = snprintf(number, sizeof number, "%.17g", id->valuedouble);
    return trace_session_named(r, number, (size_t)n);
}

static int read_generic(trace_reader *r, const cJSON *o, uint64_t **ids, error *err) {
    trace_row row = {.shared_tokens = SHARED_UNKNOWN};
    int       code = read_lengths(o, "input_length", "output_length", &row, err);
    if (code == OK) code = read_time(o, "timestamp", 1e3, &row.at_us, &row.has_at, err);
    if (code == OK) code = read_time(o, "delay", 1e3, &row.gap_us, &row.has_gap, err);
    if (code == OK) code = read_time(o, "gap_s", 1e6, &row.gap_after_us, &row.has_gap_after, err);
    if (code == OK) code = json_read_string(o, "tenant", &row.tenant, err);
    if (code == OK) code = json_read_string(o, "tool", &row.tool, err);
    if (code == OK) code = json_read_f64(o, "priority", -1000, 1000, &row.priority, err);
    if (code == OK) code = read_slo(o, &row.slo, err);
    if (code == OK) code = trace_read_ids(o, "hash_ids", ids, &row.block_count, err);
    row.blocks = *ids;
    if (code != OK) return code;
    row.session = read_session(r, o);
    return trace_add(r, &row, err);
}

int trace_line_jsonl(trace_reader *r, const char *line, size_t n, error *err) {
    uint64_t *ids = NULL;
    cJSON    *o = parse_object(line, n, err);
    if (!o) return ERR_INVALID;
    int code = read_generic(r, o, &ids, err);
    cJSON_Delete(o), free(ids);
    return code;
}

/* ---- WEKA: a session a line, with its sub-agents inside ---- */

/* A session while its turns are read. Block ids in two generations: of this turn, and of the turn before. */
typedef struct {
    uint32_t  session;
    uint64_t *ids[2];
    size_t    count[2];
    uint32_t  before[2]; /* prompt and answer of the turn before, in tokens */
    double    ended_s;   /* when that turn was over */
    double    first_gap_us;
} weka_session;

static int add_weka_turn(trace_reader *r, weka_session *w, const cJSON *q, error *err) {
    const bool first = trace_session_turns(r, w->session) == 0;
    trace_row  row = {.session = w->session, .has_gap = true, .gap_us = w->first_gap_us};
    double     t_s = 0, api_s = 0;
    int        code = read_lengths(q, "in", "out", &row, err);
    if (code == OK && !first) code = read_time(q, "think_time", 1e6, &row.gap_us, &row.has_gap, err);
    if (code == OK) code = json_read_f64(q, "t", 0, SECONDS_MAX, &t_s, err);
    if (code == OK) code = json_read_f64(q, "api_time", 0, SECONDS_MAX, &api_s, err);
    if (code == OK) code = trace_read_ids(q, "hash_ids", &w->ids[0], &w->count[0], err);
    if (code != OK) return code;
    if (row.gap_us < 0) row.gap_us = 0;
    const size_t equal = first ? 0 : trace_blocks_equal(w->ids[0], w->count[0], w->ids[1], w->count[1]);
    if (!first)
        row.shared_tokens = trace_shared_by_blocks(equal, trace_session_at(r, w->session)->block_tokens, w->before,
                                                   (uint32_t)row.prompt_tokens);
    row.block_first = (uint32_t)equal, row.blocks = w->count[0] ? w->ids[0] + equal : NULL,
    row.block_count = w->count[0] - equal;
    w->before[0] = (uint32_t)row.prompt_tokens, w->before[1] = (uint32_t)row.output_tokens, w->ended_s = t_s + api_s;
    code = trace_add(r, &row, err);
    uint64_t *spare = w->ids[1];
    w->ids[1] = w->ids[0], w->count[1] = w->count[0], w->ids[0] = spare;
    return code;
}

/* What a session's prompts begin with is its tools and its system prompt: taken as equal where both are equally long. */
static int open_weka_session(trace_reader *r, const cJSON *o, const trace_session *like, weka_session *w, error *err) {
    const trace_session shape = *like; /* the next line may move it */
    uint32_t            tool = 0, system = 0;
    int                 code = json_read_u32(o, "tool_tokens", 0, TRACE_TOKENS_MAX / 2, &tool, err);
    if (code == OK) code = json_read_u32(o, "system_tokens", 0, TRACE_TOKENS_MAX / 2, &system, err);
    if (code != OK) return code;
    w->session = trace_session_new(r);
    trace_session *s = trace_session_at(r, w->session);
    s->scope = shape.scope, s->block_tokens = shape.block_tokens, s->common_tokens = tool + system;
    s->common_id = hash_u64((uint32_t[]){tool, system}, 2 * sizeof(uint32_t), 0);
    return OK;
}

static bool is_subagent(const cJSON *q) {
    const cJSON *type = json_get(q, "type");
    return cJSON_IsString(type) && strcmp(type->valuestring, "subagent") == 0;
}

static int add_weka_turns(trace_reader *r, weka_session *w, const cJSON *list, bool subagents, error *err);

/* A sub-agent's `t` is when it had reported back. It starts after the turn of its parent that is last by then. */
static int add_weka_subagent(trace_reader *r, const weka_session *parent, const cJSON *q, error *err) {
    double       t_s = 0, duration_ms = 0;
    weka_session w = {0};
    int          code = json_read_f64(q, "t", 0, SECONDS_MAX, &t_s, err);
    if (code == OK) code = json_read_f64(q, "duration_ms", 0, SECONDS_MAX * 1e3, &duration_ms, err);
    if (code == OK) code = open_weka_session(r, q, trace_session_at(r, parent->session), &w, err);
    if (code != OK) return code;
    if (trace_session_turns(r, parent->session)) {
        trace_session_after(r, w.session, parent->session);
        w.first_gap_us = fmax(0, t_s - duration_ms * 1e-3 - parent->ended_s) * 1e6;
    }
    return add_weka_turns(r, &w, json_get(q, "requests"), false, err);
}

static int add_weka_turns(trace_reader *r, weka_session *w, const cJSON *list, bool subagents, error *err) {
    const cJSON *q;
    int          code = OK;
    cJSON_ArrayForEach(q, list) {
        if (trace_full(r) || code != OK) break;
        if (!is_subagent(q)) code = add_weka_turn(r, w, q, err);
        else if (subagents) code = add_weka_subagent(r, w, q, err);
    }
    free(w->ids[0]), free(w->ids[1]);
    return code;
}

int trace_line_weka(trace_reader *r, const char *line, size_t n, error *err) {
    weka_session  w = {0};
    trace_session shape = {.scope = *(uint64_t *)trace_reader_memory(r, sizeof(uint64_t)), .block_tokens = 64};
    cJSON        *o = parse_object(line, n, err);
    if (!o) return ERR_INVALID;
    ++*(uint64_t *)trace_reader_memory(r, sizeof(uint64_t));
    int code = json_read_u32(o, "block_size", 1, 1 << 16, &shape.block_tokens, err);
    if (code == OK && !cJSON_IsArray(json_get(o, "requests")))
        code = error_set(err, ERR_INVALID, "'requests' must be a list");
    if (code == OK) code = open_weka_session(r, o, &shape, &w, err);
    if (code == OK) code = add_weka_turns(r, &w, json_get(o, "requests"), true, err);
    cJSON_Delete(o);
    return code;
}

/* ---- TraceLab's rounds: one model call a line, with the times of what came in, went out, and ran between ---- */

static bool read_event(const cJSON *event, double *us, bool *input) {
    const cJSON *type = json_get(event, "event_type"), *at = json_get(event, "timestamp");
    if (!cJSON_IsString(type) || !cJSON_IsString(at)) return false;
    *input = strcmp(type->valuestring, "user_message") == 0 || strcmp(type->valuestring, "tool_result") == 0;
    return trace_time_us(at->valuestring, strlen(at->valuestring), us);
}

/* When the round could begin (its last input is there) and when it was over; 0: not said. */
static void read_round_times(const cJSON *o, double *begin_us, double *end_us) {
    const cJSON *event;
    double       us;
    bool         input;
    cJSON_ArrayForEach(event, json_get(o, "timing_events")) {
        if (!read_event(event, &us, &input)) continue;
        if (input && us > *begin_us) *begin_us = us;
        if (us > *end_us) *end_us = us;
    }
}

static int read_round(trace_reader *r, const cJSON *o, trace_row *row, uint32_t *prefix, error *err) {
    const char *session = NULL;
    int         code = read_lengths(o, "input_tokens_total", "output_tokens", row, err);
    if (code == OK) code = json_read_u32(o, "prefix_tokens", 0, TRACE_TOKENS_MAX, prefix, err);
    if (code == OK) code = json_read_string(o, "session_id", &session, err);
    if (code == OK && !session) code = error_set(err, ERR_INVALID, "'session_id' is missing");
    if (code == OK) row->session = trace_session_named(r, session, strlen(session));
    return code;
}

int trace_line_rounds(trace_reader *r, const char *line, size_t n, error *err) {
    trace_row row = {0};
    uint32_t  prefix = 0;
    double    begin_us = 0, end_us = 0;
    cJSON    *o = parse_object(line, n, err);
    if (!o) return ERR_INVALID;
    int code = read_round(r, o, &row, &prefix, err);
    if (code == OK) {
        double *last_us = trace_session_mark(r, row.session);
        bool    first = trace_session_turns(r, row.session) == 0;
        read_round_times(o, &begin_us, &end_us);
        if (first) trace_session_at(r, row.session)->common_tokens = prefix;
        else row.shared_tokens = prefix;
        row.has_at = first && begin_us > 0, row.at_us = begin_us;
        row.has_gap = !first, row.gap_us = begin_us > *last_us && *last_us > 0 ? begin_us - *last_us : 0;
        *last_us = end_us;
        json_read_string(cJSON_GetArrayItem(json_get(o, "tools"), 0), "tool_name", &row.tool, NULL);
        code = trace_add(r, &row, err);
    }
    cJSON_Delete(o);
    return code;
}
