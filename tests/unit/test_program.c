/* The forward program: what a stop must keep, and what operators cost. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/program.h"

static model_facts dense_facts(void) {
    return (model_facts){.vocab_size = 100,
                         .width = 16,
                         .layer_count = 3,
                         .head_count = 4,
                         .kv_head_count = 2,
                         .head_dim = 8,
                         .ffn_width = 40,
                         .weights = DTYPE_BF16};
}

static model_facts moe_facts(void) {
    model_facts f = dense_facts();
    f.expert_count = 8, f.experts_per_token = 2, f.expert_width = 24, f.shared_width = 32, f.shared_gate = true;
    f.is_moe_layer[1] = f.is_moe_layer[2] = true;
    return f;
}

static uint32_t find_op(const program *p, op_kind kind, uint32_t layer) {
    for (uint32_t i = 0; i < p->op_count; i++)
        if (p->ops[i].kind == kind && p->ops[i].layer == layer) return i;
    fail_msg("no %s in layer %u", op_name(kind), layer);
    return 0;
}

static void only_the_residual_stream_is_live_where_a_layer_begins(void **state) {
    (void)state;
    const model_facts all[] = {dense_facts(), moe_facts()};
    for (size_t m = 0; m < 2; m++) {
        program p;
        assert_int_equal(program_build(&p, &all[m], DTYPE_BF16, NULL), OK);
        for (uint32_t l = 0; l <= p.layer_count; l++) assert_int_equal(p.live[p.layer_begin[l]], 1 << ROW_X);
        assert_int_equal(p.live[0], 0);
        assert_int_equal(p.live[p.op_count], 0);
        program_free(&p);
    }
}

static void inside_a_layer_exactly_what_is_still_read_is_live(void **state) {
    (void)state;
    const model_facts f = moe_facts();
    program           p;
    assert_int_equal(program_build(&p, &f, DTYPE_BF16, NULL), OK);
    const struct {
        op_kind  kind;
        uint16_t live;
    } expected[] = {
        {OP_QKV, 1 << ROW_X | 1 << ROW_H},
        {OP_ROPE_KV, 1 << ROW_X | 1 << ROW_Q | 1 << ROW_K | 1 << ROW_V},
        {OP_ATTENTION, 1 << ROW_X | 1 << ROW_Q},
        {OP_ATTN_OUT, 1 << ROW_X | 1 << ROW_A},
        {OP_FFN_NORM, 1 << ROW_X},
        {OP_ROUTE, 1 << ROW_X | 1 << ROW_H},
        {OP_EXPERTS_UP, 1 << ROW_X | 1 << ROW_H | 1 << ROW_R},
        {OP_EXPERTS_DOWN, 1 << ROW_X | 1 << ROW_H | 1 << ROW_R | 1 << ROW_F}, /* H: the shared expert reads it next */
        {OP_SHARED_UP, 1 << ROW_X | 1 << ROW_H},
        {OP_SHARED_DOWN, 1 << ROW_X | 1 << ROW_S},
    };
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++)
        assert_int_equal(p.live[find_op(&p, expected[i].kind, 1)], expected[i].live);
    program_free(&p);
}

static void a_program_runs_dense_and_moe_layers_in_their_order(void **state) {
    (void)state;
    const model_facts f = moe_facts();
    program           p;
    assert_int_equal(program_build(&p, &f, DTYPE_BF16, NULL), OK);
    assert_int_equal(p.op_count, 1 + 8 + 11 + 11 + 3);
    assert_int_equal(p.layer_begin[1] - p.layer_begin[0], 8);
    assert_int_equal(p.layer_begin[2] - p.layer_begin[1], 11);
    assert_int_equal(p.ops[p.layer_begin[3]].kind, OP_FINAL_NORM);
    assert_int_equal(p.outputs_begin, find_op(&p, OP_ATTENTION, 2));
    program_free(&p);
}

static void widths_follow_the_facts(void **state) {
    (void)state;
    const model_facts f = moe_facts();
    program           p;
    assert_int_equal(program_build(&p, &f, DTYPE_BF16, NULL), OK);
    const uint32_t expected[ROW_BUFFER_COUNT] = {64, 32, 64, 32, 32, 64, 16, 96, 64};
    assert_memory_equal(p.row_bytes, expected, sizeof expected);
    assert_int_equal(p.frame_row_bytes, 64 + 32 + 16 + 96); /* X H R F, before the experts' down projection */
    assert_int_equal(p.kv_row_bytes, 64);
    program_free(&p);
}

