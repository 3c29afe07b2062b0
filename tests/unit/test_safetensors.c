#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "models/safetensors.h"
#include "tests/unit/safetensors_writer.h"

static error err;

static void expect_bytes(const char *bytes, size_t n, int code, const char *word) {
    safetensors s;
    assert_int_equal(safetensors_parse(&s, bytes, n, &err), code);
    if (code != OK && !strstr(err.text, word)) fail_msg("'%s' does not say '%s'", err.text, word);
    safetensors_close(&s);
}

/* The header over `data_size` bytes of data. */
static void expect(const char *header, size_t data_size, int code, const char *word) {
    static char data[4096];
    buf         file = writer_file(header, data, data_size);
    expect_bytes(file.data, file.size, code, word);
    buf_free(&file);
}
static void invalid(const char *header, size_t data_size, const char *word) { expect(header, data_size, ERR_INVALID, word); }

#define TENSOR(name, type, shape, begin, end)                                                                               \
    "\"" name "\":{\"dtype\":\"" type "\",\"shape\":" shape ",\"data_offsets\":[" #begin "," #end "]}"
#define ONE(type, shape, begin, end) "{" TENSOR("a", type, shape, begin, end) "}"

static void tensors_are_found_by_name_with_their_bytes(void **state) {
    (void)state;
    writer w;
    writer_begin(&w);
    writer_add(&w, "b.weight", "F32", "2,3", 24, 1);
    writer_add(&w, "a.weight", "BF16", "5", 10, 2);
    writer_add(&w, "a", "I64", "", 8, 3); /* a scalar; a type we only skip */
    writer_add(&w, "empty", "F16", "0,7", 0, 0);
    buf         file = writer_end(&w);
    safetensors s;
    dtype       type;
    /* 24 + 10 + 8: the I64 is not aligned */
    assert_int_equal(safetensors_parse(&s, file.data, file.size, &err), ERR_INVALID);
    assert_non_null(strstr(err.text, "aligned"));
    safetensors_close(&s);
    buf_free(&file);

    writer_begin(&w);
    writer_add(&w, "b.weight", "F32", "2,3", 24, 1);
    writer_add(&w, "a", "I64", "", 8, 3);
    writer_add(&w, "a.weight", "BF16", "5", 10, 2);
    writer_add(&w, "empty", "F16", "0,7", 0, 0);
    file = writer_end(&w);
    assert_int_equal(safetensors_parse(&s, file.data, file.size, &err), OK);
    assert_int_equal(s.count, 4);
    const safetensor *t = safetensors_find(&s, "a.weight");
    assert_non_null(t);
    assert_true(t->rank == 1 && t->shape[0] == 5 && t->bytes == 10 && t->data[0] == 2 && t->data[9] == 2);
    assert_true(safetensor_dtype(t, &type) && type == DTYPE_BF16);
    t = safetensors_find(&s, "b.weight");
    assert_true(t->rank == 2 && t->shape[0] == 2 && t->shape[1] == 3 && t->data[0] == 1);
    t = safetensors_find(&s, "a");
    assert_true(t->rank == 0 && !safetensor_dtype(t, &type));
    assert_string_equal(safetensor_dtype_name(t), "I64");
    assert_int_equal(safetensors_find(&s, "empty")->bytes, 0);
    assert_null(safetensors_find(&s, "a.weigh"));
    assert_null(safetensors_find(&s, "a.weights"));
    assert_null(safetensors_find(&s, ""));
    safetensors_close(&s);
    safetensors_close(&s);
    buf_free(&file);
}

static void a_truncated_file_is_refused_at_every_length(void **state) {
    (void)state;
    buf file = writer_file(ONE("F32", "[2,2]", 0, 16), "0123456789abcdef", 16);
    expect_bytes(file.data, file.size, OK, "");
    for (size_t n = 0; n < file.size; n++) expect_bytes(file.data, n, ERR_INVALID, "");
    buf_free(&file);
}

static void a_header_length_beyond_reason_is_refused(void **state) {
    (void)state;
    expect_bytes("\xff\xff\xff\xff\xff\xff\xff\xff{}", 10, ERR_INVALID, "limit");
    expect_bytes("\x03\0\0\0\0\0\0\0{}", 10, ERR_INVALID, "truncated");
    expect_bytes("\x02\0\0\0\0\0\0\0{}", 10, OK, "");
    expect_bytes("\0\0\0\0\0\0\0\0", 8, ERR_INVALID, "'{'");
}

static void a_checkpoint_with_overlapping_tensors_is_refused(void **state) {
    (void)state;
    invalid("{" TENSOR("a", "F32", "[2]", 0, 8) "," TENSOR("b", "F32", "[2]", 4, 12) "}", 12, "overlaps");
    invalid("{" TENSOR("a", "F32", "[2]", 0, 8) "," TENSOR("b", "F32", "[2]", 0, 8) "}", 8, "overlaps");
}

