/* The machine behind tests/cuda/emulation.h: fibres, barriers, meeting lanes, copies in flight. */
#include "tests/cuda/emulation.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#ifndef __x86_64__
#include <ucontext.h>
#endif

#if defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN 1
#endif
#endif
#ifdef WITH_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

/* ---- switching stacks ---- */

enum { THREADS_MAX = 1024, WARPS_MAX = THREADS_MAX / 32, STACK_BYTES = 256 << 10, BARRIERS = 16 };

struct stack_place { /* where something that does not run now left off */
#ifdef __x86_64__
    void *at;
#else
    ucontext_t at;
#endif
    void       *fake; /* the sanitizer's */
    const void *bottom;
    size_t      bytes;
};

#ifdef __x86_64__
extern "C" void emulated_switch(void **save, void *to);
__asm__(".text\n"
        ".globl emulated_switch\n"
        ".type emulated_switch, @function\n"
        "emulated_switch:\n"
        "    pushq %rbp\n    pushq %rbx\n    pushq %r12\n    pushq %r13\n    pushq %r14\n    pushq %r15\n"
        "    movq %rsp, (%rdi)\n"
        "    movq %rsi, %rsp\n"
        "    popq %r15\n    popq %r14\n    popq %r13\n    popq %r12\n    popq %rbx\n    popq %rbp\n"
        "    ret\n"
        ".size emulated_switch, . - emulated_switch\n");
static void jump(stack_place *from, stack_place *to) { emulated_switch(&from->at, to->at); }
static void prepare(stack_place *s, void (*entry)()) {
    void **top = (void **)((char *)s->bottom + s->bytes);
    *--top = NULL; /* entry returns to nowhere, and never returns */
    *--top = (void *)entry;
    for (int i = 0; i < 6; i++) *--top = NULL;
    s->at = top;
}
#else
static void jump(stack_place *from, stack_place *to) { swapcontext(&from->at, &to->at); }
static void prepare(stack_place *s, void (*entry)()) {
    getcontext(&s->at);
    s->at.uc_stack.ss_sp = (void *)s->bottom, s->at.uc_stack.ss_size = s->bytes, s->at.uc_link = NULL;
    makecontext(&s->at, entry, 0);
}
#endif

static stack_place scheduler;

/* `ends`: what is left here will not be taken up again. */
static void switch_stacks(stack_place *from, stack_place *to, bool ends) {
#ifdef WITH_ASAN
    __sanitizer_start_switch_fiber(ends ? NULL : &from->fake, to->bottom, to->bytes);
    jump(from, to);
    __sanitizer_finish_switch_fiber(from->fake, NULL, NULL);
#else
    (void)ends;
    jump(from, to);
#endif
}

/* ---- one launch ---- */

enum { COPIES_MAX = 512 };
struct copy {
    void       *to;
    const void *from;
    bool        is_there;
    unsigned    group;
};

enum fibre_state { RUNS, AT_BARRIER, IN_WARP, ENDED };
struct fibre {
    stack_place    stack;
    emulated_place place;
    fibre_state    state;
    emulated_site  site;    /* where it waits */
    int            barrier; /* where AT_BARRIER */
    emulated_lane  result;
    unsigned       group, copy_count; /* the group that is open; copies in flight, in order */
    copy          *copies;
};

/* Lanes of one mask on their way into one operation. */
struct meeting {
    bool               open;
    const char        *name;
    emulated_site      site;
    uint32_t           arrived;
    emulated_warp_work work;
    emulated_warp      lanes;
};
enum { MEETINGS = 4 }; /* parts of a warp that may be in different operations at once */

struct barrier {
    int           expected, arrived;
    emulated_site site;
};

static struct {
    emulation_mode mode;
    uint64_t       random;
    const char    *kernel;
    emulated_grid  grid;
    void (*thread)(void *);
    void    *context;
    fibre    fibres[THREADS_MAX];
    meeting  meetings[WARPS_MAX][MEETINGS];
    barrier  barriers[BARRIERS];
    unsigned ready[THREADS_MAX], ready_count, ended;
    char    *shared;
    fibre   *running;
    /* failures */
    bool trapped, failed;
    char failure[512];
} m;

emulated_place *emulated_at;

extern "C" void emulation_set(emulation_mode mode) {
    m.mode = mode;
    m.random = mode.seed * 0x9E3779B97F4A7C15u + 1;
}

