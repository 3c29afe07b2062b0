#include "server/settings.h"

#include <netdb.h>
#include <netinet/in.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "server/keys.h"

/* Every word is a policy that scheduler_policy_find knows. */
#define ORDERS "fcfs|priority|deadline|srpt|job|goodput"
#define ADMISSIONS "greedy|conservative|past-future"
#define SLICINGS "chunked|whole|layered|auto"
#define SLICING_BUDGETS "fixed|deadline"
#define PREEMPTIONS "none|operator"
#define RECLAIMS "recompute|swap|auto"
#define RETENTIONS "lru|ttl|workflow"
#define INSTALLED_MODEL "/share/penstock/models/embedded"
#define LOG_LEVELS "error|warn|info|debug"

#define AT(field) offsetof(settings, field)
#define DEVICE(field) offsetof(settings, engine.device_settings.field)
#define PLAN(field) offsetof(settings, engine.scheduler_settings.field)

/* section, name, kind, offset, min, max, default, choices, argument, help, reloadable */
const option_row settings_rows[] = {
    {"model", "model", OPTION_STRING, AT(engine.model), 0, 0, NULL, NULL, "DIR",
     "folder of a checkpoint as published (config.json, model.safetensors, tokenizer.json), or random:NAME; if not given, "
     "the "
     "one that was installed with the program",
     false},
    {"model", "served-model-name", OPTION_STRING, AT(server.model_name), 0, 0, NULL, NULL, "NAME",
     "what clients call the model; the folder's name if not given", false},
    {"model", "chat-template", OPTION_STRING, AT(server.chat_template), 0, 0, NULL, NULL, "FILE",
     "a chat template to use in place of the model's own", false},
    {"model", "reasoning", OPTION_CHOICE, AT(server.reasoning), 0, 0, "reasoning_content",
     "reasoning_content|reasoning|both|content", NULL,
     "which member of a chat's answer holds what the model puts between <think> and </think>; content: it is not told apart",
     false},
    {"model", "max-model-len", OPTION_U32, AT(engine.context_max), 0, 16777216, "0", NULL, "N",
     "tokens of prompt and answer together; 0: what the model was made for", false},

    {"server", "host", OPTION_STRING, AT(server.host), 0, 0, "127.0.0.1", NULL, "ADDRESS",
     "address to listen on; 0.0.0.0 or :: for all, unix:PATH for a socket in the file system", false},
    {"server", "port", OPTION_U32, AT(server.port), 0, 65535, "8080", NULL, "N",
     "TCP port to listen on; 0: any free one, named in the line that says the daemon is ready", false},
    {"server", "admin-socket", OPTION_STRING, AT(server.admin_socket), 0, 0, NULL, NULL, "PATH",
     "socket for the operator, for its owner alone (see `penstock admin` in operations.md)", false},
    {"server", "api-keys", OPTION_STRING, AT(server.api_keys), 0, 0, NULL, NULL, "FILE",
     "who may ask, one tenant a line (see Key file below); without it nobody needs a key", true},
    {"server", "cors-origins", OPTION_STRING, AT(server.cors_origins), 0, 0, NULL, NULL, "ORIGINS",
     "web pages of these origins may ask from a browser: https://a.example https://b.example, or * for all; else none may",
     true},
    {"server", "metrics-open", OPTION_BOOL, AT(server.metrics_open), 0, 0, "no", NULL, NULL,
     "answer /metrics without a key, as /health, /live and /ready are", true},
    {"server", "public-without-keys", OPTION_BOOL, AT(server.public_without_keys), 0, 0, "no", NULL, NULL,
     "listen on an address that other machines reach although anyone may ask", true},
    {"server", "connections-max", OPTION_U32, AT(server.connections_max), 1, 65535, "4096", NULL, "N",
     "connections open at once; one more is answered 503", true},
    {"server", "connections-per-address", OPTION_U32, AT(server.connections_per_address), 0, 65535, "1024", NULL, "N",
     "of these, from one IPv4 address or one IPv6 network (/64); one more is answered 429; 0: no bound of its own", true},
    {"server", "requests-per-connection", OPTION_U32, AT(server.requests_per_connection), 1, 4294967295.0, "100000", NULL,
     "N", "requests before a connection is closed", true},
    {"server", "request-line-max", OPTION_U32, AT(server.request_line_max_bytes), 64, 65536, "8192", NULL, "BYTES",
     "longest method, path and version; 414 beyond", false},
    {"server", "headers-max", OPTION_U32, AT(server.headers_max_bytes), 1024, 1048576, "65536", NULL, "BYTES",
     "all header lines of a request together; 431 beyond", false},
    {"server", "headers-count-max", OPTION_U32, AT(server.headers_max_count), 8, 1024, "128", NULL, "N",
     "header lines of a request; 431 beyond", false},
    {"server", "body-max", OPTION_U64_SIZE, AT(server.body_max_bytes), 1024, 1073741824, "16M", NULL, "SIZE",
     "body of a request; 413 beyond", false},
    {"server", "head-timeout", OPTION_DURATION, AT(server.head_timeout_us), 0.01, 3600, "10s", NULL, "TIME",
     "from a request's first byte to the end of its headers; 408 beyond", true},
    {"server", "body-timeout", OPTION_DURATION, AT(server.body_timeout_us), 0.01, 3600, "10s", NULL, "TIME",
     "grace for a body; a body that takes longer must keep up body-rate-min", true},
    {"server", "body-rate-min", OPTION_U64_SIZE, AT(server.body_rate_min_bytes_s), 0, 1073741824, "1K", NULL, "SIZE",
     "bytes a second of a body after body-timeout; 408 below", true},
    {"server", "idle-timeout", OPTION_DURATION, AT(server.idle_timeout_us), 0.01, 86400, "75s", NULL, "TIME",
     "a connection without a request is closed after so long", true},
    {"server", "write-stall", OPTION_DURATION, AT(server.write_stall_us), 0.01, 3600, "30s", NULL, "TIME",
     "a client that reads nothing for so long is cut off", true},
    {"server", "write-buffer-max", OPTION_U64_SIZE, AT(server.write_buffer_max_bytes), 4096, 1073741824, "1M", NULL, "SIZE",
     "unread bytes of one stream; a client further behind is cut off", true},
    {"server", "keepalive-comment", OPTION_DURATION, AT(server.keepalive_comment_us), 0, 3600, "15s", NULL, "TIME",
     "a comment is sent on a stream that was silent for so long; 0: never", true},
    {"server", "drain-timeout", OPTION_DURATION, AT(server.drain_us), 0, 86400, "30s", NULL, "TIME",
     "how long running requests may finish after SIGTERM", true},
    {"server", "stall-timeout", OPTION_DURATION, AT(server.stall_us), 0.1, 3600, "30s", NULL, "TIME",
     "work but no progress for so long turns /health to failing", true},
    {"server", "slo-ttft", OPTION_DURATION, AT(server.slo_ttft_us), 0, 86400, "0s", NULL, "TIME",
     "time to the first token that requests aim at where neither they nor their key say one (`slo.ttft_ms`); 0: none", true},
    {"server", "slo-tbt", OPTION_DURATION, AT(server.slo_tbt_us), 0, 86400, "0s", NULL, "TIME",
     "time between two tokens, likewise (`slo.tbt_ms`)", true},
    {"server", "metrics-dialects", OPTION_CHOICE, AT(server.metrics_dialects), 0, 0, "both", "both|native|vllm", NULL,
     "under which names /metrics tells its numbers: penstock_*, vllm:*, or both", false},
    {"server", "metrics-old-names", OPTION_BOOL, AT(server.metrics_old_names), 0, 0, "no", NULL, NULL,
     "tell them under the names that vLLM had before as well (vllm:gpu_cache_usage_perc ...)", false},
    {"server", "choices-max", OPTION_U32, AT(server.choices_max), 1, 1024, "128", NULL, "N",
     "n times prompts of one request", false},
    {"server", "strict-params", OPTION_BOOL, AT(server.strict_params), 0, 0, "no", NULL, NULL,
     "refuse requests with parameters that nobody knows, in place of ignoring those", false},
    {"server", "worker-body", OPTION_U64_SIZE, AT(server.worker_body_bytes), 0, 1073741824, "16K", NULL, "SIZE",
     "larger bodies are parsed and tokenized off the I/O thread", false},

    {"engine", "device", OPTION_CHOICE, AT(engine.device), 0, 0, "auto", "auto|cpu|cuda|sim", NULL,
     "what computes; sim only pretends to, at the speed of a modelled machine", false},
    {"engine", "threads", OPTION_U32, DEVICE(threads), 0, 1024, "0", NULL, "N",
     "threads of the cpu device; 0: one for each CPU this process may use", false},
    {"engine", "kv-cache-memory", OPTION_U64_SIZE, AT(engine.kv_cache_bytes), 0, 0, "0", NULL, "SIZE",
     "memory for KV pages; 0: a share of what is free", false},
    {"engine", "page-tokens", OPTION_U32, PLAN(page_tokens), 0, 256, "0", NULL, "N",
     "tokens of one KV page; 0: what suits the device", false},
    {"engine", "map-weights", OPTION_BOOL, DEVICE(map_weights), 0, 0, "no", NULL, NULL,
     "compute from the mapped file in place of a copy in huge pages: less memory, slower", false},
    {"engine", "isa", OPTION_CHOICE, DEVICE(isa), 0, 0, "auto", "auto|avx512|avx2|plain", NULL,
     "instruction set of the cpu device", false},
    {"engine", "sim-hardware", OPTION_STRING, DEVICE(sim_hardware), 0, 0, NULL, NULL, "NAME",
     "the machine that the sim device models: h200, h100, a100-80g or cpu", false},
    {"engine", "sim-calibration", OPTION_STRING, DEVICE(sim_calibration), 0, 0, NULL, NULL, "FILE",
     "measurements of a machine in place of the modelled one's (`penstock-bench calibrate` makes them)", false},

    {"scheduler", "batch-tokens-max", OPTION_U32, PLAN(batch_tokens_max), 0, 1048576, "0", NULL, "N",
     "rows of one forward pass; 0: what suits the device", false},
    {"scheduler", "chunk-tokens", OPTION_U32, PLAN(slicing.chunk_tokens), 0, 1048576, "0", NULL, "N",
     "prompt tokens of a pass that also decodes; 0: what suits the device", false},
    {"scheduler", "running-max", OPTION_U32, PLAN(running_max), 0, 65536, "0", NULL, "N",
     "requests that run at once; 0: what suits the device", false},
    {"scheduler", "waiting-max", OPTION_U32, PLAN(waiting_max), 0, 1048576, "0", NULL, "N",
     "requests that wait; one more is refused; 0: a thousand or so", false},
    {"scheduler", "waiting-tokens-max", OPTION_U32, PLAN(waiting_tokens_max), 0, 4294967295.0, "0", NULL, "N",
     "prompt tokens that wait; 0: no bound", false},
    {"scheduler", "queue-wait-max", OPTION_DURATION, AT(engine.queue_wait_max_us), 0, 86400, "5min", NULL, "TIME",
     "a request that would wait longer, as predicted from the pace of late and the queue before it (all of it, as if first "
     "come were first served; with order priority only who goes before it), is refused; 0: no bound",
     false},
    {"scheduler", "order", OPTION_CHOICE, AT(order), 0, 0, "deadline", ORDERS, NULL,
     "who goes first: who came first; the better priority; the earliest deadline (who came first, among those that have "
     "none); the shortest; the earliest job; the most "
     "value for the time",
     false},
    {"scheduler", "priority-age", OPTION_U32, PLAN(order.age_ms), 0, 4294967295.0, "0", NULL, "MS",
     "order priority: how long a wait one level of priority is worth; 0: 30,000", false},
    {"scheduler", "fair", OPTION_BOOL, PLAN(fair.turns), 0, 0, "no", NULL, NULL,
     "let tenants take turns by the device time they had, over their weight; the order decides within each", false},
    {"scheduler", "tenants-max", OPTION_U32, PLAN(fair.tenants_max), 0, 32768, "0", NULL, "N",
     "tenants whose device time is told apart at once; 0: 256", false},
    {"scheduler", "admission", OPTION_CHOICE, AT(admission), 0, 0, "greedy", ADMISSIONS, NULL,
     "who may enter: as long as pages last now, only with pages for the whole answer, or while pages will last for all at "
     "the "
     "worst moment, as past answers were",
     false},
    {"scheduler", "past-future-quantile", OPTION_U32, PLAN(admission.quantile_percent), 0, 99, "0", NULL, "PERCENT",
     "admission past-future: the share of past answers that are no longer than predicted; 0: 70", false},
    {"scheduler", "past-future-reserve", OPTION_U32, PLAN(admission.reserve_percent), 0, 90, "0", NULL, "PERCENT",
     "admission past-future: pages left for what the prediction misses; 0: 5", false},
    {"scheduler", "slicing", OPTION_CHOICE, AT(slicing), 0, 0, "auto", SLICINGS, NULL,
     "how a prompt is cut beside running answers: between tokens, not at all, between layers, or (auto) between layers "
     "where "
     "the model has experts",
     false},
    {"scheduler", "slicing-budget", OPTION_CHOICE, AT(slicing_budget), 0, 0, "fixed", SLICING_BUDGETS, NULL,
     "how much of prompts goes beside running answers: chunk-tokens, or as much as lets the tightest of them have its token "
     "in time (chunk-tokens where none says when)",
     false},
    {"scheduler", "short-tokens", OPTION_U32, PLAN(slicing.short_tokens), 0, 1048576, "0", NULL, "N",
     "prompts with at most so many tokens to compute share no pass with longer ones, and the two kinds take turns; 0: off; "
     "a "
     "GPU stops gaining from more rows at 150 to 500",
     false},
    {"scheduler", "preemption", OPTION_CHOICE, AT(preemption), 0, 0, "none", PREEMPTIONS, NULL,
     "when a running pass yields: never, or before its next operator where somebody more urgent came", false},
    {"scheduler", "preemption-batch", OPTION_U32, PLAN(preemption.batch_tokens), 0, 1048576, "0", NULL, "N",
     "with preemption operator: prompt tokens up to which requests share a pass of prompts; 0: 256", false},
    {"scheduler", "decodes-wait", OPTION_BOOL, PLAN(preemption.decodes_wait), 0, 0, "yes", NULL, NULL,
     "with preemption operator: answers whose clients all said how fast they want tokens wait for prompts while that "
     "allows it",
     false},
    {"scheduler", "reclaim", OPTION_CHOICE, AT(reclaim), 0, 0, "recompute", RECLAIMS, NULL,
     "what becomes of pages that are taken back from running work: computed again, copied to host memory and back, or the "
     "one of both that is predicted to be faster",
     false},
    {"scheduler", "host-cache-memory", OPTION_U64_SIZE, AT(engine.host_cache_bytes), 0, 0, "0", NULL, "SIZE",
     "host memory for pages that reclaim = swap or auto copies out", false},
    {"scheduler", "displace", OPTION_BOOL, PLAN(reclaim.displaces), 0, 0, "no", NULL, NULL,
     "with order = priority: who runs at a worse level gives its memory to who waits at a better one", false},
    {"scheduler", "retention", OPTION_CHOICE, AT(retention), 0, 0, "lru", RETENTIONS, NULL,
     "what stays cached between requests: the latest used; or with ttl also what a turn of a job left, pinned for a while",
     false},
    {"scheduler", "ttl", OPTION_DURATION, PLAN(retention.ttl_us), 0, 86400, "2s", NULL, "TIME",
     "with retention ttl: how long a turn is pinned whose client does not say", false},
    {"scheduler", "ttl-fitted", OPTION_BOOL, PLAN(retention.ttl_fitted), 0, 0, "no", NULL, NULL,
     "fit that time to how long each tool takes, what computing again costs and what others wait for memory", false},
    {"scheduler", "pins-percent", OPTION_U32, PLAN(retention.pins_percent), 0, 100, "50", NULL, "N",
     "of the KV pages, all pins together", false},
    {"scheduler", "pins-tenant-percent", OPTION_U32, PLAN(retention.tenant_pins_percent), 0, 100, "50", NULL, "N",
     "of the KV pages, one tenant's pins", false},
    {"scheduler", "prefix-cache", OPTION_BOOL, PLAN(retention.prefix_cache), 0, 0, "yes", NULL, NULL,
     "reuse the pages of prompts that begin alike", false},

    {"log", "log-level", OPTION_CHOICE, AT(log_level), 0, 0, "info", LOG_LEVELS, NULL,
     "least important line that is written", true},
    {"log", "log-file", OPTION_STRING, AT(log_file), 0, 0, NULL, NULL, "FILE",
     "write to this file and not to standard error; opened anew on SIGUSR1", false},
    {"log", "log-format", OPTION_CHOICE, AT(log_format), 0, 0, "text", "text|json", NULL, "for people or for machines",
     true},
};
const size_t settings_row_count = sizeof settings_rows / sizeof *settings_rows;

