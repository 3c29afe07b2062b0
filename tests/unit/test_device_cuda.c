/* The CUDA device without a GPU: how its object is found, or why not; and with the emulated one against the CPU device. */
#include "tests/unit/kernels.h"

#include "engine/cuda_object.h"
#include "engine/device.h"
#include "tests/unit/emulated_cuda.h"
#include "tests/unit/plane.h"
#include "tests/unit/tiny_models.h"

static void the_object_is_opened_and_shows_its_gpu(void **state) {
    (void)state;
    cuda_card card;
    char      why[256] = "";
    emulated_cuda_begin();
    assert_non_null(cuda_object_open(&card, why, sizeof why));
    if (!getenv("PENSTOCK_TEST_CUDA_OBJECT")) assert_string_equal(card.name, "an emulated GPU");
    assert_true(card.capability >= CUDA_CAPABILITY_MIN && card.memory_bytes >= card.free_bytes && card.free_bytes > 0);
}

static void what_stands_in_the_way_of_a_gpu_is_said_in_a_sentence(void **state) {
    (void)state;
    cuda_card card;
    char      why[256] = "";
    setenv("PENSTOCK_CUDA_OBJECT", "/nonexistent/object.so", 1);
    assert_null(cuda_object_open(&card, why, sizeof why));
    assert_non_null(strstr(why, "cannot be opened: /nonexistent/object.so"));
    setenv("PENSTOCK_CUDA_OBJECT", "libm.so.6", 1);
    assert_null(cuda_object_open(&card, why, sizeof why));
    assert_string_equal(why, "libm.so.6 is of another version than this daemon; install both from one build");
    unsetenv("PENSTOCK_CUDA_OBJECT"); /* beside this test there is none */
    assert_null(cuda_object_open(&card, why, sizeof why));
    assert_non_null(strstr(why, "there is no penstock-cuda.so beside the daemon or in ../lib/penstock"));
}

static void without_a_gpu_auto_takes_the_cpu_and_says_why(void **state) {
    (void)state;
    char why[256];
    unsetenv("PENSTOCK_CUDA_OBJECT");
    assert_ptr_equal(device_find("auto", why, sizeof why), &device_cpu);
    assert_string_equal(
        why, "cpu, because there is no penstock-cuda.so beside the daemon or in ../lib/penstock; it is built where nvcc is");
    assert_null(device_find("cuda", why, sizeof why));
    assert_non_null(strstr(why, "there is no CUDA device, because there is no penstock-cuda.so"));
}

/* ---- models ---- */

enum { ROWS = 96, PAGES = 61, PAGE_TOKENS = 16, FRAMES = 7, FRAME_ROWS = 96, VOCAB = 97 };

typedef struct {
    const device_api *api;
    checkpoint       *c;
    program           p;
    device           *d;
} loaded;

static const device_config config = {.threads = 2,
                                     .rows_max = ROWS,
                                     .outputs_max = PLANE_SEQUENCES,
                                     .page_count = PAGES,
                                     .page_tokens = PAGE_TOKENS,
                                     .host_pages = 4,
                                     .copies_max = 3,
                                     .frame_count = FRAMES,
                                     .frame_rows = FRAME_ROWS,
                                     .context_max = 512,
                                     .isa = "auto"};

static loaded *load(const device_api *api, uint32_t model, dtype type) {
    loaded *l = take(sizeof *l);
    error   err;
    l->api = api, l->c = tiny_open(model, type, 5);
    if (program_build(&l->p, checkpoint_facts(l->c), program_activation(checkpoint_facts(l->c)), &err) != OK)
        fail_msg("%s", err.text);
    if (api->open(&l->d, l->c, &l->p, &config, &err) != OK) fail_msg("%s", err.text);
    return l;
}
static void unload(loaded *l) {
    l->api->close(l->d);
    program_free(&l->p);
    checkpoint_close(l->c);
    free(l);
}

static const sampling greedy = {.top_p = 1, .repetition_penalty = 1, .top_logprobs = -1};

