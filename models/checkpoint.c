/* models/checkpoint.c: every tensor the facts call for is found once, at open, and put into a slot by role, layer and
 * expert; after that a look-up is an index. The check goes both ways: a tensor that the facts do not account for means
 * that config and weights are not of one model, and serving half a model would look like a bad model. */
#include "models/checkpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/hash.h"
#include "models/architecture.h"
#include "models/random.h"
#include "models/safetensors.h"

#define RANDOM_DEVIATION 0.02f /* initializer_range of every published config here */

struct checkpoint {
    model_facts facts;
    char       *dir; /* NULL: random */
    safetensors files;
    tensor     *slots; /* cols 0: there is none */
    bool       *used;  /* by index into files.tensors; only while opening */
    uint64_t    bytes;
};

/* ---- slots: for each layer the roles, then the experts' three matrices ---- */

enum { EXPERT_ROLES = ROLE_EXPERT_DOWN - ROLE_EXPERT_GATE + 1 };

static size_t slots_per_layer(const model_facts *f) { return ROLE_COUNT + (size_t)EXPERT_ROLES * f->expert_count; }

static tensor *slot(const checkpoint *c, tensor_role role, uint32_t layer, uint32_t expert) {
    role_scope scope = role_scope_of(role);
    if (scope == SCOPE_MODEL) return &c->slots[role];
    tensor *first = &c->slots[layer * slots_per_layer(&c->facts)];
    if (scope == SCOPE_LAYER) return &first[role];
    return &first[ROLE_COUNT + (size_t)(role - ROLE_EXPERT_GATE) * c->facts.expert_count + expert];
}

bool checkpoint_has(const checkpoint *c, tensor_role role, uint32_t layer, uint32_t expert) {
    role_scope scope = role_scope_of(role);
    if (scope != SCOPE_MODEL && layer >= c->facts.layer_count) return false;
    if (scope == SCOPE_EXPERT && expert >= c->facts.expert_count) return false;
    return slot(c, role, layer, expert)->cols > 0;
}

tensor checkpoint_tensor(const checkpoint *c, tensor_role role, uint32_t layer, uint32_t expert) {
    check(checkpoint_has(c, role, layer, expert));
    return *slot(c, role, layer, expert);
}

const model_facts *checkpoint_facts(const checkpoint *c) { return &c->facts; }
const char        *checkpoint_dir(const checkpoint *c) { return c->dir; }
uint64_t           checkpoint_bytes(const checkpoint *c) { return c->bytes; }

/* ---- one tensor: found in the files, or drawn ---- */

typedef struct {
    tensor_role role;
    uint32_t    layer, expert, rows, cols;
} wanted;

static void print_shape(char *out, size_t n, const safetensor *t) {
    size_t used = (size_t)snprintf(out, n, "[");
    for (int i = 0; i < t->rank; i++) used += (size_t)snprintf(out + used, n - used, "%s%u", i ? ", " : "", t->shape[i]);
    snprintf(out + used, n - used, "]");
}

static int check_shape(const safetensor *t, const wanted *w, const char *name, error *err) {
    bool vector = role_is_vector(w->role);
    bool fits =
        vector ? t->rank == 1 && t->shape[0] == w->cols : t->rank == 2 && t->shape[0] == w->rows && t->shape[1] == w->cols;
    if (fits) return OK;
    char has[80], rows[16] = "";
    print_shape(has, sizeof has, t);
    if (!vector) snprintf(rows, sizeof rows, "%u, ", w->rows);
    return error_set(err, ERR_INVALID, "tensor '%s' has the shape %s, but config.json calls for [%s%u]", name, has, rows,
                     w->cols);
}

/* A tied model is found by either of its names. */
static const safetensor *find_in_files(const checkpoint *c, tensor_role role, const char *name) {
    const safetensor *t = safetensors_find(&c->files, name);
    if (t || role != ROLE_EMBED || !c->facts.tied_embeddings) return t;
    char head[ROLE_NAME_MAX];
    role_name(head, &c->facts, ROLE_LM_HEAD, 0, 0);
    return safetensors_find(&c->files, head);
}

static int load(checkpoint *c, const wanted *w, const char *name, tensor *out, error *err) {
    const safetensor *t = find_in_files(c, w->role, name);
    if (!t)
        return error_set(err, ERR_INVALID, "tensor '%s' is missing, which config.json calls for%s", name,
                         w->role == ROLE_LM_HEAD ? " (a model without one says tie_word_embeddings: true)" : "");
    int code = check_shape(t, w, name, err);
    if (code != OK) return code;
    if (!safetensor_dtype(t, &out->type))
        return error_set(err, ERR_UNSUPPORTED, "tensor '%s' is of type %s; supported are BF16, F16 and F32", name,
                         safetensor_dtype_name(t));
    c->used[t - c->files.tensors] = true;
    out->data = t->data;
    return OK;
}

