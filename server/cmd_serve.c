/* server/cmd_serve.c: `penstock serve`: reads the settings, then runs the daemon until it has drained. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "base/log.h"
#include "server/commands.h"
#include "server/docs.h"
#include "server/keys.h"
#include "server/settings.h"
#include "server/systemd.h"

typedef struct {
    const char *config, *print_docs;
    bool        check, dump_config, help;
} serve_flags;

static const option_row flag_rows[] = {
    {NULL, "config", OPTION_STRING, offsetof(serve_flags, config), 0, 0, NULL, NULL, "FILE",
     "read settings from this file; flags win over it", false},
    {NULL, "check", OPTION_BOOL, offsetof(serve_flags, check), 0, 0, NULL, NULL, NULL,
     "check the settings and whether the model fits into memory, and stop", false},
    {NULL, "dump-config", OPTION_BOOL, offsetof(serve_flags, dump_config), 0, 0, NULL, NULL, NULL,
     "print every setting with where its value came from, and stop", false},
    {NULL, "print-docs", OPTION_CHOICE, offsetof(serve_flags, print_docs), 0, 0, NULL, DOCS_PAGES, NULL,
     "print a page of docs/, and stop", false},
    {NULL, "help", OPTION_BOOL, offsetof(serve_flags, help), 0, 0, NULL, NULL, NULL, "print this, and stop", false},
};

static int read_settings(options *o, serve_flags *flags, int argc, char **argv, error *err) {
    const char *rest[1];
    size_t      rest_count;
    int         code = options_read_args(o, argc, argv, rest, 1, &rest_count, err);
    if (code != OK) return code;
    if (rest_count) return error_set(err, ERR_USAGE, "'%s' is not a flag; settings are written --name VALUE", rest[0]);
    return flags->config ? settings_read_file(o, flags->config, err) : OK;
}

/* ---- progress while the model is loaded: one line on a terminal, else a log line at each quarter ---- */

enum { SLOW_ENOUGH_BYTES = 64 << 20 }; /* less is loaded before anyone has read the line */

typedef struct {
    bool     terminal, in_line;
    unsigned percent, shown_percent;
} progress_display;

/* A service manager waits for as long as there is progress, and no longer. */
enum { LOADING_PATIENCE_S = 60 };
static void tell_manager(const char *what, unsigned percent) {
    systemd_notify("EXTEND_TIMEOUT_USEC=%d000000\nSTATUS=%s: %u %%", LOADING_PATIENCE_S, what, percent);
}

static void show_progress(void *context, const char *what, uint64_t done_bytes, uint64_t total_bytes) {
    progress_display *p = context;
    if (total_bytes < SLOW_ENOUGH_BYTES) return;
    unsigned percent = (unsigned)((double)done_bytes / (double)total_bytes * 100.5);
    unsigned step = p->terminal ? 1 : 25;
    if (percent > 100) percent = 100;
    if (percent != p->percent) tell_manager(what, percent), p->percent = percent;
    if (percent / step == p->shown_percent / step) return;
    p->shown_percent = percent;
    if (p->terminal) {
        p->in_line = percent < 100;
        fprintf(stderr, "\r%s: %3u %% of %.0f MiB%s", what, percent, (double)total_bytes / 0x1p20, p->in_line ? "" : "\n");
    } else {
        log_info("serve", "%s: %u %% of %.0f MiB", what, percent, (double)total_bytes / 0x1p20);
    }
}

/* A line to paste into a shell, where ' ends a quotation. */
static void append_for_shell(const char *text, buf *out) {
    for (; *text; text++)
        if (*text == '\'') buf_str(out, "'\\''");
        else buf_char(out, *text);
}

static void say_ready(void *context, const char *url, const char *model_name) {
    const settings *s = context;
    bool            has_text = strncmp(s->engine.model, "random:", 7) != 0; /* else token ids are all it knows */
    buf             name, quoted;
    bool            by_path = strncmp(url, "unix:", 5) == 0;
    buf_init(&name, 8192), buf_init(&quoted, 8192);
    json_quote(&name, model_name, strlen(model_name));
    append_for_shell(name.data, &quoted);
    printf(
        "Penstock serves %s at %s\nTry:\n  curl -s %s%s%s%s -H 'Content-Type: application/json' -d '{\"model\": %s, %s}'\n",
        name.data, url, by_path ? "--unix-socket " : "", by_path ? url + 5 : url, by_path ? " http://localhost" : "",
        has_text ? "/v1/chat/completions" : "/v1/completions", quoted.data,
        has_text ? "\"messages\": [{\"role\": \"user\", \"content\": \"Who are you?\"}]"
                 : "\"prompt\": [1, 2, 3], \"max_tokens\": 8");
    fflush(stdout);
    buf_free(&name), buf_free(&quoted);
}