/* Tokens [begin, end) of one sequence on pages 3, 4, ...; what follows the last. */
static sampled feed(loaded *l, const sampling *s, const uint32_t *tokens, uint32_t begin, uint32_t end, float *logits) {
    uint32_t pages[PAGES];
    error    err;
    sampled  out;
    for (uint32_t i = 0; i < PAGES; i++) pages[i] = (i + 3) % PAGES;
    batch_run    run = {0, end - begin, begin, tokens + begin, pages, PAGES, 0};
    batch_output output = {
        .row = end - begin - 1, .params = s, .history = tokens, .prompt_count = end, .history_count = end};
    batch b = {end - begin, 1, 1, &run, &output};
    if (l->api->bind(l->d, &b, &err) != OK) fail_msg("%s", err.text);
    for (uint32_t i = 0; i < l->p.op_count; i++)
        if (l->api->run_op(l->d, i, &err) != OK) fail_msg("%s", err.text);
    if (l->api->collect(l->d, &out, &err) != OK) fail_msg("%s", err.text);
    assert_int_equal(l->api->read_logits(l->d, 0, logits), OK);
    assert_false(out.corrupt);
    return out;
}

/* Values of 16 bits are rounded at other places; where that makes another expert the likeliest, much changes. */
static double error_allowed(const loaded *l, dtype type) {
    return type == DTYPE_F32 ? 1e-5 : checkpoint_facts(l->c)->expert_count ? 0.1 : 0.02;
}
static void check_close(const loaded *l, uint32_t model, dtype type, const float *got, const float *expected) {
    double error2 = 0, norm2 = 0;
    for (int i = 0; i < VOCAB; i++) error2 += pow((double)(got[i] - expected[i]), 2), norm2 += pow((double)expected[i], 2);
    if (!(sqrt(error2 / norm2) <= error_allowed(l, type)))
        fail_msg("%s %s: relative error %g", tiny_models[model].name, dtype_facts[type].name, sqrt(error2 / norm2));
}

/* A prompt, then three more tokens one by one: of every architecture, with the rounding of either type. */
static void every_architecture_has_the_logits_of_the_cpu(void **state) {
    (void)state;
    emulated_cuda_begin();
    for (uint32_t m = 0; m < TINY_MODELS; m++)
        for (dtype type = DTYPE_F32; type <= DTYPE_BF16; type++) {
            loaded  *gpu = load(&device_cuda, m, type), *host = load(&device_cpu, m, type);
            uint32_t tokens[43];
            float    got[VOCAB], expected[VOCAB];
            for (uint32_t i = 0; i < 43; i++) tokens[i] = i * 7 % VOCAB;
            for (uint32_t begin = 0, end = 40; end <= 43; begin = end++) {
                sampled a = feed(gpu, &greedy, tokens, begin, end, got),
                        b = feed(host, &greedy, tokens, begin, end, expected);
                check_close(gpu, m, type, got, expected);
                if (type == DTYPE_F32) assert_int_equal(a.token, b.token);
            }
            unload(gpu), unload(host);
        }
}

/* ---- company ---- */

static void ask(plane_sequence *q, uint32_t i, uint32_t prompt, uint32_t outputs) {
    *q = (plane_sequence){.prompt_tokens = prompt, .output_tokens = outputs, .shares_with = -1, .params = greedy};
    q->params.temperature = i % 2 ? 1.0f : 0, q->params.seed = i;
    for (uint32_t k = 0; k < prompt; k++) q->tokens[k] = (k * 31 + (i % 2) * 5 + 3) % VOCAB;
}

static void a_sequence_has_the_same_bits_alone_and_in_any_company(void **state) {
    (void)state;
    enum { COUNT = 5 };
    static const uint32_t prompts[COUNT] = {1, 70, 17, 33, 5};
    static plane_sequence alone[COUNT], together[COUNT];
    emulated_cuda_begin();
    for (uint32_t m = 0; m < TINY_MODELS; m++) {
        loaded      *l = load(&device_cuda, m, m % 3 ? DTYPE_BF16 : DTYPE_F32);
        plane_config c = {.api = &device_cuda,
                          .device = l->d,
                          .program = &l->p,
                          .rows_max = ROWS,
                          .frame_count = FRAMES,
                          .frame_rows = FRAME_ROWS,
                          .page_count = PAGES,
                          .page_tokens = PAGE_TOKENS,
                          .vocab_size = VOCAB};
        for (uint32_t i = 0; i < COUNT; i++) ask(&alone[i], i, prompts[i], 2 + i % 2);
        for (uint32_t i = 0; i < COUNT; i++) plane_run(&c, &alone[i], 1, 0);
        for (uint64_t seed = 1; seed <= 2; seed++) {
            memcpy(together, alone, sizeof alone);
            for (uint32_t i = 0; i < COUNT; i++) memset(together[i].logits_hash, 0, sizeof together[i].logits_hash);
            plane_run(&c, together, COUNT, seed);
            for (uint32_t i = 0; i < COUNT; i++) {
                if (memcmp(together[i].logits_hash, alone[i].logits_hash, sizeof alone[i].logits_hash) != 0)
                    fail_msg("%s: sequence %u differs in company (seed %llu)", tiny_models[m].name, i,
                             (unsigned long long)seed);
                assert_memory_equal(together[i].tokens, alone[i].tokens, sizeof alone[i].tokens);
            }
        }
        unload(l);
    }
}

