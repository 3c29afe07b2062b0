/* scheduler/config.c: the policies by name, and the limits of every number; combinations.c says what goes together. */
#include "scheduler/config.h"

#include <stddef.h>
#include <string.h>

#include "scheduler/policy.h"

/* ---- policies by number and by name ---- */

typedef struct {
    const char *name;
    const void *table; /* of functions; NULL: not built in */
} policy_row;

static const policy_row orders[ORDER_COUNT] = {
    [ORDER_FCFS] = {"fcfs", &order_fcfs},
    [ORDER_PRIORITY] = {"priority", &order_priority},
    [ORDER_DEADLINE] = {"deadline", &order_deadline},
    [ORDER_SRPT] = {"srpt", &order_srpt},
    [ORDER_JOB] = {"job", &order_job},
    [ORDER_GOODPUT] = {"goodput", &order_goodput},
};
static const policy_row admissions[ADMISSION_COUNT] = {
    [ADMISSION_GREEDY] = {"greedy", &admission_greedy},
    [ADMISSION_CONSERVATIVE] = {"conservative", &admission_conservative},
    [ADMISSION_PAST_FUTURE] = {"past-future", &admission_past_future},
};
static const policy_row slicings[SLICING_COUNT] = {
    [SLICING_CHUNKED] = {"chunked", &slicing_chunked},
    [SLICING_WHOLE] = {"whole", &slicing_whole},
    [SLICING_LAYERED] = {"layered", &slicing_layered},
    [SLICING_AUTO] = {"auto", &slicing_auto},
};
static const policy_row preemptions[PREEMPTION_COUNT] = {
    [PREEMPTION_NONE] = {"none", &preemption_none},
    [PREEMPTION_OPERATOR] = {"operator", &preemption_operator},
};
static const policy_row reclaims[RECLAIM_COUNT] = {
    [RECLAIM_RECOMPUTE] = {"recompute", &reclaim_recompute},
    [RECLAIM_SWAP] = {"swap", &reclaim_swap},
    [RECLAIM_AUTO] = {"auto", &reclaim_auto},
};
static const policy_row retentions[RETENTION_COUNT] = {
    [RETENTION_LRU] = {"lru", &retention_lru},
    [RETENTION_TTL] = {"ttl", &retention_lru},
    [RETENTION_WORKFLOW] = {"workflow", &retention_workflow},
};

static const struct {
    const char       *name;
    const policy_row *rows;
    uint32_t          count;
} axes[AXIS_COUNT] = {
    [AXIS_ORDER] = {"order", orders, ORDER_COUNT},         [AXIS_ADMISSION] = {"admission", admissions, ADMISSION_COUNT},
    [AXIS_SLICING] = {"slicing", slicings, SLICING_COUNT}, [AXIS_PREEMPTION] = {"preemption", preemptions, PREEMPTION_COUNT},
    [AXIS_RECLAIM] = {"reclaim", reclaims, RECLAIM_COUNT}, [AXIS_RETENTION] = {"retention", retentions, RETENTION_COUNT},
};

const char *scheduler_policy_name(policy_axis axis, uint32_t value) {
    return value < axes[axis].count ? axes[axis].rows[value].name : NULL;
}

int scheduler_policy_find(policy_axis axis, const char *name) {
    for (uint32_t i = 0; i < axes[axis].count; i++)
        if (axes[axis].rows[i].table && strcmp(axes[axis].rows[i].name, name) == 0) return (int)i;
    return -1;
}

policy_set policies_of(const scheduler_config *c) {
    return (policy_set){.order = orders[c->order.policy].table,
                        .admission = admissions[c->admission.policy].table,
                        .slicing = slicings[c->slicing.policy].table,
                        .preemption = preemptions[c->preemption.policy].table,
                        .reclaim = reclaims[c->reclaim.policy].table,
                        .retention = retentions[c->retention.policy].table};
}

/* ---- limits ---- */

