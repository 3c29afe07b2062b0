/* The pass walker, on a device whose numbers show exactly what each row has seen. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "engine/walk.h"
#include "tests/unit/plane.h"
#include "tests/unit/symbolic_device.h"

enum { ROWS = 64, FRAMES = 24, FRAME_ROWS = 48, PAGES = 499, PAGE_TOKENS = 4, OUTPUTS = 16 };

typedef struct {
    program p;
    device *d;
} fixture;

static fixture fixture_new(void) {
    model_facts f = {.vocab_size = 97,
                     .width = 16,
                     .layer_count = 3,
                     .head_count = 4,
                     .kv_head_count = 2,
                     .head_dim = 8,
                     .ffn_width = 40,
                     .expert_count = 8,
                     .experts_per_token = 2,
                     .expert_width = 24,
                     .shared_width = 32};
    f.is_moe_layer[1] = true;
    fixture x;
    check(program_build(&x.p, &f, DTYPE_F32, NULL) == OK);
    return x;
}

static void open_device(fixture *x) {
    x->d = symbolic_new(&x->p, &(device_config){.rows_max = ROWS,
                                                .outputs_max = OUTPUTS,
                                                .frame_count = FRAMES,
                                                .frame_rows = FRAME_ROWS,
                                                .page_count = PAGES,
                                                .page_tokens = PAGE_TOKENS});
}

static void close_all(fixture *x) {
    symbolic_close(x->d);
    program_free(&x->p);
}

/* ---- single plans ---- */

typedef struct {
    uint32_t      tokens[256], pages[64];
    walk_sequence sequence[4];
} single;

static void find_single(void *context, const slice *s, walk_sequence *out) { *out = ((single *)context)->sequence[s->slot]; }

static single *single_new(void) {
    static const sampling greedy = {0};
    single               *s = calloc(1, sizeof *s);
    for (uint32_t i = 0; i < 256; i++) s->tokens[i] = i % 97;
    for (uint32_t i = 0; i < 64; i++) s->pages[i] = i;
    for (uint32_t i = 0; i < 4; i++)
        s->sequence[i] = (walk_sequence){.tokens = s->tokens,
                                         .prompt_tokens = 64,
                                         .pages = s->pages + 16 * i,
                                         .page_count = 16,
                                         .params = &greedy,
                                         .output_rows = 1};
    return s;
}

static walker *walker_over(const fixture *x, single *s, bool (*stop)(void *)) {
    return walker_new(&(walker_config){.api = &device_symbolic,
                                       .device = x->d,
                                       .program = &x->p,
                                       .slices_max = 8,
                                       .slots_max = 4,
                                       .rows_max = ROWS,
                                       .outputs_max = OUTPUTS,
                                       .frame_count = FRAMES,
                                       .frame_rows = FRAME_ROWS,
                                       .page_tokens = PAGE_TOKENS,
                                       .stop = stop,
                                       .find = find_single,
                                       .context = s});
}

static void rows_are_absent_from_operators_their_slice_does_not_cover(void **state) {
    (void)state;
    fixture x = fixture_new();
    open_device(&x);
    single        *s = single_new();
    walker        *w = walker_over(&x, s, NULL);
    const uint32_t middle = x.p.layer_begin[1], n = x.p.op_count;
    const slice    first[] = {
           {.id = 1, .slot = 0, .token_end = 10, .op_end = middle, .frame_in = {NO_FRAME, 0}, .frame_out = {0, 0}},
           {.id = 2,
            .slot = 1,
            .token_end = 5,
            .op_end = n,
            .frame_in = {NO_FRAME, 0},
            .frame_out = {NO_FRAME, 0},
            .samples = true}};
    walk_result r;
    assert_int_equal(walker_walk(w, &(plan){.slice_count = 2, .slices = first}, &r, NULL), OK);
    for (uint32_t i = 0; i < n; i++) assert_int_equal(x.d->rows_of_op[i], i < middle ? 15 : i < x.p.outputs_begin ? 5 : 1);
    assert_int_equal(r.output_count, 1);
    assert_false(r.stopped);

    memset(x.d->rows_of_op, 0, sizeof x.d->rows_of_op);
    const slice second[] = {{.id = 3,
                             .slot = 2,
                             .token_end = 7,
                             .op_end = n,
                             .frame_in = {NO_FRAME, 0},
                             .frame_out = {NO_FRAME, 0},
                             .samples = true},
                            {.id = 1,
                             .slot = 0,
                             .token_end = 10,
                             .op_begin = middle,
                             .op_end = n,
                             .frame_in = {0, 0},
                             .frame_out = {NO_FRAME, 0}}};
    assert_int_equal(walker_walk(w, &(plan){.slice_count = 2, .slices = second}, &r, NULL), OK);
    for (uint32_t i = 0; i < n; i++) assert_int_equal(x.d->rows_of_op[i], i < middle ? 7 : i < x.p.outputs_begin ? 17 : 1);
    walker_free(w);
    free(s);
    close_all(&x);
}

