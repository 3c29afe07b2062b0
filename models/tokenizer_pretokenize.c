/* models/tokenizer_pretokenize.c: the file's pre-tokenizer cuts a text into the words that merges never cross.
 *
 * Every kind that is supported comes down to three operations: cut at a pattern, put a space in front, and Metaspace's
 * rewriting of spaces. Words are spans of one text; only the rewriting steps make a new one. The step from text to the
 * byte-level alphabet is never carried out: the vocabulary is read back into raw bytes instead (tokenizer_vocab.c). */
#include <string.h>

#include "base/utf8.h"
#include "models/tokenizer_internal.h"

static const char byte_level_words[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

void span_push(span_list *list, uint32_t start, uint32_t end) {
    if (list->count == list->capacity) list->at = grow(list->at, &list->capacity, list->count + 1, sizeof *list->at);
    list->at[list->count++] = (span){start, end};
}

/* ---- reading ---- */

static int read_one(pretokenizer *p, const cJSON *json, error *err);

/* The next step, or NULL with the error set. */
static pretokenize_step *add_step(pretokenizer *p, pretokenize_op op, error *err) {
    if (p->count == STEPS_MAX) return error_set(err, ERR_TOO_LARGE, "more than %d pre-tokenizer steps", STEPS_MAX), NULL;
    p->steps[p->count].op = op;
    return &p->steps[p->count++];
}

static int read_byte_level(pretokenizer *p, const cJSON *json, error *err) {
    bool space = true, words = true;
    int  code = json_read_bool(json, "add_prefix_space", &space, err);
    if (code == OK) code = json_read_bool(json, "use_regex", &words, err);
    if (code != OK) return code;
    if (space && !add_step(p, PRETOKENIZE_SPACE_IN_FRONT, err)) return err->code;
    p->byte_level = true;
    if (!words) return OK;
    pretokenize_step *s = add_step(p, PRETOKENIZE_SPLIT, err);
    return s ? pattern_regex(&s->find, byte_level_words, err) : err->code;
}

static const char *const behaviors[] = {"Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"};

static int read_split(pretokenizer *p, const cJSON *json, error *err) {
    const char       *behavior = NULL;
    pretokenize_step *s = add_step(p, PRETOKENIZE_SPLIT, err);
    if (!s) return err->code;
    int code = pattern_read(&s->find, json_get(json, "pattern"), err);
    if (code == OK) code = json_read_bool(json, "invert", &s->invert, err);
    if (code == OK) code = json_read_string(json, "behavior", &behavior, err);
    if (code != OK) return code;
    for (unsigned i = 0; behavior && i < sizeof behaviors / sizeof *behaviors; i++)
        if (strcmp(behavior, behaviors[i]) == 0) return s->behavior = (split_behavior)i, OK;
    return error_set(err, ERR_INVALID,
                     "the 'behavior' of a Split must be Isolated, Removed, MergedWithPrevious, MergedWithNext or "
                     "Contiguous, not '%.40s'",
                     behavior ? behavior : "missing");
}

static int read_digits(pretokenizer *p, const cJSON *json, error *err) {
    bool              individual = false;
    pretokenize_step *s = add_step(p, PRETOKENIZE_SPLIT, err);
    if (!s) return err->code;
    int code = json_read_bool(json, "individual_digits", &individual, err);
    if (code == OK) s->behavior = individual ? SPLIT_ISOLATED : SPLIT_CONTIGUOUS;
    return code == OK ? pattern_regex(&s->find, "\\p{N}", err) : code;
}

static const char *const schemes[] = {"always", "first", "never"};

int metaspace_read(const cJSON *json, char replacement[8], prepend_scheme *scheme, error *err) {
    const char *text = "\xE2\x96\x81", *name = NULL;
    bool        prefix = true;
    uint32_t    cp;
    int         code = json_read_string(json, "replacement", &text, err);
    if (code == OK) code = json_read_string(json, "prepend_scheme", &name, err);
    if (code == OK) code = json_read_bool(json, "add_prefix_space", &prefix, err);
    if (code != OK) return code;
    if (utf8_decode(text, strlen(text), &cp) != (int)strlen(text) || !*text)
        return error_set(err, ERR_INVALID, "the 'replacement' of Metaspace must be one character, not '%.20s'", text);
    strcpy(replacement, text);
    *scheme = prefix ? PREPEND_ALWAYS : PREPEND_NEVER;
    for (unsigned i = 0; name && i <= sizeof schemes / sizeof *schemes; i++) {
        if (i == sizeof schemes / sizeof *schemes)
            return error_set(err, ERR_INVALID, "'prepend_scheme' must be always, first or never, not '%.20s'", name);
        if (strcmp(name, schemes[i]) == 0) {
            *scheme = (prepend_scheme)i;
            break;
        }
    }
    return OK;
}

static int read_metaspace(pretokenizer *p, const cJSON *json, error *err) {
    pretokenize_step *s = add_step(p, PRETOKENIZE_METASPACE, err);
    bool              split = true;
    if (!s) return err->code;
    int code = metaspace_read(json, s->replacement, &s->prepend, err);
    if (code == OK) code = json_read_bool(json, "split", &split, err);
    if (code != OK || !split) return code;
    pretokenize_step *cut = add_step(p, PRETOKENIZE_SPLIT, err);
    if (!cut) return err->code;
    cut->behavior = SPLIT_MERGED_WITH_NEXT;
    return pattern_literal(&cut->find, s->replacement), OK;
}

static int read_sequence(pretokenizer *p, const cJSON *json, error *err) {
    const cJSON *list = json_get(json, "pretokenizers"), *item;
    if (!cJSON_IsArray(list))
        return error_set(err, ERR_INVALID, "the pre-tokenizer 'Sequence' has no array 'pretokenizers'");
    cJSON_ArrayForEach(item, list) {
        if (p->byte_level)
            return error_set(err, ERR_UNSUPPORTED,
                             "a pre-tokenizer after ByteLevel is not supported; it must be the last of a Sequence");
        int code = read_one(p, item, err);
        if (code != OK) return code;
    }
    return OK;
}

static const struct {
    const char *type;
    int (*read)(pretokenizer *, const cJSON *, error *);
} kinds[] = {
    {"Sequence", read_sequence}, {"ByteLevel", read_byte_level}, {"Split", read_split},
    {"Digits", read_digits},     {"Metaspace", read_metaspace},
};

static int read_one(pretokenizer *p, const cJSON *json, error *err) {
    const char *type = NULL;
    if (json_read_string(json, "type", &type, err) != OK) return err->code;
    if (!type) return error_set(err, ERR_INVALID, "a pre-tokenizer has no 'type'");
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(type, kinds[i].type) == 0) return kinds[i].read(p, json, err);
    return error_set(err, ERR_UNSUPPORTED,
                     "the pre-tokenizer '%.60s' is not supported (supported: ByteLevel, Split, Digits, Metaspace, Sequence)",
                     type);
}

