/* The CPU device through its table of functions: a trained model against its recording, every architecture on the plane. */
#include "tests/unit/kernels.h"

#include "base/file.h"
#include "base/json.h"
#include "engine/device.h"
#include "tests/unit/plane.h"
#include "tests/unit/tiny_models.h"

enum { ROWS = 96, PAGES = 61, PAGE_TOKENS = 16, FRAMES = 7, FRAME_ROWS = 96 };

typedef struct {
    checkpoint *c;
    program     p;
    device     *d;
} loaded;

static device_config config_for(const char *isa) {
    return (device_config){.threads = 2,
                           .rows_max = ROWS,
                           .outputs_max = PLANE_SEQUENCES,
                           .page_count = PAGES,
                           .page_tokens = PAGE_TOKENS,
                           .frame_count = FRAMES,
                           .frame_rows = FRAME_ROWS,
                           .context_max = 512,
                           .isa = isa};
}
static loaded *load(checkpoint *c, device_config config) { /* not by value: the device points at the program */
    loaded *l = take(sizeof *l);
    error   err;
    l->c = c;
    if (program_build(&l->p, checkpoint_facts(c), program_activation(checkpoint_facts(c)), &err) != OK)
        fail_msg("%s", err.text);
    if (device_cpu.open(&l->d, c, &l->p, &config, &err) != OK) fail_msg("%s", err.text);
    return l;
}
static void unload(loaded *l) {
    device_cpu.close(l->d);
    program_free(&l->p);
    checkpoint_close(l->c);
    free(l);
}

static const sampling greedy = {.top_p = 1, .repetition_penalty = 1, .top_logprobs = -1};

/* Tokens [begin, end) of one sequence on pages 0, 1, ...; returns what the last one draws. */
static uint32_t feed(loaded *l, const uint32_t *tokens, uint32_t begin, uint32_t end, float *logits) {
    uint32_t pages[PAGES];
    error    err;
    sampled  out;
    for (uint32_t i = 0; i < PAGES; i++) pages[i] = i;
    batch_run    run = {0, end - begin, begin, tokens + begin, pages, PAGES, 0};
    batch_output output = {
        .row = end - begin - 1, .params = &greedy, .history = tokens, .prompt_count = end, .history_count = end};
    batch b = {end - begin, 1, 1, &run, &output};
    if (device_cpu.bind(l->d, &b, &err) != OK) fail_msg("%s", err.text);
    for (uint32_t i = 0; i < l->p.op_count; i++)
        if (device_cpu.run_op(l->d, i, &err) != OK) fail_msg("%s", err.text);
    assert_int_equal(device_cpu.collect(l->d, &out, &err), OK);
    if (logits) assert_int_equal(device_cpu.read_logits(l->d, 0, logits), OK);
    assert_false(out.corrupt);
    return out.token;
}

/* ---- a real model ---- */

static const char *stories_dir(char *path, size_t n) {
    const char *shared = getenv("PENSTOCK_SHARED");
    snprintf(path, n, "%s/models/stories260K", shared ? shared : "../shared");
    return path;
}

static void check_logits(const cJSON *expected, const float *got) {
    double   error2 = 0, norm2 = 0;
    uint32_t i = 0;
    for (const cJSON *value = expected->child; value; value = value->next) {
        error2 += (value->valuedouble - (double)got[i]) * (value->valuedouble - (double)got[i]);
        norm2 += value->valuedouble * value->valuedouble, i++;
    }
    assert_true(i > 0 && error2 <= 1e-8 * norm2);
}

/* Logits are recorded by position in prompt + continuation: those that follow that token. */
static void follow_recording(loaded *l, const cJSON *text) {
    uint32_t tokens[512], n = 0, drawn = 0;
    float    logits[512];
    uint32_t fed = 0;
    for (const cJSON *id = json_get(text, "prompt_ids")->child; id; id = id->next) tokens[n++] = (uint32_t)id->valuedouble;
    for (const cJSON *id = json_get(text, "greedy_ids")->child; id; id = id->next) {
        tokens[n] = feed(l, tokens, fed, n, logits);
        if (tokens[n] != (uint32_t)id->valuedouble) fail_msg("token %u is %u, recorded %d", drawn, tokens[n], id->valueint);
        char name[16];
        snprintf(name, sizeof name, "%u", n - 1);
        if (json_get(json_get(text, "logits_at_position"), name))
            check_logits(json_get(json_get(text, "logits_at_position"), name), logits);
        fed = n++, drawn++;
    }
    assert_int_equal(drawn, 128);
}