static void a_chunk_that_draws_nothing_ends_with_its_last_kv_write(void **state) {
    (void)state;
    fixture x = fixture_new();
    open_device(&x);
    single     *s = single_new();
    walker     *w = walker_over(&x, s, NULL);
    const slice one = {
        .id = 1, .token_end = 9, .op_end = x.p.op_count, .frame_in = {NO_FRAME, 0}, .frame_out = {NO_FRAME, 0}};
    walk_result r;
    assert_int_equal(walker_walk(w, &(plan){.slice_count = 1, .slices = &one}, &r, NULL), OK);
    for (uint32_t i = 0; i < x.p.op_count; i++) assert_int_equal(x.d->rows_of_op[i], i < x.p.outputs_begin ? 9 : 0);
    assert_int_equal(r.output_count, 0);
    walker_free(w);
    free(s);
    close_all(&x);
}

static void several_rows_of_one_slice_can_be_drawn(void **state) {
    (void)state;
    fixture x = fixture_new();
    open_device(&x);
    single *s = single_new();
    s->sequence[0].output_rows = 4;
    walker     *w = walker_over(&x, s, NULL);
    slice       one = {.id = 1,
                       .token_end = 9,
                       .op_end = x.p.op_count,
                       .frame_in = {NO_FRAME, 0},
                       .frame_out = {NO_FRAME, 0},
                       .samples = true};
    walk_result r;
    assert_int_equal(walker_walk(w, &(plan){.slice_count = 1, .slices = &one}, &r, NULL), OK);
    assert_int_equal(r.output_count, 4);
    sampled four[4];
    memcpy(four, walker_sampled(w, 0), sizeof four);
    s->sequence[0].output_rows = 1;
    for (uint32_t i = 0; i < 4; i++) {
        one.token_end = 6 + i;
        assert_int_equal(walker_walk(w, &(plan){.slice_count = 1, .slices = &one}, &r, NULL), OK);
        assert_int_equal(walker_sampled(w, 0)->token, four[i].token);
    }
    walker_free(w);
    free(s);
    close_all(&x);
}

static bool stops_always(void *context) {
    (void)context;
    return true;
}

static void a_raised_flag_stops_after_one_operator_and_only_stoppable_passes(void **state) {
    (void)state;
    fixture x = fixture_new();
    open_device(&x);
    single     *s = single_new();
    walker     *w = walker_over(&x, s, stops_always);
    const slice one = {
        .id = 1, .token_end = 9, .op_end = x.p.op_count, .frame_in = {NO_FRAME, 0}, .frame_out = {3, 0}, .samples = true};
    walk_result r;
    assert_int_equal(walker_walk(w, &(plan){.slice_count = 1, .slices = &one, .stoppable = true}, &r, NULL), OK);
    assert_true(r.stopped);
    assert_int_equal(r.stop_op, 1);
    slice on = one;
    on.op_begin = 1, on.frame_in = on.frame_out;
    for (uint32_t i = 2; i <= x.p.layer_begin[x.p.layer_count]; i++) { /* one operator at a time, to the end */
        assert_int_equal(walker_walk(w, &(plan){.slice_count = 1, .slices = &on, .stoppable = true}, &r, NULL), OK);
        assert_int_equal(r.stop_op, i);
        on.op_begin = i;
    }
    assert_int_equal(walker_walk(w, &(plan){.slice_count = 1, .slices = &on, .stoppable = true}, &r, NULL), OK);
    assert_false(r.stopped);
    const uint32_t token = walker_sampled(w, 0)->token;
    assert_int_equal(walker_walk(w, &(plan){.slice_count = 1, .slices = &one}, &r, NULL), OK);
    assert_false(r.stopped);
    assert_int_equal(walker_sampled(w, 0)->token, token);
    walker_free(w);
    free(s);
    close_all(&x);
}

