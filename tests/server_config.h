/* tests/server_config.h: a configuration for tests of the server: the daemon's usual limits, and any free port. */
#pragma once
#include "server/server.h"

static const server_config test_server_config = {
    .host = "127.0.0.1",
    .port = 0,
    .connections_max = 1024,
    .connections_per_address = 1024,
    .requests_per_connection = 1000000,
    .request_line_max_bytes = 8 << 10,
    .headers_max_bytes = 32 << 10,
    .headers_max_count = 256,
    .body_max_bytes = 8 << 20,
    .head_timeout_us = 10 * 1000000ull,
    .body_timeout_us = 10 * 1000000ull,
    .body_rate_min_bytes_s = 1000,
    .idle_timeout_us = 75 * 1000000ull,
    .write_stall_us = 30 * 1000000ull,
    .write_buffer_max_bytes = 1 << 20,
    .keepalive_comment_us = 15 * 1000000ull,
    .drain_us = 30 * 1000000ull,
    .stall_us = 60 * 1000000ull,
    .choices_max = 128,
    .worker_body_bytes = 16 << 10,
};
