/* Neighbour independence on the CPU: whatever shares its batch, however its prompt is cut between tokens and operators,
 * stopped, taken up again in parts or found in the cache, a sequence draws the same tokens from the same logits, bit for
 * bit. For every architecture, on small random models. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "engine/walk.h"
#include "tests/unit/plane.h"
#include "tests/unit/tiny_models.h"

enum { ROWS = 160, FRAMES = 8, FRAME_ROWS = 160, PAGES = 61, PAGE_TOKENS = 16, COUNT = 6 };

typedef struct {
    checkpoint   *model;
    program       p;
    device_config config;
    device       *d;
    plane_config  plane;
} subject;

static void reopen(subject *s) {
    error err;
    if (s->d) device_cpu.close(s->d);
    if (device_cpu.open(&s->d, s->model, &s->p, &s->config, &err) != OK) fail_msg("%s", err.text);
    s->plane.device = s->d;
}

static void open_subject(subject *s, uint32_t model, dtype type, const char *isa) {
    *s = (subject){.model = tiny_open(model, type, 7)};
    const model_facts *f = checkpoint_facts(s->model);
    assert_int_equal(program_build(&s->p, f, program_activation(f), NULL), OK);
    s->config = (device_config){.threads = 2,
                                .rows_max = ROWS,
                                .outputs_max = PLANE_SEQUENCES,
                                .page_count = PAGES,
                                .page_tokens = PAGE_TOKENS,
                                .frame_count = FRAMES,
                                .frame_rows = FRAME_ROWS,
                                .context_max = 256,
                                .isa = isa};
    s->plane = (plane_config){.api = &device_cpu,
                              .program = &s->p,
                              .rows_max = ROWS,
                              .frame_count = FRAMES,
                              .frame_rows = FRAME_ROWS,
                              .page_count = PAGES,
                              .page_tokens = PAGE_TOKENS,
                              .vocab_size = f->vocab_size};
    reopen(s);
}

static void close_subject(subject *s) {
    device_cpu.close(s->d);
    program_free(&s->p);
    checkpoint_close(s->model);
}

static void ask_all(plane_sequence *all) {
    const uint32_t prompts[COUNT] = {1, 45, 97, 150, 140, 33};
    memset(all, 0, COUNT * sizeof *all);
    for (uint32_t i = 0; i < COUNT; i++) {
        plane_sequence *q = &all[i];
        q->prompt_tokens = prompts[i], q->output_tokens = 3 + i % 3, q->shares_with = -1;
        for (uint32_t t = 0; t < prompts[i]; t++) q->tokens[t] = (t * 31 + (i == 4 ? 3 : i)) % 97;
        q->params =
            (sampling){.temperature = i % 2 ? 1.0f : 0, .top_p = 1, .repetition_penalty = 1, .seed = i, .top_logprobs = -1};
        if (i == 5) q->params.repetition_penalty = 1.3f, q->params.presence_penalty = 0.5f, q->params.top_k = 20;
    }
    all[4].shares_with = 3, all[4].shared_tokens = 128; /* its prompt is the first 140 tokens of that one */
}

static void run_alone(subject *s, plane_sequence *all) {
    for (uint32_t i = 0; i < COUNT; i++) {
        const int shares_with = all[i].shares_with;
        all[i].shares_with = -1;
        plane_run(&s->plane, &all[i], 1, 0);
        all[i].shares_with = shares_with;
    }
}

static uint64_t run_together_and_compare(subject *s, const plane_sequence *alone, uint64_t seed) {
    static plane_sequence together[COUNT];
    memcpy(together, alone, sizeof together);
    for (uint32_t i = 0; i < COUNT; i++) {
        memset(together[i].logits_hash, 0, sizeof together[i].logits_hash);
        memset(together[i].tokens + together[i].prompt_tokens, 0, together[i].output_tokens * sizeof(uint32_t));
    }
    const uint64_t stops = plane_run(&s->plane, together, COUNT, seed);
    for (uint32_t i = 0; i < COUNT; i++) {
        assert_memory_equal(together[i].logits_hash, alone[i].logits_hash, sizeof alone[i].logits_hash);
        assert_memory_equal(together[i].tokens, alone[i].tokens, sizeof alone[i].tokens);
    }
    return stops;
}

static void try_model(uint32_t model, dtype type, const char *isa, uint64_t seeds) {
    static plane_sequence alone[COUNT];
    subject               s;
    uint64_t              stops = 0;
    open_subject(&s, model, type, isa);
    ask_all(alone);
    run_alone(&s, alone);
    s.config.threads = 1;
    reopen(&s);
    for (uint64_t seed = 1; seed <= seeds; seed++) stops += run_together_and_compare(&s, alone, seed);
    assert_true(stops > 0);
    close_subject(&s);
}

static void try_type(dtype type) {
    for (uint32_t i = 0; i < TINY_MODELS; i++) try_model(i, type, "auto", 6);
}

static void in_bf16_no_architecture_depends_on_neighbours_or_cuts(void **state) {
    (void)state;
    try_type(DTYPE_BF16);
}
static void in_f32_no_architecture_depends_on_neighbours_or_cuts(void **state) {
    (void)state;
    try_type(DTYPE_F32);
}

static void no_instruction_set_depends_on_neighbours_or_cuts(void **state) {
    (void)state;
    static const char *const sets[] = {"plain", "avx2"};
    for (int i = 0; i < 2; i++) {
        if (strcmp(sets[i], "avx2") == 0 && !__builtin_cpu_supports("avx2")) continue;
        try_model(0, DTYPE_BF16, sets[i], 3);
        try_model(5, DTYPE_BF16, sets[i], 3);
        try_model(6, DTYPE_F32, sets[i], 3);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_bf16_no_architecture_depends_on_neighbours_or_cuts),
        cmocka_unit_test(in_f32_no_architecture_depends_on_neighbours_or_cuts),
        cmocka_unit_test(no_instruction_set_depends_on_neighbours_or_cuts),
    };
    return cmocka_run_group_tests(tests, writer_setup, writer_teardown);
}
