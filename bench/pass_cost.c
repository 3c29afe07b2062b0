#include "bench/pass_cost.h"

#include <stdlib.h>
#include <string.h>

#include "engine/sim_machine.h"

enum { CLASSES_MAX = 64 };

/* What one operator of a class costs the rows of a segment. */
typedef struct {
    uint64_t ns;
    double   weight_bytes, expert_bytes;
} class_cost;

/* Operators [begin, end), over which the rows do not change. */
typedef struct {
    uint32_t   begin, end;
    uint64_t   ns;
    class_cost classes[CLASSES_MAX];
} segment_cost;

struct pass_cost {
    device       *device;
    sim_machine   machine;
    program       program;
    uint8_t      *class_of;                /* [op_count] */
    uint32_t      example_of[CLASSES_MAX]; /* an operator of the class */
    uint32_t     *crossed;                 /* [op_count + 1][class_count]: how many of a class lie before the operator */
    uint32_t      class_count;
    batch_run    *runs;    /* [rows_max] */
    batch_output *outputs; /* [outputs_max] */
    segment_cost *segments;
    uint32_t      segment_count, segment_capacity;
    uint64_t      page_copy_ns;
};

/* ---- classes ---- */

static uint32_t class_key(const model_facts *f, const op *o) {
    return o->kind == OP_ATTENTION ? f->sliding_window[o->layer] : 0;
}

static uint32_t find_class(const pass_cost *c, const model_facts *f, const op *o) {
    for (uint32_t i = 0; i < c->class_count; i++) {
        const op *example = &c->program.ops[c->example_of[i]];
        if (example->kind == o->kind && class_key(f, example) == class_key(f, o)) return i;
    }
    return c->class_count;
}

static void find_classes(pass_cost *c, const model_facts *f) {
    const uint32_t n = c->program.op_count;
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t class = find_class(c, f, &c->program.ops[i]);
        check(class < CLASSES_MAX);
        if (class == c->class_count) c->example_of[c->class_count++] = i;
        c->class_of[i] = (uint8_t) class;
    }
    c->crossed = calloc((size_t)(n + 1) * c->class_count, sizeof *c->crossed);
    if (!c->crossed) fatal("out of memory for the cost of %u operators", n);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t *next = c->crossed + (size_t)(i + 1) * c->class_count;
        memcpy(next, next - c->class_count, c->class_count * sizeof *next);
        next[c->class_of[i]]++;
    }
}

static uint32_t crossings(const pass_cost *c, uint32_t class, uint32_t begin, uint32_t end) {
    return c->crossed[(size_t)end * c->class_count + class] - c->crossed[(size_t)begin * c->class_count + class];
}

/* ---- open and close ---- */

int pass_cost_open(pass_cost **out, const checkpoint *model, const engine_config *config, error *err) {
    const model_facts *f = checkpoint_facts(model);
    device_config      d = config->device_settings;
    pass_cost         *c = calloc(1, sizeof *c);
    if (!c) fatal("out of memory for the cost of passes");
    d.sim_realtime = false;
    int code = program_build(&c->program, f, program_activation(f), err);
    if (code == OK) code = sim_machine_find(&c->machine, d.sim_hardware, d.sim_calibration, err);
    if (code == OK) code = device_sim.open(&c->device, model, &c->program, &d, err);
    if (code != OK) return pass_cost_close(c), code;
    c->class_of = calloc(c->program.op_count, sizeof *c->class_of);
    c->runs = calloc(d.rows_max, sizeof *c->runs);
    c->outputs = calloc(d.rows_max, sizeof *c->outputs);
    if (!c->class_of || !c->runs || !c->outputs) fatal("out of memory for the cost of passes");
    find_classes(c, f);
    const uint64_t page_bytes = (uint64_t)d.page_tokens * c->program.layer_count * c->program.kv_row_bytes;
    c->page_copy_ns = (uint64_t)sim_machine_copy_ns(&c->machine, page_bytes);
    *out = c;
    return OK;
}

void pass_cost_close(pass_cost *c) {
    if (!c) return;
    if (c->device) device_sim.close(c->device);
    program_free(&c->program);
    free(c->class_of), free(c->crossed), free(c->runs), free(c->outputs), free(c->segments), free(c);
}

uint64_t pass_cost_page_copy_ns(const pass_cost *c) { return c->page_copy_ns; }

const program *pass_cost_program(const pass_cost *c) { return &c->program; }
double         pass_cost_host_ns(const pass_cost *c) { return c->machine.pass_ns; }
double         pass_cost_request_ns(const pass_cost *c) { return c->machine.request_ns; }

/* ---- one plan ---- */

static bool lasts(const pass_cost *c, const slice *s) { return s->op_end == c->program.op_count; }

