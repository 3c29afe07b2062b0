/* server/cmd_generate.c: `penstock generate`: one answer on the terminal as it comes, then one line of figures; and the
 * smallest bench there is (random: models, synthetic prompts, several streams at once). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/rng.h"
#include "models/chat.h"
#include "server/command_settings.h"
#include "server/commands.h"
#include "server/read_probe.h"

enum { EVENTS_MAX = 256, STREAMS_MAX = 4096, TEXT_BYTES_MAX = 64 << 20 };

typedef struct {
    const char *prompt, *system;
    bool        chat, ignore_eos, jsonl_stats;
    uint32_t    max_tokens, top_k, prompt_tokens, streams, seed;
    double      temperature, top_p, min_p;
} generate_flags;

#define AT(field) offsetof(generate_flags, field)
static const option_row flag_rows[] = {
    {NULL, "prompt", OPTION_STRING, AT(prompt), 0, 0, NULL, NULL, "TEXT", "what the model is to continue or answer", false},
    {NULL, "chat", OPTION_BOOL, AT(chat), 0, 0, "no", NULL, NULL, "ask through the model's chat template", false},
    {NULL, "system", OPTION_STRING, AT(system), 0, 0, NULL, NULL, "TEXT", "system message, with --chat", false},
    {NULL, "max-tokens", OPTION_U32, AT(max_tokens), 1, 16777216, "128", NULL, "N", "longest answer", false},
    {NULL, "temperature", OPTION_F64, AT(temperature), 0, 100, NULL, NULL, "T",
     "0: always the likeliest token; the model's own setting if not given, like the next three", false},
    {NULL, "top-p", OPTION_F64, AT(top_p), 0, 1, NULL, NULL, "P", "only the likeliest tokens up to this share", false},
    {NULL, "top-k", OPTION_U32, AT(top_k), 0, 4294967295.0, NULL, NULL, "K", "only the K likeliest tokens; 0: all", false},
    {NULL, "min-p", OPTION_F64, AT(min_p), 0, 1, NULL, NULL, "P",
     "only tokens at least this likely, relative to the likeliest", false},
    {NULL, "seed", OPTION_U32, AT(seed), 0, 4294967295.0, "0", NULL, "S", "same seed, same answer", false},
    {NULL, "ignore-eos", OPTION_BOOL, AT(ignore_eos), 0, 0, "no", NULL, NULL, "go on to --max-tokens whatever comes", false},
    {NULL, "prompt-tokens", OPTION_U32, AT(prompt_tokens), 0, 16777216, "0", NULL, "N",
     "a made-up prompt of N token ids instead of --prompt; the answer is printed as ids where there is no tokenizer", false},
    {NULL, "streams", OPTION_U32, AT(streams), 1, STREAMS_MAX, "1", NULL, "N",
     "ask N times at once (seeds S, S+1, ...; made-up prompts differ); the first answer is printed", false},
    {NULL, "jsonl-stats", OPTION_BOOL, AT(jsonl_stats), 0, 0, "no", NULL, NULL, "the figures as a JSON object", false},
};
#undef AT

typedef struct {
    command_settings settings;
    generate_flags   flags;
    tokenizer       *tokenizer; /* NULL: ids are printed */
    chat_format     *chat;
    detokenizer      text;
    token_ids        prompt;
    engine          *engine;
    /* heard */
    uint32_t        unfinished, silent;       /* streams; those without a first token */
    uint64_t        steady_ns, steady_tokens; /* since every stream had its first token */
    uint64_t        begin_us, prefilled_us;   /* first admission to last first token */
    uint64_t        prompt_tokens;            /* computed, not found in the cache */
    uint64_t        output_tokens;
    uint64_t        last_ns;
    engine_snapshot steady;
    finish_reason   reason;
    const char     *message;
} generation;

/* ---- the prompt ---- */

static int open_tokenizer(generation *g, error *err) {
    const char *model = g->settings.values.engine.model;
    model_facts facts; /* a model that is not supported is the first thing to say */
    int         code = strncmp(model, "random:", 7) ? facts_read(&facts, model, err) : OK;
    if (code != OK) return code;
    if (!tokenizer_exists(model)) {
        if (g->flags.prompt_tokens) return OK;
        return error_set(err, ERR_USAGE, "%s has no tokenizer; give it a made-up prompt with --prompt-tokens N", model);
    }
    code = tokenizer_open(&g->tokenizer, model, err);
    if (code == OK && g->flags.chat) code = chat_format_open(&g->chat, model, g->settings.values.server.chat_template, err);
    if (code != OK) return code;
    detokenizer_init(&g->text, g->tokenizer, false);
    if (!g->flags.chat) detokenizer_continue(&g->text);
    return OK;
}

