/* models/safetensors.c: headers are read by a pull parser over the mapped bytes, not into a JSON tree: a tree of a
 * hostile 100 MB header would take gigabytes, and the grammar needed is tiny. Strings with escapes are refused where
 * they would be names (no published tensor has one) and skipped where they are metadata. */
#include "models/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

enum { INDEX_BYTES_MAX = 64 << 20, INDEX_DEPTH_MAX = 32, SHARD_NAME_MAX = 255 };

static const struct {
    const char *name;
    uint8_t     bytes;
} kinds[] = {
    [DTYPE_F32] = {"F32", 4},
    [DTYPE_BF16] = {"BF16", 2},
    [DTYPE_F16] = {"F16", 2},
    {"F64", 8},
    {"F8_E4M3", 1},
    {"F8_E5M2", 1},
    {"F8_E8M0", 1},
    {"I64", 8},
    {"I32", 4},
    {"I16", 2},
    {"I8", 1},
    {"U64", 8},
    {"U32", 4},
    {"U16", 2},
    {"U8", 1},
    {"BOOL", 1},
    {"C64", 8},
};
enum { KIND_COUNT = sizeof kinds / sizeof *kinds };

bool safetensor_dtype(const safetensor *t, dtype *out) {
    *out = t->kind < DTYPE_COUNT ? (dtype)t->kind : DTYPE_F32;
    return t->kind < DTYPE_COUNT;
}
const char *safetensor_dtype_name(const safetensor *t) { return kinds[t->kind].name; }

/* ---- the pull parser ---- */

typedef struct {
    const char *begin, *at, *end;
    error      *err;
} reader;

static int malformed(const reader *r, const char *expected) {
    return error_set(r->err, ERR_INVALID, "malformed JSON at offset %zu: %s was expected", (size_t)(r->at - r->begin),
                     expected);
}

static void skip_space(reader *r) {
    while (r->at < r->end && (*r->at == ' ' || *r->at == '\t' || *r->at == '\n' || *r->at == '\r')) r->at++;
}

/* Takes c if it comes next. */
static bool take(reader *r, char c) {
    skip_space(r);
    if (r->at == r->end || *r->at != c) return false;
    r->at++;
    return true;
}

static int expect(reader *r, char c) {
    char what[4] = {'\'', c, '\'', 0};
    return take(r, c) ? OK : malformed(r, what);
}

/* The bytes between the quotes, as they are; *escaped tells whether there is a backslash among them. */
static int read_raw_string(reader *r, text_slice *out, bool *escaped) {
    if (!take(r, '"')) return malformed(r, "a string");
    out->at = r->at, *escaped = false;
    while (r->at < r->end && *r->at != '"') {
        if ((unsigned char)*r->at < 0x20) return malformed(r, "no control character in a string");
        if (*r->at == '\\') *escaped = true, r->at++;
        if (r->at < r->end) r->at++;
    }
    out->size = (size_t)(r->at - out->at);
    return expect(r, '"');
}

static int read_name(reader *r, text_slice *out) {
    bool escaped = false;
    int  code = read_raw_string(r, out, &escaped);
    if (code == OK && escaped)
        return error_set(r->err, ERR_INVALID, "the name '%.*s' holds an escape", (int)(out->size < 120 ? out->size : 120),
                         out->at);
    return code;
}

static int read_u64(reader *r, uint64_t *out) {
    skip_space(r);
    const char *start = r->at;
    for (*out = 0; r->at < r->end && *r->at >= '0' && *r->at <= '9'; r->at++)
        if (__builtin_mul_overflow(*out, 10u, out) || __builtin_add_overflow(*out, (uint64_t)(*r->at - '0'), out))
            return malformed(r, "a number below 2^64");
    return r->at > start ? OK : malformed(r, "a whole number");
}

static bool slice_is(text_slice s, const char *text) { return s.size == strlen(text) && memcmp(s.at, text, s.size) == 0; }

