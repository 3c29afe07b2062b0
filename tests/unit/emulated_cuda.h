/* tests/unit/emulated_cuda.h: lets this test's process find a GPU that tests/cuda/emulation.h pretends, or the
 * real one that PENSTOCK_TEST_CUDA_OBJECT is for (make gpu-check). */
#pragma once
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* build/tests/unit/TEST -> build/penstock-emulated-cuda.so */
static inline void emulated_cuda_begin(void) {
    const char *real = getenv("PENSTOCK_TEST_CUDA_OBJECT");
    if (real) {
        setenv("PENSTOCK_CUDA_OBJECT", real, 1);
        return;
    }
    char          path[600];
    const ssize_t n = readlink("/proc/self/exe", path, 500);
    path[n > 0 ? n : 0] = 0;
    for (int up = 0; up < 3; up++) {
        char *slash = strrchr(path, '/');
        if (slash) *slash = 0;
    }
    strcat(path, "/penstock-emulated-cuda.so");
    setenv("PENSTOCK_CUDA_OBJECT", path, 1);
}
