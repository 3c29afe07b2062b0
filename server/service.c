/* server/service.c: the daemon's life: bind, load, serve, drain.
 *
 * The I/O thread runs one loop and never waits for the engine: the engine wakes it, and what it has to say is read in
 * batches, each connection written once per batch. */
#include "server/service.h"

#include <malloc.h>
#include <math.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "server/operator.h"
#include "server/systemd.h"

enum {
    EVENTS_PER_BATCH = 256,
    WATCH_MS = 250, /* so much later than stall-timeout a stuck engine may be noticed */
    IDLE_TICKS = 8, /* of the watch */
    DRAIN_WATCH_MS = 20,
    TURN_NS = 100000,        /* of the I/O thread on a CPU that others want */
    LAST_WORDS_US = 1000000, /* after the device has failed: for telling so to those who wait */
    STOP_US = 10000000,      /* for the pass that runs when everything is over, as long as it goes on; */
    STOP_STILL_US = 2000000, /* and for one that stands still */
    SELF_TEST_ID = 1,        /* of an engine request; those of clients are above 1 << 24 */
    SELF_TEST_TOKENS = 4,
};

/* ---- engine to clients ---- */
static void wake(void *context) { uv_async_send(context); }
static void self_test_event(service *sv, const engine_event *e);

static void on_wake(uv_async_t *async) {
    service     *sv = async->data;
    engine_event events[EVENTS_PER_BATCH];
    uint32_t     n;
    if (!sv->engine) return;
    while ((n = engine_next(sv->engine, events, EVENTS_PER_BATCH)) > 0) {
        sv->http.now_us = clock_us();
        for (uint32_t i = 0; i < n; i++)
            if (events[i].id == SELF_TEST_ID) self_test_event(sv, &events[i]);
            else generation_event(sv, &events[i]);
        listener_flush(sv->listener);
    }
}

/* ---- progress ---- */
static void watch_progress(service *sv) {
    engine_snapshot s;
    health_state    state = service_health(sv, &s);
    if (state == HEALTH_FAILED && sv->failure.code == OK) {
        error_set(&sv->failure, ERR_DEVICE, "%s", s.failed);
        log_error("server", "the device failed: %s", s.failed);
        return service_drain(sv, LAST_WORDS_US);
    }
    bool stuck = state == HEALTH_STUCK;
    if (stuck != sv->stuck)
        log_line(stuck ? LOG_ERROR : LOG_INFO, "server",
                 stuck ? "the engine has work and makes no progress" : "the engine makes progress again");
    sv->stuck = stuck;
}

static void watch_drain(service *sv) {
    uint64_t requests = sv->metrics.count.exchanges;
    bool     busy = requests || sv->requests.live || listener_read_facts(sv->listener).connections;
    bool     late = clock_us() > sv->drain_until_us;
    if (late && requests) {
        log_warn("server", "%llu requests are cut off", (unsigned long long)requests);
        for (exchange *x = sv->exchanges, *next; x; x = next) next = x->next, exchange_end(x, FAULT_DRAINING);
        listener_flush(sv->listener);
    }
    if (!busy || late) uv_stop(&sv->loop);
}

/* What a burst of requests made the allocator take goes back to the system, once, when there has been nothing to do for a
 * while. */
static void give_memory_back(service *sv) {
    if (!sv->metrics.count.exchanges && ++sv->idle_ticks == IDLE_TICKS) malloc_trim(0);
}

static void on_watch(uv_timer_t *timer) {
    service *sv = timer->data;
    give_memory_back(sv);
    if (sv->phase != PHASE_LOADING) watch_progress(sv);
    operator_watch(sv);
    generation_expire(sv);
    listener_flush(sv->listener);
    if (sv->phase == PHASE_DRAINING) watch_drain(sv);
}

/* Nothing new is taken; the loop ends when what was accepted is answered, or after so long. */
void service_drain(service *sv, uint64_t at_most_us) {
    sv->phase = PHASE_DRAINING;
    sv->drain_until_us = clock_us() + at_most_us;
    listener_stop(sv->listener);
    if (sv->engine) engine_hold(sv->engine, false); /* what is held would never finish */
    uv_timer_start(&sv->watch, on_watch, 0, DRAIN_WATCH_MS);
}

