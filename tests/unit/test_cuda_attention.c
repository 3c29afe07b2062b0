/* Attention on the GPU against a double-precision reference; and its promise that a row's bits follow from its position. */
#include <stdio.h>

#include "kernels/cuda/attention_cost.h"
#include "tests/unit/cuda_kernels.h"

enum { RUNS_MAX = 4, LAYERS = 2, LAYER = 1, ITEMS_MAX = 64, PARTIALS_MAX = 2048, EXTRA_PAGES = 3 };

typedef struct {
    dtype    type;
    uint32_t heads, kv_heads, dim, page_tokens, window, run_count;
    struct {
        uint32_t position, rows;
    } runs[RUNS_MAX];
    /* 0, or: keys repeat after so many positions, and values with the other sign. What is left of a sum is then so little
     * that rounding to 16 bits does not hide the order in which it was made. */
    uint32_t mirror;
} attention_case;

/* A pass with its keys and values, on both sides. */
typedef struct {
    const attention_case *c;
    uint32_t              rows, q_width, page_count;
    float                *q, *k[RUNS_MAX], *v[RUNS_MAX]; /* k, v: [position][kv_heads * dim] */
    uint32_t              page_begin[RUNS_MAX];
    uint32_t             *page_ids;
    char                 *pages; /* as in GPU memory */
    cuda_pages            layout;
    float                *expected, *size; /* [rows][q_width]; size: of what was summed */
} world;

static uint32_t end_of(const attention_case *c, uint32_t run) { return c->runs[run].position + c->runs[run].rows; }

static void fill_pages(world *w) {
    const attention_case *c = w->c;
    const uint32_t        size = (uint32_t)dtype_bytes(c->type), width = c->kv_heads * c->dim;
    memset(w->pages, 0xFF, w->page_count * w->layout.page_stride);
    for (uint32_t run = 0; run < c->run_count; run++)
        for (uint32_t p = 0; p < end_of(c, run); p++) {
            char *page = w->pages + w->page_ids[w->page_begin[run] + p / c->page_tokens] * w->layout.page_stride +
                         LAYER * w->layout.layer_stride;
            for (uint32_t j = 0; j < width; j++) {
                char *at = page + j / c->dim * w->layout.head_stride +
                           cuda_page_offset(&w->layout, p % c->page_tokens, j % c->dim * size);
                store_as(c->type, at, 0, w->k[run][p * width + j]);
                store_as(c->type, at + w->layout.v_offset, 0, w->v[run][p * width + j]);
            }
        }
}

/* Pages in no order, some of them nobody's. */
static void deal_pages(world *w, rng *r) {
    const attention_case *c = w->c;
    w->page_count = EXTRA_PAGES;
    for (uint32_t run = 0; run < c->run_count; run++) {
        w->page_begin[run] = w->page_count - EXTRA_PAGES;
        w->page_count += (end_of(c, run) + c->page_tokens - 1) / c->page_tokens;
    }
    w->page_ids = take(w->page_count * sizeof *w->page_ids);
    for (uint32_t i = 0; i < w->page_count; i++) w->page_ids[i] = i;
    for (uint32_t i = w->page_count - 1; i > 0; i--) {
        uint32_t j = (uint32_t)rng_below(r, i + 1), id = w->page_ids[i];
        w->page_ids[i] = w->page_ids[j], w->page_ids[j] = id;
    }
}

