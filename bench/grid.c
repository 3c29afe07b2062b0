#include "bench/grid.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TOKENS = 4096 }; /* what clients allow that were not told to say something else */

/* ---- words of the clients ---- */

static int read_hints(const char *value, clients *c, error *err) {
    c->sizes = strcmp(value, "sizes") == 0, c->hints = strcmp(value, "yes") == 0;
    if (c->sizes || c->hints || strcmp(value, "no") == 0) return OK;
    return error_set(err, ERR_USAGE, "--grid hints is no, yes or sizes, not '%s'", value);
}

static int read_max_tokens(const char *value, clients *c, error *err) {
    char          *end;
    const uint64_t n = strtoull(value, &end, 10);
    c->max_tokens = 0;
    if (strcmp(value, "exact") == 0) return OK;
    if (*end || end == value || *value == '-' || n == 0 || n > TRACE_TOKENS_MAX)
        return error_set(err, ERR_USAGE, "--grid max-tokens is a number from 1 to %d, or exact, not '%s'", TRACE_TOKENS_MAX,
                         value);
    return c->max_tokens = (uint32_t)n, OK;
}

static const struct {
    const char *name;
    int (*read)(const char *value, clients *c, error *err);
} client_words[] = {{"hints", read_hints}, {"max-tokens", read_max_tokens}};

static int client_word(const char *name) {
    for (int i = 0; i < (int)(sizeof client_words / sizeof *client_words); i++)
        if (strcmp(client_words[i].name, name) == 0) return i;
    return -1;
}

static const option_row *find_setting(const char *name) {
    for (size_t i = 0; i < settings_row_count; i++) {
        const option_row *row = &settings_rows[i];
        if (!row->section || strcmp(row->name, name) != 0) continue;
        return strcmp(row->section, "scheduler") == 0 || strcmp(row->section, "engine") == 0 ? row : NULL;
    }
    return NULL;
}

/* ---- reading ---- */

static int add_values(grid *g, char *values, error *err) {
    grid_word *w = &g->words[g->word_count];
    char      *rest = NULL;
    for (char *v = strtok_r(values, ",", &rest); v; v = strtok_r(NULL, ",", &rest)) {
        if (w->count == GRID_VALUES_MAX)
            return error_set(err, ERR_USAGE, "--grid gives '%s' more than %d values", w->name, GRID_VALUES_MAX);
        w->values[w->count++] = v;
    }
    if (w->count == 0) return error_set(err, ERR_USAGE, "--grid gives '%s' no value; write %s=A,B", w->name, w->name);
    g->cell_count *= w->count;
    g->word_count++;
    if (g->cell_count > GRID_CELLS_MAX)
        return error_set(err, ERR_USAGE, "--grid has more than %d cells; compare less at once", GRID_CELLS_MAX);
    return OK;
}

static int add_word(grid *g, char *word, error *err) {
    char *equals = strchr(word, '=');
    if (!equals) return error_set(err, ERR_USAGE, "--grid '%s' is not like slicing=chunked,layered", word);
    if (g->word_count == GRID_WORDS_MAX) return error_set(err, ERR_USAGE, "--grid has more than %d words", GRID_WORDS_MAX);
    *equals = 0;
    for (uint32_t i = 0; i < g->word_count; i++)
        if (strcmp(g->words[i].name, word) == 0) return error_set(err, ERR_USAGE, "--grid gives '%s' twice", word);
    if (client_word(word) < 0 && !find_setting(word))
        return error_set(err, ERR_USAGE,
                         "--grid '%s' is no setting of the scheduler or the engine (docs/configuration.md lists them), nor "
                         "hints or max-tokens",
                         word);
    g->words[g->word_count].name = word;
    return add_values(g, equals + 1, err);
}

/* Every value on its own; combinations are refused when their cell is made. */
static int check_values(const grid *g, error *err) {
    uint32_t stride = 1;
    for (uint32_t w = g->word_count; w-- > 0; stride *= g->words[w].count)
        for (uint32_t v = 0; v < g->words[w].count; v++) {
            settings s = {0};
            options *o;
            clients  said;
            int      code = grid_settings(g, v * stride, "random:any", &s, &o, &said, err);
            options_free(o);
            if (code != OK) return code;
        }
    return OK;
}

int grid_read(grid *g, const char *text, error *err) {
    *g = (grid){.text = strdup(text), .cell_count = 1};
    if (!g->text) fatal("out of memory for the grid");
    int   code = OK;
    char *rest = NULL;
    for (char *word = strtok_r(g->text, " ;\t\n", &rest); word && code == OK; word = strtok_r(NULL, " ;\t\n", &rest))
        code = add_word(g, word, err);
    if (code == OK) code = check_values(g, err);
    if (code != OK) grid_free(g);
    return code;
}

void grid_free(grid *g) {
    free(g->text);
    *g = (grid){0};
}

/* ---- cells ---- */

const char *grid_value(const grid *g, uint32_t cell, uint32_t word) {
    for (uint32_t w = g->word_count; w-- > word + 1;) cell /= g->words[w].count;
    return g->words[word].values[cell % g->words[word].count];
}

void grid_label(const grid *g, uint32_t cell, buf *out) {
    for (uint32_t w = 0; w < g->word_count; w++)
        buf_printf(out, "%s%s=%s", w ? " " : "", g->words[w].name, grid_value(g, cell, w));
    if (g->word_count == 0) buf_str(out, "defaults");
}

static int set(options *o, const char *name, const char *value, error *err) {
    const char *rest[1];
    size_t      rest_count;
    char        flag[256];
    snprintf(flag, sizeof flag, "--%s=%s", name, value);
    const int code = options_read_args(o, 2, (char *[]){(char *)"--grid", flag}, rest, 1, &rest_count, err);
    if (code != OK) error_prefix(err, "--grid");
    return code;
}

int grid_settings(const grid *g, uint32_t cell, const char *model, settings *s, options **o, clients *said, error *err) {
    int code = OK;
    *said = (clients){.max_tokens = MAX_TOKENS};
    *o = options_new(settings_rows, settings_row_count, s);
    for (uint32_t w = 0; w < g->word_count && code == OK; w++) {
        const char *name = g->words[w].name, *value = grid_value(g, cell, w);
        const int   client = client_word(name);
        code = client >= 0 ? client_words[client].read(value, said, err) : set(*o, name, value, err);
    }
    if (code != OK) return code;
    s->engine.model = model, s->engine.device = "sim";
    return settings_finish(s, err);
}
