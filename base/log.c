#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
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
    if (fd < 0) return error_set(err, ERR_IO, "the log file %s cannot be written: %s", path, strerror(errno));
    return fd; // cppcheck-suppress resourceLeak
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

static void format_line(buf *line, log_level level, const char *subsystem, const char *text, const char *json_members) {
    char when[40];
    stamp(when);
    bool to_journal = !log_path && is_journal(), json = atomic_load_explicit(&json_now, memory_order_relaxed);
    if (to_journal) buf_printf(line, "<%d>", syslog_priority[level]);
    if (json) {
        buf_printf(line, "{\"time\":\"%s\",\"level\":\"%s\",\"subsystem\":\"%s\",\"message\":", when, level_names[level],
                   subsystem);
        json_quote(line, text, strlen(text));
        if (json_members && *json_members) buf_char(line, ','), buf_str(line, json_members);
        buf_str(line, "}\n");
    } else if (to_journal) {
        buf_printf(line, "%s: ", subsystem);
        append_visible(line, text);
    } else {
        buf_printf(line, "%s %-5s %s: ", when, level_names[level], subsystem);
        append_visible(line, text);
    }
}

/* Returns how many lines were lost because they cannot be written: there is nowhere left to complain. */
static uint64_t write_all(const char *bytes, size_t n) {
    uint64_t lost = 0;
    while (n) {
        ssize_t written = write(log_fd, bytes, n);
        if (written < 0 && errno == EINTR) continue;
        if (written < 0 && errno == EAGAIN && poll(&(struct pollfd){.fd = log_fd, .events = POLLOUT}, 1, -1) >= 0) continue;
        if (written < 0) break;
        bytes += written, n -= (size_t)written;
    }
    for (; n > 0; bytes++, n--) lost += *bytes == '\n';
    return lost;
}

/* ---- in the background ---- */

enum { WAITING_MAX_BYTES = 1 << 20 };

static struct {
    pthread_mutex_t lock; /* of all below; nothing is written under it */
    pthread_cond_t  filled, emptied;
    bool            runs, writes;
    buf             waiting;
    uint64_t        dropped, dropped_told; /* lines */
} out = {.lock = PTHREAD_MUTEX_INITIALIZER, .filled = PTHREAD_COND_INITIALIZER};

/* What lies there, and after it how much of it is missing. */
static void take_waiting(buf *taken) {
    buf      empty = *taken;
    uint64_t dropped = out.dropped - out.dropped_told;
    buf_clear(&empty);
    *taken = out.waiting, out.waiting = empty;
    out.dropped_told = out.dropped;
    if (!dropped) return;
    char text[160];
    snprintf(text, sizeof text,
             "%llu lines were dropped here: whoever reads the log did not keep up, or nothing could be written",
             (unsigned long long)dropped);
    taken->limit = 2 * WAITING_MAX_BYTES;
    format_line(taken, LOG_WARN, "log", text, NULL);
    taken->limit = WAITING_MAX_BYTES;
}

static void *write_for_ever(void *unused) {
    buf      taken;
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    pthread_setname_np(pthread_self(), "log");
    buf_init(&taken, WAITING_MAX_BYTES);
    pthread_mutex_lock(&out.lock);
    for (;;) {
        out.writes = false;
        pthread_cond_broadcast(&out.emptied);
        while (!out.waiting.size) pthread_cond_wait(&out.filled, &out.lock);
        take_waiting(&taken);
        out.writes = true;
        pthread_mutex_unlock(&out.lock);
        const uint64_t lost = write_all(taken.data, taken.size);
        pthread_mutex_lock(&out.lock);
        out.dropped += lost;
    }
    return unused;
}

void log_start(void) {
    pthread_condattr_t attributes;
    pthread_t          thread;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&out.emptied, &attributes);
    pthread_condattr_destroy(&attributes);
    buf_init(&out.waiting, WAITING_MAX_BYTES);
    if (pthread_create(&thread, NULL, write_for_ever, NULL) != 0) return; /* then whoever logs waits for it */
    pthread_detach(thread);
    pthread_mutex_lock(&out.lock);
    out.runs = true;
    pthread_mutex_unlock(&out.lock);
}

static struct timespec after_ms(clockid_t clock, unsigned ms) {
    struct timespec t;
    clock_gettime(clock, &t);
    t.tv_sec += ms / 1000, t.tv_nsec += (long)(ms % 1000) * 1000000;
    if (t.tv_nsec >= 1000000000) t.tv_sec++, t.tv_nsec -= 1000000000;
    return t;
}

void log_flush(unsigned timeout_ms) {
    const struct timespec due = after_ms(CLOCK_MONOTONIC, timeout_ms), due_by_clock = after_ms(CLOCK_REALTIME, timeout_ms);
    if (pthread_mutex_timedlock(&out.lock, &due_by_clock) != 0)
        return; /* it may be this thread's own, on its way to abort */
    while (out.runs && (out.waiting.size || out.writes))
        if (pthread_cond_timedwait(&out.emptied, &out.lock, &due) != 0) break;
    pthread_mutex_unlock(&out.lock);
}

uint64_t log_dropped(void) {
    pthread_mutex_lock(&out.lock);
    uint64_t dropped = out.dropped;
    pthread_mutex_unlock(&out.lock);
    return dropped;
}

/* Whether it is taken care of: kept or dropped. */
static bool leave_to_thread(const buf *line) {
    pthread_mutex_lock(&out.lock);
    bool runs = out.runs;
    if (runs && line->size > out.waiting.limit - out.waiting.size) {
        out.dropped++;
    } else if (runs) {
        buf_append(&out.waiting, line->data, line->size);
        pthread_cond_signal(&out.filled);
    }
    pthread_mutex_unlock(&out.lock);
    return runs;
}

void log_object(log_level level, const char *subsystem, const char *text, const char *json_members) {
    if (!log_enabled(level)) return;
    buf line;
    buf_init(&line, 64 << 10);
    format_line(&line, level, subsystem, text, json_members);
    if (!leave_to_thread(&line)) write_all(line.data, line.size);
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