const char *const settings_engine_sections[SETTINGS_ENGINE_SECTIONS] = {"model", "engine", "scheduler"};

static int policy_of(policy_axis axis, const char *word) {
    const int value = scheduler_policy_find(axis, word);
    check(value >= 0); /* a row offers only what is built in */
    return value;
}

/* The model that `make install` put beside the program, where it did. */
static const char *installed_model(void) {
    static char path[4096];
    ssize_t     n = readlink("/proc/self/exe", path, sizeof path - 1);
    for (int up = 0; up < 2 && n > 0; up++) /* bin/penstock */
        do n--;
        while (n > 0 && path[n] != '/');
    if (n < 0 || (size_t)n + sizeof INSTALLED_MODEL > sizeof path) return NULL;
    memcpy(path + n, INSTALLED_MODEL, sizeof INSTALLED_MODEL);
    return access(path, R_OK) == 0 ? path : NULL;
}

int settings_finish(settings *s, error *err) {
    if (!s->engine.model) s->engine.model = installed_model();
    if (!s->engine.model)
        return error_set(err, ERR_USAGE,
                         "no model was given; name a folder with --model DIR, or a shape with --model random:NAME");
    scheduler_config *c = &s->engine.scheduler_settings;
    c->order.policy = (order_policy)policy_of(AXIS_ORDER, s->order);
    c->admission.policy = (admission_policy)policy_of(AXIS_ADMISSION, s->admission);
    c->slicing.policy = (slicing_policy)policy_of(AXIS_SLICING, s->slicing);
    c->slicing.budget = (slicing_budget)option_choice_index(SLICING_BUDGETS, s->slicing_budget);
    c->preemption.policy = (preemption_policy)policy_of(AXIS_PREEMPTION, s->preemption);
    c->reclaim.policy = (reclaim_policy)policy_of(AXIS_RECLAIM, s->reclaim);
    c->retention.policy = (retention_policy)policy_of(AXIS_RETENTION, s->retention);
    s->engine.device_settings.sim_realtime = true;
    return OK;
}