static void holes_and_bytes_of_nobody_are_refused(void **state) {
    (void)state;
    invalid("{" TENSOR("a", "F32", "[1]", 0, 4) "," TENSOR("b", "F32", "[1]", 8, 12) "}", 12, "hole");
    invalid(ONE("F32", "[1]", 4, 8), 8, "hole");
    invalid(ONE("F32", "[1]", 0, 4), 8, "belong to none");
    invalid("{}", 1, "belong to none");
}

static void offsets_outside_the_file_are_refused(void **state) {
    (void)state;
    invalid(ONE("F32", "[2]", 0, 8), 4, "truncated");
    invalid(ONE("F32", "[2]", 8, 0), 8, "damaged");
    invalid(ONE("F32", "[2]", 0, 18446744073709551615), 8, "damaged");
    invalid(ONE("F32", "[2]", 0, 18446744073709551616), 8, "2^64");
    invalid(ONE("F32", "[2]", -8, 0), 8, "whole number");
    invalid(ONE("F32", "[2]", 0, 8.0), 8, "']'");
    invalid(ONE("F32", "[2]", 0, 1e3), 8, "']'");
}

static void misaligned_tensors_are_refused(void **state) {
    (void)state;
    invalid("{" TENSOR("a", "U8", "[2]", 0, 2) "," TENSOR("b", "F32", "[1]", 2, 6) "}", 6, "aligned");
    invalid("{" TENSOR("a", "U8", "[1]", 0, 1) "," TENSOR("b", "BF16", "[1]", 1, 3) "}", 3, "aligned");
    /* a header that is not padded: the data begin at an odd offset */
    static const char header[] = ONE("F32", "[1]", 0, 4);
    char              bytes[256] = {0};
    size_t            n = sizeof header / 4 * 4 + 5;
    memset(bytes + 8, ' ', n);
    memcpy(bytes + 8, header, sizeof header - 1);
    bytes[0] = (char)n;
    expect_bytes(bytes, 8 + n + 4, ERR_INVALID, "aligned");
}

static void absurd_shapes_are_refused(void **state) {
    (void)state;
    invalid(ONE("F32", "[4294967295,4294967295,4294967295,4294967295]", 0, 8), 8, "shape");
    invalid(ONE("F32", "[4294967296]", 0, 8), 8, "absurd");
    invalid(ONE("F32", "[1,1,1,1,1,1]", 0, 4), 4, "absurd");
    invalid(ONE("F32", "[3]", 0, 8), 8, "shape");
    invalid(ONE("F32", "[-1]", 0, 8), 8, "whole number");
    invalid(ONE("F32", "[2,]", 0, 8), 8, "whole number");
    invalid(ONE("F32", "2", 0, 8), 8, "'['");
    /* the product wraps to exactly 0 bytes in 64 bits */
    invalid(ONE("F32", "[2147483648,2147483648]", 0, 0), 0, "shape");
}