static void attend_row(const world *w, uint32_t run, uint32_t token, uint32_t head, float *out, float *size) {
    const attention_case *c = w->c;
    const uint32_t end = c->runs[run].position + token + 1, begin = c->window && end > c->window ? end - c->window : 0;
    const uint32_t width = c->kv_heads * c->dim, kv_at = head / (c->heads / c->kv_heads) * c->dim;
    const float   *q = out - w->expected + w->q;
    double        *score = take(end * sizeof *score), top = -INFINITY, sum = 0;
    for (uint32_t p = begin; p < end; p++) {
        score[p] = 0;
        for (uint32_t d = 0; d < c->dim; d++) score[p] += (double)q[d] * (double)w->k[run][p * width + kv_at + d];
        score[p] /= sqrt(c->dim), top = fmax(top, score[p]);
    }
    for (uint32_t p = begin; p < end; p++) score[p] = exp(score[p] - top), sum += score[p];
    for (uint32_t d = 0; d < c->dim; d++) {
        double x = 0, all = 0;
        for (uint32_t p = begin; p < end; p++) {
            const double part = score[p] / sum * (double)w->v[run][p * width + kv_at + d];
            x += part, all += fabs(part);
        }
        out[d] = (float)x, size[d] = (float)all;
    }
    free(score);
}

static void mirror_run(world *w, uint32_t run) {
    const uint32_t width = w->c->kv_heads * w->c->dim, period = w->c->mirror * width;
    for (uint32_t i = period; period && i < end_of(w->c, run) * width; i++)
        w->k[run][i] = w->k[run][i - period], w->v[run][i] = -w->v[run][i - period];
}

static world make_world(const attention_case *c) {
    rng   r = {c->dim + c->heads + c->window, 0};
    world w = {.c = c, .q_width = c->heads * c->dim};
    w.layout = cuda_pages_make(c->type, LAYERS, c->kv_heads, c->dim, c->page_tokens);
    for (uint32_t run = 0; run < c->run_count; run++) {
        w.k[run] = random_values(&r, c->type, end_of(c, run) * c->kv_heads * c->dim);
        w.v[run] = random_values(&r, c->type, end_of(c, run) * c->kv_heads * c->dim);
        w.rows += c->runs[run].rows;
        mirror_run(&w, run);
    }
    w.q = random_values(&r, c->type, w.rows * w.q_width);
    for (uint32_t i = 0; i < w.rows * w.q_width; i++)
        w.q[i] = as_type(c->type, 3 * w.q[i]); /* some rows look at few positions */
    deal_pages(&w, &r);
    w.pages = take(w.page_count * w.layout.page_stride);
    fill_pages(&w);
    w.expected = take(w.rows * w.q_width * sizeof(float)), w.size = take(w.rows * w.q_width * sizeof(float));
    for (uint32_t run = 0, row = 0; run < c->run_count; run++)
        for (uint32_t token = 0; token < c->runs[run].rows; token++, row++)
            for (uint32_t head = 0; head < c->heads; head++) {
                const size_t at = row * w.q_width + head * c->dim;
                attend_row(&w, run, token, head, w.expected + at, w.size + at);
            }
    return w;
}
static void free_world(world *w) {
    for (uint32_t run = 0; run < w->c->run_count; run++) free(w->k[run]), free(w->v[run]);
    free(w->q), free(w->page_ids), free(w->pages), free(w->expected), free(w->size);
}

/* ---- a pass on the GPU ---- */

typedef enum { AS_PLANNED, ALL_MANY, ALL_PLAIN, BY_ONE } way; /* BY_ONE: a launch an item */

typedef struct {
    cuda_attention_item  items[2][ITEMS_MAX];
    cuda_attention_merge merges[ITEMS_MAX];
    cuda_attention_plan  p;
} plan_room;

static cuda_attention_facts facts_of(const attention_case *c) {
    return (cuda_attention_facts){c->type, c->heads, c->kv_heads, c->dim, c->window};
}
static void make_plan(plan_room *room, const attention_case *c, const cuda_run *runs, uint32_t run_count, way how) {
    const cuda_attention_facts f = facts_of(c);
    room->p = (cuda_attention_plan){.items = {room->items[0], room->items[1]},
                                    .merges = room->merges,
                                    .item_max = {how == ALL_MANY ? 0 : ITEMS_MAX, ITEMS_MAX},
                                    .merge_max = how == ALL_MANY ? 0 : ITEMS_MAX,
                                    .partial_max = PARTIALS_MAX};
    assert_true(cuda_attention_make(&room->p, &f, runs, run_count));
}

