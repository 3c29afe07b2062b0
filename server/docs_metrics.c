/* server/docs_metrics.c: docs/metrics.md, from the tables of health.c and metrics_table.c. */
#include <string.h>

#include "server/docs.h"
#include "server/metrics.h"

static void write_health(buf *out) {
    buf_str(out, "## Health\n\n"
                 "| state | `/live` | `/health` | `/ready` | |\n|---|---|---|---|---|\n");
    for (int i = 0; i < HEALTH_COUNT; i++) {
        const health_row *h = &health_rows[i];
        buf_printf(out, "| %s | %d | %d | %d | %s |\n", h->name, h->live ? 200 : 503, h->healthy ? 200 : 503,
                   h->ready ? 200 : 503, h->meaning);
    }
    buf_str(
        out,
        "\nRestart what fails `/live`; send no requests to what fails `/health` or `/ready`. Each answers with the state "
        "and\n"
        "some figures as JSON: `{\"status\":\"busy\",\"running\":3,\"waiting\":1,...}`.\n\n"
        "The state comes from what the engine has done: it counts every operator that it finishes, also in the middle of a\n"
        "pass. A prompt whose pass takes a minute is busy; an engine that has work and finishes no operator for\n"
        "`stall-timeout` is stuck, and is noticed within `stall-timeout` and a quarter of a second. The watchdog of systemd "
        "is\n"
        "fed by the same judgement. Nothing is ever injected into the engine to find out.\n\n"
        "These pages and `/metrics` are answered from memory by a thread that waits for nobody, so they answer while the\n"
        "engine is stuck, too. To see it: start a daemon with `PENSTOCK_FAULT=freeze@3` in its environment, and its third\n"
        "pass never ends (`fail@3` reports an error, `slow:50` makes each operator take 50 ms longer; for tests only).\n\n");
}

static void write_name(const char *name, buf *out) {
    if (name) buf_printf(out, "`%s`", name);
}

static bool same_name(const metric_row *a, const metric_row *b) {
    for (int i = 0; i < DIALECT_COUNT; i++)
        if (a->names[i] && b->names[i] && strcmp(a->names[i], b->names[i]) == 0) return true;
    return false;
}

/* The labels of all rows of one name: reason: a, b, c. */
static void write_labels(const metric_row *row, buf *out) {
    const metric_row *const end = metric_rows + metric_row_count, *const first = row;
    if (row->info) buf_str(out, "what it says");
    if (row->place == IN_TENANTS) buf_str(out, "tenant: one each, where there are keys");
    if (row->elements) buf_printf(out, "%s: one each", row->element_label);
    for (; row < end && row->labels && same_name(row, first); row++) {
        const char *equals = strchr(row->labels, '=');
        if (row == first) buf_printf(out, "%.*s: ", (int)(equals - row->labels), row->labels);
        buf_printf(out, "%s%.*s", row == first ? "" : ", ", (int)strlen(equals + 2) - 1, equals + 2);
    }
}

static void write_table(buf *out) {
    static const char *const kinds[] = {"counter", "gauge", "histogram", "info"};
    buf_str(out, "| ours | vLLM's | kind | labels | meaning |\n|---|---|---|---|---|\n");
    for (size_t i = 0; i < metric_row_count; i++) {
        const metric_row *row = &metric_rows[i];
        if (!row->help) continue; /* goes on with the row before */
        buf_str(out, "| "), write_name(row->names[DIALECT_NATIVE], out);
        buf_str(out, " | "), write_name(row->names[DIALECT_VLLM], out);
        if (row->names[DIALECT_VLLM_OLD]) {
            buf_str(out, row->names[DIALECT_VLLM] ? ", old: " : "old: ");
            write_name(row->names[DIALECT_VLLM_OLD], out);
        }
        buf_printf(out, " | %s | ", kinds[row->kind]);
        write_labels(row, out);
        buf_printf(out, " | %s |\n", metrics_help(row));
    }
}

static void write_overload(buf *out) {
    buf_str(
        out,
        "## Overload\n\n"
        "What cannot be served in time is refused while that is cheap, before anything is answered 200: beyond "
        "`waiting-max`\n"
        "requests, beyond `waiting-tokens-max` prompt tokens, and beyond `queue-wait-max`, which is a time. The wait of a\n"
        "newcomer is predicted from the pace of late (`engine/overload.h`): the prompts that go before it, at the rate at "
        "which\n"
        "prompts were computed; and slots or KV pages, at the rate at which answers end. Before it go all who wait, as if "
        "first\n"
        "come were first served; with `order` `priority` only those whose priority is no higher a number, by sign. What "
        "another\n"
        "order, or a tenant's turn, makes of it is not foreseen. `Retry-After` is that prediction,\n"
        "from 1 to 119 s (OpenAI's clients give up where they shall wait for 120), and `penstock_predicted_wait_seconds` "
        "tells\n"
        "it. So at three times what it can do the daemon answers as many in time as at capacity. For people who wait, set\n"
        "`queue-wait-max` to what they put up with; the default only refuses what would time out anyway.\n\n");
}

void docs_metrics(buf *out) {
    buf_str(out, "# Health and metrics\n\n"
                 "Printed by `make docs` from the tables in `server/health.c` and `server/metrics_table.c`; edit those, not "
                 "this.\n\n");
    write_health(out);
    write_overload(out);
    buf_str(
        out,
        "## Metrics\n\n"
        "`/metrics` is Prometheus' text format. Each number is kept once and told under our name and under vLLM's, so that\n"
        "dashboards, autoscalers and routers made for vLLM need no change (`metrics-dialects` leaves one of the two out,\n"
        "`metrics-old-names` adds what vLLM called some of them before). vLLM's series carry `model_name` and "
        "`engine=\"0\"`\n"
        "and have its buckets; ours have no labels but those below, and buckets from 100 us on. Token histograms under\n"
        "vLLM's names end at the context's length. `vllm:lora_requests_info`, the `spec_decode`, `external_prefix_cache`,\n"
        "`mm_cache` and `kv_block` series are left out: what they count does not exist here. [alerts.yml](alerts.yml) "
        "holds\n"
        "rules for Prometheus to begin with.\n\n");
    write_table(out);
}
