/* engine/frames.h: what is suspended where. Bookkeeping beside the device's frames, so that no row is taken up again by
 * anyone but its own slice, at any operator but the one it was left at.
 *
 * A pass leaves the rows of its unfinished slices in places of a frame; several slices share one. A later pass takes a slice
 * up whole or in parts from the front. Nobody tells when a place falls free (its sequence finished, or lost its memory):
 * an entry is simply overwritten by the next one that lies there. */
#pragma once
#include "scheduler/scheduler.h"

typedef struct {
    uint64_t    id;
    uint32_t    token_begin, token_end, op;
    uint32_t    rows_kept; /* the last ones of the slice; the others are of no use any more */
    frame_place place;     /* of token_begin's row, kept or not */
    uint64_t    resumed_in_pass;
} suspended;

typedef struct frames frames;
frames               *frames_new(uint32_t frame_count, uint32_t frame_rows);
void                  frames_free(frames *f);

/* The slice's frame_in holds exactly its rows (checked): they become an entry of their own, marked as resumed in `pass`. */
void frames_resume(frames *f, const slice *s, uint64_t pass);
/* Takes that entry out; returns its rows_kept. */
uint32_t frames_take(frames *f, const slice *s);
/* The slice lies in its frame_out from now on, before operator `op`. Nothing still to be taken in `pass` lies there
 * (checked). */
void frames_put(frames *f, const slice *s, uint32_t op, uint32_t rows_kept, uint64_t pass);

/* The staircase across passes: no suspended slice of earlier tokens, left alone by `pass`, is behind where this slice gets
 * to. Entries of tokens that start anew or were found in the cache are history. */
void frames_check_staircase(frames *f, const slice *s, uint32_t cached_tokens, uint64_t pass);