static void a_trained_model_tells_its_recorded_stories(void **state) {
    (void)state;
    char        path[512], golden[600];
    checkpoint *c;
    error       err;
    buf         text;
    snprintf(golden, sizeof golden, "%s/golden_greedy_f64.json", stories_dir(path, sizeof path));
    if (!file_exists(golden)) skip();
    buf_init(&text, 1 << 20);
    assert_int_equal(file_read(&text, golden, &err), OK);
    cJSON *recording = json_parse(text.data, text.size, 16, &err);
    FOR_EACH_ISA(isa)
    for (int mapped = 0; mapped < 2; mapped++) {
        if (checkpoint_open(&c, path, &err) != OK) fail_msg("%s", err.text);
        device_config config = config_for(isa);
        config.map_weights = mapped;
        loaded *l = load(c, config);
        for (const cJSON *story = recording->child; story; story = story->next) follow_recording(l, story);
        unload(l);
    }
    cJSON_Delete(recording);
    buf_free(&text);
}

/* ---- every architecture ---- */

static void ask(plane_sequence *q, uint32_t i, uint32_t prompt, uint32_t outputs) {
    *q = (plane_sequence){.prompt_tokens = prompt, .output_tokens = outputs, .shares_with = -1, .params = greedy};
    q->params.temperature = i % 2 ? 1.0f : 0, q->params.seed = i;
    for (uint32_t k = 0; k < prompt; k++) q->tokens[k] = (k * 31 + (i % 2) * 5 + 3) % 97;
}

static void check_on_the_plane(uint32_t model, dtype type, const char *isa, uint64_t seeds) {
    enum { COUNT = 6 };
    static const uint32_t prompts[COUNT] = {1, 70, 17, 33, 48, 5};
    static plane_sequence alone[COUNT], together[COUNT];
    loaded               *l = load(tiny_open(model, type, 5), config_for(isa));
    plane_config          c = {.api = &device_cpu,
                               .device = l->d,
                               .program = &l->p,
                               .rows_max = ROWS,
                               .frame_count = FRAMES,
                               .frame_rows = FRAME_ROWS,
                               .page_count = PAGES,
                               .page_tokens = PAGE_TOKENS,
                               .vocab_size = 97};
    for (uint32_t i = 0; i < COUNT; i++) ask(&alone[i], i, prompts[i], 3 + i % 4);
    for (uint32_t i = 0; i < COUNT; i++) plane_run(&c, &alone[i], 1, 0);
    for (uint64_t seed = 1; seed <= seeds; seed++) {
        memcpy(together, alone, sizeof alone);
        for (uint32_t i = 0; i < COUNT; i++) memset(together[i].logits_hash, 0, sizeof together[i].logits_hash);
        plane_run(&c, together, COUNT, seed);
        for (uint32_t i = 0; i < COUNT; i++) {
            if (memcmp(together[i].logits_hash, alone[i].logits_hash, sizeof alone[i].logits_hash) != 0)
                fail_msg("%s %s %s: sequence %u differs in company (seed %llu)", tiny_models[model].name,
                         dtype_facts[type].name, isa, i, (unsigned long long)seed);
            assert_memory_equal(together[i].tokens, alone[i].tokens, sizeof alone[i].tokens);
        }
    }
    unload(l);
}

static void a_sequence_has_the_same_bits_alone_and_in_any_company(void **state) {
    (void)state;
    FOR_EACH_ISA(isa)
    for (uint32_t m = 0; m < TINY_MODELS; m++) {
        check_on_the_plane(m, DTYPE_BF16, isa, 4);
        check_on_the_plane(m, DTYPE_F32, isa, 2);
    }
}

static void mapped_and_packed_weights_and_all_instruction_sets_agree(void **state) {
    (void)state;
    uint32_t tokens[40];
    for (uint32_t i = 0; i < 40; i++) tokens[i] = i * 7 % 97;
    for (uint32_t m = 0; m < TINY_MODELS; m++) {
        float first[97], logits[97];
        bool  have_first = false;
        FOR_EACH_ISA(isa)
        for (int mapped = 0; mapped < 2; mapped++) {
            device_config config = config_for(isa);
            config.map_weights = mapped;
            loaded *l = load(tiny_open(m, DTYPE_F32, 5), config);
            feed(l, tokens, 0, 40, logits);
            if (!have_first) memcpy(first, logits, sizeof first);
            have_first = true;
            double error2 = 0, norm2 = 0;
            for (int i = 0; i < 97; i++) error2 += pow((double)(logits[i] - first[i]), 2), norm2 += pow((double)first[i], 2);
            if (!(error2 <= 1e-8 * norm2))
                fail_msg("%s %s mapped %d: relative error %g", tiny_models[m].name, isa, mapped, sqrt(error2 / norm2));
            unload(l);
        }
    }
}

/* ---- contracts ---- */

