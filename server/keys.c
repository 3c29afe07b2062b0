#include "server/keys.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/options_table.h"
#include "base/utf8.h"

enum { FILE_BYTES_MAX = 4 << 20, KEYS_MAX = 4096, DIGEST_BYTES = crypto_hash_sha256_BYTES, KEY_BYTES_MIN = 16 };
enum { RETRY_AFTER_MAX_S = 119 }; /* OpenAI's clients give up at two minutes */

struct account {
    uint32_t owners, running;
    double   tokens;      /* what may be used at once; below zero: a debt */
    uint64_t refilled_us; /* 0: never used */
    uint64_t requests, refused, charged;
};

typedef struct {
    unsigned char digest[DIGEST_BYTES];
    uint32_t      tenant;
} key_entry;

struct keys {
    tenant  **tenants;
    key_entry entries[KEYS_MAX];
    uint32_t  tenant_count, entry_count;
    tenant   *anyone;
};

#define AT(field) offsetof(tenant, field)
static const option_row rows[] = {
    {NULL, "weight", OPTION_F64, AT(weight), 0.01, 100, "1", NULL, "X",
     "share of the machine, against the weights of the others that ask at the same time", true},
    {NULL, "concurrency", OPTION_U32, AT(concurrency), 0, 1000000, "0", NULL, "N", "requests at once; 0: no bound", true},
    {NULL, "tokens-per-minute", OPTION_U32, AT(tokens_per_minute), 0, 4294967295.0, "0", NULL, "N",
     "tokens of prompts and answers; a minute's worth may be used at once; 0: no bound", true},
    {NULL, "priority", OPTION_I32, AT(priority), -1000000, 1000000, "0", NULL, "N",
     "of requests that name none; lower goes first", true},
    {NULL, "priority-min", OPTION_I32, AT(priority_min), -1000000, 1000000, "-1000000", NULL, "N",
     "the lowest that a request may name; lower ones are raised to it", true},
    {NULL, "ttft-ms", OPTION_U32, AT(ttft_ms), 0, 3600000, "0", NULL, "N",
     "time to the first token that requests aim at which do not say one; 0: none", true},
    {NULL, "tbt-ms", OPTION_U32, AT(tbt_ms), 0, 3600000, "0", NULL, "N",
     "time between tokens that requests aim at which do not say one; 0: none", true},
    {NULL, "cache", OPTION_STRING, AT(cache), 0, 0, NULL, NULL, "WORD",
     "tenants with the same word share cached prefixes; without it a tenant shares with nobody", true},
};
enum { ROW_COUNT = sizeof rows / sizeof *rows };

/* Keys the hashes that keep tenants apart, so that nobody can compute the number of another. */
static unsigned char salt_key[crypto_generichash_KEYBYTES];

void keys_init(void) {
    if (sodium_init() < 0) fatal("libsodium could not be started");
    randombytes_buf(salt_key, sizeof salt_key);
}

/* ---- tenants ---- */
static void account_release(account *a) {
    if (--a->owners == 0) free(a);
}

static tenant *tenant_new(const char *name, size_t n) {
    tenant  *t = calloc(1, sizeof *t);
    account *a = calloc(1, sizeof *a);
    if (!t || !a) fatal("out of memory for API keys");
    memcpy(t->name, name, n);
    t->id = hash_u64(name, n, 0);
    t->account = a, a->owners = 1;
    t->holders = 1;
    for (int i = 0; i < ROW_COUNT; i++) {
        option_value v = {0};
        if (rows[i].default_text) check(option_parse(&rows[i], rows[i].name, rows[i].default_text, &v, NULL) == OK);
        option_store(&rows[i], t, &v, NULL);
    }
    return t;
}

static void tenant_release(tenant *t) {
    if (--t->holders) return;
    account_release(t->account);
    free(t->texts);
    free(t);
}