static void absurd_widths_and_layer_counts_are_refused(void **state) {
    (void)state;
    program     p;
    error       err;
    model_facts f = dense_facts();
    f.ffn_width = UINT32_MAX;
    assert_int_equal(program_build(&p, &f, DTYPE_F32, &err), ERR_TOO_LARGE);
    f = dense_facts();
    f.layer_count = MODEL_LAYERS_MAX + 1;
    assert_int_equal(program_build(&p, &f, DTYPE_F32, &err), ERR_UNSUPPORTED);
    f.layer_count = 0;
    assert_int_equal(program_build(&p, &f, DTYPE_F32, &err), ERR_UNSUPPORTED);
}

static void weights_cost_once_and_flops_per_row(void **state) {
    (void)state;
    const model_facts f = dense_facts();
    program           p;
    assert_int_equal(program_build(&p, &f, DTYPE_BF16, NULL), OK);
    const uint32_t down = find_op(&p, OP_DOWN, 0);
    const op_cost  one = program_cost(&p, &f, down, &(op_load){.rows = 1});
    const op_cost  ten = program_cost(&p, &f, down, &(op_load){.rows = 10});
    assert_true(one.weight_bytes == 16 * 40 * 2 && ten.weight_bytes == one.weight_bytes);
    assert_true(one.flops == 2 * 16 * 40 && ten.flops == 10 * one.flops);
    program_free(&p);
}

static void attention_reads_shared_positions_once(void **state) {
    (void)state;
    const model_facts f = dense_facts();
    program           p;
    assert_int_equal(program_build(&p, &f, DTYPE_BF16, NULL), OK);
    const op_load load = {.rows = 4, .context_tokens = 1 + 2 + 3 + 4, .kv_tokens = 4};
    const op_cost c = program_cost(&p, &f, find_op(&p, OP_ATTENTION, 1), &load);
    assert_true(c.kv_bytes == 4 * 64);
    assert_true(c.flops == 4.0 * 32 * 10);
    program_free(&p);
}

static void logits_cost_by_output_rows_only(void **state) {
    (void)state;
    const model_facts f = dense_facts();
    program           p;
    assert_int_equal(program_build(&p, &f, DTYPE_BF16, NULL), OK);
    const op_cost c = program_cost(&p, &f, p.op_count - 2, &(op_load){.rows = 512, .outputs = 1});
    assert_true(c.flops == 2.0 * 100 * 16);
    program_free(&p);
}

static void expert_bytes_follow_the_experts_touched(void **state) {
    (void)state;
    const model_facts f = moe_facts();
    program           p;
    assert_int_equal(program_build(&p, &f, DTYPE_BF16, NULL), OK);
    const uint32_t up = find_op(&p, OP_EXPERTS_UP, 1);
    assert_true(program_cost(&p, &f, up, &(op_load){.rows = 1, .experts_touched = 2}).weight_bytes == 2.0 * 48 * 16 * 2);
    assert_true(program_cost(&p, &f, up, &(op_load){.rows = 9, .experts_touched = 8}).weight_bytes == 8.0 * 48 * 16 * 2);
    program_free(&p);
}

static void one_row_touches_k_experts_and_many_rows_touch_all(void **state) {
    (void)state;
    const model_facts f = moe_facts();
    assert_true(program_expected_experts(&f, 0) == 0);
    assert_true(program_expected_experts(&f, 1) > 1.999 && program_expected_experts(&f, 1) < 2.001);
    assert_true(program_expected_experts(&f, 2) > 3 && program_expected_experts(&f, 2) < 4);
    assert_true(program_expected_experts(&f, 1000) > 7.999);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_the_residual_stream_is_live_where_a_layer_begins),
        cmocka_unit_test(inside_a_layer_exactly_what_is_still_read_is_live),
        cmocka_unit_test(a_program_runs_dense_and_moe_layers_in_their_order),
        cmocka_unit_test(widths_follow_the_facts),
        cmocka_unit_test(absurd_widths_and_layer_counts_are_refused),
        cmocka_unit_test(weights_cost_once_and_flops_per_row),
        cmocka_unit_test(attention_reads_shared_positions_once),
        cmocka_unit_test(logits_cost_by_output_rows_only),
        cmocka_unit_test(expert_bytes_follow_the_experts_touched),
        cmocka_unit_test(one_row_touches_k_experts_and_many_rows_touch_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
