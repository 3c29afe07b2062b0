/* tests/cuda/emulation.h: a GPU's way of running, for kernels built by the host's compiler. Only tests use it.
 *
 * The compiler puts this header in front of a kernel's source (-include), and CUDA's words mean what is below. The threads
 * of a block are fibres of one OS thread: each runs until it waits (at a barrier, for its warp), then another is taken, at
 * random from a seed. So between two waits a thread gets as far ahead of the others as the program lets it, which is what a
 * missing barrier cannot stand. Blocks run one after another in random order: a kernel whose blocks wait for each other is
 * not for this place, and of memory order between blocks nothing is seen.
 *
 * It is hostile where hardware may be:
 *   - shared memory begins as NaN, and has exactly the bytes of the launch (the address sanitizer sees the next one);
 *   - an asynchronous copy lands when it is waited for, and until then what it will overwrite is NaN; or, in the other
 *     mode, at once;
 *   - a lane that reads another lane which takes no part gets NaN;
 *   - lanes that meet at different warp operations, a warp operation of less than its mask, a barrier that some threads left
 *     without, threads that wait for ever, an address that is not aligned or not in shared memory, copies in flight at the
 *     end of a thread: each is a failure that names the source line.
 *
 * What it cannot see: speed, bank conflicts, fences between the generic and the asynchronous proxy, whether the PTX of
 * ops.cuh does what its comment says. */
#pragma once
#define EMULATION 1
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- for tests ---- */

typedef struct {
    uint64_t seed;            /* of the order in which threads and blocks run */
    bool     copies_land_now; /* asynchronous copies: at once, or when waited for */
} emulation_mode;
void emulation_set(emulation_mode mode);

/* Calls f, which launches kernels. NULL, or the first failure as a sentence (valid until the next call). Outside of this, a
 * failure is printed and ends the process. */
const char *emulation_failure_of(void (*f)(void *context), void *context);

/* For each of a few seeds, with copies landing late and at once. */
enum { EMULATION_MODES = 4 };
static inline bool emulation_set_nth(int n) {
    if (n < EMULATION_MODES) emulation_set((emulation_mode){(uint64_t)n + 1, n % 2 == 1});
    return n < EMULATION_MODES;
}
#define FOR_EACH_EMULATION for (int mode_ = 0; emulation_set_nth(mode_); mode_++)

#ifdef __cplusplus
}

/* ---- for kernels ---- */

#include <math.h>
#include <string.h>

#define __global__ static
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) alignas(n)

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
static inline uint2  make_uint2(unsigned x, unsigned y) { return {x, y}; }
static inline uint4  make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

struct emulated_place {
    uint3 thread, block;
    dim3  threads, grid;
};
extern emulated_place *emulated_at; /* where the running thread is */
#define threadIdx (emulated_at->thread)
#define blockIdx (emulated_at->block)
#define blockDim (emulated_at->threads)
#define gridDim (emulated_at->grid)

struct emulated_site {
    const char *file;
    int         line;
};
#define EMULATED_HERE emulated_site here = {__builtin_FILE(), __builtin_LINE()}

struct cuda_queue {
    int unused;
};

[[noreturn]] __attribute__((format(printf, 1, 2))) void emulated_failure(const char *format, ...);
void  emulated_barrier(int id, int threads, emulated_site site); /* threads 0: the whole block */
void *emulated_shared(size_t least_bytes);
void  emulated_check_shared(const void *p, size_t bytes, emulated_site site);
void  emulated_copy(void *to, const void *from, bool is_there, emulated_site site);
void  emulated_copy_commit();
void  emulated_copy_wait(int left);
void  emulated_maybe_yield();
struct emulated_grid {
    unsigned blocks[3], threads, shared_bytes;
};
void emulated_run(const char *name, emulated_grid g, void (*thread)(void *), void *context);

/* What each lane brings to an operation of its warp and takes from it. */
union emulated_lane {
    uint32_t    word[16];
    uint64_t    wide[8];
    float       f32[16];
    const void *address;
};
struct emulated_warp {
    uint32_t      mask;
    emulated_lane in[32], out[32];
};
typedef void (*emulated_warp_work)(emulated_warp *w);
/* Waits until all lanes of the mask are here; `work` is then done once. */
emulated_lane emulated_together(const char *name, uint32_t mask, const emulated_lane &in, emulated_warp_work work,
                                emulated_site site);

#define SHARED(T, name) T &name = *static_cast<T *>(emulated_shared(sizeof(T)))

static inline void __syncthreads(EMULATED_HERE) { emulated_barrier(0, 0, here); }
static inline void block_sync_some(int id, int threads, EMULATED_HERE) { emulated_barrier(id, threads, here); }
static inline void __threadfence() {}
static inline void __threadfence_block() {}

