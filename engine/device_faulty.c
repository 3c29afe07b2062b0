/* A device that misbehaves on order, around one that does not: how tests see what becomes of a daemon whose device hangs,
 * fails in the middle of a pass, or is merely slow.
 *
 *     PENSTOCK_FAULT=freeze@3          the third pass stops for good in its middle operator
 *     PENSTOCK_FAULT=freeze@3:2000     ... and goes on after 2,000 ms
 *     PENSTOCK_FAULT=fail@3            ... reports an error
 *     PENSTOCK_FAULT=slow:50           every operator takes 50 ms longer
 *     PENSTOCK_FAULT=lose:3            every third copy of a page is reported as failed
 *
 * For tests alone: it is an environment variable so that no configuration file can hold it, and the log says so at start. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "engine/device.h"

typedef enum { FAULT_FREEZE, FAULT_FAIL, FAULT_SLOW, FAULT_LOSE } fault_kind;

static const struct {
    const char *name;
    fault_kind  kind;
    bool        in_a_pass; /* names one, with @ */
} fault_kinds[] = {
    {"freeze", FAULT_FREEZE, true}, {"fail", FAULT_FAIL, true}, {"slow", FAULT_SLOW, false}, {"lose", FAULT_LOSE, false}};
enum { FAULT_KINDS = sizeof fault_kinds / sizeof *fault_kinds };

static struct {
    const device_api *inner;
    fault_kind        kind;
    uint64_t          pass;
    unsigned long     ms; /* 0: for good. lose: every so manieth */
} order;

/* The device inside is of the type that `order.inner` knows. */
struct device {
    device  *inner;
    uint32_t op_count;
    uint64_t passes; /* collected */
};

static void sleep_ms(unsigned long ms) {
    nanosleep(&(struct timespec){(time_t)(ms / 1000), (long)(ms % 1000) * 1000000}, NULL);
}

static void freeze(void) {
    log_warn("engine", "PENSTOCK_FAULT: pass %llu stands still", (unsigned long long)order.pass);
    if (order.ms) return sleep_ms(order.ms);
    for (;;) sleep_ms(1000);
}

static bool faulty_available(char *why, size_t why_size) { return order.inner->available(why, why_size); }
static int  faulty_plan(const model_facts *f, const program *p, const device_config *c, memory_plan *out, error *err) {
     return order.inner->plan_memory(f, p, c, out, err);
}
static int faulty_open(device **out, const checkpoint *c, const program *p, const device_config *config, error *err) {
    device *d = calloc(1, sizeof *d);
    if (!d) fatal("out of memory for a device");
    d->op_count = p->op_count;
    const int status = order.inner->open(&d->inner, c, p, config, err);
    if (status == OK) *out = d;
    else free(d);
    return status;
}
static void faulty_close(device *d) {
    order.inner->close(d->inner);
    free(d);
}
static int faulty_bind(device *d, const batch *b, error *err) { return order.inner->bind(d->inner, b, err); }

static int faulty_run_op(device *d, uint32_t op_index, error *err) {
    const bool now = d->passes + 1 == order.pass && op_index == d->op_count / 2;
    if (order.kind == FAULT_SLOW) sleep_ms(order.ms);
    if (now && order.kind == FAULT_FAIL) return error_set(err, ERR_DEVICE, "PENSTOCK_FAULT asked for a failure");
    if (now && order.kind == FAULT_FREEZE) freeze();
    return order.inner->run_op(d->inner, op_index, err);
}

static int faulty_save(device *d, uint16_t live, uint32_t row, uint32_t count, uint32_t frame, uint32_t frame_row) {
    return order.inner->save_rows(d->inner, live, row, count, frame, frame_row);
}
static int faulty_load(device *d, uint16_t live, uint32_t row, uint32_t count, uint32_t frame, uint32_t frame_row) {
    return order.inner->load_rows(d->inner, live, row, count, frame, frame_row);
}
static int faulty_move(device *d, uint16_t live, uint32_t from_row, uint32_t to_row, uint32_t count) {
    return order.inner->move_rows(d->inner, live, from_row, to_row, count);
}
static int faulty_collect(device *d, sampled *out, error *err) {
    d->passes++;
    return order.inner->collect(d->inner, out, err);
}
static int faulty_copy_pages(device *d, const page_copy *copies, uint32_t count, error *err) {
    return order.inner->copy_pages(d->inner, copies, count, err);
}
static int      faulty_await_copy(device *d, uint64_t id, error *err) { return order.inner->await_copy(d->inner, id, err); }
static uint32_t faulty_copies_done(device *d, bool wait, copied_page *out, uint32_t max) {
    const uint32_t n = order.inner->copies_done(d->inner, wait, out, max);
    for (uint32_t i = 0; i < n && order.kind == FAULT_LOSE; i++) out[i].ok = out[i].id % order.ms != 0;
    return n;
}
static int faulty_read_logits(device *d, uint32_t output, float *out) {
    return order.inner->read_logits(d->inner, output, out);
}
static void     faulty_read_stats(const device *d, device_stats *out) { order.inner->read_stats(d->inner, out); }
static uint64_t faulty_now_us(const device *d) { return order.inner->now_us(d->inner); }

static device_api faulty = {
    .available = faulty_available,
    .plan_memory = faulty_plan,
    .open = faulty_open,
    .close = faulty_close,
    .bind = faulty_bind,
    .run_op = faulty_run_op,
    .save_rows = faulty_save,
    .load_rows = faulty_load,
    .move_rows = faulty_move,
    .collect = faulty_collect,
    .copy_pages = faulty_copy_pages,
    .await_copy = faulty_await_copy,
    .copies_done = faulty_copies_done,
    .read_logits = faulty_read_logits,
    .read_stats = faulty_read_stats,
    .now_us = faulty_now_us,
};

static int read_order(const char *text, error *err) {
    for (int i = 0; i < FAULT_KINDS; i++) {
        const size_t       n = strlen(fault_kinds[i].name);
        unsigned long long pass = 0;
        int                used = 0;
        if (strncmp(text, fault_kinds[i].name, n) != 0) continue;
        const char *rest = text + n;
        order.kind = fault_kinds[i].kind, order.ms = 0;
        if (fault_kinds[i].in_a_pass && (sscanf(rest, "@%llu%n", &pass, &used) != 1 || pass == 0)) break;
        rest += used, used = 0;
        order.pass = pass;
        if (*rest && (sscanf(rest, ":%lu%n", &order.ms, &used) != 1 || rest[used])) break;
        if (order.kind == FAULT_LOSE && order.ms == 0) break;
        return OK;
    }
    return error_set(err, ERR_USAGE,
                     "PENSTOCK_FAULT is '%.100s'; it may be freeze@PASS, freeze@PASS:MS, fail@PASS, slow:MS or lose:N",
                     text);
}

int device_misbehave(const device_api **api, error *err) {
    const char *text = getenv("PENSTOCK_FAULT");
    if (!text || !*text) return OK;
    if (read_order(text, err) != OK) return err->code;
    log_warn("engine", "PENSTOCK_FAULT=%s: the %s device will misbehave on purpose", text, (*api)->name);
    order.inner = *api;
    faulty.name = (*api)->name;
    *api = &faulty;
    return OK;
}
