/* tests/unit/story.h: a scheduler, an engine that draws tokens, and the verbs to tell a short story with. */
#pragma once
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>

#include "scheduler/scheduler.h"

enum { REQUESTS = 32, TOKENS = 512 };

/* A scheduler and an engine that draws token 900 + id, and ends nobody before its limit unless told. */
typedef struct {
    scheduler *s;
    plan       plan;
    uint64_t   now_us;
    uint32_t   tokens[REQUESTS][TOKENS];
    uint32_t   known[REQUESTS], limit[REQUESTS];
} story;

static inline scheduler_config config_of(uint32_t page_count) {
    return (scheduler_config){.running_max = 4,
                              .waiting_max = 8,
                              .context_max = 400,
                              .batch_tokens_max = 64,
                              .slicing.chunk_tokens = 8,
                              .page_count = page_count,
                              .page_tokens = 4,
                              .frame_count = 2,
                              .frame_tokens = 64,
                              .model.op_count = 10,
                              .retention.prefix_cache = true,
                              .seed = 1};
}

static inline story *begin(const scheduler_config *c) {
    story *t = calloc(1, sizeof *t);
    assert_non_null(t);
    error err;
    if (scheduler_new(&t->s, c, &err) != OK) fail_msg("%s", err.text);
    return t;
}

static inline void end(story *t) {
    scheduler_check(t->s);
    scheduler_free(t->s);
    free(t);
}

/* Prompts count up from `first`, so equal `first` means equal prefix. */
static inline int submit_with(story *t, uint64_t id, uint32_t first, uint32_t prompt, uint32_t output, scheduler_request r) {
    assert_true(id < REQUESTS && prompt + output <= TOKENS);
    for (uint32_t i = 0; i < prompt; i++) t->tokens[id][i] = first + i;
    r.id = id, r.tokens = t->tokens[id], r.prompt_tokens = prompt, r.output_tokens_max = output;
    int status = scheduler_submit(t->s, ++t->now_us, &r, NULL);
    if (status == OK) t->known[id] = prompt, t->limit[id] = prompt + output;
    scheduler_check(t->s);
    return status;
}
static inline int submit(story *t, uint64_t id, uint32_t first, uint32_t prompt, uint32_t output) {
    return submit_with(t, id, first, prompt, output, (scheduler_request){0});
}

static inline bool plan_next(story *t) {
    bool planned = scheduler_plan(t->s, ++t->now_us, &t->plan);
    scheduler_check(t->s);
    return planned;
}

static inline void finish(story *t) {
    slice_outcome outcomes[64] = {0};
    for (uint32_t i = 0; i < t->plan.slice_count; i++) {
        uint64_t id = t->plan.slices[i].id;
        if (!t->plan.slices[i].samples) continue;
        t->tokens[id][t->known[id]++] = 900 + (uint32_t)id;
        outcomes[i] = (slice_outcome){900 + (uint32_t)id, t->known[id] == t->limit[id]};
    }
    scheduler_pass_done(t->s, ++t->now_us, outcomes);
    scheduler_check(t->s);
}

static inline void pass(story *t) {
    assert_true(plan_next(t));
    finish(t);
}

static inline uint32_t run_dry(story *t) {
    uint32_t passes = 0;
    for (; plan_next(t); passes++) {
        assert_true(passes < 10000);
        finish(t);
    }
    return passes;
}

static inline const slice *slice_of(const story *t, uint64_t id) {
    for (uint32_t i = 0; i < t->plan.slice_count; i++)
        if (t->plan.slices[i].id == id) return &t->plan.slices[i];
    return NULL;
}

static inline void assert_slice(const story *t, uint64_t id, const uint32_t tokens_ops[4]) {
    const slice *x = slice_of(t, id);
    assert_non_null(x);
    assert_int_equal(x->token_begin, tokens_ops[0]);
    assert_int_equal(x->token_end, tokens_ops[1]);
    assert_int_equal(x->op_begin, tokens_ops[2]);
    assert_int_equal(x->op_end, tokens_ops[3]);
}
#define ASSERT_SLICE(t, id, ...) assert_slice(t, id, (const uint32_t[4]){__VA_ARGS__})

static inline scheduler_stats stats_of(const story *t) {
    scheduler_stats s;
    scheduler_read_stats(t->s, &s);
    return s;
}
static inline scheduler_progress progress_of(const story *t, uint64_t id) {
    scheduler_progress p = {0};
    assert_true(scheduler_read_progress(t->s, id, &p));
    return p;
}