int settings_read_file(options *o, const char *path, error *err) {
    return options_read_file(o, path, err) == OK ? OK : (err->code = ERR_CONFIG);
}

/* Whether others than this machine reach it. What does not resolve is told when it is to be bound. */
static bool is_public(const char *host) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *found = NULL;
    bool public = false;
    if (getaddrinfo(host, NULL, &hints, &found) != 0) return false;
    for (struct addrinfo *a = found; a; a = a->ai_next) {
        const struct in6_addr *v6 = &((struct sockaddr_in6 *)a->ai_addr)->sin6_addr;
        if (a->ai_family == AF_INET) public |= ntohl(((struct sockaddr_in *)a->ai_addr)->sin_addr.s_addr) >> 24 != 127;
        else public |= !IN6_IS_ADDR_LOOPBACK(v6); }
    freeaddrinfo(found);
    return public;
}

int settings_check_serving(const settings *s, error *err) {
    const server_config *c = &s->server;
    keys                *k = NULL;
    if (c->api_keys && keys_read_file(&k, c->api_keys, err) != OK) return err->code = ERR_CONFIG;
    bool anyone = !k || keys_admit_anyone(k);
    keys_free(k);
    if (anyone && !c->public_without_keys && is_public(c->host))
        return error_set(err, ERR_CONFIG,
                         "other machines reach %s, and anyone could use the model: name a file of keys with --api-keys "
                         "(`penstock key` makes them), or say --public-without-keys",
                         c->host);
    return OK;
}

void settings_apply_log(const settings *s) {
    log_configure((log_level)option_choice_index(LOG_LEVELS, s->log_level), strcmp(s->log_format, "json") == 0);
}

static const char *const level_words[] = {
    [LOG_ERROR] = "error", [LOG_WARN] = "warn", [LOG_INFO] = "info", [LOG_DEBUG] = "debug"};

const char *settings_log_level_name(void) { return level_words[log_threshold()]; }

int settings_set_log_level(const char *word, error *err) {
    for (log_level level = LOG_ERROR; level <= LOG_DEBUG; level++)
        if (strcmp(level_words[level], word) == 0) return log_set_threshold(level), OK;
    return error_set(err, ERR_INVALID, "log-level must be one of " LOG_LEVELS ", not '%.16s'", word);
}
