/* The machines that the sim device models: the table, what a calibration file replaces, and which experts are read. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "engine/device.h"
#include "engine/sim_machine.h"
#include "models/random.h"

static error err;

static model_facts facts_of(const char *name) {
    model_facts f;
    size_t      n = 0;
    const char *text = random_config(name, &n);
    assert_non_null(text);
    if (facts_parse(&f, name, text, n, &err) != OK) fail_msg("%s", err.text);
    return f;
}

static void machines_are_found_in_any_case_and_an_unknown_one_is_told_what_there_is(void **state) {
    (void)state;
    sim_machine m;
    assert_int_equal(sim_machine_find(&m, "A100-80G", NULL, &err), OK);
    assert_true(m.bytes_per_s < 2.04e12 && m.flops_per_s < 312e12); /* not above the datasheet */
    assert_int_equal(sim_machine_find(&m, NULL, NULL, &err), OK);
    assert_string_equal(m.name, "h200");
    assert_int_equal(sim_machine_find(&m, "abacus", NULL, &err), ERR_NOT_FOUND);
    assert_non_null(strstr(err.text, "a100-80g"));
}

static void an_operator_costs_the_longer_of_bytes_and_operations(void **state) {
    (void)state;
    sim_machine m;
    assert_int_equal(sim_machine_find(&m, "h100", NULL, &err), OK);
    const double read = sim_machine_op_ns(&m, OP_QKV, &(op_cost){.weight_bytes = 2.9e9, .flops = 1e9});
    assert_true(read > 1e6 && read < 1.01e6); /* a thousandth of a second's bytes, and a launch */
    const double compute = sim_machine_op_ns(&m, OP_QKV, &(op_cost){.weight_bytes = 1e6, .flops = 7e11});
    assert_true(compute > 1e6 && compute < 1.01e6);
}

static void rows_touch_experts_as_was_measured_not_as_dice_would(void **state) {
    (void)state;
    sim_machine       m;
    const model_facts f = facts_of("random:qwen3-30b-a3b");
    assert_int_equal(sim_machine_find(&m, "h100", NULL, &err), OK);
    assert_true(fabs(sim_machine_experts(&m, &f, 1) - 8) < 1e-9);
    assert_true(sim_machine_experts(&m, &f, 16) < 0.50 * 128);
    assert_true(fabs(sim_machine_experts(&m, &f, 128) / 128 - 0.863) < 0.01);
    assert_true(sim_machine_experts(&m, &f, 512) > 0.97 * 128);
    for (uint32_t rows = 1; rows < 2000; rows++)
        assert_true(sim_machine_experts(&m, &f, rows + 1) >= sim_machine_experts(&m, &f, rows) &&
                    sim_machine_experts(&m, &f, rows) <= program_expected_experts(&f, rows) + 1e-9);
    m.uniform_experts = true;
    assert_true(sim_machine_experts(&m, &f, 16) > 0.60 * 128);
}

static int parse(sim_machine *m, const char *text) { return sim_machine_parse(m, "file", text, strlen(text), &err); }

static void a_calibration_replaces_what_it_names_and_nothing_else(void **state) {
    (void)state;
    sim_machine m;
    assert_int_equal(sim_machine_find(&m, "cpu", NULL, &err), OK);
    const double before = sim_machine_op_ns(&m, OP_DOWN, &(op_cost){.weight_bytes = 1e6});
    assert_int_equal(parse(&m, "{\"name\":\"mine\",\"experts\":\"uniform\",\"operators\":{\"qkv\":{\"fixed_ns\":100,"
                               "\"ns_per_byte\":0.5,\"ns_per_flop\":2}}}"),
                     OK);
    assert_string_equal(m.name, "mine");
    assert_true(m.uniform_experts);
    assert_true(sim_machine_op_ns(&m, OP_QKV, &(op_cost){.weight_bytes = 10, .kv_bytes = 2, .flops = 3}) == 112);
    assert_true(sim_machine_op_ns(&m, OP_DOWN, &(op_cost){.weight_bytes = 1e6}) == before);
    assert_int_equal(
        parse(&m, "{\"operators\":{\"down\":{\"fixed_ns\":100,\"ns_per_row\":10,\"by_rows\":[[1,3],[2,1],[6,2]]}}}"), OK);
    static const struct { double rows, ns; } by_rows[] = {{1, 330}, {2, 120}, {4, 210}, {6, 320}, {90, 2000}};
    for (size_t i = 0; i < sizeof by_rows / sizeof *by_rows; i++)
        assert_true(fabs(sim_machine_op_ns(&m, OP_DOWN, &(op_cost){.rows = by_rows[i].rows}) - by_rows[i].ns) < 1e-9);
    assert_true(m.pass_ns == 0 && m.request_ns == 0);
    assert_int_equal(parse(&m, "{\"operators\":{},\"pass_ns\":30000,\"request_ns\":2e5}"), OK);
    assert_true(m.pass_ns == 30000 && m.request_ns == 2e5);
}

