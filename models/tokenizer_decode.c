/* models/tokenizer_decode.c: ids back to text, whole or as they come.
 *
 * There is one decoder, the streaming one; decoding a list is feeding it. Each token has bytes of its own, the same
 * wherever it stands (but for the very beginning of the text), so the text is their concatenation, with what is not
 * UTF-8 replaced by U+FFFD, one for each maximal subpart. Only a sequence that is still incomplete is held back, at
 * most three bytes.
 *
 * One deliberate difference: the reference replaces a whole run of "<0xNN>" tokens by as many U+FFFD if any part of it
 * is malformed. That could not be streamed, and would destroy good text; here good sequences in such a run survive. */
#include <string.h>

#include "base/utf8.h"
#include "models/tokenizer_internal.h"

/* ---- reading ---- */

static int read_one(decoder *d, const cJSON *json, error *err);

/* The next step, or NULL with the error set. */
static decode_step *add_step(decoder *d, error *err) {
    if (d->count < STEPS_MAX && !d->fused && !d->byte_level) return &d->steps[d->count++];
    if (d->count == STEPS_MAX) error_set(err, ERR_TOO_LARGE, "more than %d decoders", STEPS_MAX);
    else
        error_set(err, ERR_UNSUPPORTED,
                  "a decoder after Fuse or ByteLevel is not supported, other than one Strip on the left");
    return NULL;
}

static int read_byte_level(decoder *d, const cJSON *json, error *err) {
    (void)json, (void)err;
    d->byte_level = d->fused = true;
    return OK;
}

static int read_byte_fallback(decoder *d, const cJSON *json, error *err) {
    (void)json, (void)err;
    d->byte_fallback = true;
    return OK;
}

static int read_fuse(decoder *d, const cJSON *json, error *err) {
    (void)json, (void)err;
    d->fused = true;
    return OK;
}

static int read_replace(decoder *d, const cJSON *json, error *err) {
    decode_step *s = add_step(d, err);
    const char  *text = NULL;
    int          code;
    if (!s) return err->code;
    s->op = DECODE_REPLACE;
    const cJSON *find = json_get(json, "pattern");
    if (cJSON_IsObject(find) && json_get(find, "Regex"))
        return error_set(err, ERR_UNSUPPORTED, "a decoder that replaces by a regular expression is not supported");
    if ((code = pattern_read(&s->find, find, err)) != OK) return code;
    if ((code = json_read_string(json, "content", &text, err)) != OK) return code;
    if (!text || strlen(text) > ADDED_TEXT_MAX)
        return error_set(err, ERR_INVALID, "the 'content' of a Replace must be a string of at most %d bytes",
                         ADDED_TEXT_MAX);
    if (!(s->text = strdup(text))) fatal("out of memory for a decoder");
    return OK;
}

static int read_strip(decoder *d, const cJSON *json, error *err) {
    const char *content = NULL;
    uint32_t    left = 0, right = 0;
    int         code = json_read_string(json, "content", &content, err);
    if (code == OK) code = json_read_u32(json, "start", 0, 1 << 20, &left, err);
    if (code == OK) code = json_read_u32(json, "stop", 0, 1 << 20, &right, err);
    if (code != OK) return code;
    if (!content || strlen(content) != 1)
        return error_set(err, ERR_UNSUPPORTED, "the decoder Strip must have one ASCII character as 'content'");
    if (d->fused && !d->byte_level && right == 0 && d->strip_left == 0)
        return d->strip_char = *content, d->strip_left = left, OK;
    decode_step *s = add_step(d, err);
    if (!s) return err->code;
    *s = (decode_step){.op = DECODE_STRIP, .strip_char = *content, .strip_left = left, .strip_right = right};
    return OK;
}

static int read_metaspace(decoder *d, const cJSON *json, error *err) {
    decode_step   *s = add_step(d, err);
    prepend_scheme scheme = PREPEND_ALWAYS;
    if (!s) return err->code;
    int code = metaspace_read(json, s->replacement, &scheme, err);
    if (code == OK) s->op = DECODE_METASPACE, s->drop_first = scheme != PREPEND_NEVER;
    return code;
}

