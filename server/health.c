#include "server/health.h"

#include <stdio.h>

#include "base/clock.h"
#include "server/service.h"

const health_row health_rows[HEALTH_COUNT] = {
    [HEALTH_LOADING] = {"loading", true, false, false, "the model is being loaded"},
    [HEALTH_IDLE] = {"idle", true, true, true, "nothing to do"},
    [HEALTH_BUSY] = {"busy", true, true, true, "the engine works, and finishes operators"},
    [HEALTH_PAUSED] = {"paused", true, true, false, "the operator has new requests turned away, or the engine held"},
    [HEALTH_DRAINING] = {"draining", true, false, false, "what was accepted is finished, nothing new is taken"},
    [HEALTH_STUCK] = {"stuck", false, false, false, "the engine has had work for `stall-timeout` and finished no operator"},
    [HEALTH_FAILED] = {"failed", false, false, false, "the device reported an error; the daemon ends with status 70"},
};

/* Of an engine that is held, none is expected but the pass that runs. */
static bool has_work(const engine_snapshot *s) {
    return s->pass_started_us || (!s->held && (s->scheduler.running || s->scheduler.waiting));
}

uint64_t progress_stands_us(progress_watch *w, const engine_snapshot *s, uint64_t now_us) {
    const uint64_t mark = s->operators_done + s->passes_done;
    if (mark != w->mark || !has_work(s)) w->mark = mark, w->since_us = now_us;
    return now_us - w->since_us;
}

health_state service_health(service *sv, engine_snapshot *out) {
    *out = (engine_snapshot){0};
    if (sv->phase == PHASE_LOADING) return HEALTH_LOADING;
    engine_read_snapshot(sv->engine, out);
    if (out->failed[0]) return HEALTH_FAILED;
    if (progress_stands_us(&sv->progress, out, clock_us()) > sv->config->stall_us) return HEALTH_STUCK;
    if (sv->phase == PHASE_DRAINING) return HEALTH_DRAINING;
    if (sv->paused || out->held) return HEALTH_PAUSED;
    return has_work(out) ? HEALTH_BUSY : HEALTH_IDLE;
}

bool service_is_stuck(service *sv) {
    engine_snapshot s;
    return !health_rows[service_health(sv, &s)].live;
}

void service_status(service *sv, char *out, size_t size) {
    engine_snapshot        s;
    const health_state     state = service_health(sv, &s);
    const scheduler_stats *q = &s.scheduler;
    if (state == HEALTH_LOADING) snprintf(out, size, "loading %s", sv->model_name);
    else if (state == HEALTH_FAILED) snprintf(out, size, "failed: %s", s.failed);
    else
        snprintf(out, size, "%s %s: %u running, %u waiting, %.0f %% of KV pages held",
                 state == HEALTH_DRAINING ? "draining"
                 : state == HEALTH_PAUSED ? "paused,"
                 : state == HEALTH_STUCK  ? "STUCK with"
                                          : "serving",
                 sv->model_name, q->running, q->waiting, q->pages_total ? 100.0 * q->pages_held / q->pages_total : 0.0);
}
