#include "bench/trace_read.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/hash.h"
#include "base/rng.h"

enum { NAME_BYTES_MAX = 256, NAMES_BYTES_MAX = 1 << 30 };

/* Strings to small numbers in the order of their first appearance; open addressing. */
typedef struct {
    buf       text;  /* the names, one after the other */
    size_t   *ends;  /* of name i in text */
    uint32_t *slots; /* 1 + index; 0: free */
    uint32_t  count, slot_count;
} name_map;

struct trace_reader {
    trace        *t;
    trace_line_fn read_line;
    uint32_t      requests_max, session_capacity, request_capacity;
    size_t        block_capacity;
    name_map      session_names, names;
    uint32_t     *named_session; /* of session_names */
    uint32_t      named_capacity;
    uint8_t      *flags;      /* of requests: ROW_... */
    uint32_t     *after_turn; /* of sessions */
    double       *marks;      /* of sessions */
    void         *memory;     /* of the format */
};
enum { ROW_HAS_AT = 1, ROW_HAS_GAP = 2 };

/* ---- growing ---- */

/* Room for `count` items in *items; doubling, so that n additions cost n. */
static void *grow(void *items, size_t count, uint32_t *capacity, size_t item_bytes) {
    if (count <= *capacity) return items;
    size_t want = *capacity ? (size_t)*capacity * 2 : 64;
    items = realloc(items, want * item_bytes);
    if (!items) fatal("out of memory for %zu rows of a trace", want);
    return *capacity = (uint32_t)want, items;
}

static const char *name_at(const name_map *m, uint32_t i, size_t *n) {
    size_t begin = i ? m->ends[i - 1] : 0;
    return *n = m->ends[i] - begin, m->text.data + begin;
}

static void name_map_rehash(name_map *m, uint32_t slot_count) {
    free(m->slots);
    m->slots = calloc(slot_count, sizeof *m->slots);
    if (!m->slots) fatal("out of memory for %u names", slot_count);
    m->slot_count = slot_count;
    for (uint32_t i = 0; i < m->count; i++) {
        size_t      n;
        const char *s = name_at(m, i, &n);
        uint32_t    at = (uint32_t)hash_u64(s, n, 0) & (slot_count - 1);
        while (m->slots[at]) at = (at + 1) & (slot_count - 1);
        m->slots[at] = i + 1;
    }
}

/* The index of the name; *added tells a new one. Names beyond NAME_BYTES_MAX are cut. */
static uint32_t name_map_put(name_map *m, const char *s, size_t n, bool *added) {
    if (n > NAME_BYTES_MAX) n = NAME_BYTES_MAX;
    if (!m->slots) buf_init(&m->text, NAMES_BYTES_MAX), name_map_rehash(m, 256);
    uint32_t at = (uint32_t)hash_u64(s, n, 0) & (m->slot_count - 1);
    for (; m->slots[at]; at = (at + 1) & (m->slot_count - 1)) {
        size_t      have;
        const char *other = name_at(m, m->slots[at] - 1, &have);
        if (have == n && memcmp(other, s, n) == 0) return *added = false, m->slots[at] - 1;
    }
    uint32_t capacity = m->slot_count / 2; /* of ends */
    if (!m->ends) m->ends = malloc(capacity * sizeof *m->ends);
    buf_append(&m->text, s, n);
    if (!m->ends || buf_overflowed(&m->text)) fatal("out of memory for %u names", m->count);
    m->ends[m->count++] = m->text.size, m->slots[at] = m->count;
    if (m->count == capacity) {
        m->ends = realloc(m->ends, (size_t)capacity * 2 * sizeof *m->ends);
        if (!m->ends) fatal("out of memory for %u names", m->count);
        name_map_rehash(m, m->slot_count * 2);
    }
    return *added = true, m->count - 1;
}

static void name_map_free(name_map *m) { buf_free(&m->text), free(m->ends), free(m->slots); }

/* ---- what readers call ---- */

