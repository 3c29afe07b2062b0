/* Sampling on the GPU: the same choices as on the CPU, one by one. */
#include "kernels/cuda/sample.h"
#include "tests/unit/cuda_kernels.h"

enum { ROWS_MAX = 8, IDS_MAX = 4096, VOCAB_MAX = 3000 };

typedef struct {
    uint32_t    count, vocab;
    float       logits[ROWS_MAX][VOCAB_MAX];
    sample_args rows[ROWS_MAX];
} rows_in;

typedef struct {
    sample_result result;
    uint32_t      top_ids[CUDA_TOP_LOGPROBS_MAX];
    float         top_logprobs[CUDA_TOP_LOGPROBS_MAX];
} row_out;

static void init_out(row_out *out) {
    memset(out, 0, sizeof *out);
    out->result.top_ids = out->top_ids, out->result.top_logprobs = out->top_logprobs;
}

static void run_cpu(const rows_in *in, row_out *out) {
    cpu   c;
    void *work = aligned_alloc(64, (cpu_sample_work_bytes(in->vocab) + 63) / 64 * 64);
    assert_int_equal(cpu_open(&c, "auto", 1, NULL), OK);
    memset(work, 0, cpu_sample_work_bytes(in->vocab));
    for (uint32_t i = 0; i < in->count; i++) {
        init_out(&out[i]);
        cpu_sample(&c, &in->rows[i], 1, work, &out[i].result);
    }
    cpu_close(&c);
    free(work);
}

/* The lists of all rows, one after another. */
typedef struct {
    uint32_t ids[IDS_MAX], id_count, value_count;
    float    values[IDS_MAX];
} lists;
static uint32_t add_ids(lists *l, const uint32_t *ids, uint32_t n) {
    uint32_t begin = l->id_count;
    assert_true(n <= IDS_MAX - begin);
    if (n) memcpy(l->ids + begin, ids, n * sizeof *ids);
    l->id_count += n;
    return begin;
}

static cuda_sample_row row_for_gpu(const sample_args *a, lists *l) {
    cuda_sample_row r = {.temperature = a->temperature,
                         .top_p = a->top_p,
                         .min_p = a->min_p,
                         .repetition_penalty = a->repetition_penalty,
                         .frequency_penalty = a->frequency_penalty,
                         .presence_penalty = a->presence_penalty,
                         .top_k = a->top_k,
                         .bias_begin = add_ids(l, a->bias_ids, a->bias_count),
                         .bias_values_begin = l->value_count,
                         .bias_count = a->bias_count,
                         .banned_begin = add_ids(l, a->banned, a->banned_count),
                         .banned_count = a->banned_count,
                         .history_begin = add_ids(l, a->history, a->history_count),
                         .prompt_count = a->prompt_count,
                         .history_count = a->history_count,
                         .seed = a->seed,
                         .draw = a->draw,
                         .top_logprobs = a->top_logprobs,
                         .scores = a->scores,
                         .scored = a->scored};
    for (uint32_t i = 0; i < a->bias_count; i++) l->values[l->value_count++] = a->bias_values[i];
    return r;
}

static void run_gpu(const rows_in *in, row_out *out, uint32_t slots) {
    lists              *l = take(sizeof *l);
    const size_t        stride = row_bytes(DTYPE_F32, in->vocab), work_bytes = slots * cuda_sample_work_bytes(in->vocab);
    char               *logits = take(in->count * stride);
    void               *zeros = take(work_bytes);
    cuda_sample_row     rows[ROWS_MAX];
    cuda_sample_result *results = take(in->count * sizeof *results);
    for (uint32_t i = 0; i < in->count; i++) {
        rows[i] = row_for_gpu(&in->rows[i], l);
        memcpy(logits + i * stride, in->rows[i].logits, in->vocab * sizeof(float));
    }
    cuda_sample_args a = {.count = in->count,
                          .vocab = in->vocab,
                          .slots = slots,
                          .logits = gpu_copy_of(logits, in->count * stride),
                          .logits_stride = stride,
                          .rows = gpu_copy_of(rows, in->count * sizeof *rows),
                          .ids = gpu_copy_of(l->ids, l->id_count * sizeof *l->ids),
                          .values = gpu_copy_of(l->values, l->value_count * sizeof *l->values),
                          .work = gpu_copy_of(zeros, work_bytes),
                          .results = gpu_room(in->count * sizeof *results)};
    cuda_sample(gpu_queue(), &a);
    gpu_read(results, a.results, in->count * sizeof *results);
    for (uint32_t i = 0; i < in->count; i++) {
        init_out(&out[i]);
        cuda_sample_finish(&results[i], in->rows[i].scores || in->rows[i].top_logprobs >= 0, &out[i].result);
    }
    gpu_drop(a.logits), gpu_drop(a.rows), gpu_drop(a.ids), gpu_drop(a.values), gpu_drop(a.work), gpu_drop(a.results);
    free(l), free(logits), free(zeros), free(results);
}

