/* engine/rope.h: rotary frequencies of a model, in double precision: what all devices rotate by. */
#pragma once
#include "models/facts.h"

/* [head_dim / 2], to be freed: position p turns pair i by p * frequency[i]. */
double *rope_inverse_frequencies(const model_facts *f);
