/* scheduler/policy.h: five questions, each answered by a small table of functions.
 *
 * The axes stay independent because each is told little. plan.c alone composes them. A new policy is a new table in a file
 * of its axis, its row in config.c, and its word in server/settings.c.
 *
 *     order.h            who goes first?                     sees one request, what is predicted of it and the time
 *     admission.h        may this one enter?                 sees pages in numbers; never reorders
 *     slicing.h          how is a prompt cut?                sees a budget and one piece; never chooses the prompt
 *     preemption.h       when does a running pass yield?     sees who wants in and what is left of the pass
 *     reclaim.h          how is memory taken back?           sees pages and times; from whom is the order's matter
 *     kvcache/retention.h  what stays cached?                sees pages that nobody holds; never running work
 *
 * Two models serve them all: step_model.h predicts the time of a pass, length_model.h the length of an answer. */
#pragma once
#include "kvcache/retention.h"
#include "scheduler/admission.h"
#include "scheduler/order.h"
#include "scheduler/preemption.h"
#include "scheduler/reclaim.h"
#include "scheduler/scheduler.h"
#include "scheduler/slicing.h"

typedef struct {
    const order_api      *order;
    const admission_api  *admission;
    const slicing_api    *slicing;
    const preemption_api *preemption;
    const reclaim_api    *reclaim;
    const retention_api  *retention;
} policy_set;

policy_set policies_of(const scheduler_config *c);                        /* of a checked one */
int        scheduler_config_check(const scheduler_config *c, error *err); /* OK, or a sentence */