static void launch_list(cuda_attention_args *a, cuda_attention_kind kind, uint32_t count, way how) {
    const uint32_t step = how == BY_ONE ? 1 : count;
    a->kind = kind;
    for (a->begin = 0; a->begin < count; a->begin += step) a->count = step, cuda_attention(gpu_queue(), a);
}

static void launch_planned(cuda_attention_args *a, const world *w, const cuda_run *runs, uint32_t run_count, way how) {
    static plan_room room;
    make_plan(&room, w->c, runs, run_count, how);
    const cuda_attention_facts f = facts_of(w->c);
    for (int i = 0; i < 2; i++) a->items[i] = gpu_copy_of(room.items[i], sizeof *room.items[i] * room.p.item_count[i]);
    a->merges = gpu_copy_of(room.merges, sizeof *room.merges * room.p.merge_count);
    a->partials = gpu_room(cuda_attention_partial_bytes(&f, room.p.partial_count));
    launch_list(a, ATTENTION_FEW, room.p.item_count[ATTENTION_FEW], how);
    launch_list(a, ATTENTION_MANY, room.p.item_count[ATTENTION_MANY], how);
    launch_list(a, ATTENTION_MERGE, room.p.merge_count, how);
    gpu_drop(a->items[0]), gpu_drop(a->items[1]), gpu_drop(a->merges), gpu_drop(a->partials);
}

/* Some runs of the world's rows, whatever their cut. Returns [rows][q_width]; rows of no run are NaN. */
static float *attend(const world *w, const cuda_run *runs, uint32_t run_count, way how) {
    const attention_case *c = w->c;
    const size_t          size = dtype_bytes(c->type);
    uint32_t             *positions = take(w->rows * 4), *run_of_row = take(w->rows * 4);
    for (uint32_t run = 0; run < run_count; run++)
        for (uint32_t i = 0; i < runs[run].row_count; i++)
            positions[runs[run].row_begin + i] = runs[run].position_begin + i, run_of_row[runs[run].row_begin + i] = run;
    cuda_attention_args a = {.layout = w->layout,
                             .pages = gpu_copy_of(w->pages, w->page_count * w->layout.page_stride),
                             .layer = LAYER,
                             .heads = c->heads,
                             .window = c->window,
                             .batch = {.row_count = w->rows,
                                       .run_count = run_count,
                                       .positions = gpu_copy_of(positions, w->rows * 4),
                                       .run_of_row = gpu_copy_of(run_of_row, w->rows * 4),
                                       .runs = gpu_copy_of(runs, run_count * sizeof *runs),
                                       .page_ids = gpu_copy_of(w->page_ids, (w->page_count - EXTRA_PAGES) * 4)},
                             .q = gpu_values(c->type, w->q, w->rows * w->q_width),
                             .out = gpu_room(w->rows * w->q_width * size),
                             .q_stride = w->q_width * size,
                             .out_stride = w->q_width * size};
    if (how == ALL_PLAIN) launch_list(&a, ATTENTION_PLAIN, w->rows, how);
    else launch_planned(&a, w, runs, run_count, how);
    float *out = take(w->rows * w->q_width * sizeof *out);
    gpu_read_values(c->type, out, a.out, w->rows * w->q_width);
    gpu_drop(a.pages), gpu_drop(a.batch.positions), gpu_drop(a.batch.run_of_row), gpu_drop(a.batch.runs);
    gpu_drop(a.batch.page_ids), gpu_drop(a.q), gpu_drop(a.out);
    free(positions), free(run_of_row);
    return out;
}

