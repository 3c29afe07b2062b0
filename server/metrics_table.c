/* Every number of /metrics, once. A row says what it is called in each dialect, what it means, and where it lies. */
#include <stddef.h>

#include "engine/program.h"
#include "server/metrics.h"

/* ---- vLLM's bounds; each is also one of ours (base/histogram.c) ---- */
static const double first[] = {.001, .005, .01, .02, .04, .06, .08, .1, .25, .5,  .75,
                               1,    2.5,  5,   7.5, 10,  20,  40,  80, 160, 640, 2560};
static const double token[] = {.01, .025, .05, .075, .1, .15, .2, .3, .4, .5, .75, 1, 2.5, 5, 7.5, 10, 20, 40, 80};
static const double request[] = {.3, .5, .8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680};
static const double iteration[] = {1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384};
static const double choices[] = {1, 2, 5, 10, 20};
#define BOUNDS(a)                                                                                                           \
    { a, sizeof(a) / sizeof *(a) }
static const histogram_bounds vllm_first = BOUNDS(first), vllm_token = BOUNDS(token), vllm_request = BOUNDS(request),
                              vllm_iteration = BOUNDS(iteration), vllm_choices = BOUNDS(choices);

/* ---- names of elements ---- */
static const char *status_class(unsigned i) {
    static const char *const names[] = {"0xx", "1xx", "2xx", "3xx", "4xx", "5xx"};
    return names[i];
}
static const char *operator_name(unsigned i) { return op_name((op_kind)i); }
static const char *part_name(unsigned i) { return ledger_part_names[i]; }
static const char *state_name(unsigned i) { return health_rows[i].name; }

/* ---- labels that say what is so ---- */
static void build_info(const metrics_layout *l, buf *out) {
    metrics_label(out, "version", l->version);
    buf_char(out, ','), metrics_label(out, "model_name", l->model_name);
    buf_char(out, ','), metrics_label(out, "device", l->device);
}

/* vLLM's words for it, a Python truth value among them. */
static void cache_info(const metrics_layout *l, buf *out) {
    buf_printf(out, "block_size=\"%u\",num_gpu_blocks=\"%u\",enable_prefix_caching=\"%s\"", l->page_tokens, l->page_count,
               l->prefix_cache ? "True" : "False");
}

/* ---- how a row is written ---- */
#define ALL(native, vllm, old)                                                                                              \
    { native, vllm, old }
#define OURS(native)                                                                                                        \
    { native, NULL, NULL }
#define BOTH(native, vllm)                                                                                                  \
    { native, vllm, NULL }
#define VLLM(vllm)                                                                                                          \
    { NULL, vllm, NULL }
#define OLD(old)                                                                                                            \
    { NULL, NULL, old }
#define COUNTER METRIC_COUNTER
#define GAUGE METRIC_GAUGE
#define HISTOGRAM METRIC_HISTOGRAM
#define INFO METRIC_INFO
#define AT(where, as, at) .place = where, .type = as, .offset = at
#define SNAPSHOT(member, as) AT(IN_SNAPSHOT, as, offsetof(engine_snapshot, member))
#define QUEUE(member, as) SNAPSHOT(scheduler.member, as)
#define FACT(member) AT(IN_FACTS, AS_F64, offsetof(metrics_facts, member))
#define FACT_U64(member) AT(IN_FACTS, AS_U64, offsetof(metrics_facts, member))
#define TENANT(member, as) AT(IN_TENANTS, as, offsetof(tenant_figures, member))
#define COUNT(member) AT(IN_METRICS, AS_U64, offsetof(metrics, count.member))
#define COUNT_US(member) AT(IN_METRICS, AS_US, offsetof(metrics, count.member))
#define EACH(label, name_of, n) .element_label = label, .element_name = name_of, .elements = n
#define TIMES(id, theirs)                                                                                                   \
    AT(IN_METRICS, AS_HISTOGRAM, offsetof(metrics, histograms[id])), .bounds = &histogram_seconds, .vllm_bounds = theirs
