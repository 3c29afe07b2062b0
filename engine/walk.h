/* engine/walk.h: walks a plan's slices down the program together, on any device.
 *
 * At each operator the rows of all slices that cover it form one batch. Rows join where their slice begins, leave into
 * their frame where it ends, and once the last K and V are written only the rows whose next token is drawn go on. A pass
 * that is stopped is its slices and their frames; walking the same slices again from there is all that resuming takes.
 * Where more rows need logits than a device holds at once (a prompt that is scored), the last operators run over them in
 * groups: they change no row that another group reads.
 *
 * No policy lives here. What must hold whatever the policy is checked: slices of one sequence form a staircase, frames
 * hold exactly the rows that a slice takes up again, and no bound of the device is passed. */
#pragma once
#include "engine/device.h"
#include "scheduler/scheduler.h"

/* What the walker must know of a sequence beside its slice. Pointers stay valid for the pass. */
typedef struct {
    const uint32_t *tokens; /* from the sequence's first */
    uint32_t        prompt_tokens;
    uint32_t        cached_tokens; /* of those, found in the cache when it was last admitted */
    const uint32_t *pages;         /* as batch_run's */
    uint32_t        page_count;
    const sampling *params; /* read where the slice samples, like the rest */
    const uint32_t *banned; /* ids that may not be drawn now, at most BANNED_MAX */
    uint32_t        banned_count;
    uint32_t        output_rows; /* rows at the slice's end whose next token is drawn, where it samples: 1 */
    uint32_t        score_rows;  /* rows before those (or at its end) whose next token is known and scored: 0 */
    const sampling *score_params;
} walk_sequence;

typedef struct {
    const device_api *api;
    device           *device;
    const program    *program;
    uint32_t          slices_max, slots_max, rows_max, outputs_max, frame_count, frame_rows, page_tokens;
    void (*find)(void *context, const slice *s, walk_sequence *out);
    bool (*stop)(void *context); /* asked before each operator of a stoppable pass but its first and those of the logits,
                                    on the calling thread: it may take events in meanwhile. NULL: never */
    void *context;               /* of both */
} walker_config;

typedef struct walker walker;
walker               *walker_new(const walker_config *c);
void                  walker_free(walker *w);

typedef struct {
    bool     stopped; /* before operator stop_op; nothing was sampled */
    uint32_t stop_op;
    uint32_t output_count;
} walk_result;

/* OK, or the device's error with the operator, its rows and the pass in front. */
int walker_walk(walker *w, const plan *p, walk_result *out, error *err);

/* What the last walk found for slices[i]: its score_rows scores, and its output_rows drawn tokens, each in order of row. */
const sampled *walker_scored(const walker *w, uint32_t slice_index);
const sampled *walker_sampled(const walker *w, uint32_t slice_index);
#define NO_OUTPUT UINT32_MAX
uint32_t walker_output_index(const walker *w,
                             uint32_t      slice_index); /* of its first drawn row, for read_logits; or NO_OUTPUT */

/* Time inside operators so far; and how many were done, counted up as each is finished (any thread). */
uint64_t walker_op_ns(const walker *w);
uint64_t walker_operators_done(const walker *w);
/* The longest operator of passes that may be stopped, so far: what a stop waits for at most. */
uint64_t walker_longest_wait_ns(const walker *w);
