#include "bench/progress.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { BAR_CELLS = 24 };
#define LINE_EVERY_US 5000000u

/* Eighths of a cell: the bar moves smoothly, and shows that something happens. */
static void draw_bar(const progress *p, char *out) {
    static const char *const eighths[] = {" ", "\u258F", "\u258E", "\u258D", "\u258C", "\u258B", "\u258A", "\u2589"};
    uint64_t                 filled = p->total ? (uint64_t)(p->completed + p->failed) * BAR_CELLS * 8 / p->total : 0;
    out[0] = 0;
    for (uint64_t cell = 0; cell < BAR_CELLS; cell++) {
        uint64_t left = filled > cell * 8 ? filled - cell * 8 : 0;
        strcat(out, left >= 8 ? "\u2588" : eighths[left]);
    }
}

void progress_show(progress *p, uint64_t now_us, bool last) {
    const bool terminal = isatty(STDERR_FILENO);
    if (!terminal && !last && now_us - p->shown_us < LINE_EVERY_US) return;
    double seconds = (double)(now_us - p->shown_us) * 1e-6;
    double per_s = seconds > 0 ? (double)(p->chunks - p->shown_chunks) / seconds : 0;
    char   bar[BAR_CELLS * 4 + 1] = "", line[512];
    if (terminal) draw_bar(p, bar);
    int n = snprintf(line, sizeof line, "%5.1f s  %u of %u done", (double)now_us * 1e-6, p->completed + p->failed, p->total);
    if (p->failed) n += snprintf(line + n, sizeof line - (size_t)n, ", %u failed", p->failed);
    n += snprintf(line + n, sizeof line - (size_t)n, ", %u in flight", p->in_flight);
    if (p->held) n += snprintf(line + n, sizeof line - (size_t)n, ", %u held back", p->held);
    if (!p->in_flight && p->next_us > now_us + 1000000)
        n += snprintf(line + n, sizeof line - (size_t)n, ", the next in %.0f s", (double)(p->next_us - now_us) * 1e-6);
    if (!last) snprintf(line + n, sizeof line - (size_t)n, ", %.0f tokens/s", per_s);
    if (terminal) fprintf(stderr, "\r\033[K\u2595%s\u258F %s%s", bar, line, last ? "\n" : "");
    else fprintf(stderr, "%s\n", line);
    p->shown_us = now_us, p->shown_chunks = p->chunks;
}
