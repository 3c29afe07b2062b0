#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/file.h"
#include "models/checkpoint.h"
#include "tests/unit/safetensors_writer.h"

static error       err;
static checkpoint *c;

static int  open_dir(void) { return checkpoint_open(&c, writer_dir, &err); }
static void expect(int code, const char *word) {
    assert_int_equal(open_dir(), code);
    assert_null(c);
    if (!strstr(err.text, word)) fail_msg("'%s' does not say '%s'", err.text, word);
}

/* ---- a tiny Llama: one layer, width 8, two heads of 4, ffn 12, vocabulary 10 ---- */

#define CONFIG(more)                                                                                                        \
    "{\"architectures\":[\"LlamaForCausalLM\"],\"vocab_size\":10,\"hidden_size\":8,\"num_hidden_layers\":1,"                \
    "\"num_attention_heads\":2,\"intermediate_size\":12" more "}"

typedef struct {
    const char *name, *shape;
    size_t      values;
} row;
#define L0 "model.layers.0."
static const row tiny[] = {
    {"model.embed_tokens.weight", "10,8", 80},
    {"lm_head.weight", "10,8", 80},
    {"model.norm.weight", "8", 8},
    {L0 "input_layernorm.weight", "8", 8},
    {L0 "self_attn.q_proj.weight", "8,8", 64},
    {L0 "self_attn.k_proj.weight", "8,8", 64},
    {L0 "self_attn.v_proj.weight", "8,8", 64},
    {L0 "self_attn.o_proj.weight", "8,8", 64},
    {L0 "post_attention_layernorm.weight", "8", 8},
    {L0 "mlp.gate_proj.weight", "12,8", 96},
    {L0 "mlp.up_proj.weight", "12,8", 96},
    {L0 "mlp.down_proj.weight", "8,12", 96},
};
enum { TINY = sizeof tiny / sizeof *tiny };

/* The tiny model as F32 without row `leave_out` and with one more tensor, if any. */
static void put_tiny(const char *leave_out, const row *more) {
    writer w;
    writer_begin(&w);
    for (int i = 0; i < TINY; i++)
        if (!leave_out || strcmp(leave_out, tiny[i].name) != 0)
            writer_add(&w, tiny[i].name, "F32", tiny[i].shape, tiny[i].values * 4, (char)i);
    if (more) writer_add(&w, more->name, "F32", more->shape, more->values * 4, 99);
    writer_put_buf("model.safetensors", writer_end(&w));
}

static void roles_lead_to_their_tensors(void **state) {
    (void)state;
    writer_put_text("config.json", CONFIG(""));
    put_tiny(NULL, NULL);
    assert_int_equal(open_dir(), OK);
    static const struct {
        tensor_role role;
        uint32_t    rows, cols;
        char        fill;
    } rows[] = {{ROLE_EMBED, 10, 8, 0},   {ROLE_LM_HEAD, 10, 8, 1}, {ROLE_FINAL_NORM, 1, 8, 2}, {ROLE_ATTN_NORM, 1, 8, 3},
                {ROLE_Q, 8, 8, 4},        {ROLE_K, 8, 8, 5},        {ROLE_V, 8, 8, 6},          {ROLE_O, 8, 8, 7},
                {ROLE_FFN_NORM, 1, 8, 8}, {ROLE_GATE, 12, 8, 9},    {ROLE_UP, 12, 8, 10},       {ROLE_DOWN, 8, 12, 11}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        tensor t = checkpoint_tensor(c, rows[i].role, 0, 0);
        assert_true(t.rows == rows[i].rows && t.cols == rows[i].cols && t.type == DTYPE_F32);
        assert_int_equal(((const char *)t.data)[0], rows[i].fill);
        checkpoint_will_read(c, &t);
        checkpoint_was_read(c, &t);
        assert_int_equal(((const char *)t.data)[0], rows[i].fill);
    }
    assert_false(checkpoint_has(c, ROLE_Q_BIAS, 0, 0));
    assert_false(checkpoint_has(c, ROLE_ROUTER, 0, 0));
    assert_false(checkpoint_has(c, ROLE_EXPERT_UP, 0, 0));
    assert_false(checkpoint_has(c, ROLE_Q, 1, 0));
    assert_int_equal(checkpoint_bytes(c), 4 * facts_parameter_count(checkpoint_facts(c)));
    assert_int_equal(checkpoint_facts(c)->weights, DTYPE_F32);
    assert_string_equal(checkpoint_dir(c), writer_dir);
    checkpoint_close(c);
}

