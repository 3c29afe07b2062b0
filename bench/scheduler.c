/* bench/scheduler.c: what deciding costs. No device: the engine here only appends the token it is asked for.
 *
 *     build/bench/scheduler [SECONDS_PER_ROW [plan|arrivals|drain|simulator]]
 *
 * plan         256 sequences decode, N wait, a few finish in each pass and the next are admitted (prefix lookup, pages and
 *              slices included); mean and p99.9 of scheduler_plan, and the mean of scheduler_pass_done beside it
 * arrivals     a random waiting request is cancelled and another submitted, at N waiting
 * drain        10,000 requests come at once and 5,000 passes answer them, two of sixteen ending in each: all of that,
 *              and the tokens that the engine appends. In this shape vLLM's scheduler was measured (its pull request
 *              19057: 488 ms for first come, first served, on a machine of theirs)
 * simulator    events a second of a simulation without checks: arrivals at nine tenths of what the machine can do, one in
 *              twenty cancelled on its way; all that the world does is in the time
 *
 * An event is what the scheduler is told and takes: an arrival that is let into the queue, a cancellation of somebody who is
 * there, a pass that was walked to its end. Nothing else counts: not a turn in which nothing happens, not the plan that
 * follows each event, not the tokens of a pass, which are told beside.
 *
 * Each row is the median of several repetitions: machines that are shared have moods. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/rng.h"
#include "scheduler/scheduler.h"

/* The thread's own time: others on a shared machine cost it their cache lines, not their turns. A call costs a third of a
 * microsecond, which is in every figure of a plan. */
static uint64_t own_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

enum { REPETITIONS = 7, TOKENS_MAX = 512, SAMPLES_MAX = 1 << 20 };

typedef struct {
    scheduler     *s;
    rng            random;
    uint32_t       live_max;
    uint32_t      *tokens;    /* [live_max][TOKENS_MAX]; id % live_max is the row */
    uint32_t      *known;     /* [live_max] */
    uint32_t      *until;     /* [live_max] known when its answer ends */
    uint32_t      *free_rows; /* stack */
    uint32_t       free_count;
    uint64_t      *ids;       /* [live_max] of the row */
    bool          *cancelled; /* [live_max] and yet in a pass */
    uint64_t       now_us, next_id;
    slice_outcome *outcomes;
} load;

static uint32_t below(load *l, uint32_t n) { return (uint32_t)rng_below(&l->random, n); }

static scheduler_config config_for(uint32_t running, uint32_t waiting) {
    return (scheduler_config){.running_max = running,
                              .waiting_max = waiting,
                              .context_max = TOKENS_MAX,
                              .batch_tokens_max = 8192,
                              .slicing.chunk_tokens = 512,
                              .page_count = 16384,
                              .page_tokens = 16,
                              .frame_count = 4,
                              .frame_tokens = 8192,
                              .model.op_count = 400,
                              .retention.prefix_cache = true,
                              .seed = 1};
}

static void load_open(load *l, uint32_t running, uint32_t waiting) {
    error            err;
    scheduler_config c = config_for(running, waiting);
    *l = (load){.random = {.seed = 7}, .live_max = running + waiting + 1};
    if (scheduler_new(&l->s, &c, &err) != OK) fatal("%s", err.text);
    l->tokens = malloc((size_t)l->live_max * TOKENS_MAX * sizeof *l->tokens);
    l->known = calloc(l->live_max, sizeof *l->known);
    l->until = calloc(l->live_max, sizeof *l->until);
    l->free_rows = calloc(l->live_max, sizeof *l->free_rows);
    l->ids = calloc(l->live_max, sizeof *l->ids);
    l->cancelled = calloc(l->live_max, sizeof *l->cancelled);
    l->outcomes = calloc(c.batch_tokens_max, sizeof *l->outcomes);
    if (!l->tokens || !l->known || !l->until || !l->free_rows || !l->ids || !l->cancelled || !l->outcomes)
        fatal("out of memory");
    for (uint32_t i = 0; i < l->live_max; i++) l->free_rows[l->free_count++] = l->live_max - 1 - i;
}

static void load_close(load *l) {
    scheduler_free(l->s);
    free(l->tokens);
    free(l->known);
    free(l->until);
    free(l->free_rows);
    free(l->ids);
    free(l->cancelled);
    free(l->outcomes);
}

