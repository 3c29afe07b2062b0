/* server/main.c: the command line's first word chooses what the program does. */
#include <stdio.h>
#include <string.h>

#include "base/version.h"
#include "server/commands.h"

static const command commands[] = {
    {"serve", cmd_serve, "answer the OpenAI API over HTTP"},
    {"key", cmd_key, "make an API key, and the line that admits it"},
    {"admin", cmd_admin, "ask a running daemon, or tell it what to do"},
    {"generate", cmd_generate, "answer one prompt on the terminal, and say how fast"},
    {"plan", cmd_plan, "say where the memory would go and whether it fits"},
    {"render", cmd_render, "apply a chat template to contexts, one JSON object a line"},
    {"inspect", cmd_inspect, "say what a checkpoint is: sizes, tensors, bytes"},
    {"tokenize", cmd_tokenize, "turn text into token ids, and back"},
};
enum { COMMAND_COUNT = sizeof commands / sizeof *commands };

int command_failed(const char *name, const error *err) {
    fprintf(stderr, "penstock %s: %s\n", name, err->text);
    return error_exit_status(err->code);
}

static const command *command_find(const char *name) {
    for (int i = 0; i < COMMAND_COUNT; i++)
        if (strcmp(commands[i].name, name) == 0) return &commands[i];
    return NULL;
}

static void print_usage(FILE *out) {
    fputs("Penstock " PENSTOCK_VERSION " serves large language models over an OpenAI-compatible HTTP API.\n\n"
          "Usage: penstock COMMAND [options]\n\n",
          out);
    for (int i = 0; i < COMMAND_COUNT; i++) fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].help);
    fputs("\n`penstock help COMMAND` says more about one of them; `penstock --version` prints the version.\n", out);
}

static int unknown_command(const char *name) {
    fprintf(stderr, "penstock: there is no command '%s'; `penstock --help` lists what there is\n", name);
    return error_exit_status(ERR_USAGE);
}

static int help(const char *name) {
    const command *c = command_find(name);
    if (!c) return unknown_command(name);
    char  flag[] = "--help";
    char *argv[] = {(char *)c->name, flag, NULL};
    return c->run(2, argv);
}

int main(int argc, char **argv) {
    const char *word = argc > 1 ? argv[1] : NULL;
    if (!word) return print_usage(stderr), error_exit_status(ERR_USAGE);
    if (strcmp(word, "--version") == 0) return puts("penstock " PENSTOCK_VERSION), 0;
    if (strcmp(word, "help") == 0 && argc > 2) return help(argv[2]);
    if (strcmp(word, "help") == 0 || strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) return print_usage(stdout), 0;
    const command *c = command_find(word);
    return c ? c->run(argc - 1, argv + 1) : unknown_command(word);
}
