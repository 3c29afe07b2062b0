/* engine/device.h: the one table of functions: what runs operators over rows. cpu, cuda and sim live in one binary.
 *
 * A device holds weights, KV pages, row buffers and frames, all taken at open from the memory plan. It is used by one
 * thread (the engine's) and knows no policy: it is told which rows, which operator, which pages. The walker (walk.c) owns
 * the order of calls:
 *
 *     for each run of operators with the same rows:   load_rows / move_rows   bring rows in from frames, close gaps
 *                                                     bind                    describes the rows
 *                                                     run_op ...              one call per operator
 *                                                     save_rows               rows that leave before the end
 *     collect                                         waits, and reads what was sampled
 *
 * Between passes pages may be copied to host memory and back; copies overlap with passes unless a pass awaits one.
 *
 * Numbers do not depend on the neighbour: a row's result is the same bit for bit whatever other rows are in the batch and
 * wherever its prompt was cut (docs/architecture.md, section on numbers). */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/program.h"
#include "kvcache/page_copy.h"
#include "models/checkpoint.h"

enum { TOP_LOGPROBS_MAX = 20, LOGIT_BIAS_MAX = 1024, BANNED_MAX = MODEL_EOS_MAX + 16 };

typedef struct {
    float           temperature; /* 0: greedy; ties go to the lower id */
    uint32_t        top_k;       /* 0: all */
    float           top_p, min_p;
    float           repetition_penalty, frequency_penalty, presence_penalty; /* 1, 0, 0: off */
    uint64_t        seed;
    uint32_t        bias_count;
    const uint32_t *bias_ids; /* request memory */
    const float    *bias_values;
    int8_t top_logprobs; /* -1: no log-probabilities at all; 0..TOP_LOGPROBS_MAX alternatives beside the chosen one */
} sampling;

/* One run of consecutive tokens of one sequence among the rows of a batch. */
typedef struct {
    uint32_t        row_begin, row_count;
    uint32_t        position_begin; /* of its first row in the sequence */
    const uint32_t *tokens;         /* [row_count] ids, read by OP_EMBED only */
    const uint32_t *pages;          /* page ids that hold positions [0, ...) of the sequence, its own rows' included */
    uint32_t        page_count;
    uint32_t        slot;
} batch_run;

/* A row whose next token is drawn, or, where it is known, only asked how likely it was. */
typedef struct {
    uint32_t        row;
    const sampling *params;
    const uint32_t *history; /* prompt, then generated tokens (for penalties) */
    uint32_t        prompt_count, history_count;
    uint32_t        banned[BANNED_MAX]; /* ids that may not be drawn here (end of sequence before min_tokens) */
    uint32_t        banned_count;
    bool            scores; /* nothing is drawn: the result is history[history_count] and its log-probability */
} batch_output;

typedef struct {
    uint32_t            row_count, run_count, output_count;
    const batch_run    *runs;
    const batch_output *outputs; /* in order of row */
} batch;

typedef struct {
    uint32_t token;
    float    logprob; /* of the token, from the distribution before temperature and cuts (as OpenAI's); valid if asked for */
    uint32_t rank;    /* 1: the likeliest; 0: not asked for, as by every row that is drawn */
    uint32_t top_count; /* alternatives, best first */
    uint32_t top_ids[TOP_LOGPROBS_MAX];
    float    top_logprobs[TOP_LOGPROBS_MAX];
    bool     corrupt; /* a logit was NaN: the sequence must fail */
} sampled;

typedef struct {
    uint32_t    threads;     /* cpu: workers, this thread included; 0: as many as CPUs allowed */
    uint32_t    rows_max;    /* rows of one batch */
    uint32_t    outputs_max; /* sampled rows of one batch */
    uint32_t    page_count, page_tokens;
    uint32_t    host_pages; /* pages of host memory that pages may be copied to; 0: none, and nothing is ever copied */
    uint32_t    copies_max; /* begun and not yet told by copies_done */
    uint32_t    frame_count, frame_rows;
    uint32_t    context_max;
    bool        map_weights;     /* cpu: use the mapped file instead of repacking into huge pages (small memory, slower) */
    const char *isa;             /* cpu: "auto", "avx512", "avx2", "plain" */
    const char *sim_hardware;    /* sim: a row of its hardware table */
    const char *sim_calibration; /* sim: a file of measurements in place of the row's; NULL: none */
    bool        sim_realtime;    /* sim: sleep for the costed time (in the daemon) instead of only counting it */
    void (*progress)(void *context, const char *what, uint64_t done_bytes,
                     uint64_t total_bytes); /* while loading; may be NULL */
    void *progress_context;
} device_config;

