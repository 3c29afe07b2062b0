/* kernels/cuda/ops.cuh: the operations that CUDA C++ has no word for; the only place with PTX.
 *
 * Kernels are written in CUDA's own words (threadIdx, __syncthreads, __shfl_xor_sync, atomicAdd, ...) and in these. Both
 * have a second meaning on a machine without a GPU: tests/cuda/emulation.h is put in front of a kernel's source, which the
 * host's compiler then builds as it stands. What an operation means is said here, once; the emulation is held to it by
 * tests/unit/test_cuda_emulation.c, the PTX by the same checks on hardware.
 *
 *   load16, load16_once, store16          16 bytes, 16-aligned; _once: read through the read-only path and not kept in L1
 *   copy_async16(to, from)                16 bytes from global to shared memory, some time before its group is waited for
 *   copy_async16_or_zero(to, from, if)    the same, or zeros where `if` is false (`from` is then not read)
 *   copy_commit(), copy_wait<N>()         closes a group; waits for all but this thread's N youngest groups. What other
 *                                         threads copied is there only after a barrier as well
 *   load_matrix_x4(r, row)                four 8 x 8 matrices of 16-bit values; lane l gives the address of row l % 8 of
 *   load_matrix_x4_trans(r, row)          matrix l / 8 and gets of each, in r[i], elements (l/4, 2(l%4)) and the next;
 *                                         _trans: of its transpose
 *   mma_bf16(c, a, b), mma_f16(c, a, b)   c[16 x 8] += a[16 x 16] b[16 x 8], f32 sums, by a whole warp. With g = lane / 4
 *                                         and p = 2 (lane % 4): a = (g, p), (g+8, p), (g, p+8), (g+8, p+8), pairs along k;
 *                                         b = (p, g), (p+8, g), pairs along k; c = (g, p), (g, p+1), (g+8, p), (g+8, p+1)
 *   bf16_of, f16_of, pack_bf16, pack_f16  round to nearest, ties to even; NaN becomes 0x7FFF. pack: low half first
 *   f32_of_bf16, f32_of_f16               exact
 *   exp2_fast(x)                          2^x to 2 ulp, subnormal results are 0
 *   block_sync_some(id, threads)          a barrier of some warps; id 1 to 15 (0 is __syncthreads)
 *   SHARED(T, s)                          T &s: this block's shared memory, whose size the launch gave; uninitialized */
#pragma once
#include <stddef.h>
#include <stdint.h>

#define DEVICE static __device__ __forceinline__

/* Before a loop over registers, which have no index at run time. Elsewhere they have: there the compiler is left in peace.
 */
#ifdef __CUDACC__
#define UNROLL _Pragma("unroll")
#else
#define UNROLL
#endif

#ifdef __CUDACC__

/* One array for all, so that its type does not differ between kernels of a file; 1 KiB: a swizzle atom. */
extern __shared__ __align__(1024) unsigned char shared_memory_[];
#define SHARED(T, name) T &name = *reinterpret_cast<T *>(shared_memory_)

DEVICE uint32_t shared_address(const void *p) { return (uint32_t)__cvta_generic_to_shared(p); }

DEVICE uint4 load16(const void *p) { return *(const uint4 *)p; }
DEVICE void  store16(void *p, uint4 v) { *(uint4 *)p = v; }
DEVICE uint4 load16_once(const void *p) {
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(p));
    return v;
}

DEVICE void copy_async16(void *to, const void *from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(to)), "l"(from) : "memory");
}
DEVICE void copy_async16_or_zero(void *to, const void *from, bool is_there) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(is_there ? 16 : 0)
                 : "memory");
}
DEVICE void                  copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N> DEVICE void copy_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

DEVICE void load_matrix_x4(uint32_t (&r)[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}
DEVICE void load_matrix_x4_trans(uint32_t (&r)[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

#define MMA_(type)                                                                                                          \
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." type "." type ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "         \
                 "{%8, %9}, {%0, %1, %2, %3};"                                                                              \
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                                                           \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))
DEVICE void mma_bf16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) { MMA_("bf16"); }
DEVICE void mma_f16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) { MMA_("f16"); }
#undef MMA_

DEVICE uint32_t pack_bf16(float low, float high) {
    uint32_t r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    return r;
}
DEVICE uint32_t pack_f16(float low, float high) {
    uint32_t r;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    return r;
}
DEVICE uint16_t bf16_of(float x) {
    uint16_t r;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(r) : "f"(x));
    return r;
}
DEVICE uint16_t f16_of(float x) {
    uint16_t r;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(r) : "f"(x));
    return r;
}
DEVICE float f32_of_bf16(uint16_t x) { return __uint_as_float((uint32_t)x << 16); }
DEVICE float f32_of_f16(uint16_t x) {
    float r;
    asm("cvt.f32.f16 %0, %1;" : "=f"(r) : "h"(x));
    return r;
}

DEVICE float exp2_fast(float x) {
    float r;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}

DEVICE void block_sync_some(int id, int threads) { asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory"); }

#elif !defined(EMULATION)
#error "kernels are built by nvcc, or by the host's compiler with -include tests/cuda/emulation.h"
#endif

/* ---- what is made of them, the same in both worlds ---- */

enum { WARP = 32 };
#define ALL_LANES 0xFFFFFFFFu

/* Sums and maxima of a warp, in every lane: a butterfly, so all lanes get the same bits. */
DEVICE float warp_sum(float x) {
    for (int d = WARP / 2; d > 0; d /= 2) x += __shfl_xor_sync(ALL_LANES, x, d);
    return x;
}
DEVICE float warp_max(float x) {
    for (int d = WARP / 2; d > 0; d /= 2) x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, d));
    return x;
}

/* Element i of 8 that lie in 16 bytes as bf16 or f16; and the way back. */
struct eight {
    float at[8];
};
DEVICE eight bf16_eight(uint4 v) {
    const uint32_t w[4] = {v.x, v.y, v.z, v.w};
    eight          r;
    for (int i = 0; i < 4; i++)
        r.at[2 * i] = __uint_as_float(w[i] << 16), r.at[2 * i + 1] = __uint_as_float(w[i] & 0xFFFF0000u);
    return r;
}
DEVICE uint4 eight_bf16(const eight &x) {
    return make_uint4(pack_bf16(x.at[0], x.at[1]), pack_bf16(x.at[2], x.at[3]), pack_bf16(x.at[4], x.at[5]),
                      pack_bf16(x.at[6], x.at[7]));
}