uint32_t trace_session_new(trace_reader *r) {
    trace   *t = r->t;
    uint32_t capacity = r->session_capacity, same = capacity;
    t->sessions = grow(t->sessions, t->session_count + 1u, &r->session_capacity, sizeof *t->sessions);
    r->after_turn = grow(r->after_turn, t->session_count + 1u, &capacity, sizeof *r->after_turn);
    r->marks = grow(r->marks, t->session_count + 1u, &same, sizeof *r->marks);
    r->marks[t->session_count] = 0;
    t->sessions[t->session_count] = (trace_session){.after = TRACE_NONE, .block_tokens = 512};
    return t->session_count++;
}

uint32_t trace_session_named(trace_reader *r, const char *name, size_t n) {
    bool     added;
    uint32_t i = name_map_put(&r->session_names, name, n, &added);
    if (!added) return r->named_session[i];
    r->named_session = grow(r->named_session, i + 1u, &r->named_capacity, sizeof *r->named_session);
    return r->named_session[i] = trace_session_new(r);
}

trace_session *trace_session_at(trace_reader *r, uint32_t session) { return &r->t->sessions[session]; }
uint32_t       trace_session_turns(const trace_reader *r, uint32_t session) { return r->t->sessions[session].count; }
double        *trace_session_mark(trace_reader *r, uint32_t session) { return &r->marks[session]; }

void trace_session_after(trace_reader *r, uint32_t session, uint32_t parent) {
    r->t->sessions[session].after = parent; /* trace_finish makes it a request */
    r->after_turn[session] = r->t->sessions[parent].count - 1;
}

bool trace_full(const trace_reader *r) { return r->t->request_count >= r->requests_max; }

void *trace_reader_memory(trace_reader *r, size_t size) {
    if (!r->memory && !(r->memory = calloc(1, size))) fatal("out of memory for the reader of a trace");
    return r->memory;
}

static uint16_t put_name(trace_reader *r, const char *name) {
    bool added;
    if (!name || !*name) return 0;
    if (!r->names.count) name_map_put(&r->names, "", 0, &added);
    if (r->names.count > TRACE_NAMES_MAX) return 0;
    return (uint16_t)name_map_put(&r->names, name, strlen(name), &added);
}

static int add_blocks(trace_reader *r, const trace_row *row, trace_request *q, error *err) {
    trace *t = r->t;
    if (row->block_count > TRACE_BLOCKS_MAX - t->block_count)
        return error_set(err, ERR_TOO_LARGE, "the trace has more than %d block ids", TRACE_BLOCKS_MAX);
    size_t want = t->block_count + row->block_count;
    if (want > r->block_capacity) {
        r->block_capacity = want * 2;
        t->blocks = realloc(t->blocks, r->block_capacity * sizeof *t->blocks);
        if (!t->blocks) fatal("out of memory for %zu block ids", want);
    }
    q->blocks_at = t->block_count, q->block_count = (uint32_t)row->block_count, q->block_first = row->block_first;
    if (row->block_count) memcpy(t->blocks + t->block_count, row->blocks, row->block_count * sizeof *t->blocks);
    t->block_count = want;
    return OK;
}

static int read_tokens(double tokens, const char *what, uint32_t *out, error *err) {
    if (!(tokens >= 0 && tokens <= TRACE_TOKENS_MAX))
        return error_set(err, ERR_INVALID, "the %s length must be between 0 and %d tokens, not %g", what, TRACE_TOKENS_MAX,
                         tokens);
    return *out = tokens < 1 ? 1 : (uint32_t)tokens, OK;
}

