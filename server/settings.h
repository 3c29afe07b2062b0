/* server/settings.h: everything a person can set, in one table.
 *
 * `penstock serve` reads all of it; `plan` and `generate` use the same rows for the model and the engine.
 * docs/configuration.md is printed from them (docs.h). */
#pragma once
#include "base/options.h"
#include "engine/engine.h"
#include "server/server.h"

typedef struct {
    server_config server;
    engine_config engine; /* the policies below are filled in by settings_finish */
    const char   *order, *admission, *slicing, *slicing_budget, *preemption, *reclaim, *retention;
    const char   *log_level, *log_format, *log_file;
} settings;

extern const option_row  settings_rows[];
extern const size_t      settings_row_count;
extern const char *const settings_engine_sections[]; /* "model", "engine", "scheduler": what other commands take too */
enum { SETTINGS_ENGINE_SECTIONS = 3 };

/* Names of policies made into values, and what cannot be checked row by row. After the files and flags were read. */
int settings_finish(settings *s, error *err);

/* options_read_file, whose trouble is one of the configuration (exit status 78), whatever it is about. */
int settings_read_file(options *o, const char *path, error *err);

/* What only a daemon asks of its settings: a key file that can be read, and no address open to the world by mistake. */
int settings_check_serving(const settings *s, error *err);

/* Applies log-level and log-format (base/log.h). */
void        settings_apply_log(const settings *s);
const char *settings_log_level_name(void); /* in force */
int         settings_set_log_level(const char *word, error *err);