static void every_missing_tensor_is_named(void **state) {
    (void)state;
    for (int i = 0; i < TINY; i++) {
        put_tiny(tiny[i].name, NULL);
        expect(ERR_INVALID, tiny[i].name);
        assert_non_null(strstr(err.text, "missing"));
    }
}

static void a_tensor_that_the_config_does_not_account_for_is_refused(void **state) {
    (void)state;
    put_tiny(NULL, &(row){"model.layers.1.input_layernorm.weight", "8", 8});
    expect(ERR_INVALID, "model.layers.1.input_layernorm.weight");
    put_tiny(NULL, &(row){L0 "self_attn.q_proj.bias", "8", 8});
    expect(ERR_INVALID, "q_proj.bias");
    put_tiny(NULL, &(row){L0 "self_attn.rotary_emb.inv_freq", "2", 2}); /* old releases saved these */
    assert_int_equal(open_dir(), OK);
    checkpoint_close(c);
}

static void a_config_that_contradicts_the_weights_is_refused(void **state) {
    (void)state;
    static const struct {
        const char *more, *word;
    } rows[] = {
        {",\"vocab_size\":11", "[11, 8]"},           {",\"hidden_size\":16", "[10, 16]"},
        {",\"intermediate_size\":13", "[13, 8]"},    {",\"num_hidden_layers\":2", "layers.1"},
        {",\"num_key_value_heads\":1", "[4, 8]"},    {",\"head_dim\":2", "[4, 8]"},
        {",\"attention_bias\":true", "q_proj.bias"}, {",\"tie_word_embeddings\":true", "differs"},
    };
    put_tiny(NULL, NULL);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char json[512]; /* the last of duplicate keys wins */
        snprintf(json, sizeof json, CONFIG("%s"), rows[i].more);
        writer_put_text("config.json", json);
        expect(ERR_INVALID, rows[i].word);
    }
}

static void tied_embeddings_serve_as_the_head(void **state) {
    (void)state;
    writer_put_text("config.json", CONFIG(",\"tie_word_embeddings\":true"));
    put_tiny("lm_head.weight", NULL);
    assert_int_equal(open_dir(), OK);
    assert_ptr_equal(checkpoint_tensor(c, ROLE_LM_HEAD, 0, 0).data, checkpoint_tensor(c, ROLE_EMBED, 0, 0).data);
    assert_int_equal(checkpoint_bytes(c), 4 * facts_parameter_count(checkpoint_facts(c)));
    checkpoint_close(c);
    put_tiny("model.embed_tokens.weight", NULL); /* saved under its other name */
    assert_int_equal(open_dir(), OK);
    assert_int_equal(((const char *)checkpoint_tensor(c, ROLE_EMBED, 0, 0).data)[0], 1);
    checkpoint_close(c);
    writer w; /* saved under both */
    writer_begin(&w);
    for (int i = 0; i < TINY; i++) writer_add(&w, tiny[i].name, "BF16", tiny[i].shape, tiny[i].values * 2, 7);
    writer_put_buf("model.safetensors", writer_end(&w));
    assert_int_equal(open_dir(), OK);
    assert_int_equal(checkpoint_facts(c)->weights, DTYPE_BF16);
    checkpoint_close(c);
}

static void weights_of_an_unsupported_type_are_refused(void **state) {
    (void)state;
    writer_put_text("config.json", CONFIG(""));
    writer w;
    writer_begin(&w);
    for (int i = 0; i < TINY; i++) writer_add(&w, tiny[i].name, "F8_E4M3", tiny[i].shape, tiny[i].values, 7);
    writer_put_buf("model.safetensors", writer_end(&w));
    expect(ERR_UNSUPPORTED, "F8_E4M3");
    writer_begin(&w);
    for (int i = 0; i < TINY; i++)
        writer_add(&w, tiny[i].name, "F16", i == 2 ? "2,4" : tiny[i].shape, tiny[i].values * 2, 7);
    writer_put_buf("model.safetensors", writer_end(&w));
    expect(ERR_INVALID, "[2, 4]");
}