static void add_message(cJSON *messages, const char *role, const char *content) {
    cJSON *message = cJSON_CreateObject();
    cJSON_AddStringToObject(message, "role", role);
    cJSON_AddStringToObject(message, "content", content);
    cJSON_AddItemToArray(messages, message);
}

static int encode_chat(generation *g, error *err) {
    cJSON *context = cJSON_CreateObject(), *messages = cJSON_AddArrayToObject(context, "messages");
    if (g->flags.system) add_message(messages, "system", g->flags.system);
    add_message(messages, "user", g->flags.prompt);
    cJSON_AddTrueToObject(context, "add_generation_prompt");
    const int code = chat_encode(g->chat, g->tokenizer, context, time(NULL), &g->prompt, err);
    cJSON_Delete(context);
    return code;
}

static int make_prompt(generation *g, error *err) {
    const generate_flags *f = &g->flags;
    if (f->prompt_tokens) return OK;
    if (!f->prompt) return error_set(err, ERR_USAGE, "no prompt was given; write --prompt TEXT");
    const int code = f->chat ? encode_chat(g, err)
                             : tokenizer_encode(g->tokenizer, f->prompt, strlen(f->prompt), TOKENIZE_BOS, &g->prompt, err);
    if (code == OK && g->prompt.count == 0) return error_set(err, ERR_INVALID, "the prompt has no tokens");
    return code;
}

static uint32_t prompt_count(const generation *g) {
    return g->flags.prompt_tokens ? g->flags.prompt_tokens : (uint32_t)g->prompt.count;
}

/* Made-up prompts are drawn per stream, clear of the special tokens that vocabularies begin and end with. */
static uint32_t *copy_prompt(const generation *g, uint32_t stream) {
    const uint32_t n = prompt_count(g), vocab = engine_facts(g->engine)->vocab_size;
    uint32_t      *ids = malloc(n * sizeof *ids);
    if (!ids) fatal("out of memory for a prompt of %u tokens", n);
    for (uint32_t i = 0; i < n; i++)
        ids[i] = g->flags.prompt_tokens ? (uint32_t)(vocab / 8 + rng_u64(stream, 0, i) % (vocab / 2 + 1)) : g->prompt.ids[i];
    return ids;
}

/* ---- asking ---- */

/* The flag if it was given, else the model's own setting if it has one, else `otherwise`. */
static double choose(const generation *g, const char *flag, double given, double models, double otherwise) {
    if (options_was_set(g->settings.options, flag)) return given;
    return models >= 0 ? models : otherwise;
}

static sampling choose_sampling(const generation *g, uint32_t stream) {
    const generate_flags *f = &g->flags;
    const model_facts    *m = engine_facts(g->engine);
    return (sampling){.temperature = (float)choose(g, "temperature", f->temperature, m->default_temperature, 1),
                      .top_p = (float)choose(g, "top-p", f->top_p, m->default_top_p, 1),
                      .top_k = (uint32_t)choose(g, "top-k", f->top_k, m->default_top_k, 0),
                      .min_p = (float)choose(g, "min-p", f->min_p, m->default_min_p, 0),
                      .repetition_penalty = m->default_repetition_penalty > 0 ? m->default_repetition_penalty : 1,
                      .seed = f->seed + (uint64_t)stream,
                      .top_logprobs = -1};
}

static int submit_all(generation *g, error *err) {
    g->begin_us = UINT64_MAX;
    for (uint32_t i = 0; i < g->flags.streams; i++) {
        engine_request r = {.id = i,
                            .tokens = copy_prompt(g, i),
                            .prompt_tokens = prompt_count(g),
                            .output_tokens_max = g->flags.max_tokens,
                            .params = choose_sampling(g, i),
                            .ignore_eos = g->flags.ignore_eos};
        const int      code = engine_submit(g->engine, &r, err);
        if (code != OK) {
            free(r.tokens);
            return code;
        }
        g->unfinished++;
    }
    g->silent = g->unfinished;
    return OK;
}

/* No more memory than this command can use, unless told otherwise. */
static int fit_settings(generation *g, error *err) {
    engine_config    *c = &g->settings.values.engine;
    scheduler_config *s = &c->scheduler_settings;
    const uint64_t    context = (uint64_t)prompt_count(g) + g->flags.max_tokens;
    checkpoint       *model;
    if (s->running_max == 0) s->running_max = g->flags.streams < 64 ? g->flags.streams : 64;
    if (s->waiting_max == 0) s->waiting_max = g->flags.streams;
    if (c->context_max) return OK;
    const int code = checkpoint_open(&model, c->model, err);
    if (code != OK) return code;
    const uint32_t most = checkpoint_facts(model)->context_max;
    c->context_max = context < most ? (uint32_t)context : most;
    checkpoint_close(model);
    return OK;
}

