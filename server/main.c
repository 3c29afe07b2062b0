/* server/main.c: the command line's first word chooses what the program does. */
#include <stdio.h>
#include <string.h>

#include "base/error.h"

int main(int argc, char **argv) {
    (void)argv;
    fprintf(stderr, "penstock: %s\n", argc > 1 ? "unknown command" : "no command");
    return error_exit_status(ERR_USAGE);
}