/* ---- loading ---- */
/* What is small comes first: a tokenizer or template that cannot be used is told before gigabytes of weights were read. */
static void load(uv_work_t *work) {
    service    *sv = work->data;
    const char *dir = sv->engine_settings->model; /* or random:NAME, where no such file is */
    sv->failure.code = OK;
    if (tokenizer_exists(dir)) {
        if (tokenizer_open(&sv->tokenizer, dir, &sv->failure) != OK) return;
        if (chat_format_open(&sv->chat, dir, sv->config->chat_template, &sv->failure) != OK) return;
    }
    if (engine_open(&sv->engine, sv->engine_settings, &sv->failure) != OK) return;
    if (!sv->tokenizer && engine_model_dir(sv->engine))
        log_warn("server", "%s has no tokenizer.json: prompts must be token ids, and answers are ids as text", dir);
}

static void say_ready(const service *sv) {
    char url[256];
    listener_url(sv->listener, url, sizeof url);
    log_info("server", "device: %s", engine_device_why(sv->engine));
    log_info("server", "ready: %s on %s at %s", sv->model_name, engine_device_name(sv->engine), url);
    if (sv->config->ready) sv->config->ready(sv->config->ready_context, url, sv->model_name);
}

/* Before the model is loaded, and again when more is known of it. */
static void lay_out_metrics(service *sv) {
    const char    *words = sv->config->metrics_dialects ? sv->config->metrics_dialects : "both";
    const bool     native = strcmp(words, "vllm") != 0, vllm = strcmp(words, "native") != 0;
    metrics_layout l = {.dialects = {native, vllm, vllm && sv->config->metrics_old_names},
                        .model_name = sv->model_name,
                        .version = PENSTOCK_VERSION,
                        .device = sv->engine ? engine_device_name(sv->engine) : "",
                        .context_max = sv->context_max};
    if (sv->engine) {
        const scheduler_config *c = engine_scheduler_config(sv->engine);
        l.page_tokens = c->page_tokens, l.page_count = c->page_count, l.prefix_cache = c->retention.prefix_cache;
    }
    metrics_page_free(sv->metrics_page);
    sv->metrics_page = metrics_page_new(&l);
}

static uint32_t smaller(uint64_t a, uint64_t b) { return (uint32_t)(a < b ? a : b); }

/* ---- the self-test: the first prompt and the first step go through the engine before anybody is told that it is ready ----
 */
static void serve(service *sv) {
    sv->progress.since_us = clock_us();
    sv->phase = PHASE_SERVING;
    operator_ready(sv);
    say_ready(sv);
}

static void self_test_failed(service *sv, int code, const char *why) {
    error_set(&sv->failure, code, "the self-test failed: %s", why);
    uv_stop(&sv->loop);
}

static void begin_self_test(service *sv) {
    error          err;
    engine_request r = {.id = SELF_TEST_ID,
                        .prompt_tokens = smaller(SELF_TEST_TOKENS, sv->context_max > 2 ? sv->context_max - 2 : 1),
                        .output_tokens_max = 2,
                        .ignore_eos = true,
                        .params = {.top_p = 1, .repetition_penalty = 1}};
    r.tokens = calloc(r.prompt_tokens, sizeof *r.tokens);
    if (!r.tokens) fatal("out of memory for the self-test");
    for (uint32_t i = 0; i < r.prompt_tokens; i++) r.tokens[i] = (uint32_t)((uint64_t)i * sv->vocab_size / SELF_TEST_TOKENS);
    if (engine_submit(sv->engine, &r, &err) == OK) return;
    free(r.tokens);
    self_test_failed(sv, err.code, err.text);
}

static void self_test_event(service *sv, const engine_event *e) {
    if (sv->failure.code != OK || (e->finished && e->reason == FINISH_CANCELLED)) return;
    if (e->has_token && !isfinite(e->token.logprob))
        return self_test_failed(sv, ERR_DEVICE, "it computed a number that is none");
    if (!e->finished) return;
    if (e->reason == FINISH_ERROR) return self_test_failed(sv, ERR_DEVICE, e->message ? e->message : "no reason was given");
    if (sv->phase == PHASE_LOADING) serve(sv);
}

/* This thread works for moments and kernels compute for ever. From Linux 6.12 on, a thread that asks for short turns gets
 * the CPU sooner when it wakes; elsewhere, or where it is not allowed, nothing changes, nor where the operator has chosen
 * another policy (CPUSchedulingPolicy=); his priority (Nice=) stays. Not inherited: the others are running. */
