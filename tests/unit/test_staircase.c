/* The staircase of one sequence, and the frames that its open segments lie in. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>

#include "scheduler/staircase.h"

enum { OPS = 10, FRAMES = 2, FRAME_ROWS = 100 };

typedef struct {
    frame_pool frames;
    staircase  stairs;
    void      *memory;
} fixture;

static fixture open_stairs(uint32_t done) {
    fixture f = {.stairs = {.done = done}};
    carver  sizes = {0};
    frame_pool_init(&f.frames, FRAMES, FRAME_ROWS, &sizes);
    f.memory = calloc(1, sizes.used);
    assert_non_null(f.memory);
    frame_pool_init(&f.frames, FRAMES, FRAME_ROWS, &(carver){.memory = f.memory});
    return f;
}

/* A segment up to `token_end` that a pass left before operator `op`, at `row` of `frame`. */
static void leave_at(fixture *f, uint32_t token_end, uint32_t op, frame_place place) {
    uint32_t i = staircase_open(&f->stairs, token_end);
    f->stairs.open[i].op = op;
    f->stairs.open[i].place = place;
}

static void frames_are_bounded_and_shared_until_the_last_leaves(void **state) {
    (void)state;
    fixture f = open_stairs(0);
    assert_int_equal(frame_take(&f.frames), 0);
    assert_int_equal(frame_take(&f.frames), 1);
    assert_int_equal(frame_take(&f.frames), NO_FRAME);
    frame_join(&f.frames, 0);
    frame_leave(&f.frames, 0);
    assert_int_equal(frame_take(&f.frames), NO_FRAME);
    frame_leave(&f.frames, 0);
    assert_int_equal(frame_take(&f.frames), 0);
    free(f.memory);
}

static void what_crossed_all_operators_is_done_and_its_frame_is_free(void **state) {
    (void)state;
    fixture  f = open_stairs(5);
    uint32_t frame = frame_take(&f.frames);
    leave_at(&f, 25, 4, (frame_place){frame, 0});
    staircase_check(&f.stairs, 30, OPS, &f.frames);
    f.stairs.open[0].op = OPS;
    staircase_settle(&f.stairs, OPS, &f.frames);
    assert_int_equal(f.stairs.done, 25);
    assert_int_equal(f.stairs.open_count, 0);
    assert_int_equal(f.frames.free_count, FRAMES);
    free(f.memory);
}

static void what_never_ran_is_forgotten(void **state) {
    (void)state;
    fixture  f = open_stairs(0);
    uint32_t frame = frame_take(&f.frames);
    frame_join(&f.frames, frame);
    leave_at(&f, 10, 3, (frame_place){frame, 0});
    leave_at(&f, 20, 0, (frame_place){frame, 10});
    staircase_settle(&f.stairs, OPS, &f.frames);
    assert_int_equal(f.stairs.open_count, 1);
    assert_int_equal(staircase_end(&f.stairs), 10);
    assert_int_equal(f.frames.users[frame], 1);
    free(f.memory);
}

static void a_split_piece_keeps_its_rows_and_becomes_whole_again(void **state) {
    (void)state;
    fixture  f = open_stairs(8);
    uint32_t frame = frame_take(&f.frames);
    leave_at(&f, 28, 6, (frame_place){frame, 40});
    staircase_split(&f.stairs, 0, 13, &f.frames);
    staircase_check(&f.stairs, 28, OPS, &f.frames);
    assert_int_equal(f.stairs.open_count, 2);
    assert_int_equal(f.stairs.open[0].token_end, 13);
    assert_int_equal(f.stairs.open[1].token_begin, 13);
    assert_int_equal(f.stairs.open[1].place.row, 45);
    assert_int_equal(f.frames.users[frame], 2);
    staircase_settle(&f.stairs, OPS, &f.frames); /* nothing happened in between */
    assert_int_equal(f.stairs.open_count, 1);
    assert_int_equal(f.stairs.open[0].token_end, 28);
    assert_int_equal(f.frames.users[frame], 1);
    free(f.memory);
}

static void pieces_at_different_operators_or_frames_stay_apart(void **state) {
    (void)state;
    fixture  f = open_stairs(0);
    uint32_t a = frame_take(&f.frames), b = frame_take(&f.frames);
    frame_join(&f.frames, a);
    leave_at(&f, 10, 6, (frame_place){a, 0});
    leave_at(&f, 20, 5, (frame_place){a, 10});
    leave_at(&f, 30, 5, (frame_place){b, 20});
    staircase_settle(&f.stairs, OPS, &f.frames);
    staircase_check(&f.stairs, 30, OPS, &f.frames);
    assert_int_equal(f.stairs.open_count, 3);
    staircase_clear(&f.stairs, &f.frames);
    assert_int_equal(f.frames.free_count, FRAMES);
    assert_int_equal(staircase_end(&f.stairs), 0);
    free(f.memory);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_are_bounded_and_shared_until_the_last_leaves),
        cmocka_unit_test(what_crossed_all_operators_is_done_and_its_frame_is_free),
        cmocka_unit_test(what_never_ran_is_forgotten),
        cmocka_unit_test(a_split_piece_keeps_its_rows_and_becomes_whole_again),
        cmocka_unit_test(pieces_at_different_operators_or_frames_stay_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