/* ---- drawing ---- */

static void tokens_are_drawn_as_on_the_cpu_with_penalties_bias_and_log_probabilities(void **state) {
    (void)state;
    static const uint32_t ids[] = {5, 11};
    static const float    biases[] = {3, -100};
    emulated_cuda_begin();
    loaded  *gpu = load(&device_cuda, 0, DTYPE_F32), *host = load(&device_cpu, 0, DTYPE_F32);
    uint32_t tokens[20];
    float    logits[VOCAB];
    for (uint32_t i = 0; i < 20; i++) tokens[i] = i * 7 % VOCAB;
    for (uint32_t i = 0; i < 12; i++) {
        sampling s = greedy;
        s.temperature = (float)(i % 4) * 0.5f, s.seed = i, s.top_p = i % 3 ? 0.8f : 1, s.top_k = i % 2 * 9;
        if (i % 3 == 1) s.repetition_penalty = 1.3f, s.frequency_penalty = 0.5f;
        if (i % 3 == 2) s.bias_ids = ids, s.bias_values = biases, s.bias_count = 2;
        s.top_logprobs = i % 2 ? 4 : -1;
        sampled a = feed(gpu, &s, tokens, 0, 20, logits), b = feed(host, &s, tokens, 0, 20, logits);
        assert_int_equal(a.token, b.token);
        if (s.top_logprobs < 0) continue;
        assert_true(fabsf(a.logprob - b.logprob) < 1e-4f);
        assert_int_equal(a.top_count, b.top_count);
        assert_memory_equal(a.top_ids, b.top_ids, a.top_count * sizeof *a.top_ids);
    }
    unload(gpu), unload(host);
}

/* ---- contracts ---- */

static void experts_that_were_touched_are_counted_and_their_bytes(void **state) {
    (void)state;
    emulated_cuda_begin();
    loaded      *l = load(&device_cuda, 4, DTYPE_BF16); /* mixtral: 5 experts, 2 a token, 3 layers */
    device_stats before, one, many;
    uint32_t     tokens[40];
    float        logits[VOCAB];
    for (uint32_t i = 0; i < 40; i++) tokens[i] = i * 7 % VOCAB;
    l->api->read_stats(l->d, &before);
    feed(l, &greedy, tokens, 0, 1, logits);
    l->api->read_stats(l->d, &one);
    feed(l, &greedy, tokens, 0, 40, logits);
    l->api->read_stats(l->d, &many);
    const uint64_t a_pass = one.expert_bytes - before.expert_bytes;
    assert_int_equal(before.expert_bytes, 0);
    assert_true(a_pass >= 3 * 2 * 3 * 48 * 40 * 2 && a_pass % 6 == 0); /* blocks are padded */
    assert_int_equal(many.expert_bytes - one.expert_bytes, a_pass / 2 * 5);
    assert_true(one.weight_bytes > one.expert_bytes);
    assert_int_equal(many.rows, 41);
    unload(l);
}

static void a_page_that_was_on_the_host_comes_back_with_the_same_bits(void **state) {
    (void)state;
    emulated_cuda_begin();
    loaded         *l = load(&device_cuda, 0, DTYPE_BF16);
    uint32_t        tokens[20], others[16] = {0};
    float           logits[VOCAB], expected[VOCAB], without[VOCAB];
    const page_copy out = {1, true, 3, 2}, back = {2, false, 3, 2};
    copied_page     done[3];
    error           err;
    for (uint32_t i = 0; i < 20; i++) tokens[i] = i * 7 % VOCAB;
    feed(l, &greedy, tokens, 0, 16, logits); /* on page 3 */
    feed(l, &greedy, tokens, 16, 17, expected);
    assert_int_equal(l->api->copy_pages(l->d, &out, 1, &err), OK);
    feed(l, &greedy, others, 0, 16, logits);
    feed(l, &greedy, tokens, 16, 17, without);
    assert_int_equal(l->api->copy_pages(l->d, &back, 1, &err), OK);
    assert_int_equal(l->api->await_copy(l->d, 2, &err), OK);
    feed(l, &greedy, tokens, 16, 17, logits);
    assert_memory_equal(logits, expected, sizeof logits);
    assert_memory_not_equal(without, expected, sizeof logits);
    assert_int_equal(l->api->copies_done(l->d, true, done, 3), 2);
    assert_true(done[0].id == 1 && done[1].id == 2 && done[0].ok && done[1].ok);
    assert_int_equal(l->api->copies_done(l->d, false, done, 3), 0);
    unload(l);
}

