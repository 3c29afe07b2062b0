#include "server/read_probe.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/clock.h"
#include "base/error.h"

enum { HUGE_PAGE = 2 << 20, BYTES_PER_THREAD = 96 * HUGE_PAGE, SWEEPS = 8, THREADS_MAX = 256 };

typedef struct {
    uint64_t          *words; /* own share of the memory */
    pthread_barrier_t *barrier;
    uint64_t           sum, best_ns;
} reader;

/* Eight independent sums keep enough loads in flight. */
static uint64_t sweep(const uint64_t *words) {
    uint64_t sum[8] = {0};
    for (size_t i = 0; i < BYTES_PER_THREAD / sizeof *words; i += 8)
        for (size_t k = 0; k < 8; k++) sum[k] += words[i + k];
    for (size_t k = 1; k < 8; k++) sum[0] += sum[k];
    return sum[0];
}

/* All threads sweep at once; a sweep lasts until the last of them is through. */
static void *read_memory(void *argument) {
    reader *r = argument;
    memset(r->words, 1, BYTES_PER_THREAD);
    for (int i = 0; i < SWEEPS; i++) {
        pthread_barrier_wait(r->barrier);
        const uint64_t begin_ns = clock_ns();
        r->sum += sweep(r->words);
        pthread_barrier_wait(r->barrier);
        const uint64_t ns = clock_ns() - begin_ns;
        if (i == 0 || ns < r->best_ns) r->best_ns = ns;
    }
    return NULL;
}

static uint32_t threads_allowed(void) {
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? (uint32_t)CPU_COUNT(&set) : 1;
}

double read_probe_bytes_per_s(uint32_t threads) {
    pthread_t         ids[THREADS_MAX];
    reader            readers[THREADS_MAX];
    pthread_barrier_t barrier;
    if (threads == 0) threads = threads_allowed();
    if (threads > THREADS_MAX) threads = THREADS_MAX;
    const size_t bytes = (size_t)threads * BYTES_PER_THREAD;
    char        *memory = aligned_alloc(HUGE_PAGE, bytes);
    if (!memory) return 0;
    madvise(memory, bytes, MADV_HUGEPAGE);
    pthread_barrier_init(&barrier, NULL, threads);
    for (uint32_t i = 0; i < threads; i++) {
        readers[i] = (reader){.words = (uint64_t *)(void *)(memory + (size_t)i * BYTES_PER_THREAD), .barrier = &barrier};
        if (pthread_create(&ids[i], NULL, read_memory, &readers[i]) != 0) fatal("a thread could not be started");
    }
    for (uint32_t i = 0; i < threads; i++) pthread_join(ids[i], NULL);
    pthread_barrier_destroy(&barrier);
    free(memory);
    return (double)bytes / ((double)readers[0].best_ns * 1e-9);
}
