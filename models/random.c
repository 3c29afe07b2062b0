/* models/random.c: weights from a counter-based generator.
 *
 * Problem: a random 8B model has eight billion values, which every device must draw alike and quickly. Choice: each
 * value is the sum of the four bytes of one 32-bit word of Philox (base/rng.h), centred and scaled: integers until one
 * final multiplication in f32, so it is the same everywhere, and near enough to normal (an Irwin-Hall sum, cut at 3.45
 * deviations). Cost: only 1,021 different values, which speed does not notice.
 *
 *   value(row, col) = f32(b0 + b1 + b2 + b3 - 510) * f32(scale * RANDOM_UNIT),
 *   the bytes of word (col % 4) of rng_philox(seed, row, col / 4), then rounded to the tensor's type.
 *
 * The configs are files like anybody's, embedded so that the daemon needs nothing beside itself. `_name_or_path` in each
 * says whose published numbers they are. */
#include "models/random.h"

#include <string.h>

#include "base/rng.h"
#include "models/checkpoint.h"

/* identifier, name */
#define RANDOM_CONFIGS(X)                                                                                                   \
    X(llama_160m, "llama-160m")                                                                                             \
    X(qwen25_05b, "qwen2.5-0.5b")                                                                                           \
    X(llama31_8b, "llama-3.1-8b")                                                                                           \
    X(llama31_70b, "llama-3.1-70b")                                                                                         \
    X(gpt_oss_20b, "gpt-oss-20b")                                                                                           \
    X(qwen3_30b_a3b, "qwen3-30b-a3b")                                                                                       \
    X(mixtral_8x7b, "mixtral-8x7b")                                                                                         \
    X(dense_292m, "dense-292m")                                                                                             \
    X(moe_655m, "moe-655m")

/* The assembler copies the file in; paths are relative to the repository's root, where make runs. */
#define EMBED(id, name)                                                                                                     \
    __asm__(".pushsection .rodata\n"                                                                                        \
            "random_config_" #id ": .incbin \"models/random/" name ".json\"\n"                                              \
            "random_config_" #id "_end: .byte 0\n"                                                                          \
            ".popsection\n");                                                                                               \
    extern const char random_config_##id[], random_config_##id##_end[];
RANDOM_CONFIGS(EMBED)

static const struct {
    const char *name, *text, *end;
} configs[] = {
#define ROW(id, name) {"random:" name, random_config_##id, random_config_##id##_end},
    RANDOM_CONFIGS(ROW)
#undef ROW
};
enum { CONFIG_COUNT = sizeof configs / sizeof *configs };

const char *checkpoint_random_name(uint32_t i) { return i < CONFIG_COUNT ? configs[i].name : NULL; }

const char *random_config(const char *name, size_t *bytes) {
    for (uint32_t i = 0; i < CONFIG_COUNT; i++)
        if (strcmp(configs[i].name, name) == 0) return *bytes = (size_t)(configs[i].end - configs[i].text), configs[i].text;
    return NULL;
}

/* The deviation of a sum of four bytes is sqrt(4 * (256^2 - 1) / 12). */
#define RANDOM_UNIT (1.0f / 147.80054f)

enum { BATCH = 64 }; /* blocks of four values drawn together, for the compiler to put into vectors */

static void draw_batch(uint64_t seed, uint32_t row, uint32_t first_block, float factor, float *out) {
    uint32_t words[4][BATCH];
    for (uint32_t i = 0; i < BATCH; i++) {
        rng_block b = rng_philox(seed, row, first_block + i);
        for (int w = 0; w < 4; w++) words[w][i] = b.word[w];
    }
    for (uint32_t i = 0; i < BATCH; i++)
        for (int w = 0; w < 4; w++) {
            uint32_t x = words[w][i];
            int32_t  sum = (int32_t)((x & 255) + (x >> 8 & 255) + (x >> 16 & 255) + (x >> 24)) - 510;
            out[4 * i + (uint32_t)w] = (float)sum * factor;
        }
}

static void store(dtype type, const float *from, uint32_t n, void *out) {
    check(type == DTYPE_F32 || type == DTYPE_BF16); /* what the embedded configs ask for */
    if (type == DTYPE_F32) memcpy(out, from, n * sizeof *from);
    else
        for (uint32_t i = 0; i < n; i++) ((uint16_t *)out)[i] = f32_to_bf16(from[i]);
}

void tensor_random_row(const tensor *t, uint32_t row, void *out) {
    float values[4 * BATCH];
    float constant = t->scale == 0 ? 1.0f : 0.0f, factor = t->scale * RANDOM_UNIT;
    for (uint32_t i = 0; i < 4 * BATCH; i++) values[i] = constant;
    for (uint32_t col = 0; col < t->cols; col += 4 * BATCH) {
        uint32_t n = t->cols - col < 4 * BATCH ? t->cols - col : 4 * BATCH;
        if (t->scale > 0) draw_batch(t->seed, row, col / 4, factor, values);
        store(t->type, values, n, (char *)out + col * dtype_bytes(t->type));
    }
}
