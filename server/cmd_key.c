/* server/cmd_key.c: `penstock key NAME`: makes an API key, or takes one, and prints the line that admits it (keys.h). */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/command_line.h"
#include "server/commands.h"
#include "server/keys.h"

typedef struct {
    bool stdin_key;
} key_flags;

static const option_row flag_rows[] = {
    {NULL, "stdin", OPTION_BOOL, offsetof(key_flags, stdin_key), 0, 0, NULL, NULL, NULL,
     "read the key from standard input instead of making one", false},
};

static const char usage[] =
    "Usage: penstock key NAME [--stdin] >> KEYFILE\n\n"
    "Makes an API key. The line for the key file (serve --api-keys) goes to standard output; the key itself, which is\n"
    "kept nowhere, to standard error. The line may be given limits: docs/configuration.md lists them.\n";

/* One line, without its end. */
static int read_key(char *out, size_t size, size_t *n, error *err) {
    if (!fgets(out, (int)size, stdin)) return error_set(err, ERR_INVALID, "there is no key on standard input");
    *n = strcspn(out, "\r\n");
    if (!out[*n] && *n == size - 1) return error_set(err, ERR_TOO_LARGE, "the key is longer than %zu bytes", size - 2);
    return OK;
}

static int make(const char *name, bool from_stdin, error *err) {
    char   key[1024];
    size_t n = 0;
    buf    line;
    buf_init(&line, 1024);
    keys_init();
    int code = OK;
    if (from_stdin) code = read_key(key, sizeof key, &n, err);
    else key_make(key), n = strlen(key);
    if (code == OK) code = key_line(name, key, n, &line, err);
    if (code == OK && !from_stdin) fprintf(stderr, "%s\n", key);
    if (code == OK) fputs(line.data, stdout);
    buf_free(&line);
    return code;
}

int cmd_key(int argc, char **argv) {
    key_flags    flags = {0};
    command_line line = {.usage = usage,
                         .rows = flag_rows,
                         .row_count = sizeof flag_rows / sizeof *flag_rows,
                         .values = &flags,
                         .words_max = 1};
    error        err;
    int          code = command_line_read(&line, argc, argv, &err);
    if (code == OK && !line.help)
        code = line.word_count ? make(line.words[0], flags.stdin_key, &err)
                               : error_set(&err, ERR_USAGE, "whose key is it? penstock key NAME >> KEYFILE");
    command_line_free(&line);
    return code == OK ? 0 : command_failed("key", &err);
}
