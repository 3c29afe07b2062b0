/* engine/notice.h: the engine's latest figures on a board that nobody waits at.
 *
 * Three copies: the engine thread writes one, a reader reads one, and the third lies between them. Posting and looking each
 * exchange one's own copy for the one between, in one atomic step; so the writer never waits for a reader, a reader never
 * for the writer, and what is read is always whole. Readers exclude each other only. */
#pragma once
#include <pthread.h>
#include <stdatomic.h>

#include "engine/engine.h"

typedef struct {
    engine_snapshot copies[3];
    unsigned        writing, reading; /* indices */
    atomic_uint     between;          /* index | NOTICE_NEW where it was not read yet */
    pthread_mutex_t readers;
} notice;
enum { NOTICE_NEW = 4 };

void notice_init(notice *n);
void notice_destroy(notice *n);
void notice_post(notice *n, const engine_snapshot *s); /* one thread */
void notice_read(notice *n, engine_snapshot *out);     /* any thread: the last that was posted */
