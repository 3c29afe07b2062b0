#include "engine/notice.h"

void notice_init(notice *n) {
    n->writing = 0, n->reading = 1;
    atomic_init(&n->between, 2);
    pthread_mutex_init(&n->readers, NULL);
}

void notice_destroy(notice *n) { pthread_mutex_destroy(&n->readers); }

void notice_post(notice *n, const engine_snapshot *s) {
    n->copies[n->writing] = *s;
    n->writing = atomic_exchange(&n->between, n->writing | NOTICE_NEW) & ~(unsigned)NOTICE_NEW;
}

void notice_read(notice *n, engine_snapshot *out) {
    pthread_mutex_lock(&n->readers);
    if (atomic_load(&n->between) & NOTICE_NEW) n->reading = atomic_exchange(&n->between, n->reading) & ~(unsigned)NOTICE_NEW;
    *out = n->copies[n->reading];
    pthread_mutex_unlock(&n->readers);
}
