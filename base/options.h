/* base/options.h: settings as rows of one table.
 *
 * A row gives the flag (--batch-tokens-max), the key in the file (batch-tokens-max = ..., in its [section]), the range
 * check, the line in --help, and the page in docs/. Values come from, in rising order: the row's default, the file, the
 * command line; each remembers where it came from. The file is INI in the style of systemd's own (libinih). */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"

typedef enum {
    OPTION_BOOL,     /* bool; --name, --no-name, name = yes|no|true|false|on|off */
    OPTION_U32,      /* uint32_t in [min, max] */
    OPTION_I32,      /* int32_t in [min, max] */
    OPTION_U64_SIZE, /* uint64_t bytes: 512M, 2GiB, 1.5G */
    OPTION_F64,      /* double in [min, max] */
    OPTION_STRING,   /* const char *, owned by the options; "" and NULL are kept apart only by the default */
    OPTION_CHOICE,   /* const char *, one of `choices` ("auto|cpu|cuda|sim") */
    OPTION_DURATION  /* uint64_t microseconds: 250ms, 30s, 5min; min and max in seconds */
} option_kind;

typedef struct {
    const char *section; /* of the file; NULL: a flag only (--check), in no file, dump or docs page */
    const char *name;
    option_kind kind;
    size_t      offset;       /* of the field in the settings struct */
    double      min, max;     /* both 0: no bounds beyond the kind's own */
    const char *default_text; /* parsed like any other value; NULL: none (0, NULL, false) */
    const char *choices;
    const char *argument;   /* how --help names the value: "DIR", "N", "SIZE" */
    const char *help;       /* one line */
    bool        reloadable; /* SIGHUP may change it */
} option_row;

typedef struct options options;

/* `settings` is the struct the rows' offsets point into; filled with defaults. Both outlive the options. */
options *options_new(const option_row *rows, size_t row_count, void *settings);
void     options_free(options *o);
/* Rows of a second table with a struct of its own: what one command takes beside the settings all share. */
void options_add(options *o, const option_row *rows, size_t row_count, void *settings);

int options_read_file(options *o, const char *path, error *err); /* whole file or nothing; names file and line */
int options_read_text(options *o, const char *path, const char *text, size_t n, error *err); /* `path` for sentences */
/* Consumes --name VALUE, --name=VALUE, --no-name from argv[1..argc); the words that are left over (all of them after
 * "--") go to rest[0..*rest_count). The command line wins over a file, whichever is read first. */
int options_read_args(options *o, int argc, char **argv, const char **rest, size_t rest_max, size_t *rest_count, error *err);

void options_help(const options *o, buf *out, const char *const *sections, size_t section_count); /* NULL: all */
void options_dump(const options *o, buf *out);     /* key = value   # default | file:line | command line; a valid file */
void options_markdown(const options *o, buf *out); /* the page in docs/configuration.md */

/* What `fresh` (made of the same tables) has otherwise: reloadable rows are taken over, the others only told (applied:
 * false). NULL stands for no value. Returns how many were told. `fresh` is not needed afterwards. */
typedef void (*options_change)(void *context, const option_row *row, const char *from, const char *to, bool applied);
uint32_t options_reload(options *o, const options *fresh, options_change told, void *context);

bool options_was_set(const options *o, const char *name);

/* Which word of "a|b|c" the value is (a choice that was read is always one of them): enums in the order of the words. */
int option_choice_index(const char *choices, const char *value);
