#include "scheduler/staircase.h"

#include <string.h>

#include "base/error.h"

/* ---- frames ---- */

void frame_pool_init(frame_pool *p, uint32_t frame_count, uint32_t frame_rows, carver *c) {
    *p = (frame_pool){.frame_count = frame_count, .frame_rows = frame_rows, .free_count = frame_count};
    p->free_frames = carve(c, frame_count, sizeof *p->free_frames);
    p->users = carve(c, frame_count, sizeof *p->users);
    if (!c->memory) return;
    for (uint32_t i = 0; i < frame_count; i++) p->free_frames[i] = frame_count - 1 - i;
}

uint32_t frame_take(frame_pool *p) {
    if (p->free_count == 0) return NO_FRAME;
    uint32_t frame = p->free_frames[--p->free_count];
    check(frame < p->frame_count && p->users[frame] == 0);
    p->users[frame] = 1;
    return frame;
}

void frame_join(frame_pool *p, uint32_t frame) {
    check(frame < p->frame_count && p->users[frame] > 0);
    p->users[frame]++;
}

void frame_leave(frame_pool *p, uint32_t frame) {
    if (frame == NO_FRAME) return;
    check(frame < p->frame_count && p->users[frame] > 0);
    if (--p->users[frame] == 0) p->free_frames[p->free_count++] = frame;
}

/* ---- stairs ---- */

uint32_t staircase_open(staircase *s, uint32_t token_end) {
    check(s->open_count < SEGMENTS_MAX && staircase_end(s) < token_end);
    s->open[s->open_count] = (segment){staircase_end(s), token_end, 0, {NO_FRAME, 0}};
    return s->open_count++;
}

void staircase_split(staircase *s, uint32_t index, uint32_t at, frame_pool *frames) {
    check(index < s->open_count && s->open_count < SEGMENTS_MAX);
    segment *g = &s->open[index];
    check(g->token_begin < at && at < g->token_end && g->op > 0);
    memmove(g + 1, g, (s->open_count - index) * sizeof *g);
    s->open_count++;
    g[0].token_end = g[1].token_begin = at;
    g[1].place.row += at - g[0].token_begin;
    frame_join(frames, g->place.frame);
}

static bool continues(const segment *a, const segment *b) {
    return a->op == b->op && a->place.frame == b->place.frame &&
           a->place.row + (a->token_end - a->token_begin) == b->place.row;
}

void staircase_settle(staircase *s, uint32_t op_count, frame_pool *frames) {
    uint32_t kept = 0, op = op_count;
    for (uint32_t i = 0; i < s->open_count; i++) {
        segment g = s->open[i];
        check(g.op <= op);
        op = g.op;
        if (g.op == op_count) { /* no rise: nothing was kept before it */
            check(g.token_begin == s->done);
            s->done = g.token_end;
        } else if (g.op > 0) {
            check(g.place.frame != NO_FRAME);
            bool joins = kept > 0 && continues(&s->open[kept - 1], &g);
            if (!joins) {
                s->open[kept++] = g;
                continue;
            }
            s->open[kept - 1].token_end = g.token_end;
        }
        frame_leave(frames, g.place.frame);
    }
    s->open_count = kept;
}

void staircase_clear(staircase *s, frame_pool *frames) {
    for (uint32_t i = 0; i < s->open_count; i++) frame_leave(frames, s->open[i].place.frame);
    *s = (staircase){0};
}

void staircase_check(const staircase *s, uint32_t known_tokens, uint32_t op_count, const frame_pool *frames) {
    uint32_t end = s->done, op = op_count;
    check(s->open_count <= SEGMENTS_MAX);
    for (uint32_t i = 0; i < s->open_count; i++) {
        const segment *g = &s->open[i];
        check(g->token_begin == end && g->token_end > end && g->op <= op && g->op < op_count);
        check(g->op == 0 || g->place.frame != NO_FRAME);
        if (g->place.frame != NO_FRAME) {
            check(g->place.frame < frames->frame_count && frames->users[g->place.frame] > 0);
            check(g->place.row + (g->token_end - g->token_begin) <= frames->frame_rows);
        }
        end = g->token_end, op = g->op;
    }
    check(end <= known_tokens);
}
