/* models/facts.c: config.json into facts.
 *
 * What a config says is believed only within bounds: every number has a range, so that no product of two of them can
 * overflow 64 bits, and what this build would compute differently from the published definition is refused rather than
 * approximated. The four sizes without which a config means nothing are required; everything else has the default of
 * the architecture's row. */
#include "models/facts.h"

#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "models/architecture.h"

enum {
    CONFIG_BYTES_MAX = 1 << 20,
    CONFIG_DEPTH_MAX = 32,
    VOCAB_MAX = 1 << 22,
    WIDTH_MAX = 1 << 17,
    HEADS_MAX = 1 << 10,
    HEAD_DIM_MAX = 1 << 10,
    FFN_WIDTH_MAX = 1 << 20,
    EXPERTS_MAX = 1 << 10,
    CONTEXT_MAX = 1 << 24,
};

typedef struct {
    const cJSON        *json;
    const architecture *arch;
    model_facts        *f;
    error              *err;
} config;

#define TRY(call)                                                                                                           \
    do {                                                                                                                    \
        int code_ = (call);                                                                                                 \
        if (code_ != OK) return code_;                                                                                      \
    } while (0)

static bool given(const cJSON *object, const char *key) {
    const cJSON *item = json_get(object, key);
    return item && !cJSON_IsNull(item);
}

uint32_t    facts_architecture_count(void) { return architecture_count; }
const char *facts_architecture_name(uint32_t i) { return i < architecture_count ? architectures[i].name : NULL; }

static int refuse_architecture(const char *name, error *err) {
    char   list[320];
    size_t used = 0;
    for (uint32_t i = 0; i < architecture_count; i++)
        used += (size_t)snprintf(list + used, sizeof list - used, "%s%s", i ? ", " : "", architectures[i].name);
    return error_set(err, ERR_UNSUPPORTED, "the architecture '%.64s' is not supported; supported are %s", name, list);
}

/* architectures[0]; where it is missing, model_type; where both are there they must agree. */
static int find_architecture(config *c) {
    const char  *type = NULL;
    const cJSON *list = json_get(c->json, "architectures");
    TRY(json_read_string(c->json, "model_type", &type, c->err));
    if (list && !cJSON_IsNull(list)) {
        const cJSON *first = cJSON_IsArray(list) ? list->child : NULL;
        if (!first || !cJSON_IsString(first))
            return error_set(c->err, ERR_INVALID, "'architectures' must be a list that begins with a name");
        c->arch = architecture_find(first->valuestring);
        if (!c->arch) return refuse_architecture(first->valuestring, c->err);
        if (type && strcmp(type, c->arch->model_type) != 0)
            return error_set(c->err, ERR_INVALID, "it contradicts itself: the architecture is %s, but model_type is '%.64s'",
                             c->arch->name, type);
        return OK;
    }
    if (!type) return error_set(c->err, ERR_INVALID, "it names no architecture ('architectures' is missing)");
    for (uint32_t i = 0; i < architecture_count; i++)
        if (strcmp(architectures[i].model_type, type) == 0) c->arch = &architectures[i];
    return c->arch ? OK : refuse_architecture(type, c->err);
}

static int refuse_unsupported(const config *c) {
    const cJSON *j = c->json;
    const char  *act = "silu", *method = "unnamed";
    double       rotary = 1;
    if (given(j, "quantization_config") || given(j, "compression_config")) {
        const cJSON *q = json_get(j, given(j, "quantization_config") ? "quantization_config" : "compression_config");
        TRY(json_read_string(q, "quant_method", &method, c->err));
        return error_set(c->err, ERR_UNSUPPORTED,
                         "the weights are quantized (method '%.64s'); supported are plain BF16, F16 and F32 weights",
                         method);
    }
    TRY(json_read_string(j, "hidden_act", &act, c->err));
    if (strcmp(act, "silu") != 0)
        return error_set(c->err, ERR_UNSUPPORTED, "the activation '%.64s' (hidden_act) is not supported; supported is silu",
                         act);
    TRY(json_read_f64(j, "partial_rotary_factor", 0, 1, &rotary, c->err));
    if (rotary != 1)
        return error_set(c->err, ERR_UNSUPPORTED,
                         "partial_rotary_factor %g is not supported; supported is rotary embedding of whole heads", rotary);
    return OK;
}