/* ---- reload ---- */
typedef struct {
    options  *options; /* in force */
    settings *settings;
    int       argc;
    char    **argv;
} setting_source;

static options *make_options(serve_flags *flags, settings *s) {
    options *o = options_new(flag_rows, sizeof flag_rows / sizeof *flag_rows, flags);
    options_add(o, settings_rows, settings_row_count, s);
    return o;
}

static void say_change(void *said, const option_row *row, const char *from, const char *to, bool applied) {
    buf_printf(said, "%s: %s -> %s%s\n", row->name, from ? from : "none", to ? to : "none",
               applied ? "" : " needs a restart");
}

/* server_config.reload: the command line and the file once more, into settings of their own; then what changed goes over. */
static int reload(void *context, server_accept accept, void *accept_context, buf *said, error *err) {
    setting_source *source = context;
    settings        fresh = {0};
    serve_flags     flags = {0};
    options        *o = make_options(&flags, &fresh);
    int             code = read_settings(o, &flags, source->argc, source->argv, err);
    if (code == OK) code = settings_finish(&fresh, err);
    if (code == OK) code = accept(accept_context, &fresh.server, err);
    if (code == OK) {
        options_reload(source->options, o, say_change, said);
        settings_apply_log(source->settings);
    }
    options_free(o);
    return code;
}

static void describe(void *context, buf *out) { options_dump(((setting_source *)context)->options, out); }

static int serve(setting_source *source, error *err) {
    settings        *s = source->settings;
    progress_display progress = {.terminal = isatty(STDERR_FILENO)};
    s->engine.device_settings.progress = show_progress;
    s->engine.device_settings.progress_context = &progress;
    s->server.ready = say_ready, s->server.ready_context = s;
    s->server.reload = reload, s->server.describe = describe, s->server.reload_context = source;
    int code = server_run(&s->server, &s->engine, err);
    if (progress.in_line) fputc('\n', stderr);
    return code;
}

static void write_help(const options *o, buf *out) {
    buf_str(out,
            "Usage: penstock serve --model DIR [options]\n\n"
            "Answers the OpenAI API over HTTP until SIGTERM, then lets running requests finish. Settings are flags, or\n"
            "lines `name = value` under a [section] in the file given with --config; docs/configuration.md lists them.\n");
    options_help(o, out, NULL, 0);
}

static int print_and_free(buf *text) {
    fputs(text->data, stdout);
    buf_free(text);
    return 0;
}

static int print_text(void (*write)(const options *, buf *), const options *o) {
    buf text;
    buf_init(&text, 1 << 20);
    write(o, &text);
    return print_and_free(&text);
}

static int print_page(const char *page) {
    buf text;
    buf_init(&text, 1 << 20);
    docs_print(page, &text);
    return print_and_free(&text);
}

/* --check: the settings as such, and whether the model they name can be read and fits into memory. */
static int check_settings(settings *s, error *err) {
    checkpoint *model;
    memory_plan memory;
    int         code = settings_finish(s, err);
    if (code == OK) code = settings_check_serving(s, err);
    if (code == OK) code = checkpoint_open(&model, s->engine.model, err);
    if (code != OK) return code;
    code = engine_plan(&s->engine, model, &memory, err);
    checkpoint_close(model);
    if (code == OK) puts("the settings are valid and the model fits");
    return code;
}

static int run(options *o, settings *s, serve_flags *flags, int argc, char **argv) {
    error err;
    int   code = read_settings(o, flags, argc, argv, &err);
    if (code != OK) return command_failed("serve", &err);
    if (flags->help) return print_text(write_help, o);
    if (flags->print_docs) return print_page(flags->print_docs);
    if (flags->dump_config) return print_text(options_dump, o);
    if (flags->check) return check_settings(s, &err) == OK ? 0 : command_failed("serve", &err);
    settings_apply_log(s);
    code = settings_finish(s, &err);
    if (code == OK && s->log_file) code = log_open(s->log_file, &err);
    if (code == OK) code = settings_check_serving(s, &err);
    if (code == OK) log_start();
    if (code == OK) code = serve(&(setting_source){o, s, argc, argv}, &err);
    log_flush(LOG_FLUSH_MS); /* before the sentence that says how it ended */
    return code == OK ? 0 : command_failed("serve", &err);
}

int cmd_serve(int argc, char **argv) {
    keys_init();
    settings    s = {0};
    serve_flags flags = {0};
    options    *o = make_options(&flags, &s);
    int         status = run(o, &s, &flags, argc, argv);
    options_free(o);
    return status;
}
