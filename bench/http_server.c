/* bench/http_server.c: the daemon's HTTP leg over an engine that costs nothing, to measure and to shake the leg alone.
 * usage: http_server PORT [STEP_US [REQUESTS_MAX]] */
#include <stdio.h>

#include "base/log.h"
#include "server/server.h"
#include "tests/fake_engine.h"
#include "tests/server_config.h"

int main(int argc, char **argv) {
    server_config c = test_server_config;
    engine_config ec = {.model = "fake", .device = "fake"};
    error         err = {0};
    c.port = argc > 1 ? (uint32_t)atoi(argv[1]) : 18090;
    if (argc > 2) fake.step_us = (uint32_t)atoi(argv[2]);
    if (argc > 3) fake.requests_max = (uint32_t)atoi(argv[3]);
    if (getenv("FAKE_EOS_AFTER")) fake.eos_after = (uint32_t)atoi(getenv("FAKE_EOS_AFTER"));
    if (getenv("FAKE_FAIL_AFTER")) fake.fail_after = (uint32_t)atoi(getenv("FAKE_FAIL_AFTER"));
    if (getenv("FAKE_SCRIPT")) fake.script = getenv("FAKE_SCRIPT");
    log_configure(getenv("FAKE_QUIET") ? LOG_WARN : LOG_INFO, getenv("FAKE_JSON") != NULL);
    int code = server_run(&c, &ec, &err);
    if (code != OK) fprintf(stderr, "http_server: %s\n", err.text);
    return error_exit_status(code);
}
