/* base/log.h: one line per event; text for people, or one JSON object a line for machines.
 *
 * Lines carry a level, a subsystem and a sentence. They go to standard error, or to a file that is opened anew when it was
 * moved away (log_reopen, on SIGUSR1). Whole lines are written, so those of different threads do not mix.
 *
 * A daemon must not stand still because its disk is slow or nobody reads its standard error any more. After log_start a line
 * is put into a bounded buffer, which waits for nobody, and a thread of its own writes what lies there. Lines for which
 * there is no room are dropped and counted, and how many they were is a line in their place.
 *
 * Where standard error is the journal's (JOURNAL_STREAM names it) each line begins with its priority, "<6>", which the
 * journal takes off, and text has no time stamp, which the journal has already. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

typedef enum { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG } log_level;

void      log_configure(log_level threshold, bool json); /* at any time, on any thread */
void      log_set_threshold(log_level threshold);
log_level log_threshold(void);
bool      log_enabled(log_level level);
int       log_open(const char *path, error *err); /* once, before there are threads */
int       log_reopen(error *err);                 /* nothing where no file was opened; on trouble the old one stays */

enum { LOG_FLUSH_MS = 1000 };            /* patience at the end of a process */
void     log_start(void);                /* once: in the background from here on */
void     log_flush(unsigned timeout_ms); /* waits until all is written, at most so long; before the process ends */
uint64_t log_dropped(void);              /* lines, since the start */

void log_line(log_level level, const char *subsystem, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* A line whose JSON form is the given object text (without a newline) and whose text form is `text`; for request logs. */
void log_object(log_level level, const char *subsystem, const char *text, const char *json_members);

#define log_error(subsystem, ...) log_line(LOG_ERROR, subsystem, __VA_ARGS__)
#define log_warn(subsystem, ...) log_line(LOG_WARN, subsystem, __VA_ARGS__)
#define log_info(subsystem, ...) log_line(LOG_INFO, subsystem, __VA_ARGS__)
#define log_debug(subsystem, ...) log_line(LOG_DEBUG, subsystem, __VA_ARGS__)