static void mixtral_spells_its_experts_its_own_way(void **state) {
    (void)state;
    writer_put_text(
        "config.json",
        "{\"architectures\":[\"MixtralForCausalLM\"],\"vocab_size\":10,\"hidden_size\":8,\"num_hidden_layers\":1,"
        "\"num_attention_heads\":2,\"num_key_value_heads\":1,\"intermediate_size\":6,\"num_local_experts\":3}");
    static const row rows[] = {
        {"model.embed_tokens.weight", "10,8", 80},
        {"lm_head.weight", "10,8", 80},
        {"model.norm.weight", "8", 8},
        {L0 "input_layernorm.weight", "8", 8},
        {L0 "self_attn.q_proj.weight", "8,8", 64},
        {L0 "self_attn.k_proj.weight", "4,8", 32},
        {L0 "self_attn.v_proj.weight", "4,8", 32},
        {L0 "self_attn.o_proj.weight", "8,8", 64},
        {L0 "post_attention_layernorm.weight", "8", 8},
        {L0 "block_sparse_moe.gate.weight", "3,8", 24},
    };
    writer w;
    writer_begin(&w);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        writer_add(&w, rows[i].name, "BF16", rows[i].shape, rows[i].values * 2, 1);
    for (int e = 0; e < 3; e++)
        for (int m = 1; m <= 3; m++) {
            char name[128];
            snprintf(name, sizeof name, L0 "block_sparse_moe.experts.%d.w%d.weight", e, m);
            writer_add(&w, name, "BF16", m == 2 ? "8,6" : "6,8", 96, (char)(10 * e + m));
        }
    writer_put_buf("model.safetensors", writer_end(&w));
    assert_int_equal(open_dir(), OK);
    for (uint32_t e = 0; e < 3; e++) {
        assert_int_equal(((const char *)checkpoint_tensor(c, ROLE_EXPERT_GATE, 0, e).data)[0], 10 * e + 1);
        assert_int_equal(((const char *)checkpoint_tensor(c, ROLE_EXPERT_DOWN, 0, e).data)[0], 10 * e + 2);
        assert_int_equal(((const char *)checkpoint_tensor(c, ROLE_EXPERT_UP, 0, e).data)[0], 10 * e + 3);
    }
    assert_false(checkpoint_has(c, ROLE_EXPERT_UP, 0, 3));
    assert_false(checkpoint_has(c, ROLE_GATE, 0, 0));
    checkpoint_close(c);
}

static void a_folder_that_is_no_checkpoint_is_named(void **state) {
    (void)state;
    assert_int_equal(checkpoint_open(&c, "/nonexistent/model", &err), ERR_NOT_FOUND);
    assert_non_null(strstr(err.text, "/nonexistent/model"));
    assert_int_equal(checkpoint_open(&c, "random:nothing", &err), ERR_NOT_FOUND);
    assert_non_null(strstr(err.text, "random:llama-160m"));
}

/* ---- random shapes ---- */

static void every_random_shape_opens_with_all_its_tensors(void **state) {
    (void)state;
    for (uint32_t i = 0; checkpoint_random_name(i); i++) {
        assert_int_equal(checkpoint_open(&c, checkpoint_random_name(i), &err), OK);
        const model_facts *f = checkpoint_facts(c);
        uint32_t           last = f->layer_count - 1;
        assert_null(checkpoint_dir(c));
        assert_int_equal(checkpoint_bytes(c), 2 * facts_parameter_count(f));
        assert_true(checkpoint_has(c, ROLE_LM_HEAD, 0, 0) && checkpoint_has(c, ROLE_DOWN, last, 0) == !f->expert_count);
        assert_true(checkpoint_has(c, ROLE_EXPERT_DOWN, last, f->expert_count - 1) == (f->expert_count > 0));
        buf text;
        buf_init(&text, 1 << 16);
        checkpoint_describe(c, &text);
        assert_non_null(strstr(text.data, f->architecture));
        assert_false(buf_overflowed(&text));
        buf_free(&text);
        checkpoint_close(c);
    }
}

