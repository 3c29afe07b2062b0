#include "server/metrics.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"

static const histogram_bounds *const observed_bounds[HIST_COUNT] = {
    [HIST_PROMPT_TOKENS] = &histogram_tokens, [HIST_COMPUTED_TOKENS] = &histogram_tokens,
    [HIST_OUTPUT_TOKENS] = &histogram_tokens, [HIST_LONGEST_OUTPUT] = &histogram_tokens,
    [HIST_MAX_TOKENS] = &histogram_tokens,    [HIST_N] = &histogram_tokens,
};

void metrics_observe(metrics *m, histogram_id id, double value) {
    histogram_observe(&m->histograms[id], observed_bounds[id] ? observed_bounds[id] : &histogram_seconds, value);
}

/* ---- the page: text that never changes, with holes for numbers ---- */

typedef enum { HOLE_VALUE, HOLE_BUCKET, HOLE_SUM, HOLE_COUNT } hole_kind;
typedef struct {
    size_t            text_end; /* the text before it ends here */
    const metric_row *row;      /* NULL: the value is 1 */
    hole_kind         kind;
    uint32_t          index; /* element; of a bucket: how many of the row's buckets it sums up */
} hole;

struct metrics_page {
    bool   native;
    buf    text;
    hole  *holes;
    size_t hole_count, hole_capacity;
};
enum { PAGE_MAX_BYTES = 8 << 20 };

static void add_hole(metrics_page *p, const metric_row *row, hole_kind kind, uint32_t index) {
    if (p->hole_count == p->hole_capacity) {
        p->hole_capacity = p->hole_capacity ? 2 * p->hole_capacity : 256;
        p->holes = realloc(p->holes, p->hole_capacity * sizeof *p->holes);
        if (!p->holes) fatal("out of memory for the page of metrics");
    }
    p->holes[p->hole_count++] = (hole){p->text.size, row, kind, index};
    buf_char(&p->text, '\n');
}

void metrics_label(buf *out, const char *name, const char *value) {
    buf_printf(out, "%s=\"", name);
    for (const char *s = value; *s; s++) {
        if (*s == '"' || *s == '\\') buf_char(out, '\\');
        if (*s == '\n') buf_str(out, "\\n");
        else buf_char(out, *s);
    }
    buf_char(out, '"');
}

typedef struct {
    metrics_page         *page;
    const metrics_layout *layout;
    metrics_dialect       dialect;
    buf                   labels; /* that every series of the dialect carries */
} writer;

/* `labels` is NULL, or like a="b". */
static void begin_sample(writer *w, const char *name, const char *suffix, const char *labels) {
    buf       *out = &w->page->text;
    const bool common = w->labels.size > 0;
    buf_str(out, name), buf_str(out, suffix);
    if (common || labels) buf_char(out, '{');
    if (common) buf_str(out, w->labels.data);
    if (common && labels) buf_char(out, ',');
    if (labels) buf_str(out, labels);
    if (common || labels) buf_char(out, '}');
    buf_char(out, ' ');
}

/* As Prometheus' own Python client writes them, and vLLM with it: 1.0, 0.25. */
static void write_bound(char *out, size_t size, double bound) {
    const int n = snprintf(out, size, "le=\"%.12g", bound);
    snprintf(out + n, size - (size_t)n, strpbrk(out + 4, ".e") ? "\"" : ".0\"");
}

static void lay_out_histogram(writer *w, const metric_row *row, const char *name) {
    const bool              native = w->dialect == DIALECT_NATIVE;
    const histogram_bounds *shown = native ? row->bounds : row->vllm_bounds;
    const uint32_t          context = w->layout->context_max;
    const bool              clipped = !native && shown == &histogram_tokens && context;
    uint32_t                next = 0;
    char                    label[48];
    for (uint32_t i = 0; i < row->bounds->count && next < shown->count; i++) {
        if (row->bounds->values[i] != shown->values[next]) continue;
        if (clipped && shown->values[next] > context) break;
        write_bound(label, sizeof label, shown->values[next++]);
        begin_sample(w, name, "_bucket", label);
        add_hole(w->page, row, HOLE_BUCKET, i + 1);
    }
    begin_sample(w, name, "_bucket", "le=\"+Inf\"");
    add_hole(w->page, row, HOLE_COUNT, 0);
    begin_sample(w, name, "_sum", NULL);
    add_hole(w->page, row, HOLE_SUM, 0);
    begin_sample(w, name, "_count", NULL);
    add_hole(w->page, row, HOLE_COUNT, 0);
}

static void lay_out_samples(writer *w, const metric_row *row, const char *name) {
    buf labels;
    buf_init(&labels, 4096);
    if (row->info) {
        row->info(w->layout, &labels);
        begin_sample(w, name, "", labels.data);
        add_hole(w->page, NULL, HOLE_VALUE, 0);
    }
    for (unsigned i = 0; i < row->elements; i++) {
        buf_clear(&labels);
        metrics_label(&labels, row->element_label, row->element_name(i));
        begin_sample(w, name, "", labels.data);
        add_hole(w->page, row, HOLE_VALUE, i);
    }
    if (!row->info && !row->elements) {
        begin_sample(w, name, "", row->labels);
        add_hole(w->page, row, HOLE_VALUE, 0);
    }
    buf_free(&labels);
}

static void write_head(const metric_row *row, const char *name, buf *out) {
    static const char *const kinds[] = {"counter", "gauge", "histogram", "gauge"};
    buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, metrics_help(row), name, kinds[row->kind]);
}

