/* bench/sse_server.c: a stream server that costs little, to see what penstock-bench replay itself can take.
 * usage: sse_server PORT [MILLISECONDS_BETWEEN_TOKENS [STREAMS_BEFORE_THE_FIRST_TOKEN]]
 * docs/replay.md says how it is used and what came of it. */
#include "tests/fake_sse_server.h"

int main(int argc, char **argv) {
    uint16_t port = (uint16_t)(argc > 1 ? atoi(argv[1]) : 18091);
    if (argc > 2) fake_sse.interval_ms = (uint32_t)atoi(argv[2]);
    if (argc > 3) fake_sse.gate = (uint32_t)atoi(argv[3]);
    printf("http://127.0.0.1:%u\n", fake_sse_listen(port));
    fflush(stdout);
    fake_sse_serve();
    return 0;
}
