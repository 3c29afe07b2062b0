/* server/stop.h: finding stop strings in text that arrives in pieces.
 *
 * Text that may turn out to be the beginning of a stop string must not be sent yet; text that cannot, must not wait. Both
 * numbers fall out of one automaton per string (Knuth, Morris and Pratt 1977): its state is the length of the longest
 * prefix of the string that the text so far ends with. The largest state is what to hold back; a full state is the match.
 * A byte costs O(1) amortized, whatever the strings are made of. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { STOPS_MAX = 16, STOP_BYTES_MAX = 1024 };

typedef struct {
    struct {
        char     *bytes;    /* owned */
        uint16_t *fallback; /* owned; [length]: where to go on after a mismatch at each state */
        uint16_t  length;
    } * of;         /* owned; [count] */
    uint32_t count; /* at most STOPS_MAX; most requests have none */
} stop_set;

bool stop_set_add(stop_set *s, const char *bytes, size_t n); /* false: empty, too long or too many */
void stop_set_free(stop_set *s);

typedef struct {
    uint16_t state[STOPS_MAX];
} stop_state;

#define STOP_NONE SIZE_MAX
/* Reads bytes[0..n). Where a stop string is completed, returns how many bytes were read up to its end and sets *length to
 * the longest string that ends there; else STOP_NONE. */
size_t stop_feed(const stop_set *s, stop_state *state, const char *bytes, size_t n, size_t *length);
/* How many of the bytes read last may be the beginning of a stop string. */
size_t stop_held(const stop_set *s, const stop_state *state);