static int required_u32(const config *c, const char *key, uint32_t max, uint32_t *out) {
    if (!given(c->json, key)) return error_set(c->err, ERR_INVALID, "'%s' is missing", key);
    return json_read_u32(c->json, key, 1, max, out, c->err);
}

static int read_sizes(const config *c) {
    model_facts *f = c->f;
    TRY(required_u32(c, "vocab_size", VOCAB_MAX, &f->vocab_size));
    TRY(required_u32(c, "hidden_size", WIDTH_MAX, &f->width));
    TRY(required_u32(c, "num_hidden_layers", MODEL_LAYERS_MAX, &f->layer_count));
    TRY(required_u32(c, "num_attention_heads", HEADS_MAX, &f->head_count));
    /* Absent: the row's default. null: one per head. */
    if (!json_get(c->json, "num_key_value_heads")) f->kv_head_count = c->arch->kv_head_count;
    if (!f->kv_head_count) f->kv_head_count = f->head_count;
    TRY(json_read_u32(c->json, "num_key_value_heads", 1, HEADS_MAX, &f->kv_head_count, c->err));
    if (f->head_count % f->kv_head_count)
        return error_set(c->err, ERR_INVALID, "%u attention heads cannot share %u key-value heads evenly", f->head_count,
                         f->kv_head_count);
    f->head_dim = c->arch->head_dim;
    TRY(json_read_u32(c->json, "head_dim", 2, HEAD_DIM_MAX, &f->head_dim, c->err));
    if (!f->head_dim) {
        if (f->width % f->head_count)
            return error_set(c->err, ERR_INVALID,
                             "hidden_size %u is not a multiple of the %u heads, and head_dim is missing", f->width,
                             f->head_count);
        f->head_dim = f->width / f->head_count;
    }
    if (f->head_dim % 2 || f->head_dim < 2 || f->head_dim > HEAD_DIM_MAX)
        return error_set(c->err, ERR_INVALID, "heads of %u values are not supported; the size must be even and at most %d",
                         f->head_dim, HEAD_DIM_MAX);
    f->context_max = c->arch->context_max;
    return json_read_u32(c->json, "max_position_embeddings", 1, CONTEXT_MAX, &f->context_max, c->err);
}

static int read_f32(const cJSON *object, const char *key, double min, double max, float *out, error *err) {
    double v = *out;
    int    code = json_read_f64(object, key, min, max, &v, err);
    *out = (float)v;
    return code;
}

static int read_switches(const config *c) {
    model_facts        *f = c->f;
    const architecture *a = c->arch;
    f->norm_eps = a->norm_eps, f->qk_norm = a->qk_norm;
    TRY(read_f32(c->json, "rms_norm_eps", 0, 1, &f->norm_eps, c->err));
    TRY(json_read_bool(c->json, "tie_word_embeddings", &f->tied_embeddings, c->err));
    f->qkv_bias = a->bias_default;
    if (a->bias_key) TRY(json_read_bool(c->json, a->bias_key, &f->qkv_bias, c->err));
    f->out_bias = f->qkv_bias && a->bias_on_out;
    if (a->has_mlp_bias) TRY(json_read_bool(c->json, "mlp_bias", &f->mlp_bias, c->err));
    if (a->has_qkv_clip) TRY(read_f32(c->json, "clip_qkv", 1e-6, 1e6, &f->qkv_clip, c->err));
    return OK;
}