/* Rows of a slice that are of use at the operator: past the last K and V only those that draw. */
static uint32_t rows_at(const pass_cost *c, const slice *s, uint32_t at) {
    if (at < s->op_begin || at >= s->op_end) return 0;
    return at < c->program.outputs_begin || !lasts(c, s) ? s->token_end - s->token_begin : s->samples;
}

/* The next operator at which the set of rows changes. */
static uint32_t next_change(const pass_cost *c, const plan *p, uint32_t at) {
    const uint32_t outputs_begin = c->program.outputs_begin;
    uint32_t       next = c->program.op_count;
    for (uint32_t i = 0; i < p->slice_count; i++) {
        const slice *s = &p->slices[i];
        if (s->op_begin > at && s->op_begin < next) next = s->op_begin;
        if (s->op_end > at && s->op_end < next) next = s->op_end;
        const bool drops = lasts(c, s) && s->token_end - s->token_begin > (uint32_t)s->samples;
        if (drops && at < outputs_begin && outputs_begin < next) next = outputs_begin;
    }
    return next;
}

static uint32_t bind_rows(pass_cost *c, const plan *p, uint32_t at) {
    batch b = {.runs = c->runs, .outputs = c->outputs};
    for (uint32_t i = 0; i < p->slice_count; i++) {
        const slice   *s = &p->slices[i];
        const uint32_t rows = rows_at(c, s, at);
        if (rows == 0) continue;
        c->runs[b.run_count++] =
            (batch_run){.row_begin = b.row_count, .row_count = rows, .position_begin = s->token_end - rows, .slot = s->slot};
        b.row_count += rows, b.output_count += s->samples;
    }
    if (b.row_count > 0) check(device_sim.bind(c->device, &b, NULL) == OK);
    return b.row_count;
}

static segment_cost *add_segment(pass_cost *c, uint32_t begin, uint32_t end) {
    if (c->segment_count == c->segment_capacity) {
        c->segment_capacity = c->segment_capacity ? c->segment_capacity * 2 : 16;
        c->segments = realloc(c->segments, c->segment_capacity * sizeof *c->segments);
        if (!c->segments) fatal("out of memory for the cost of passes");
    }
    segment_cost *s = &c->segments[c->segment_count++];
    s->begin = begin, s->end = end, s->ns = 0;
    return s;
}

static class_cost ask_device(pass_cost *c, uint32_t class) {
    const uint32_t at = c->example_of[class], kind = c->program.ops[at].kind;
    device_stats   before, after;
    device_sim.read_stats(c->device, &before);
    check(device_sim.run_op(c->device, at, NULL) == OK);
    device_sim.read_stats(c->device, &after);
    return (class_cost){after.op_ns[kind] - before.op_ns[kind], (double)(after.weight_bytes - before.weight_bytes),
                        (double)(after.expert_bytes - before.expert_bytes)};
}

static uint64_t cost_segment(pass_cost *c, const plan *p, uint32_t begin, uint32_t end) {
    segment_cost *s = add_segment(c, begin, end);
    const bool    empty = bind_rows(c, p, begin) == 0;
    for (uint32_t class = 0; class < c->class_count; class ++) {
        const uint32_t n = crossings(c, class, begin, end);
        s->classes[class] = n > 0 && !empty ? ask_device(c, class) : (class_cost){0};
        s->ns += n * s->classes[class].ns;
    }
    return s->ns;
}

uint64_t pass_cost_of(pass_cost *c, const plan *p) {
    uint32_t at = c->program.op_count;
    uint64_t ns = 0;
    c->segment_count = 0;
    for (uint32_t i = 0; i < p->slice_count; i++)
        if (p->slices[i].op_begin < at) at = p->slices[i].op_begin;
    for (uint32_t next; at < c->program.op_count; at = next) ns += cost_segment(c, p, at, next = next_change(c, p, at));
    return ns;
}

/* ---- a part of it ---- */

uint32_t pass_cost_stop(const pass_cost *c, uint64_t ns, uint64_t *boundary_ns) {
    const uint32_t last = c->program.layer_begin[c->program.layer_count];
    uint64_t       reached = 0;
    for (uint32_t i = 0; i < c->segment_count; i++) {
        const segment_cost *s = &c->segments[i];
        for (uint32_t at = s->begin; at < s->end && at < last; at++) {
            reached += s->classes[c->class_of[at]].ns;
            if (reached >= ns && at + 1 <= last) return *boundary_ns = reached, at + 1;
        }
    }
    return c->program.op_count;
}

void pass_cost_bytes(const pass_cost *c, uint32_t until, double *weights, double *experts) {
    *weights = *experts = 0;
    for (uint32_t i = 0; i < c->segment_count; i++) {
        const segment_cost *s = &c->segments[i];
        const uint32_t      end = until < s->end ? until : s->end;
        for (uint32_t class = 0; class < c->class_count && end > s->begin; class ++) {
            const double n = crossings(c, class, s->begin, end);
            *weights += n * s->classes[class].weight_bytes, *experts += n * s->classes[class].expert_bytes;
        }
    }
}