/* Skips any value; its brackets are counted, not matched by kind: nothing in it is used. */
static int skip_value(reader *r) {
    unsigned   depth = 0;
    text_slice ignored;
    bool       escaped = false;
    do {
        skip_space(r);
        if (r->at == r->end) return malformed(r, "the rest of a value");
        char c = *r->at;
        if (c == '"') {
            int code = read_raw_string(r, &ignored, &escaped);
            if (code != OK) return code;
            continue;
        }
        if (c == '{' || c == '[') {
            if (++depth > INDEX_DEPTH_MAX) return malformed(r, "less nesting");
        } else if (c == '}' || c == ']' || c == ',') {
            if (depth == 0) return malformed(r, "a value");
            depth -= c != ',';
        }
        r->at++;
        while (r->at < r->end && strchr("+-.0123456789abcdefghijklmnopqrstuvwxyzE", *r->at) && *r->at) r->at++;
    } while (depth);
    return OK;
}

/* Walks an object: `member` is called with the reader behind each "key":. */
typedef int (*member_reader)(reader *r, text_slice key, void *context);
static int read_object(reader *r, member_reader member, void *context) {
    text_slice key;
    int        code = expect(r, '{');
    if (code != OK || take(r, '}')) return code;
    do {
        if ((code = read_name(r, &key)) != OK) return code;
        if ((code = expect(r, ':')) != OK) return code;
        if ((code = member(r, key, context)) != OK) return code;
    } while (take(r, ','));
    return expect(r, '}');
}

static int expect_end(reader *r) {
    skip_space(r);
    return r->at == r->end ? OK : malformed(r, "nothing more");
}

/* ---- one header ---- */

static int name_width(const safetensor *t) { return t->name_size < 120 ? (int)t->name_size : 120; }

static int read_shape(reader *r, safetensor *t) {
    uint64_t extent;
    int      code = expect(r, '[');
    if (code != OK || take(r, ']')) return code;
    do {
        if ((code = read_u64(r, &extent)) != OK) return code;
        if (t->rank == SAFETENSORS_RANK_MAX || extent > UINT32_MAX)
            return error_set(r->err, ERR_INVALID,
                             "tensor '%.*s' has an absurd shape: over %d dimensions or 2^32 in one of them", name_width(t),
                             t->name, SAFETENSORS_RANK_MAX);
        t->shape[t->rank++] = (uint32_t)extent;
    } while (take(r, ','));
    return expect(r, ']');
}

static int read_kind(reader *r, safetensor *t) {
    text_slice name;
    int        code = read_name(r, &name);
    if (code != OK) return code;
    for (t->kind = 0; t->kind < KIND_COUNT; t->kind++)
        if (slice_is(name, kinds[t->kind].name)) return OK;
    return error_set(r->err, ERR_UNSUPPORTED, "tensor '%.*s' has the unknown type '%.*s'; supported are BF16, F16 and F32",
                     name_width(t), t->name, (int)(name.size < 32 ? name.size : 32), name.at);
}

typedef struct {
    safetensor *t;
    uint64_t    begin, end;
    bool        has_kind, has_shape, has_offsets;
} header_entry;

static int read_entry_member(reader *r, text_slice key, void *context) {
    header_entry *e = context;
    check(e);
    bool *seen = slice_is(key, "dtype")          ? &e->has_kind
                 : slice_is(key, "shape")        ? &e->has_shape
                 : slice_is(key, "data_offsets") ? &e->has_offsets
                                                 : NULL;
    if (!seen || *seen)
        return error_set(r->err, ERR_INVALID, "tensor '%.*s' has the %s member '%.*s'", name_width(e->t), e->t->name,
                         seen ? "repeated" : "unknown", (int)(key.size < 32 ? key.size : 32), key.at);
    *seen = true;
    if (seen == &e->has_kind) return read_kind(r, e->t);
    if (seen == &e->has_shape) return read_shape(r, e->t);
    int code = expect(r, '[');
    if (code == OK) code = read_u64(r, &e->begin);
    if (code == OK) code = expect(r, ',');
    if (code == OK) code = read_u64(r, &e->end);
    return code == OK ? expect(r, ']') : code;
}

/* rank <= 5 factors below 2^32 can exceed 64 bits: every product is checked. */
static bool size_from_shape(const safetensor *t, uint64_t *bytes) {
    *bytes = kinds[t->kind].bytes;
    for (int i = 0; i < t->rank; i++)
        if (__builtin_mul_overflow(*bytes, t->shape[i], bytes)) return false;
    return true;
}

