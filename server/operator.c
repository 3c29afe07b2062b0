#include "server/operator.h"

#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "server/systemd.h"

enum { STATUS_US = 2000000 };

/* ---- the service manager ---- */
static void tell_status(service *sv) {
    char status[256];
    service_status(sv, status, sizeof status);
    sv->status_told_us = clock_us();
    if (strcmp(status, sv->status_told) == 0) return;
    memcpy(sv->status_told, status, sizeof status);
    systemd_notify("STATUS=%s", status);
}

/* Fed by the engine's progress, as long as /live says that there is some, and never by the bare turning of this loop: what
 * asks /live hears of an engine that stands still before the watchdog, a full turn of its time later, ends the process. */
static void feed_watchdog(service *sv) {
    uint64_t now = clock_us();
    if (!sv->watchdog_us || now - sv->watchdog_fed_us < sv->watchdog_us / 4 || service_is_stuck(sv)) return;
    sv->watchdog_fed_us = now;
    systemd_notify("WATCHDOG=1");
}

void operator_watch(service *sv) {
    if (clock_us() - sv->status_told_us >= STATUS_US) tell_status(sv);
    if (sv->phase != PHASE_LOADING) feed_watchdog(sv);
}

void operator_ready(service *sv) {
    sv->watchdog_us = systemd_watchdog_us();
    systemd_notify("READY=1");
    tell_status(sv);
}

/* ---- drain ---- */
void operator_drain(service *sv, const char *who) {
    uint64_t s = sv->config->drain_us / 1000000;
    log_info("server", "draining, asked by %s: %" PRIu64 " requests may finish within %" PRIu64 " s", who,
             sv->metrics.count.exchanges, s);
    systemd_notify("STOPPING=1\nSTATUS=draining: %" PRIu64 " requests may finish within %" PRIu64 " s",
                   sv->metrics.count.exchanges, s);
    service_drain(sv, sv->config->drain_us);
}

/* ---- reload ---- */
/* Whether these settings may hold for the sockets that are there; the keys that go with them are read and kept aside. */
static int accept_settings(void *context, const server_config *fresh, error *err) {
    service *sv = context;
    keys_free(sv->keys_next);
    sv->keys_next = NULL;
    if (fresh->api_keys && keys_read_file(&sv->keys_next, fresh->api_keys, err) != OK) return err->code;
    return service_check_exposure(sv, sv->keys_next, fresh, err);
}

static void say_keys(const keys *k, const char *what, buf *said) {
    uint32_t tenants = 0, count = 0;
    if (k) keys_count(k, &tenants, &count);
    if (k) buf_printf(said, "%s: %u tenants with %u keys\n", what, tenants, count);
}

static void swap_keys(service *sv) {
    if (sv->keys_next) keys_inherit(sv->keys_next, sv->keys);
    keys_free(sv->keys);
    sv->keys = sv->keys_next;
    sv->keys_next = NULL;
}

static void log_lines(const char *text) {
    for (size_t n; *text; text += n + (text[n] == '\n')) {
        n = strcspn(text, "\n");
        log_info("reload", "%.*s", (int)n, text);
    }
}

int operator_reload(service *sv, buf *said, error *err) {
    const server_config *c = sv->config;
    systemd_notify("RELOADING=1\nMONOTONIC_USEC=%" PRIu64 "\nSTATUS=reading the settings anew", clock_us());
    int code = c->reload ? c->reload(c->reload_context, accept_settings, sv, said, err)
                         : error_set(err, ERR_UNSUPPORTED, "these settings come from nowhere that could be read anew");
    if (code == OK) {
        if (!said->size) buf_str(said, "no setting has changed\n");
        swap_keys(sv);
        say_keys(sv->keys, c->api_keys, said);
        log_lines(said->data);
    } else {
        log_error("reload", "nothing was changed: %s", err->text);
    }
    sv->status_told[0] = 0; /* tell it again, over the one above */
    systemd_notify("READY=1%s%s", code == OK ? "" : "\nSTATUS=nothing was reloaded: ", code == OK ? "" : err->text);
    if (code == OK && sv->phase != PHASE_LOADING) tell_status(sv);
    return code;
}

int operator_take_keys(service *sv, const char *name, const char *text, size_t n, error *err) {
    keys_free(sv->keys_next);
    int code = keys_read_text(&sv->keys_next, name, text, n, err);
    if (code == OK) code = service_check_exposure(sv, sv->keys_next, sv->config, err);
    if (code != OK) return code;
    swap_keys(sv);
    log_info("reload", "keys were given at the admin socket");
    return OK;
}

/* ---- signals ---- */
static void on_end(service *sv, int number) {
    if (sv->phase == PHASE_SERVING) return operator_drain(sv, number == SIGINT ? "SIGINT" : "SIGTERM");
    if (sv->phase == PHASE_DRAINING) log_warn("server", "a second signal: stopping at once");
    listener_close(sv->listener); /* paths are removed */
    log_flush(LOG_FLUSH_MS);
    _exit(sv->phase == PHASE_LOADING ? 0 : 128 + number); /* while loading nobody was promised anything yet */
}

static void on_hangup(service *sv, int number) {
    buf   said;
    error err;
    (void)number;
    buf_init(&said, 1 << 20);
    operator_reload(sv, &said, &err);
    buf_free(&said);
}

static void on_reopen(service *sv, int number) {
    error err;
    (void)sv, (void)number;
    if (log_reopen(&err) != OK) log_error("log", "%s", err.text);
    else log_info("log", "the log was opened anew");
}

static const struct {
    int number;
    void (*act)(service *sv, int number);
} signals[SERVICE_SIGNALS] = {{SIGTERM, on_end}, {SIGINT, on_end}, {SIGHUP, on_hangup}, {SIGUSR1, on_reopen}};

static void on_signal(uv_signal_t *handle, int number) {
    service *sv = handle->data;
    for (int i = 0; i < SERVICE_SIGNALS; i++)
        if (signals[i].number == number) return signals[i].act(sv, number);
}

void operator_open(service *sv) {
    for (int i = 0; i < SERVICE_SIGNALS; i++) {
        uv_signal_init(&sv->loop, &sv->signals[i]);
        sv->signals[i].data = sv;
        uv_signal_start(&sv->signals[i], on_signal, signals[i].number);
    }
}

void operator_close(service *sv) {
    for (int i = 0; i < SERVICE_SIGNALS; i++) uv_close((uv_handle_t *)&sv->signals[i], NULL);
    keys_free(sv->keys_next);
}
