/* Writes the logits of every position of a sequence, as f32 [positions][vocabulary], computed by the cpu device through
 * the pass walker.
 *
 *     dump_logits MODEL OUT CHUNK SEED ISA ID...
 *
 * The prompt is cut into chunks of CHUNK tokens. With a SEED other than 0 chunks are of random lengths up to CHUNK, and
 * each is suspended and resumed at random operators on its way. */
#include <stdio.h>
#include <stdlib.h>

#include "base/rng.h"
#include "engine/walk.h"

enum { CHUNK_MAX = 256, PAGE_TOKENS = 16, TOKENS_MAX = 4096 };

typedef struct {
    uint32_t tokens[TOKENS_MAX], pages[TOKENS_MAX / PAGE_TOKENS];
    uint32_t count, chunk, done;
    sampling params;
    rng      random;
    program  program;
    device  *device;
    walker  *walker;
    float   *logits; /* [vocab] */
    FILE    *out;
    uint32_t vocab_size;
} dump;

static void find(void *context, const slice *s, walk_sequence *out) {
    const dump *d = context;
    *out = (walk_sequence){.tokens = d->tokens,
                           .prompt_tokens = d->count,
                           .pages = d->pages,
                           .params = &d->params,
                           .page_count = TOKENS_MAX / PAGE_TOKENS,
                           .output_rows = s->token_end - s->token_begin};
}

static void open_device(dump *d, const checkpoint *model, const char *isa) {
    const model_facts  *f = checkpoint_facts(model);
    const device_config c = {.threads = 2,
                             .rows_max = CHUNK_MAX,
                             .outputs_max = CHUNK_MAX,
                             .isa = isa,
                             .frame_count = 1,
                             .page_count = TOKENS_MAX / PAGE_TOKENS,
                             .page_tokens = PAGE_TOKENS,
                             .frame_rows = CHUNK_MAX,
                             .context_max = TOKENS_MAX};
    error               err;
    if (program_build(&d->program, f, program_activation(f), &err) != OK) fatal("%s", err.text);
    if (device_cpu.open(&d->device, model, &d->program, &c, &err) != OK) fatal("%s", err.text);
    d->walker = walker_new(&(walker_config){.api = &device_cpu,
                                            .device = d->device,
                                            .program = &d->program,
                                            .slices_max = 1,
                                            .slots_max = 1,
                                            .rows_max = CHUNK_MAX,
                                            .outputs_max = CHUNK_MAX,
                                            .frame_count = 1,
                                            .frame_rows = CHUNK_MAX,
                                            .page_tokens = PAGE_TOKENS,
                                            .find = find,
                                            .context = d});
    d->vocab_size = f->vocab_size;
    d->logits = malloc(f->vocab_size * sizeof *d->logits);
    if (!d->logits) fatal("out of memory");
}

static uint32_t next_cut(dump *d, uint32_t at) {
    const uint32_t last = d->program.layer_begin[d->program.layer_count];
    if (!d->random.seed || at + 1 >= last || rng_below(&d->random, 3) == 0) return d->program.op_count;
    return at + 1 + (uint32_t)rng_below(&d->random, last - at);
}

static void walk_chunk(dump *d, uint32_t rows) {
    const frame_place none = {NO_FRAME, 0}, place = {0, 0};
    walk_result       result;
    error             err;
    for (uint32_t at = 0, end; at < d->program.op_count; at = end) {
        end = next_cut(d, at);
        const slice s = {.id = 1,
                         .token_begin = d->done,
                         .token_end = d->done + rows,
                         .op_begin = at,
                         .op_end = end,
                         .frame_in = at ? place : none,
                         .frame_out = place,
                         .samples = end == d->program.op_count};
        if (walker_walk(d->walker, &(plan){.slice_count = 1, .slices = &s}, &result, &err) != OK) fatal("%s", err.text);
    }
    for (uint32_t i = 0; i < rows; i++) {
        if (device_cpu.read_logits(d->device, i, d->logits) != OK) fatal("logits of row %u cannot be read", i);
        if (fwrite(d->logits, sizeof(float), d->vocab_size, d->out) != d->vocab_size) fatal("cannot write the logits");
    }
    d->done += rows;
}

static void read_arguments(dump *d, int argc, char **argv) {
    if (argc < 7) fatal("usage: dump_logits MODEL OUT CHUNK SEED ISA ID...");
    d->chunk = (uint32_t)strtoul(argv[3], NULL, 10);
    d->random.seed = strtoull(argv[4], NULL, 10);
    d->count = (uint32_t)(argc - 6);
    if (d->count > TOKENS_MAX || d->chunk == 0 || d->chunk > CHUNK_MAX) fatal("too many tokens, or no such chunk");
    for (uint32_t i = 0; i < d->count; i++) d->tokens[i] = (uint32_t)strtoul(argv[6 + i], NULL, 10);
    for (uint32_t i = 0; i < TOKENS_MAX / PAGE_TOKENS; i++) d->pages[i] = TOKENS_MAX / PAGE_TOKENS - 1 - i;
    d->params = (sampling){.top_p = 1, .repetition_penalty = 1, .top_logprobs = -1};
}

int main(int argc, char **argv) {
    static dump d;
    checkpoint *model;
    error       err;
    read_arguments(&d, argc, argv);
    if (checkpoint_open(&model, argv[1], &err) != OK) fatal("%s", err.text);
    open_device(&d, model, argv[5]);
    d.out = fopen(argv[2], "wb");
    if (!d.out) fatal("cannot write %s", argv[2]);
    while (d.done < d.count) {
        const uint32_t left = d.count - d.done, most = left < d.chunk ? left : d.chunk;
        walk_chunk(&d, d.random.seed ? 1 + (uint32_t)rng_below(&d.random, most) : most);
    }
    if (fclose(d.out) != 0) fatal("cannot write %s", argv[2]);
    walker_free(d.walker);
    device_cpu.close(d.device);
    program_free(&d.program);
    checkpoint_close(model);
    free(d.logits);
    return 0;
}
