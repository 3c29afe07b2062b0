/* scheduler/staircase.h: what is done of one sequence's rectangle of tokens x operators.
 *
 *     tokens   0 ....... done ..... 512 ......... 900 ........ known
 *              crossed all  | op 40   | op 8       | untouched
 *                           | frame 2 | frame 0    |
 *
 * The first `done` tokens crossed every operator. After them come open segments: neighbouring token ranges, each stopped
 * before one operator with its rows in a frame. Later tokens attend to earlier ones at every layer, so the operator never
 * rises from one segment to the next (the staircase); K and V exist exactly below the stairs.
 *
 * A segment at operator 0 exists only between plan and report: it was planned and has not run.
 *
 * Frames come from a bounded pool and are shared by the segments that one pass left behind; the last to leave frees it. */
#pragma once
#include <stdint.h>

#include "base/carve.h"
#include "scheduler/scheduler.h"

typedef struct {
    uint32_t  frame_count, frame_rows, free_count;
    uint32_t *free_frames; /* [free_count] of [frame_count] */
    uint32_t *users;       /* [frame_count] segments in it */
} frame_pool;

void     frame_pool_init(frame_pool *p, uint32_t frame_count, uint32_t frame_rows, carver *c);
uint32_t frame_take(frame_pool *p); /* a frame with one user; NO_FRAME: none is free */
void     frame_join(frame_pool *p, uint32_t frame);
void     frame_leave(frame_pool *p, uint32_t frame); /* NO_FRAME: nothing to leave */

/* Segments of one sequence. A planner opens at most SEGMENTS_MAX - 1, so that one place is always left to split the first
 * where it does not fit into a pass. */
enum { SEGMENTS_MAX = 4 };

typedef struct {
    uint32_t    token_begin, token_end, op;
    frame_place place; /* none at operator 0, unless the plan reserved it */
} segment;

typedef struct {
    uint32_t done, open_count;
    uint32_t cached; /* of done: found in the cache */
    segment  open[SEGMENTS_MAX];
} staircase;

static inline uint32_t staircase_end(const staircase *s) { /* tokens from here on are untouched */
    return s->open_count ? s->open[s->open_count - 1].token_end : s->done;
}
/* Puts the tokens [staircase_end, token_end) at operator 0; returns their index in open[]. */
uint32_t staircase_open(staircase *s, uint32_t token_end);
/* Divides open[index] before token `at`; both halves stay in their frame. */
void staircase_split(staircase *s, uint32_t index, uint32_t at, frame_pool *frames);
/* After a pass: what reached op_count is done, what never ran is forgotten, equal neighbours become one. */
void staircase_settle(staircase *s, uint32_t op_count, frame_pool *frames);
/* Forgets all progress and leaves the frames. */
void staircase_clear(staircase *s, frame_pool *frames);
void staircase_check(const staircase *s, uint32_t known_tokens, uint32_t op_count, const frame_pool *frames);
