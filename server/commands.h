/* server/commands.h: the program's commands. One row of the table in main.c, one function in a cmd_*.c.
 *
 * A command gets argv with its own name first, writes its answer to stdout and its trouble to stderr as one sentence, and
 * returns the exit status of the process (error_exit_status). It answers --help by itself: `penstock help NAME` is
 * `penstock NAME --help`. */
#pragma once
#include "base/error.h"

typedef struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help; /* one line */
} command;

int cmd_serve(int argc, char **argv);
int cmd_render(int argc, char **argv);
int cmd_inspect(int argc, char **argv);
int cmd_plan(int argc, char **argv);
int cmd_generate(int argc, char **argv);
int cmd_tokenize(int argc, char **argv);
int cmd_key(int argc, char **argv);
int cmd_admin(int argc, char **argv);

/* Prints "penstock NAME: sentence" to stderr and returns the exit status that goes with it. */
int command_failed(const char *name, const error *err);