static void refill(tenant *t, uint64_t now_us) {
    account *a = t->account;
    double   most = t->tokens_per_minute;
    if (!a->refilled_us) a->tokens = most;
    else if (now_us > a->refilled_us) a->tokens += (double)(now_us - a->refilled_us) * most / 60e6;
    if (a->tokens > most) a->tokens = most;
    a->refilled_us = now_us;
}

/* Seconds until the account holds `tokens` again. */
static double wait_s(const tenant *t, double tokens) {
    double missing = tokens - t->account->tokens;
    return missing > 0 ? missing * 60 / t->tokens_per_minute : 0;
}

int tenant_enter(tenant *t, uint64_t now_us, fault *f) {
    account *a = t->account;
    if (t->concurrency && a->running >= t->concurrency) {
        a->refused++;
        fault_set(f, FAULT_LIMIT, NULL, "%s has %u requests at work already, as many as its key allows.", t->name,
                  a->running);
        f->retry_after_s = 1;
        return -1;
    }
    refill(t, now_us);
    if (t->tokens_per_minute && a->tokens <= 0) {
        double s = wait_s(t, 1);
        a->refused++;
        f->retry_after_s = 0;
        fault_set(f, FAULT_LIMIT, NULL, "%s has used the %u tokens per minute that its key allows; try again in %.1f s.",
                  t->name, t->tokens_per_minute, s);
        f->retry_after_s = s < RETRY_AFTER_MAX_S ? (uint32_t)s + 1 : RETRY_AFTER_MAX_S;
        return -1;
    }
    a->running++, a->requests++, t->holders++;
    return 0;
}

void tenant_leave(tenant *t) {
    check(t->account->running > 0);
    t->account->running--;
    tenant_release(t);
}

int tenant_reserve(tenant *t, uint64_t tokens, uint64_t now_us, fault *f) {
    account *a = t->account;
    if (!t->tokens_per_minute) return 0;
    refill(t, now_us);
    double need = (double)tokens < t->tokens_per_minute ? (double)tokens : t->tokens_per_minute;
    if (a->tokens < need) {
        double s = wait_s(t, need);
        a->refused++;
        fault_set(f, FAULT_LIMIT, NULL,
                  "%s has %.0f tokens left of the %u per minute that its key allows, and this request may need %llu (prompt "
                  "and max_tokens); try again in %.1f s.",
                  t->name, a->tokens > 0 ? a->tokens : 0, t->tokens_per_minute, (unsigned long long)tokens, s);
        f->retry_after_s = s < RETRY_AFTER_MAX_S ? (uint32_t)s + 1 : RETRY_AFTER_MAX_S;
        return -1;
    }
    a->tokens -= (double)tokens;
    return 0;
}

void tenant_use(tenant *t, uint64_t tokens) { t->account->charged += tokens; }

void tenant_give_back(tenant *t, uint64_t tokens) {
    if (t->tokens_per_minute) t->account->tokens += (double)tokens;
}

void tenant_charge(tenant *t, uint64_t tokens) {
    t->account->charged += tokens;
    if (t->tokens_per_minute) t->account->tokens -= (double)tokens;
}

void tenant_headers(tenant *t, uint64_t now_us, buf *out) {
    if (!t->tokens_per_minute) return;
    refill(t, now_us);
    buf_printf(out,
               "x-ratelimit-limit-tokens: %u\r\nx-ratelimit-remaining-tokens: %.0f\r\nx-ratelimit-reset-tokens: %.3fs\r\n",
               t->tokens_per_minute, t->account->tokens > 0 ? t->account->tokens : 0, wait_s(t, t->tokens_per_minute));
}

