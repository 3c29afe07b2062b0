/* A request's body: JSON to a struct, at the endpoint that the first byte chooses. What is accepted must be within the
 * ranges that the rest of the server relies on. */
#include <math.h>
#include <stdlib.h>

#include "server/params.h"

static void check_ranges(const request_params *p) {
    if (p->n < 1 || p->n > CHOICES_LIMIT || p->best_of > 20 || p->top_logprobs > TOP_LOGPROBS_MAX || p->legacy_logprobs > 5)
        abort();
    if (!isfinite(p->temperature) || !isfinite(p->top_p) || !isfinite(p->min_p) || !isfinite(p->repetition_penalty)) abort();
    if (p->stops.count > STOPS_MAX || p->stop_id_count > STOP_IDS_MAX || p->bias_count > LOGIT_BIAS_MAX) abort();
    if (p->max_tokens < -1 || p->max_tokens > 1 << 30 || p->min_tokens < 0) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    request_params p;
    fault          f = {0};
    buf            json;
    if (size < 1) return 0;
    endpoint e = (endpoint)(1u << data[0] % 4);
    cJSON   *body = params_parse_body((const char *)data + 1, size - 1, &f);
    if (body) {
        if (params_read(&p, body, e, data[0] & 4, &f) == 0) check_ranges(&p);
        params_free(&p);
        cJSON_Delete(body);
    }
    buf_init(&json, 1 << 20);
    fault_write(&f, &json);
    if (f.kind) { /* an error is always valid JSON itself */
        error  err;
        cJSON *back = json_parse(json.data, json.size, 8, &err);
        if (!back) abort();
        cJSON_Delete(back);
    }
    buf_free(&json);
    return 0;
}
