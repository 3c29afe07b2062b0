/* Every kernel for whatever the compiler targets by default. */
#include "kernels/cpu/table.h"

#include "kernels/cpu/simd_plain.h"
#include "kernels/cpu/simd.h"
#include "kernels/cpu/bodies.h"