/* The world's runs, each cut into pieces of `piece` tokens. */
static uint32_t cut_runs(const world *w, uint32_t piece, cuda_run *runs) {
    uint32_t count = 0;
    for (uint32_t run = 0, row = 0; run < w->c->run_count; row += w->c->runs[run++].rows)
        for (uint32_t i = 0; i < w->c->runs[run].rows; i += piece) {
            const uint32_t left = w->c->runs[run].rows - i;
            runs[count++] =
                (cuda_run){row + i, left < piece ? left : piece, w->c->runs[run].position + i, w->page_begin[run]};
        }
    return count;
}
static float *attend_cut(const world *w, uint32_t piece, way how) {
    cuda_run runs[ITEMS_MAX];
    return attend(w, runs, cut_runs(w, piece, runs), how);
}

static void assert_near(const world *w, const float *got, const char *what) {
    const double rounding = rounding_of(w->c->type);
    for (uint32_t i = 0; i < w->rows * w->q_width; i++)
        if (!(fabs((double)got[i] - (double)w->expected[i]) <=
              rounding * (fabs((double)w->expected[i]) + (double)w->size[i]) + 1e-6))
            fail_msg("%s, head dimension %u, row %u, value %u: %g, not %g", what, w->c->dim, i / w->q_width, i % w->q_width,
                     (double)got[i], (double)w->expected[i]);
}
static void assert_same_bits(const world *w, const float *got, const float *expected, const char *what) {
    for (uint32_t i = 0; i < w->rows * w->q_width; i++)
        if (memcmp(&got[i], &expected[i], 4) != 0) // NOLINT: the bits are what is compared
            fail_msg("%s, head dimension %u, row %u, value %u: %a, not %a", what, w->c->dim, i / w->q_width, i % w->q_width,
                     (double)got[i], (double)expected[i]);
}

/* ---- tests ---- */

#define WHOLE 1000000

/* One row; full and partly filled last pages; groups that fill a tile, and that do not divide it; windows. */
static const attention_case few_cases[] = {
    {DTYPE_BF16, 4, 1, 64, 16, 0, 4, {{0, 1}, {63, 1}, {64, 2}, {300, 4}}, 96},
    {DTYPE_BF16, 16, 1, 80, 64, 0, 2, {{15, 1}, {257, 1}}, 128},
    {DTYPE_F16, 6, 2, 96, 16, 0, 2, {{130, 5}, {31, 1}}, 0},
    {DTYPE_BF16, 8, 2, 128, 64, 0, 3, {{0, 1}, {255, 1}, {256, 1}}, 64},
    {DTYPE_BF16, 5, 1, 128, 48, 40, 2, {{100, 3}, {270, 2}}, 20},
    {DTYPE_F16, 2, 2, 192, 16, 0, 1, {{200, 1}}, 0},
    {DTYPE_BF16, 7, 1, 256, 32, 0, 1, {{65, 2}}, 30},
    {DTYPE_BF16, 4, 1, 64, 16, 1100, 1, {{8799, 1}}, 550},
};
enum { FEW_CASES = sizeof few_cases / sizeof *few_cases };

static void few_rows_attend_as_the_reference(void **state) {
    (void)state;
    for (int i = 0; i < FEW_CASES; i++) {
        world w = make_world(&few_cases[i]);
        FOR_EACH_EMULATION {
            float *got = attend_cut(&w, WHOLE, AS_PLANNED);
            assert_near(&w, got, "few rows");
            free(got);
        }
        free_world(&w);
    }
}

/* More rows than a tile of 128 (or 64) holds, the last tile all but empty; history; windows that begin inside a tile. */
static const attention_case many_cases[] = {
    {DTYPE_BF16, 4, 1, 64, 16, 0, 1, {{0, 33}}, 0},           {DTYPE_BF16, 6, 2, 80, 64, 0, 1, {{250, 12}}, 0},
    {DTYPE_F16, 2, 1, 96, 16, 70, 2, {{90, 65}, {1, 20}}, 0}, {DTYPE_BF16, 16, 2, 128, 64, 0, 2, {{0, 17}, {500, 3}}, 0},
    {DTYPE_BF16, 4, 1, 192, 48, 0, 1, {{61, 17}}, 0},         {DTYPE_F16, 8, 1, 256, 16, 100, 1, {{240, 20}}, 0},
    {DTYPE_BF16, 20, 1, 64, 16, 2050, 1, {{2060, 2}}, 1025}, /* so much context that its chunks are spread */
};
enum { MANY_CASES = sizeof many_cases / sizeof *many_cases };

