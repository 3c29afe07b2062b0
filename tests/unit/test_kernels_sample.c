/* Sampling against the definition: a full sort in double precision, and counts of many draws. */
#include "tests/unit/kernels.h"

typedef struct {
    cpu   c;
    void *work;
} sampler;

enum { VOCAB = 1000, TOP_MAX = 20 };

static sampler open_sampler(const char *isa, uint32_t vocab) {
    sampler s;
    assert_int_equal(cpu_open(&s.c, isa, 1, NULL), OK);
    s.work = aligned_alloc(64, (cpu_sample_work_bytes(vocab) + 63) / 64 * 64);
    memset(s.work, 0, cpu_sample_work_bytes(vocab));
    return s;
}
static void close_sampler(sampler *s) { cpu_close(&s->c), free(s->work); }

static sample_args defaults(const float *logits, uint32_t vocab) {
    return (sample_args){
        .logits = logits, .vocab = vocab, .temperature = 1, .top_p = 1, .repetition_penalty = 1, .top_logprobs = -1};
}
static sample_result sample(sampler *s, const sample_args *a) {
    static uint32_t ids[TOP_MAX];
    static float    values[TOP_MAX];
    sample_result   out = {.top_ids = ids, .top_logprobs = values};
    cpu_sample(&s->c, a, 1, s->work, &out);
    return out;
}

static void greedy_takes_the_largest_and_the_lower_of_equals(void **state) {
    (void)state;
    FOR_EACH_ISA(isa) {
        sampler s = open_sampler(isa, VOCAB);
        float   logits[VOCAB];
        rng     r = {1, 0};
        for (int i = 0; i < VOCAB; i++) logits[i] = uniform(&r);
        logits[700] = logits[333] = logits[999] = 2;
        sample_args a = defaults(logits, VOCAB);
        a.temperature = 0;
        assert_int_equal(sample(&s, &a).token, 333);
        a.vocab = 1;
        assert_int_equal(sample(&s, &a).token, 0);
        close_sampler(&s);
    }
}

/* What the definition keeps: ids sorted by logit (ties by id), cut by k, then mass, then share of the best. */
typedef struct {
    uint32_t id;
    double   p;
} entry;
static int by_probability(const void *x, const void *y) {
    const entry *a = x, *b = y;
    return a->p > b->p ? -1 : a->p < b->p ? 1 : a->id < b->id ? -1 : 1;
}
static void reference(const sample_args *a, double *p) {
    entry *e = take(a->vocab * sizeof *e);
    double top = -INFINITY, mass = 0, sum = 0;
    for (uint32_t i = 0; i < a->vocab; i++) top = fmax(top, (double)a->logits[i]);
    for (uint32_t i = 0; i < a->vocab; i++)
        e[i] = (entry){i, exp(((double)a->logits[i] - top) / (double)a->temperature)}, p[i] = 0;
    qsort(e, a->vocab, sizeof *e, by_probability);
    uint32_t n = a->top_k && a->top_k < a->vocab ? a->top_k : a->vocab;
    for (uint32_t i = 0; i < n; i++) mass += e[i].p;
    for (uint32_t i = 0; i < n && (i == 0 || sum < (double)a->top_p * mass); i++) {
        sum += e[i].p;
        if (e[i].p >= (double)a->min_p) p[e[i].id] = e[i].p;
    }
    sum = 0;
    for (uint32_t i = 0; i < a->vocab; i++) sum += p[i];
    for (uint32_t i = 0; i < a->vocab; i++) p[i] /= sum;
    free(e);
}

static void check_frequencies(sampler *s, sample_args a, uint32_t draws) {
    double   *p = take(a.vocab * sizeof *p), chi = 0;
    uint32_t *count = take(a.vocab * sizeof *count), cells = 0;
    reference(&a, p);
    for (uint32_t i = 0; i < draws; i++) {
        a.draw = i;
        sample_result out = sample(s, &a);
        assert_false(out.corrupt);
        count[out.token]++;
    }
    for (uint32_t i = 0; i < a.vocab; i++) {
        if (p[i] == 0 && count[i]) fail_msg("token %u was drawn although it is cut away", i);
        if (p[i] * draws < 5) continue;
        chi += (count[i] - p[i] * draws) * (count[i] - p[i] * draws) / (p[i] * draws), cells++;
    }
    if (chi > cells + 5 * sqrt(2.0 * cells) + 5) fail_msg("chi-square %.1f over %u cells", chi, cells);
    free(p), free(count);
}