static inline void __syncwarp(uint32_t mask = 0xFFFFFFFFu, EMULATED_HERE) {
    emulated_together(
        "__syncwarp", mask, emulated_lane{}, [](emulated_warp *) {}, here);
}

/* Shuffles: word[0..1] the value, word[2] the lane to read. */
void                   emulated_shuffle(emulated_warp *w);
static inline unsigned emulated_lane_id() { return threadIdx.x % 32; }
template <class T>
static inline T emulated_read_lane(const char *name, uint32_t mask, T value, unsigned lane, emulated_site s) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "shuffles move 4 or 8 bytes");
    emulated_lane in = {};
    memcpy(&in, &value, sizeof value);
    in.word[2] = lane;
    emulated_lane out = emulated_together(name, mask, in, emulated_shuffle, s);
    memcpy(&value, &out, sizeof value);
    return value;
}
template <class T> static inline T __shfl_sync(uint32_t mask, T value, int lane, int width = 32, EMULATED_HERE) {
    unsigned base = emulated_lane_id() / (unsigned)width * (unsigned)width;
    return emulated_read_lane("__shfl_sync", mask, value, base + (unsigned)lane % (unsigned)width, here);
}
template <class T> static inline T __shfl_xor_sync(uint32_t mask, T value, int bits, int width = 32, EMULATED_HERE) {
    unsigned own = emulated_lane_id(), from = own ^ (unsigned)bits;
    if (from / (unsigned)width > own / (unsigned)width) from = own;
    return emulated_read_lane("__shfl_xor_sync", mask, value, from, here);
}
template <class T> static inline T __shfl_up_sync(uint32_t mask, T value, unsigned by, int width = 32, EMULATED_HERE) {
    unsigned own = emulated_lane_id();
    return emulated_read_lane("__shfl_up_sync", mask, value, own % (unsigned)width >= by ? own - by : own, here);
}
template <class T> static inline T __shfl_down_sync(uint32_t mask, T value, unsigned by, int width = 32, EMULATED_HERE) {
    unsigned own = emulated_lane_id();
    return emulated_read_lane("__shfl_down_sync", mask, value, own % (unsigned)width + by < (unsigned)width ? own + by : own,
                              here);
}
void                   emulated_ballot(emulated_warp *w);
static inline uint32_t __ballot_sync(uint32_t mask, bool yes, EMULATED_HERE) {
    emulated_lane in = {};
    in.word[0] = yes;
    return emulated_together("__ballot_sync", mask, in, emulated_ballot, here).word[0];
}
static inline bool __any_sync(uint32_t mask, bool yes, EMULATED_HERE) {
    emulated_lane in = {};
    in.word[0] = yes;
    return emulated_together("__any_sync", mask, in, emulated_ballot, here).word[0] != 0;
}
static inline bool __all_sync(uint32_t mask, bool yes, EMULATED_HERE) {
    emulated_lane in = {};
    in.word[0] = yes;
    return emulated_together("__all_sync", mask, in, emulated_ballot, here).word[0] == mask;
}
void                   emulated_match(emulated_warp *w);
static inline uint32_t __match_any_sync(uint32_t mask, uint32_t value, EMULATED_HERE) {
    emulated_lane in = {};
    in.word[0] = value;
    return emulated_together("__match_any_sync", mask, in, emulated_match, here).word[0];
}

/* ---- ops.cuh ---- */

template <class T> static inline T *emulated_aligned(T *p, size_t to, emulated_site s) {
    if ((uintptr_t)p % to) emulated_failure("%s:%d: an address is not aligned to %zu bytes", s.file, s.line, to);
    return p;
}
static inline uint4 load16(const void *p, EMULATED_HERE) {
    uint4 v;
    memcpy(&v, emulated_aligned(p, 16, here), 16);
    return v;
}
static inline uint4 load16_once(const void *p, EMULATED_HERE) {
    uint4 v;
    memcpy(&v, emulated_aligned(p, 16, here), 16);
    return v;
}
static inline void store16(void *p, uint4 v, EMULATED_HERE) { memcpy(emulated_aligned(p, 16, here), &v, 16); }

static inline void copy_async16(void *to, const void *from, EMULATED_HERE) { emulated_copy(to, from, true, here); }
static inline void copy_async16_or_zero(void *to, const void *from, bool is_there, EMULATED_HERE) {
    emulated_copy(to, from, is_there, here);
}
static inline void                  copy_commit() { emulated_copy_commit(); }
template <int N> static inline void copy_wait() { emulated_copy_wait(N); }