/* ---- listening ---- */

static void print_token(generation *g, const engine_event *e) {
    if (e->id != 0 || !e->has_token || e->token_is_stop) return;
    if (!g->tokenizer) {
        printf("%u ", e->token.token);
    } else {
        buf piece;
        buf_init(&piece, TEXT_BYTES_MAX);
        detokenizer_feed(&g->text, e->token.token, &piece);
        fwrite(piece.data ? piece.data : "", 1, piece.size, stdout);
        buf_free(&piece);
    }
    fflush(stdout);
}

static void count_token(generation *g, const engine_event *e, uint64_t now_ns) {
    const request_ledger *l = &e->ledger;
    g->output_tokens += e->has_token;
    if (g->silent == 0) g->steady_tokens += e->has_token;
    g->last_ns = now_ns;
    if (l->output_tokens != 1 || !e->has_token) return;
    if (l->admitted_us < g->begin_us) g->begin_us = l->admitted_us;
    if (l->first_token_us > g->prefilled_us) g->prefilled_us = l->first_token_us;
    g->prompt_tokens += l->prompt_tokens - l->cached_tokens;
    if (--g->silent > 0) return;
    g->steady_ns = now_ns;
    engine_read_snapshot(g->engine, &g->steady);
}

static void listen(generation *g) {
    static engine_event events[EVENTS_MAX];
    while (g->unfinished > 0) {
        engine_wait(g->engine, 1000);
        const uint32_t n = engine_next(g->engine, events, EVENTS_MAX);
        const uint64_t now_ns = clock_ns();
        for (uint32_t i = 0; i < n; i++) {
            print_token(g, &events[i]);
            count_token(g, &events[i], now_ns);
            if (!events[i].finished) continue;
            g->unfinished--;
            g->reason = events[i].reason;
            if (events[i].reason == FINISH_ERROR) g->message = events[i].message;
        }
    }
    buf rest;
    buf_init(&rest, TEXT_BYTES_MAX);
    if (g->tokenizer) detokenizer_finish(&g->text, &rest);
    printf("%s\n", rest.data ? rest.data : "");
    buf_free(&rest);
}

/* ---- figures ---- */

typedef struct {
    double   prefill_tokens_per_s, decode_tokens_per_s, ms_per_token, bytes_per_step, step_s, host_share, host_us_per_step;
    double   read_bytes_per_s; /* of this machine, measured after the answer; 0: the device is not this machine */
    uint64_t digest;           /* XXH64 of the logits that the last token was drawn from */
} figures;

/* Of all rows of one decode step, halfway through the answers. */
static double kv_bytes_per_step(const generation *g) {
    const model_facts *f = engine_facts(g->engine);
    const uint32_t     context = prompt_count(g) + (uint32_t)(g->output_tokens / g->flags.streams / 2);
    program            p;
    double             bytes = 0;
    if (program_build(&p, f, program_activation(f), NULL) != OK) return 0;
    for (uint32_t l = 0; l < f->layer_count; l++) {
        const uint32_t window = f->sliding_window[l];
        bytes += (double)p.kv_row_bytes * (window && window < context ? window : context);
    }
    program_free(&p);
    return bytes * g->flags.streams;
}

static uint64_t op_ns(const device_stats *s) {
    uint64_t sum = 0;
    for (int i = 0; i < OP_KIND_COUNT; i++) sum += s->op_ns[i];
    return sum;
}

static void measure_decode(const generation *g, const engine_snapshot *end, figures *out) {
    const double   seconds = (double)(g->last_ns - g->steady_ns) * 1e-9;
    const uint64_t steps = end->passes_done - g->steady.passes_done;
    if (g->steady_tokens == 0 || steps == 0) return;
    const double host_ns = (double)(end->host_ns_total - g->steady.host_ns_total);
    out->decode_tokens_per_s = (double)g->steady_tokens / seconds;
    out->ms_per_token = 1e3 * seconds * g->flags.streams / (double)g->steady_tokens;
    out->step_s = seconds / (double)steps;
    out->bytes_per_step =
        (double)(end->device.weight_bytes - g->steady.device.weight_bytes) / (double)steps + kv_bytes_per_step(g);
    out->host_us_per_step = host_ns / (double)steps / 1e3;
    out->host_share = host_ns / (host_ns + (double)(op_ns(&end->device) - op_ns(&g->steady.device)));
}

