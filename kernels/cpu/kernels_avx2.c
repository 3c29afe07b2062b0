/* Every kernel for AVX2 with FMA and F16C. */
#include "kernels/cpu/table.h"

#ifdef __AVX2__
#include "kernels/cpu/simd_avx2.h"
#include "kernels/cpu/simd.h"
#include "kernels/cpu/bodies.h"
#endif
