/* base/error.h: what went wrong, for a person and for a program.
 *
 * Three kinds of trouble have three answers (docs/architecture.md): a bug in this program is an `assert` or
 * `fatal()` and stops the process; a bad environment at start is one sentence and an exit status; trouble of one
 * request is a code that travels back to that client. This header serves the last two.
 *
 * A function that can fail returns an int: 0 (OK) or one of the negative codes below, and writes one sentence into
 * the caller's `error`: what was wrong, with which value, and what to do about it. `err` may be NULL. */
#pragma once
#include <stdarg.h>

/* code, exit status of the process when it is the reason to stop (those of sysexits.h where one fits), name, what the
 * status tells an operator; docs/configuration.md is printed from it. */
#define ERROR_CODES(X)                                                                                                      \
    X(OK, 0, "ok", "done; of the daemon: drained after SIGTERM or SIGINT")                                                  \
    X(ERR_CANCELLED, 1, "cancelled", "given up half-way")                                                                   \
    X(ERR_USAGE, 64, "usage", "the command line")                                                                           \
    X(ERR_INVALID, 65, "invalid", "a model or another input is damaged or out of range")                                    \
    X(ERR_TOO_LARGE, 65, "too_large", "")                                                                                   \
    X(ERR_NOT_FOUND, 66, "not_found", "a model or another file is not there")                                               \
    X(ERR_UNSUPPORTED, 69, "unsupported", "a model, or something else well formed, that this build does not do")            \
    X(ERR_DEVICE, 70, "device", "the compute device failed, or its self-test did")                                          \
    X(ERR_MEMORY, 71, "memory", "the memory that was asked for is not to be had")                                           \
    X(ERR_ADDRESS, 73, "address", "an address cannot be listened on: in use, not this machine's, or not permitted")         \
    X(ERR_IO, 74, "io", "the operating system refused a read or a write")                                                   \
    X(ERR_FULL, 75, "full", "a bounded resource is used up; later it may not be")                                           \
    X(ERR_CONFIG, 78, "config", "the configuration file, the key file, or settings that contradict each other")

enum error_code {
    OK = 0,
    ERR_INVALID = -1,
    ERR_UNSUPPORTED = -2,
    ERR_NOT_FOUND = -3,
    ERR_TOO_LARGE = -4,
    ERR_FULL = -5,
    ERR_MEMORY = -6,
    ERR_IO = -7,
    ERR_DEVICE = -8,
    ERR_CANCELLED = -9,
    ERR_USAGE = -10,
    ERR_CONFIG = -11,
    ERR_ADDRESS = -12,
};

typedef struct {
    int  code;
    char text[512]; /* one sentence, NUL-terminated, valid UTF-8 even where the offending bytes were not */
} error;

/* Fills *err (if any) and returns `code`, so that a failing function can end in `return error_set(...)`. */
int error_set(error *err, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Puts "what: " in front of the sentence; returns err->code. For adding the file name on the way up. */
int error_prefix(error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

const char *error_name(int code);
int         error_exit_status(int code);

/* A broken invariant: prints the sentence with its place and aborts. */
_Noreturn void fatal_at(const char *file, int line, const char *format, ...) __attribute__((format(printf, 3, 4)));
#define fatal(...) fatal_at(__FILE__, __LINE__, __VA_ARGS__)

/* Assertion that stays in release builds; for the thinking leg's invariants. */
#define check(condition)                                                                                                    \
    do {                                                                                                                    \
        if (__builtin_expect(!(condition), 0)) fatal("broken invariant: %s", #condition);                                   \
    } while (0)