static void draw(const checkpoint *c, const wanted *w, const char *name, tensor *out) {
    out->type = c->facts.weights;
    out->seed = hash_u64(name, strlen(name), 0);
    out->scale = role_is_bias(w->role) ? -1.0f : role_is_vector(w->role) ? 0.0f : RANDOM_DEVIATION;
}

static int fill(checkpoint *c, const wanted *w, error *err) {
    char    name[ROLE_NAME_MAX];
    tensor *out = slot(c, w->role, w->layer, w->expert);
    int     code = OK;
    role_name(name, &c->facts, w->role, w->layer, w->expert);
    if (c->dir) code = load(c, w, name, out, err);
    else draw(c, w, name, out);
    out->rows = w->rows, out->cols = w->cols;
    c->bytes += (uint64_t)w->rows * w->cols * dtype_bytes(out->type);
    return code;
}

static int fill_role(checkpoint *c, tensor_role role, error *err) {
    wanted     w = {.role = role};
    role_scope scope = role_scope_of(role);
    uint32_t   layers = scope == SCOPE_MODEL ? 1 : c->facts.layer_count,
             copies = scope == SCOPE_EXPERT ? c->facts.expert_count : 1;
    for (w.layer = 0; w.layer < layers; w.layer++) {
        if (!role_shape(&c->facts, role, w.layer, &w.rows, &w.cols)) continue;
        for (w.expert = 0; w.expert < copies; w.expert++) {
            int code = fill(c, &w, err);
            if (code != OK) return code;
        }
    }
    return OK;
}

static int fill_all(checkpoint *c, error *err) {
    c->slots = calloc(c->facts.layer_count * slots_per_layer(&c->facts), sizeof *c->slots);
    c->used = calloc(c->files.count + 1, sizeof *c->used);
    if (!c->slots || !c->used) fatal("no memory for the table of tensors");
    for (tensor_role r = 0; r < ROLE_COUNT; r++) {
        int code = fill_role(c, r, err);
        if (code != OK) return code;
    }
    if (c->facts.tied_embeddings) *slot(c, ROLE_LM_HEAD, 0, 0) = *slot(c, ROLE_EMBED, 0, 0);
    return OK;
}

/* ---- what else the files hold ---- */

/* Buffers that old releases of the library saved along; they follow from the config. */
static const char *const harmless_suffixes[] = {".rotary_emb.inv_freq", ".rotary_emb.cos_cached", ".rotary_emb.sin_cached"};

static bool ends_with(const safetensor *t, const char *suffix) {
    size_t n = strlen(suffix);
    return t->name_size >= n && memcmp(t->name + t->name_size - n, suffix, n) == 0;
}

/* A tied model may bring its lm_head along. It is not read, so it had better be the embedding: three rows tell. */
static int check_tied_head(const checkpoint *c, const safetensor *head, const char *name, error *err) {
    const tensor *embed = slot(c, ROLE_EMBED, 0, 0);
    dtype         type;
    wanted        w = {.role = ROLE_LM_HEAD, .rows = embed->rows, .cols = embed->cols};
    int           code = check_shape(head, &w, name, err);
    if (code != OK) return code;
    bool     same = safetensor_dtype(head, &type) && type == embed->type;
    size_t   row_bytes = same ? embed->cols * dtype_bytes(type) : 0;
    uint32_t rows[3] = {0, embed->rows / 2, embed->rows - 1};
    for (int i = 0; i < 3 && same; i++)
        same = memcmp(head->data + rows[i] * row_bytes, (const char *)embed->data + rows[i] * row_bytes, row_bytes) == 0;
    return same ? OK
                : error_set(err, ERR_INVALID,
                            "config.json says that the embeddings are tied, but tensor '%s' differs from the embedding",
                            name);
}

static int check_extra(const checkpoint *c, const safetensor *t, error *err) {
    char head[ROLE_NAME_MAX];
    for (size_t i = 0; i < sizeof harmless_suffixes / sizeof *harmless_suffixes; i++)
        if (ends_with(t, harmless_suffixes[i])) return OK;
    role_name(head, &c->facts, ROLE_LM_HEAD, 0, 0);
    if (c->facts.tied_embeddings && t == safetensors_find(&c->files, head)) return check_tied_head(c, t, head, err);
    return error_set(
        err, ERR_INVALID,
        "tensor '%.*s' has no place in the %s of %u layers that config.json describes: config and weights do not belong "
        "together",
        (int)(t->name_size < 120 ? t->name_size : 120), t->name, c->facts.architecture, c->facts.layer_count);
}