int trace_add(trace_reader *r, const trace_row *row, error *err) {
    trace   *t = r->t;
    uint32_t capacity = r->request_capacity;
    if (t->request_count >= TRACE_REQUESTS_MAX)
        return error_set(err, ERR_TOO_LARGE, "the trace has more than %d requests; read fewer with --requests",
                         TRACE_REQUESTS_MAX);
    double *gap_before_us = trace_session_mark(r, row->session), gap_us = row->has_gap ? row->gap_us : *gap_before_us - 1;
    bool    has_gap = row->has_gap || (gap_us >= 0 && t->sessions[row->session].count > 0);
    if (row->has_at && !(fabs(row->at_us) <= 1e17))
        return error_set(err, ERR_INVALID, "the time %g is out of range", row->at_us);
    if (has_gap && !(gap_us >= 0 && gap_us <= (double)TRACE_TIME_MAX_US))
        return error_set(err, ERR_INVALID, "the gap of %g s is out of range", gap_us * 1e-6);
    if (row->has_gap_after) *gap_before_us = row->gap_after_us + 1; /* 0 stands for not said */
    t->requests = grow(t->requests, t->request_count + 1u, &r->request_capacity, sizeof *t->requests);
    r->flags = grow(r->flags, t->request_count + 1u, &capacity, sizeof *r->flags);
    trace_request *q = &t->requests[t->request_count];
    *q = (trace_request){
        .session = row->session, .shared_tokens = row->shared_tokens, .priority = (int32_t)row->priority, .slo = row->slo};
    int code = read_tokens(row->prompt_tokens, "prompt's", &q->prompt_tokens, err);
    if (code == OK) code = read_tokens(row->output_tokens, "answer's", &q->output_tokens, err);
    if (code == OK) code = add_blocks(r, row, q, err);
    if (code != OK) return code;
    if (q->shared_tokens != SHARED_UNKNOWN && q->shared_tokens > q->prompt_tokens) q->shared_tokens = q->prompt_tokens;
    q->at_us = row->has_at ? (uint64_t)(int64_t)row->at_us : 0; /* signed until trace_finish */
    q->gap_us = has_gap ? (uint64_t)gap_us : 0;
    q->tenant = put_name(r, row->tenant), q->tool = put_name(r, row->tool);
    q->turn = t->sessions[row->session].count++;
    r->flags[t->request_count++] = (uint8_t)((row->has_at ? ROW_HAS_AT : 0) | (has_gap ? ROW_HAS_GAP : 0));
    return OK;
}

size_t trace_blocks_equal(const uint64_t *a, size_t a_count, const uint64_t *b, size_t b_count) {
    size_t n = 0;
    while (n < a_count && n < b_count && a[n] == b[n]) n++;
    return n;
}

/* Where all whole blocks of the turn before lead this one, this one goes on from it: it holds its last, half-filled block as
 * well, and then its answer. */
uint32_t trace_shared_by_blocks(size_t equal, uint32_t block_tokens, const uint32_t before[2], uint32_t prompt_tokens) {
    uint64_t shared = (uint64_t)equal * block_tokens;
    if (equal && equal >= before[0] / block_tokens) shared = (uint64_t)before[0] + before[1];
    return shared < prompt_tokens ? (uint32_t)shared : prompt_tokens;
}

int trace_read_ids(const cJSON *object, const char *name, uint64_t **ids, size_t *count, error *err) {
    const cJSON *list = json_get(object, name), *item;
    *count = 0;
    if (!list || cJSON_IsNull(list)) return OK;
    if (!cJSON_IsArray(list)) return error_set(err, ERR_INVALID, "'%s' must be a list of whole numbers", name);
    size_t n = (size_t)cJSON_GetArraySize(list);
    *ids = realloc(*ids, (n + 1) * sizeof **ids);
    if (!*ids) fatal("out of memory for %zu block ids", n);
    cJSON_ArrayForEach(item, list) {
        int64_t id;
        if (!json_whole_number(item, &id))
            return error_set(err, ERR_INVALID, "'%s' must be a list of whole numbers; item %zu is not", name, *count);
        (*ids)[(*count)++] = (uint64_t)id;
    }
    return OK;
}

/* ---- the end of the file ---- */

/* Rows of one session may stand apart in the file: moved together, in their order (a counting sort). */
static void sort_by_session(trace_reader *r) {
    trace         *t = r->t;
    trace_request *sorted = malloc(((size_t)t->request_count + 1) * sizeof *sorted);
    uint8_t       *flags = malloc((size_t)t->request_count + 1);
    if (!sorted || !flags) fatal("out of memory for %u requests", t->request_count);
    for (uint32_t i = 0, first = 0; i < t->session_count; first += t->sessions[i++].count) t->sessions[i].first = first;
    for (uint32_t i = 0; i < t->request_count; i++) {
        uint32_t to = t->sessions[t->requests[i].session].first + t->requests[i].turn;
        sorted[to] = t->requests[i], flags[to] = r->flags[i];
    }
    free(t->requests), free(r->flags);
    t->requests = sorted, r->flags = flags;
    for (uint32_t i = 0; i < t->session_count; i++)
        if (t->sessions[i].after != TRACE_NONE)
            t->sessions[i].after = t->sessions[t->sessions[i].after].first + r->after_turn[i];
}

