/* base/command_line.h: what a command with flags of its own does first: reads them, or answers --help. */
#pragma once
#include "base/options.h"

enum { COMMAND_WORDS_MAX = 2 };

typedef struct {
    /* filled in by the command */
    const char       *usage; /* printed above the flags by --help */
    const option_row *rows;  /* --help comes on top of them */
    size_t            row_count;
    void             *values;    /* that the rows' offsets point into */
    size_t            words_max; /* how many words it takes that are no flags; at most COMMAND_WORDS_MAX */
    /* read; words and strings among the values are the options' and argv's */
    const char *words[COMMAND_WORDS_MAX];
    size_t      word_count;
    bool        help; /* was asked for, and printed: nothing else is to be done */
    options    *options;
} command_line;

int  command_line_read(command_line *c, int argc, char **argv, error *err);
void command_line_free(command_line *c); /* whether or not it could be read */
