#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "models/facts.h"
#include "models/random.h"

static model_facts f;
static error       err;

static int parse(const char *json) { return facts_parse(&f, "config.json", json, strlen(json), &err); }

static void expect(int code, const char *json, const char *word) {
    assert_int_equal(parse(json), code);
    if (!strstr(err.text, word)) fail_msg("'%s' does not say '%s'", err.text, word);
}
#define refuse(json, word) expect(ERR_UNSUPPORTED, json, word)
#define invalid(json, word) expect(ERR_INVALID, json, word)

#define SIZES "\"vocab_size\":100,\"hidden_size\":64,\"num_hidden_layers\":4,\"num_attention_heads\":8"
#define MODEL(name, more) "{\"architectures\":[\"" name "\"]," SIZES "," more "}"
#define LLAMA(more) MODEL("LlamaForCausalLM", "\"intermediate_size\":96," more)
#define PLAIN "\"x\":0"

static void defaults_are_those_of_the_published_class(void **state) {
    (void)state;
    assert_int_equal(parse(LLAMA(PLAIN)), OK);
    assert_string_equal(f.architecture, "LlamaForCausalLM");
    assert_int_equal(f.kv_head_count, 8);
    assert_int_equal(f.head_dim, 8);
    assert_int_equal(f.context_max, 2048);
    assert_true(f.norm_eps == 1e-6f && f.rope.theta == 10000 && f.rope.scaling == ROPE_PLAIN);
    assert_false(f.tied_embeddings || f.qkv_bias || f.out_bias || f.mlp_bias);
    assert_int_equal(f.sliding_window[0], 0);
    assert_int_equal(f.weights, DTYPE_F32);
    assert_true(f.has_bos && f.bos_id == 1 && f.eos_count == 1 && f.eos_ids[0] == 2);
    assert_true(f.default_temperature < 0 && f.default_top_k < 0);

    assert_int_equal(parse(MODEL("OlmoeForCausalLM", PLAIN)), OK);
    assert_int_equal(f.expert_count, 64);
    assert_int_equal(f.experts_per_token, 8);
    assert_int_equal(f.qk_norm, QK_NORM_FULL);
    assert_true(f.norm_eps == 1e-5f && f.qkv_clip == 0 && !f.renormalize_topk);
    assert_int_equal(f.eos_count, 0); /* 50279 is not in a vocabulary of 100 */
}

static void a_null_is_not_an_absence_where_the_two_differ(void **state) {
    (void)state;
#define MISTRAL(more) MODEL("MistralForCausalLM", "\"intermediate_size\":96," more)
    assert_int_equal(parse(MISTRAL(PLAIN)), OK);
    assert_int_equal(f.sliding_window[3], 4096);
    assert_int_equal(f.kv_head_count, 8);
    assert_int_equal(parse(MISTRAL("\"sliding_window\":null,\"num_key_value_heads\":null,\"eos_token_id\":null")), OK);
    assert_int_equal(f.sliding_window[0], 0);
    assert_int_equal(f.kv_head_count, 8); /* as many as heads */
    assert_int_equal(f.eos_count, 0);
    assert_int_equal(parse(MISTRAL("\"sliding_window\":7,\"num_key_value_heads\":2,\"head_dim\":16")), OK);
    assert_int_equal(f.sliding_window[0], 7);
    assert_int_equal(f.kv_head_count, 2);
    assert_int_equal(f.head_dim, 16);
}