static void many_rows_attend_as_the_reference(void **state) {
    (void)state;
    for (int i = 0; i < MANY_CASES; i++) {
        world w = make_world(&many_cases[i]);
        for (int mode = i % 2; mode < EMULATION_MODES && emulation_set_nth(mode); mode += 3) {
            float *got = attend_cut(&w, WHOLE, AS_PLANNED);
            assert_near(&w, got, "many rows");
            free(got);
        }
        free_world(&w);
    }
}

static void both_kernels_and_any_spread_of_chunks_give_a_row_the_same_bits(void **state) {
    (void)state;
    static const attention_case *cases[] = {&few_cases[0], &few_cases[2], &few_cases[3], &few_cases[4],
                                            &few_cases[5], &few_cases[6], &few_cases[7], &many_cases[6]};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        world w = make_world(cases[i]);
        emulation_set_nth((int)i % EMULATION_MODES);
        float *planned = attend_cut(&w, WHOLE, AS_PLANNED), *many = attend_cut(&w, WHOLE, ALL_MANY);
        assert_same_bits(&w, planned, many, "the other kernel");
        free(planned), free(many);
        free_world(&w);
    }
}

static void a_prompt_cut_anywhere_gives_the_same_bits(void **state) {
    (void)state;
    static const attention_case cases[] = {
        {DTYPE_BF16, 4, 1, 64, 16, 0, 1, {{240, 34}}, 130},
        {DTYPE_F16, 6, 2, 80, 32, 20, 2, {{50, 16}, {0, 9}}, 10},
        {DTYPE_BF16, 2, 1, 192, 16, 0, 1, {{250, 10}}, 128},
    };
    static const uint32_t pieces[] = {1, 3, 7};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        world  w = make_world(&cases[i]);
        float *whole = attend_cut(&w, WHOLE, AS_PLANNED);
        for (size_t j = 0; j < sizeof pieces / sizeof *pieces; j++) {
            emulation_set_nth((int)j);
            float *cut = attend_cut(&w, pieces[j], AS_PLANNED);
            assert_same_bits(&w, cut, whole, "a cut prompt");
            free(cut);
        }
        free(whole);
        free_world(&w);
    }
}

static void a_row_does_not_feel_who_shares_its_pass(void **state) {
    (void)state;
    static const attention_case c = {DTYPE_BF16, 4, 2, 64, 16, 0, 3, {{300, 1}, {40, 19}, {5, 2}}, 140};
    world                       w = make_world(&c);
    cuda_run                    runs[ITEMS_MAX];
    uint32_t                    count = cut_runs(&w, WHOLE, runs);
    float                      *together = attend(&w, runs, count, AS_PLANNED);
    for (uint32_t i = 0; i < count; i++) {
        const size_t at = runs[i].row_begin * w.q_width, n = runs[i].row_count * w.q_width;
        float       *alone = attend(&w, &runs[i], 1, AS_PLANNED);
        assert_memory_equal(alone + at, together + at, n * sizeof *alone);
        for (uint32_t j = 0; j < w.rows * w.q_width; j++) assert_true((j >= at && j < at + n) || isnan(alone[j]));
        free(alone);
    }
    free(together);
    free_world(&w);
}

static void a_launch_may_take_any_part_of_the_list(void **state) {
    (void)state;
    static const attention_case c = {DTYPE_BF16, 8, 2, 128, 16, 0, 2, {{280, 36}, {260, 1}}, 140};
    world                       w = make_world(&c);
    float                      *whole = attend_cut(&w, WHOLE, AS_PLANNED), *by_one = attend_cut(&w, WHOLE, BY_ONE);
    assert_same_bits(&w, by_one, whole, "a launch an item");
    free(whole), free(by_one);
    free_world(&w);
}

