#include "base/command_line.h"

#include <stdio.h>

static const option_row help_row = {NULL, "help", OPTION_BOOL, offsetof(command_line, help), 0,    0,
                                    NULL, NULL,   NULL,        "print this, and stop",       false};

static void print_help(const command_line *c) {
    buf text;
    buf_init(&text, 1 << 20);
    buf_str(&text, c->usage);
    options_help(c->options, &text, NULL, 0);
    fputs(text.data, stdout);
    buf_free(&text);
}

int command_line_read(command_line *c, int argc, char **argv, error *err) {
    const char *words[COMMAND_WORDS_MAX + 1];
    check(c->words_max <= COMMAND_WORDS_MAX);
    c->options = options_new(c->rows, c->row_count, c->values);
    options_add(c->options, &help_row, 1, c);
    int code = options_read_args(c->options, argc, argv, words, c->words_max + (c->words_max == 0), &c->word_count, err);
    if (code != OK) return code;
    if (c->word_count > c->words_max)
        return error_set(err, ERR_USAGE, "'%s' is not a flag; flags are written --name VALUE", words[0]);
    for (size_t i = 0; i < c->word_count; i++) c->words[i] = words[i];
    if (c->help) print_help(c);
    return OK;
}

void command_line_free(command_line *c) { options_free(c->options); }