int pretokenizer_read(pretokenizer *p, const cJSON *json, error *err) {
    return json && !cJSON_IsNull(json) ? read_one(p, json, err) : OK;
}

void pretokenizer_free(pretokenizer *p) {
    for (unsigned i = 0; i < p->count; i++) pattern_free(&p->steps[i].find);
    p->count = 0;
}

/* ---- cutting ---- */

/* The segments of one word, matched and not, in order; `behavior` says which become one. */
typedef struct {
    const pretokenize_step *step;
    span_list              *out;
    size_t                  first;   /* of this word's in out */
    bool                    matched; /* the segment before */
} cutter;

static void cut_add(cutter *c, uint32_t start, uint32_t end, bool matched) {
    matched ^= c->step->invert;
    bool join = false;
    switch (c->step->behavior) {
    case SPLIT_ISOLATED: break;
    case SPLIT_REMOVED:
        if (matched) return;
        break;
    case SPLIT_MERGED_WITH_PREVIOUS: join = matched && !c->matched; break;
    case SPLIT_MERGED_WITH_NEXT: join = !matched && c->matched; break;
    case SPLIT_CONTIGUOUS: join = matched == c->matched; break;
    }
    c->matched = matched;
    if (join && c->out->count > c->first) c->out->at[c->out->count - 1].end = end;
    else span_push(c->out, start, end);
}

