/* The machine that kernels are tested on: it does what ops.cuh says, and it sees the bugs it is there to see. The checks of
 * operations are for hardware as well. */
#include "tests/cuda/emulation.h"
#include "tests/cuda/gpu.h"
#include "tests/cuda/probe.h"
#include "tests/unit/kernels.h"

/* ---- planted bugs ---- */

enum { TILES = 5, VALUES = TILES * PLANTED_THREADS * 4 };

typedef struct {
    planted_args args;
    float        sum;
} planted_run;

static void run_planted(void *context) {
    planted_run *r = context;
    probe_planted(gpu_queue(), &r->args);
    gpu_read(&r->sum, r->args.out, sizeof r->sum);
}

/* In how many of the ways to run a bug is seen; `said` is what was said last. */
static int times_caught(planted_bug bug, const char **said) {
    float in[VALUES + 4], expected = 0;
    int   caught = 0;
    for (int i = 0; i < VALUES; i++) in[i] = (float)(i % 97), expected += in[i]; /* sums are exact */
    *said = "a wrong sum";
    FOR_EACH_EMULATION {
        planted_run r = {{gpu_copy_of(in, sizeof in), gpu_room(sizeof(float)), TILES, (int)bug}, 0};
        const char *failure = emulation_failure_of(run_planted, &r);
        if (failure) *said = failure;
        caught += failure || r.sum != expected;
        gpu_free((void *)(uintptr_t)r.args.in), gpu_free(r.args.out);
    }
    return caught;
}

static void a_right_kernel_is_right_in_every_order(void **state) {
    (void)state;
    const char *said;
    assert_int_equal(times_caught(BUG_NONE, &said), 0);
}

static void every_planted_bug_is_caught(void **state) {
    (void)state;
    if (!gpu_is_emulated()) skip(); /* hardware does not see them */
    const char *said;
    for (int bug = BUG_NONE + 1; bug < BUG_COUNT; bug++)
        if (times_caught((planted_bug)bug, &said) == 0) fail_msg("bug %d of probe.h goes unseen", bug);
}