static const struct {
    const char *name;
    size_t      offset;
    uint32_t    min, max;
} limits[] = {
#define LIMIT(name, min, max)                                                                                               \
    { #name, offsetof(scheduler_config, name), min, max }
    LIMIT(running_max, 1, 1 << 16),
    LIMIT(waiting_max, 1, 1 << 24),
    LIMIT(context_max, 2, 1 << 28),
    LIMIT(batch_tokens_max, 2, 1 << 22),
    LIMIT(slicing.chunk_tokens, 1, 1 << 22),
    LIMIT(slicing.short_tokens, 0, 1 << 22),
    LIMIT(page_count, 1, (1 << 30) - 1),
    LIMIT(page_tokens, 1, 1 << 12),
    LIMIT(frame_count, 0, 1 << 16),
    LIMIT(frame_tokens, 0, 1 << 22),
    LIMIT(model.op_count, 1, 1 << 20),
    LIMIT(jobs_max, 0, 1 << 24),
    LIMIT(retention.pins_percent, 0, 100),
    LIMIT(retention.tenant_pins_percent, 0, 100),
    LIMIT(order.age_ms, 0, UINT32_MAX),
    LIMIT(fair.tenants_max, 0, 1 << 15),
    LIMIT(reclaim.host_pages, 0, (1 << 30) - 1),
    LIMIT(reclaim.copies_max, 0, 1 << 20),
    LIMIT(admission.quantile_percent, 0, 99),
    LIMIT(admission.reserve_percent, 0, 90),
#undef LIMIT
};

static int check_limits(const scheduler_config *c, error *err) {
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        uint32_t value;
        memcpy(&value, (const char *)c + limits[i].offset, sizeof value);
        if (value < limits[i].min || value > limits[i].max)
            return error_set(err, ERR_INVALID, "scheduler: %s is %u; it must be from %u to %u", limits[i].name, value,
                             limits[i].min, limits[i].max);
    }
    if (c->batch_tokens_max <= c->running_max)
        return error_set(
            err, ERR_INVALID,
            "scheduler: batch_tokens_max (%u) must exceed running_max (%u), or decodes leave no row for prompts",
            c->batch_tokens_max, c->running_max);
    if ((c->frame_count == 0) != (c->frame_tokens == 0))
        return error_set(err, ERR_INVALID, "scheduler: %u frames of %u tokens make no sense; give both or neither",
                         c->frame_count, c->frame_tokens);
    return OK;
}

static int check_model(const scheduler_config *c, error *err) {
    const model_shape *m = &c->model;
    if (m->op_cut_count > 0 && !m->op_cuts) return error_set(err, ERR_INVALID, "scheduler: op_cuts is missing");
    for (uint32_t i = 0; i < m->op_cut_count; i++)
        if (m->op_cuts[i] <= (i ? m->op_cuts[i - 1] : 0) || m->op_cuts[i] >= m->op_count)
            return error_set(err, ERR_INVALID, "scheduler: op_cuts[%u] is %u; cuts must rise and lie inside %u operators", i,
                             m->op_cuts[i], m->op_count);
    if (m->experts_per_row > m->experts)
        return error_set(err, ERR_INVALID, "scheduler: a row cannot use %u of %u experts", m->experts_per_row, m->experts);
    return OK;
}

static int check_policies(const scheduler_config *c, error *err) {
    const uint32_t chosen[AXIS_COUNT] = {
        [AXIS_ORDER] = c->order.policy,     [AXIS_ADMISSION] = c->admission.policy,   [AXIS_SLICING] = c->slicing.policy,
        [AXIS_RECLAIM] = c->reclaim.policy, [AXIS_PREEMPTION] = c->preemption.policy, [AXIS_RETENTION] = c->retention.policy,
    };
    for (uint32_t i = 0; i < AXIS_COUNT; i++) {
        if (chosen[i] >= axes[i].count)
            return error_set(err, ERR_UNSUPPORTED, "scheduler: there is no %s policy number %u", axes[i].name, chosen[i]);
        if (!axes[i].rows[chosen[i]].table)
            return error_set(err, ERR_UNSUPPORTED, "scheduler: the %s policy '%s' is not built in; take '%s'", axes[i].name,
                             axes[i].rows[chosen[i]].name, axes[i].rows[0].name);
    }
    const char *nonsense = scheduler_config_nonsense(c);
    if (nonsense) return error_set(err, ERR_CONFIG, "scheduler: %s", nonsense);
    return OK;
}

int scheduler_config_check(const scheduler_config *c, error *err) {
    int status = check_limits(c, err);
    if (status == OK) status = check_model(c, err);
    if (status == OK) status = check_policies(c, err);
    return status;
}