static void a_device_error_names_operator_rows_and_pass(void **state) {
    (void)state;
    fixture x = fixture_new();
    open_device(&x);
    single     *s = single_new();
    walker     *w = walker_over(&x, s, NULL);
    const slice one = {
        .id = 1, .token_end = 9, .op_end = x.p.op_count, .frame_in = {NO_FRAME, 0}, .frame_out = {NO_FRAME, 0}};
    walk_result r;
    error       err;
    x.d->fail_after = 4;
    assert_int_equal(walker_walk(w, &(plan){.slice_count = 1, .slices = &one}, &r, &err), ERR_DEVICE);
    assert_string_equal(err.text, "attention, layer 0, 9 rows, pass 1: the device was told to fail");
    walker_free(w);
    free(s);
    close_all(&x);
}

/* A broken invariant stops the process, so it is tried in a child. */
static bool dies(const slice *slices, uint32_t count) {
    fflush(NULL);
    const pid_t child = fork();
    if (child == 0) {
        if (!freopen("/dev/null", "w", stderr)) _exit(1);
        signal(SIGABRT, SIG_DFL);
        fixture x = fixture_new();
        open_device(&x);
        single     *s = single_new();
        walker     *w = walker_over(&x, s, NULL);
        walk_result r;
        for (uint32_t i = 0; i < count; i++) walker_walk(w, &(plan){.slice_count = 1, .slices = &slices[i]}, &r, NULL);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status);
}

static void a_broken_staircase_stops_the_process(void **state) {
    (void)state;
    fixture        x = fixture_new();
    const uint32_t n = x.p.op_count;
    const slice    good[] = {
           {.id = 1, .token_end = 8, .op_end = 10, .frame_in = {NO_FRAME, 0}, .frame_out = {0, 0}},
           {.id = 1, .token_begin = 8, .token_end = 16, .op_end = 10, .frame_in = {NO_FRAME, 0}, .frame_out = {1, 0}}};
    assert_false(dies(good, 2));
    slice bad[2] = {good[0], good[1]};
    bad[1].op_end = 11; /* later tokens get ahead of suspended earlier ones */
    assert_true(dies(bad, 2));
    bad[1] = (slice){.id = 1, .token_end = 8, .op_begin = 10, .op_end = n, .frame_in = {0, 0}, .frame_out = {NO_FRAME, 0}};
    assert_false(dies(bad, 2));
    bad[1].op_begin = 9; /* not where it was left */
    assert_true(dies(bad, 2));
    bad[1] = (slice){.id = 2, .token_end = 8, .op_begin = 10, .op_end = n, .frame_in = {0, 0}, .frame_out = {NO_FRAME, 0}};
    assert_true(dies(bad, 2)); /* somebody else's frame */
    program_free(&x.p);
}

/* ---- every way to walk ---- */

static void ask(plane_sequence *q, uint32_t prompt, uint32_t outputs, uint32_t salt) {
    *q = (plane_sequence){.prompt_tokens = prompt, .output_tokens = outputs, .shares_with = -1};
    for (uint32_t i = 0; i < prompt; i++) q->tokens[i] = (i * 31 + salt) % 97;
}