static uint32_t row_of(const load *l, uint64_t id) { return (uint32_t)(id % l->live_max); }

/* 64 to 191 prompt tokens, the first 32 one of eight system prompts; answers of 1 to 256. */
static bool submit(load *l) {
    if (l->free_count == 0) return false;
    uint32_t  row = l->free_rows[--l->free_count], prompt = 64 + below(l, 128), family = below(l, 8);
    uint32_t *tokens = l->tokens + (size_t)row * TOKENS_MAX;
    for (uint32_t i = 0; i < prompt; i++) tokens[i] = i < 32 ? family : (uint32_t)(l->next_id * 2654435761u + i * 40503u);
    l->known[row] = prompt, l->until[row] = prompt + 1 + below(l, 256);
    l->ids[row] = ++l->next_id * l->live_max + row;
    scheduler_request r = {
        .id = l->ids[row], .tokens = tokens, .prompt_tokens = prompt, .output_tokens_max = TOKENS_MAX - prompt};
    if (scheduler_submit(l->s, l->now_us, &r, NULL) == OK) return true;
    l->free_rows[l->free_count++] = row;
    l->ids[row] = 0;
    return false;
}

static void forget(load *l, uint64_t id) {
    l->ids[row_of(l, id)] = 0, l->cancelled[row_of(l, id)] = false;
    l->free_rows[l->free_count++] = row_of(l, id);
}

/* What the engine does between plan and report: appends the drawn tokens. */
static void walk(load *l, const plan *p) {
    for (uint32_t i = 0; i < p->slice_count; i++) {
        if (!p->slices[i].samples) continue;
        const uint32_t row = row_of(l, p->slices[i].id), known = l->known[row]++, token = row * 40503u + known;
        l->tokens[(size_t)row * TOKENS_MAX + known] = token;
        l->outcomes[i] = (slice_outcome){token, known + 1 == l->until[row]};
    }
}

static void forget_ended(load *l, const plan *p) {
    for (uint32_t i = 0; i < p->slice_count; i++) {
        const uint64_t id = p->slices[i].id;
        const bool     finished = p->slices[i].samples && l->outcomes[i].finished, cancelled = l->cancelled[row_of(l, id)];
        if (finished || (cancelled && l->ids[row_of(l, id)] == id)) forget(l, id);
    }
}

/* ---- figures ---- */

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
static double at_share(double *values, size_t count, double share) {
    qsort(values, count, sizeof *values, by_value);
    return values[(size_t)(share * (double)(count - 1))];
}

typedef struct {
    double mean_us, p999_us, done_us, slices;
} plan_cost;

static double samples[SAMPLES_MAX];

/* Keeps `waiting` requests in the queue and measures passes once everybody runs who can. */
static plan_cost plan_row(load *l, uint32_t waiting, double seconds) {
    scheduler_stats stats;
    plan_cost       cost = {0};
    size_t          count = 0;
    uint64_t        until = 0;
    for (uint32_t pass = 0; until == 0 || own_ns() < until; pass++) {
        for (scheduler_read_stats(l->s, &stats); stats.waiting < waiting && submit(l); stats.waiting++) {
        }
        plan     p;
        uint64_t t0 = own_ns();
        bool     planned = scheduler_plan(l->s, ++l->now_us, &p);
        uint64_t t1 = own_ns();
        if (!planned) fatal("nothing to plan");
        walk(l, &p);
        uint64_t t2 = own_ns();
        scheduler_pass_done(l->s, l->now_us, l->outcomes);
        uint64_t t3 = own_ns();
        forget_ended(l, &p);
        if (until == 0 && pass < 400) continue; /* until everybody runs */
        if (until == 0) until = own_ns() + (uint64_t)(seconds * 1e9);
        if (count == SAMPLES_MAX) break;
        samples[count++] = (double)(t1 - t0) / 1e3;
        cost.mean_us += (double)(t1 - t0) / 1e3, cost.done_us += (double)(t3 - t2) / 1e3, cost.slices += p.slice_count;
    }
    cost.p999_us = at_share(samples, count, 0.999);
    cost.mean_us /= (double)count, cost.done_us /= (double)count, cost.slices /= (double)count;
    return cost;
}