static uint32_t random_below(uint32_t n) {
    m.random ^= m.random << 13, m.random ^= m.random >> 7, m.random ^= m.random << 17;
    return (uint32_t)((m.random >> 32) * n >> 32);
}

static unsigned number_of(const fibre *f) { return (unsigned)(f - m.fibres); }

static void leave(bool ends) {
    fibre *f = m.running;
    switch_stacks(&f->stack, &scheduler, ends);
}

/* Remembers the first failure where one is waited for; else it is the last thing this process says. */
static void fail(const char *format, va_list list) {
    int n = snprintf(m.failure, sizeof m.failure, "kernel %s: ", m.kernel);
    if (m.running)
        n += snprintf(m.failure + n, sizeof m.failure - (size_t)n, "block (%u, %u, %u), thread %u: ", emulated_at->block.x,
                      emulated_at->block.y, emulated_at->block.z, emulated_at->thread.x);
    vsnprintf(m.failure + n, sizeof m.failure - (size_t)n, format, list);
    m.failed = true;
    if (m.trapped) return;
    fprintf(stderr, "emulation, seed %llu, copies land %s: %s\n", (unsigned long long)m.mode.seed,
            m.mode.copies_land_now ? "at once" : "late", m.failure);
    abort();
}

void emulated_failure(const char *format, ...) {
    va_list list;
    va_start(list, format);
    fail(format, list);
    va_end(list);
    leave(true);
    abort(); /* not reached: a failed block is not taken up again */
}

static __attribute__((format(printf, 1, 2))) void fail_launch(const char *format, ...) {
    va_list list;
    va_start(list, format);
    fail(format, list);
    va_end(list);
}

extern "C" const char *emulation_failure_of(void (*f)(void *context), void *context) {
    m.trapped = true, m.failed = false;
    f(context);
    const bool failed = m.failed;
    m.trapped = m.failed = false;
    return failed ? m.failure : NULL;
}

/* ---- waiting ---- */

static void make_ready(fibre *f) {
    f->state = RUNS;
    m.ready[m.ready_count++] = number_of(f);
}
static void wait_as(fibre_state state, emulated_site site) {
    m.running->state = state, m.running->site = site;
    leave(false);
}

void emulated_maybe_yield() {
    if (random_below(4)) return;
    fibre *f = m.running;
    make_ready(f);
    leave(false);
}

void emulated_barrier(int id, int threads, emulated_site site) {
    if (id < 0 || id >= BARRIERS || threads % 32 || threads > (int)m.grid.threads)
        emulated_failure("%s:%d: there is no barrier %d of %d threads", site.file, site.line, id, threads);
    barrier *b = &m.barriers[id];
    if (b->arrived == 0) *b = {threads ? threads : (int)m.grid.threads, 0, site};
    if (b->expected != (threads ? threads : (int)m.grid.threads) || (id == 0 && b->site.line != site.line))
        emulated_failure("threads meet at different barriers: %s:%d and %s:%d", b->site.file, b->site.line, site.file,
                         site.line);
    if (++b->arrived < b->expected) {
        m.running->barrier = id;
        return wait_as(AT_BARRIER, site);
    }
    b->arrived = 0;
    for (unsigned i = 0; i < m.grid.threads; i++)
        if (m.fibres[i].state == AT_BARRIER && m.fibres[i].barrier == id) make_ready(&m.fibres[i]);
    make_ready(m.running); /* the last to come need not be the first to go on */
    leave(false);
}

/* The meeting of this mask, or a free place for it. */
static meeting *meeting_of(meeting *all, uint32_t mask) {
    meeting *free_one = NULL;
    for (int i = 0; i < MEETINGS; i++) {
        if (all[i].open && all[i].lanes.mask == mask) return &all[i];
        if (!all[i].open) free_one = &all[i];
    }
    return free_one;
}

static void finish_meeting(meeting *w, unsigned warp) {
    w->work(&w->lanes);
    w->open = false;
    for (unsigned lane = 0; lane < 32; lane++) {
        if (!(w->lanes.mask >> lane & 1)) continue;
        fibre *f = &m.fibres[warp * 32 + lane];
        f->result = w->lanes.out[lane];
        make_ready(f);
    }
}