/* Times count from the first. A turn that says how long it waits for the one before has no time of its own. */
static int settle_times(trace_reader *r, error *err) {
    trace  *t = r->t;
    int64_t first = INT64_MAX;
    t->has_times = t->request_count > 0;
    for (uint32_t i = 0; i < t->request_count; i++)
        if ((r->flags[i] & ROW_HAS_AT) && (int64_t)t->requests[i].at_us < first) first = (int64_t)t->requests[i].at_us;
    for (uint32_t i = 0; i < t->request_count; i++) {
        trace_request *q = &t->requests[i];
        bool           child = t->sessions[q->session].after != TRACE_NONE;
        if (q->turn == 0 && !child && !(r->flags[i] & ROW_HAS_AT)) t->has_times = false;
        if (!(r->flags[i] & ROW_HAS_AT)) continue;
        q->at_us = (uint64_t)((int64_t)q->at_us - first);
        if (q->at_us > TRACE_TIME_MAX_US)
            return error_set(err, ERR_INVALID, "the times of the trace are more than 400 days apart");
        if (r->flags[i] & ROW_HAS_GAP && (q->turn > 0 || child)) q->at_us = 0;
    }
    return OK;
}

static void settle_shared(trace *t) {
    for (uint32_t i = 0; i < t->request_count; i++) {
        trace_request       *q = &t->requests[i], *before = q - 1;
        const trace_session *s = &t->sessions[q->session];
        if (q->shared_tokens != SHARED_UNKNOWN) continue;
        q->shared_tokens = 0;
        if (q->turn == 0) continue;
        if (q->block_count) {
            size_t equal = trace_blocks_equal(t->blocks + before->blocks_at, before->block_count, t->blocks + q->blocks_at,
                                              q->block_count);
            q->shared_tokens = trace_shared_by_blocks(
                equal, s->block_tokens, (uint32_t[]){before->prompt_tokens, before->output_tokens}, q->prompt_tokens);
        } else if (q->prompt_tokens >= before->prompt_tokens + before->output_tokens) {
            q->shared_tokens = before->prompt_tokens + before->output_tokens;
        }
    }
}

static void settle_names(trace_reader *r) {
    trace *t = r->t;
    bool   added;
    name_map_put(&r->names, "", 0, &added);
    t->name_count = r->names.count;
    t->names = calloc(t->name_count, sizeof *t->names);
    if (!t->names) fatal("out of memory for %u names", t->name_count);
    for (uint32_t i = 0; i < t->name_count; i++) {
        size_t      n;
        const char *s = name_at(&r->names, i, &n);
        if (!(t->names[i] = strndup(s, n))) fatal("out of memory for a name");
    }
}

/* ---- which format ---- */

typedef struct {
    const char   *format, *kind; /* the word of --format; how the file must begin */
    trace_line_fn read_line;
} reader_row;

static const reader_row readers[] = {
    {"azure", "csv", trace_line_csv},     {"mooncake", "jsonl", trace_line_jsonl},   {"weka", "weka", trace_line_weka},
    {"tracelab", "csv", trace_line_csv},  {"tracelab", "rounds", trace_line_rounds}, {"csv", "csv", trace_line_csv},
    {"jsonl", "jsonl", trace_line_jsonl},
};

static const char *kind_of(const char *line) {
    while (*line == ' ' || *line == '\t') line++;
    if (*line != '{') return "csv";
    if (strstr(line, "\"requests\"")) return "weka";
    if (strstr(line, "\"timing_events\"")) return "rounds";
    return strstr(line, "\"windows\"") ? "servegen" : "jsonl";
}

