/* server/choice.h: how an answer grows, with a tokenizer whose tokens are bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "base/utf8.h"
#include "server/choice.h"
#include "tests/fake_engine.h"

static choice_rules rules_with(const char *const *stops, size_t n) {
    choice_rules r = {.tokenizer = &fake_tokenizer, .logprobs = true};
    for (size_t i = 0; i < n; i++) assert_true(stop_set_add(&r.stops, stops[i], strlen(stops[i])));
    return r;
}

static bool take(choice *c, unsigned char byte) {
    sampled s = {.token = byte, .logprob = -1};
    return choice_take(c, &s, true);
}

/* What a client has been sent, as a stream: every event's bytes must be valid UTF-8 by themselves. */
typedef struct {
    buf      text;
    uint32_t entries, events;
} reader;

static void read_ready(reader *r, choice *c) {
    if (!choice_unsent(c) && c->entry_ready == c->entry_sent) return;
    assert_true(utf8_valid(c->text.data + c->sent, choice_unsent(c)));
    buf_append(&r->text, c->text.data + c->sent, choice_unsent(c));
    r->entries += c->entry_ready - c->entry_sent;
    r->events++;
    choice_sent(c, true);
}

static const char *stream(const choice_rules *rules, const char *script, reader *r) {
    choice c;
    choice_init(&c, rules, false);
    *r = (reader){0};
    buf_init(&r->text, 1 << 20);
    buf_append(&r->text, "", 0);
    for (size_t i = 0; script[i] && c.end == CHOICE_GROWING; i++) take(&c, (unsigned char)script[i]), read_ready(r, &c);
    choice_finish(&c, CHOICE_LENGTH);
    read_ready(r, &c);
    choice_free(&c);
    return r->text.data;
}

static void text_ends_exactly_before_the_stop_string(void **state) {
    (void)state;
    static const char *const stops[] = {"</s>", "stop"};
    choice_rules             rules = rules_with(stops, 2);
    reader                   r;
    assert_string_equal(stream(&rules, "a < b </s> c", &r), "a < b ");
    assert_int_equal(r.entries, 6);
    buf_free(&r.text);
    assert_string_equal(stream(&rules, "never st", &r), "never st");
    assert_int_equal(r.entries, 8);
    buf_free(&r.text);
    rules.include_stop = true;
    assert_string_equal(stream(&rules, "don't stop now", &r), "don't stop");
    buf_free(&r.text);
    stop_set_free(&rules.stops);
}

static void nothing_that_might_be_a_stop_string_is_sent_early(void **state) {
    (void)state;
    static const char *const stops[] = {"abcd"};
    choice_rules             rules = rules_with(stops, 1);
    choice                   c;
    choice_init(&c, &rules, false);
    take(&c, 'x'), take(&c, 'a'), take(&c, 'b');
    assert_int_equal(choice_unsent(&c), 1);
    assert_int_equal(c.entry_ready, 1);
    take(&c, 'a'); /* "ab" cannot be one any more, the new 'a' can */
    assert_int_equal(choice_unsent(&c), 3);
    assert_int_equal(c.entry_ready, 3);
    assert_false(take(&c, 'b') || take(&c, 'c'));
    assert_true(take(&c, 'd'));
    assert_int_equal(c.end, CHOICE_STOPPED);
    assert_int_equal(choice_unsent(&c), 3);
    assert_int_equal(c.entry_count, 3);
    assert_int_equal(c.token_count, 7);
    assert_false(take(&c, 'z')); /* what comes after the end is ignored */
    assert_int_equal(c.token_count, 7);
    choice_free(&c);
    stop_set_free(&rules.stops);
}

static void a_character_is_never_sent_in_parts(void **state) {
    (void)state;
    choice_rules rules = rules_with(NULL, 0);
    reader       r;
    assert_string_equal(stream(&rules, "a\xC3\xA4\xE2\x82\xAC\xF0\x9F\x98\x80!", &r),
                        "a\xC3\xA4\xE2\x82\xAC\xF0\x9F\x98\x80!");
    assert_int_equal(r.entries, 11); /* a token each, whether or not it completed a character */
    buf_free(&r.text);
    assert_string_equal(stream(&rules, "a\xF0\x9F", &r), "a\xEF\xBF\xBD");
    buf_free(&r.text);
}

static void stop_strings_wait_for_the_fewest_tokens(void **state) {
    (void)state;
    static const char *const stops[] = {"a"};
    choice_rules             rules = rules_with(stops, 1);
    reader                   r;
    rules.tokens_min = 3;
    assert_string_equal(stream(&rules, "aaaaa", &r), "aaa");
    buf_free(&r.text);
    stop_set_free(&rules.stops);
}

