/* server/read_probe.h: how fast this machine reads memory right now: the ceiling of decoding on a CPU. */
#pragma once
#include <stdint.h>

/* Bytes a second that `threads` threads (0: one for each CPU this process may use) read together from memory that no cache
 * holds, in huge pages where the kernel gives them: the best of a few sweeps, some 0.2 s in all. */
double read_probe_bytes_per_s(uint32_t threads);