static void draws_follow_the_distribution_that_the_cuts_leave(void **state) {
    (void)state;
    static const struct {
        float    temperature, top_p, min_p;
        uint32_t top_k;
    } cases[] = {{1, 1, 0, 0},        {0.7f, 1, 0, 5}, {1.5f, 0.8f, 0, 0}, {1, 1, 0.2f, 0},
                 {1, 0.6f, 0.1f, 40}, {1, 1, 0, 1},    {2, 1e-9f, 0, 0},   {0.01f, 1, 0, 0}};
    FOR_EACH_ISA(isa) {
        sampler s = open_sampler(isa, VOCAB);
        float   logits[100];
        rng     r = {2, 0};
        for (int i = 0; i < 100; i++) logits[i] = 3 * uniform(&r);
        for (int i = 10; i < 20; i++) logits[i] = 2; /* ties across the cuts */
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            sample_args a = defaults(logits, 100);
            a.temperature = cases[i].temperature, a.top_p = cases[i].top_p, a.min_p = cases[i].min_p,
            a.top_k = cases[i].top_k;
            a.seed = 77 + i;
            check_frequencies(&s, a, 4000);
        }
        close_sampler(&s);
    }
}

static void ties_enter_a_cut_in_order_of_id(void **state) {
    (void)state;
    sampler     s = open_sampler("auto", VOCAB);
    float       logits[50] = {0};
    sample_args a = defaults(logits, 50);
    bool        seen[50] = {false};
    logits[30] = logits[31] = 5;
    a.top_k = 7; /* 30, 31 and the first five zeros */
    a.temperature = 100;
    for (a.draw = 0; a.draw < 400; a.draw++) seen[sample(&s, &a).token] = true;
    for (int i = 0; i < 50; i++) assert_int_equal(seen[i], i < 5 || i == 30 || i == 31);
    memset(seen, 0, sizeof seen);
    a.top_k = 2; /* nothing is above the equals */
    for (a.draw = 0; a.draw < 400; a.draw++) seen[sample(&s, &a).token] = true;
    for (int i = 0; i < 50; i++) assert_int_equal(seen[i], i == 30 || i == 31);
    close_sampler(&s);
}

static void a_draw_depends_on_seed_and_counter_alone(void **state) {
    (void)state;
    sampler  s = open_sampler("auto", VOCAB);
    float    logits[VOCAB];
    rng      r = {3, 0};
    uint32_t differ = 0;
    for (int i = 0; i < VOCAB; i++) logits[i] = uniform(&r);
    sample_args a = defaults(logits, VOCAB);
    for (a.draw = 0; a.draw < 50; a.draw++) {
        a.seed = 5;
        uint32_t first = sample(&s, &a).token;
        a.seed = 6;
        differ += sample(&s, &a).token != first;
        a.seed = 5;
        assert_int_equal(sample(&s, &a).token, first);
    }
    assert_true(differ > 40);
    close_sampler(&s);
}

static void penalties_look_at_the_history_they_are_defined_on(void **state) {
    (void)state;
    FOR_EACH_ISA(isa) {
        sampler     s = open_sampler(isa, VOCAB);
        float       logits[6] = {2.0f, 1.9f, -1.0f, 1.5f, 0, 0};
        uint32_t    history[] = {0, 9999, 1, 1, 3}; /* prompt: 0 and an id outside; generated: 1 1 3 */
        sample_args a = defaults(logits, 6);
        a.temperature = 0, a.history = history, a.prompt_count = 2, a.history_count = 5;
        assert_int_equal(sample(&s, &a).token, 0);
        a.repetition_penalty = 4; /* 0.5 0.475 -1 0.375 0 0 */
        assert_int_equal(sample(&s, &a).token, 0);
        a.prompt_count = 5;
        logits[4] = 0.6f;
        assert_int_equal(sample(&s, &a).token, 4);
        a.repetition_penalty = 1, a.prompt_count = 2, a.frequency_penalty = 0.3f; /* 2 1.3 -1 1.2 .6 */
        logits[0] = 1.25f;
        assert_int_equal(sample(&s, &a).token, 1);
        a.frequency_penalty = 0.4f; /* 1.25 1.1 */
        assert_int_equal(sample(&s, &a).token, 0);
        a.frequency_penalty = 0, a.presence_penalty = 0.6f; /* 1.25 1.3 -1 0.9: once however often */
        assert_int_equal(sample(&s, &a).token, 1);
        a.presence_penalty = 0;
        uint32_t bias_ids[] = {2, 77777}, banned[] = {1, 3, 2, 88888};
        float    bias[] = {10, 100};
        a.bias_ids = bias_ids, a.bias_values = bias, a.bias_count = 2;
        assert_int_equal(sample(&s, &a).token, 2);
        a.banned = banned, a.banned_count = 4;
        assert_int_equal(sample(&s, &a).token, 0);
        a.temperature = 1;
        for (a.draw = 0; a.draw < 200; a.draw++) {
            uint32_t token = sample(&s, &a).token;
            assert_true(token == 0 || token == 4 || token == 5);
        }
        close_sampler(&s);
    }
}