static int read_llama3_rope(const config *c, const cJSON *rope) {
    rope_facts *r = &c->f->rope;
    if (!given(rope, "low_freq_factor") || !given(rope, "high_freq_factor"))
        return error_set(c->err, ERR_INVALID, "rope scaling 'llama3' needs low_freq_factor and high_freq_factor");
    TRY(read_f32(rope, "low_freq_factor", 1e-3, 1e6, &r->low_freq_factor, c->err));
    TRY(read_f32(rope, "high_freq_factor", 1e-3, 1e6, &r->high_freq_factor, c->err));
    if (!(r->low_freq_factor < r->high_freq_factor))
        return error_set(c->err, ERR_INVALID, "rope scaling: low_freq_factor %g is not below high_freq_factor %g",
                         (double)r->low_freq_factor, (double)r->high_freq_factor);
    r->original_context = c->f->context_max;
    return json_read_u32(rope, "original_max_position_embeddings", 1, CONTEXT_MAX, &r->original_context, c->err);
}

/* Two published spellings: rope_theta beside a rope_scaling object (`type` or `rope_type`), and one rope_parameters
 * object that holds everything. */
static int read_rope(const config *c) {
    rope_facts  *r = &c->f->rope;
    const char  *key = given(c->json, "rope_scaling") ? "rope_scaling" : "rope_parameters", *type = "default";
    const cJSON *rope = given(c->json, key) ? json_get(c->json, key) : NULL;
    double       rotary = 1;
    r->theta = c->arch->rope_theta;
    TRY(read_f32(c->json, "rope_theta", 1, 1e12, &r->theta, c->err));
    if (!rope) return OK;
    if (!cJSON_IsObject(rope)) return error_set(c->err, ERR_INVALID, "'%s' must be an object or null", key);
    for (const cJSON *item = rope->child; item; item = item->next)
        if (cJSON_IsObject(item))
            return error_set(c->err, ERR_UNSUPPORTED,
                             "'%s' per kind of layer is not supported; supported is one for all layers", key);
    TRY(read_f32(rope, "rope_theta", 1, 1e12, &r->theta, c->err));
    TRY(json_read_f64(rope, "partial_rotary_factor", 0, 1, &rotary, c->err));
    TRY(json_read_string(rope, given(rope, "rope_type") ? "rope_type" : "type", &type, c->err));
    bool linear = strcmp(type, "linear") == 0, llama3 = strcmp(type, "llama3") == 0;
    if ((!linear && !llama3 && strcmp(type, "default") != 0) || rotary != 1)
        return error_set(
            c->err, ERR_UNSUPPORTED,
            "rope scaling of type '%.64s'%s is not supported; supported are default, linear and llama3, over whole "
            "heads",
            type, rotary != 1 ? " with a partial_rotary_factor" : "");
    if (!linear && !llama3) return OK;
    r->scaling = linear ? ROPE_LINEAR : ROPE_LLAMA3;
    if (!given(rope, "factor")) return error_set(c->err, ERR_INVALID, "rope scaling '%s' needs a factor", type);
    TRY(read_f32(rope, "factor", 1, 1e6, &r->factor, c->err));
    return llama3 ? read_llama3_rope(c, rope) : OK;
}

/* Whether layer i has the window, from the config's own list of layer types. */
static int read_layer_types(const config *c, const cJSON *types, uint32_t window) {
    uint32_t i = 0;
    if (!cJSON_IsArray(types)) return error_set(c->err, ERR_INVALID, "'layer_types' must be a list");
    for (const cJSON *item = types->child; item; item = item->next, i++) {
        const char *name = cJSON_IsString(item) ? item->valuestring : "?";
        bool        sliding = strcmp(name, "sliding_attention") == 0;
        if (!sliding && strcmp(name, "full_attention") != 0)
            return error_set(c->err, ERR_UNSUPPORTED,
                             "layers of type '%.64s' are not supported; supported are full_attention and sliding_attention",
                             name);
        if (sliding && !window)
            return error_set(c->err, ERR_INVALID, "'layer_types' names sliding layers, but no sliding_window is in use");
        if (i < c->f->layer_count) c->f->sliding_window[i] = sliding ? window : 0;
    }
    if (i != c->f->layer_count)
        return error_set(c->err, ERR_INVALID, "'layer_types' lists %u layers of %u", i, c->f->layer_count);
    return OK;
}

