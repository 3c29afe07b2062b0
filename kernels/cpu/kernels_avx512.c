/* Every kernel for AVX-512 with BF16 (Zen 4 and later, Cooper Lake, Sapphire Rapids and later). */
#include "kernels/cpu/table.h"

#ifdef __AVX512BF16__
#include "kernels/cpu/simd_avx512.h"
#include "kernels/cpu/simd.h"
#include "kernels/cpu/bodies.h"
#endif
