/* bench/scrape.h: the few numbers of a server's /metrics page that a replay shows beside its own, whoever's names they have.
 */
#pragma once
#include <stddef.h>

typedef enum {
    SCRAPE_RUNNING,        /* requests in the batch */
    SCRAPE_WAITING,        /* requests in the queue */
    SCRAPE_KV_USAGE,       /* 0..1 of the KV cache */
    SCRAPE_OUTPUT_TOKENS,  /* counters from here on */
    SCRAPE_PREFIX_QUERIES, /* in tokens, like the next */
    SCRAPE_PREFIX_HITS,
    SCRAPE_PREEMPTIONS,
    SCRAPE_COUNT
} scrape_metric;

typedef struct {
    double value[SCRAPE_COUNT]; /* NAN: the page does not say */
} scrape;

/* Prometheus text format. Samples of one name are summed over their labels (usage: averaged). */
void scrape_read(const char *page, size_t n, scrape *out);