static void take_short_turns(void) {
    struct {
        uint32_t size, policy;
        uint64_t flags;
        int32_t  nice;
        uint32_t priority;
        uint64_t runtime, deadline, period; /* SCHED_OTHER: runtime is the length of a turn, in ns */
    } how = {0};
    if (syscall(SYS_sched_getattr, 0, &how, sizeof how, 0) != 0 || how.policy != SCHED_OTHER) return;
    how.runtime = TURN_NS;
    syscall(SYS_sched_setattr, 0, &how, 0);
}

/* A model that thinks aloud has a token for each end of it. */
static void find_thinking(service *sv) {
    const char *where = sv->config->reasoning ? sv->config->reasoning : "reasoning_content";
    if (!sv->tokenizer || strcmp(where, "content") == 0) return;
    int64_t begin = tokenizer_id_of(sv->tokenizer, "<think>"), end = tokenizer_id_of(sv->tokenizer, "</think>");
    if (begin < 0 || end <= 0) return;
    sv->think_begin = begin, sv->think_end = end;
    sv->reasoning_fields = strcmp(where, "both") == 0 ? 3 : strcmp(where, "reasoning") == 0 ? 2 : 1;
}

static void loaded(uv_work_t *work, int status) {
    service             *sv = work->data;
    const engine_config *ec = sv->engine_settings;
    (void)status;
    if (sv->failure.code != OK) return uv_stop(&sv->loop);
    uint64_t pages_tokens = (uint64_t)ec->device_settings.page_count * ec->device_settings.page_tokens;
    sv->vocab_size = engine_facts(sv->engine)->vocab_size;
    sv->context_max = engine_context_max(sv->engine);
    if (pages_tokens) sv->context_max = smaller(sv->context_max, pages_tokens);
    find_thinking(sv);
    take_short_turns();
    lay_out_metrics(sv);
    begin_self_test(sv);
}

/* ---- construction ---- */
static void name_model(service *sv) {
    const char *path = sv->engine_settings->model, *name = sv->config->model_name;
    if (!name || !*name) {
        size_t n = strlen(path);
        while (n > 1 && path[n - 1] == '/') n--;
        const char *slash = memrchr(path, '/', n);
        const char *begin = slash && n > 1 ? slash + 1 : path;
        snprintf(sv->model_name, sizeof sv->model_name, "%.*s", (int)(n - (size_t)(begin - path)), begin);
    } else {
        snprintf(sv->model_name, sizeof sv->model_name, "%s", name);
    }
    /* What could change an answer from one day to the next, in a word: program, model, device. */
    char what[640];
    int  n = snprintf(what, sizeof what, "%s %.255s %.255s", PENSTOCK_VERSION, path,
                     sv->engine_settings->device ? sv->engine_settings->device : "");
    snprintf(sv->fingerprint, sizeof sv->fingerprint, "fp_%012llx",
             (unsigned long long)(hash_u64(what, (size_t)n, 0) >> 16));
}

static void open_handles(service *sv) {
    uv_async_init(&sv->loop, &sv->wake, on_wake);
    uv_timer_init(&sv->loop, &sv->watch);
    sv->wake.data = sv->watch.data = sv->load.data = sv;
    operator_open(sv);
    uv_timer_start(&sv->watch, on_watch, WATCH_MS, WATCH_MS);
}

/* The pass that runs is waited for while operators go by; one that never ends must not keep the process. */
static void close_engine(service *sv) {
    const uint64_t  begin_us = clock_us(), still_us = smaller(sv->config->stall_us, STOP_STILL_US);
    engine_snapshot s;
    while (!engine_stop(sv->engine, WATCH_MS)) {
        engine_read_snapshot(sv->engine, &s);
        const uint64_t now_us = clock_us();
        if (progress_stands_us(&sv->progress, &s, now_us) <= still_us && now_us - begin_us < STOP_US) continue;
        log_error("server", "the engine does not come to an end; the process ends without it");
        log_flush(LOG_FLUSH_MS);
        _exit(error_exit_status(ERR_DEVICE));
    }
    engine_close(sv->engine);
}

