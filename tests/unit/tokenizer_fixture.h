/* tests/unit/tokenizer_fixture.h: tokenizers made from JSON for a test. The tiny ones lie in tests/unit/data/tokenizers. */
#pragma once
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/json.h"
#include "models/tokenizer.h"

#define TINY "tests/unit/data/tokenizers/"

static inline cJSON *fixture_json(const char *path) {
    buf   text;
    error err = {0};
    buf_init(&text, 64 << 20);
    if (file_read(&text, path, &err) != OK) fail_msg("%s", err.text);
    cJSON *json = json_parse(text.data, text.size, 64, &err);
    if (!json) fail_msg("%s: %s", path, err.text);
    buf_free(&text);
    return json;
}

static inline void fixture_write(const char *dir, const char *name, const char *text, size_t n) {
    char path[1100];
    snprintf(path, sizeof path, "%.1024s/%.64s", dir, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

/* Opens a folder made of the two texts; `config` may be NULL. Returns tokenizer_open's code. */
static inline int fixture_open_texts(tokenizer **t, const char *text, size_t n, const char *config, error *err) {
    char        dir[1024], path[1100];
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%s/penstock-tokenizer-XXXXXX", tmp ? tmp : "/tmp");
    assert_non_null(mkdtemp(dir));
    fixture_write(dir, "tokenizer.json", text, n);
    if (config) fixture_write(dir, "tokenizer_config.json", config, strlen(config));
    int code = tokenizer_open(t, dir, err);
    snprintf(path, sizeof path, "%s/tokenizer.json", dir), unlink(path);
    snprintf(path, sizeof path, "%s/tokenizer_config.json", dir), unlink(path);
    rmdir(dir);
    return code;
}

/* A tiny tokenizer with the members of `patch` (JSON text or NULL) put in the place of its own. */
static inline int fixture_open_patched(tokenizer **t, const char *base, const char *patch, const char *config, error *err) {
    char path[256];
    snprintf(path, sizeof path, TINY "%s/tokenizer.json", base);
    cJSON *json = fixture_json(path), *members = patch ? json_parse(patch, strlen(patch), 64, NULL) : NULL;
    if (patch && !members) fail_msg("the test's own JSON is malformed: %s", patch);
    for (const cJSON *m = members ? members->child : NULL; m; m = m->next) {
        cJSON_DeleteItemFromObjectCaseSensitive(json, m->string);
        cJSON_AddItemToObject(json, m->string, cJSON_Duplicate(m, true));
    }
    char *text = cJSON_PrintUnformatted(json);
    int   code = fixture_open_texts(t, text, strlen(text), config, err);
    free(text);
    cJSON_Delete(members), cJSON_Delete(json);
    return code;
}

static inline tokenizer *fixture_tokenizer(const char *base, const char *patch) {
    tokenizer *t = NULL;
    error      err = {0};
    if (fixture_open_patched(&t, base, patch, NULL, &err) != OK) fail_msg("%s %s: %s", base, patch ? patch : "", err.text);
    return t;
}

static inline token_ids fixture_encode(const tokenizer *t, const char *text, size_t n, unsigned flags) {
    token_ids ids = {0};
    error     err = {0};
    if (tokenizer_encode(t, text, n, flags, &ids, &err) != OK) fail_msg("%s", err.text);
    return ids;
}

/* Fails where ids are not those of the JSON array. */
static inline void fixture_check_ids(const char *what, const char *text, const token_ids *ids, const cJSON *expected) {
    size_t       i = 0;
    const cJSON *item;
    cJSON_ArrayForEach(item, expected) {
        if (i >= ids->count || ids->ids[i] != (uint32_t)item->valuedouble)
            fail_msg("%s: \"%s\": id %zu is %d, not %d", what, text, i, i < ids->count ? (int)ids->ids[i] : -1,
                     item->valueint);
        i++;
    }
    if (i != ids->count) fail_msg("%s: \"%s\": %zu ids, not %zu", what, text, ids->count, i);
}

/* Decodes whole and as a stream; both must be `expected` (NULL: only equal to each other). */
static inline void fixture_check_text(const char *what, const tokenizer *t, const token_ids *ids, bool keep_special,
                                      const char *expected) {
    buf         whole, stream;
    error       err = {0};
    detokenizer d;
    buf_init(&whole, 64 << 20), buf_init(&stream, 64 << 20);
    if (tokenizer_decode(t, ids->ids, ids->count, keep_special, &whole, &err) != OK) fail_msg("%s: %s", what, err.text);
    detokenizer_init(&d, t, keep_special);
    for (size_t i = 0; i < ids->count; i++) detokenizer_feed(&d, ids->ids[i], &stream);
    detokenizer_finish(&d, &stream);
    const char *text = whole.data ? whole.data : "";
    if (whole.size != stream.size || (whole.size && memcmp(whole.data, stream.data, whole.size)))
        fail_msg("%s: decoded whole \"%s\", as a stream \"%s\"", what, text, stream.data ? stream.data : "");
    if (expected && strcmp(text, expected)) fail_msg("%s: decoded \"%s\", not \"%s\"", what, text, expected);
    buf_free(&whole), buf_free(&stream);
}
