/* server/params.h: the body of a request as a struct: one table says what each endpoint takes.
 *
 * A row holds a parameter's name, its type, range and default and where it goes; the validator, the sentences of its errors,
 * the docs page and the generated tests read the same rows. What cannot be said in a row (a prompt's four forms, a stop that
 * is a string or a list) has a shape of its own (params_shapes.c); what needs two parameters at once is a rule at the end of
 * params.c.
 *
 * Unknown members are accepted and counted, as OpenAI's clients and agents send private ones. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/json.h"
#include "engine/engine.h"
#include "server/fault.h"
#include "server/stop.h"

typedef enum { ENDPOINT_CHAT = 1, ENDPOINT_COMPLETION = 2, ENDPOINT_TOKENIZE = 4, ENDPOINT_DETOKENIZE = 8 } endpoint;

enum { STOP_IDS_MAX = 16, CHOICES_LIMIT = 128, BODY_DEPTH_MAX = 64, BODY_VALUES_MAX = 1000000, UNKNOWN_NAMED_MAX = 8 };
enum { DAY_MS = 86400000, SLO_MS_MAX = DAY_MS };
#define SLO_MS_MIN 0.001

/* What a request wants of time; negative: not said. */
typedef struct {
    double ttft_ms, tbt_ms, deadline_ms, job_deadline_ms, value;
} slo_params;

typedef struct {
    double  temperature, top_p, min_p, frequency_penalty, presence_penalty, repetition_penalty; /* negative: the model's */
    int64_t top_k; /* -2: the model's; -1, 0: all */
    int64_t seed;
    bool    has_seed;
    int64_t max_tokens, max_completion_tokens;                     /* -1: not given */
    int64_t min_tokens, n, best_of, top_logprobs, legacy_logprobs; /* -1: not given */
    int64_t priority;
    int64_t prompt_logprobs; /* -1: not given */
    int64_t truncate_prompt; /* -1: what fits; -2: not given */
    bool stream, echo, logprobs, ignore_eos, include_stop, skip_special, return_token_ids, return_timings, include_reasoning,
        add_special, generation_prompt, token_strings, parallel_tool_calls, store;
    slo_params slo;
    double     expected_gap_ms, ttl_ms; /* negative: not given */
    bool       last_step;
    bool       include_usage, usage_each, obfuscation; /* stream_options */
    bool       has_stream_options;

    stop_set  stops;
    uint32_t  stop_ids[STOP_IDS_MAX], stop_id_count;
    uint32_t *bias_ids; /* owned; [bias_count] */
    float    *bias_values;
    uint32_t  bias_count;

    const char *model, *user, *safety_identifier, *cache_salt, *session, *job, *cache_key, *retention, *tool, *service_tier,
        *truncation_side, *request_id, *reasoning_effort;                             /* into the parsed body; NULL */
    const cJSON *messages, *prompt, *tokens, *template_kwargs, *documents, *metadata; /* likewise */

    uint32_t unknown_count;
    char     unknown_names[44 * UNKNOWN_NAMED_MAX];
} request_params;

typedef enum { PARAM_BOOL, PARAM_INT, PARAM_NUMBER, PARAM_STRING, PARAM_OTHER, PARAM_IGNORED, PARAM_REFUSED } param_kind;

typedef struct param_shape param_shape; /* params_shapes.h */

typedef struct param_row {
    const char        *name;
    uint8_t            endpoints; /* that take it */
    uint8_t            required;  /* that need it */
    param_kind         kind;
    double             min, max; /* of a number; of a string's length in bytes */
    double             fallback; /* the default of a BOOL, INT or NUMBER */
    size_t             offset;
    const param_shape *shape; /* of an OTHER */
    const char        *help;  /* one line; for REFUSED: the sentence of the refusal */
} param_row;

extern const param_row param_rows[];
extern const uint32_t  param_row_count;

/* Checks a parsed body and fills *p, which points into it. 0, or -1 with *f set. params_free in both cases. `strict`: a
 * parameter that nobody knows is a mistake. */
int  params_read(request_params *p, const cJSON *body, endpoint e, bool strict, fault *f);
void params_free(request_params *p);

/* Text of a body to JSON; a fault where it is not an object, is too deep, holds a name twice in one object, or more values
 * than a request can need. */
cJSON *params_parse_body(const char *text, size_t n, fault *f);
