/* tests/fuzz/fuzz_template_data.c: the data of a template: any JSON object, through templates that walk it, print it, cut
 * it and compare it in every way there is. */
#include <string.h>

#include "base/json.h"
#include "models/template.h"

static const char *const sources[] = {
    "{% for m in messages %}<|{{ m.role }}|>{{ m['content'] }}{% for c in m.tool_calls %}{{ c.function.arguments|tojson "
    "}}{% endfor %}{% endfor %}",
    "{% for m in messages %}{{ m.content|trim }}{{ m.content[1:-1] }}{{ m.content[::-2] }}{{ m.role.split('a') }}{{ "
    "m|items|list }}{% endfor %}",
    "{{ messages|tojson(indent=2) }}{{ messages|string }}{{ tools|tojson(ensure_ascii=true, sort_keys=true) }}",
    "{{ messages|sort }}{{ messages|unique|list }}{{ messages|groupby('role') }}",
    "{% for a in messages %}{% for b in messages %}{{ a == b }}{{ a in messages }}{{ a.content ~ b.content }}{{ a.content + "
    "b.content }}{% endfor %}{% endfor %}",
    "{% for m in messages %}{% for f in ['upper', 'lower', 'title', 'capitalize', 'trim', 'e', 'urlencode', 'indent', "
    "'wordcount', 'reverse', 'int', 'float', 'length', 'list'] %}"
    "{{ [m.content]|map(f)|list }}{% endfor %}{% endfor %}",
    "{% for m in messages %}{{ m.content.split() }}{{ m.content.splitlines() }}{{ m.content.title() }}{{ "
    "m.content.casefold() }}"
    "{{ m.content.rsplit(none, 1) }}{{ m.content.find('a', 2) }}{{ m.content.center(20) }}{{ '%s' % m.content }}{{ "
    "m.content.format(1) }}{{ m.content % 1 }}{% endfor %}",
    "{% macro show(v, depth) %}{% if v is mapping %}{% for k, x in v.items() %}{{ k }}:{{ show(x, depth + 1) }}{% endfor "
    "%}{% elif v is string or v is not iterable %}"
    "{{ v }}{% else %}{% for x in v %}{{ loop.index }}{{ show(x, depth + 1) }}{% endfor %}{% endif %}{% endmacro %}{{ "
    "show(messages, 0) }}{{ show(tools, 0) }}",
    "{{ n + m }}{{ n * m }}{{ n // m }}{{ n % m }}{{ n ** m }}{{ n < m }}{{ n|round(2) }}{{ n|int }}{{ '%d %5.2f' % (n, m) "
    "}}{{ range(n) }}{{ x * n }}{{ x[n:m] }}",
};
enum { SOURCES = sizeof sources / sizeof *sources };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static template      *compiled[SOURCES];
    const template_limits limits = {.steps_max = 20000, .depth_max = 200, .output_max = 1 << 20};
    error                 err;
    cJSON                *context = json_parse((const char *)data, size, 64, &err);
    if (!context) return 0;
    for (int i = 0; i < SOURCES; i++) {
        buf out;
        if (!compiled[i] && template_compile(&compiled[i], sources[i], strlen(sources[i]), &err) != OK)
            fatal("%s", err.text);
        buf_init(&out, 1 << 20);
        template_render(compiled[i], context, 0, &limits, &out, &err);
        buf_free(&out);
    }
    cJSON_Delete(context);
    return 0;
}