static plan_cost plan_median(uint32_t running, uint32_t waiting, double seconds) {
    double    mean[REPETITIONS], p999[REPETITIONS], done[REPETITIONS];
    plan_cost one = {0};
    load      l;
    load_open(&l, running, waiting);
    for (int i = 0; i < REPETITIONS; i++) {
        one = plan_row(&l, waiting, seconds / REPETITIONS);
        mean[i] = one.mean_us, p999[i] = one.p999_us, done[i] = one.done_us;
    }
    scheduler_check(l.s);
    load_close(&l);
    return (plan_cost){at_share(mean, REPETITIONS, 0.5), at_share(p999, REPETITIONS, 0.5), at_share(done, REPETITIONS, 0.5),
                       one.slices};
}

/* At a full queue: cancels somebody at random and submits another. */
static double arrivals_row(load *l, uint64_t *waiting_ids, uint32_t waiting, double seconds) {
    enum { BURST = 256 };
    uint64_t begin = own_ns(), busy = 0, pairs = 0;
    while (own_ns() - begin < (uint64_t)(seconds * 1e9)) {
        uint32_t whom[BURST];
        for (uint32_t k = 0; k < BURST; k++) whom[k] = below(l, waiting); /* the world's part is not measured */
        uint64_t t0 = own_ns();
        for (uint32_t k = 0; k < BURST; k++) {
            uint64_t *id = &waiting_ids[whom[k]];
            if (!scheduler_cancel(l->s, l->now_us, *id)) fatal("not there");
            *id = ++l->next_id;
            scheduler_request r = {.id = *id, .tokens = l->tokens, .prompt_tokens = 100, .output_tokens_max = 100};
            if (scheduler_submit(l->s, l->now_us, &r, NULL) != OK) fatal("refused");
        }
        busy += own_ns() - t0;
        pairs += BURST;
    }
    return (double)pairs / ((double)busy / 1e9);
}

static double arrivals_median(uint32_t waiting, double seconds) {
    double    rates[REPETITIONS];
    load      l;
    uint64_t *ids = calloc(waiting, sizeof *ids);
    if (!ids) fatal("out of memory");
    load_open(&l, 256, waiting);
    for (uint32_t i = 0; i < waiting; i++) {
        ids[i] = ++l.next_id;
        scheduler_request r = {.id = ids[i], .tokens = l.tokens, .prompt_tokens = 100, .output_tokens_max = 100};
        if (scheduler_submit(l.s, l.now_us, &r, NULL) != OK) fatal("refused");
    }
    for (int i = 0; i < REPETITIONS; i++) rates[i] = arrivals_row(&l, ids, waiting, seconds / REPETITIONS);
    scheduler_check(l.s);
    load_close(&l);
    free(ids);
    return at_share(rates, REPETITIONS, 0.5);
}

/* ---- ten thousand at once ---- */

enum { DRAINED = 10000, DRAIN_SLOTS = 16, DRAIN_PROMPT = 10, DRAIN_ANSWER = 8 };

static double drain_ms(uint32_t *passes) {
    load l;
    load_open(&l, DRAIN_SLOTS, DRAINED);
    const uint64_t begin = own_ns();
    for (uint32_t i = 0; i < DRAINED; i++) {
        uint32_t *tokens = l.tokens + (size_t)i * TOKENS_MAX;
        for (uint32_t k = 0; k < DRAIN_PROMPT; k++) tokens[k] = i * 31 + k;
        l.known[i] = DRAIN_PROMPT;
        scheduler_request r = {.id = i, .tokens = tokens, .prompt_tokens = DRAIN_PROMPT, .output_tokens_max = DRAIN_ANSWER};
        if (scheduler_submit(l.s, ++l.now_us, &r, NULL) != OK) fatal("refused");
    }
    plan p;
    for (*passes = 0; scheduler_plan(l.s, ++l.now_us, &p); ++*passes) {
        for (uint32_t i = 0; i < p.slice_count; i++) {
            if (!p.slices[i].samples) continue;
            const uint32_t row = (uint32_t)p.slices[i].id, known = ++l.known[row];
            l.tokens[(size_t)row * TOKENS_MAX + known - 1] = 7;
            l.outcomes[i] = (slice_outcome){7, known == DRAIN_PROMPT + DRAIN_ANSWER};
        }
        scheduler_pass_done(l.s, l.now_us, l.outcomes);
    }
    const double ms = (double)(own_ns() - begin) / 1e6;
    load_close(&l);
    return ms;
}