static void a_calibration_that_makes_no_sense_is_refused_in_one_sentence(void **state) {
    (void)state;
    static const char *const bad[] = {
        "",
        "[]",
        "{}",
        "{\"operators\":{\"levitate\":{}}}",
        "{\"operators\":{\"qkv\":{\"fixed_ns\":-1}}}",
        "{\"operators\":{\"qkv\":{\"ns_per_byte\":\"fast\"}}}",
        "{\"operators\":{},\"experts\":\"none\"}",
        "{\"operators\":{},\"memory_bytes\":0}",
        "{\"operators\":{},\"pass_ns\":-1}",
        "{\"operators\":{\"qkv\":{\"by_rows\":7}}}",
        "{\"operators\":{\"qkv\":{\"by_rows\":[[2,1],[2,1]]}}}",
        "{\"operators\":{\"qkv\":{\"by_rows\":[[1]]}}}",
        "{\"operators\":{\"qkv\":{\"by_rows\":[[1,-1]]}}}",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        sim_machine m;
        assert_int_equal(sim_machine_find(&m, "cpu", NULL, &err), OK);
        assert_int_not_equal(parse(&m, bad[i]), OK);
        assert_non_null(strstr(err.text, "calibration 'file'"));
    }
    sim_machine m;
    assert_int_not_equal(sim_machine_find(&m, "cpu", "/nonexistent/calibration", &err), OK);
}

static void every_modelled_model_runs_on_the_machines_that_hold_it(void **state) {
    (void)state;
    for (uint32_t i = 0; checkpoint_random_name(i); i++) {
        const model_facts   f = facts_of(checkpoint_random_name(i));
        program             p;
        memory_plan         plan;
        const device_config c = {
            .sim_hardware = "h200", .rows_max = 512, .outputs_max = 8, .page_tokens = 16, .page_count = 1};
        assert_int_equal(program_build(&p, &f, program_activation(&f), &err), OK);
        assert_int_equal(device_sim.plan_memory(&f, &p, &c, &plan, &err), OK);
        assert_true(plan.rows[0].bytes == facts_parameter_count(&f) * 2);
        program_free(&p);
    }
    const model_facts oss = facts_of("random:gpt-oss-20b");
    const double      billions = (double)facts_parameter_count(&oss) / 1e9;
    assert_true(billions > 20.7 && billions < 21.0); /* "20.9B" */
    assert_int_equal(oss.sliding_window[0], 128);
    assert_int_equal(oss.sliding_window[1], 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(machines_are_found_in_any_case_and_an_unknown_one_is_told_what_there_is),
        cmocka_unit_test(an_operator_costs_the_longer_of_bytes_and_operations),
        cmocka_unit_test(rows_touch_experts_as_was_measured_not_as_dice_would),
        cmocka_unit_test(a_calibration_replaces_what_it_names_and_nothing_else),
        cmocka_unit_test(a_calibration_that_makes_no_sense_is_refused_in_one_sentence),
        cmocka_unit_test(every_modelled_model_runs_on_the_machines_that_hold_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
