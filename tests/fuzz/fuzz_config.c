/* tests/fuzz/fuzz_config.c: a config.json, and behind a byte 0x1F a generation_config.json. Facts that were accepted must
 * be fit for everything that is computed from them. */
#include <stdlib.h>
#include <string.h>

#include "models/facts.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_facts(const model_facts *f) {
    if (!f->architecture || !f->vocab_size || !f->width || !f->layer_count || f->layer_count > MODEL_LAYERS_MAX) abort();
    if (!f->kv_head_count || f->head_count % f->kv_head_count || !f->head_dim || f->head_dim % 2) abort();
    if (f->experts_per_token > f->expert_count || f->eos_count > MODEL_EOS_MAX) abort();
    if (!(f->norm_eps >= 0 && f->norm_eps <= 1) || !(f->rope.theta >= 1)) abort();
    for (uint32_t i = 0; i < f->layer_count; i++)
        if (f->is_moe_layer[i] ? !f->experts_per_token || !f->expert_width : !f->ffn_width) abort();
    if (facts_active_parameter_count(f) > facts_parameter_count(f)) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    error          err;
    model_facts    f;
    const uint8_t *split = size ? memchr(data, 0x1F, size) : NULL;
    size_t         n = split ? (size_t)(split - data) : size;
    if (facts_parse(&f, "config.json", (const char *)data, n, &err) != OK) return 0;
    check_facts(&f);
    if (split && facts_parse_generation(&f, "generation_config.json", (const char *)split + 1, size - n - 1, &err) == OK)
        check_facts(&f);
    return 0;
}