static void items_and_merges_of_no_rows_do_nothing(void **state) {
    (void)state;
    static const attention_case c = {DTYPE_BF16, 2, 1, 64, 16, 0, 1, {{0, 1}}, 0};
    world                       w = make_world(&c);
    const cuda_run              run = {0, 1, 0, 0};
    const cuda_attention_item   none = {9, 9, 0, 9, 9, 9};
    const cuda_attention_merge  no_merge = {9, 9, 0, 9, 9, 9};
    uint16_t                    out[128];
    cuda_attention_args         a = {.layout = w.layout,
                                     .heads = 2,
                                     .batch.runs = gpu_copy_of(&run, sizeof run),
                                     .out = gpu_room(sizeof out),
                                     .items = {gpu_copy_of(&none, sizeof none), gpu_copy_of(&none, sizeof none)},
                                     .merges = gpu_copy_of(&no_merge, sizeof no_merge),
                                     .count = 1};
    for (a.kind = ATTENTION_FEW; a.kind <= ATTENTION_MERGE; a.kind++) cuda_attention(gpu_queue(), &a);
    gpu_read(out, a.out, sizeof out);
    for (int i = 0; i < 128; i++) assert_int_equal(out[i], 0xFFFF);
    gpu_drop(a.batch.runs), gpu_drop(a.out), gpu_drop(a.items[0]), gpu_drop(a.items[1]), gpu_drop(a.merges);
    free_world(&w);
}

