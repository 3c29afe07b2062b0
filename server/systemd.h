/* server/systemd.h: what a service manager and this daemon tell each other: sd_notify(3) and sd_listen_fds(3).
 *
 * The protocols are spoken here and not by libsystemd: they are a datagram and three variables, documented as stable for
 * exactly this use, while the library would map a handful of compression and encryption libraries into a daemon that
 * answers the network. Where no service manager listens, every call does nothing. */
#pragma once
#include <stdint.h>

/* "READY=1\nSTATUS=..."; on any thread. Waits for a manager that is slow, but not for long. */
void systemd_notify(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* How often the watchdog wants to be fed; 0: it does not watch this process. */
uint64_t systemd_watchdog_us(void);

enum { SYSTEMD_SOCKETS_MAX = 16 };
typedef struct {
    int  fd;
    char name[64]; /* FileDescriptorName= of its socket unit; "" where it has none */
} systemd_socket;
/* The sockets that were bound for this process before it was started. Once: they are the caller's then. */
uint32_t systemd_sockets(systemd_socket out[SYSTEMD_SOCKETS_MAX]);
