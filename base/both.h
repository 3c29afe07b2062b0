/* base/both.h: BOTH begins a small function that host and GPU share; to a compiler without GPUs it is a static inline one.
 */
#pragma once
#ifdef __CUDACC__
#define BOTH static inline __host__ __device__
#else
#define BOTH static inline
#endif
