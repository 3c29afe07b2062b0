/* server/keys.h: who may ask, and for how much: API keys from a file, one tenant a line.
 *
 *     # name   keys                            what differs from the defaults
 *     alice    sha256:9f86d081884c7d65...      weight=2 concurrency=8 tokens-per-minute=200000
 *     ci       sha256:60303ae2... sha256:fd61a03a...     priority=100
 *     guest    anyone                          concurrency=1
 *
 * The file holds digests, so that whoever reads it cannot ask in anyone's name. A digest of one round is enough because a
 * key made by `penstock key` is 256 random bits: there is nothing to guess. A presented key is hashed and compared with
 * every digest in constant time. Two keys on a line let one replace the other without a moment in which neither works.
 * `anyone` admits requests without a key, or with one that is nobody's.
 *
 * A tenant's numbers that change live in an account, which goes over to the tenant of the same name when the file is read
 * anew: a reload forgives nobody a debt. All of this belongs to the I/O thread, but for what the file says of a tenant,
 * which never changes while somebody holds it and may be read on any thread. */
#pragma once
#include "base/error.h"
#include "base/options.h"
#include "server/fault.h"

typedef struct keys    keys;
typedef struct account account;

enum { TENANT_NAME_BYTES = 64 };

typedef struct {
    char        name[TENANT_NAME_BYTES];
    uint64_t    id;                /* hash of the name, for the scheduler */
    double      weight;            /* share of the machine where tenants compete */
    uint32_t    concurrency;       /* requests at once; 0: no bound */
    uint32_t    tokens_per_minute; /* prompt and answer; 0: no bound */
    int32_t     priority;          /* of requests that name none; lower goes first */
    int32_t     priority_min;      /* lower ones are raised to it */
    uint32_t    ttft_ms, tbt_ms;   /* what requests aim at that say nothing themselves; 0: nothing */
    const char *cache;             /* tenants with the same word share cached prefixes */
    account    *account;
    char       *texts; /* what `cache` points into */
    uint32_t    holders;
} tenant;

/* Once, before any other of these functions and any thread. */
void keys_init(void);

int  keys_read_file(keys **out, const char *path, error *err); /* whole file or nothing; names file and line */
int  keys_read_text(keys **out, const char *path, const char *text, size_t n, error *err);
void keys_inherit(keys *fresh, const keys *old); /* accounts go over by name; `old` may be NULL */
void keys_free(keys *k);                         /* tenants that somebody holds stay until they are let go */
bool keys_admit_anyone(const keys *k);
void keys_count(const keys *k, uint32_t *tenant_count, uint32_t *key_count);

/* Whose request it is by its Authorization header (NULL: none), or NULL: nobody's. */
tenant *keys_find(const keys *k, const char *authorization, size_t n);

/* One more request of the tenant, or -1 and a fault that says when to come again. */
int  tenant_enter(tenant *t, uint64_t now_us, fault *f);
void tenant_leave(tenant *t); /* a request that entered has ended */
/* Tokens of prompts and answers. What a request may need is taken from the account before it begins, or it is refused: -1
 * and a fault. One that may need more than a minute's worth finds the account full or waits. What was used of it is then
 * counted, and the rest given back. Tokens that nobody could tell before are charged as they come, into debt where it must
 * be. */
int  tenant_reserve(tenant *t, uint64_t tokens, uint64_t now_us, fault *f);
void tenant_use(tenant *t, uint64_t tokens); /* of what was reserved */
void tenant_give_back(tenant *t, uint64_t tokens);
void tenant_charge(tenant *t, uint64_t tokens);
/* `Name: value` lines that tell what is left of tokens-per-minute, as OpenAI's clients read them; nothing without one. */
void tenant_headers(tenant *t, uint64_t now_us, buf *out);

/* What prefixes a request may share: those of its tenant's `cache` word and of the salt its client sent (either may be
 * NULL), in a number that no client can aim at. Any thread. */
uint64_t tenant_cache_salt(const tenant *t, const char *client_salt);

/* What each tenant has had so far, for /metrics: the first max - 1 of the file, and all others together as "(other)", which
 * can be nobody's name. Returns how many. */
typedef struct {
    const char *name;
    uint32_t    running;
    uint64_t    requests, refused, tokens; /* refused: over its limits; tokens: of prompts and answers */
} tenant_figures;
uint32_t keys_figures(const keys *k, tenant_figures *out, uint32_t max);

/* For `penstock key`: a new key as text; the line of a file that admits `key` as `name`. */
enum { KEY_TEXT_BYTES = 64 };
void key_make(char out[KEY_TEXT_BYTES]);
int  key_line(const char *name, const char *key, size_t key_bytes, buf *out, error *err);

void keys_write(const keys *k, uint64_t now_us, buf *json); /* every tenant: limits, and what is used of them */
void keys_markdown(buf *out);                               /* the table of what a line may set */