static void what_breaks_a_rule_is_named_with_its_line(void **state) {
    (void)state;
    if (!gpu_is_emulated()) skip(); /* hardware does not see them */
    static const struct {
        planted_bug bug;
        const char *words;
    } cases[] = {{BUG_BRANCH_BARRIER, "different barriers"},
                 {BUG_LEFT_EARLY, "wait for ever"},
                 {BUG_PART_OF_MASK, "wait for ever"},
                 {BUG_BRANCH_SHUFFLE, "different operations"},
                 {BUG_UNALIGNED, "not aligned"},
                 {BUG_PAST_SHARED, "not in this block's shared memory"},
                 {BUG_LEFT_IN_FLIGHT, "not waited for"},
                 {BUG_MORE_THAN_ASKED, "the launch gave"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *said;
        assert_int_equal(times_caught(cases[i].bug, &said), EMULATION_MODES);
        if (!strstr(said, cases[i].words) || !strstr(said, "kernel planted")) fail_msg("bug %d: %s", cases[i].bug, said);
    }
}

static void what_is_read_too_early_is_caught_in_any_order(void **state) {
    (void)state;
    if (!gpu_is_emulated()) skip(); /* hardware does not see them */
    const char *said;
    assert_int_equal(times_caught(BUG_NO_WAIT, &said), EMULATION_MODES);
    assert_int_equal(times_caught(BUG_OTHER_LANE, &said), EMULATION_MODES);
    assert_int_equal(times_caught(BUG_UNWRITTEN, &said), EMULATION_MODES);
    assert_int_equal(times_caught(BUG_NO_SYNCWARP, &said), EMULATION_MODES);
}

/* ---- operations against their definitions ---- */

static uint16_t half_of(dtype t, float x) { return t == DTYPE_F16 ? f32_to_f16(x) : f32_to_bf16(x); }

static void a_tensor_core_product_is_what_its_comment_says(void **state) {
    (void)state;
    rng r = {7, 0};
    for (int way = 0; way < 4; way++) {
        const dtype t = way % 2 ? DTYPE_F16 : DTYPE_BF16;
        uint16_t    a[16][16], b[16][16];
        float       c[16][8];
        double      expected[16][8];
        for (int i = 0; i < 256; i++)
            a[i / 16][i % 16] = half_of(t, uniform(&r)), b[i / 16][i % 16] = half_of(t, uniform(&r)),
                          c[i / 16][i / 2 % 8] = uniform(&r);
        for (int i = 0; i < 16; i++)
            for (int j = 0; j < 8; j++) {
                expected[i][j] = (double)c[i][j];
                for (int k = 0; k < 16; k++)
                    expected[i][j] += (double)load_as(t, a[i], (size_t)k) *
                                      (double)(way / 2 ? load_as(t, b[k], (size_t)j) : load_as(t, b[j], (size_t)k));
            }
        FOR_EACH_EMULATION {
            probe_product_args p = {gpu_copy_of(a, sizeof a), gpu_copy_of(b, sizeof b), gpu_copy_of(c, sizeof c),
                                    way % 2 == 1, way / 2 == 1};
            float              got[16][8];
            probe_product(gpu_queue(), &p);
            gpu_read(got, p.c, sizeof got);
            for (int i = 0; i < 16; i++)
                for (int j = 0; j < 8; j++) assert_true(fabs((double)got[i][j] - expected[i][j]) < 2e-5);
            gpu_free((void *)(uintptr_t)p.a), gpu_free((void *)(uintptr_t)p.b), gpu_free(p.c);
        }
    }
}

static float float_of(uint32_t u) {
    float x;
    memcpy(&x, &u, 4);
    return x;
}

/* NaN becomes the one NaN of the hardware. */
static uint16_t hardware_half(dtype t, float x) { return isnan(x) ? 0x7FFF : half_of(t, x); }

static void conversions_round_as_hardware_does(void **state) {
    (void)state;
    enum { EDGES = 65536 * 3, N = EDGES + 4096 };
    float    *in = take(N * sizeof *in), *wide[3];
    uint16_t *half = take(N * sizeof *half), *narrow[2];
    uint32_t *pairs[2];
    rng       r = {8, 0};
    for (uint32_t i = 0; i < N; i++) half[i] = (uint16_t)i;
    for (uint32_t i = 0; i < 65536; i++) { /* all bf16, half ways between them, and a bit more than half */
        in[3 * i] = float_of(i << 16), in[3 * i + 1] = float_of(i << 16 | 0x8000),
               in[3 * i + 2] = float_of(i << 16 | 0x8001);
    }
    for (uint32_t i = EDGES; i < N; i++) { /* around f16's edges, and exponents */
        float x = f16_to_f32((uint16_t)rng_next(&r)), y = f16_to_f32((uint16_t)rng_next(&r));
        in[i] = i % 3 == 0 ? (x + f16_to_f32((uint16_t)(f32_to_f16(x) + 1))) / 2 : i % 3 == 1 ? x * y : 200 * uniform(&r);
    }
    probe_values_args p = {gpu_copy_of(in, N * 4), gpu_copy_of(half, N * 2), N,
                           gpu_room(N * 2),        gpu_room(N * 2),          gpu_room(N * 4),
                           gpu_room(N * 4),        gpu_room(N * 4),          gpu_room(N * 4),
                           gpu_room(N * 4)};
    emulation_set((emulation_mode){1, false});
    probe_values(gpu_queue(), &p);
    for (int i = 0; i < 3; i++) wide[i] = take(N * 4);
    for (int i = 0; i < 2; i++) narrow[i] = take(N * 2), pairs[i] = take(N * 4);
    gpu_read(narrow[0], p.bf16, N * 2), gpu_read(narrow[1], p.f16, N * 2);
    gpu_read(pairs[0], p.pairs_bf16, N * 4), gpu_read(pairs[1], p.pairs_f16, N * 4);
    gpu_read(wide[0], p.from_bf16, N * 4), gpu_read(wide[1], p.from_f16, N * 4), gpu_read(wide[2], p.exp2, N * 4);
    for (uint32_t i = 0; i < N; i++) {
        for (int t = 0; t < 2; t++) {
            dtype    type = t ? DTYPE_F16 : DTYPE_BF16;
            uint32_t low = hardware_half(type, in[i]), high = hardware_half(type, -in[i]);
            if (narrow[t][i] != low || pairs[t][i] != (low | high << 16))
                fail_msg("%a becomes %04x", (double)in[i], narrow[t][i]);
            float exact = load_as(type, &half[i], 0);
            assert_true(isnan(exact) ? isnan(wide[t][i]) : wide[t][i] == exact);
        }
        double power = exp2((double)in[i]);
        if (in[i] < -126) assert_true(wide[2][i] == 0);
        else if (isnan(in[i])) assert_true(isnan(wide[2][i]));
        else if (power < 3e38) assert_true(fabs((double)wide[2][i] - power) <= power * 2.5e-7);
    }
    gpu_free((void *)(uintptr_t)p.in), gpu_free((void *)(uintptr_t)p.half);
    gpu_free(p.bf16), gpu_free(p.f16), gpu_free(p.pairs_bf16), gpu_free(p.pairs_f16);
    gpu_free(p.from_bf16), gpu_free(p.from_f16), gpu_free(p.exp2);
    for (int i = 0; i < 3; i++) free(wide[i]);
    for (int i = 0; i < 2; i++) free(narrow[i]), free(pairs[i]);
    free(in), free(half);
}

static void lanes_exchange_what_was_asked(void **state) {
    (void)state;
    uint32_t got[PROBE_WARP_OPS][32];
    FOR_EACH_EMULATION {
        uint32_t *out = gpu_room(sizeof got);
        probe_warp(gpu_queue(), out);
        gpu_read(got, out, sizeof got);
        gpu_free(out);
        for (uint32_t i = 0; i < 32; i++) {
            uint32_t same = 0;
            for (uint32_t j = i % 5; j < 32; j += 5) same |= 1u << j;
            const uint32_t expected[PROBE_WARP_OPS] = {107,
                                                       100 + i / 8 * 8 + 3,
                                                       100 + (i ^ 5),
                                                       100 + (i < 3 ? i : i - 3),
                                                       100 + (i % 16 < 13 ? i + 3 : i),
                                                       0x49249249,
                                                       same,
                                                       31 * 32 / 2,
                                                       1};
            for (int op = 0; op < PROBE_WARP_OPS; op++)
                if (got[op][i] != expected[op]) fail_msg("operation %d, lane %u: %u", op, i, got[op][i]);
        }
    }
}

static void every_thread_of_every_block_runs_once(void **state) {
    (void)state;
    enum { THREADS = 7 * 96 };
    FOR_EACH_EMULATION {
        uint32_t          zero = 0, total, count, largest, marks[THREADS];
        probe_blocks_args p = {gpu_copy_of(&zero, 4), gpu_copy_of(&zero, 4), gpu_copy_of(&zero, 4), gpu_room(sizeof marks)};
        probe_blocks(gpu_queue(), &p);
        gpu_read(&total, p.total, 4), gpu_read(&count, p.count, 4), gpu_read(&largest, p.largest, 4);
        gpu_read(marks, p.marks, sizeof marks);
        assert_int_equal(total, THREADS * (THREADS - 1) / 2);
        assert_int_equal(count, 7);
        assert_int_equal(largest, THREADS - 1);
        for (int i = 0; i < THREADS; i++) assert_int_equal(marks[i], 7);
        gpu_free(p.total), gpu_free(p.count), gpu_free(p.largest), gpu_free(p.marks);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_right_kernel_is_right_in_every_order),
        cmocka_unit_test(every_planted_bug_is_caught),
        cmocka_unit_test(what_breaks_a_rule_is_named_with_its_line),
        cmocka_unit_test(what_is_read_too_early_is_caught_in_any_order),
        cmocka_unit_test(a_tensor_core_product_is_what_its_comment_says),
        cmocka_unit_test(conversions_round_as_hardware_does),
        cmocka_unit_test(lanes_exchange_what_was_asked),
        cmocka_unit_test(every_thread_of_every_block_runs_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