static void names_and_members_must_be_unique_and_known(void **state) {
    (void)state;
    invalid("{" TENSOR("a", "F32", "[1]", 0, 4) "," TENSOR("a", "F32", "[1]", 4, 8) "}", 8, "twice");
    invalid("{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "repeated");
    invalid("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"more\":1}}", 4, "unknown");
    invalid("{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "lacks");
    invalid("{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "lacks");
    expect(ONE("F4", "[2]", 0, 1), 1, ERR_UNSUPPORTED, "unknown type");
}

static void malformed_headers_are_refused(void **state) {
    (void)state;
    static const char *const headers[] = {"[]",
                                          "{",
                                          "{\"a\"}",
                                          "{\"a\":}",
                                          "{\"a\":{}",
                                          "{\"a\":{}}x",
                                          "{,}",
                                          "{\"a\":{},}",
                                          "{\"a",
                                          "null",
                                          "{\"__metadata__\":{\"k\":1}}",
                                          "{\"__metadata__\":[]}",
                                          "{\"a\\u0062\":{}}",
                                          "{\"a\\",
                                          "{\"\x01\":{}}",
                                          "{\"\xff\":{}}"};
    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++) invalid(headers[i], 0, "");
    expect("{\"__metadata__\":{\"k\":\"a \\\" \\\\ \\n } value\",\"l\":\"\"}}", 0, OK, "");
    expect(" \n{ \t}", 0, OK, "");
}

/* ---- folders ---- */

static int open_dir(safetensors *s) { return safetensors_open(s, writer_dir, &err); }

static buf one_tensor(const char *name, char fill) {
    writer w;
    writer_begin(&w);
    writer_add(&w, name, "F32", "2", 8, fill);
    return writer_end(&w);
}

static void expect_dir(int code, const char *word) {
    safetensors s;
    assert_int_equal(open_dir(&s), code);
    if (!strstr(err.text, word)) fail_msg("'%s' does not say '%s'", err.text, word);
    safetensors_close(&s);
}

static void shards_are_opened_through_their_index(void **state) {
    (void)state;
    writer_put_buf("model-1.safetensors", one_tensor("a", 1));
    writer_put_buf("model-2.safetensors", one_tensor("b", 2));
    writer_put_text("model.safetensors.index.json", "{\"metadata\":{\"total_size\":16,\"x\":[1,{\"y\":null}],\"s\":\"\\\"}"
                                                    "\"},\"weight_map\":{\"b\":\"model-2.safetensors\","
                                                    "\"a\":\"model-1.safetensors\"}}");
    safetensors s;
    assert_int_equal(open_dir(&s), OK);
    assert_true(s.count == 2 && s.file_count == 2);
    assert_int_equal(safetensors_find(&s, "a")->data[0], 1);
    assert_int_equal(safetensors_find(&s, "b")->data[0], 2);
    assert_string_equal(s.file_names[safetensors_find(&s, "b")->file], "model-2.safetensors");
    safetensors_close(&s);
}

static void an_index_that_does_not_match_its_shards_is_refused(void **state) {
    (void)state;
    writer_put_buf("model-1.safetensors", one_tensor("a", 1));
    writer_put_buf("model-2.safetensors", one_tensor("a", 2));
#define INDEX(map) writer_put_text("model.safetensors.index.json", "{\"weight_map\":" map "}")
    INDEX("{\"a\":\"model-1.safetensors\",\"c\":\"model-2.safetensors\"}");
    expect_dir(ERR_INVALID, "twice");
    INDEX("{\"a\":\"model-1.safetensors\",\"c\":\"model-1.safetensors\"}");
    expect_dir(ERR_INVALID, "'c' is not in");
    INDEX("{\"a\":\"model-3.safetensors\"}");
    expect_dir(ERR_NOT_FOUND, "model-3");
    INDEX("{\"a\":1}");
    expect_dir(ERR_INVALID, "string");
    INDEX("[]");
    expect_dir(ERR_INVALID, "'{'");
    writer_put_text("model.safetensors.index.json", "{\"metadata\":{}}");
    expect_dir(ERR_INVALID, "weight_map");
    writer_put_text("model.safetensors.index.json", "");
    expect_dir(ERR_INVALID, "index.json");
}

static void a_shard_outside_the_folder_is_refused(void **state) {
    (void)state;
    static const char *const names[] = {
        "../a.safetensors", "/etc/a.safetensors", "b/a.safetensors",  "..",     "",
        ".safetensors",     ".a.safetensors",     "a\\b.safetensors", "passwd", "-a.safetensors"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char json[256];
        snprintf(json, sizeof json, "{\"weight_map\":{\"a\":\"%s\"}}", names[i]);
        writer_put_text("model.safetensors.index.json", json);
        expect_dir(ERR_INVALID, "");
    }
}

static void a_folder_without_weights_is_named(void **state) {
    (void)state;
    writer_remove("model.safetensors.index.json");
    expect_dir(ERR_NOT_FOUND, writer_dir);
    writer_put_text("model.safetensors", "");
    expect_dir(ERR_INVALID, "too few");
    writer_put_buf("model.safetensors", one_tensor("a", 1));
    safetensors s;
    assert_int_equal(open_dir(&s), OK);
    safetensors_close(&s);
    writer_remove("model.safetensors");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tensors_are_found_by_name_with_their_bytes),
        cmocka_unit_test(a_truncated_file_is_refused_at_every_length),
        cmocka_unit_test(a_header_length_beyond_reason_is_refused),
        cmocka_unit_test(a_checkpoint_with_overlapping_tensors_is_refused),
        cmocka_unit_test(holes_and_bytes_of_nobody_are_refused),
        cmocka_unit_test(offsets_outside_the_file_are_refused),
        cmocka_unit_test(misaligned_tensors_are_refused),
        cmocka_unit_test(absurd_shapes_are_refused),
        cmocka_unit_test(names_and_members_must_be_unique_and_known),
        cmocka_unit_test(malformed_headers_are_refused),
        cmocka_unit_test(shards_are_opened_through_their_index),
        cmocka_unit_test(an_index_that_does_not_match_its_shards_is_refused),
        cmocka_unit_test(a_shard_outside_the_folder_is_refused),
        cmocka_unit_test(a_folder_without_weights_is_named),
    };
    return cmocka_run_group_tests(tests, writer_setup, writer_teardown);
}
