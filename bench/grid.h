/* bench/grid.h: "slicing=chunked,layered order=fcfs,deadline": which settings are compared.
 *
 * A word is any setting of `penstock serve` in its sections engine and scheduler, so whatever the daemon can be told is in
 * the grid; and what the clients say (simulate.h): `hints` (no, yes, sizes) and `max-tokens` (a number, exact). The cells
 * are all combinations, the last word changing fastest; the first cell is what the others are held against. */
#pragma once
#include "bench/simulate.h"
#include "server/settings.h"

enum { GRID_WORDS_MAX = 16, GRID_VALUES_MAX = 32, GRID_CELLS_MAX = 1024 };

typedef struct {
    const char *name, *values[GRID_VALUES_MAX];
    uint32_t    count;
} grid_word;

typedef struct {
    char     *text; /* owns all names and values */
    grid_word words[GRID_WORDS_MAX];
    uint32_t  word_count, cell_count;
} grid;

int  grid_read(grid *g, const char *text, error *err); /* and checks that each value is one that the daemon takes */
void grid_free(grid *g);

const char *grid_value(const grid *g, uint32_t cell, uint32_t word);
void        grid_label(const grid *g, uint32_t cell, buf *out); /* "slicing=chunked order=fcfs" */

/* A cell's settings: the daemon's defaults, and the cell's words. The options own the strings in *s. */
int grid_settings(const grid *g, uint32_t cell, const char *model, settings *s, options **o, clients *said, error *err);