emulated_lane emulated_together(const char *name, uint32_t mask, const emulated_lane &in, emulated_warp_work work,
                                emulated_site site) {
    fibre   *self = m.running;
    unsigned number = number_of(self), warp = number / 32, lane = number % 32;
    if (!(mask >> lane & 1))
        emulated_failure("%s:%d: %s with mask %08x, in which this lane is not", site.file, site.line, name, mask);
    meeting *w = meeting_of(m.meetings[warp], mask);
    if (!w) emulated_failure("%s:%d: a warp is in more than %d operations at once", site.file, site.line, MEETINGS);
    if (!w->open) {
        w->open = true, w->name = name, w->site = site, w->arrived = 0, w->work = work;
        w->lanes.mask = mask;
    }
    if (strcmp(w->name, name) != 0 || w->site.line != site.line || strcmp(w->site.file, site.file) != 0)
        emulated_failure("lanes of a warp meet at different operations: %s (%s:%d) and %s (%s:%d)", w->name, w->site.file,
                         w->site.line, name, site.file, site.line);
    w->lanes.in[lane] = in;
    w->arrived |= 1u << lane;
    self->state = IN_WARP, self->site = site;
    if (w->arrived == mask) finish_meeting(w, warp);
    leave(false);
    return self->result;
}

/* ---- shared memory and copies ---- */

void *emulated_shared(size_t least_bytes) {
    if (least_bytes > m.grid.shared_bytes)
        emulated_failure("%zu bytes of shared memory are used, but the launch gave %u", least_bytes, m.grid.shared_bytes);
    return m.shared;
}

void emulated_check_shared(const void *p, size_t bytes, emulated_site site) {
    const char *at = (const char *)p;
    if (at < m.shared || at + bytes > m.shared + m.grid.shared_bytes)
        emulated_failure("%s:%d: an address is not in this block's shared memory", site.file, site.line);
}

static void land(const copy *c) {
    if (c->is_there) memcpy(c->to, c->from, 16);
    else memset(c->to, 0, 16);
}

void emulated_copy(void *to, const void *from, bool is_there, emulated_site site) {
    fibre *f = m.running;
    emulated_check_shared(emulated_aligned(to, 16, site), 16, site);
    emulated_aligned(from, 16, site);
    copy c = {to, from, is_there, f->group};
    if (f->copy_count == COPIES_MAX)
        emulated_failure("%s:%d: more than %d copies of a thread are in flight", site.file, site.line, COPIES_MAX);
    if (m.mode.copies_land_now) land(&c);
    else memset(to, 0xFF, 16);
    f->copies[f->copy_count++] = c;
}
void emulated_copy_commit() { m.running->group++; }
void emulated_copy_wait(int left) {
    fibre   *f = m.running;
    unsigned kept = 0;
    for (unsigned i = 0; i < f->copy_count; i++) {
        const copy *c = &f->copies[i];
        if (c->group + (unsigned)left >= f->group) f->copies[kept++] = *c;
        else if (!m.mode.copies_land_now) land(c);
    }
    f->copy_count = kept;
}

/* ---- work of a whole warp ---- */

void emulated_shuffle(emulated_warp *w) {
    for (unsigned lane = 0; lane < 32; lane++) {
        uint32_t from = w->in[lane].word[2];
        if (!(w->mask >> lane & 1)) continue;
        if (from < 32 && w->mask >> from & 1) w->out[lane] = w->in[from];
        else memset(&w->out[lane], 0xFF, sizeof w->out[lane]);
    }
}
void emulated_ballot(emulated_warp *w) {
    uint32_t yes = 0;
    for (unsigned lane = 0; lane < 32; lane++)
        if (w->mask >> lane & 1 && w->in[lane].word[0]) yes |= 1u << lane;
    for (unsigned lane = 0; lane < 32; lane++) w->out[lane].word[0] = yes;
}
void emulated_match(emulated_warp *w) {
    for (unsigned lane = 0; lane < 32; lane++) {
        w->out[lane].word[0] = 0;
        for (unsigned other = 0; other < 32; other++)
            if (w->mask >> other & 1 && w->in[other].word[0] == w->in[lane].word[0]) w->out[lane].word[0] |= 1u << other;
    }
}