static void logprobs_are_of_the_raw_distribution_best_first(void **state) {
    (void)state;
    FOR_EACH_ISA(isa) {
        sampler s = open_sampler(isa, VOCAB);
        float   logits[VOCAB];
        rng     r = {4, 0};
        double  sum = 0;
        for (int i = 0; i < VOCAB; i++) logits[i] = 4 * uniform(&r);
        logits[500] = logits[200] = 4.5f;
        for (int i = 0; i < VOCAB; i++) sum += exp((double)logits[i]);
        sample_args a = defaults(logits, VOCAB);
        uint32_t    banned = 200;
        a.top_logprobs = TOP_MAX, a.temperature = 0, a.banned = &banned, a.banned_count = 1;
        sample_result out = sample(&s, &a);
        assert_int_equal(out.token, 500);
        assert_true(fabs((double)out.logprob - (4.5 - log(sum))) < 1e-5);
        assert_int_equal(out.top_count, TOP_MAX);
        assert_int_equal(out.top_ids[0], 200);
        assert_int_equal(out.top_ids[1], 500);
        for (uint32_t i = 0; i < TOP_MAX; i++) {
            assert_true(fabs((double)out.top_logprobs[i] - ((double)logits[out.top_ids[i]] - log(sum))) < 1e-5);
            if (i) assert_true(out.top_logprobs[i] <= out.top_logprobs[i - 1]);
        }
        for (uint32_t i = 0, larger = 0; i < VOCAB; i++) {
            larger += logits[i] > logits[out.top_ids[TOP_MAX - 1]];
            assert_true(larger < TOP_MAX);
        }
        a.top_logprobs = 0;
        assert_int_equal(sample(&s, &a).top_count, 0);
        close_sampler(&s);
    }
}

static void a_broken_row_is_reported_and_a_masked_one_is_not(void **state) {
    (void)state;
    FOR_EACH_ISA(isa)
    for (uint32_t n = 1; n < 40; n += 13)
        for (uint32_t at = 0; at < n; at++) {
            sampler     s = open_sampler(isa, n);
            float       logits[40] = {0};
            sample_args a = defaults(logits, n);
            for (int temperature = 0; temperature < 2; temperature++) {
                a.temperature = (float)temperature;
                logits[at] = NAN;
                assert_true(sample(&s, &a).corrupt);
                logits[at] = INFINITY;
                assert_true(sample(&s, &a).corrupt);
                logits[at] = -INFINITY;
                assert_int_equal(sample(&s, &a).corrupt, n == 1);
                if (n > 1) assert_int_not_equal(sample(&s, &a).token, at);
                logits[at] = 0;
                uint32_t banned = 0;
                a.banned = &banned, a.banned_count = 1;
                assert_int_equal(sample(&s, &a).corrupt, n == 1);
                a.banned_count = 0;
            }
            close_sampler(&s);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_takes_the_largest_and_the_lower_of_equals),
        cmocka_unit_test(draws_follow_the_distribution_that_the_cuts_leave),
        cmocka_unit_test(ties_enter_a_cut_in_order_of_id),
        cmocka_unit_test(a_draw_depends_on_seed_and_counter_alone),
        cmocka_unit_test(penalties_look_at_the_history_they_are_defined_on),
        cmocka_unit_test(logprobs_are_of_the_raw_distribution_best_first),
        cmocka_unit_test(a_broken_row_is_reported_and_a_masked_one_is_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
