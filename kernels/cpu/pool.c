#include "kernels/cpu/pool.h"

#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"

/* `state` holds the loop's number above and the tasks nobody has taken yet below. A worker takes one by decrementing it;
 * when that succeeds the loop cannot end before the worker reports, so the loop's fields may be read after it. */
struct pool {
    _Alignas(64) _Atomic uint64_t state;
    _Alignas(64) _Atomic uint32_t pending; /* tasks not finished */
    _Atomic bool caller_sleeps;
    _Alignas(64) _Atomic uint32_t loops; /* the number of the newest loop; what sleeping workers wait on */
    _Atomic uint32_t sleepers;
    _Atomic bool     closing;

    _Alignas(64) uint32_t count;
    pool_task run;
    void     *context;

    uint32_t  threads;
    pthread_t thread[];
};

enum { SPIN_NS = 50000 };

static void futex_wait(_Atomic uint32_t *word, uint32_t expected) {
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, NULL, NULL, 0);
}
static void futex_wake(_Atomic uint32_t *word) { syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0); }

static inline void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

/* Takes and runs tasks of the newest loop until there are none left; false: there were none. */
static bool take_tasks(pool *p, uint32_t worker) {
    bool     any = false;
    uint64_t state = atomic_load_explicit(&p->state, memory_order_acquire);
    while ((uint32_t)state != 0) {
        if (!atomic_compare_exchange_weak_explicit(&p->state, &state, state - 1, memory_order_acq_rel, memory_order_acquire))
            continue;
        p->run(p->context, p->count - (uint32_t)state, worker);
        any = true;
        if (atomic_fetch_sub(&p->pending, 1) == 1 && atomic_load(&p->caller_sleeps)) futex_wake(&p->pending);
        state = atomic_load_explicit(&p->state, memory_order_acquire);
    }
    return any;
}

/* Spins while `word` is `value`, for at most SPIN_NS. true: it changed. */
static bool spin(_Atomic uint32_t *word, uint32_t value) {
    uint64_t deadline = 0;
    for (uint32_t i = 1;; i++) {
        if (atomic_load_explicit(word, memory_order_acquire) != value) return true;
        relax();
        if (i % 64) continue;
        uint64_t now = clock_ns();
        if (!deadline) deadline = now + SPIN_NS;
        if (now > deadline) return false;
    }
}

static void sleep_until_loop(pool *p, uint32_t seen) {
    atomic_fetch_add(&p->sleepers, 1);
    while (atomic_load(&p->loops) == seen && !atomic_load(&p->closing)) futex_wait(&p->loops, seen);
    atomic_fetch_sub(&p->sleepers, 1);
}

typedef struct {
    pool    *p;
    uint32_t worker;
} worker_start;

static void *work(void *argument) {
    worker_start start = *(worker_start *)argument;
    free(argument);
    pool *p = start.p;
    for (;;) {
        uint32_t seen = atomic_load(&p->loops);
        take_tasks(p, start.worker);
        if (atomic_load(&p->closing)) return NULL;
        if (!spin(&p->loops, seen)) sleep_until_loop(p, seen);
    }
}

uint32_t pool_threads_allowed(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
    int n = CPU_COUNT(&set);
    return n < 1 ? 1 : (uint32_t)n;
}

pool *pool_new(uint32_t threads) {
    if (threads == 0) threads = pool_threads_allowed();
    pool *p = aligned_alloc(64, (sizeof *p + threads * sizeof(pthread_t) + 63) / 64 * 64);
    if (!p) fatal("no memory for a pool of %u threads", threads);
    *p = (pool){.threads = threads};
    sigset_t all, before; /* signals belong to the threads that expect them */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (uint32_t i = 1; i < threads; i++) {
        worker_start *start = malloc(sizeof *start);
        if (!start) fatal("no memory for a thread");
        *start = (worker_start){p, i};
        if (pthread_create(&p->thread[i], NULL, work, start) != 0) fatal("cannot start worker thread %u of %u", i, threads);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return p;
}

void pool_free(pool *p) {
    if (!p) return;
    atomic_store(&p->closing, true);
    atomic_fetch_add(&p->loops, 1);
    futex_wake(&p->loops);
    for (uint32_t i = 1; i < p->threads; i++) pthread_join(p->thread[i], NULL);
    free(p);
}

uint32_t pool_threads(const pool *p) { return p->threads; }

static void join(pool *p) {
    uint32_t left;
    while ((left = atomic_load_explicit(&p->pending, memory_order_acquire)) != 0) {
        if (spin(&p->pending, left)) continue;
        atomic_store(&p->caller_sleeps, true);
        while ((left = atomic_load(&p->pending)) != 0) futex_wait(&p->pending, left);
        atomic_store(&p->caller_sleeps, false);
    }
}

void pool_run(pool *p, uint32_t count, pool_task run, void *context) {
    if (count <= 1 || p->threads == 1) {
        for (uint32_t i = 0; i < count; i++) run(context, i, 0);
        return;
    }
    p->run = run, p->context = context, p->count = count;
    atomic_store_explicit(&p->pending, count, memory_order_relaxed);
    uint32_t loop = atomic_load_explicit(&p->loops, memory_order_relaxed) + 1;
    atomic_store(&p->state, (uint64_t)loop << 32 | count);
    atomic_store(&p->loops, loop);
    if (atomic_load(&p->sleepers)) futex_wake(&p->loops);
    take_tasks(p, 0);
    join(p);
}
