/* server/cmd_serve.c: `penstock serve`. */
#include "server/commands.h"

int cmd_serve(int argc, char **argv) {
    (void)argc, (void)argv;
    error err;
    error_set(&err, ERR_UNSUPPORTED, "the HTTP server is not part of this build yet");
    return command_failed("serve", &err);
}