static void load_matrices(emulated_warp *w, bool transposed) {
    for (unsigned lane = 0; lane < 32; lane++)
        for (unsigned matrix = 0; matrix < 4; matrix++) {
            uint16_t pair[2];
            for (unsigned i = 0; i < 2; i++) {
                unsigned row = lane / 4, column = lane % 4 * 2 + i;
                if (transposed) row = lane % 4 * 2 + i, column = lane / 4;
                memcpy(&pair[i], (const char *)w->in[matrix * 8 + row].address + 2 * column, 2);
            }
            w->out[lane].word[matrix] = pair[0] | (uint32_t)pair[1] << 16;
        }
}
void emulated_load_matrix(emulated_warp *w) { load_matrices(w, false); }
void emulated_load_matrix_trans(emulated_warp *w) { load_matrices(w, true); }

/* Products are exact in double, and so, nearly, is their sum: hardware adds them in an order of its own. */
static void multiply(emulated_warp *w, float (*value)(uint16_t)) {
    float a[16][16], b[8][16];
    for (unsigned lane = 0; lane < 32; lane++)
        for (unsigned i = 0; i < 12; i++) {
            unsigned g = lane / 4, k = lane % 4 * 2 + i % 2, word = i / 2;
            uint16_t half = (uint16_t)(w->in[lane].word[4 + word] >> 16 * (i % 2));
            if (word < 4) a[g + 8 * (word % 2)][k + 8 * (word / 2)] = value(half);
            else b[g][k + 8 * (word - 4)] = value(half);
        }
    for (unsigned lane = 0; lane < 32; lane++)
        for (unsigned i = 0; i < 4; i++) {
            unsigned row = lane / 4 + 8 * (i / 2), column = lane % 4 * 2 + i % 2;
            double   sum = (double)w->in[lane].f32[i];
            for (unsigned k = 0; k < 16; k++) sum += (double)a[row][k] * (double)b[column][k];
            w->out[lane].f32[i] = (float)sum;
        }
}
void emulated_mma_bf16(emulated_warp *w) { multiply(w, f32_of_bf16); }
void emulated_mma_f16(emulated_warp *w) { multiply(w, f32_of_f16); }

/* ---- conversions, as the hardware's: nearest, ties to even; every NaN is 0x7FFF ---- */

uint16_t bf16_of(float x) {
    uint32_t u = __float_as_uint(x);
    if (x != x) return 0x7FFF;
    return (uint16_t)((u + 0x7FFF + (u >> 16 & 1)) >> 16);
}
uint16_t f16_of(float x) {
    uint32_t u = __float_as_uint(x), sign = u >> 16 & 0x8000, magnitude = u & 0x7FFFFFFF;
    if (x != x) return 0x7FFF;
    if (magnitude >= 0x477FF000) return (uint16_t)(sign | 0x7C00);
    if (magnitude < 0x38800000) return (uint16_t)(sign | (uint32_t)nearbyintf(__uint_as_float(magnitude) * 0x1p24f));
    magnitude += 0xC8000FFF + (magnitude >> 13 & 1);
    return (uint16_t)(sign | magnitude >> 13);
}
float f32_of_f16(uint16_t x) {
    float    sign = x & 0x8000 ? -1.0f : 1.0f;
    uint32_t exponent = x >> 10 & 31, fraction = x & 0x3FF;
    if (exponent == 0) return sign * (float)fraction * 0x1p-24f;
    if (exponent == 31) return __uint_as_float((uint32_t)(x & 0x8000) << 16 | 0x7F800000 | fraction << 13);
    return sign * ldexpf((float)(1024 + fraction), (int)exponent - 25);
}

/* ---- blocks ---- */

static void fibre_main() {
#ifdef WITH_ASAN
    __sanitizer_finish_switch_fiber(NULL, &scheduler.bottom, &scheduler.bytes);
#endif
    m.thread(m.context);
    if (m.running->copy_count) emulated_failure("a thread ended with %u copies not waited for", m.running->copy_count);
    m.running->state = ENDED;
    m.ended++;
    leave(true);
}

static void make_stacks(unsigned threads) {
    for (unsigned i = 0; i < threads; i++) {
        fibre *f = &m.fibres[i];
        if (f->stack.bottom) continue;
        void *memory = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        f->copies = (copy *)malloc(COPIES_MAX * sizeof *f->copies);
        if (memory == MAP_FAILED || !f->copies) abort();
        mprotect(memory, 4096, PROT_NONE); /* running over ends here */
        f->stack.bottom = (char *)memory + 4096, f->stack.bytes = STACK_BYTES - 4096;
    }
}