static void a_bad_batch_is_refused_with_a_sentence(void **state) {
    (void)state;
    loaded      *l = load(tiny_open(0, DTYPE_F32, 5), config_for("auto"));
    uint32_t     pages[4] = {0, 1, 2, 3}, tokens[ROWS + 1] = {0};
    batch_run    run = {0, 5, 0, tokens, pages, 1, 0};
    batch_output output = {.row = 4, .params = &greedy};
    batch        b = {5, 1, 1, &run, &output};
    error        err;
    assert_int_equal(device_cpu.bind(l->d, &b, &err), OK);
    tokens[3] = 97;
    assert_int_equal(device_cpu.run_op(l->d, 0, &err), ERR_INVALID);
    assert_non_null(strstr(err.text, "97"));
    run.position_begin = 12; /* to 17: past the page */
    assert_int_equal(device_cpu.bind(l->d, &b, &err), ERR_INVALID);
    run.position_begin = 0, pages[0] = PAGES;
    assert_int_equal(device_cpu.bind(l->d, &b, &err), ERR_INVALID);
    pages[0] = 0, output.row = 5;
    assert_int_equal(device_cpu.bind(l->d, &b, &err), ERR_INVALID);
    output.row = 0, b.row_count = 6;
    assert_int_equal(device_cpu.bind(l->d, &b, &err), ERR_INVALID);
    b.row_count = run.row_count = ROWS + 1;
    assert_int_equal(device_cpu.bind(l->d, &b, &err), ERR_INVALID);
    assert_int_not_equal(device_cpu.save_rows(l->d, 1, 0, 1, FRAMES, 0), OK);
    assert_int_not_equal(device_cpu.load_rows(l->d, 1, ROWS, 1, 0, 0), OK);
    assert_int_not_equal(device_cpu.move_rows(l->d, 1, 0, 1, 1), OK);
    unload(l);
}

static void the_plan_names_every_byte_and_impossible_sizes_are_refused(void **state) {
    (void)state;
    checkpoint        *c = tiny_open(5, DTYPE_BF16, 5);
    const model_facts *f = checkpoint_facts(c);
    device_config      config = config_for("auto");
    program            p;
    memory_plan        packed;
    error              err;
    assert_int_equal(program_build(&p, f, program_activation(f), &err), OK);
    assert_int_equal(device_cpu.plan_memory(f, &p, &config, &packed, &err), OK);
    assert_true(packed.row_count == 6 && packed.available_bytes > 0);
    assert_true(packed.rows[0].bytes >=
                checkpoint_bytes(c) - f->vocab_size * f->width * 2); /* the embedding stays in the file */
    assert_int_equal(packed.rows[1].bytes, PAGES * packed.page_bytes);
    assert_true(packed.page_bytes >= 3u * PAGE_TOKENS * p.kv_row_bytes);
    config.map_weights = true;
    memory_plan mapped;
    assert_int_equal(device_cpu.plan_memory(f, &p, &config, &mapped, &err), OK);
    assert_true(mapped.rows[0].bytes < packed.rows[0].bytes / 2);
    config.page_tokens = 24;
    assert_int_equal(device_cpu.plan_memory(f, &p, &config, &packed, &err), ERR_INVALID);
    config = config_for("no such set");
    device *d;
    assert_int_equal(device_cpu.open(&d, c, &p, &config, &err), ERR_UNSUPPORTED);
    assert_null(d);
    program_free(&p);
    checkpoint_close(c);
}

static void experts_read_are_counted_once_per_pass(void **state) {
    (void)state;
    loaded      *l = load(tiny_open(4, DTYPE_BF16, 5), config_for("auto"));
    uint32_t     tokens[20] = {0};
    device_stats before, one, same;
    device_cpu.read_stats(l->d, &before);
    feed(l, tokens, 0, 1, NULL);
    device_cpu.read_stats(l->d, &one);
    /* 3 layers x 2 experts x (gate, up, down of 48 x 40 in panels of 64 columns) x 2 bytes */
    uint64_t each = 2 * (uint64_t)(2 * 64 * 48 + 64 * 40);
    assert_int_equal(one.expert_bytes - before.expert_bytes, 3 * 2 * each);
    feed(l, tokens, 1, 20, NULL); /* more rows touch more experts, but each at most once */
    device_cpu.read_stats(l->d, &same);
    assert_true(same.expert_bytes - one.expert_bytes <= 3 * 5 * each);
    assert_true(same.passes == 2 && same.rows == 20 && same.op_ns[OP_LOGITS] > 0);
    unload(l);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_trained_model_tells_its_recorded_stories),
        cmocka_unit_test(a_sequence_has_the_same_bits_alone_and_in_any_company),
        cmocka_unit_test(mapped_and_packed_weights_and_all_instruction_sets_agree),
        cmocka_unit_test(a_bad_batch_is_refused_with_a_sentence),
        cmocka_unit_test(the_plan_names_every_byte_and_impossible_sizes_are_refused),
        cmocka_unit_test(experts_read_are_counted_once_per_pass),
    };
    return cmocka_run_group_tests(tests, writer_setup, writer_teardown);
}