static void random_weights_are_the_same_everywhere_and_differ_by_tensor_and_row(void **state) {
    (void)state;
    uint16_t a[4096], b[4096];
    assert_int_equal(checkpoint_open(&c, "random:moe-655m", &err), OK);
    tensor q = checkpoint_tensor(c, ROLE_Q, 3, 0), k = checkpoint_tensor(c, ROLE_K, 3, 0);
    tensor e0 = checkpoint_tensor(c, ROLE_EXPERT_UP, 0, 0), e1 = checkpoint_tensor(c, ROLE_EXPERT_UP, 0, 1);
    assert_true(q.data == NULL && q.cols == 1024 && q.seed != k.seed && e0.seed != e1.seed);
    tensor_random_row(&q, 5, a);
    tensor_random_row(&q, 5, b);
    assert_memory_equal(a, b, q.cols * 2);
    tensor_random_row(&q, 6, b);
    assert_memory_not_equal(a, b, q.cols * 2);
    /* recorded: a device that draws these has the rule right */
    static const uint16_t first[8] = {0x3BC8, 0x3D3C, 0x3CE8, 0xBC87, 0xBC8D, 0xBC28, 0xBC3A, 0x3C09};
    assert_memory_equal(a, first, sizeof first);
    checkpoint_close(c);
}

static void random_weights_are_nearly_normal(void **state) {
    (void)state;
    enum { COLS = 1001, ROWS = 200 };
    tensor t = {.type = DTYPE_F32, .rows = ROWS, .cols = COLS, .seed = 7, .scale = 0.02f};
    double sum = 0, squares = 0, fourth = 0, largest = 0, n = (double)COLS * ROWS;
    float  row_values[COLS + 1];
    row_values[COLS] = 42;
    for (uint32_t r = 0; r < ROWS; r++) {
        tensor_random_row(&t, r, row_values);
        for (int i = 0; i < COLS; i++) {
            double v = (double)row_values[i] / 0.02;
            sum += v, squares += v * v, fourth += v * v * v * v;
            if (fabs(v) > largest) largest = fabs(v);
        }
    }
    assert_true(row_values[COLS] == 42); /* nothing beyond the row */
    assert_true(fabs(sum / n) < 0.01 && fabs(squares / n - 1) < 0.01);
    assert_true(fourth / n > 2.6 && fourth / n < 3 && largest > 3 && largest < 3.5); /* normal: 3 */
}

static void random_norms_are_ones_and_biases_zeros(void **state) {
    (void)state;
    uint16_t values[896];
    assert_int_equal(checkpoint_open(&c, "random:qwen2.5-0.5b", &err), OK);
    tensor norm = checkpoint_tensor(c, ROLE_ATTN_NORM, 0, 0), bias = checkpoint_tensor(c, ROLE_Q_BIAS, 0, 0);
    tensor_random_row(&norm, 0, values);
    for (uint32_t i = 0; i < norm.cols; i++) assert_int_equal(values[i], 0x3F80);
    tensor_random_row(&bias, 0, values);
    for (uint32_t i = 0; i < bias.cols; i++) assert_int_equal(values[i], 0);
    checkpoint_close(c);
}

/* ---- a real one ---- */

static void a_published_checkpoint_opens(void **state) {
    (void)state;
    char        path[512];
    const char *shared = getenv("PENSTOCK_SHARED");
    snprintf(path, sizeof path, "%s/models/stories260K", shared ? shared : "../shared");
    if (!file_exists(path)) skip();
    assert_int_equal(checkpoint_open(&c, path, &err), OK);
    assert_int_equal(facts_parameter_count(checkpoint_facts(c)), 260032);
    assert_int_equal(checkpoint_facts(c)->weights, DTYPE_F32);
    assert_true(checkpoint_tensor(c, ROLE_DOWN, 4, 0).cols == 172);
    checkpoint_close(c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(roles_lead_to_their_tensors),
        cmocka_unit_test(every_missing_tensor_is_named),
        cmocka_unit_test(a_tensor_that_the_config_does_not_account_for_is_refused),
        cmocka_unit_test(a_config_that_contradicts_the_weights_is_refused),
        cmocka_unit_test(tied_embeddings_serve_as_the_head),
        cmocka_unit_test(weights_of_an_unsupported_type_are_refused),
        cmocka_unit_test(mixtral_spells_its_experts_its_own_way),
        cmocka_unit_test(a_folder_that_is_no_checkpoint_is_named),
        cmocka_unit_test(every_random_shape_opens_with_all_its_tensors),
        cmocka_unit_test(random_weights_are_the_same_everywhere_and_differ_by_tensor_and_row),
        cmocka_unit_test(random_weights_are_nearly_normal),
        cmocka_unit_test(random_norms_are_ones_and_biases_zeros),
        cmocka_unit_test(a_published_checkpoint_opens),
    };
    return cmocka_run_group_tests(tests, writer_setup, writer_teardown);
}