uint64_t tenant_cache_salt(const tenant *t, const char *client_salt) {
    crypto_generichash_state state;
    unsigned char            digest[crypto_generichash_BYTES_MIN];
    uint64_t                 salt;
    const char              *cache = !t ? "" : t->cache ? t->cache : t->name;
    unsigned char            kind = !t ? 0 : t->cache ? 1 : 2; /* a word that is somebody's name is still another thing */
    crypto_generichash_init(&state, salt_key, sizeof salt_key, sizeof digest);
    crypto_generichash_update(&state, &kind, 1);
    crypto_generichash_update(&state, (const unsigned char *)cache, strlen(cache) + 1);
    if (client_salt) crypto_generichash_update(&state, (const unsigned char *)client_salt, strlen(client_salt));
    crypto_generichash_final(&state, digest, sizeof digest);
    memcpy(&salt, digest, sizeof salt);
    return salt;
}

/* ---- finding ---- */
tenant *keys_find(const keys *k, const char *authorization, size_t n) {
    static const char scheme[] = "bearer ";
    unsigned char     digest[DIGEST_BYTES];
    uint32_t          found = UINT32_MAX;
    if (!authorization || n < sizeof scheme - 1 || strncasecmp(authorization, scheme, sizeof scheme - 1) != 0)
        return k->anyone;
    authorization += sizeof scheme - 1, n -= sizeof scheme - 1;
    while (n && *authorization == ' ') authorization++, n--;
    crypto_hash_sha256(digest, (const unsigned char *)authorization, n);
    for (uint32_t i = 0; i < k->entry_count; i++) /* all of them: the time must not tell which one */
        if (sodium_memcmp(digest, k->entries[i].digest, DIGEST_BYTES) == 0) found = k->entries[i].tenant;
    return found == UINT32_MAX ? k->anyone : k->tenants[found];
}

bool keys_admit_anyone(const keys *k) { return k->anyone != NULL; }

void keys_count(const keys *k, uint32_t *tenant_count, uint32_t *key_count) {
    *tenant_count = k->tenant_count, *key_count = k->entry_count;
}

void keys_inherit(keys *fresh, const keys *old) {
    for (uint32_t i = 0; i < fresh->tenant_count; i++)
        for (uint32_t j = 0; old && j < old->tenant_count; j++) {
            tenant *t = fresh->tenants[i], *before = old->tenants[j];
            if (strcmp(t->name, before->name) != 0 || t->account == before->account) continue;
            before->account->owners++; // NOLINT: not freed while it has owners, and both were counted
            account_release(t->account);
            t->account = before->account;
        }
}

void keys_free(keys *k) {
    if (!k) return;
    for (uint32_t i = 0; i < k->tenant_count; i++) tenant_release(k->tenants[i]);
    free(k->tenants);
    free(k);
}

/* ---- reading ---- */
static bool is_name(const char *s, size_t n) {
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    return n > 0 && n < TENANT_NAME_BYTES && strspn(s, allowed) >= n;
}

static int add_digest(keys *k, const char *word, error *err) {
    static const char prefix[] = "sha256:";
    key_entry        *e = &k->entries[k->entry_count];
    size_t            n = 0;
    if (k->entry_count == KEYS_MAX) return error_set(err, ERR_TOO_LARGE, "more than %d keys", KEYS_MAX);
    if (sodium_hex2bin(e->digest, DIGEST_BYTES, word + sizeof prefix - 1, strlen(word) - (sizeof prefix - 1), NULL, &n,
                       NULL) != 0 ||
        n != DIGEST_BYTES)
        return error_set(err, ERR_INVALID, "sha256: must be followed by the 64 hexadecimal digits of a SHA-256 digest");
    for (uint32_t i = 0; i < k->entry_count; i++)
        if (memcmp(k->entries[i].digest, e->digest, DIGEST_BYTES) == 0)
            return error_set(err, ERR_INVALID, "this key is already %s's", k->tenants[k->entries[i].tenant]->name);
    e->tenant = k->tenant_count - 1;
    k->entry_count++;
    return OK;
}

