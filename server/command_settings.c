#include "server/command_settings.h"

#include <stdio.h>

static const option_row shared_rows[] = {
    {NULL, "config", OPTION_STRING, offsetof(command_settings, config), 0, 0, NULL, NULL, "FILE",
     "read settings from this file; flags win over it", false},
    {NULL, "help", OPTION_BOOL, offsetof(command_settings, help), 0, 0, NULL, NULL, NULL, "print this, and stop", false},
};

enum { SHARED_ROWS = sizeof shared_rows / sizeof *shared_rows };

static void print_help(const command_settings *c) {
    buf text;
    buf_init(&text, 1 << 20);
    buf_str(&text, c->usage);
    options_help(c->options, &text, settings_engine_sections, SETTINGS_ENGINE_SECTIONS);
    fputs(text.data, stdout);
    buf_free(&text);
}

int command_settings_read(command_settings *c, int argc, char **argv, error *err) {
    const char *rest[1];
    size_t      rest_count;
    c->options = options_new(shared_rows, SHARED_ROWS, c);
    options_add(c->options, settings_rows, settings_row_count, &c->values);
    if (c->own_row_count) options_add(c->options, c->own_rows, c->own_row_count, c->own_values);
    int code = options_read_args(c->options, argc, argv, rest, 1, &rest_count, err);
    if (code != OK) return code;
    if (rest_count) return error_set(err, ERR_USAGE, "'%s' is not a flag; flags are written --name VALUE", rest[0]);
    if (c->help) return print_help(c), OK;
    if (c->config) code = settings_read_file(c->options, c->config, err);
    if (code == OK) code = settings_finish(&c->values, err);
    if (code == OK) settings_apply_log(&c->values);
    return code;
}

void command_settings_free(command_settings *c) { options_free(c->options); }
