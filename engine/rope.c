#include "engine/rope.h"

#include <math.h>
#include <stdlib.h>

double *rope_inverse_frequencies(const model_facts *f) {
    const rope_facts *r = &f->rope;
    double           *out = malloc(f->head_dim / 2 * sizeof *out);
    if (!out) fatal("no memory for %u frequencies", f->head_dim / 2);
    for (uint32_t i = 0; i < f->head_dim / 2; i++) {
        double frequency = pow((double)r->theta, -2.0 * i / f->head_dim);
        if (r->scaling == ROPE_LINEAR) frequency /= (double)r->factor;
        if (r->scaling == ROPE_LLAMA3) { /* long waves are stretched, short ones kept, between them a straight line */
            double turns = (double)r->original_context * frequency / (2 * M_PI);
            double low = (double)r->low_freq_factor, high = (double)r->high_freq_factor, keep = (turns - low) / (high - low);
            keep = keep < 0 ? 0 : keep > 1 ? 1 : keep;
            frequency = keep * frequency + (1 - keep) * frequency / (double)r->factor;
        }
        out[i] = frequency;
    }
    return out;
}
