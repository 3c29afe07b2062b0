/* A calibration of any bytes is refused by a sentence, or gives a machine on which every operator takes a finite time. */
#include <math.h>
#include <stdint.h>

#include "engine/sim_machine.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    sim_machine m;
    error       err;
    check(sim_machine_find(&m, "cpu", NULL, &err) == OK);
    if (sim_machine_parse(&m, "f", (const char *)data, size, &err) != OK) {
        check(err.text[0] != 0);
        return 0;
    }
    const op_cost cost = {1e12, 1e11, 1e10, 1e9, 100};
    for (int k = 0; k < OP_KIND_COUNT; k++) {
        const double ns = sim_machine_op_ns(&m, (op_kind)k, &cost);
        check(isfinite(ns) && ns >= 0);
    }
    return 0;
}