static void begin_block(const unsigned block[3]) {
    const emulated_grid &g = m.grid;
    memset(m.meetings, 0, sizeof m.meetings);
    memset(m.barriers, 0, sizeof m.barriers);
    m.ready_count = m.ended = 0;
    memset(m.shared, 0xFF, g.shared_bytes);
    for (unsigned i = 0; i < g.threads; i++) {
        fibre *f = &m.fibres[i];
        f->place = {{i, 0, 0}, {block[0], block[1], block[2]}, {}, {}};
        f->place.threads.x = g.threads;
        f->place.grid.x = g.blocks[0], f->place.grid.y = g.blocks[1], f->place.grid.z = g.blocks[2];
        f->group = f->copy_count = 0;
#ifdef WITH_ASAN
        __asan_unpoison_memory_region(f->stack.bottom, f->stack.bytes); /* a failed block left its frames there */
#endif
        prepare(&f->stack, fibre_main);
        make_ready(f);
    }
}

static void check_all_ended() {
    if (m.ended == m.grid.threads || m.failed) return;
    const fibre *waits = m.fibres;
    while (waits->state == ENDED) waits++;
    fail_launch("%u of %u threads ended, the others wait for ever: thread %u at %s:%d", m.ended, m.grid.threads,
                number_of(waits), waits->site.file, waits->site.line);
}

static void run_block(const unsigned block[3]) {
    begin_block(block);
    while (m.ready_count && !m.failed) {
        unsigned at = random_below(m.ready_count), number = m.ready[at];
        m.ready[at] = m.ready[--m.ready_count];
        m.running = &m.fibres[number];
        emulated_at = &m.running->place;
        switch_stacks(&scheduler, &m.running->stack, false);
    }
    m.running = NULL;
    check_all_ended();
}

enum { SHARED_MAX = 227 << 10 };

void emulated_run(const char *name, emulated_grid g, void (*thread)(void *), void *context) {
    m.kernel = name, m.grid = g, m.thread = thread, m.context = context;
    size_t blocks = (size_t)g.blocks[0] * g.blocks[1] * g.blocks[2];
    if (m.failed || blocks == 0) return;
    if (g.threads == 0 || g.threads % 32 || g.threads > THREADS_MAX || g.shared_bytes > SHARED_MAX || g.blocks[1] > 65535 ||
        g.blocks[2] > 65535)
        return fail_launch("no GPU takes %u x %u x %u blocks of %u threads, %u bytes of shared memory", g.blocks[0],
                           g.blocks[1], g.blocks[2], g.threads, g.shared_bytes);
    make_stacks(g.threads);
    uint32_t *order = (uint32_t *)malloc(blocks * sizeof *order);
    void     *shared = NULL;
    if (!order || posix_memalign(&shared, 1024, g.shared_bytes ? g.shared_bytes : 1)) abort();
    m.shared = (char *)shared;
    for (size_t i = 0; i < blocks; i++) {
        size_t j = random_below((uint32_t)i + 1);
        order[i] = order[j], order[j] = (uint32_t)i;
    }
    for (size_t i = 0; i < blocks && !m.failed; i++) {
        uint32_t       b = order[i];
        const unsigned block[3] = {b % g.blocks[0], b / g.blocks[0] % g.blocks[1], b / g.blocks[0] / g.blocks[1]};
        run_block(block);
    }
    free(order), free(shared);
}

/* ---- tests/cuda/gpu.h ---- */

#include "tests/cuda/gpu.h"

static cuda_queue the_queue;
cuda_queue       *gpu_queue() { return &the_queue; }
void             *gpu_room(size_t bytes) {
                void *p = NULL;
                if (posix_memalign(&p, 256, bytes ? bytes : 1)) abort();
    memset(p, 0xFF, bytes);
                return p;
}
void *gpu_copy_of(const void *host, size_t bytes) {
    void *p = gpu_room(bytes);
    if (bytes) memcpy(p, host, bytes);
    return p;
}
void gpu_read(void *host, const void *gpu, size_t bytes) { memcpy(host, gpu, bytes); }
void gpu_free(void *gpu) { free(gpu); }
bool gpu_is_emulated() { return true; }
