/* server/params_shapes.h: parameters whose form a row of numbers cannot say (a prompt's four forms, a stop that is a string
 * or a list): a reader each, and the same in the words of JSON Schema, for /openapi.json and the tests made from it. */
#pragma once
#include "server/params.h"

struct param_shape {
    int (*read)(request_params *p, const cJSON *value, const param_row *row, fault *f);
    const char *schema; /* what `read` takes, null aside; may be wider where a schema cannot say it */
};

extern const param_shape shape_bias, shape_documents, shape_empty_list, shape_kv_transfer, shape_messages, shape_metadata,
    shape_modalities, shape_never, shape_prompt, shape_response_format, shape_retention, shape_seed, shape_service_tier,
    shape_slo, shape_stop, shape_stop_ids, shape_stream_options, shape_template_kwargs, shape_text, shape_tokens,
    shape_tool_choice, shape_truncation_side;

/* ---- what the generic readers of params.c use as well ---- */
int param_wrong_type(fault *f, const char *param, const char *wanted);
/* A number that is a whole one within [min, max]. */
int param_check_whole(const cJSON *value, double min, double max, const char *param, fault *f);
int param_check_number(const cJSON *value, double min, double max, const char *param, fault *f);
