/* The engine's front door: who is counted as waiting before whom, whatever becomes of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "engine/requests.h"

static const request_limits limits = {
    .vocab_size = 100, .context_max = 100, .page_count = 100, .page_tokens = 16, .requests_max = 4};

static int put(requests *q, uint64_t id, uint32_t prompt_tokens, int32_t priority) {
    engine_request r = {.id = id,
                        .tokens = calloc(prompt_tokens, sizeof(uint32_t)),
                        .prompt_tokens = prompt_tokens,
                        .output_tokens_max = 1,
                        .priority = priority};
    const int      status = requests_put(q, &r, 1, &limits, NULL);
    if (status != OK) free(r.tokens);
    return status;
}

static void expect_before(const requests *q, int32_t priority, uint32_t count, uint64_t tokens) {
    uint32_t got_count;
    uint64_t got_tokens;
    requests_fresh_before(q, priority, &got_count, &got_tokens);
    assert_int_equal(got_count, count);
    assert_int_equal(got_tokens, tokens);
}

static void the_patient_do_not_count_before_the_urgent(void **state) {
    (void)state;
    requests q;
    requests_init(&q, 8);
    put(&q, 1, 10, 0), put(&q, 2, 20, 100), put(&q, 3, 5, -100);
    expect_before(&q, -7, 1, 5);
    expect_before(&q, 0, 2, 15);
    expect_before(&q, 1, 3, 35);
    requests_destroy(&q);
}

static void who_began_or_left_waits_no_more(void **state) {
    (void)state;
    requests q;
    requests_init(&q, 8);
    put(&q, 1, 10, 0), put(&q, 2, 20, 0), put(&q, 3, 30, 0);
    request *first = requests_next_new(&q), *second = requests_next_new(&q);
    expect_before(&q, 0, 3, 60); /* the scheduler has two of them; none runs */
    requests_began(&q, first);
    requests_began(&q, first); /* a pass may hold two pieces of it */
    expect_before(&q, 0, 2, 50);
    requests_put_back(&q, second);
    expect_before(&q, 0, 2, 50);
    requests_cancel(&q, 3);
    requests_release(&q, requests_next_cancelled(&q));
    expect_before(&q, 0, 1, 20);
    requests_release(&q, first);
    requests_release(&q, requests_next_new(&q));
    expect_before(&q, INT32_MAX, 0, 0);
    requests_destroy(&q);
}

static void no_more_are_taken_than_may_wait_and_run(void **state) {
    (void)state;
    requests q;
    requests_init(&q, 8);
    for (uint64_t id = 1; id <= 4; id++) assert_int_equal(put(&q, id, 1, 0), OK);
    assert_int_equal(put(&q, 5, 1, 0), ERR_FULL);
    requests_release(&q, requests_next_new(&q));
    assert_int_equal(put(&q, 5, 1, 0), OK);
    requests_destroy(&q);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_patient_do_not_count_before_the_urgent),
        cmocka_unit_test(who_began_or_left_waits_no_more),
        cmocka_unit_test(no_more_are_taken_than_may_wait_and_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
