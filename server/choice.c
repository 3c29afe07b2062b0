#include "server/choice.h"

#include <stdlib.h>
#include <string.h>

static void begin_text(choice *c, bool continues) {
    if (!c->rules->tokenizer) return;
    detokenizer_init(&c->detokenizer, c->rules->tokenizer, c->rules->keep_special);
    if (continues) detokenizer_continue(&c->detokenizer);
}

void choice_init(choice *c, const choice_rules *rules, bool continues) {
    *c = (choice){.rules = rules};
    buf_init(&c->text, CHOICE_TEXT_MAX);
    begin_text(c, continues);
}

void choice_free(choice *c) {
    buf_free(&c->text);
    free(c->entries), free(c->tops), free(c->ids);
    c->entries = NULL, c->tops = NULL, c->ids = NULL;
}

static void *grow(void *items, uint32_t count, uint32_t *capacity, size_t item_bytes) {
    if (count < *capacity) return items;
    *capacity = *capacity ? *capacity * 2 : 16;
    void *grown = realloc(items, *capacity * item_bytes);
    if (!grown) fatal("out of memory for the %u tokens of an answer", *capacity);
    return grown;
}

static void take_logprob(choice *c, const sampled *s) {
    c->entries = grow(c->entries, c->entry_count, &c->entry_capacity, sizeof *c->entries);
    c->entries[c->entry_count++] = (logprob_entry){
        .token = s->token,
        .char_begin = c->chars,
        .text_begin = c->text_base + c->text.size,
        .logprob = s->logprob,
        .top_begin = c->top_count,
        .top_count = s->top_count,
    };
    for (uint32_t i = 0; i < s->top_count && i < TOP_LOGPROBS_MAX; i++) {
        c->tops = grow(c->tops, c->top_count, &c->top_capacity, sizeof *c->tops);
        c->tops[c->top_count++] = (logprob_top){s->top_ids[i], s->top_logprobs[i]};
    }
}

static void count_chars(choice *c, size_t from) {
    for (size_t i = from; i < c->text.size; i++) c->chars += ((unsigned char)c->text.data[i] & 0xC0) != 0x80;
}

/* Everything but `held` bytes at the end may be sent, and the entries whose text begins there. */
static void release(choice *c, size_t held) {
    size_t ready = c->text.size > held ? c->text.size - held : 0;
    if (ready > c->ready) c->ready = ready;
    while (c->entry_ready < c->entry_count && (held == 0 || c->entries[c->entry_ready].text_begin < c->text_base + c->ready))
        c->entry_ready++;
}

static void cut(choice *c, size_t at) {
    c->text.size = at;
    c->end = CHOICE_STOPPED;
    while (c->entry_count > c->entry_ready && c->entries[c->entry_count - 1].text_begin >= c->text_base + at)
        c->entry_count--;
    release(c, 0);
}

/* The text from `from` on is new. True where it completes a stop string. */
static bool look_for_stop(choice *c, size_t from) {
    size_t length, end;
    if (c->thinking) return release(c, 0), false;
    if (c->rules->stops.count == 0 || c->token_count <= c->rules->tokens_min) return release(c, 0), false;
    if (c->text.size == from) return release(c, stop_held(&c->rules->stops, &c->stops)), false;
    end = stop_feed(&c->rules->stops, &c->stops, c->text.data + from, c->text.size - from, &length);
    if (end == STOP_NONE) return release(c, stop_held(&c->rules->stops, &c->stops)), false;
    cut(c, from + end - (c->rules->include_stop ? 0 : length));
    return true;
}

/* ---- what is thought ---- */

void choice_begin_thinking(choice *c) {
    c->thinking = c->skips_empty_lines = true;
    c->content_begin = UINT64_MAX;
    begin_text(c, false);
}

static void end_thinking(choice *c) {
    if (c->rules->tokenizer) detokenizer_finish(&c->detokenizer, &c->text);
    release(c, 0);
    c->thinking = false;
    c->content_begin = c->text_base + c->text.size;
    c->skips_empty_lines = true;
    begin_text(c, false);
}

/* Whether the token only says that thinking begins, which it does before anything else, or ends. */
static bool is_mark(choice *c, uint32_t token) {
    const choice_rules *r = c->rules;
    if (r->think_end == 0) return false;
    if (c->thinking && token == r->think_end) return end_thinking(c), true;
    if (token == r->think_begin && !c->thinking && c->content_begin == 0 && c->text_base + c->text.size == 0)
        return choice_begin_thinking(c), true;
    return false;
}

static void skip_empty_lines(choice *c, size_t from) {
    size_t empty = from;
    if (!c->skips_empty_lines || c->text.size == from) return;
    while (empty < c->text.size && c->text.data[empty] == '\n') empty++;
    c->skips_empty_lines = empty == c->text.size;
    memmove(c->text.data + from, c->text.data + empty, c->text.size - empty);
    c->text.size -= empty - from;
}

bool choice_take(choice *c, const sampled *s, bool part_of_text) {
    if (c->end != CHOICE_GROWING) return false;
    c->token_count++;
    c->logprob_sum += s->logprob;
    if (c->rules->ids) {
        c->ids = grow(c->ids, c->id_count, &c->id_capacity, sizeof *c->ids);
        c->ids[c->id_count++] = s->token;
    }
    c->reasoning_tokens += c->thinking;
    if (!part_of_text || is_mark(c, s->token)) return false;
    size_t from = c->text.size;
    if (c->rules->logprobs && !c->thinking) take_logprob(c, s);
    if (c->rules->tokenizer) detokenizer_feed(&c->detokenizer, s->token, &c->text);
    else buf_printf(&c->text, " %u", s->token);
    skip_empty_lines(c, from);
    count_chars(c, from);
    return look_for_stop(c, from);
}

void choice_finish(choice *c, choice_end end) {
    if (c->end != CHOICE_GROWING) return;
    size_t from = c->text.size;
    if (c->rules->tokenizer) detokenizer_finish(&c->detokenizer, &c->text);
    count_chars(c, from);
    if (c->text.size > from && look_for_stop(c, from)) return;
    c->end = end;
    release(c, 0);
}

void choice_sent(choice *c, bool forget) {
    c->sent = c->ready;
    c->entry_sent = c->entry_ready;
    c->id_sent = c->id_count;
    if (!forget) return;
    size_t rest = c->text.size - c->sent;
    if (rest) memmove(c->text.data, c->text.data + c->sent, rest);
    c->text.size = rest;
    c->text_base += c->sent;
    c->sent = c->ready = 0;
    c->id_count = c->id_sent = 0;
    if (c->entry_sent == c->entry_count) c->entry_count = c->entry_sent = c->entry_ready = c->top_count = 0;
}