static int read_windows(const config *c) {
    model_facts *f = c->f;
    window_rule  rule = c->arch->window_rule;
    uint32_t     window = c->arch->sliding_window, edge = 28; /* every published class with this key defaults to 28 */
    bool         use = rule == WINDOW_ALL;
    if (rule == WINDOW_NONE) return OK;
    if (!use) TRY(json_read_bool(c->json, "use_sliding_window", &use, c->err));
    if (cJSON_IsNull(json_get(c->json, "sliding_window"))) window = 0;
    TRY(json_read_u32(c->json, "sliding_window", 0, UINT32_MAX, &window, c->err));
    TRY(json_read_u32(c->json, "max_window_layers", 0, UINT32_MAX, &edge, c->err));
    if (!use) window = 0;
    if ((rule == WINDOW_FROM || rule == WINDOW_EVEN) && given(c->json, "layer_types"))
        return read_layer_types(c, json_get(c->json, "layer_types"), window);
    for (uint32_t i = 0; i < f->layer_count; i++) {
        bool in = rule == WINDOW_FROM ? i >= edge : rule == WINDOW_EVEN ? i < edge && i % 2 == 0 : true;
        f->sliding_window[i] = in ? window : 0;
    }
    return OK;
}

static int read_moe_layers(const config *c) {
    model_facts *f = c->f;
    uint32_t     step = 1;
    if (c->arch->has_sparse_step) TRY(json_read_u32(c->json, "decoder_sparse_step", 1, UINT32_MAX, &step, c->err));
    for (uint32_t i = 0; i < f->layer_count; i++) f->is_moe_layer[i] = (i + 1) % step == 0;
    const cJSON *dense = json_get(c->json, "mlp_only_layers");
    if (!c->arch->has_sparse_step || !dense || cJSON_IsNull(dense)) return OK;
    if (!cJSON_IsArray(dense)) return error_set(c->err, ERR_INVALID, "'mlp_only_layers' must be a list");
    for (const cJSON *item = dense->child; item; item = item->next) {
        if (!cJSON_IsNumber(item) || !(item->valuedouble >= 0 && item->valuedouble < f->layer_count))
            return error_set(c->err, ERR_INVALID, "'mlp_only_layers' must hold numbers of layers below %u", f->layer_count);
        f->is_moe_layer[(uint32_t)item->valuedouble] = false;
    }
    return OK;
}

static int read_experts(const config *c) {
    model_facts        *f = c->f;
    const architecture *a = c->arch;
    if (!a->is_moe) return required_u32(c, "intermediate_size", FFN_WIDTH_MAX, &f->ffn_width);
    /* One spelling of the count is Mixtral's, the other everybody's; newer releases of the library write either. */
    const char *count_key = given(c->json, "num_local_experts") ? "num_local_experts" : "num_experts";
    f->expert_count = a->expert_count, f->experts_per_token = a->experts_per_token;
    f->expert_width = a->expert_width, f->shared_width = a->shared_width;
    f->renormalize_topk = a->always_renormalizes, f->shared_gate = a->has_shared;
    TRY(json_read_u32(c->json, count_key, 1, EXPERTS_MAX, &f->expert_count, c->err));
    TRY(json_read_u32(c->json, "num_experts_per_tok", 1, EXPERTS_MAX, &f->experts_per_token, c->err));
    if (f->experts_per_token > f->expert_count)
        return error_set(c->err, ERR_INVALID, "%u experts per token are more than the %u experts", f->experts_per_token,
                         f->expert_count);
    TRY(json_read_u32(c->json, a->expert_width_key, 1, FFN_WIDTH_MAX, &f->expert_width, c->err));
    if (!a->always_renormalizes) TRY(json_read_bool(c->json, "norm_topk_prob", &f->renormalize_topk, c->err));
    if (a->has_shared)
        TRY(json_read_u32(c->json, "shared_expert_intermediate_size", 0, FFN_WIDTH_MAX, &f->shared_width, c->err));
    TRY(read_moe_layers(c));
    bool any_dense = false;
    for (uint32_t i = 0; i < f->layer_count; i++) any_dense |= !f->is_moe_layer[i];
    return any_dense ? required_u32(c, "intermediate_size", FFN_WIDTH_MAX, &f->ffn_width) : OK;
}

