/* server/peers.h: how many connections each address has. Time for one is constant, memory is what the open ones need. */
#pragma once
#include <stdint.h>

typedef struct peers peers;

peers   *peers_new(void);
void     peers_free(peers *p);
uint32_t peers_count(const peers *p, uint64_t key); /* key: not 0 */
void     peers_add(peers *p, uint64_t key);
void     peers_remove(peers *p, uint64_t key); /* one that was added */
uint32_t peers_known(const peers *p);          /* keys with at least one connection */
