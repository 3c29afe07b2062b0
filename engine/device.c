#include <stdio.h>
#include <string.h>

#include "engine/cuda_object.h"
#include "engine/device.h"

static const device_api *const devices[] = {&device_cuda, &device_cpu, &device_sim};
enum { DEVICES = sizeof devices / sizeof *devices };

/* A GPU where there is one. sim is never chosen: it only pretends. */
static const device_api *find_auto(char *why, size_t why_size) {
    char      reason[256];
    cuda_card card;
    if (cuda_object_open(&card, reason, sizeof reason)) return device_cuda.available(why, why_size) ? &device_cuda : NULL;
    snprintf(why, why_size, "cpu, because %s", reason);
    return &device_cpu;
}

const device_api *device_find(const char *name, char *why, size_t why_size) {
    if (why_size) *why = 0;
    if (!name || strcmp(name, "auto") == 0) return find_auto(why, why_size);
    for (int i = 0; i < DEVICES; i++)
        if (strcmp(devices[i]->name, name) == 0) return devices[i]->available(why, why_size) ? devices[i] : NULL;
    snprintf(why, why_size, "there is no device named '%s'; there are auto, cpu, cuda and sim", name);
    return NULL;
}

/* ---- what devices ask of a batch ---- */

static int check_run(const device_config *c, const batch_run *r, uint32_t row, error *err) {
    uint64_t end = (uint64_t)r->position_begin + r->row_count;
    if (r->row_begin != row || r->row_count == 0)
        return error_set(err, ERR_INVALID, "a run of %u rows begins at row %u, expected %u", r->row_count, r->row_begin,
                         row);
    if (end > (uint64_t)r->page_count * c->page_tokens)
        return error_set(err, ERR_INVALID, "positions up to %llu do not fit the run's %u pages of %u tokens",
                         (unsigned long long)end, r->page_count, c->page_tokens);
    for (uint32_t i = 0; i < r->page_count; i++)
        if (r->pages[i] >= c->page_count)
            return error_set(err, ERR_INVALID, "page %u of a run is not one of the %u there are", r->pages[i],
                             c->page_count);
    return OK;
}

int device_check_batch(const device_config *c, const batch *b, error *err) {
    if (b->row_count > c->rows_max || b->output_count > c->outputs_max || b->run_count > c->rows_max)
        return error_set(err, ERR_INVALID,
                         "a batch of %u rows, %u runs, %u outputs is over the limits (%u rows, %u outputs)", b->row_count,
                         b->run_count, b->output_count, c->rows_max, c->outputs_max);
    uint32_t row = 0;
    for (uint32_t i = 0; i < b->run_count; i++) {
        int status = check_run(c, &b->runs[i], row, err);
        if (status != OK) return status;
        row += b->runs[i].row_count;
    }
    if (row != b->row_count)
        return error_set(err, ERR_INVALID, "the runs of a batch have %u rows, not %u", row, b->row_count);
    for (uint32_t i = 0; i < b->output_count; i++)
        if (b->outputs[i].row >= b->row_count || (i && b->outputs[i].row <= b->outputs[i - 1].row))
            return error_set(err, ERR_INVALID, "output %u is of row %u: outputs must be rows of the batch, rising", i,
                             b->outputs[i].row);
    return OK;
}

int device_check_tokens(const batch_run *runs, uint32_t run_count, uint32_t vocab_size, error *err) {
    for (uint32_t r = 0; r < run_count; r++)
        for (uint32_t i = 0; i < runs[r].row_count; i++)
            if (runs[r].tokens[i] >= vocab_size)
                return error_set(err, ERR_INVALID, "token id %u is outside the vocabulary of %u", runs[r].tokens[i],
                                 vocab_size);
    return OK;
}