static void print_drain(double seconds) {
    double   ms[REPETITIONS];
    uint32_t passes = 0;
    (void)seconds;
    for (int i = 0; i < REPETITIONS; i++) ms[i] = drain_ms(&passes);
    printf("%u requests at once in %u passes: %.2f ms\n", DRAINED, passes, at_share(ms, REPETITIONS, 0.5));
}

/* ---- a simulation ---- */

typedef struct {
    double events, tokens, passes, rows; /* a second, but for the last: in a pass */
} simulated;

/* A pass takes 100 us; answers of 128 tokens come at nine tenths of the rate at which all slots end them. */
static simulated events_row(load *l, uint32_t running, double seconds) {
    enum { PASS_US = 100, ANSWER = 128 };
    const uint32_t gap_us = PASS_US * ANSWER * 10 / (9 * running);
    const uint64_t begin = own_ns();
    uint64_t       events = 0, tokens = 0, passes = 0, arrive_us = l->now_us, done_us = 0;
    plan           p;
    for (bool runs = false, more = true; more || runs;) {
        if (runs && done_us <= arrive_us) {
            l->now_us = done_us, runs = false;
            walk(l, &p);
            scheduler_pass_done(l->s, l->now_us, l->outcomes);
            forget_ended(l, &p);
            events++, passes++, tokens += p.slice_count;
            if (passes % 64 == 0) more = own_ns() - begin < (uint64_t)(seconds * 1e9);
        } else {
            l->now_us = arrive_us, arrive_us += below(l, 2 * gap_us);
            events += submit(l);
            const uint64_t id = below(l, 20) == 0 ? l->ids[below(l, l->live_max)] : 0;
            if (id && !l->cancelled[row_of(l, id)] && scheduler_cancel(l->s, l->now_us, id)) {
                events++;
                if (scheduler_is_live(l->s, id)) l->cancelled[row_of(l, id)] = true; /* until its pass is reported */
                else forget(l, id);
            }
        }
        if (!runs && more && (runs = scheduler_plan(l->s, l->now_us, &p))) done_us = l->now_us + PASS_US;
    }
    const double s = (double)(own_ns() - begin) / 1e9;
    return (simulated){(double)events / s, (double)tokens / s, (double)passes / s, (double)tokens / (double)passes};
}

static void print_events(double seconds) {
    for (uint32_t running = 4; running <= 64; running *= 4) {
        double    rates[REPETITIONS];
        simulated one = {0};
        load      l;
        load_open(&l, running, 100);
        for (int i = 0; i < REPETITIONS; i++) one = events_row(&l, running, seconds / REPETITIONS), rates[i] = one.events;
        scheduler_check(l.s);
        load_close(&l);
        printf(
            "simulation of %2u slots, %4.1f rows in a pass: %.2f M events/s (%.2f M of them passes, with %.1f M tokens)\n",
            running, one.rows, at_share(rates, REPETITIONS, 0.5) / 1e6, one.passes / 1e6, one.tokens / 1e6);
    }
}

static void print_plans(double seconds) {
    static const struct {
        uint32_t running, waiting;
    } rows[] = {{256, 8}, {256, 1000}, {256, 10000}, {256, 100000}, {16, 10000}, {1024, 10000}};
    printf("%8s %8s %8s %12s %12s %12s\n", "running", "waiting", "slices", "plan us", "p99.9 us", "report us");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        plan_cost c = plan_median(rows[i].running, rows[i].waiting, seconds);
        printf("%8u %8u %8.0f %12.2f %12.2f %12.2f\n", rows[i].running, rows[i].waiting, c.slices, c.mean_us, c.p999_us,
               c.done_us);
    }
}

static void print_arrivals(double seconds) {
    for (uint32_t waiting = 1000; waiting <= 100000; waiting *= 10)
        printf("submit + cancel at %6u waiting: %.2f M pairs/s\n", waiting, arrivals_median(waiting, seconds) / 1e6);
}

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        void (*print)(double seconds);
    } parts[] = {{"plan", print_plans}, {"arrivals", print_arrivals}, {"drain", print_drain}, {"simulator", print_events}};
    const double seconds = argc > 1 ? atof(argv[1]) : 1.4;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (argc < 3 || strcmp(argv[2], parts[i].name) == 0) parts[i].print(seconds);
    return 0;
}