static int choose_reader(trace_reader *r, const char *format, const char *line, error *err) {
    const char *kind = kind_of(line);
    bool        any = !format || strcmp(format, "auto") == 0;
    if (strcmp(kind, "servegen") == 0)
        return error_set(err, ERR_UNSUPPORTED,
                         "this is a ServeGen file: distributions that a trace is drawn from, not requests");
    for (size_t i = 0; i < sizeof readers / sizeof *readers && !r->read_line; i++)
        if (strcmp(readers[i].kind, kind) == 0 && (any || strcmp(readers[i].format, format) == 0))
            r->read_line = readers[i].read_line, r->t->format = readers[i].format;
    if (any && strcmp(kind, "csv") == 0) r->t->format = "csv";
    if (any && strcmp(kind, "jsonl") == 0) r->t->format = "jsonl";
    if (!r->read_line)
        return error_set(err, ERR_INVALID, "the first line does not look like %s; leave --format out, or see docs/replay.md",
                         format);
    return OK;
}

static int read_lines(trace_reader *r, lines *in, const char *format, error *err) {
    const char *line;
    size_t      n;
    int         code;
    while ((code = lines_next(in, &line, &n, err)) == OK && line && !trace_full(r)) {
        if (lines_number(in) == 1 && n >= 3 && memcmp(line, "\xEF\xBB\xBF", 3) == 0) line += 3, n -= 3;
        if (n == 0) continue;
        if (!r->read_line) code = choose_reader(r, format, line, err);
        if (code == OK) code = r->read_line(r, line, n, err);
        if (code != OK) return error_prefix(err, "line %zu", lines_number(in)), code;
    }
    return code;
}

static int finish(trace_reader *r, error *err) {
    if (r->t->request_count == 0) return error_set(err, ERR_INVALID, "the trace holds no request");
    sort_by_session(r);
    settle_shared(r->t);
    settle_names(r);
    return settle_times(r, err);
}

static int read_trace(trace *t, lines *in, const char *format, uint32_t requests_max, error *err) {
    *t = (trace){0};
    trace_reader r = {.t = t, .requests_max = requests_max ? requests_max : UINT32_MAX};
    int          code = read_lines(&r, in, format, err);
    if (code == OK) code = finish(&r, err);
    name_map_free(&r.session_names), name_map_free(&r.names);
    free(r.named_session), free(r.flags), free(r.after_turn), free(r.marks), free(r.memory);
    if (code != OK) trace_close(t);
    return code;
}

int trace_open(trace *t, const char *path, const char *format, uint32_t requests_max, error *err) {
    lines *in;
    int    code = lines_open(&in, path, err);
    if (code != OK) return code;
    code = read_trace(t, in, format, requests_max, err);
    if (code != OK) return lines_close(in, NULL), error_prefix(err, "%s", path), code;
    code = lines_close(in, err);
    if (code != OK) trace_close(t), error_prefix(err, "%s", path);
    return code;
}

int trace_read_text(trace *t, const char *text, size_t n, const char *format, error *err) {
    lines *in = lines_open_memory(text, n);
    int    code = read_trace(t, in, format, 0, err);
    lines_close(in, NULL);
    return code;
}

void trace_close(trace *t) {
    for (uint32_t i = 0; t->names && i < t->name_count; i++) free(t->names[i]);
    free(t->names), free(t->requests), free(t->sessions), free(t->blocks);
    *t = (trace){0};
}

void trace_draw_arrivals(trace *t, double rate_per_s, uint64_t seed) {
    rng    r = {.seed = seed};
    double at_us = 0;
    for (uint32_t i = 0; i < t->session_count; i++) {
        trace_session *s = &t->sessions[i];
        if (s->after != TRACE_NONE || s->count == 0) continue;
        t->requests[s->first].at_us = at_us < (double)TRACE_TIME_MAX_US ? (uint64_t)at_us : TRACE_TIME_MAX_US;
        double u = ((double)(rng_next(&r) >> 11) + 1) * 0x1p-53; /* in (0, 1] */
        at_us += -log(u) / rate_per_s * 1e6;
    }
    t->has_times = true;
}