static int read_sequence(decoder *d, const cJSON *json, error *err) {
    const cJSON *list = json_get(json, "decoders"), *item;
    if (!cJSON_IsArray(list)) return error_set(err, ERR_INVALID, "the decoder 'Sequence' has no array 'decoders'");
    cJSON_ArrayForEach(item, list) {
        int code = read_one(d, item, err);
        if (code != OK) return code;
    }
    return OK;
}

static const struct {
    const char *type;
    int (*read)(decoder *, const cJSON *, error *);
} kinds[] = {
    {"Sequence", read_sequence}, {"ByteLevel", read_byte_level}, {"ByteFallback", read_byte_fallback}, {"Fuse", read_fuse},
    {"Replace", read_replace},   {"Strip", read_strip},          {"Metaspace", read_metaspace},
};

static int read_one(decoder *d, const cJSON *json, error *err) {
    const char *type = NULL;
    if (json_read_string(json, "type", &type, err) != OK) return err->code;
    if (!type) return error_set(err, ERR_INVALID, "a decoder has no 'type'");
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(type, kinds[i].type) == 0) return kinds[i].read(d, json, err);
    return error_set(
        err, ERR_UNSUPPORTED,
        "the decoder '%.60s' is not supported (supported: ByteLevel, ByteFallback, Fuse, Replace, Strip, Metaspace, "
        "Sequence)",
        type);
}

int decoder_read(decoder *d, const cJSON *json, error *err) {
    if (!json || cJSON_IsNull(json))
        return error_set(err, ERR_UNSUPPORTED, "there is no 'decoder'; without one ids cannot become text");
    return read_one(d, json, err);
}

void decoder_free(decoder *d) {
    for (unsigned i = 0; i < d->count; i++) pattern_free(&d->steps[i].find), free(d->steps[i].text);
}

/* ---- the bytes of one token ---- */

static void replace_literal(view text, const char *find, const char *by, buf *out) {
    size_t n = strlen(find), at = 0;
    for (const char *hit; n && (hit = memmem(text.data + at, text.size - at, find, n)); at = (size_t)(hit - text.data) + n) {
        buf_append(out, text.data + at, (size_t)(hit - text.data) - at);
        buf_str(out, by);
    }
    buf_append(out, text.data + at, text.size - at);
}

static view strip_token(const decode_step *s, view text) {
    for (uint32_t i = 0; i < s->strip_left && text.size && *text.data == s->strip_char; i++) text.data++, text.size--;
    for (uint32_t i = 0; i < s->strip_right && text.size && text.data[text.size - 1] == s->strip_char; i++) text.size--;
    return text;
}

/* "<0xNN>" */
static bool is_byte_token(view text, char *byte) {
    char *end, hex[3] = {0};
    if (text.size != 6 || memcmp(text.data, "<0x", 3) || text.data[5] != '>') return false;
    memcpy(hex, text.data + 3, 2);
    *byte = (char)strtoul(hex, &end, 16);
    return end == hex + 2 && hex[0] != '+' && hex[0] != '-' && hex[0] != ' ';
}

/* Appends what the token adds to a text, not yet checked for UTF-8. `first`: it begins the text. */
static void token_text(const tokenizer *t, uint32_t id, bool first, buf *out) {
    const decoder *d = &t->decoder;
    view           text = vocab_bytes(&t->model.vocab, id);
    char           byte;
    if (d->byte_fallback && is_byte_token(text, &byte)) return buf_char(out, byte);
    if (d->count == 0) return buf_append(out, text.data, text.size);
    buf scratch[2];
    buf_init(&scratch[0], UINT32_MAX), buf_init(&scratch[1], UINT32_MAX);
    for (unsigned i = 0; i < d->count; i++) {
        const decode_step *s = &d->steps[i];
        buf               *into = &scratch[i & 1];
        if (s->op == DECODE_STRIP) {
            text = strip_token(s, text);
            buf_clear(into);
            buf_append(into, text.data, text.size);
        } else {
            buf_clear(into);
            if (s->op == DECODE_REPLACE) replace_literal(text, s->find.literal, s->text, into);
            else replace_literal(text, s->replacement, first && s->drop_first ? "" : " ", into);
        }
        text = (view){into->data ? into->data : "", into->size};
    }
    buf_append(out, text.data, text.size);
    buf_free(&scratch[0]), buf_free(&scratch[1]);
}

