/* base/log.h: one line per event, to standard error; text for people, or one JSON object a line for machines.
 *
 * Lines carry a level, a subsystem and a sentence. Writing is one write(2) per line, so lines of different threads do
 * not mix. Under systemd (JOURNAL_STREAM is set) the time stamp is left out and the priority prefix "<6>" is written. */
#pragma once
#include <stdbool.h>

typedef enum { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG } log_level;

void log_configure(log_level threshold, bool json);
bool log_enabled(log_level level);
void log_line(log_level level, const char *subsystem, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* A line whose JSON form is the given object text (without a newline) and whose text form is `text`; for request logs. */
void log_object(log_level level, const char *subsystem, const char *text, const char *json_members);

#define log_error(subsystem, ...) log_line(LOG_ERROR, subsystem, __VA_ARGS__)
#define log_warn(subsystem, ...) log_line(LOG_WARN, subsystem, __VA_ARGS__)
#define log_info(subsystem, ...) log_line(LOG_INFO, subsystem, __VA_ARGS__)
#define log_debug(subsystem, ...) log_line(LOG_DEBUG, subsystem, __VA_ARGS__)
