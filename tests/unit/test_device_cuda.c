/* The CUDA device without a GPU: how its object is found, or why not. */
#include "tests/unit/kernels.h"

#include "engine/cuda_object.h"
#include "engine/device.h"
#include "tests/unit/emulated_cuda.h"

static void the_object_is_opened_and_shows_its_gpu(void **state) {
    (void)state;
    cuda_card card;
    char      why[256] = "";
    emulated_cuda_begin();
    assert_non_null(cuda_object_open(&card, why, sizeof why));
    assert_string_equal(card.name, "an emulated GPU");
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
    assert_non_null(strstr(why, "--device cuda cannot be had, because there is no penstock-cuda.so"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_object_is_opened_and_shows_its_gpu),
        cmocka_unit_test(what_stands_in_the_way_of_a_gpu_is_said_in_a_sentence),
        cmocka_unit_test(without_a_gpu_auto_takes_the_cpu_and_says_why),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
