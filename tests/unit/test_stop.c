/* server/stop.h against the obvious search, on many random texts of few letters. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "server/stop.h"

static void add(stop_set *s, const char *text) { assert_true(stop_set_add(s, text, strlen(text))); }

static void a_stop_string_is_found_where_it_ends(void **state) {
    (void)state;
    stop_set   s = {0};
    stop_state at = {0};
    size_t     length;
    add(&s, "END");
    assert_int_equal(stop_feed(&s, &at, "the EN", 6, &length), STOP_NONE);
    assert_int_equal(stop_held(&s, &at), 2);
    assert_int_equal(stop_feed(&s, &at, "D of it", 7, &length), 1);
    assert_int_equal(length, 3);
    stop_set_free(&s);
}

static void of_two_that_end_together_the_longer_is_cut(void **state) {
    (void)state;
    stop_set   s = {0};
    stop_state at = {0};
    size_t     length;
    add(&s, "b"), add(&s, "aab");
    assert_int_equal(stop_feed(&s, &at, "xaab", 4, &length), 4);
    assert_int_equal(length, 3);
    stop_set_free(&s);
}

static void strings_that_cannot_be_are_not_taken(void **state) {
    (void)state;
    stop_set s = {0};
    char     longest[STOP_BYTES_MAX + 1];
    memset(longest, 'x', sizeof longest);
    assert_false(stop_set_add(&s, "", 0));
    assert_false(stop_set_add(&s, longest, sizeof longest));
    assert_true(stop_set_add(&s, longest, sizeof longest - 1));
    for (int i = 1; i < STOPS_MAX; i++) add(&s, "y");
    assert_false(stop_set_add(&s, "z", 1));
    stop_set_free(&s);
}

/* Longest end of text[0..n) that some stop string begins with. */
static size_t held_by_search(const stop_set *s, const char *text, size_t n) {
    size_t longest = 0;
    for (uint32_t i = 0; i < s->count; i++)
        for (size_t k = 1; k < s->of[i].length && k <= n; k++)
            if (memcmp(text + n - k, s->of[i].bytes, k) == 0 && k > longest) longest = k;
    return longest;
}

static void random_texts_agree_with_the_obvious_search(void **state) {
    (void)state;
    rng r = {.seed = 7};
    for (int round = 0; round < 3000; round++) {
        stop_set   s = {0};
        stop_state at = {0};
        char       text[64], word[8];
        size_t     length, n = 0, end = STOP_NONE;
        for (uint64_t k = 1 + rng_below(&r, 3); k > 0; k--) {
            size_t size = 1 + rng_below(&r, 6);
            for (size_t i = 0; i < size; i++) word[i] = (char)('a' + rng_below(&r, 2));
            stop_set_add(&s, word, size);
        }
        while (n < sizeof text && end == STOP_NONE) {
            text[n] = (char)('a' + rng_below(&r, 2));
            end = stop_feed(&s, &at, text + n, 1, &length);
            n++;
            size_t longest = 0;
            for (uint32_t i = 0; i < s.count; i++)
                if (s.of[i].length <= n && memcmp(text + n - s.of[i].length, s.of[i].bytes, s.of[i].length) == 0 &&
                    s.of[i].length > longest)
                    longest = s.of[i].length;
            assert_int_equal(end != STOP_NONE, longest > 0);
            if (longest) assert_int_equal(length, longest);
            else assert_int_equal(stop_held(&s, &at), held_by_search(&s, text, n));
        }
        stop_set_free(&s);
    }
}

static void hostile_strings_cost_a_step_per_byte(void **state) {
    (void)state;
    stop_set   s = {0};
    stop_state at = {0};
    size_t     length, held = 0;
    char       a[STOP_BYTES_MAX];
    memset(a, 'a', sizeof a);
    a[sizeof a - 1] = 'b';
    for (int i = 0; i < STOPS_MAX; i++) stop_set_add(&s, a, sizeof a);
    memset(a, 'a', sizeof a);
    for (int i = 0; i < 500; i++) { /* quadratic would take minutes */
        assert_int_equal(stop_feed(&s, &at, a, sizeof a, &length), STOP_NONE);
        held = stop_held(&s, &at);
    }
    assert_int_equal(held, sizeof a - 1);
    stop_set_free(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stop_string_is_found_where_it_ends), cmocka_unit_test(of_two_that_end_together_the_longer_is_cut),
        cmocka_unit_test(strings_that_cannot_be_are_not_taken), cmocka_unit_test(random_texts_agree_with_the_obvious_search),
        cmocka_unit_test(hostile_strings_cost_a_step_per_byte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