static void drop_empty(span_list *list, size_t first) {
    size_t kept = first;
    for (size_t i = first; i < list->count; i++)
        if (list->at[i].end > list->at[i].start) list->at[kept++] = list->at[i];
    list->count = kept;
}

static int cut_word(const pretokenize_step *s, const matcher *m, view text, span word, span_list *out) {
    cutter   c = {.step = s, .out = out, .first = out->count};
    view     part = {text.data + word.start, word.end - word.start};
    uint32_t from = 0, done = 0;
    bool     any = false, empty = false;
    span     found;
    int      rc;
    while ((rc = from <= part.size ? pattern_find(&s->find, m, part, from, &found) : 0) == 1) {
        from = found.end;
        if (found.end == found.start) {
            uint32_t cp;
            int      n = utf8_decode(part.data + from, part.size - from, &cp);
            from += n > 0 ? (uint32_t)n : 1;
            if (any && found.end == done) continue; /* nothing, right behind a match */
            empty = true;
        }
        if (found.start > done) cut_add(&c, word.start + done, word.start + found.start, false);
        cut_add(&c, word.start + found.start, word.start + found.end, true);
        done = found.end, any = true;
    }
    if (rc < 0) return rc;
    if (done < part.size) cut_add(&c, word.start + done, word.end, false);
    if (empty) drop_empty(out, c.first);
    return OK;
}

static int cut(const pretokenize_step *s, const matcher *m, pretokenized *into) {
    into->other.count = 0;
    for (size_t i = 0; i < into->words.count; i++) {
        int code = cut_word(s, m, into->text, into->words.at[i], &into->other);
        if (code != OK) return code;
    }
    span_list t = into->words;
    into->words = into->other, into->other = t;
    return OK;
}

/* ---- rewriting ---- */

static void space_in_front(view word, buf *out) {
    if (word.size && word.data[0] != ' ') buf_char(out, ' ');
    buf_append(out, word.data, word.size);
}

static void metaspace(const pretokenize_step *s, view word, bool first, buf *out) {
    size_t n = strlen(s->replacement);
    bool   has = word.size >= n && memcmp(word.data, s->replacement, n) == 0;
    if (word.size && word.data[0] == ' ') has = true;
    if (!has && (s->prepend == PREPEND_ALWAYS || (s->prepend == PREPEND_FIRST && first))) buf_append(out, s->replacement, n);
    for (size_t i = 0; i < word.size;) {
        const char *space = memchr(word.data + i, ' ', word.size - i);
        size_t      run = space ? (size_t)(space - word.data) - i : word.size - i;
        buf_append(out, word.data + i, run);
        if (space) buf_append(out, s->replacement, n);
        i += run + 1;
    }
}

static int rewrite(const pretokenize_step *s, const matcher *m, pretokenized *into, buf *out) {
    buf_clear(out);
    for (size_t i = 0; i < into->words.count; i++) {
        span  *w = &into->words.at[i];
        view   word = {into->text.data + w->start, w->end - w->start};
        size_t start = out->size;
        if (s->op == PRETOKENIZE_METASPACE) metaspace(s, word, into->at_start && i == 0, out);
        else space_in_front(word, out);
        *w = (span){(uint32_t)start, (uint32_t)out->size};
    }
    if (buf_overflowed(out))
        return error_set(m->err, ERR_TOO_LARGE, "the text with its spaces replaced is longer than %zu bytes", out->limit);
    into->text = (view){out->data ? out->data : "", out->size};
    return OK;
}

int pretokenizer_apply(const pretokenizer *p, const matcher *m, pretokenized *into) {
    unsigned written = 0; /* the two buffers take turns */
    int      code = OK;
    into->words.count = 0;
    if (into->text.size) span_push(&into->words, 0, (uint32_t)into->text.size);
    for (unsigned i = 0; i < p->count && code == OK; i++) {
        const pretokenize_step *s = &p->steps[i];
        code = s->op == PRETOKENIZE_SPLIT ? cut(s, m, into) : rewrite(s, m, into, &into->rewritten[written++ & 1]);
    }
    return code;
}