static int check_extras(const checkpoint *c, error *err) {
    for (size_t i = 0; i < c->files.count; i++) {
        int code = c->used[i] ? OK : check_extra(c, &c->files.tensors[i], err);
        if (code != OK) return code;
    }
    return OK;
}

/* The type that most of the matrices' values have. */
static dtype main_type(const checkpoint *c) {
    uint64_t values[DTYPE_COUNT] = {0};
    size_t   n = c->facts.layer_count * slots_per_layer(&c->facts);
    int      best = 0;
    for (size_t i = 0; i < n; i++)
        if (c->slots[i].rows > 1) values[c->slots[i].type] += (uint64_t)c->slots[i].rows * c->slots[i].cols;
    for (int t = 1; t < DTYPE_COUNT; t++)
        if (values[t] > values[best]) best = t;
    return (dtype)best;
}

/* ---- opening ---- */

static int open_folder(checkpoint *c, const char *dir, error *err) {
    int code = facts_read(&c->facts, dir, err);
    if (code == OK) code = safetensors_open(&c->files, dir, err);
    if (code != OK) return code;
    c->dir = strdup(dir);
    if (!c->dir) fatal("no memory for a path");
    code = fill_all(c, err);
    if (code == OK) code = check_extras(c, err);
    if (code == OK) c->facts.weights = main_type(c);
    return code == OK ? OK : error_prefix(err, "%s", dir);
}

static int open_random(checkpoint *c, const char *name, error *err) {
    size_t      bytes = 0;
    const char *config = random_config(name, &bytes);
    if (!config) {
        char   list[320] = "";
        size_t used = 0;
        for (uint32_t i = 0; checkpoint_random_name(i) && used < sizeof list; i++)
            used += (size_t)snprintf(list + used, sizeof list - used, "%s%s", i ? ", " : "", checkpoint_random_name(i));
        return error_set(err, ERR_NOT_FOUND, "there is no '%.64s'; there are %s", name, list);
    }
    int code = facts_parse(&c->facts, name, config, bytes, err);
    return code == OK ? fill_all(c, err) : code;
}

int checkpoint_open(checkpoint **out, const char *name, error *err) {
    *out = NULL;
    checkpoint *c = calloc(1, sizeof *c);
    if (!c) fatal("no memory for a checkpoint");
    int code = strncmp(name, "random:", 7) == 0 ? open_random(c, name, err) : open_folder(c, name, err);
    free(c->used);
    c->used = NULL;
    if (code == OK) *out = c;
    else checkpoint_close(c);
    return code;
}

void checkpoint_close(checkpoint *c) {
    if (!c) return;
    safetensors_close(&c->files);
    free(c->slots);
    free(c->dir);
    free(c);
}

/* ---- advice about mapped bytes ---- */

static uint64_t tensor_bytes(const tensor *t) { return (uint64_t)t->rows * t->cols * dtype_bytes(t->type); }

void checkpoint_will_read(const checkpoint *c, const tensor *t) {
    (void)c;
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = (uintptr_t)t->data & ~(page - 1);
    if (t->data) madvise((void *)begin, (uintptr_t)t->data + tensor_bytes(t) - begin, MADV_WILLNEED);
}

/* Only whole pages: the ones at the edges are shared with neighbours. Their bytes stay in the page cache, for the next
 * start; what is given back is this process' share. */
void checkpoint_was_read(const checkpoint *c, const tensor *t) {
    (void)c;
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = ((uintptr_t)t->data + page - 1) & ~(page - 1);
    uintptr_t end = ((uintptr_t)t->data + tensor_bytes(t)) & ~(page - 1);
    if (t->data && end > begin) madvise((void *)begin, end - begin, MADV_DONTNEED);
}

/* ---- describing ---- */

static void describe_attention(const model_facts *f, buf *out) {
    static const char *const qk_norms[] = {"", ", q and k normalized per head", ", q and k normalized over all heads"};
    static const char *const scalings[] = {"", ", linear", ", llama3"};
    uint32_t                 windows = 0, window = 0;
    for (uint32_t i = 0; i < f->layer_count; i++)
        if (f->sliding_window[i]) windows++, window = f->sliding_window[i];
    buf_printf(out, "attention     %u heads, %u for keys and values, of %u; %s%s%s\n", f->head_count, f->kv_head_count,
               f->head_dim, f->qkv_bias ? "with bias" : "no bias", f->out_bias ? " also on the output" : "",
               qk_norms[f->qk_norm]);
    if (f->qkv_clip > 0) buf_printf(out, "clip          q, k, v to +-%g\n", (double)f->qkv_clip);
    buf_printf(out, "positions     up to %u, theta %g%s", f->context_max, (double)f->rope.theta, scalings[f->rope.scaling]);
    if (f->rope.scaling) buf_printf(out, " by %g", (double)f->rope.factor);
    if (windows) buf_printf(out, "; %u of %u layers see the last %u", windows, f->layer_count, window);
    buf_char(out, '\n');
}