static int measure(const generation *g, figures *out, error *err) {
    engine_snapshot end;
    const size_t    logits_bytes = engine_facts(g->engine)->vocab_size * sizeof(float);
    float          *logits = malloc(logits_bytes);
    if (!logits) fatal("out of memory for the logits");
    *out = (figures){0};
    if (engine_last_logits(g->engine, logits) == OK) out->digest = XXH64(logits, logits_bytes, 0);
    free(logits);
    if (g->message) return error_set(err, ERR_DEVICE, "%s", g->message);
    engine_read_snapshot(g->engine, &end);
    const double prefill_s = (double)(g->prefilled_us - g->begin_us) * 1e-6;
    out->prefill_tokens_per_s = prefill_s > 0 ? (double)g->prompt_tokens / prefill_s : 0;
    measure_decode(g, &end, out);
    if (out->step_s > 0 && strcmp(engine_device_name(g->engine), "cpu") == 0)
        out->read_bytes_per_s = read_probe_bytes_per_s(g->settings.values.engine.device_settings.threads);
    return OK;
}

static double bandwidth_share(const figures *f) {
    return f->read_bytes_per_s > 0 && f->step_s > 0 ? f->bytes_per_step / f->step_s / f->read_bytes_per_s : 0;
}

static void print_line(const generation *g, const figures *f) {
    printf("prompt %llu tokens, %.1f tokens/s; answer %llu tokens, %.1f tokens/s, %.2f ms/token",
           (unsigned long long)g->prompt_tokens, f->prefill_tokens_per_s, (unsigned long long)g->output_tokens,
           f->decode_tokens_per_s, f->ms_per_token);
    if (bandwidth_share(f) > 0)
        printf("; %.0f %% of the %.1f GB/s that this machine reads just now (%.1f MB a step)", 100 * bandwidth_share(f),
               f->read_bytes_per_s * 1e-9, f->bytes_per_step * 1e-6);
    printf("; host %.1f %%; digest %016llx\n", 100 * f->host_share, (unsigned long long)f->digest);
}

static void print_json(const generation *g, const figures *f) {
    printf("{\"device\":\"%s\",\"streams\":%u,\"prompt_tokens\":%llu,\"output_tokens\":%llu,\"prefill_tokens_per_s\":%.3f,"
           "\"decode_tokens_per_s\":%.3f,\"ms_per_token\":%.4f,\"step_ms\":%.4f,\"bytes_per_step\":%.0f,"
           "\"read_bytes_per_s\":%.0f,\"bandwidth_share\":%.4f,\"host_share\":%.5f,\"host_us_per_step\":%.2f,"
           "\"digest\":\"%016llx\"}\n",
           engine_device_name(g->engine), g->flags.streams, (unsigned long long)g->prompt_tokens,
           (unsigned long long)g->output_tokens, f->prefill_tokens_per_s, f->decode_tokens_per_s, f->ms_per_token,
           1e3 * f->step_s, f->bytes_per_step, f->read_bytes_per_s, bandwidth_share(f), f->host_share, f->host_us_per_step,
           (unsigned long long)f->digest);
}

/* ---- the command ---- */

static int generate(generation *g, error *err) {
    figures f;
    int     code = open_tokenizer(g, err);
    if (code == OK) code = make_prompt(g, err);
    if (code == OK) code = fit_settings(g, err);
    if (code == OK) code = engine_open(&g->engine, &g->settings.values.engine, err);
    if (code == OK) code = submit_all(g, err);
    if (code != OK) return code;
    listen(g);
    code = measure(g, &f, err);
    if (code != OK) return code;
    if (g->flags.jsonl_stats) print_json(g, &f);
    else print_line(g, &f);
    return OK;
}

int cmd_generate(int argc, char **argv) {
    error      err;
    generation g = {
        .settings = {.own_rows = flag_rows,
                     .own_row_count = sizeof flag_rows / sizeof *flag_rows,
                     .own_values = &g.flags,
                     .usage = "Usage: penstock generate --model DIR --prompt TEXT [options]\n\n"
                              "Answers once on the terminal, then prints one line: tokens a second of prompt and\n"
                              "answer, the share of this machine's memory bandwidth that this takes, the share of time\n"
                              "outside operators, and a hash of the last logits.\n"}};
    int code = command_settings_read(&g.settings, argc, argv, &err);
    if (code == OK && !g.settings.help) code = generate(&g, &err);
    engine_close(g.engine);
    tokenizer_close(g.tokenizer);
    chat_format_close(g.chat);
    token_ids_free(&g.prompt);
    command_settings_free(&g.settings);
    return code == OK ? 0 : command_failed(argv[0], &err);
}
