#include "engine/page_copier.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* A ring with three marks, each a count since the beginning:  told <= done <= begun <= told + copies_max. */
struct page_copier {
    page_copier_config config;
    page_copy         *ring; /* [copies_max] */
    uint64_t           told; /* the caller's own */
    pthread_mutex_t    lock; /* of what follows */
    pthread_cond_t     changed;
    uint64_t           done, begun;
    bool               closing;
    pthread_t          thread;
};

static const page_copy *at(const page_copier *c, uint64_t i) { return &c->ring[i % c->config.copies_max]; }

static void copy(const page_copier *c, const page_copy *p) {
    char *page = c->config.pages + p->page * c->config.page_bytes,
         *host = c->config.host_pages + p->host_page * c->config.page_bytes;
    if (p->to_host) memcpy(host, page, c->config.page_bytes);
    else memcpy(page, host, c->config.page_bytes);
}

static void *copier_main(void *argument) {
    page_copier *c = argument;
    pthread_setname_np(pthread_self(), "copier");
    pthread_mutex_lock(&c->lock);
    while (!c->closing) {
        if (c->done == c->begun) {
            pthread_cond_wait(&c->changed, &c->lock);
            continue;
        }
        const page_copy next = *at(c, c->done);
        pthread_mutex_unlock(&c->lock);
        copy(c, &next);
        pthread_mutex_lock(&c->lock);
        c->done++;
        pthread_cond_broadcast(&c->changed);
    }
    pthread_mutex_unlock(&c->lock);
    return NULL;
}

page_copier *page_copier_new(const page_copier_config *config) {
    page_copier *c = calloc(1, sizeof *c);
    if (!c) fatal("out of memory for the copies of pages");
    c->config = *config;
    c->ring = calloc(config->copies_max, sizeof *c->ring);
    if (!c->ring) fatal("out of memory for %u copies of pages", config->copies_max);
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->changed, NULL);
    if (pthread_create(&c->thread, NULL, copier_main, c) != 0) fatal("the thread that copies pages could not be started");
    return c;
}

void page_copier_free(page_copier *c) {
    if (!c) return;
    pthread_mutex_lock(&c->lock);
    c->closing = true;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
    pthread_join(c->thread, NULL);
    pthread_cond_destroy(&c->changed);
    pthread_mutex_destroy(&c->lock);
    free(c->ring);
    free(c);
}

void page_copier_begin(page_copier *c, const page_copy *copies, uint32_t count) {
    pthread_mutex_lock(&c->lock);
    check(c->begun + count - c->told <= c->config.copies_max);
    for (uint32_t i = 0; i < count; i++) c->ring[c->begun++ % c->config.copies_max] = copies[i];
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
}

/* Ids rise along the ring, so it is over once the oldest that is not done has a higher one. */
void page_copier_await(page_copier *c, uint64_t id) {
    pthread_mutex_lock(&c->lock);
    while (c->done < c->begun && at(c, c->done)->id <= id) pthread_cond_wait(&c->changed, &c->lock);
    pthread_mutex_unlock(&c->lock);
}

uint32_t page_copier_done(page_copier *c, bool wait, copied_page *out, uint32_t max) {
    uint32_t n = 0;
    pthread_mutex_lock(&c->lock);
    while (wait && c->told == c->done && c->done < c->begun) pthread_cond_wait(&c->changed, &c->lock);
    for (; n < max && c->told < c->done; n++) out[n] = (copied_page){.id = at(c, c->told++)->id, .ok = true};
    pthread_mutex_unlock(&c->lock);
    return n;
}