typedef struct {
    safetensors *out;
    const char  *data;
    uint64_t     data_size, data_offset; /* within the file */
} header;

static int check_entry(const header *h, const header_entry *e, error *err) {
    const safetensor *t = e->t;
    uint64_t          bytes;
    if (!e->has_kind || !e->has_shape || !e->has_offsets)
        return error_set(err, ERR_INVALID, "tensor '%.*s' lacks its dtype, shape or data_offsets", name_width(t), t->name);
    if (e->begin > e->end || e->end > h->data_size)
        return error_set(err, ERR_INVALID,
                         "tensor '%.*s' lies at bytes %llu to %llu of %llu: the file is truncated or damaged", name_width(t),
                         t->name, (unsigned long long)e->begin, (unsigned long long)e->end,
                         (unsigned long long)h->data_size);
    if (!size_from_shape(t, &bytes) || bytes != e->end - e->begin)
        return error_set(err, ERR_INVALID, "tensor '%.*s' takes %llu bytes, which is not what its shape and type %s need",
                         name_width(t), t->name, (unsigned long long)(e->end - e->begin), kinds[t->kind].name);
    if ((h->data_offset + e->begin) % kinds[t->kind].bytes)
        return error_set(err, ERR_INVALID,
                         "tensor '%.*s' is not aligned to its %d-byte elements; save the file again with a "
                         "current safetensors library",
                         name_width(t), t->name, kinds[t->kind].bytes);
    return OK;
}

static int skip_metadata_member(reader *r, text_slice key, void *context) {
    (void)key, (void)context;
    text_slice ignored;
    bool       escaped = false;
    return read_raw_string(r, &ignored, &escaped);
}

static safetensor *append(safetensors *s) {
    if (s->count == s->capacity) {
        s->capacity = s->capacity ? s->capacity * 2 : 64;
        s->tensors = realloc(s->tensors, s->capacity * sizeof *s->tensors);
        if (!s->tensors) fatal("no memory for %zu tensors", s->capacity);
    }
    s->tensors[s->count] = (safetensor){.file = (uint16_t)s->file_count};
    return &s->tensors[s->count++];
}

static int read_entry(reader *r, text_slice name, void *context) {
    header *h = context;
    if (slice_is(name, "__metadata__")) return read_object(r, skip_metadata_member, h);
    if (h->out->count == SAFETENSORS_COUNT_MAX)
        return error_set(r->err, ERR_TOO_LARGE, "there are more than %d tensors", SAFETENSORS_COUNT_MAX);
    header_entry e = {.t = append(h->out)};
    e.t->name = name.at, e.t->name_size = (uint32_t)name.size;
    int code = read_object(r, read_entry_member, &e);
    if (code == OK) code = check_entry(h, &e, r->err);
    e.t->data = h->data + e.begin, e.t->bytes = e.end - e.begin;
    return code;
}

