/* server/socket.h: listening sockets by name: an address with a port, or unix:PATH. Nothing here knows HTTP or a loop.
 *
 * A path in the file system outlives the process that bound it. So a socket that nobody listens on any more is replaced; a
 * path that is in use, or is no socket at all, is refused. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/un.h>

#include "base/error.h"

enum { SOCKET_PATH_MAX = sizeof((struct sockaddr_un *)0)->sun_path - 1 };

/* A bound stream socket, not listening yet. `mode`: the permissions of a path (0600: for its owner alone). */
int socket_bind(int *fd, const char *host, uint32_t port, unsigned mode, error *err);

/* Whether fd is a stream socket of a family that is served here; *is_path where clients find it by a path. */
int socket_inspect(int fd, bool *is_path, error *err);

/* As a client names it: http://ADDRESS:PORT, or unix:PATH. */
void socket_url(int fd, char *out, size_t size);
bool socket_is_local(int fd); /* reached from this machine only: by a path, or bound to a loopback address */

/* Whose connection this is, as a number: an IPv4 address, or the 64 bits of an IPv6 address that belong to one customer.
 * 0: not known, or on this machine by a path. */
uint64_t socket_peer_key(int fd);
