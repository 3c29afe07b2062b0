/* Attention over pages, with the operator that fills them, against a double-precision loop over the definition. */
#include "tests/unit/kernels.h"

typedef struct {
    dtype    type;
    uint32_t heads, kv_heads, dim, page_tokens, window;
    bool     norm_head, norm_full;
    float    clip;
} model;

enum { LAYERS = 2, LAYER = 1, PAGES = 40, TOKENS_MAX = 300 };
static const float EPS = 1e-5f;

/* A sequence's projections before the operator, and what came out. */
typedef struct {
    uint32_t  length;
    float    *q, *k, *v; /* [length][...] values of the type */
    float    *out;       /* [length][heads * dim] */
    uint32_t *pages;
} sequence;

typedef struct {
    model     m;
    kv_layout layout;
    char     *pages;
    float    *q_norm, *k_norm;
    uint32_t  next_page;
} world;

static world make_world(rng *r, model m) {
    world  w = {.m = m, .layout = kv_layout_make(m.type, LAYERS, m.kv_heads, m.dim, m.page_tokens)};
    size_t bytes = PAGES * w.layout.page_stride;
    w.pages = aligned_alloc(64, (bytes + 63) / 64 * 64);
    memset(w.pages, 0, bytes);
    if (m.norm_head || m.norm_full) {
        w.q_norm = take_random(r, DTYPE_F32, m.norm_full ? m.heads * m.dim : m.dim);
        w.k_norm = take_random(r, DTYPE_F32, m.norm_full ? m.kv_heads * m.dim : m.dim);
    }
    return w;
}
static void drop_world(world *w) { free(w->pages), free(w->q_norm), free(w->k_norm); }

/* Fills every slot of a page that a real sequence may have left behind with infinities and NaNs. */
static void poison(world *w) {
    const kv_layout *l = &w->layout;
    for (uint32_t page = 0; page < PAGES; page++)
        for (uint32_t h = 0; h < 2 * l->kv_heads; h++)
            for (uint32_t u = 0; u < l->page_tokens / KV_UNIT; u++) {
                char *unit =
                    w->pages + page * l->page_stride + LAYER * l->layer_stride + h * l->head_stride + u * l->unit_bytes;
                for (size_t i = 0; i < l->unit_bytes / dtype_bytes(l->type); i++)
                    store_as(l->type, unit, i, i % 2 ? NAN : INFINITY);
            }
}

static sequence make_sequence(rng *r, world *w, uint32_t length) {
    const model *m = &w->m;
    sequence     s = {.length = length,
                      .q = take(4 * (size_t)length * m->heads * m->dim),
                      .k = take(4 * (size_t)length * m->kv_heads * m->dim),
                      .v = take(4 * (size_t)length * m->kv_heads * m->dim),
                      .out = take(4 * (size_t)length * m->heads * m->dim)};
    for (size_t i = 0; i < (size_t)length * m->heads * m->dim; i++) s.q[i] = as_type(m->type, 3 * uniform(r));
    for (size_t i = 0; i < (size_t)length * m->kv_heads * m->dim; i++)
        s.k[i] = as_type(m->type, 3 * uniform(r)), s.v[i] = as_type(m->type, uniform(r));
    uint32_t count = (length + m->page_tokens - 1) / m->page_tokens;
    s.pages = take(count * sizeof *s.pages);
    for (uint32_t i = 0; i < count; i++) s.pages[i] = w->next_page++ * 7 % PAGES;
    assert_true(w->next_page <= PAGES);
    return s;
}
static void drop_sequence(sequence *s) { free(s->q), free(s->k), free(s->v), free(s->out), free(s->pages); }

typedef struct {
    sequence *s;
    uint32_t  begin, end;
} piece;