static void assert_same_choices(const rows_in *in, uint32_t slots) {
    row_out expected[ROWS_MAX], got[ROWS_MAX];
    run_cpu(in, expected);
    run_gpu(in, got, slots);
    for (uint32_t i = 0; i < in->count; i++) {
        const sample_args   *a = &in->rows[i];
        const sample_result *e = &expected[i].result, *g = &got[i].result;
        assert_int_equal(g->corrupt, e->corrupt);
        if (e->corrupt) continue;
        if (g->token != e->token)
            fail_msg("row %u of vocabulary %u (temperature %g, top_k %u, top_p %g, min_p %g): %u, not %u", i, in->vocab,
                     (double)a->temperature, a->top_k, (double)a->top_p, (double)a->min_p, g->token, e->token);
        if (a->scores) assert_int_equal(g->rank, e->rank);
        if (!a->scores && a->top_logprobs < 0) continue;
        assert_memory_equal(&g->logprob, &e->logprob, sizeof g->logprob);
        assert_int_equal(g->top_count, e->top_count);
        assert_memory_equal(got[i].top_ids, expected[i].top_ids, g->top_count * sizeof(uint32_t));
        assert_memory_equal(got[i].top_logprobs, expected[i].top_logprobs, g->top_count * sizeof(float));
    }
}

/* ---- rows of all kinds ---- */

static uint32_t some_ids[ROWS_MAX][300];
static float    some_values[ROWS_MAX][300];

static const float temperatures[] = {0, 1, 0.7f, 0.01f, 2}, top_ps[] = {1, 0.9f, 0.5f, 1e-9f, 0.999999f},
                   min_ps[] = {0, 0.1f, 0, 0.9f, 1};
static const uint32_t top_ks[] = {0, 1, 5, 40, 700};

static float pick(rng *r, const float *from) { return from[rng_below(r, 5)]; }

/* Half of the rows are as models give them: a few likely ones; some have many equals, or tokens that nobody may choose. */
static void fill_logits(rng *r, float *x, uint32_t vocab) {
    const uint64_t kind = rng_below(r, 4);
    for (uint32_t i = 0; i < vocab; i++) x[i] = kind == 0 ? (float)rng_below(r, 4) : 3 * uniform(r);
    for (uint32_t i = 0; kind >= 2 && i < 12; i++) x[rng_below(r, vocab)] = 6 + 3 * uniform(r);
    for (uint32_t i = 0; kind == 3 && i < vocab / 3; i++) x[rng_below(r, vocab)] = -INFINITY;
    x[rng_below(r, vocab)] = 2;
}

static void add_lists(rng *r, sample_args *a, uint32_t row, uint32_t vocab) {
    for (int i = 0; i < 300; i++)
        some_ids[row][i] = (uint32_t)rng_below(r, vocab + vocab / 8 + 1), some_values[row][i] = 4 * uniform(r);
    if (rng_below(r, 2)) {
        a->history = some_ids[row], a->history_count = (uint32_t)rng_below(r, 200);
        a->prompt_count = (uint32_t)rng_below(r, a->history_count + 1);
        if (rng_below(r, 2)) a->repetition_penalty = 1.3f;
        if (rng_below(r, 2)) a->frequency_penalty = 0.2f, a->presence_penalty = 0.4f;
    }
    if (rng_below(r, 3) == 0) a->bias_ids = some_ids[row] + 100, a->bias_values = some_values[row], a->bias_count = 50;
    if (rng_below(r, 3) == 0) a->banned = some_ids[row] + 200, a->banned_count = (uint32_t)rng_below(r, 8);
}