static void rope_scaling_is_read_in_both_published_spellings(void **state) {
    (void)state;
#define LLAMA3 "\"factor\":8,\"low_freq_factor\":1,\"high_freq_factor\":4,\"original_max_position_embeddings\":8192"
    assert_int_equal(parse(LLAMA("\"rope_theta\":500000,\"rope_scaling\":{\"rope_type\":\"llama3\"," LLAMA3 "}")), OK);
    assert_int_equal(f.rope.scaling, ROPE_LLAMA3);
    assert_true(f.rope.theta == 500000 && f.rope.factor == 8 && f.rope.low_freq_factor == 1 && f.rope.high_freq_factor == 4);
    assert_int_equal(f.rope.original_context, 8192);
    model_facts old = f;
    assert_int_equal(parse(LLAMA("\"rope_parameters\":{\"rope_theta\":500000,\"rope_type\":\"llama3\"," LLAMA3 "}")), OK);
    assert_memory_equal(&old.rope, &f.rope, sizeof f.rope);
    assert_int_equal(parse(LLAMA("\"rope_scaling\":{\"type\":\"linear\",\"factor\":2.5}")), OK);
    assert_true(f.rope.scaling == ROPE_LINEAR && f.rope.factor == 2.5f && f.rope.theta == 10000);
    assert_int_equal(parse(LLAMA("\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":7e4}")), OK);
    assert_true(f.rope.scaling == ROPE_PLAIN && f.rope.theta == 7e4f);
}

static void sliding_windows_follow_each_architectures_rule(void **state) {
    (void)state;
#define WINDOWED "\"use_sliding_window\":true,\"sliding_window\":9,\"max_window_layers\":2"
    static const struct {
        const char *json;
        uint32_t    window[4];
    } rows[] = {
        {MODEL("Qwen2ForCausalLM", "\"num_key_value_heads\":2,\"intermediate_size\":96," WINDOWED), {0, 0, 9, 9}},
        {MODEL("Qwen3ForCausalLM", "\"num_key_value_heads\":2,\"intermediate_size\":96," WINDOWED), {0, 0, 9, 9}},
        {MODEL("Qwen3MoeForCausalLM", WINDOWED), {9, 9, 9, 9}},
        {MODEL("Qwen2MoeForCausalLM", "\"num_key_value_heads\":2," WINDOWED), {9, 0, 0, 0}},
        {MODEL("Qwen2ForCausalLM",
               "\"num_key_value_heads\":2,\"intermediate_size\":96,\"sliding_window\":9,\"max_window_layers\":2"),
         {0, 0, 0, 0}},
        {MODEL("Qwen2ForCausalLM",
               "\"num_key_value_heads\":2,\"intermediate_size\":96," WINDOWED
               ",\"layer_types\":[\"full_attention\",\"sliding_attention\",\"full_attention\",\"full_attention\"]"),
         {0, 9, 0, 0}},
        {MODEL("MixtralForCausalLM", "\"sliding_window\":9"), {9, 9, 9, 9}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (parse(rows[i].json) != OK) fail_msg("%s: %s", rows[i].json, err.text);
        for (int l = 0; l < 4; l++)
            if (f.sliding_window[l] != rows[i].window[l])
                fail_msg("%s: layer %d has %u", rows[i].json, l, f.sliding_window[l]);
    }
}

static void experts_are_read_with_their_layers(void **state) {
    (void)state;
    assert_int_equal(
        parse(MODEL("Qwen2MoeForCausalLM", "\"num_key_value_heads\":4,\"intermediate_size\":96,\"num_experts\":6,"
                                           "\"num_experts_per_tok\":3,\"moe_intermediate_size\":24,"
                                           "\"shared_expert_intermediate_size\":40,\"decoder_sparse_step\":2,"
                                           "\"mlp_only_layers\":[3],\"norm_topk_prob\":true")),
        OK);
    assert_true(f.expert_count == 6 && f.experts_per_token == 3 && f.expert_width == 24 && f.shared_width == 40);
    assert_true(f.shared_gate && f.renormalize_topk && f.qkv_bias && !f.out_bias);
    assert_true(!f.is_moe_layer[0] && f.is_moe_layer[1] && !f.is_moe_layer[2] && !f.is_moe_layer[3]);
    assert_int_equal(f.ffn_width, 96);

    assert_int_equal(
        parse(MODEL("MixtralForCausalLM", "\"num_local_experts\":4,\"intermediate_size\":48,\"norm_topk_prob\":false")), OK);
    assert_true(f.expert_count == 4 && f.experts_per_token == 2 && f.expert_width == 48 && f.renormalize_topk);
    assert_int_equal(f.ffn_width, 0);
    assert_int_equal(parse(MODEL("OlmoeForCausalLM", "\"clip_qkv\":8.5")), OK);
    assert_true(f.qkv_clip == 8.5f);
}

static void biases_follow_each_architectures_switch(void **state) {
    (void)state;
    assert_int_equal(parse(LLAMA("\"attention_bias\":true,\"mlp_bias\":true")), OK);
    assert_true(f.qkv_bias && f.out_bias && f.mlp_bias);
    assert_int_equal(
        parse(MODEL("Qwen2ForCausalLM", "\"num_key_value_heads\":8,\"intermediate_size\":9,\"attention_bias\":false")), OK);
    assert_true(f.qkv_bias && !f.out_bias);
    assert_int_equal(parse(MODEL("Qwen2MoeForCausalLM", "\"num_key_value_heads\":8,\"qkv_bias\":false")), OK);
    assert_false(f.qkv_bias || f.out_bias);
    assert_int_equal(
        parse(MODEL("Qwen3ForCausalLM", "\"num_key_value_heads\":8,\"intermediate_size\":9,\"attention_bias\":true")), OK);
    assert_true(f.qkv_bias && f.out_bias && f.head_dim == 128);
}

static void what_is_not_supported_is_refused_with_what_is(void **state) {
    (void)state;
    refuse(MODEL("GPT2LMHeadModel", PLAIN), "GPT2LMHeadModel");
    for (uint32_t i = 0; i < facts_architecture_count(); i++) assert_non_null(strstr(err.text, facts_architecture_name(i)));
    refuse("{\"model_type\":\"bert\"}", "LlamaForCausalLM");
    refuse(LLAMA("\"quantization_config\":{\"quant_method\":\"fp8\"}"), "fp8");
    refuse(LLAMA("\"quantization_config\":{}"), "quantized");
    refuse(LLAMA("\"hidden_act\":\"gelu\""), "silu");
    refuse(LLAMA("\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4}"), "llama3");
    refuse(LLAMA("\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":4}"), "linear");
    refuse(LLAMA("\"rope_parameters\":{\"full_attention\":{\"rope_type\":\"default\"}}"), "per kind of layer");
    refuse(LLAMA("\"partial_rotary_factor\":0.5"), "partial_rotary_factor");
    refuse(LLAMA("\"torch_dtype\":\"float8_e4m3fn\""), "bfloat16");
    refuse(LLAMA("\"dtype\":\"float64\""), "float64");
}

static void a_config_that_contradicts_itself_is_refused(void **state) {
    (void)state;
    invalid(LLAMA("\"model_type\":\"qwen2\""), "contradicts");
    invalid(LLAMA("\"num_key_value_heads\":3"), "evenly");
    invalid(LLAMA("\"num_key_value_heads\":16"), "evenly");
    invalid(LLAMA("\"head_dim\":7"), "even");
    invalid("{\"architectures\":[\"LlamaForCausalLM\"],\"vocab_size\":9,\"hidden_size\":65,\"num_hidden_layers\":1,"
            "\"num_attention_heads\":8,\"intermediate_size\":9}",
            "multiple");
    invalid(MODEL("OlmoeForCausalLM", "\"num_experts\":4,\"num_experts_per_tok\":5"), "more than");
    invalid(MODEL("Qwen3MoeForCausalLM", "\"mlp_only_layers\":[4]"), "mlp_only_layers");
    invalid(MODEL("Qwen3MoeForCausalLM", "\"mlp_only_layers\":[-1]"), "mlp_only_layers");
    invalid(MODEL("Qwen3MoeForCausalLM", "\"decoder_sparse_step\":2"), "intermediate_size");
    invalid(LLAMA("\"rope_scaling\":{\"type\":\"linear\"}"), "factor");
    invalid(LLAMA("\"rope_scaling\":{\"type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4,\"high_freq_factor\":4}"),
            "below");
    invalid(
        MODEL("Qwen2ForCausalLM", "\"num_key_value_heads\":8,\"intermediate_size\":9,\"layer_types\":[\"full_attention\"]"),
        "lists 1");
    invalid(MODEL("Qwen2ForCausalLM",
                  "\"num_key_value_heads\":8,\"intermediate_size\":9,\"layer_types\":[\"sliding_attention\"]"),
            "sliding_window");
}

static void absurd_numbers_are_refused(void **state) {
    (void)state;
    static const char *const keys[] = {
        "vocab_size",        "hidden_size",         "num_hidden_layers", "num_attention_heads",
        "intermediate_size", "num_key_value_heads", "head_dim",          "max_position_embeddings"};
    static const char *const values[] = {"0", "-1", "1e300", "4294967296", "1.5", "\"8\"", "[8]", "true"};
    for (size_t k = 0; k < sizeof keys / sizeof *keys; k++)
        for (size_t v = 0; v < sizeof values / sizeof *values; v++) {
            char json[512];
            snprintf(json, sizeof json,
                     "{\"architectures\":[\"LlamaForCausalLM\"]," SIZES ",\"intermediate_size\":9,\"%s\":%s}", keys[k],
                     values[v]);
            invalid(json, keys[k]);
        }
    invalid(LLAMA("\"rope_theta\":-1"), "rope_theta");
    invalid(LLAMA("\"rms_norm_eps\":2"), "rms_norm_eps");
    invalid(LLAMA("\"tie_word_embeddings\":1"), "tie_word_embeddings");
    invalid("{\"architectures\":[\"LlamaForCausalLM\"],\"hidden_size\":8}", "vocab_size");
}

static void malformed_text_is_refused_in_one_sentence(void **state) {
    (void)state;
    invalid("", "config.json");
    invalid("[]", "object");
    invalid("{\"architectures\":", "malformed");
    invalid("{\"architectures\":[\"\xff\"]}", "UTF-8");
    invalid("{\"architectures\":\"LlamaForCausalLM\"}", "architectures");
    invalid("{\"architectures\":[]}", "architectures");
    invalid("{\"a\":1}", "architecture");
    char deep[2048];
    memset(deep, '[', sizeof deep - 1), deep[sizeof deep - 1] = 0;
    invalid(deep, "deeper");
    size_t n = 3 << 20;
    char  *large = calloc(1, n);
    assert_int_equal(facts_parse(&f, "config.json", large, n, &err), ERR_TOO_LARGE);
    free(large);
}

static void eos_ids_are_gathered_from_both_files(void **state) {
    (void)state;
    assert_int_equal(parse(LLAMA("\"eos_token_id\":[5,7,5,-1,1000,6.5],\"bos_token_id\":null")), OK);
    assert_true(f.eos_count == 2 && f.eos_ids[0] == 5 && f.eos_ids[1] == 7 && !f.has_bos);
    const char *text =
        "{\"eos_token_id\":[7,9],\"bos_token_id\":3,\"temperature\":0.6,\"top_p\":0.9,\"top_k\":20,\"min_p\":0,"
        "\"repetition_penalty\":1.05,\"do_sample\":true}";
    assert_int_equal(facts_parse_generation(&f, "generation_config.json", text, strlen(text), &err), OK);
    assert_true(f.eos_count == 3 && f.eos_ids[2] == 9 && f.has_bos && f.bos_id == 3);
    assert_true(f.default_temperature == 0.6f && f.default_top_p == 0.9f && f.default_top_k == 20 && f.default_min_p == 0);
    assert_true(f.default_repetition_penalty == 1.05f);
    const char *bad = "{\"top_p\":2}";
    assert_int_equal(facts_parse_generation(&f, "generation_config.json", bad, strlen(bad), &err), ERR_INVALID);
    invalid(LLAMA("\"eos_token_id\":\"</s>\""), "eos_token_id");
    refuse(LLAMA("\"eos_token_id\":[1,2,3,4,5,6,7,8,9]"), "8");
}

static void parameter_counts_are_the_published_ones(void **state) {
    (void)state;
    static const struct {
        const char *name;
        uint64_t    total, active;
    } rows[] = {
        {"random:llama-160m", 162417408, 162417408 - 32000 * 768},
        {"random:qwen2.5-0.5b", 494032768, 494032768}, /* tied: the embedding is read as the head */
        {"random:llama-3.1-8b", 8030261248, 8030261248 - 128256ull * 4096},
        {"random:llama-3.1-70b", 70553706496, 70553706496 - 128256ull * 8192},
        {"random:mixtral-8x7b", 46702792704, 12879925248 - 32000ull * 4096},
        {"random:qwen3-30b-a3b", 30532122624,
         3353032704 - 151936ull * 2048}, /* "30.5B, 3.3B active", the embedding included */
        {"random:dense-292m", 291554304, 287360000},
        {"random:moe-655m", 654871552, 122194944},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        size_t      n = 0;
        const char *text = random_config(rows[i].name, &n);
        assert_non_null(text);
        assert_int_equal(facts_parse(&f, rows[i].name, text, n, &err), OK);
        assert_int_equal(facts_parameter_count(&f), rows[i].total);
        assert_int_equal(facts_active_parameter_count(&f), rows[i].active);
        assert_int_equal(f.weights, DTYPE_BF16);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_are_those_of_the_published_class),
        cmocka_unit_test(a_null_is_not_an_absence_where_the_two_differ),
        cmocka_unit_test(rope_scaling_is_read_in_both_published_spellings),
        cmocka_unit_test(sliding_windows_follow_each_architectures_rule),
        cmocka_unit_test(experts_are_read_with_their_layers),
        cmocka_unit_test(biases_follow_each_architectures_switch),
        cmocka_unit_test(what_is_not_supported_is_refused_with_what_is),
        cmocka_unit_test(a_config_that_contradicts_itself_is_refused),
        cmocka_unit_test(absurd_numbers_are_refused),
        cmocka_unit_test(malformed_text_is_refused_in_one_sentence),
        cmocka_unit_test(eos_ids_are_gathered_from_both_files),
        cmocka_unit_test(parameter_counts_are_the_published_ones),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
