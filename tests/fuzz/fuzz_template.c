/* tests/fuzz/fuzz_template.c: a template's source, compiled and rendered with a small conversation. */
#include <string.h>

#include "base/json.h"
#include "models/template.h"

static const char context_json[] =
    "{\"messages\":[{\"role\":\"system\",\"content\":\"Be brief.\"},{\"role\":\"user\",\"content\":\"H\xC3\xA9llo <b>\"},"
    "{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"c1\",\"function\":{\"name\":\"f\",\"arguments\":{"
    "\"k\":[1,2.5,true]}}}]}],"
    "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{\"type\":\"object\",\"properties\":{}}}}"
    "],"
    "\"add_generation_prompt\":true,\"bos_token\":\"<s>\",\"n\":3,\"x\":\"abc\",\"d\":{\"b\":1,\"a\":2},\"l\":[3,1,2]}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static cJSON         *context;
    const template_limits limits = {.steps_max = 20000, .depth_max = 200, .output_max = 1 << 20};
    template             *t;
    error                 err;
    if (!context) context = json_parse(context_json, sizeof context_json - 1, 32, NULL);
    if (template_compile(&t, (const char *)data, size, &err) != OK) return 0;
    buf out;
    buf_init(&out, 1 << 20);
    template_render(t, context, 1741944413, &limits, &out, &err);
    buf_free(&out);
    template_free(t);
    return 0;
}