void tokenizer_token_bytes(const tokenizer *t, uint32_t id, buf *out) { token_text(t, id, false, out); }

/* ---- streaming ---- */

void detokenizer_init(detokenizer *d, const tokenizer *t, bool keep_special) {
    *d = (detokenizer){.t = t, .keep_special = keep_special, .at_start = true, .strip_left = t->decoder.strip_left};
}

void detokenizer_continue(detokenizer *d) { d->at_start = false, d->strip_left = 0; }

static const char replacement[] = "\xEF\xBF\xBD";

/* Passes on what is settled of the held bytes. */
static void settle(detokenizer *d, buf *out) {
    while (d->held_count) {
        uint32_t cp;
        int      n = utf8_decode(d->held, d->held_count, &cp);
        if (n > 0) buf_append(out, d->held, (size_t)n);
        else if (utf8_incomplete_tail(d->held, d->held_count) == d->held_count) return;
        else n = -n, buf_append(out, replacement, 3);
        d->held_count -= (uint8_t)n;
        memmove(d->held, d->held + n, d->held_count);
    }
}

static void emit(detokenizer *d, view bytes, buf *out) {
    size_t i = 0;
    for (; d->held_count && i < bytes.size; i++) d->held[d->held_count++] = bytes.data[i], settle(d, out);
    while (i < bytes.size) {
        uint32_t cp;
        size_t   run = i;
        int      n = 0;
        while (run < bytes.size && (n = utf8_decode(bytes.data + run, bytes.size - run, &cp)) > 0) run += (size_t)n;
        buf_append(out, bytes.data + i, run - i);
        i = run;
        if (i < bytes.size && i + (size_t)-n == bytes.size &&
            utf8_incomplete_tail(bytes.data + i, (size_t)-n) == (size_t)-n) {
            memcpy(d->held, bytes.data + i, (size_t)-n);
            d->held_count = (uint8_t)-n;
            return;
        }
        if (i < bytes.size) buf_append(out, replacement, 3), i += (size_t)-n;
    }
}

void detokenizer_feed(detokenizer *d, uint32_t id, buf *out) {
    const tokenizer *t = d->t;
    if (id >= t->model.vocab.id_end || !(t->model.vocab.tokens[id].flags & TOKEN_PRESENT)) return;
    if (!d->keep_special && tokenizer_is_special(t, id)) return;
    buf own;
    buf_init(&own, UINT32_MAX);
    view bytes = vocab_bytes(&t->model.vocab, id);
    if (!t->decoder.byte_level || t->decoder.count || t->decoder.byte_fallback) {
        token_text(t, id, d->at_start, &own);
        bytes = (view){own.data ? own.data : "", own.size};
    }
    d->at_start = false;
    while (d->strip_left && bytes.size) {
        bool strip = bytes.data[0] == t->decoder.strip_char;
        d->strip_left = strip ? d->strip_left - 1 : 0;
        if (strip) bytes.data++, bytes.size--;
    }
    emit(d, bytes, out);
    buf_free(&own);
}

void detokenizer_finish(detokenizer *d, buf *out) {
    if (d->held_count) buf_append(out, replacement, 3); /* an incomplete sequence is one maximal subpart */
    d->held_count = 0;
}

int tokenizer_decode(const tokenizer *t, const uint32_t *ids, size_t n, bool keep_special, buf *out, error *err) {
    detokenizer d;
    for (size_t i = 0; i < n; i++)
        if (ids[i] >= t->model.vocab.id_end)
            return error_set(err, ERR_INVALID, "there is no token %u; the vocabulary ends at %u", ids[i],
                             t->model.vocab.id_end - 1);
    detokenizer_init(&d, t, keep_special);
    for (size_t i = 0; i < n; i++) detokenizer_feed(&d, ids[i], out);
    detokenizer_finish(&d, out);
    return buf_overflowed(out) ? error_set(err, ERR_TOO_LARGE, "the decoded text is longer than %zu bytes", out->limit) : OK;
}
