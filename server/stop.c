#include "server/stop.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"

bool stop_set_add(stop_set *s, const char *bytes, size_t n) {
    if (n == 0 || n > STOP_BYTES_MAX || s->count == STOPS_MAX) return false;
    char     *copy = malloc(n);
    uint16_t *fallback = calloc(n, sizeof *fallback);
    void     *grown = realloc(s->of, (s->count + 1) * sizeof *s->of);
    if (!copy || !fallback || !grown) fatal("out of memory for a stop string");
    memcpy(copy, bytes, n);
    for (size_t i = 1, k = 0; i < n; i++) { /* fallback[i]: longest proper prefix that bytes[0..i] ends with */
        while (k && copy[i] != copy[k]) k = fallback[k - 1];
        if (copy[i] == copy[k]) k++;
        fallback[i] = (uint16_t)k;
    }
    s->of = grown;
    s->of[s->count].bytes = copy;
    s->of[s->count].fallback = fallback;
    s->of[s->count++].length = (uint16_t)n;
    return true;
}

void stop_set_free(stop_set *s) {
    for (uint32_t i = 0; i < s->count; i++) free(s->of[i].bytes), free(s->of[i].fallback);
    free(s->of);
    *s = (stop_set){0};
}

static uint16_t advance(const stop_set *s, uint32_t i, uint16_t k, char byte) {
    while (k && s->of[i].bytes[k] != byte) k = s->of[i].fallback[k - 1];
    return k + (s->of[i].bytes[k] == byte);
}

size_t stop_feed(const stop_set *s, stop_state *state, const char *bytes, size_t n, size_t *length) {
    if (!s->count) return STOP_NONE;
    for (size_t at = 0; at < n; at++) {
        *length = 0;
        for (uint32_t i = 0; i < s->count; i++) {
            state->state[i] = advance(s, i, state->state[i], bytes[at]);
            if (state->state[i] == s->of[i].length && s->of[i].length > *length) *length = s->of[i].length;
        }
        if (*length) return at + 1;
    }
    return STOP_NONE;
}

size_t stop_held(const stop_set *s, const stop_state *state) {
    size_t held = 0;
    for (uint32_t i = 0; i < s->count; i++)
        if (state->state[i] > held) held = state->state[i];
    return held;
}
