#include "server/docs.h"

#include <stdio.h>
#include <string.h>

#include "server/keys.h"
#include "server/openapi.h"
#include "server/settings.h"

static void write_key_file(buf *out) {
    buf_str(out,
            "\n## Key file\n\n"
            "`api-keys` names a file with one tenant a line: a name, its keys, and what differs from the defaults. `#` "
            "begins a\n"
            "comment. Keys are kept as SHA-256 digests: `penstock key alice >> FILE` makes a key, shows it once, and "
            "appends its\n"
            "line; several keys on a line let one replace the other. `anyone` in place of a key admits requests without a "
            "key, or\n"
            "with one that is nobody's.\n\n"
            "    alice  sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08  weight=2 concurrency=8\n"
            "    guest  anyone  concurrency=1 priority=100\n\n");
    keys_markdown(out);
}

/* Codes that share a status are told by the first of them. */
static void write_exit_statuses(buf *out) {
    static const struct {
        int         status;
        const char *what;
    } rows[] = {
#define ROW(code, status, name, what) {status, what},
        ERROR_CODES(ROW)
#undef ROW
            {130, "SIGINT came a second time while draining, which ends the daemon at once (128 + 2)"},
        {134, "the daemon found itself broken, or the watchdog found it stuck: SIGABRT, with a core where cores are kept"},
        {143, "SIGTERM came a second time while draining (128 + 15)"},
    };
    buf_str(out, "\n## Exit statuses\n\n| status | cause |\n|---|---|\n");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (*rows[i].what) buf_printf(out, "| %d | %s |\n", rows[i].status, rows[i].what);
}

/* Each axis is chosen alone; these are the exceptions. */
static void write_combinations(buf *out) {
    uint32_t                     count;
    const scheduler_combination *all = scheduler_combinations(&count);
    buf_str(out,
            "\n## Combinations\n\n"
            "Each setting of `[scheduler]` is chosen alone, and every combination starts but for these, which come from\n"
            "`scheduler/combinations.c`. Who is refused gets the sentence and exit status 78; a doubt is a warning in the "
            "log.\n\n"
            "| together | | why |\n|---|---|---|\n");
    for (uint32_t i = 0; i < count; i++)
        buf_printf(out, "| %s | %s | %s |\n", all[i].choices, all[i].refused ? "refused" : "doubted", all[i].sentence);
}

void docs_configuration(buf *out) {
    settings s = {0};
    options *o = options_new(settings_rows, settings_row_count, &s);
    buf_str(out,
            "# Configuration\n\n"
            "Printed by `make docs` from the table in `server/settings.c`; edit that, not this.\n\n"
            "Each setting is a flag, `--port 8080`, and a line in a file, `port = 8080` under its `[section]`, read with\n"
            "`penstock serve --config FILE`. A flag wins over the file, the file over the default. Yes-or-no settings are\n"
            "also written `--name` and `--no-name`. Sizes take K, M, G, T (powers of 1024); times take us, ms, s, min, h.\n"
            "`--check` reads everything and stops; `--dump-config` prints each value with where it came from, as a file\n"
            "that can be read back.\n");
    options_markdown(o, out);
    options_free(o);
    write_combinations(out);
    write_key_file(out);
    write_exit_statuses(out);
}

void docs_print(const char *page, buf *out) {
    static void (*const write[])(buf *) = {docs_configuration, docs_api, docs_metrics, openapi_write};
    write[option_choice_index(DOCS_PAGES, page)](out);
}