void               emulated_load_matrix(emulated_warp *w);
void               emulated_load_matrix_trans(emulated_warp *w);
static inline void emulated_load_x4(uint32_t (&r)[4], const void *row, emulated_warp_work work, emulated_site s) {
    emulated_check_shared(emulated_aligned(row, 16, s), 16, s);
    emulated_lane in = {};
    in.address = row;
    emulated_lane out = emulated_together("load_matrix_x4", 0xFFFFFFFFu, in, work, s);
    memcpy(r, out.word, sizeof r);
}
static inline void load_matrix_x4(uint32_t (&r)[4], const void *row, EMULATED_HERE) {
    emulated_load_x4(r, row, emulated_load_matrix, here);
}
static inline void load_matrix_x4_trans(uint32_t (&r)[4], const void *row, EMULATED_HERE) {
    emulated_load_x4(r, row, emulated_load_matrix_trans, here);
}

/* f32[0..3]: c; word[4..7]: a; word[8..9]: b. */
void               emulated_mma_bf16(emulated_warp *w);
void               emulated_mma_f16(emulated_warp *w);
static inline void emulated_mma(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], emulated_warp_work work,
                                emulated_site s) {
    emulated_lane in = {};
    memcpy(in.word, c, sizeof c), memcpy(in.word + 4, a, sizeof a), memcpy(in.word + 8, b, sizeof b);
    emulated_lane out = emulated_together("mma", 0xFFFFFFFFu, in, work, s);
    memcpy(c, out.word, sizeof c);
}
static inline void mma_bf16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], EMULATED_HERE) {
    emulated_mma(c, a, b, emulated_mma_bf16, here);
}
static inline void mma_f16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], EMULATED_HERE) {
    emulated_mma(c, a, b, emulated_mma_f16, here);
}

static inline uint32_t __float_as_uint(float x) {
    uint32_t u;
    memcpy(&u, &x, 4);
    return u;
}
static inline float __uint_as_float(uint32_t u) {
    float x;
    memcpy(&x, &u, 4);
    return x;
}
uint16_t               bf16_of(float x);
uint16_t               f16_of(float x);
float                  f32_of_f16(uint16_t x);
static inline float    f32_of_bf16(uint16_t x) { return __uint_as_float((uint32_t)x << 16); }
static inline uint32_t pack_bf16(float low, float high) { return bf16_of(low) | (uint32_t)bf16_of(high) << 16; }
static inline uint32_t pack_f16(float low, float high) { return f16_of(low) | (uint32_t)f16_of(high) << 16; }
static inline float    exp2_fast(float x) { return x < -126 ? 0 : exp2f(x); }

/* ---- CUDA's arithmetic and atomics ---- */

template <class T> static inline T min(T a, T b) { return b < a ? b : a; }
template <class T> static inline T max(T a, T b) { return a < b ? b : a; }
static inline int                  __popc(uint32_t x) { return __builtin_popcount(x); }
static inline int                  __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
static inline int                  __ffs(int x) { return __builtin_ffs(x); }
static inline uint64_t __umul64hi(uint64_t a, uint64_t b) { return (uint64_t)(((unsigned __int128)a * b) >> 64); }
template <class T> static inline T __ldg(const T *p) { return *p; }

/* A thread may lose the machine before an atomic operation. */
template <class T> static inline T atomicAdd(T *p, T x) {
    emulated_maybe_yield();
    T old = *p;
    *p += x;
    return old;
}
template <class T> static inline T atomicMax(T *p, T x) {
    emulated_maybe_yield();
    T old = *p;
    if (old < x) *p = x;
    return old;
}
template <class T> static inline T atomicMin(T *p, T x) {
    emulated_maybe_yield();
    T old = *p;
    if (x < old) *p = x;
    return old;
}
template <class T> static inline T atomicExch(T *p, T x) {
    emulated_maybe_yield();
    T old = *p;
    *p = x;
    return old;
}
template <class T> static inline T atomicCAS(T *p, T expected, T x) {
    emulated_maybe_yield();
    T old = *p;
    if (old == expected) *p = x;
    return old;
}

/* ---- launch.cuh ---- */

#include "kernels/cuda/cuda.h"

template <class P> static void launch(cuda_queue *, const char *name, void (*kernel)(P), cuda_shape s, const P &p) {
    struct call {
        void (*kernel)(P);
        const P *p;
    } c = {kernel, &p};
    emulated_run(
        name, {{s.grid[0], s.grid[1], s.grid[2]}, s.threads, s.shared_bytes},
        [](void *context) {
            const call *at = static_cast<const call *>(context);
            at->kernel(*at->p);
        },
        &c);
}
#endif
