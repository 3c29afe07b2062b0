#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/json.h"

static _Atomic int  threshold_now = LOG_INFO;
static _Atomic bool json_now;

/* Set before there are threads. */
static int         log_fd = STDERR_FILENO;
static const char *log_path; /* NULL: standard error */

static const char *const level_names[] = {"error", "warn", "info", "debug"};
static const int         syslog_priority[] = {3, 4, 6, 7};

void log_set_threshold(log_level threshold) { atomic_store(&threshold_now, (int)threshold); }

void log_configure(log_level threshold, bool json) {
    log_set_threshold(threshold);
    atomic_store(&json_now, json);
}

log_level log_threshold(void) { return (log_level)atomic_load_explicit(&threshold_now, memory_order_relaxed); }
bool      log_enabled(log_level level) { return level <= log_threshold(); }

static int open_file(const char *path, error *err) {
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0640);
    return fd >= 0 ? fd : error_set(err, ERR_IO, "the log file %s cannot be written: %s", path, strerror(errno));
}

int log_open(const char *path, error *err) {
    int fd = open_file(path, err);
    if (fd < 0) return fd;
    log_fd = fd, log_path = path;
    return OK;
}

/* The number stays the same, so that no thread writes to a descriptor that is being closed. */
int log_reopen(error *err) {
    if (!log_path) return OK;
    int fd = open_file(log_path, err);
    if (fd < 0) return fd;
    int moved = dup3(fd, log_fd, O_CLOEXEC);
    close(fd);
    return moved >= 0 ? OK : error_set(err, ERR_IO, "the log file %s cannot be opened anew: %s", log_path, strerror(errno));
}

/* JOURNAL_STREAM is DEVICE:INODE of the stream that the journal reads; a shell in between may have redirected ours. */
static bool is_journal(void) {
    static _Atomic int known; /* 0: not looked yet, else 1 + answer */
    int                answer = atomic_load_explicit(&known, memory_order_relaxed);
    if (answer) return answer - 1;
    const char        *text = getenv("JOURNAL_STREAM");
    unsigned long long device, inode;
    struct stat        facts;
    answer = text && sscanf(text, "%llu:%llu", &device, &inode) == 2 && fstat(STDERR_FILENO, &facts) == 0 &&
             facts.st_dev == device && facts.st_ino == inode;
    atomic_store_explicit(&known, 1 + answer, memory_order_relaxed);
    return answer;
}

static void stamp(char out[40]) {
    struct timespec now;
    struct tm       parts;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &parts);
    size_t n = strftime(out, 32, "%Y-%m-%dT%H:%M:%S", &parts);
    snprintf(out + n, 40 - n, ".%03ldZ", now.tv_nsec / 1000000);
}

/* A line break that a client sent must not begin a line of ours. */
static void append_visible(buf *line, const char *text) {
    for (; *text; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7F) buf_printf(line, "\\x%02x", (unsigned char)*text);
        else buf_char(line, *text);
    buf_char(line, '\n');
}

void log_object(log_level level, const char *subsystem, const char *text, const char *json_members) {
    if (!log_enabled(level)) return;
    char when[40];
    buf  line;
    buf_init(&line, 64 << 10);
    stamp(when);
    bool to_journal = !log_path && is_journal(), json = atomic_load_explicit(&json_now, memory_order_relaxed);
    if (to_journal) buf_printf(&line, "<%d>", syslog_priority[level]);
    if (json) {
        buf_printf(&line, "{\"time\":\"%s\",\"level\":\"%s\",\"subsystem\":\"%s\",\"message\":", when, level_names[level],
                   subsystem);
        json_quote(&line, text, strlen(text));
        if (json_members && *json_members) buf_char(&line, ','), buf_str(&line, json_members);
        buf_str(&line, "}\n");
    } else if (to_journal) {
        buf_printf(&line, "%s: ", subsystem);
        append_visible(&line, text);
    } else {
        buf_printf(&line, "%s %-5s %s: ", when, level_names[level], subsystem);
        append_visible(&line, text);
    }
    if (line.size && write(log_fd, line.data, line.size) < 0) { /* nowhere left to complain */
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
