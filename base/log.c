#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/json.h"

static struct {
    log_level threshold;
    bool      json;
} settings = {LOG_INFO, false}; /* set once in main, before the first thread; read-only afterwards */

static const char *const level_names[] = {"error", "warn", "info", "debug"};
static const int         syslog_priority[] = {3, 4, 6, 7};

void log_configure(log_level threshold, bool json) {
    settings.threshold = threshold;
    settings.json = json;
}

bool log_enabled(log_level level) { return level <= settings.threshold; }

static void stamp(char out[40]) {
    struct timespec now;
    struct tm       parts;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &parts);
    size_t n = strftime(out, 32, "%Y-%m-%dT%H:%M:%S", &parts);
    snprintf(out + n, 40 - n, ".%03ldZ", now.tv_nsec / 1000000);
}

void log_object(log_level level, const char *subsystem, const char *text, const char *json_members) {
    if (!log_enabled(level)) return;
    char when[40];
    buf  line;
    buf_init(&line, 64 << 10);
    stamp(when);
    if (settings.json) {
        buf_printf(&line, "{\"time\":\"%s\",\"level\":\"%s\",\"subsystem\":\"%s\",\"message\":", when, level_names[level],
                   subsystem);
        json_quote(&line, text, strlen(text));
        if (json_members && *json_members) buf_char(&line, ','), buf_str(&line, json_members);
        buf_str(&line, "}\n");
    } else if (getenv("JOURNAL_STREAM")) {
        buf_printf(&line, "<%d>%s: %s\n", syslog_priority[level], subsystem, text);
    } else {
        buf_printf(&line, "%s %-5s %s: %s\n", when, level_names[level], subsystem, text);
    }
    if (line.size && write(STDERR_FILENO, line.data, line.size) < 0) { /* nowhere left to complain */
    }
    buf_free(&line);
}

void log_line(log_level level, const char *subsystem, const char *format, ...) {
    if (!log_enabled(level)) return;
    char    text[2048];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    log_object(level, subsystem, text, NULL);
}