static void describe_ffn(const model_facts *f, buf *out) {
    uint32_t moe_layers = 0;
    for (uint32_t i = 0; i < f->layer_count; i++) moe_layers += f->is_moe_layer[i];
    if (moe_layers < f->layer_count)
        buf_printf(out, "dense layers  %u, ffn width %u%s\n", f->layer_count - moe_layers, f->ffn_width,
                   f->mlp_bias ? ", with bias" : "");
    if (!moe_layers) return;
    buf_printf(out, "expert layers %u, %u of %u experts of width %u per token%s", moe_layers, f->experts_per_token,
               f->expert_count, f->expert_width, f->renormalize_topk ? ", weights renormalized" : "");
    if (f->shared_width)
        buf_printf(out, ", one shared expert of width %u%s", f->shared_width, f->shared_gate ? " behind a gate" : "");
    buf_char(out, '\n');
}

static void describe_defaults(const model_facts *f, buf *out) {
    const struct {
        const char *name;
        float       value;
    } sampling[] = {{"temperature", f->default_temperature},
                    {"top_p", f->default_top_p},
                    {"top_k", f->default_top_k},
                    {"min_p", f->default_min_p},
                    {"repetition_penalty", f->default_repetition_penalty}};
    buf_str(out, "token ids    ");
    if (f->has_bos) buf_printf(out, " bos %u;", f->bos_id);
    buf_str(out, f->eos_count ? " eos" : " no eos");
    for (uint32_t i = 0; i < f->eos_count; i++) buf_printf(out, " %u", f->eos_ids[i]);
    buf_str(out, "\nsampling     ");
    size_t before = out->size;
    for (size_t i = 0; i < sizeof sampling / sizeof *sampling; i++)
        if (sampling[i].value >= 0) buf_printf(out, " %s %g", sampling[i].name, (double)sampling[i].value);
    buf_str(out, out->size > before ? "\n" : " no defaults\n");
}

static void describe_roles(const checkpoint *c, buf *out) {
    buf_printf(out, "\n%-16s %8s %20s %6s %14s\n", "tensors", "count", "shape", "type", "bytes");
    for (tensor_role r = 0; r < ROLE_COUNT; r++) {
        role_scope scope = role_scope_of(r);
        uint32_t   layers = scope == SCOPE_MODEL ? 1 : c->facts.layer_count,
                 copies = scope == SCOPE_EXPERT ? c->facts.expert_count : 1;
        uint64_t count = 0, bytes = 0;
        tensor   last = {0};
        for (uint32_t layer = 0; layer < layers; layer++)
            for (uint32_t e = 0; e < copies; e++)
                if (checkpoint_has(c, r, layer, e))
                    last = checkpoint_tensor(c, r, layer, e), count++, bytes += tensor_bytes(&last);
        if (!count) continue;
        char shape[32];
        if (role_is_vector(r)) snprintf(shape, sizeof shape, "%u", last.cols);
        else snprintf(shape, sizeof shape, "%u x %u", last.rows, last.cols);
        bool tied = r == ROLE_LM_HEAD && c->facts.tied_embeddings;
        buf_printf(out, "%-16s %8llu %20s %6s %14llu%s\n", role_label(r), (unsigned long long)count, shape,
                   dtype_facts[last.type].name, (unsigned long long)bytes, tied ? " (the embedding)" : "");
    }
}

void checkpoint_describe(const checkpoint *c, buf *out) {
    const model_facts *f = &c->facts;
    uint64_t           total = facts_parameter_count(f), active = facts_active_parameter_count(f);
    uint64_t           kv_bytes = 2ull * f->layer_count * f->kv_head_count * f->head_dim * dtype_bytes(DTYPE_BF16);
    buf_printf(out, "architecture  %s, %u layers of width %u, vocabulary %u%s\n", f->architecture, f->layer_count, f->width,
               f->vocab_size, f->tied_embeddings ? ", embeddings tied" : "");
    buf_printf(out, "parameters    %llu (%.2f million), %llu read per token\n", (unsigned long long)total,
               (double)total * 1e-6, (unsigned long long)active);
    buf_printf(out, "weights       %s, %llu bytes (%.2f GiB)%s\n", dtype_facts[f->weights].name,
               (unsigned long long)c->bytes, (double)c->bytes / (1 << 30), c->dir ? "" : ", drawn from a seed");
    describe_attention(f, out);
    describe_ffn(f, out);
    buf_printf(out, "KV            %llu bytes per token in BF16\n", (unsigned long long)kv_bytes);
    describe_defaults(f, out);
    describe_roles(c, out);
}