static void a_bad_batch_is_refused_with_a_sentence(void **state) {
    (void)state;
    emulated_cuda_begin();
    loaded      *l = load(&device_cuda, 0, DTYPE_F32);
    uint32_t     pages[4] = {0, 1, 2, 3}, tokens[5] = {0, 1, VOCAB, 2, 3};
    batch_run    run = {0, 5, 0, tokens, pages, 1, 0};
    batch_output output = {.row = 4, .params = &greedy};
    batch        b = {5, 1, 1, &run, &output};
    error        err;
    assert_int_equal(l->api->bind(l->d, &b, &err), OK);
    assert_int_equal(l->api->run_op(l->d, 0, &err), ERR_INVALID);
    assert_non_null(strstr(err.text, "token id 97"));
    run.position_begin = 12;
    assert_int_equal(l->api->bind(l->d, &b, &err), ERR_INVALID);
    assert_int_not_equal(l->api->save_rows(l->d, 1, 0, 1, FRAMES, 0), OK);
    assert_int_not_equal(l->api->load_rows(l->d, 1, ROWS, 1, 0, 0), OK);
    assert_int_not_equal(l->api->move_rows(l->d, 1, 0, 1, 1), OK);
    unload(l);
}

static void the_memory_plan_names_what_lies_where_and_refuses_what_cannot_be(void **state) {
    (void)state;
    emulated_cuda_begin();
    checkpoint   *c = tiny_open(5, DTYPE_BF16, 5);
    program       p;
    memory_plan   m;
    device_config odd = config;
    error         err;
    assert_int_equal(program_build(&p, checkpoint_facts(c), DTYPE_BF16, &err), OK);
    assert_int_equal(device_cuda.plan_memory(checkpoint_facts(c), &p, &config, &m, &err), OK);
    assert_string_equal(m.rows[0].name, "weights");
    assert_true(m.rows[0].bytes >= checkpoint_bytes(c) && m.available_bytes > 0);
    assert_int_equal(m.rows[1].bytes, PAGES * m.page_bytes);
    for (uint32_t i = 0; i < m.row_count; i++) assert_int_equal(m.rows[i].on_device, strstr(m.rows[i].name, "host") == NULL);
    odd.page_tokens = 24;
    assert_int_equal(device_cuda.plan_memory(checkpoint_facts(c), &p, &odd, &m, &err), ERR_INVALID);
    assert_non_null(strstr(err.text, "multiple of 16"));
    program_free(&p);
    checkpoint_close(c);
}

static void auto_takes_the_gpu_where_there_is_one(void **state) {
    (void)state;
    char why[256];
    emulated_cuda_begin();
    assert_ptr_equal(device_find("auto", why, sizeof why), &device_cuda);
    assert_string_equal(why, "cuda, on an emulated GPU: 4.0 GiB free of 4.0, compute capability 9.0");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_object_is_opened_and_shows_its_gpu),
        cmocka_unit_test(what_stands_in_the_way_of_a_gpu_is_said_in_a_sentence),
        cmocka_unit_test(without_a_gpu_auto_takes_the_cpu_and_says_why),
        cmocka_unit_test(auto_takes_the_gpu_where_there_is_one),
        cmocka_unit_test(every_architecture_has_the_logits_of_the_cpu),
        cmocka_unit_test(a_sequence_has_the_same_bits_alone_and_in_any_company),
        cmocka_unit_test(tokens_are_drawn_as_on_the_cpu_with_penalties_bias_and_log_probabilities),
        cmocka_unit_test(experts_that_were_touched_are_counted_and_their_bytes),
        cmocka_unit_test(a_page_that_was_on_the_host_comes_back_with_the_same_bits),
        cmocka_unit_test(a_bad_batch_is_refused_with_a_sentence),
        cmocka_unit_test(the_memory_plan_names_what_lies_where_and_refuses_what_cannot_be),
    };
    return cmocka_run_group_tests(tests, writer_setup, writer_teardown);
}
