/* models/template.h: an interpreter for the Jinja that chat templates are written in.
 *
 * Templates come with checkpoints, so they are outside input: steps, depth, and bytes of output are bounded, and a
 * template can reach nothing but its own variables. Behaviour follows Jinja2 3.1 as the `transformers` library sets it
 * up: trim_blocks, lstrip_blocks, loop controls, tojson without HTML escapes, raise_exception, strftime_now. */
#pragma once
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"
#include "base/json.h"

typedef struct template template;

typedef struct {
    uint64_t steps_max;  /* evaluation steps in one rendering */
    uint32_t depth_max;  /* nesting of expressions, calls and macros */
    uint64_t output_max; /* bytes of output, and of all strings made on the way */
} template_limits;
extern const template_limits template_limits_default;

/* Compiles source[0..n). A syntax error names its line. */
int  template_compile(template **out, const char *source, size_t n, error *err);
void template_free(template *t);

/* Renders with the members of `context` (a JSON object) as variables; the order of object members is kept.
 * now_unix_s: what strftime_now sees (local time zone UTC). Thread-safe on one compiled template.
 * raise_exception gives ERR_INVALID and its message; errors of evaluation name the line. */
int template_render(const template *t, const cJSON *context, int64_t now_unix_s, const template_limits *limits, buf *out,
                    error *err);