static int set_value(tenant *t, char *word, char *equals, error *err) {
    option_value v;
    *equals = 0;
    for (int i = 0; i < ROW_COUNT; i++) {
        if (strcmp(rows[i].name, word) != 0) continue;
        if (option_parse(&rows[i], word, equals + 1, &v, err) != OK) return err->code;
        if (rows[i].kind == OPTION_STRING) {
            free(t->texts);
            t->texts = strdup(equals + 1);
            if (!t->texts) fatal("out of memory for API keys");
        }
        option_store(&rows[i], t, &v, t->texts);
        return OK;
    }
    return error_set(err, ERR_INVALID, "a key has no setting '%.60s'", word);
}

/* A word that is none of the three kinds may be a key itself, so it is never repeated. */
static int read_word(keys *k, tenant *t, char *word, bool *has_key, error *err) {
    char *equals = strchr(word, '=');
    if (strncmp(word, "sha256:", 7) == 0) return *has_key = true, add_digest(k, word, err);
    if (equals) return set_value(t, word, equals, err);
    if (strcmp(word, "anyone") != 0)
        return error_set(err, ERR_INVALID,
                         "expected sha256:DIGEST, name=value or 'anyone'; a key is kept as its digest, which "
                         "`penstock key %s --stdin` prints",
                         t->name);
    if (k->anyone) return error_set(err, ERR_INVALID, "'anyone' is already %s", k->anyone->name);
    k->anyone = t;
    return *has_key = true, OK;
}

static int read_line(keys *k, char *line, error *err) {
    char *rest, *name = strtok_r(line, " \t\r", &rest);
    if (!name || *name == '#') return OK;
    if (!is_name(name, strlen(name)))
        return error_set(err, ERR_INVALID, "a name must be 1 to %d letters, digits, dots, dashes and underscores",
                         TENANT_NAME_BYTES - 1);
    for (uint32_t i = 0; i < k->tenant_count; i++)
        if (strcmp(k->tenants[i]->name, name) == 0)
            return error_set(err, ERR_INVALID, "%s has a line already; several keys go on one line", name);
    tenant **grown = realloc(k->tenants, (k->tenant_count + 1) * sizeof *grown);
    if (!grown) fatal("out of memory for API keys");
    k->tenants = grown;
    tenant *t = grown[k->tenant_count++] = tenant_new(name, strlen(name));
    bool    has_key = false;
    for (char *word; (word = strtok_r(NULL, " \t\r", &rest)) && *word != '#';)
        if (read_word(k, t, word, &has_key, err) != OK) return err->code;
    if (!has_key) return error_set(err, ERR_INVALID, "%s has no key; `penstock key %s` makes one", name, name);
    if (t->priority < t->priority_min)
        return error_set(err, ERR_INVALID, "priority %d is below priority-min %d", t->priority, t->priority_min);
    return OK;
}

static int read_lines(keys *k, const char *text, size_t n, unsigned *number, error *err) {
    char line[OPTION_TEXT_MAX + 1];
    for (const char *at = text, *end = text + n; at < end; ++*number) {
        const char *newline = memchr(at, '\n', (size_t)(end - at)), *stop = newline ? newline : end;
        size_t      size = (size_t)(stop - at);
        if (size > OPTION_TEXT_MAX) return error_set(err, ERR_TOO_LARGE, "a line is longer than %d bytes", OPTION_TEXT_MAX);
        memcpy(line, at, size), line[size] = 0;
        if (memchr(line, 0, size) || !utf8_valid(line, size)) return error_set(err, ERR_INVALID, "this is not UTF-8 text");
        if (read_line(k, line, err) != OK) return err->code;
        at = stop + 1;
    }
    return OK;
}

int keys_read_text(keys **out, const char *path, const char *text, size_t n, error *err) {
    error    own;
    unsigned line = 1;
    keys    *k = calloc(1, sizeof *k);
    if (!k) fatal("out of memory for API keys");
    if (!err) err = &own;
    *out = NULL;
    if (read_lines(k, text, n, &line, err) != OK) {
        keys_free(k);
        return error_prefix(err, "%s:%u", path, line);
    }
    return *out = k, OK;
}

