/* tests/fake_tokenizer.h: a tokenizer whose tokens are bytes, and a chat template that joins the contents of messages.
 * Include it in ONE file of a program: it defines their functions, so the real ones are not linked. Token 256 ends a
 * sequence. */
#pragma once
#include <stdlib.h>
#include <string.h>

#include "models/chat.h"
#include "models/tokenizer.h"

enum { FAKE_EOS = 256, FAKE_VOCAB = 257 };

static struct {
    bool missing; /* the model has no tokenizer */
    bool thinks;  /* the bytes 1 and 2 stand around what is thought */
} fake_text;

struct tokenizer {
    int unused;
};
struct chat_format {
    int unused;
};
static tokenizer   fake_tokenizer;
static chat_format fake_chat;
bool               tokenizer_exists(const char *dir) { return (void)dir, !fake_text.missing; }
int tokenizer_open(tokenizer **out, const char *dir, error *err) { return (void)dir, (void)err, *out = &fake_tokenizer, OK; }
void tokenizer_close(tokenizer *t) { (void)t; }
void token_ids_free(token_ids *ids) { free(ids->ids); }
int  tokenizer_encode(const tokenizer *t, const char *text, size_t n, unsigned flags, token_ids *out, error *err) {
     (void)t, (void)flags, (void)err;
     out->ids = realloc(out->ids, (out->count + n + 1) * sizeof *out->ids);
     for (size_t i = 0; i < n; i++) out->ids[out->count++] = (unsigned char)text[i];
    return OK;
}
int tokenizer_decode(const tokenizer *t, const uint32_t *ids, size_t n, bool keep_special, buf *out, error *err) {
    (void)t, (void)keep_special;
    for (size_t i = 0; i < n; i++) {
        if (ids[i] >= FAKE_VOCAB)
            return error_set(err, ERR_INVALID, "token id %u is outside the vocabulary of %d", ids[i], FAKE_VOCAB);
        if (ids[i] < 256) buf_char(out, (char)ids[i]);
    }
    return OK;
}
int64_t tokenizer_id_of(const tokenizer *t, const char *token) {
    (void)t;
    return !fake_text.thinks ? -1 : strcmp(token, "<think>") == 0 ? 1 : strcmp(token, "</think>") == 0 ? 2 : -1;
}
void tokenizer_token_bytes(const tokenizer *t, uint32_t id, buf *out) {
    (void)t, id < 256 ? buf_char(out, (char)id) : buf_str(out, "<eos>");
}
bool tokenizer_is_special(const tokenizer *t, uint32_t id) { return (void)t, id >= 256; }
/* Holds an unfinished UTF-8 sequence back, as the real one does. */
void detokenizer_init(detokenizer *d, const tokenizer *t, bool keep_special) {
    *d = (detokenizer){.t = t, .keep_special = keep_special};
}
void detokenizer_continue(detokenizer *d) { d->at_start = false; }
void detokenizer_feed(detokenizer *d, uint32_t id, buf *out) {
    if (id >= 256) return;
    unsigned char b = (unsigned char)id;
    if (d->held_count == 0 && b < 0x80) return buf_char(out, (char)b);
    d->held[d->held_count++] = b;
    unsigned char lead = d->held[0];
    uint8_t       need = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
    if (d->held_count == need) buf_append(out, d->held, need), d->held_count = 0;
}
void detokenizer_finish(detokenizer *d, buf *out) {
    if (d->held_count) buf_str(out, "\xEF\xBF\xBD");
    d->held_count = 0;
}
int chat_format_open(chat_format **out, const char *dir, const char *file, error *err) {
    return (void)dir, (void)file, (void)err, *out = &fake_chat, OK;
}
void chat_format_close(chat_format *c) { (void)c; }
int  chat_encode(const chat_format *c, const tokenizer *t, cJSON *context, int64_t now, token_ids *out, error *err) {
     (void)c, (void)now;
     for (const cJSON *m = json_get(context, "messages")->child; m; m = m->next) {
         const cJSON *content = json_get(m, "content");
         if (cJSON_IsString(content)) tokenizer_encode(t, content->valuestring, strlen(content->valuestring), 0, out, err);
    }
     return tokenizer_encode(t, "\n", 1, 0, out, err);
}