/* The tensors decide in the end (checkpoint.c); random ones are drawn in this type. */
static int read_weight_type(const config *c) {
    const char *name = "float32";
    TRY(json_read_string(c->json, given(c->json, "torch_dtype") ? "torch_dtype" : "dtype", &name, c->err));
    for (int t = 0; t < DTYPE_COUNT; t++)
        if (strcmp(dtype_facts[t].config_name, name) == 0) {
            c->f->weights = (dtype)t;
            return OK;
        }
    return error_set(c->err, ERR_UNSUPPORTED,
                     "weights of type '%.64s' are not supported; supported are bfloat16, float16 and float32", name);
}

/* Ids outside the vocabulary can never be drawn, so they are dropped: published configs hold -1 and the like. */
static int add_eos(model_facts *f, const cJSON *item, error *err) {
    if (!cJSON_IsNumber(item)) return error_set(err, ERR_INVALID, "'eos_token_id' must be an id, a list of ids or null");
    double v = item->valuedouble;
    if (!(v >= 0 && v < f->vocab_size) || v != (uint32_t)v) return OK;
    for (uint32_t i = 0; i < f->eos_count; i++)
        if (f->eos_ids[i] == (uint32_t)v) return OK;
    if (f->eos_count == MODEL_EOS_MAX)
        return error_set(err, ERR_UNSUPPORTED, "there are more than %d eos ids", MODEL_EOS_MAX);
    f->eos_ids[f->eos_count++] = (uint32_t)v;
    return OK;
}

static int read_special_ids(model_facts *f, const cJSON *json, error *err) {
    const cJSON *eos = json_get(json, "eos_token_id"), *bos = json_get(json, "bos_token_id");
    if (cJSON_IsNumber(bos) && bos->valuedouble >= 0 && bos->valuedouble < f->vocab_size)
        f->has_bos = true, f->bos_id = (uint32_t)bos->valuedouble;
    if (!eos || cJSON_IsNull(eos)) return OK;
    if (!cJSON_IsArray(eos)) return add_eos(f, eos, err);
    for (const cJSON *item = eos->child; item; item = item->next) TRY(add_eos(f, item, err));
    return OK;
}

static void default_special_ids(const config *c) {
    model_facts *f = c->f;
    int64_t      bos = c->arch->bos_id, eos = c->arch->eos_id;
    if (!json_get(c->json, "bos_token_id") && bos >= 0 && bos < f->vocab_size) f->has_bos = true, f->bos_id = (uint32_t)bos;
    if (!json_get(c->json, "eos_token_id") && eos >= 0 && eos < f->vocab_size) f->eos_ids[f->eos_count++] = (uint32_t)eos;
}

static int parse(config *c) {
    TRY(find_architecture(c));
    check(c->arch);
    c->f->architecture = c->arch->name;
    TRY(refuse_unsupported(c));
    TRY(read_weight_type(c));
    TRY(read_sizes(c));
    TRY(read_switches(c));
    TRY(read_rope(c));
    TRY(read_windows(c));
    TRY(read_experts(c));
    default_special_ids(c);
    return read_special_ids(c->f, c->json, c->err);
}