/* One pass over pieces of sequences: fills pages, attends, stores the results in each sequence. */
static void run_pass(cpu *c, world *w, const piece *pieces, uint32_t count) {
    const model *m = &w->m;
    uint32_t     rows = 0, qn = m->heads * m->dim, kn = m->kv_heads * m->dim;
    size_t       e = dtype_bytes(m->type);
    kv_run       runs[16];
    for (uint32_t i = 0; i < count; i++) {
        runs[i] = (kv_run){rows, pieces[i].end - pieces[i].begin, pieces[i].begin, pieces[i].s->pages};
        rows += runs[i].row_count;
    }
    char  *q = take(rows * qn * e), *k = take(rows * kn * e), *v = take(rows * kn * e), *out = take(rows * qn * e);
    float *rotation = take(rows * m->dim * 4);
    for (uint32_t i = 0; i < count; i++)
        for (uint32_t t = 0; t < runs[i].row_count; t++) {
            size_t row = runs[i].row_begin + t, at = pieces[i].begin + t;
            for (uint32_t j = 0; j < qn; j++) store_as(m->type, q, row * qn + j, pieces[i].s->q[at * qn + j]);
            for (uint32_t j = 0; j < kn; j++) store_as(m->type, k, row * kn + j, pieces[i].s->k[at * kn + j]);
            for (uint32_t j = 0; j < kn; j++) store_as(m->type, v, row * kn + j, pieces[i].s->v[at * kn + j]);
            for (uint32_t j = 0; j < m->dim / 2; j++) {
                double angle = (double)at * pow(10000, -2.0 * j / m->dim);
                rotation[row * m->dim + j] = (float)cos(angle), rotation[row * m->dim + m->dim / 2 + j] = (float)sin(angle);
            }
        }
    rows_at qr = {q, qn * e, NULL}, kr = {k, kn * e, NULL}, vr = {v, kn * e, NULL}, outr = {out, qn * e, NULL};
    cpu_rope_kv(c, &(rope_kv_args){.layout = &w->layout,
                                   .pages = w->pages,
                                   .layer = LAYER,
                                   .heads = m->heads,
                                   .run_count = count,
                                   .runs = runs,
                                   .q = qr,
                                   .k = kr,
                                   .v = vr,
                                   .rotation = rotation,
                                   .q_norm = w->q_norm,
                                   .k_norm = w->k_norm,
                                   .norm_full = m->norm_full,
                                   .norm_eps = EPS,
                                   .clip = m->clip});
    cpu_attention(c, &(attention_args){.layout = &w->layout,
                                       .pages = w->pages,
                                       .layer = LAYER,
                                       .heads = m->heads,
                                       .window = m->window,
                                       .run_count = count,
                                       .runs = runs,
                                       .q = qr,
                                       .out = outr});
    for (uint32_t i = 0; i < count; i++)
        for (size_t j = 0; j < (size_t)runs[i].row_count * qn; j++)
            pieces[i].s->out[(size_t)pieces[i].begin * qn + j] = load_as(m->type, out, (size_t)runs[i].row_begin * qn + j);
    free(q), free(k), free(v), free(out), free(rotation);
}

/* ---- the definition, in double precision ---- */

static void reference_prepare(const world *w, const float *in, const float *norm, uint32_t heads, uint32_t position,
                              double *out) {
    uint32_t dim = w->m.dim, n = heads * dim;
    for (uint32_t i = 0; i < n; i++) out[i] = (double)in[i];
    for (uint32_t begin = 0, width = w->m.norm_full ? n : dim; norm && begin < n; begin += width) {
        double sum = 0;
        for (uint32_t i = 0; i < width; i++) sum += out[begin + i] * out[begin + i];
        for (uint32_t i = 0; i < width; i++) out[begin + i] *= (double)norm[i] / sqrt(sum / width + (double)EPS);
    }
    if (w->m.clip > 0)
        for (uint32_t i = 0; i < n; i++) out[i] = fmin(fmax(out[i], -(double)w->m.clip), (double)w->m.clip);
    for (uint32_t h = 0; h < heads; h++)
        for (uint32_t j = 0; j < dim / 2; j++) {
            double angle = position * pow(10000, -2.0 * j / dim), *x = out + h * dim, a = x[j], b = x[dim / 2 + j];
            x[j] = a * cos(angle) - b * sin(angle), x[dim / 2 + j] = b * cos(angle) + a * sin(angle);
        }
    for (uint32_t i = 0; i < n; i++) out[i] = (double)as_type(w->m.type, (float)out[i]);
}

static void reference_row(const world *w, const sequence *s, const double *keys, uint32_t t, double *out) {
    const model *m = &w->m;
    uint32_t     qn = m->heads * m->dim, kn = m->kv_heads * m->dim,
             first = m->window && t + 1 > m->window ? t + 1 - m->window : 0;
    double *q = take(qn * sizeof *q), *p = take((t + 1) * sizeof *p);
    reference_prepare(w, s->q + (size_t)t * qn, w->q_norm, m->heads, t, q);
    for (uint32_t h = 0; h < m->heads; h++) {
        uint32_t kv = h / (m->heads / m->kv_heads);
        double   top = -INFINITY, sum = 0;
        for (uint32_t i = first; i <= t; i++) {
            p[i] = 0;
            for (uint32_t d = 0; d < m->dim; d++)
                p[i] += q[h * m->dim + d] * keys[(size_t)i * kn + kv * m->dim + d] / sqrt(m->dim);
            top = fmax(top, p[i]);
        }
        for (uint32_t i = first; i <= t; i++) sum += p[i] = exp(p[i] - top);
        for (uint32_t d = 0; d < m->dim; d++) {
            double o = 0, clip = m->clip > 0 ? (double)m->clip : INFINITY;
            for (uint32_t i = first; i <= t; i++)
                o += p[i] * fmin(fmax((double)s->v[(size_t)i * kn + kv * m->dim + d], -clip), clip);
            out[h * m->dim + d] = o / sum;
        }
    }
    free(q), free(p);
}