/* Rows of the memory plan (penstock plan). */
typedef struct {
    const char *name;      /* "weights", "KV pages", "frames", "row buffers", "workspace", "host pages" */
    bool        on_device; /* false: host memory beside the device's (for cpu everything is host memory: all true) */
    uint64_t    bytes;
} memory_row;
enum { MEMORY_ROWS_MAX = 16 };
typedef struct {
    memory_row rows[MEMORY_ROWS_MAX];
    uint32_t   row_count;
    uint64_t   page_bytes;      /* of one KV page over all layers */
    uint64_t   available_bytes; /* what the device has for us, 0: unknown */
} memory_plan;

typedef struct device device;
typedef struct {
    uint64_t id;
    bool     ok; /* false: nothing is taken to have been written */
} copied_page;
typedef struct {
    uint64_t passes, rows;
    uint64_t weight_bytes, expert_bytes; /* read so far: expert weights counted per pass by experts touched */
    uint64_t op_ns[OP_KIND_COUNT];       /* time inside operators (cpu: wall; sim: costed) */
} device_stats;

typedef struct {
    const char *name; /* "cpu" */
    /* Why this device can or cannot run here, in one sentence; used by --device auto. */
    bool (*available)(char *why, size_t why_size);
    /* Fills bytes for these facts and sizes, without opening anything. */
    int (*plan_memory)(const model_facts *f, const program *p, const device_config *c, memory_plan *out, error *err);
    int (*open)(device **out, const checkpoint *c, const program *p, const device_config *config, error *err);
    void (*close)(device *d);
    int (*bind)(device *d, const batch *b, error *err); /* the rows of the calls that follow */
    /* Over all bound rows; the last three over the outputs: they leave X as it is, and may run again for others. */
    int (*run_op)(device *d, uint32_t op_index, error *err);
    int (*save_rows)(device *d, uint16_t live, uint32_t row, uint32_t count, uint32_t frame, uint32_t frame_row);
    int (*load_rows)(device *d, uint16_t live, uint32_t row, uint32_t count, uint32_t frame, uint32_t frame_row);
    int (*move_rows)(device *d, uint16_t live, uint32_t from_row, uint32_t to_row,
                     uint32_t count);                    /* to <= from; may overlap */
    int (*collect)(device *d, sampled *out, error *err); /* [output_count] of the last bind */
    /* Begins the copies, each after what ran so far, and returns without waiting. */
    int (*copy_pages)(device *d, const page_copy *copies, uint32_t count, error *err);
    int (*await_copy)(device *d, uint64_t id, error *err); /* what runs from now on begins after it */
    /* Copies that are over and were not told of; returns how many, at most `max`. wait: only once there is one, of those
     * that were begun. */
    uint32_t (*copies_done)(device *d, bool wait, copied_page *out, uint32_t max);
    int (*read_logits)(device *d, uint32_t output, float *out); /* [vocab] of the last batch, before penalties */
    void (*read_stats)(const device *d, device_stats *out);
    uint64_t (*now_us)(const device *d); /* any thread; sim: its virtual clock; others: the monotonic clock */
} device_api;

extern const device_api device_cpu, device_sim, device_cuda;
/* "cpu", "sim", "cuda", "auto". Writes the reason for the choice (auto) or the refusal. NULL: not available. */
const device_api *device_find(const char *name, char *why, size_t why_size);
/* For devices: whether a batch is one, and its tokens are in the vocabulary. */
int device_check_batch(const device_config *c, const batch *b, error *err);
int device_check_tokens(const batch_run *runs, uint32_t run_count, uint32_t vocab_size, error *err);
/* Where the environment asks for faults (device_faulty.c), puts a device that has them around *api. ERR_USAGE: an order that
 * cannot be read. For tests. */
int device_misbehave(const device_api **api, error *err);
