/* server/operator.h: what the person who runs the daemon asks of it, by signal or at the admin socket (admin.c), and what a
 * service manager hears of it (systemd.h).
 *
 *     SIGTERM, SIGINT   drain: nothing new is taken, what was accepted may finish for drain-timeout; a second one ends now
 *     SIGHUP            reload: the settings' file and the key file are read anew; a bad one changes nothing
 *     SIGUSR1           the log file is opened anew
 *
 * On the I/O thread, all of it. */
#pragma once
#include "server/service.h"

void operator_open(service *sv); /* listens to signals */
void operator_close(service *sv);

void operator_ready(service *sv); /* requests are answered from now on */
void operator_watch(service *sv); /* a few times a second: the status line, and the watchdog's food */

void operator_drain(service *sv, const char *who);
/* Every change as a line of `said`, or a sentence and nothing changed. Both are logged. */
int operator_reload(service *sv, buf *said, error *err);
/* Keys from a text in place of a file's. */
int operator_take_keys(service *sv, const char *name, const char *text, size_t n, error *err);