static void fill_rows(rows_in *in, rng *r, uint32_t vocab) {
    in->count = 1 + (uint32_t)rng_below(r, ROWS_MAX), in->vocab = vocab;
    for (uint32_t i = 0; i < in->count; i++) {
        sample_args *a = &in->rows[i];
        fill_logits(r, in->logits[i], vocab);
        *a = (sample_args){.logits = in->logits[i],
                           .vocab = vocab,
                           .temperature = pick(r, temperatures),
                           .top_k = top_ks[rng_below(r, 5)],
                           .top_p = pick(r, top_ps),
                           .min_p = pick(r, min_ps),
                           .repetition_penalty = 1,
                           .seed = rng_next(r),
                           .draw = rng_below(r, 1000),
                           .top_logprobs = rng_below(r, 2) ? -1 : (int32_t)rng_below(r, CUDA_TOP_LOGPROBS_MAX + 1)};
        add_lists(r, a, i, vocab);
        a->scores = rng_below(r, 8) == 0, a->scored = (uint32_t)rng_below(r, vocab);
        if (rng_below(r, 12) == 0) in->logits[i][rng_below(r, vocab)] = rng_below(r, 2) ? NAN : INFINITY;
    }
}

static void every_choice_is_the_cpus(void **state) {
    (void)state;
    static const uint32_t vocabularies[] = {1, 2, 31, 64, 100, 257, 1000, 3000};
    rows_in              *in = take(sizeof *in);
    rng                   r = {11, 0};
    FOR_EACH_EMULATION for (int round = 0; round < 24; round++) {
        fill_rows(in, &r, vocabularies[round % 8]);
        assert_same_choices(in, 1 + (uint32_t)rng_below(&r, 3));
    }
    free(in);
}

/* Enough draws of one row that each of its tokens, and each side of each cut, has its turn. */
static void many_draws_of_one_row_are_the_cpus(void **state) {
    (void)state;
    rows_in *in = take(sizeof *in);
    rng      r = {12, 0};
    emulation_set((emulation_mode){5, false});
    for (int round = 0; round < 12; round++) {
        in->count = ROWS_MAX, in->vocab = 100;
        for (uint32_t i = 0; i < in->vocab; i++) in->logits[0][i] = i % 3 ? uniform(&r) : 1;
        for (uint32_t i = 0; i < ROWS_MAX; i++)
            in->rows[i] = (sample_args){.logits = in->logits[0],
                                        .vocab = in->vocab,
                                        .temperature = 0.5f + (float)round / 8,
                                        .top_k = round % 3 ? 0 : 40,
                                        .top_p = round % 2 ? 1 : 0.7f,
                                        .repetition_penalty = 1,
                                        .draw = (uint64_t)round * ROWS_MAX + i,
                                        .top_logprobs = -1};
        assert_same_choices(in, 2);
    }
    free(in);
}

static void blocks_are_as_wide_as_the_vocabulary_wants_and_as_many_as_have_room(void **state) {
    (void)state;
    for (uint32_t vocab = 1; vocab < 200000; vocab = vocab * 3 / 2 + 1) {
        cuda_shape s = cuda_sample_configure(7, vocab, 4);
        assert_true(s.threads % 32 == 0 && s.threads >= 128 && s.threads <= 512);
        assert_true(s.grid[0] == 4 && s.shared_bytes <= 48 << 10);
        assert_int_equal(cuda_sample_configure(3, vocab, 4).grid[0], 3);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_choice_is_the_cpus),
        cmocka_unit_test(many_draws_of_one_row_are_the_cpus),
        cmocka_unit_test(blocks_are_as_wide_as_the_vocabulary_wants_and_as_many_as_have_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