int keys_read_file(keys **out, const char *path, error *err) {
    buf text;
    buf_init(&text, FILE_BYTES_MAX);
    int code = file_read(&text, path, err);
    if (code == OK) code = keys_read_text(out, path, text.size ? text.data : "", text.size, err);
    buf_free(&text);
    return code;
}

/* ---- making ---- */
void key_make(char out[KEY_TEXT_BYTES]) {
    unsigned char bits[32];
    randombytes_buf(bits, sizeof bits);
    memcpy(out, "sk-", 3);
    sodium_bin2base64(out + 3, KEY_TEXT_BYTES - 3, bits, sizeof bits, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
    sodium_memzero(bits, sizeof bits);
}

int key_line(const char *name, const char *key, size_t key_bytes, buf *out, error *err) {
    unsigned char digest[DIGEST_BYTES];
    char          hex[2 * DIGEST_BYTES + 1];
    if (!is_name(name, strlen(name)))
        return error_set(err, ERR_USAGE, "'%.80s' cannot be a name: 1 to %d letters, digits, dots, dashes and underscores",
                         name, TENANT_NAME_BYTES - 1);
    if (key_bytes < KEY_BYTES_MIN)
        return error_set(err, ERR_INVALID, "a key of %zu bytes can be guessed; give %d or more", key_bytes, KEY_BYTES_MIN);
    for (size_t i = 0; i < key_bytes; i++)
        if (key[i] <= 0x20 || key[i] >= 0x7F)
            return error_set(err, ERR_INVALID, "a key travels in a header: it may hold only visible ASCII characters");
    crypto_hash_sha256(digest, (const unsigned char *)key, key_bytes);
    buf_printf(out, "%s sha256:%s\n", name, sodium_bin2hex(hex, sizeof hex, digest, sizeof digest));
    return OK;
}

void keys_write(const keys *k, uint64_t now_us, buf *json) {
    buf_str(json, "{\"tenants\":[");
    for (uint32_t i = 0; k && i < k->tenant_count; i++) {
        tenant *t = k->tenants[i];
        refill(t, now_us);
        buf_printf(json,
                   "%s{\"name\":\"%s\",\"weight\":%.15g,\"priority\":%d,\"concurrency\":%u,\"at_work\":%u,"
                   "\"tokens_per_minute\":%u,\"tokens_left\":%.0f}",
                   i ? "," : "", t->name, t->weight, t->priority, t->concurrency, t->account->running, t->tokens_per_minute,
                   t->account->tokens);
    }
    buf_str(json, "]}");
}

uint32_t keys_figures(const keys *k, tenant_figures *out, uint32_t max) {
    uint32_t count = 0;
    for (uint32_t i = 0; k && i < k->tenant_count; i++) {
        const account  *a = k->tenants[i]->account;
        const uint32_t  at = i < max - 1 ? i : max - 1;
        tenant_figures *f = &out[at];
        if (at == count) *f = (tenant_figures){.name = at < max - 1 ? k->tenants[i]->name : "(other)"}, count++;
        f->running += a->running, f->requests += a->requests, f->refused += a->refused, f->tokens += a->charged;
    }
    return count;
}

void keys_markdown(buf *out) {
    buf_str(out, "| word | value | default | what it does |\n|---|---|---|---|\n");
    for (int i = 0; i < ROW_COUNT; i++) {
        buf_printf(out, "| `%s=` | ", rows[i].name);
        if (rows[i].kind == OPTION_STRING) buf_str(out, "WORD | ");
        else buf_printf(out, "%.15g to %.15g | ", rows[i].min, rows[i].max);
        if (rows[i].default_text) buf_printf(out, "`%s`", rows[i].default_text);
        buf_printf(out, " | %s |\n", rows[i].help);
    }
}