static void check_sequence(const world *w, const sequence *s) {
    const model *m = &w->m;
    uint32_t     qn = m->heads * m->dim, kn = m->kv_heads * m->dim;
    double      *keys = take((size_t)s->length * kn * sizeof *keys), *out = take(qn * sizeof *out);
    for (uint32_t t = 0; t < s->length; t++)
        reference_prepare(w, s->k + (size_t)t * kn, w->k_norm, m->kv_heads, t, keys + (size_t)t * kn);
    for (uint32_t t = 0; t < s->length; t++) {
        reference_row(w, s, keys, t, out);
        for (uint32_t i = 0; i < qn; i++) {
            double got = (double)s->out[(size_t)t * qn + i], tolerance = m->type == DTYPE_BF16 ? 0.02 : 3e-5;
            if (!(fabs(got - out[i]) <= tolerance))
                fail_msg("position %u, value %u: got %g, expected %g", t, i, got, out[i]);
        }
    }
    free(keys), free(out);
}

static const model models[] = {
    {DTYPE_F32, 1, 1, 8, 16, 0, false, false, 0},     {DTYPE_BF16, 2, 1, 8, 16, 0, false, false, 0},
    {DTYPE_BF16, 7, 1, 64, 64, 0, false, false, 0},   {DTYPE_F32, 6, 3, 64, 32, 0, true, false, 0},
    {DTYPE_BF16, 4, 4, 80, 16, 40, false, false, 0},  {DTYPE_F32, 4, 2, 96, 48, 17, false, true, 0.8f},
    {DTYPE_BF16, 8, 2, 128, 16, 0, true, false, 0},   {DTYPE_BF16, 2, 2, 256, 64, 100, false, true, 0.9f},
    {DTYPE_F32, 3, 1, 10, 16, 1, false, false, 0.5f},
};
enum { MODEL_COUNT = sizeof models / sizeof *models };

static void attention_matches_double_precision(void **state) {
    (void)state;
    static const uint32_t lengths[] = {1, 2, 15, 16, 17, 63, 64, 65, 130};
    FOR_EACH_ISA(isa) {
        cpu c;
        assert_int_equal(cpu_open(&c, isa, 3, NULL), OK);
        for (size_t i = 0; i < MODEL_COUNT; i++) {
            rng   r = {10 + i, 0};
            world w = make_world(&r, models[i]);
            for (size_t l = 0; l < sizeof lengths / sizeof *lengths; l++) {
                w.next_page = 0;
                sequence s = make_sequence(&r, &w, lengths[l]);
                run_pass(&c, &w, &(piece){&s, 0, s.length}, 1);
                check_sequence(&w, &s);
                drop_sequence(&s);
            }
            drop_world(&w);
        }
        cpu_close(&c);
    }
}

/* The same prompt in pieces, in company, on pages full of another sequence's infinities. */
static void a_prompt_has_the_same_bits_however_it_is_cut(void **state) {
    (void)state;
    FOR_EACH_ISA(isa) {
        cpu c;
        assert_int_equal(cpu_open(&c, isa, 2, NULL), OK);
        for (size_t i = 0; i < MODEL_COUNT; i++) {
            rng      r = {30 + i, 0};
            world    w = make_world(&r, models[i]);
            uint32_t qn = models[i].heads * models[i].dim;
            sequence s = make_sequence(&r, &w, 150), other = make_sequence(&r, &w, 90);
            run_pass(&c, &w, &(piece){&s, 0, s.length}, 1);
            float *whole = take(4 * (size_t)s.length * qn);
            memcpy(whole, s.out, 4 * (size_t)s.length * qn);
            for (int round = 0; round < 3; round++) {
                poison(&w);
                for (uint32_t at = 0, mate = 0; at < s.length;) {
                    uint32_t step = round == 0 ? 1 : 1 + (uint32_t)rng_below(&r, 40);
                    uint32_t end = at + step < s.length ? at + step : s.length,
                             mate_end = mate + 1 + (uint32_t)rng_below(&r, 9);
                    if (mate_end > other.length) mate = 0, mate_end = 3;
                    piece both[2] = {{&other, mate, mate_end}, {&s, at, end}};
                    run_pass(&c, &w, round == 1 ? both + 1 : both, round == 1 ? 1 : 2);
                    at = end, mate = mate_end;
                }
                assert_memory_equal(s.out, whole, 4 * (size_t)s.length * qn);
            }
            free(whole);
            drop_sequence(&s), drop_sequence(&other), drop_world(&w);
        }
        cpu_close(&c);
    }
}

static void a_large_score_does_not_overflow(void **state) {
    (void)state;
    FOR_EACH_ISA(isa) {
        cpu c;
        assert_int_equal(cpu_open(&c, isa, 1, NULL), OK);
        rng      r = {50, 0};
        world    w = make_world(&r, (model){DTYPE_F32, 1, 1, 16, 16, 0, false, false, 0});
        sequence s = make_sequence(&r, &w, 70);
        for (uint32_t i = 0; i < 70 * 16; i++) s.q[i] *= 3e4f, s.k[i] *= 3e4f;
        run_pass(&c, &w, &(piece){&s, 0, s.length}, 1);
        for (uint32_t i = 0; i < 70 * 16; i++) assert_true(fabsf(s.out[i]) <= 1);
        drop_sequence(&s), drop_world(&w);
        cpu_close(&c);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attention_matches_double_precision),
        cmocka_unit_test(a_prompt_has_the_same_bits_however_it_is_cut),
        cmocka_unit_test(a_large_score_does_not_overflow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