static void what_a_row_has_seen_does_not_depend_on_cuts_stops_or_neighbours(void **state) {
    (void)state;
    enum { COUNT = 7 };
    static plane_sequence alone[COUNT], together[COUNT];
    const uint32_t        prompts[COUNT] = {1, 40, 17, 33, 48, 5, 30};
    uint64_t              stops = 0;
    for (uint32_t i = 0; i < COUNT; i++) ask(&alone[i], prompts[i], 3 + i % 4, i % 2);
    alone[6].shares_with = 4, alone[6].shared_tokens = 28;
    ask(&alone[4], 48, 3, 0);
    fixture x = fixture_new();
    open_device(&x);
    plane_config c = {.api = &device_symbolic,
                      .device = x.d,
                      .program = &x.p,
                      .rows_max = ROWS,
                      .frame_count = FRAMES,
                      .frame_rows = FRAME_ROWS,
                      .page_count = PAGES,
                      .page_tokens = PAGE_TOKENS,
                      .vocab_size = 2};
    for (uint32_t i = 0; i < COUNT; i++) {
        plane_sequence q = alone[i];
        q.shares_with = -1; /* alone nothing is cached */
        plane_run(&c, &q, 1, 0);
        q.shares_with = alone[i].shares_with;
        alone[i] = q;
    }
    for (uint64_t seed = 1; seed <= 300; seed++) {
        symbolic_close(x.d);
        open_device(&x);
        c.device = x.d;
        memcpy(together, alone, sizeof alone);
        for (uint32_t i = 0; i < COUNT; i++) memset(together[i].logits_hash, 0, sizeof together[i].logits_hash);
        stops += plane_run(&c, together, COUNT, seed);
        for (uint32_t i = 0; i < COUNT; i++) {
            assert_memory_equal(together[i].tokens, alone[i].tokens, sizeof alone[i].tokens);
            assert_memory_equal(together[i].logits_hash, alone[i].logits_hash, sizeof alone[i].logits_hash);
        }
    }
    assert_true(stops > 300);
    close_all(&x);
}

static void scores_of_a_prompt_do_not_depend_on_cuts_stops_or_neighbours(void **state) {
    (void)state;
    enum { COUNT = 6 };
    static plane_sequence alone[COUNT], together[COUNT];
    const uint32_t        prompts[COUNT] = {2, 40, 17, 33, 48, 1};
    uint64_t              stops = 0;
    for (uint32_t i = 0; i < COUNT; i++) ask(&alone[i], prompts[i], 3 + i % 4, i % 2), alone[i].scored = i != 2;
    fixture x = fixture_new();
    open_device(&x);
    plane_config c = {.api = &device_symbolic,
                      .device = x.d,
                      .program = &x.p,
                      .rows_max = ROWS,
                      .frame_count = FRAMES,
                      .frame_rows = FRAME_ROWS,
                      .page_count = PAGES,
                      .page_tokens = PAGE_TOKENS,
                      .vocab_size = 2};
    for (uint32_t i = 0; i < COUNT; i++) plane_run(&c, &alone[i], 1, 0);
    for (uint64_t seed = 1; seed <= 200; seed++) {
        symbolic_close(x.d);
        open_device(&x);
        c.device = x.d;
        memcpy(together, alone, sizeof alone);
        stops += plane_run(&c, together, COUNT, seed);
        for (uint32_t i = 0; i < COUNT; i++) {
            assert_int_equal(together[i].scored_tokens, alone[i].scored ? prompts[i] - 1 : 0);
            assert_memory_equal(together[i].tokens, alone[i].tokens, sizeof alone[i].tokens);
            assert_memory_equal(together[i].score_hash, alone[i].score_hash, sizeof alone[i].score_hash);
        }
    }
    assert_true(stops > 200);
    close_all(&x);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_absent_from_operators_their_slice_does_not_cover),
        cmocka_unit_test(a_chunk_that_draws_nothing_ends_with_its_last_kv_write),
        cmocka_unit_test(several_rows_of_one_slice_can_be_drawn),
        cmocka_unit_test(a_raised_flag_stops_after_one_operator_and_only_stoppable_passes),
        cmocka_unit_test(a_device_error_names_operator_rows_and_pass),
        cmocka_unit_test(a_broken_staircase_stops_the_process),
        cmocka_unit_test(what_a_row_has_seen_does_not_depend_on_cuts_stops_or_neighbours),
        cmocka_unit_test(scores_of_a_prompt_do_not_depend_on_cuts_stops_or_neighbours),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
