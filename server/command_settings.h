/* server/command_settings.h: the settings table together with a command's own flags, for commands that run a model once
 * (plan, generate) and take what serve takes. */
#pragma once
#include "server/settings.h"

typedef struct {
    /* filled in by the command */
    const option_row *own_rows;
    size_t            own_row_count;
    void             *own_values;
    const char       *usage; /* printed above the flags by --help */
    /* read */
    settings    values;
    const char *config;
    bool        help;
    options    *options;
} command_settings;

/* Reads flags and the file of --config, and finishes the settings. With --help it prints that and leaves c->help set. */
int  command_settings_read(command_settings *c, int argc, char **argv, error *err);
void command_settings_free(command_settings *c);