/* ---- thoughts: the bytes 1 and 2 stand for <think> and </think> ---- */

typedef struct {
    buf thought, content;
} two_readers;

/* As reply.c cuts each event. */
static void read_both(two_readers *r, choice *c) {
    size_t thought = choice_reasoning(c, c->sent);
    buf_append(&r->thought, c->text.data ? c->text.data + c->sent : "", thought);
    buf_append(&r->content, c->text.data ? c->text.data + c->sent + thought : "", choice_unsent(c) - thought);
    choice_sent(c, true);
}

static void expect_thought(bool begun_by_prompt, const char *script, const char *thought, const char *content,
                           uint32_t reasoning_tokens) {
    static const char *const stops[] = {"END"};
    choice_rules             rules = rules_with(stops, 1);
    for (int streamed = 0; streamed < 2; streamed++) {
        choice      c;
        two_readers r;
        buf_init(&r.thought, 1 << 10), buf_init(&r.content, 1 << 10);
        buf_append(&r.thought, "", 0), buf_append(&r.content, "", 0);
        rules.think_begin = 1, rules.think_end = 2;
        choice_init(&c, &rules, false);
        if (begun_by_prompt) choice_begin_thinking(&c);
        for (size_t i = 0; script[i]; i++) {
            take(&c, (unsigned char)script[i]);
            if (streamed) read_both(&r, &c);
        }
        choice_finish(&c, CHOICE_LENGTH);
        read_both(&r, &c);
        assert_string_equal(r.thought.data ? r.thought.data : "", thought);
        assert_string_equal(r.content.data ? r.content.data : "", content);
        assert_int_equal(c.reasoning_tokens, reasoning_tokens);
        assert_int_equal(c.entry_count == 0 || c.entries[0].token == (unsigned char)content[0], true);
        buf_free(&r.thought), buf_free(&r.content);
        choice_free(&c);
    }
    stop_set_free(&rules.stops);
}

static void what_is_thought_is_told_apart(void **state) {
    (void)state;
    expect_thought(false, "plain", "", "plain", 0);
    expect_thought(false, "\1\nhm\n\2\n\nyes", "hm\n", "yes", 5);
    expect_thought(true, "\nhm\2yes", "hm", "yes", 4);
    expect_thought(true, "hm", "hm", "", 2);                /* cut off in the middle of it */
    expect_thought(false, "\1\2yes", "", "yes", 1);         /* nothing was thought */
    expect_thought(false, "yes\1no\2", "", "yes\1no\2", 0); /* later such tokens are text */
    expect_thought(true, "an END\2an END", "an END", "an ", 7);
    expect_thought(true, "\xE2\x82\2\xE2\x82\xAC", "\xEF\xBF\xBD", "\xE2\x82\xAC", 3);
}

static void a_model_without_a_tokenizer_answers_with_ids(void **state) {
    (void)state;
    choice_rules rules = {0};
    reader       r;
    assert_string_equal(stream(&rules, "AB", &r), " 65 66");
    buf_free(&r.text);
}

static void the_stream_is_the_text_whatever_is_stopped_where(void **state) {
    (void)state;
    rng random = {.seed = 11};
    for (int round = 0; round < 2000; round++) {
        char        script[40], word[4] = {0};
        const char *stops[1] = {word};
        size_t      n = 1 + rng_below(&random, sizeof script - 1);
        for (size_t i = 0; i < n; i++) script[i] = (char)('a' + rng_below(&random, 2));
        script[n < sizeof script ? n : n - 1] = 0;
        for (size_t i = 0; i < 1 + rng_below(&random, 3); i++) word[i] = (char)('a' + rng_below(&random, 2));
        choice_rules rules = rules_with(stops, 1);
        reader       r;
        char        *cut = strstr(script, word);
        stream(&rules, script, &r);
        if (cut) *cut = 0;
        assert_string_equal(r.text.data, script);
        assert_int_equal(r.entries, strlen(script));
        buf_free(&r.text);
        stop_set_free(&rules.stops);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_ends_exactly_before_the_stop_string),
        cmocka_unit_test(nothing_that_might_be_a_stop_string_is_sent_early),
        cmocka_unit_test(a_character_is_never_sent_in_parts),
        cmocka_unit_test(stop_strings_wait_for_the_fewest_tokens),
        cmocka_unit_test(what_is_thought_is_told_apart),
        cmocka_unit_test(a_model_without_a_tokenizer_answers_with_ids),
        cmocka_unit_test(the_stream_is_the_text_whatever_is_stopped_where),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
