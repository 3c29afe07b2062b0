/* server/cmd_render.c: `penstock render`, a chat template applied to contexts from standard input, for comparing with the
 * reference library: what is rendered is the context as it stands, without the normalization that the daemon does. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/json.h"
#include "base/log.h"
#include "models/chat.h"
#include "server/commands.h"

enum { CONTEXT_DEPTH_MAX = 200, RENDERED_BYTES_MAX = 64 << 20 };

typedef struct {
    const char *dir, *template_file, *now;
    bool        jsonl;
    int64_t     now_unix_s;
} render_options;

static int print_help(void) {
    puts("Usage: penstock render (--model DIR | --chat-template FILE) [--now TIME] --jsonl\n\n"
         "Each line of standard input is one template context, a JSON object with messages, tools, add_generation_prompt\n"
         "and any other variables. Each line of the answer is the rendered text as a JSON string, or {\"error\": "
         "\"...\"}.\n\n"
         "  --model DIR           a folder with tokenizer_config.json or chat_template.jinja; bos_token and eos_token\n"
         "                        come from here where the context does not name them\n"
         "  --chat-template FILE  a template to use instead\n"
         "  --now TIME            what strftime_now sees: Unix seconds or \"YYYY-MM-DD HH:MM:SS\" in UTC\n"
         "  --jsonl               one JSON object a line, the only form there is");
    return 0;
}

static int read_time(render_options *o, error *err) {
    struct tm   t = {0};
    char       *end;
    const char *rest = strptime(o->now, "%Y-%m-%d %H:%M:%S", &t);
    o->now_unix_s = strtoll(o->now, &end, 10);
    if (rest && !*rest) o->now_unix_s = timegm(&t);
    else if (end == o->now || *end)
        return error_set(err, ERR_USAGE, "--now '%s' is neither Unix seconds nor \"YYYY-MM-DD HH:MM:SS\"", o->now);
    return OK;
}

static int read_options(render_options *o, int argc, char **argv, error *err) {
    struct {
        const char  *flag;
        const char **value;
    } valued[] = {{"--model", &o->dir}, {"--chat-template", &o->template_file}, {"--now", &o->now}};
    for (int i = 1; i < argc; i++) {
        const char **value = NULL;
        for (size_t k = 0; k < sizeof valued / sizeof *valued; k++)
            if (strcmp(argv[i], valued[k].flag) == 0) value = valued[k].value;
        if (value && i + 1 < argc) *value = argv[++i];
        else if (strcmp(argv[i], "--jsonl") == 0) o->jsonl = true;
        else
            return error_set(err, ERR_USAGE,
                             value ? "'%s' needs a value" : "there is no option '%s'; `penstock help render` lists them",
                             argv[i]);
    }
    if (!o->jsonl) return error_set(err, ERR_USAGE, "--jsonl is needed: one JSON object a line");
    if (!o->dir && !o->template_file) return error_set(err, ERR_USAGE, "--model DIR or --chat-template FILE is needed");
    o->now_unix_s = time(NULL);
    return o->now ? read_time(o, err) : OK;
}

static int render_line(const chat_format *c, const char *line, size_t n, int64_t now_unix_s, buf *out, error *err) {
    cJSON *context = json_parse(line, n, CONTEXT_DEPTH_MAX, err);
    if (!context) return err->code;
    int code = cJSON_IsObject(context) ? chat_apply(c, context, now_unix_s, out, err)
                                       : error_set(err, ERR_INVALID, "a context must be a JSON object");
    cJSON_Delete(context);
    return code;
}

static void render_lines(const chat_format *c, int64_t now_unix_s) {
    char   *line = NULL;
    size_t  room = 0;
    ssize_t n;
    buf     rendered, answer;
    error   err;
    buf_init(&rendered, RENDERED_BYTES_MAX);
    buf_init(&answer, SIZE_MAX / 2);
    while ((n = getline(&line, &room, stdin)) > 0) {
        if (line[n - 1] == '\n') n--;
        if (n == 0) continue;
        buf_clear(&rendered), buf_clear(&answer);
        if (render_line(c, line, (size_t)n, now_unix_s, &rendered, &err) == OK) {
            json_quote(&answer, rendered.data ? rendered.data : "", rendered.size);
        } else {
            buf_str(&answer, "{\"error\": ");
            json_quote(&answer, err.text, strlen(err.text));
            buf_char(&answer, '}');
        }
        puts(answer.data);
        fflush(stdout);
    }
    free(line);
    buf_free(&rendered);
    buf_free(&answer);
}

int cmd_render(int argc, char **argv) {
    error          err;
    render_options o = {0};
    chat_format   *c;
    if (argc == 2 && strcmp(argv[1], "--help") == 0) return print_help();
    log_configure(LOG_ERROR, false); /* a folder without a template is told in one sentence, below */
    if (read_options(&o, argc, argv, &err) != OK || chat_format_open(&c, o.dir, o.template_file, &err) != OK)
        return command_failed(argv[0], &err);
    if (!chat_format_has_template(c)) {
        chat_format_close(c);
        error_set(&err, ERR_NOT_FOUND, "'%s' has no chat template; give one with --chat-template FILE", o.dir);
        return command_failed(argv[0], &err);
    }
    render_lines(c, o.now_unix_s);
    chat_format_close(c);
    return 0;
}