/* After the loop has stopped: what still runs is cancelled, and the ends of it are waited for, briefly. */
static void finish(service *sv) {
    uint64_t until = clock_us() + 1000000;
    if (sv->listener) listener_close(sv->listener);
    uv_close((uv_handle_t *)&sv->watch, NULL);
    operator_close(sv);
    while (sv->working || (sv->metrics.count.exchanges && clock_us() < until)) {
        on_wake(&sv->wake);
        uv_run(&sv->loop, UV_RUN_NOWAIT);
        if (sv->engine) engine_wait(sv->engine, 10);
    }
    if (sv->engine) close_engine(sv);
    uv_close((uv_handle_t *)&sv->wake, NULL);
    uv_run(&sv->loop, UV_RUN_DEFAULT);
    if (sv->listener) listener_free(sv->listener);
    if (sv->chat) chat_format_close(sv->chat);
    if (sv->tokenizer) tokenizer_close(sv->tokenizer);
    free(sv->requests.slots);
    metrics_page_free(sv->metrics_page);
    keys_free(sv->keys);
    buf_free(&sv->scratch), buf_free(&sv->openapi);
    uv_loop_close(&sv->loop);
}

int service_check_exposure(service *sv, const keys *k, const server_config *c, error *err) {
    if ((k && !keys_admit_anyone(k)) || c->public_without_keys || listener_is_local(sv->listener)) return OK;
    return error_set(err, ERR_CONFIG,
                     "other machines reach this daemon, and anyone could use the model: name a file of keys with --api-keys "
                     "(`penstock key` makes them), or say --public-without-keys");
}

/* Sockets that were bound before (systemd) take the place of those that the settings name. */
static int open_sockets(service *sv, error *err) {
    const server_config *c = sv->config;
    systemd_socket       given[SYSTEMD_SOCKETS_MAX];
    uint32_t             count = systemd_sockets(given), has[2] = {0, 0};
    char                 path[256];
    for (uint32_t i = 0; i < count; i++) {
        conn_role role = strstr(given[i].name, "admin") ? ROLE_ADMIN : ROLE_PUBLIC;
        has[role]++;
        if (listener_adopt(sv->listener, role, given[i].fd, err) != OK) return err->code;
    }
    if (!has[ROLE_PUBLIC] && listener_bind(sv->listener, ROLE_PUBLIC, c->host, c->port, err) != OK) return err->code;
    if (has[ROLE_ADMIN] || !c->admin_socket || !*c->admin_socket) return OK;
    snprintf(path, sizeof path, "unix:%s", c->admin_socket);
    return listener_bind(sv->listener, ROLE_ADMIN, path, 0, err);
}

static int open_doors(service *sv, error *err) {
    const char *file = sv->config->api_keys;
    keys_init();
    if (file && keys_read_file(&sv->keys, file, err) != OK) return err->code = ERR_CONFIG;
    if (open_sockets(sv, err) != OK) return err->code;
    return service_check_exposure(sv, sv->keys, sv->config, err);
}

int server_run(const server_config *c, engine_config *ec, error *err) {
    service *sv = calloc(1, sizeof *sv);
    if (!sv) fatal("out of memory for the server");
    sv->config = c, sv->engine_settings = ec;
    sv->created_s = time(NULL), sv->start_time_s = (double)sv->created_s;
    if (getrandom(&sv->id_salt, sizeof sv->id_salt, 0) < 0) sv->id_salt = clock_ns();
    buf_init(&sv->scratch, 64 << 10), buf_init(&sv->openapi, 1 << 20);
    sv->http = (http_server){.config = c,
                             .admit = api_admit,
                             .request = api_request,
                             .gone = api_gone,
                             .drained = api_drained,
                             .refusing = api_name,
                             .owner = sv};
    signal(SIGPIPE, SIG_IGN);
    setenv("UV_THREADPOOL_SIZE", "2", 0); /* workers beside the engine's own threads */
    uv_loop_init(&sv->loop);
    open_handles(sv);
    name_model(sv);
    lay_out_metrics(sv);
    ec->wake = wake, ec->wake_context = &sv->wake;
    sv->listener = listener_new(&sv->loop, &sv->http);
    if (open_doors(sv, &sv->failure) == OK) {
        uv_queue_work(&sv->loop, &sv->load, load, loaded);
        uv_run(&sv->loop, UV_RUN_DEFAULT);
    }
    finish(sv);
    *err = sv->failure;
    free(sv);
    return err->code;
}