static int by_place(const void *a, const void *b) {
    const safetensor *x = a, *y = b;
    if (x->data != y->data) return x->data < y->data ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

static int compare_names(const char *a, size_t a_size, const char *b, size_t b_size) {
    int order = memcmp(a, b, a_size < b_size ? a_size : b_size);
    return order ? order : (a_size > b_size) - (a_size < b_size);
}
static int by_name(const void *a, const void *b) {
    const safetensor *x = a, *y = b;
    return compare_names(x->name, x->name_size, y->name, y->name_size);
}

/* The tensors from `first` on are of one file, each within it; they must cover its data without overlap and hole. */
static int check_cover(const safetensors *s, size_t first, const header *h, error *err) {
    uint64_t at = 0;
    if (s->count > first) qsort(s->tensors + first, s->count - first, sizeof *s->tensors, by_place);
    for (size_t i = first; i < s->count; at += s->tensors[i++].bytes) {
        const safetensor *t = &s->tensors[i];
        if (t->data != h->data + at)
            return error_set(err, ERR_INVALID, "tensor '%.*s' %s", name_width(t), t->name,
                             t->data < h->data + at ? "overlaps the one before it" : "leaves a hole before it");
    }
    if (at != h->data_size)
        return error_set(err, ERR_INVALID, "%llu bytes behind the last tensor belong to none",
                         (unsigned long long)(h->data_size - at));
    return OK;
}

static int sort_by_name(safetensors *s, error *err) {
    if (s->count) qsort(s->tensors, s->count, sizeof *s->tensors, by_name);
    for (size_t i = 1; i < s->count; i++)
        if (by_name(&s->tensors[i - 1], &s->tensors[i]) == 0)
            return error_set(err, ERR_INVALID, "tensor '%.*s' is there twice", name_width(&s->tensors[i]),
                             s->tensors[i].name);
    return OK;
}

/* Appends one file's tensors, unsorted. */
static int parse_file(safetensors *out, const char *bytes, size_t size, error *err) {
    uint64_t n = 0;
    size_t   first = out->count;
    if (size < 8) return error_set(err, ERR_INVALID, "%zu bytes are too few for a safetensors file", size);
    for (int i = 7; i >= 0; i--) n = n << 8 | (unsigned char)bytes[i];
    if (n > SAFETENSORS_HEADER_MAX)
        return error_set(err, ERR_INVALID,
                         "a header of %llu bytes is over the format's limit of %d: this is not a safetensors file",
                         (unsigned long long)n, SAFETENSORS_HEADER_MAX);
    if (n > size - 8)
        return error_set(err, ERR_INVALID, "the header of %llu bytes reaches beyond the file's %zu: the file is truncated",
                         (unsigned long long)n, size);
    if (!utf8_valid(bytes + 8, n)) return error_set(err, ERR_INVALID, "the header is not valid UTF-8");
    header h = {out, bytes + 8 + n, size - 8 - n, 8 + n};
    reader r = {bytes + 8, bytes + 8, bytes + 8 + n, err};
    int    code = read_object(&r, read_entry, &h);
    if (code == OK) code = expect_end(&r);
    if (code == OK) code = check_cover(out, first, &h, err);
    return code;
}

int safetensors_parse(safetensors *out, const char *bytes, size_t size, error *err) {
    *out = (safetensors){0};
    int code = parse_file(out, bytes, size, err);
    return code == OK ? sort_by_name(out, err) : code;
}

/* ---- the index of shards ---- */

typedef struct {
    safetensors_index_row add;
    void                 *context;
    bool                  seen;
} index_reader;

static int read_index_row(reader *r, text_slice tensor, void *context) {
    index_reader *x = context;
    text_slice    file = {0};
    int           code = read_name(r, &file);
    return code == OK ? x->add(x->context, tensor, file, r->err) : code;
}

static int read_index_member(reader *r, text_slice key, void *context) {
    index_reader *x = context;
    if (!slice_is(key, "weight_map")) return skip_value(r);
    x->seen = true;
    return read_object(r, read_index_row, x);
}

int safetensors_parse_index(const char *text, size_t n, safetensors_index_row add, void *context, error *err) {
    if (!utf8_valid(text, n)) return error_set(err, ERR_INVALID, "it is not valid UTF-8");
    index_reader x = {add, context, false};
    reader       r = {text, text, text + n, err};
    int          code = read_object(&r, read_index_member, &x);
    if (code == OK) code = expect_end(&r);
    if (code == OK && !x.seen) code = error_set(err, ERR_INVALID, "it has no weight_map");
    return code;
}

/* A shard's name becomes part of a path, so it must be a plain one. */
static bool plain_file_name(text_slice s) {
    static const char suffix[] = ".safetensors";
    if (s.size < sizeof suffix || s.size > SHARD_NAME_MAX || s.at[0] == '.' || s.at[0] == '-') return false;
    if (memchr(s.at, '/', s.size) || memchr(s.at, '\\', s.size)) return false;
    return memcmp(s.at + s.size - (sizeof suffix - 1), suffix, sizeof suffix - 1) == 0;
}

static int open_file(safetensors *s, const char *dir, text_slice name, error *err) {
    char path[4096];
    if (s->file_count == SAFETENSORS_FILES_MAX)
        return error_set(err, ERR_TOO_LARGE, "the index lists more than %d files", SAFETENSORS_FILES_MAX);
    if (snprintf(path, sizeof path, "%s/%.*s", dir, (int)name.size, name.at) >= (int)sizeof path)
        return error_set(err, ERR_INVALID, "the folder's path is longer than %zu bytes", sizeof path);
    file_map map;
    int      code = file_map_open(&map, path, err);
    if (code != OK) return code;
    if (!s->files) {
        s->files = calloc(SAFETENSORS_FILES_MAX, sizeof *s->files);
        s->file_names = calloc(SAFETENSORS_FILES_MAX, sizeof *s->file_names);
    }
    char *copy = strndup(name.at, name.size);
    if (!s->files || !s->file_names || !copy) fatal("no memory for a file name");
    s->files[s->file_count] = map, s->file_names[s->file_count] = copy;
    code = parse_file(s, map.data, map.size, err); /* its tensors carry the number of this file */
    s->file_count++;
    return code == OK ? OK : error_prefix(err, "%s", path);
}

typedef struct {
    safetensors *s;
    const char  *dir;
    text_slice   tensor, file;
} index_context;

static int open_shard(void *context, text_slice tensor, text_slice file, error *err) {
    index_context *x = context;
    (void)tensor;
    if (!plain_file_name(file))
        return error_set(err, ERR_INVALID, "'%.*s' is not a plain name of a .safetensors file",
                         (int)(file.size < 120 ? file.size : 120), file.at);
    for (uint32_t i = x->s->file_count; i-- > 0;) /* rows of one file mostly follow one another */
        if (slice_is(file, x->s->file_names[i])) return OK;
    return open_file(x->s, x->dir, file, err);
}

static const safetensor *find(const safetensors *s, text_slice name) {
    size_t low = 0, high = s->count;
    while (low < high) {
        size_t            middle = low + (high - low) / 2;
        const safetensor *t = &s->tensors[middle];
        int               order = compare_names(name.at, name.size, t->name, t->name_size);
        if (order == 0) return t;
        if (order < 0) high = middle;
        else low = middle + 1;
    }
    return NULL;
}
const safetensor *safetensors_find(const safetensors *s, const char *name) {
    return find(s, (text_slice){name, strlen(name)});
}

static int check_shard(void *context, text_slice tensor, text_slice file, error *err) {
    const safetensors *s = ((index_context *)context)->s;
    const safetensor  *t = find(s, tensor);
    if (t && slice_is(file, s->file_names[t->file])) return OK;
    return error_set(err, ERR_INVALID, "tensor '%.*s' is not in '%.*s', where the index has it",
                     (int)(tensor.size < 120 ? tensor.size : 120), tensor.at, (int)(file.size < 120 ? file.size : 120),
                     file.at);
}

static int open_shards(safetensors *s, const char *dir, const char *index_path, error *err) {
    buf text;
    buf_init(&text, INDEX_BYTES_MAX);
    index_context x = {.s = s, .dir = dir};
    int           code = file_read(&text, index_path, err);
    if (code == OK) {
        code = safetensors_parse_index(text.data ? text.data : "", text.size, open_shard, &x, err);
        if (code == OK) code = sort_by_name(s, err);
        if (code == OK) code = safetensors_parse_index(text.data, text.size, check_shard, &x, err);
        if (code != OK) error_prefix(err, "%s", index_path);
    }
    buf_free(&text);
    return code;
}

int safetensors_open(safetensors *out, const char *dir, error *err) {
    static const char single[] = "model.safetensors";
    char              path[4096];
    *out = (safetensors){0};
    if (snprintf(path, sizeof path, "%s/%s.index.json", dir, single) >= (int)sizeof path)
        return error_set(err, ERR_INVALID, "the folder's path is longer than %zu bytes", sizeof path);
    bool sharded = file_exists(path);
    path[strlen(path) - strlen(".index.json")] = 0;
    if (file_exists(path)) {
        int code = open_file(out, dir, (text_slice){single, sizeof single - 1}, err);
        return code == OK ? sort_by_name(out, err) : code;
    }
    if (!sharded)
        return error_set(
            err, ERR_NOT_FOUND,
            "'%s' has neither model.safetensors nor model.safetensors.index.json; other formats of weights are not "
            "supported",
            dir);
    path[strlen(path)] = '.'; /* back to the index */
    return open_shards(out, dir, path, err);
}

void safetensors_close(safetensors *s) {
    for (uint32_t i = 0; i < s->file_count; i++) {
        file_map_close(&s->files[i]);
        free(s->file_names[i]);
    }
    free(s->files);
    free(s->file_names);
    free(s->tensors);
    *s = (safetensors){0};
}