static void the_plain_kernel_takes_any_type_and_head_dimension_cut_anywhere(void **state) {
    (void)state;
    static const attention_case cases[] = {
        {DTYPE_F32, 4, 2, 64, 16, 0, 3, {{0, 3}, {63, 2}, {70, 1}}, 0},
        {DTYPE_F32, 2, 1, 26, 16, 33, 2, {{31, 4}, {40, 1}}, 0},
        {DTYPE_BF16, 3, 1, 16, 48, 0, 1, {{47, 3}}, 0},
        {DTYPE_F16, 2, 2, 40, 16, 5, 1, {{0, 9}}, 0},
        {DTYPE_F32, 1, 1, 256, 16, 0, 1, {{64, 2}}, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        world  w = make_world(&cases[i]);
        float *whole = NULL;
        FOR_EACH_EMULATION {
            float *got = attend_cut(&w, WHOLE, ALL_PLAIN);
            assert_near(&w, got, "plain");
            if (whole) assert_same_bits(&w, got, whole, "plain, another order of threads");
            free(whole), whole = got;
        }
        float *cut = attend_cut(&w, 1, ALL_PLAIN);
        assert_same_bits(&w, cut, whole, "plain, cut");
        free(cut), free(whole);
        free_world(&w);
    }
}

/* ---- the plan ---- */

static void chunks_lie_on_a_fixed_grid_of_whole_blocks(void **state) {
    (void)state;
    assert_int_equal(attention_chunk_begin(0), 0);
    for (uint32_t chunk = 0; chunk < 300; chunk++) {
        const uint32_t begin = attention_chunk_begin(chunk), end = attention_chunk_begin(chunk + 1);
        assert_true(begin % ATTENTION_BLOCK == 0 && end > begin && end - begin <= 1024);
        assert_true(attention_chunk_of(begin) == chunk && attention_chunk_of(end - 1) == chunk);
    }
}

enum { SEEN_POSITIONS = 40000 };
/* How often an item of the plan lets row `row` of run `run` see each position. */
static void count_seen(const cuda_attention_plan *p, uint32_t run, uint32_t row, uint8_t *seen) {
    memset(seen, 0, SEEN_POSITIONS);
    for (int kind = 0; kind < 2; kind++)
        for (uint32_t i = 0; i < p->item_count[kind]; i++) {
            const cuda_attention_item *t = &p->items[kind][i];
            if (t->run == run && t->row <= row && row < t->row + t->row_count)
                for (uint32_t at = t->first; at < t->last; at++) seen[at]++;
        }
}

static void every_position_a_row_sees_is_in_one_item_and_long_items_come_first(void **state) {
    (void)state;
    static plan_room     room;
    static uint8_t       seen[SEEN_POSITIONS];
    const attention_case c = {.type = DTYPE_BF16, .heads = 8, .kv_heads = 2, .dim = 128};
    const cuda_run       runs[] = {{0, 1, 0, 0}, {1, 40, 100, 0}, {41, 3, 9000, 0}, {44, 4, 2500, 0}, {48, 5, 33000, 0}};
    for (uint32_t window = 0; window <= 1000; window += 500) {
        attention_case with = c;
        with.window = window;
        make_plan(&room, &with, runs, 5, AS_PLANNED);
        for (uint32_t run = 0; run < 5; run++)
            for (uint32_t row = 0; row < runs[run].row_count * 4; row++) {
                const uint32_t end = runs[run].position_begin + row / 4 + 1,
                               begin = window && end > window ? end - window : 0;
                count_seen(&room.p, run, row, seen);
                for (uint32_t at = begin; at < end; at++) assert_int_equal(seen[at], 1);
            }
        for (int kind = 0; kind < 2; kind++)
            for (uint32_t i = 1; i < room.p.item_count[kind]; i++) {
                const cuda_attention_item *a = &room.items[kind][i - 1], *b = &room.items[kind][i];
                assert_true((a->last - a->first + 63) / 64 >= (b->last - b->first + 63) / 64);
            }
    }
}

static void what_finds_no_room_for_its_chunks_is_walked_in_one_pass(void **state) {
    (void)state;
    static plan_room           room;
    const cuda_attention_facts f = {DTYPE_BF16, 8, 2, 128, 0};
    const cuda_run             runs[] = {{0, 1, 700, 0}, {1, 1, 700, 0}, {2, 1, 10, 0}};
    room.p = (cuda_attention_plan){.items = {room.items[0], room.items[1]},
                                   .merges = room.merges,
                                   .item_max = {ITEMS_MAX, 3},
                                   .merge_max = 9,
                                   .partial_max = 14}; /* 12 a run of 700 */
    assert_true(cuda_attention_make(&room.p, &f, runs, 3));
    assert_true(room.p.item_count[ATTENTION_FEW] == 4 && room.p.item_count[ATTENTION_MANY] == 1 &&
                room.p.partial_count == 12);
    assert_true(room.items[ATTENTION_MANY][0].run == 1 && room.items[ATTENTION_MANY][0].partial == ATTENTION_FINAL);
    assert_int_equal(cuda_attention_many_max(&f, 3, 3), 4);
    room.p.item_max[ATTENTION_MANY] = 2;
    assert_false(cuda_attention_make(&room.p, &f, runs, 3));
}

static void a_launch_stays_within_its_operations_but_does_something(void **state) {
    (void)state;
    const cuda_attention_facts f = {DTYPE_BF16, 8, 2, 128, 0};
    const cuda_attention_item  items[] = {
         {0, 0, 128, 0, 640, ATTENTION_FINAL}, {0, 128, 128, 0, 630, ATTENTION_FINAL}, {0, 256, 100, 0, 64, ATTENTION_FINAL}};
    const double first = 4.0 * 640 * 128 * 128 * 2, last = 4.0 * 64 * 100 * 128 * 2;
    assert_int_equal(cuda_attention_within(&f, items, 0, 3, 1), 1);
    assert_int_equal(cuda_attention_within(&f, items, 0, 3, 2 * first), 2);
    assert_int_equal(cuda_attention_within(&f, items, 0, 3, 2 * first + last), 3);
    assert_int_equal(cuda_attention_within(&f, items, 2, 3, 1), 1);
    assert_int_equal(cuda_attention_within(&f, items, 3, 3, 1), 0);
}

static void costs_are_counted_row_by_row(void **state) {
    (void)state;
    const cuda_run runs[] = {{0, 1, 0, 0}, {1, 7, 12, 0}, {8, 30, 3, 0}};
    for (uint32_t window = 0; window < 40; window += 9) {
        const cuda_attention_facts f = {DTYPE_BF16, 4, 2, 64, window};
        double                     bytes = 0, flops = 0;
        for (int i = 0; i < 3; i++) {
            const uint32_t first_end = runs[i].position_begin + 1, end = runs[i].position_begin + runs[i].row_count;
            const uint32_t first = window && first_end > window ? first_end - window : 0;
            for (uint32_t e = first_end; e <= end; e++) flops += 4.0 * 64 * 4 * (window && e > window ? window : e);
            bytes += 2.0 * (end - first) * 2 * 64 * 2 + 2.0 * runs[i].row_count * 4 * 64 * 2;
        }
        const cuda_cost cost = cuda_attention_cost(&f, runs, 3);
        assert_true(cost.bytes == bytes && cost.flops == flops);
    }
}

static void kernels_are_chosen_by_kind_type_and_head_dimension(void **state) {
    (void)state;
    static const uint32_t dims[] = {64, 80, 96, 128, 192, 256};
    for (int i = 0; i < 12; i++) {
        const attention_case c = {.type = i % 2 ? DTYPE_BF16 : DTYPE_F16, .heads = 8, .kv_heads = 2, .dim = dims[i / 2]};
        const cuda_attention_facts f = facts_of(&c);
        cuda_attention_args        a = {.layout = cuda_pages_make(c.type, 1, 2, c.dim, 64), .heads = 8, .count = 5};
        assert_true(cuda_attention_has_tiles(&f));
        a.kind = ATTENTION_FEW;
        const cuda_shape few = cuda_attention_configure(&a).shape;
        assert_true(few.grid[0] == 10 && few.threads == 128 && few.shared_bytes <= 163 << 10);
        assert_true(c.dim > 128 || few.shared_bytes <= 113 << 10); /* two on an SM */
        a.kind = ATTENTION_MANY;
        const cuda_shape many = cuda_attention_configure(&a).shape;
        assert_true(many.grid[0] == 10 && many.threads == 256 && many.shared_bytes <= 163 << 10);
        char name[64];
        snprintf(name, sizeof name, "attention, many rows, %s, %u columns", i % 2 ? "bf16" : "f16", c.dim);
        assert_string_equal(cuda_attention_configure(&a).name, name);
    }
    assert_false(cuda_attention_has_tiles(&(cuda_attention_facts){DTYPE_F32, 8, 2, 128, 0}));
    assert_false(cuda_attention_has_tiles(&(cuda_attention_facts){DTYPE_BF16, 8, 2, 72, 0}));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(few_rows_attend_as_the_reference),
        cmocka_unit_test(many_rows_attend_as_the_reference),
        cmocka_unit_test(both_kernels_and_any_spread_of_chunks_give_a_row_the_same_bits),
        cmocka_unit_test(a_prompt_cut_anywhere_gives_the_same_bits),
        cmocka_unit_test(a_row_does_not_feel_who_shares_its_pass),
        cmocka_unit_test(a_launch_may_take_any_part_of_the_list),
        cmocka_unit_test(items_and_merges_of_no_rows_do_nothing),
        cmocka_unit_test(the_plain_kernel_takes_any_type_and_head_dimension_cut_anywhere),
        cmocka_unit_test(chunks_lie_on_a_fixed_grid_of_whole_blocks),
        cmocka_unit_test(every_position_a_row_sees_is_in_one_item_and_long_items_come_first),
        cmocka_unit_test(what_finds_no_room_for_its_chunks_is_walked_in_one_pass),
        cmocka_unit_test(a_launch_stays_within_its_operations_but_does_something),
        cmocka_unit_test(costs_are_counted_row_by_row),
        cmocka_unit_test(kernels_are_chosen_by_kind_type_and_head_dimension),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