#define SIZES(id, theirs)                                                                                                   \
    AT(IN_METRICS, AS_HISTOGRAM, offsetof(metrics, histograms[id])), .bounds = &histogram_tokens, .vllm_bounds = theirs
#define IN_ENGINE(member, ours, theirs) SNAPSHOT(member, AS_HISTOGRAM), .bounds = ours, .vllm_bounds = theirs

const metric_row metric_rows[] = {
    /* ---- how it is ---- */
    {OURS("penstock_health"), GAUGE, NULL, "1 for the state that /live, /health and /ready tell.", FACT(health),
     EACH("state", state_name, HEALTH_COUNT)},
    {OURS("penstock_progress_stands_seconds"), GAUGE, NULL,
     "For how long the engine has had work and finished no operator of it; at stall-timeout it counts as stuck.",
     FACT(stands_s)},
    {OURS("process_start_time_seconds"), GAUGE, NULL, "When the daemon started, Unix time.", FACT(start_time_s)},
    {OURS("process_cpu_seconds_total"), COUNTER, NULL, "CPU time of all threads.", FACT(cpu_s)},
    {OURS("process_resident_memory_bytes"), GAUGE, NULL, "Memory that is in use, mapped weights included.",
     FACT(resident_bytes)},
    {OURS("penstock_build_info"), INFO, NULL, "What is running.", .info = build_info},
    {VLLM("vllm:engine_sleep_state"), GAUGE, "sleep_state=\"awake\"", "Always awake: weights are never put away.",
     FACT(one)},
    {VLLM("vllm:engine_sleep_state"), GAUGE, "sleep_state=\"weights_offloaded\"", NULL, FACT(zero)},
    {VLLM("vllm:engine_sleep_state"), GAUGE, "sleep_state=\"discard_all\"", NULL, FACT(zero)},

    /* ---- who runs and who waits ---- */
    {BOTH("penstock_requests_running", "vllm:num_requests_running"), GAUGE, NULL,
     "Requests that hold KV pages and take part in passes.", QUEUE(running, AS_U32)},
    {BOTH("penstock_requests_waiting", "vllm:num_requests_waiting"), GAUGE, NULL,
     "Requests that were accepted and do not run: new ones, and ones whose memory was taken back.", QUEUE(waiting, AS_U32)},
    {VLLM("vllm:num_requests_waiting_by_reason"), GAUGE, "reason=\"capacity\"",
     "Waiting requests wait for capacity (slots, KV pages, the prompts before them), or because the engine is held.",
     FACT(waiting_capacity)},
    {VLLM("vllm:num_requests_waiting_by_reason"), GAUGE, "reason=\"deferred\"", NULL, FACT(waiting_deferred)},
    {OURS("penstock_waiting_tokens"), GAUGE, NULL, "Prompt tokens of the waiting requests.", QUEUE(waiting_tokens, AS_U64)},
    {OURS("penstock_predicted_wait_seconds"), GAUGE, NULL,
     "How long a request that came now would wait; beyond queue-wait-max it is refused, and Retry-After says so.",
     FACT(wait_s)},
    {OURS("penstock_prompt_tokens_per_second"), GAUGE, NULL, "Rate at which prompts are computed while they are, of late.",
     SNAPSHOT(pace.prompt_rate, AS_F64)},
    {OURS("penstock_step_seconds"), GAUGE, NULL, "Time of a pass that decodes, of late.", SNAPSHOT(pace.step_s, AS_F64)},
    {OURS("penstock_answer_tokens"), GAUGE, NULL, "Tokens of an answer, of late.", SNAPSHOT(pace.answer_tokens, AS_F64)},
    {OURS("penstock_requests_running_max"), GAUGE, NULL, "Most requests that may run at once.", FACT(running_max)},
    {OURS("penstock_requests_waiting_max"), GAUGE, NULL, "Most requests that may wait.", FACT(waiting_max)},
    {OURS("penstock_context_tokens_max"), GAUGE, NULL, "Most tokens of prompt and answer of one request.",
     FACT(context_max)},
    {OURS("penstock_requests_accepted_total"), COUNTER, NULL, "Requests that got a place in the queue.",
     QUEUE(accepted, AS_U64)},
    {BOTH("penstock_requests_finished_total", "vllm:request_success_total"), COUNTER, "finished_reason=\"stop\"",
     "Requests by the way they ended; a prompt with n choices is n requests.", COUNT(finished_stop)},
    {BOTH("penstock_requests_finished_total", "vllm:request_success_total"), COUNTER, "finished_reason=\"length\"", NULL,
     COUNT(finished_length)},
    {BOTH("penstock_requests_finished_total", "vllm:request_success_total"), COUNTER, "finished_reason=\"abort\"", NULL,
     COUNT(finished_abort)},
    {BOTH("penstock_requests_finished_total", "vllm:request_success_total"), COUNTER, "finished_reason=\"error\"", NULL,
     COUNT(finished_error)},
    {BOTH("penstock_requests_refused_total", "vllm:admission_rejections_total"), COUNTER, "reason=\"queue_requests\"",
     "HTTP requests refused before they were queued.", COUNT(refused_queue[QUEUE_FULL_REQUESTS])},
    {BOTH("penstock_requests_refused_total", "vllm:admission_rejections_total"), COUNTER, "reason=\"queue_tokens\"", NULL,
     COUNT(refused_queue[QUEUE_FULL_TOKENS])},
    {BOTH("penstock_requests_refused_total", "vllm:admission_rejections_total"), COUNTER, "reason=\"queue_wait\"", NULL,
     COUNT(refused_queue[QUEUE_FULL_WAIT])},
    {BOTH("penstock_requests_refused_total", "vllm:admission_rejections_total"), COUNTER, "reason=\"draining\"", NULL,
     COUNT(refused_draining)},
    {BOTH("penstock_requests_refused_total", "vllm:admission_rejections_total"), COUNTER, "reason=\"key_limit\"", NULL,
     COUNT(refused_limit)},
    {OURS("penstock_requests_refused_total"), COUNTER, "reason=\"key\"", NULL, COUNT(refused_key)},
    {OURS("penstock_requests_refused_total"), COUNTER, "reason=\"invalid\"", NULL, COUNT(refused_invalid)},
    {BOTH("penstock_preemptions_total", "vllm:num_preemptions_total"), COUNTER, NULL,
     "Times that a running request lost its KV pages.", QUEUE(preempted, AS_U64)},
    {OURS("penstock_displaced_total"), COUNTER, NULL, "Of these, because somebody of a better priority came (displace).",
     QUEUE(displaced, AS_U64)},
    {BOTH("penstock_corrupted_requests_total", "vllm:corrupted_requests_total"), COUNTER, NULL,
     "Requests for which the model computed values that are not numbers.", SNAPSHOT(corrupted, AS_U64)},

    /* ---- whose they are ---- */
    {OURS("penstock_tenant_requests_total"), COUNTER, NULL,
     "HTTP requests by the tenant of their key; beyond 31 tenants, the later ones of the file are (other).",
     TENANT(requests, AS_U64)},
    {OURS("penstock_tenant_refused_total"), COUNTER, NULL, "HTTP requests refused over the limits of the tenant's key.",
     TENANT(refused, AS_U64)},
    {OURS("penstock_tenant_tokens_total"), COUNTER, NULL, "Tokens of prompts and answers by tenant.",
     TENANT(tokens, AS_U64)},
    {OURS("penstock_tenant_requests"), GAUGE, NULL, "HTTP requests of the tenant that are being worked on.",
     TENANT(running, AS_U32)},
    {OURS("penstock_tenants_live"), GAUGE, NULL, "Tenants with requests that wait or run.", QUEUE(tenants, AS_U32)},
    {OURS("penstock_fairness_jain"), GAUGE, NULL,
     "Jain's index of the tenants' device time per second of having prompts to compute, over their weights: 1 if equal, 1/n "
     "if "
     "one of n had all.",
     QUEUE(jain, AS_F64)},
    {OURS("penstock_elders_total"), COUNTER, NULL,
     "Requests that went first because others had passed them for long enough.", QUEUE(elders, AS_U64)},

    /* ---- tokens ---- */
    {BOTH("penstock_prompt_tokens_total", "vllm:prompt_tokens_total"), COUNTER, NULL,
     "Prompt tokens of requests that began to run, however they were come by.", QUEUE(prompt_tokens, AS_U64)},
    {BOTH("penstock_prompt_tokens_by_source_total", "vllm:prompt_tokens_by_source_total"), COUNTER,
     "source=\"local_compute\"", "The same by where they came from.", FACT(prompt_computed)},
    {BOTH("penstock_prompt_tokens_by_source_total", "vllm:prompt_tokens_by_source_total"), COUNTER,
     "source=\"local_cache_hit\"", NULL, QUEUE(prompt_cached_tokens, AS_U64)},
    {VLLM("vllm:prompt_tokens_by_source_total"), COUNTER, "source=\"external_kv_transfer\"", NULL, FACT(zero)},
    {BOTH("penstock_prompt_tokens_cached_total", "vllm:prompt_tokens_cached_total"), COUNTER, NULL,
     "Prompt tokens that were found in the prefix cache.", QUEUE(prompt_cached_tokens, AS_U64)},
    {BOTH("penstock_output_tokens_total", "vllm:generation_tokens_total"), COUNTER, NULL, "Tokens that were drawn.",
     QUEUE(generated_tokens, AS_U64)},
    {OURS("penstock_recomputed_tokens_total"), COUNTER, NULL, "Tokens computed again after a preemption.",
     QUEUE(recomputed_tokens, AS_U64)},

    /* ---- the KV cache ---- */
    {ALL("penstock_kv_cache_use", "vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"), GAUGE, NULL,
     "Share of KV pages held by running requests, 0 to 1.", FACT(kv_use)},
    {BOTH("penstock_kv_cache_info", "vllm:cache_config_info"), INFO, NULL, "Shape of the KV cache.", .info = cache_info},
    {OURS("penstock_kv_pages"), GAUGE, "state=\"held\"", "KV pages by state.", QUEUE(pages_held, AS_U32)},
    {OURS("penstock_kv_pages"), GAUGE, "state=\"cached\"", NULL, QUEUE(pages_cached, AS_U32)},
    {OURS("penstock_kv_pages"), GAUGE, "state=\"free\"", NULL, QUEUE(pages_free, AS_U32)},
    {OURS("penstock_kv_pages_predicted"), GAUGE, NULL,
     "KV pages that the running were predicted to hold at the worst moment to come, when admission past-future last asked.",
     QUEUE(forecast_pages, AS_U64)},
    {OURS("penstock_kv_pages_evicted_total"), COUNTER, NULL, "Cached KV pages given to other requests.",
     QUEUE(pages_evicted, AS_U64)},
    {OURS("penstock_kv_pages_pinned"), GAUGE, NULL, "KV pages held for the next turns of jobs (among the held ones).",
     QUEUE(pages_pinned, AS_U32)},
    {OURS("penstock_pins"), GAUGE, NULL, "Jobs for whose next turn KV pages are held.", QUEUE(pins, AS_U32)},
    {OURS("penstock_pins_made_total"), COUNTER, NULL, "Turns whose KV pages were pinned.", QUEUE(pins_made, AS_U64)},
    {OURS("penstock_pins_ended_total"), COUNTER, "how=\"hit\"",
     "Pins that ended: the next turn came; its time was over; running work took the memory; the job or a turn beside it was "
     "ended.",
     QUEUE(pins_hit, AS_U64)},
    {OURS("penstock_pins_ended_total"), COUNTER, "how=\"expired\"", NULL, QUEUE(pins_expired, AS_U64)},
    {OURS("penstock_pins_ended_total"), COUNTER, "how=\"broken\"", NULL, QUEUE(pins_broken, AS_U64)},
    {OURS("penstock_pins_ended_total"), COUNTER, "how=\"dropped\"", NULL, QUEUE(pins_dropped, AS_U64)},
    {OURS("penstock_pins_refused_total"), COUNTER, NULL, "Turns that were not pinned because a budget was spent.",
     QUEUE(pins_refused, AS_U64)},
    {ALL("penstock_prefix_cache_queries_total", "vllm:prefix_cache_queries_total", "vllm:gpu_prefix_cache_queries_total"),
     COUNTER, NULL, "Tokens looked up in the prefix cache at each admission, also after a preemption.",
     QUEUE(cache_queried_tokens, AS_U64)},
    {ALL("penstock_prefix_cache_hits_total", "vllm:prefix_cache_hits_total", "vllm:gpu_prefix_cache_hits_total"), COUNTER,
     NULL, "Tokens found there.", QUEUE(cache_hit_tokens, AS_U64)},
    {OLD("vllm:gpu_prefix_cache_hit_rate"), GAUGE, NULL, "Tokens found over tokens looked up, since the start.",
     FACT(hit_rate)},

    /* ---- pages on the host (reclaim = swap or auto) ---- */
    {BOTH("penstock_host_cache_use", "vllm:cpu_cache_usage_perc"), GAUGE, NULL,
     "Share of the host's pages that hold a copy of a KV page, 0 to 1.", FACT(host_use)},
    {OURS("penstock_host_pages"), GAUGE, "state=\"used\"",
     "Pages of host memory: that hold a copy; of these, copies that a waiting request will come back to.",
     QUEUE(host_pages_used, AS_U32)},
    {OURS("penstock_host_pages"), GAUGE, "state=\"held\"", NULL, QUEUE(host_pages_held, AS_U32)},
    {BOTH("penstock_requests_swapped", "vllm:num_requests_swapped"), GAUGE, NULL,
     "Waiting requests whose memory was taken back and lies on the host.", QUEUE(swapped, AS_U32)},
    {OURS("penstock_requests_arriving"), GAUGE, NULL, "Running requests that wait for copies of their pages.",
     QUEUE(arriving, AS_U32)},
    {OURS("penstock_page_copies_open"), GAUGE, NULL, "Copies of pages that are queued or under way.",
     QUEUE(copies_open, AS_U32)},
    {OURS("penstock_pages_swapped_total"), COUNTER, "direction=\"out\"", "KV pages copied to host memory, and back.",
     QUEUE(swap_out_pages, AS_U64)},
    {OURS("penstock_pages_swapped_total"), COUNTER, "direction=\"in\"", NULL, QUEUE(swap_in_pages, AS_U64)},
    {OURS("penstock_pages_clean_total"), COUNTER, NULL, "KV pages that needed no copy out, for the host had one already.",
     QUEUE(swap_clean_pages, AS_U64)},
    {OURS("penstock_page_copies_failed_total"), COUNTER, NULL, "Copies that failed; what they were of is computed again.",
     QUEUE(swap_failed_pages, AS_U64)},
    {OURS("penstock_swapped_in_tokens_total"), COUNTER, NULL, "Tokens that came back by copies and were not computed again.",
     QUEUE(swap_in_tokens, AS_U64)},
    {OURS("penstock_page_copy_seconds"), GAUGE, NULL, "Time of a copy of a page, of late.", FACT(page_copy_s)},

    /* ---- the engine ---- */
    {OURS("penstock_passes_total"), COUNTER, NULL, "Passes over the model.", SNAPSHOT(passes_done, AS_U64)},
    {OURS("penstock_operators_total"), COUNTER, NULL, "Operators finished, also of the pass that runs.",
     SNAPSHOT(operators_done, AS_U64)},
    {OURS("penstock_operator_seconds_total"), COUNTER, NULL, "Time inside operators.", SNAPSHOT(device.op_ns, AS_NS),
     EACH("operator", operator_name, OP_KIND_COUNT)},
    {OURS("penstock_host_seconds_total"), COUNTER, NULL, "Time of passes outside operators.",
     SNAPSHOT(host_ns_total, AS_NS)},
    {OURS("penstock_plan_seconds_total"), COUNTER, NULL, "Of that, time spent deciding what runs next.",
     SNAPSHOT(plan_ns_total, AS_NS)},
    {OURS("penstock_step_error_ratio"), GAUGE, NULL,
     "By what share of it the time of a pass was predicted wrongly, moving mean: what orders by time and auto rely on.",
     QUEUE(step_error_share, AS_F64)},
    {OURS("penstock_weight_bytes_read_total"), COUNTER, NULL, "Bytes of weights that operators have read.",
     SNAPSHOT(device.weight_bytes, AS_U64)},
    {OURS("penstock_expert_bytes_read_total"), COUNTER, NULL,
     "Of these, weights of experts, by the experts that rows touched.", SNAPSHOT(device.expert_bytes, AS_U64)},
    {OURS("penstock_weights_bytes"), GAUGE, NULL, "Size of the weights on the device.", SNAPSHOT(weights_bytes, AS_U64)},
    {OURS("penstock_stops_total"), COUNTER, "reason=\"cancelled\"",
     "Passes stopped on their way, because a request in it was cancelled, a more urgent one came, or a token was due.",
     QUEUE(stops_cancelled, AS_U64)},
    {OURS("penstock_stops_total"), COUNTER, "reason=\"outranked\"", NULL, QUEUE(stops_outranked, AS_U64)},
    {OURS("penstock_stops_total"), COUNTER, "reason=\"token_due\"", NULL, QUEUE(stops_token_due, AS_U64)},
    {OURS("penstock_stop_reaction_seconds"), HISTOGRAM, NULL,
     "From what a pass was stopped for to the beginning of the next.",
     IN_ENGINE(stop_reaction_seconds, &histogram_seconds, NULL)},
    {OURS("penstock_stop_reaction_bound_seconds"), GAUGE, NULL,
     "The longest operator of a pass that may be stopped: what a stop waits for at most.", SNAPSHOT(stop_bound_ns, AS_NS)},
    {OURS("penstock_passes_beside_total"), COUNTER, NULL, "Passes of prompts alone while running answers waited.",
     QUEUE(passes_beside, AS_U64)},
    {OURS("penstock_frames_used"), GAUGE, NULL, "Suspended passes.", QUEUE(frames_used, AS_U32)},
    {BOTH("penstock_pass_rows", "vllm:iteration_tokens_total"), HISTOGRAM, NULL,
     "Tokens of a pass, prompts and answers together.", IN_ENGINE(pass_rows, &histogram_rows, &vllm_iteration)},
    {OURS("penstock_pass_seconds"), HISTOGRAM, NULL, "Time of a pass.", IN_ENGINE(pass_seconds, &histogram_seconds, NULL)},

    /* ---- HTTP ---- */
    {OURS("penstock_exchanges"), GAUGE, NULL, "HTTP requests that are being worked on.", COUNT(exchanges)},
    {OURS("penstock_http_answers_total"), COUNTER, NULL, "Answers by status.", COUNT(answers),
     EACH("status", status_class, 6)},
    {OURS("penstock_http_malformed_total"), COUNTER, NULL, "Requests that were not HTTP, too large or too slow.",
     FACT_U64(malformed)},
    {OURS("penstock_log_lines_dropped_total"), COUNTER, NULL,
     "Lines of the log that nobody took in time, or that could not be written.", FACT_U64(log_dropped)},
    {OURS("penstock_http_connections"), GAUGE, NULL, "Open connections.", FACT_U64(connections)},
    {OURS("penstock_http_connections_accepted_total"), COUNTER, NULL, "Connections accepted.",
     FACT_U64(connections_accepted)},
    {OURS("penstock_http_connections_refused_total"), COUNTER, NULL, "Connections over a limit.",
     FACT_U64(connections_refused)},
    {OURS("penstock_http_accept_failures_total"), COUNTER, NULL,
     "Times that no connection could be accepted for want of descriptors or memory; they wait, and it is tried again.",
     FACT_U64(accept_failures)},
    {OURS("penstock_clients_gone_total"), COUNTER, NULL, "Clients that left before their answer was complete.",
     COUNT(clients_gone)},
    {OURS("penstock_readers_too_slow_total"), COUNTER, NULL, "Streams cut off because nobody read them.",
     COUNT(readers_too_slow)},
    {OURS("penstock_unknown_parameters_total"), COUNTER, NULL, "Members of requests that nobody knows.",
     COUNT(unknown_parameters)},

    /* ---- how long it took ---- */
    {BOTH("penstock_time_to_first_token_seconds", "vllm:time_to_first_token_seconds"), HISTOGRAM, NULL,
     "From the arrival of a request to its first token.", TIMES(HIST_TIME_TO_FIRST_TOKEN, &vllm_first)},
    {ALL("penstock_inter_token_latency_seconds", "vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds"),
     HISTOGRAM, NULL, "Between two tokens of one answer.", TIMES(HIST_INTER_TOKEN, &vllm_token)},
    {BOTH("penstock_request_time_per_output_token_seconds", "vllm:request_time_per_output_token_seconds"), HISTOGRAM, NULL,
     "Mean time per token after the first, of one answer.", TIMES(HIST_TIME_PER_TOKEN, &vllm_token)},
    {BOTH("penstock_request_seconds", "vllm:e2e_request_latency_seconds"), HISTOGRAM, NULL,
     "From arrival to the end of the answer.", TIMES(HIST_END_TO_END, &vllm_request)},
    {OURS("penstock_request_prepare_seconds"), HISTOGRAM, NULL, "Reading, rendering and tokenizing a request.",
     TIMES(HIST_PREPARE, NULL)},
    {BOTH("penstock_request_queue_seconds", "vllm:request_queue_time_seconds"), HISTOGRAM, NULL,
     "From the queue to the first pass.", TIMES(HIST_QUEUE, &vllm_request)},
    {BOTH("penstock_request_prefill_seconds", "vllm:request_prefill_time_seconds"), HISTOGRAM, NULL,
     "From the first pass to the first token.", TIMES(HIST_PREFILL, &vllm_request)},
    {BOTH("penstock_request_decode_seconds", "vllm:request_decode_time_seconds"), HISTOGRAM, NULL,
     "From the first token to the last.", TIMES(HIST_DECODE, &vllm_request)},
    {BOTH("penstock_request_inference_seconds", "vllm:request_inference_time_seconds"), HISTOGRAM, NULL,
     "From the first pass to the last token.", TIMES(HIST_INFERENCE, &vllm_request)},
    {OURS("penstock_request_part_seconds_total"), COUNTER, NULL,
     "Time of requests that have ended, by what it went into; the parts add up to the time between queue and end.",
     COUNT_US(ledger_us), EACH("part", part_name, LEDGER_PARTS)},

    /* ---- how large it was ---- */
    {BOTH("penstock_request_prompt_tokens", "vllm:request_prompt_tokens"), HISTOGRAM, NULL, "Tokens of a prompt.",
     SIZES(HIST_PROMPT_TOKENS, &histogram_tokens)},
    {BOTH("penstock_request_computed_tokens", "vllm:request_prefill_kv_computed_tokens"), HISTOGRAM, NULL,
     "Tokens of a prompt that were not found in the cache.", SIZES(HIST_COMPUTED_TOKENS, &histogram_tokens)},
    {BOTH("penstock_request_output_tokens", "vllm:request_generation_tokens"), HISTOGRAM, NULL, "Tokens of an answer.",
     SIZES(HIST_OUTPUT_TOKENS, &histogram_tokens)},
    {BOTH("penstock_request_longest_output_tokens", "vllm:request_max_num_generation_tokens"), HISTOGRAM, NULL,
     "Tokens of the longest of the answers to one HTTP request.", SIZES(HIST_LONGEST_OUTPUT, &histogram_tokens)},
    {BOTH("penstock_request_max_tokens", "vllm:request_params_max_tokens"), HISTOGRAM, NULL,
     "The most tokens a request asked for.", SIZES(HIST_MAX_TOKENS, &histogram_tokens)},
    {BOTH("penstock_request_choices", "vllm:request_params_n"), HISTOGRAM, NULL, "Answers asked for per prompt.",
     SIZES(HIST_N, &vllm_choices)},
};
const size_t metric_row_count = sizeof metric_rows / sizeof *metric_rows;
