/* penstock-bench: the command line's first word chooses what is measured. */
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/version.h"
#include "bench/commands.h"

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help;
} commands[] = {
    {"calibrate", cmd_calibrate, "measure this machine's operators, so that compare can model it"},
    {"compare", cmd_compare, "play a trace through the scheduler under a virtual clock, once for each of several settings"},
    {"replay", cmd_replay, "play a trace against a server, and report latency, throughput and goodput"},
};
enum { COMMAND_COUNT = sizeof commands / sizeof *commands };

static int run(const char *name, int argc, char **argv) {
    for (int i = 0; i < COMMAND_COUNT; i++)
        if (strcmp(commands[i].name, name) == 0) return commands[i].run(argc, argv);
    fprintf(stderr, "penstock-bench: there is no command '%s'; `penstock-bench --help` lists what there is\n", name);
    return error_exit_status(ERR_USAGE);
}

static void print_usage(FILE *out) {
    fputs("Penstock's benches (" PENSTOCK_VERSION "), for any server that speaks the OpenAI API.\n\n"
          "Usage: penstock-bench COMMAND [options]\n\n",
          out);
    for (int i = 0; i < COMMAND_COUNT; i++) fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].help);
    fputs("\n`penstock-bench help COMMAND` says more about one of them; docs/replay.md defines every figure.\n", out);
}

int main(int argc, char **argv) {
    const char *word = argc > 1 ? argv[1] : NULL;
    if (!word) return print_usage(stderr), error_exit_status(ERR_USAGE);
    if (strcmp(word, "--version") == 0) return puts("penstock-bench " PENSTOCK_VERSION), 0;
    if (strcmp(word, "help") == 0 && argc > 2) return run(argv[2], 2, (char *[]){argv[2], (char *)"--help", NULL});
    if (strcmp(word, "help") == 0 || strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) return print_usage(stdout), 0;
    return run(word, argc - 1, argv + 1);
}