static void lay_out(writer *w) {
    const char *last = "";
    for (size_t i = 0; i < metric_row_count; i++) {
        const metric_row *row = &metric_rows[i];
        const char       *name = row->names[w->dialect];
        if (!name || row->place == IN_TENANTS) continue;
        if (strcmp(last, name) != 0) write_head(row, name, &w->page->text);
        last = name;
        if (row->kind == METRIC_HISTOGRAM) lay_out_histogram(w, row, name);
        else lay_out_samples(w, row, name);
    }
}

const char *metrics_help(const metric_row *row) {
    while (!row->help) row--;
    return row->help;
}

metrics_page *metrics_page_new(const metrics_layout *l) {
    metrics_page *p = calloc(1, sizeof *p);
    if (!p) fatal("out of memory for the page of metrics");
    buf_init(&p->text, PAGE_MAX_BYTES);
    p->native = l->dialects[DIALECT_NATIVE];
    for (int dialect = 0; dialect < DIALECT_COUNT; dialect++) {
        writer w = {.page = p, .layout = l, .dialect = (metrics_dialect)dialect};
        if (!l->dialects[dialect]) continue;
        buf_init(&w.labels, 4096);
        if (dialect != DIALECT_NATIVE) {
            metrics_label(&w.labels, "model_name", l->model_name);
            buf_str(&w.labels, ",engine=\"0\"");
        }
        lay_out(&w);
        buf_free(&w.labels);
    }
    return p;
}

void metrics_page_free(metrics_page *p) {
    if (!p) return;
    buf_free(&p->text);
    free(p->holes);
    free(p);
}

/* ---- a scrape ---- */

static const void *find(const metrics_view *v, const metric_row *row) {
    const char *base = row->place == IN_METRICS    ? (const char *)v->metrics
                       : row->place == IN_SNAPSHOT ? (const char *)v->snapshot
                                                   : (const char *)v->facts;
    return base + row->offset;
}

static double value_of(const void *at, metric_type type, uint32_t i) {
    switch (type) {
    case AS_U32: return ((const uint32_t *)at)[i];
    case AS_U64: return (double)((const uint64_t *)at)[i];
    case AS_F64: return ((const double *)at)[i];
    case AS_NS: return (double)((const uint64_t *)at)[i] * 1e-9;
    case AS_US: return (double)((const uint64_t *)at)[i] * 1e-6;
    case AS_HISTOGRAM: break;
    }
    return 0;
}

/* Nearly all are whole numbers: those without printf. */
static void write_number(buf *out, double value) {
    if (value < 0 || value >= 1e15 || value != (double)(uint64_t)value) buf_printf(out, "%.12g", value);
    else buf_u64(out, (uint64_t)value);
}

/* Who is there may change at any time, so these are not laid out. */
static void write_tenants(const metrics_view *v, buf *out) {
    for (size_t i = 0; i < metric_row_count && v->tenant_count > 0; i++) {
        const metric_row *row = &metric_rows[i];
        const char       *name = row->names[DIALECT_NATIVE];
        if (row->place != IN_TENANTS) continue;
        write_head(row, name, out);
        for (uint32_t t = 0; t < v->tenant_count; t++) {
            buf_printf(out, "%s{tenant=\"%s\"} ", name, v->tenants[t].name);
            write_number(out, value_of((const char *)&v->tenants[t] + row->offset, row->type, 0));
            buf_char(out, '\n');
        }
    }
}

void metrics_page_write(const metrics_page *p, const metrics_view *v, buf *out) {
    size_t   begin = 0;
    uint64_t sum = 0;
    uint32_t summed = 0; /* buckets of the histogram that is being written */
    for (size_t i = 0; i < p->hole_count; i++) {
        const hole      *h = &p->holes[i];
        const void      *at = h->row ? find(v, h->row) : NULL;
        const histogram *hist = at;
        buf_append(out, p->text.data + begin, h->text_end - begin);
        begin = h->text_end;
        if (h->kind != HOLE_BUCKET) sum = summed = 0;
        switch (h->kind) {
        case HOLE_VALUE: write_number(out, at ? value_of(at, h->row->type, h->index) : 1); break;
        case HOLE_BUCKET:
            while (summed < h->index) sum += hist->buckets[summed++];
            write_number(out, (double)sum);
            break;
        case HOLE_SUM: write_number(out, hist->sum); break;
        case HOLE_COUNT: write_number(out, (double)hist->count); break;
        }
    }
    buf_append(out, p->text.data + begin, p->text.size - begin);
    if (p->native) write_tenants(v, out);
}

/* ---- facts ---- */

static double read_resident_bytes(void) {
    char               text[128];
    unsigned long long pages = 0;
    const int          fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    const ssize_t      n = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    if (fd >= 0) close(fd);
    text[n > 0 ? n : 0] = 0;
    sscanf(text, "%*u %llu", &pages);
    return (double)pages * (double)sysconf(_SC_PAGESIZE);
}

void metrics_facts_derive(metrics_facts *f, const engine_snapshot *s, health_state state) {
    const scheduler_stats *q = &s->scheduler;
    struct timespec        cpu;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
    f->cpu_s = (double)cpu.tv_sec + (double)cpu.tv_nsec * 1e-9;
    f->resident_bytes = read_resident_bytes();
    f->one = 1;
    f->waiting_capacity = s->held ? 0 : q->waiting;
    f->waiting_deferred = s->held ? q->waiting : 0;
    f->kv_use = q->pages_total ? (double)q->pages_held / q->pages_total : 0;
    f->host_use = q->host_pages_total ? (double)q->host_pages_used / q->host_pages_total : 0;
    f->page_copy_s = q->page_copy_us * 1e-6;
    f->prompt_computed = (double)(q->prompt_tokens - q->prompt_cached_tokens);
    f->hit_rate = q->cache_queried_tokens ? (double)q->cache_hit_tokens / (double)q->cache_queried_tokens : 0;
    f->health[state] = 1;
}
