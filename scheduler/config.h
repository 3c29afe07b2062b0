/* scheduler/config.h: what a scheduler is made with: its bounds, and for each axis the policy and its parameters.
 *
 * Each axis has one struct, so that a new parameter is one field here, one row of limits in config.c (or of defaults, where
 * 0 stands for one) and one row in server/settings.c. All values of an enum are listed; the ones that are not built in are
 * refused by scheduler_new with a sentence and offered by nobody: scheduler_policy_find knows only what works. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

typedef enum {
    AXIS_ORDER,
    AXIS_ADMISSION,
    AXIS_SLICING,
    AXIS_PREEMPTION,
    AXIS_RECLAIM,
    AXIS_RETENTION,
    AXIS_COUNT
} policy_axis;

/* who goes first */
typedef enum { ORDER_FCFS, ORDER_PRIORITY, ORDER_DEADLINE, ORDER_SRPT, ORDER_JOB, ORDER_GOODPUT, ORDER_COUNT } order_policy;
typedef struct {
    order_policy policy;
    uint32_t     age_ms; /* priority: how long a wait one level is worth; 0: 30,000 */
} order_config;

/* around the order: whose turn is it */
typedef struct {
    bool     turns;       /* tenants take turns, by device time over their weight */
    uint32_t tenants_max; /* told apart at once; 0: 256 */
} fair_config;

/* who may enter */
typedef enum { ADMISSION_GREEDY, ADMISSION_CONSERVATIVE, ADMISSION_PAST_FUTURE, ADMISSION_COUNT } admission_policy;
typedef struct {
    admission_policy policy;
    /* past-future: answers are taken to be so long that this share of such answers is no longer; 0: QUANTILE_PERCENT */
    uint32_t quantile_percent;
    uint32_t reserve_percent; /* past-future: of the pages, for what the prediction misses; 0: RESERVE_PERCENT */
} admission_config;
enum { QUANTILE_PERCENT = 70, RESERVE_PERCENT = 5 };

/* how a prompt is cut */
typedef enum { SLICING_CHUNKED, SLICING_WHOLE, SLICING_LAYERED, SLICING_AUTO, SLICING_COUNT } slicing_policy;
typedef enum { SLICING_BUDGET_FIXED, SLICING_BUDGET_DEADLINE } slicing_budget;
typedef struct {
    slicing_policy policy;
    slicing_budget budget;       /* of prompts in one pass while decodes run */
    uint32_t       chunk_tokens; /* the fixed one: rows, each weighted with the share of the layers that it walks */
    uint32_t       short_tokens; /* prompts with at most so many to compute share no pass with longer ones; 0: off */
} slicing_config;

/* when does a running pass yield */
typedef enum { PREEMPTION_NONE, PREEMPTION_OPERATOR, PREEMPTION_COUNT } preemption_policy;
typedef struct {
    preemption_policy policy;
    uint32_t          batch_tokens; /* operator: prompts share a pass of prefill up to so many rows; 0: BATCH_TOKENS */
    bool              decodes_wait; /* operator: decodes with a token deadline wait for prompts as long as it allows */
} preemption_config;
enum { BATCH_TOKENS = 256 }; /* more rows at once than this read no weight less often per row */

/* how is memory taken back from running work */
typedef enum { RECLAIM_RECOMPUTE, RECLAIM_SWAP, RECLAIM_AUTO, RECLAIM_COUNT } reclaim_policy;
typedef struct {
    reclaim_policy policy;
    bool           displaces;    /* order priority: who is a level behind gives its memory to who waits */
    uint32_t       host_pages;   /* swap and auto: pages of host memory */
    uint32_t       copies_max;   /* in flight or queued at once; 0: 4,096 */
    double         page_copy_us; /* what a copy of a page takes, until it has been measured; 0: 100 */
} reclaim_config;

/* what stays cached */
typedef enum { RETENTION_LRU, RETENTION_TTL, RETENTION_WORKFLOW, RETENTION_COUNT } retention_policy;
typedef struct {
    retention_policy policy;
    bool             prefix_cache; /* false: nothing does */
    /* ttl and workflow: how long a turn's pages are pinned, and how many may be (retain.h) */
    uint64_t ttl_us;                            /* fixed; 0: two seconds */
    bool     ttl_fitted;                        /* to the gaps of each tool instead */
    uint32_t pins_percent, tenant_pins_percent; /* of all pages, of all pins and of a tenant's; 0: 50, 50 */
} retention_config;

/* What the scheduler is told of the model: how large its rectangle is, where it may be cut, what a row touches. */
typedef struct {
    uint32_t        op_count; /* operators of the program; slices cover [0, op_count) in the end */
    const uint32_t *op_cuts;  /* rising operators in (0, op_count) where a planned slice may end: layers; copied */
    uint32_t        op_cut_count;
    uint32_t        experts, experts_per_row; /* of one layer; 0: dense */
} model_shape;

typedef struct {
    /* bounds */
    uint32_t running_max;        /* sequences that hold pages at once */
    uint32_t waiting_max;        /* accepted and not yet running */
    uint32_t waiting_tokens_max; /* prompt tokens among the waiting; 0: no bound */
    uint32_t context_max;        /* prompt + output of one sequence */
    uint32_t batch_tokens_max;   /* rows of one pass; > running_max, so that decodes never take them all */
    uint32_t page_count, page_tokens;
    /* Suspended passes, and the rows of one; 0, 0: nothing is ever suspended. A pass with a slice wider than frame_tokens
     * cannot be stopped, so batch_tokens_max is its natural size. */
    uint32_t frame_count, frame_tokens;
    uint32_t jobs_max; /* jobs remembered between their requests; 0: 4096 */
    uint64_t seed;     /* of every hash and draw */

    model_shape       model;
    order_config      order;
    fair_config       fair;
    admission_config  admission;
    slicing_config    slicing;
    preemption_config preemption;
    reclaim_config    reclaim;
    retention_config  retention;
} scheduler_config;

/* "srpt"; NULL: no such value. The name is there whether or not it is built in. */
const char *scheduler_policy_name(policy_axis axis, uint32_t value);
/* The value with this name among those that are built in; -1: none. */
int scheduler_policy_find(policy_axis axis, const char *name);

/* Choices that do not go together. */
typedef struct {
    bool (*is)(const scheduler_config *c); /* of one whose numbers are within their limits */
    bool        refused;                   /* else doubted: it works, and is hardly what was meant */
    const char *choices, *sentence;        /* which, for the docs; why, and what to do */
} scheduler_combination;
const scheduler_combination *scheduler_combinations(uint32_t *count);
const char                  *scheduler_config_nonsense(const scheduler_config *c); /* why it is refused; NULL: it is not */
const char *scheduler_config_doubt(const scheduler_config *c, uint32_t i);         /* the i-th doubt; NULL: no more */