static cJSON *parse_object(const char *text, size_t n, error *err) {
    cJSON *json = json_parse(text, n, CONFIG_DEPTH_MAX, err);
    if (json && !cJSON_IsObject(json)) {
        cJSON_Delete(json);
        error_set(err, ERR_INVALID, "it is not a JSON object");
        return NULL;
    }
    return json;
}

int facts_parse(model_facts *out, const char *name, const char *config_json, size_t n, error *err) {
    error local;
    if (!err) err = &local;
    *out = (model_facts){.default_temperature = -1,
                         .default_top_p = -1,
                         .default_top_k = -1,
                         .default_min_p = -1,
                         .default_repetition_penalty = -1};
    if (n > CONFIG_BYTES_MAX)
        return error_set(err, ERR_TOO_LARGE, "%s: it is %zu bytes; at most %d are read", name, n, CONFIG_BYTES_MAX);
    cJSON *json = parse_object(config_json, n, err);
    int    code = json ? parse(&(config){json, NULL, out, err}) : err->code;
    cJSON_Delete(json);
    return code == OK ? OK : error_prefix(err, "%s", name);
}

int facts_parse_generation(model_facts *f, const char *name, const char *json_text, size_t n, error *err) {
    error local;
    if (!err) err = &local;
    cJSON *json = parse_object(json_text, n, err);
    int    code = json ? read_special_ids(f, json, err) : err->code;
    if (code == OK) code = read_f32(json, "temperature", 0, 100, &f->default_temperature, err);
    if (code == OK) code = read_f32(json, "top_p", 0, 1, &f->default_top_p, err);
    if (code == OK) code = read_f32(json, "top_k", -1, 1e9, &f->default_top_k, err);
    if (code == OK) code = read_f32(json, "min_p", 0, 1, &f->default_min_p, err);
    if (code == OK) code = read_f32(json, "repetition_penalty", 0.01, 100, &f->default_repetition_penalty, err);
    cJSON_Delete(json);
    return code == OK ? OK : error_prefix(err, "%s", name);
}

typedef int (*facts_parser)(model_facts *f, const char *name, const char *text, size_t n, error *err);

static int read_with(facts_parser parser, model_facts *f, const char *path, error *err) {
    buf text;
    buf_init(&text, CONFIG_BYTES_MAX);
    int code = file_read(&text, path, err);
    if (code == OK) code = parser(f, path, text.data ? text.data : "", text.size, err);
    buf_free(&text);
    return code;
}

int facts_read(model_facts *out, const char *dir, error *err) {
    char path[4096];
    if (snprintf(path, sizeof path, "%s/config.json", dir) >= (int)sizeof path)
        return error_set(err, ERR_INVALID, "the folder's path is longer than %zu bytes", sizeof path);
    TRY(read_with(facts_parse, out, path, err));
    snprintf(path, sizeof path, "%s/generation_config.json", dir);
    return file_exists(path) ? read_with(facts_parse_generation, out, path, err) : OK;
}

static uint64_t count(const model_facts *f, bool active_only) {
    uint64_t total = 0;
    for (tensor_role r = 0; r < ROLE_COUNT; r++) {
        /* One row of the embedding is looked up, not read; where it is the lm_head as well, it is. */
        if (active_only && r == ROLE_EMBED && !f->tied_embeddings) continue;
        uint32_t   rows, cols, layers = role_scope_of(r) == SCOPE_MODEL ? 1 : f->layer_count;
        role_scope scope = role_scope_of(r);
        uint32_t   copies = scope != SCOPE_EXPERT ? 1 : active_only ? f->experts_per_token : f->expert_count;
        for (uint32_t layer = 0; layer < layers; layer++)
            if (role_shape(f, r, layer, &rows, &cols)) total += (uint64_t)rows * cols * copies;
    }
    return total;
}
uint64_t facts_parameter_count(const model_facts *f) { return count(f, false); }
uint64_t facts_active_parameter_count(const model_facts *f) { return count(f, true); }
