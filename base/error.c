#include "base/error.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/utf8.h"

static const struct {
    int         code, exit_status;
    const char *name;
} codes[] = {
#define ROW(code, status, name, what) {code, status, name},
    ERROR_CODES(ROW)
#undef ROW
};

int error_set(error *err, int code, const char *format, ...) {
    if (!err) return code;
    err->code = code;
    va_list args;
    va_start(args, format);
    vsnprintf(err->text, sizeof err->text, format, args);
    va_end(args);
    utf8_sanitize(err->text);
    return code;
}

int error_prefix(error *err, const char *format, ...) {
    if (!err) return ERR_INVALID;
    char    old[sizeof err->text], prefix[sizeof err->text / 2];
    va_list args;
    va_start(args, format);
    vsnprintf(prefix, sizeof prefix, format, args);
    va_end(args);
    memcpy(old, err->text, sizeof old);
    int used = snprintf(err->text, sizeof err->text, "%s: ", prefix);
    snprintf(err->text + used, sizeof err->text - (size_t)used, "%s", old);
    utf8_sanitize(err->text);
    return err->code;
}

const char *error_name(int code) {
    for (unsigned i = 0; i < sizeof codes / sizeof *codes; i++)
        if (codes[i].code == code) return codes[i].name;
    return "unknown";
}

int error_exit_status(int code) {
    for (unsigned i = 0; i < sizeof codes / sizeof *codes; i++)
        if (codes[i].code == code) return codes[i].exit_status;
    return 70;
}

void fatal_at(const char *file, int line, const char *format, ...) {
    fprintf(stderr, "penstock: fatal at %s:%d: ", file, line);
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    fflush(stderr);
    log_flush(LOG_FLUSH_MS); /* what led to it */
    abort();
}
