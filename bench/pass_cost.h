/* bench/pass_cost.h: how long the sim device would take for a plan, without walking it operator by operator.
 *
 * Problem: a pass of a large model is some four hundred calls of the device, and a comparison is millions of passes.
 * Choice: the device is asked once for each *kind* of operator that differs in cost (attention also by its window) over each
 * set of rows, and the answer is multiplied by how many such operators the rows cross. So the cost model is the device's
 * own, whatever it is made of, and a pass costs some twenty calls.
 * Rows join, leave and are dropped at the end as in engine/walk.c. */
#pragma once
#include "engine/engine.h"

typedef struct pass_cost pass_cost;

/* The machine is c's sim_hardware; its sizes are those of engine_plan. */
int  pass_cost_open(pass_cost **out, const checkpoint *model, const engine_config *c, error *err);
void pass_cost_close(pass_cost *c);

/* What the machine's host takes for a pass, which is not in the costs below, and what is outside the engine for a request.
 */
double pass_cost_host_ns(const pass_cost *c);
double pass_cost_request_ns(const pass_cost *c);
/* Of the whole plan, in nanoseconds. What is asked below is about the plan costed last. */
uint64_t pass_cost_of(pass_cost *c, const plan *p);
/* The first operator before which a stop can take effect at or after `ns` of the pass, but not before the first or past the
 * last layer: op_count where there is none. *boundary_ns: when it is reached. */
uint32_t pass_cost_stop(const pass_cost *c, uint64_t ns, uint64_t *boundary_ns);
/* Bytes of weights that the pass reads before operator `until`, and of experts among them. */
void pass_cost_bytes(const pass_cost *c, uint32_t until, double *weights, double *experts);

uint64_t pass_cost_page_copy_ns(const pass_cost *c); /* a page of keys and values to host memory, or back */

const program *pass_cost_program(const pass_cost *c);
