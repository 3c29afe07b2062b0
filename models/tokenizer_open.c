/* models/tokenizer_open.c: tokenizer.json and tokenizer_config.json read into the tables of the steps. */
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/utf8.h"
#include "models/tokenizer_internal.h"

enum { FILE_MAX_BYTES = 256 << 20, JSON_DEPTH_MAX = 64, TEMPLATE_IDS_MAX = 64, TEMPLATE_PIECES_MAX = 64 };

/* ---- the post-processor: what goes in front of a text and behind it ---- */

/* Appends the ids of one special token of a template. */
static int template_token(token_ids *ids, const cJSON *special_tokens, const cJSON *piece, error *err) {
    const char *name = NULL;
    int         code = json_read_string(piece, "id", &name, err);
    if (code != OK) return code;
    const cJSON *list = name ? json_get(json_get(special_tokens, name), "ids") : NULL, *item;
    if (!cJSON_IsArray(list))
        return error_set(err, ERR_INVALID, "the post-processor uses the special token '%.40s', but does not list its ids",
                         name ? name : "");
    cJSON_ArrayForEach(item, list) {
        double id = item->valuedouble;
        if (!cJSON_IsNumber(item) || !(id >= 0 && id < IDS_MAX) || id != (uint32_t)id)
            return error_set(err, ERR_INVALID, "the post-processor's ids of '%.40s' must be integers from 0 to %d", name,
                             IDS_MAX - 1);
        if (ids->count == TEMPLATE_IDS_MAX)
            return error_set(err, ERR_TOO_LARGE, "the post-processor adds more than %d ids", TEMPLATE_IDS_MAX);
        token_push(ids, (uint32_t)id);
    }
    return OK;
}

static int read_template(tokenizer *t, const cJSON *json, error *err) {
    const cJSON *single = json_get(json, "single"), *tokens = json_get(json, "special_tokens"), *piece;
    bool         behind = false;
    if (!cJSON_IsArray(single)) return error_set(err, ERR_INVALID, "the post-processor has no array 'single'");
    if (cJSON_GetArraySize(single) > TEMPLATE_PIECES_MAX)
        return error_set(err, ERR_TOO_LARGE, "the post-processor's 'single' has more than %d pieces", TEMPLATE_PIECES_MAX);
    if (t->front.count || t->behind.count)
        return error_set(err, ERR_UNSUPPORTED, "more than one TemplateProcessing is not supported");
    cJSON_ArrayForEach(piece, single) {
        const cJSON *token = json_get(piece, "SpecialToken");
        if (!token && !json_get(piece, "Sequence"))
            return error_set(err, ERR_INVALID,
                             "the post-processor's 'single' holds something that is neither SpecialToken nor Sequence");
        int code = token ? template_token(behind ? &t->behind : &t->front, tokens, token, err) : OK;
        if (code != OK) return code;
        if (!token) behind = true;
    }
    return OK;
}

static int read_post_processor(tokenizer *t, const cJSON *json, error *err) {
    const char *type = NULL;
    if (!json || cJSON_IsNull(json)) return OK;
    if (json_read_string(json, "type", &type, err) != OK) return err->code;
    if (!type) return error_set(err, ERR_INVALID, "the post-processor has no 'type'");
    if (strcmp(type, "ByteLevel") == 0) return OK;
    if (strcmp(type, "TemplateProcessing") == 0) return read_template(t, json, err);
    if (strcmp(type, "Sequence"))
        return error_set(err, ERR_UNSUPPORTED,
                         "the post-processor '%.60s' is not supported (supported: ByteLevel, TemplateProcessing, Sequence)",
                         type);
    const cJSON *list = json_get(json, "processors"), *item;
    if (!cJSON_IsArray(list)) return error_set(err, ERR_INVALID, "the post-processor 'Sequence' has no array 'processors'");
    cJSON_ArrayForEach(item, list) {
        int code = read_post_processor(t, item, err);
        if (code != OK) return code;
    }
    return OK;
}

static int check_template_ids(const tokenizer *t, const token_ids *ids, error *err) {
    for (size_t i = 0; i < ids->count; i++)
        if (ids->ids[i] >= t->model.vocab.id_end || !(t->model.vocab.tokens[ids->ids[i]].flags & TOKEN_PRESENT))
            return error_set(err, ERR_INVALID, "the post-processor adds the id %u, which is no token", ids->ids[i]);
    return OK;
}

/* ---- tokenizer_config.json ---- */

/* The id of "bos_token" and the like, written as a string or as {"content": ...}; NO_ID where there is none. */
static uint32_t config_token(const tokenizer *t, const cJSON *config, const char *name) {
    const cJSON *value = json_get(config, name), *text = cJSON_IsObject(value) ? json_get(value, "content") : value;
    if (!cJSON_IsString(text)) return NO_ID;
    return vocab_find_text(&t->model.vocab, (view){text->valuestring, strlen(text->valuestring)});
}

/* add_bos_token, add_eos_token: where given, they overrule the post-processor as to that token. */
static int read_add_token(const tokenizer *t, const cJSON *config, const char *kind, token_ids *ids, error *err) {
    char add_name[32], token_name[32];
    bool add = false;
    snprintf(add_name, sizeof add_name, "add_%s_token", kind);
    snprintf(token_name, sizeof token_name, "%s_token", kind);
    const cJSON *given = json_get(config, add_name);
    if (!given || cJSON_IsNull(given)) return OK;
    int code = json_read_bool(config, add_name, &add, err);
    if (code != OK) return code;
    uint32_t id = config_token(t, config, token_name);
    size_t   kept = 0;
    for (size_t i = 0; i < ids->count; i++)
        if (add || ids->ids[i] != id) ids->ids[kept++] = ids->ids[i];
    ids->count = kept;
    if (!add || kept) return OK;
    if (id == NO_ID)
        return error_set(err, ERR_INVALID, "'%s' is set, but '%s' names no token of the vocabulary", add_name, token_name);
    token_push(ids, id);
    return OK;
}

static int read_config(tokenizer *t, const cJSON *config, error *err) {
    int code = added_tokens_read_config(&t->added, &t->model.vocab, config, err);
    if (code == OK) code = read_add_token(t, config, "bos", &t->front, err);
    if (code == OK) code = read_add_token(t, config, "eos", &t->behind, err);
    return code;
}

/* ---- both files ---- */

static int read_tokenizer(tokenizer *t, const cJSON *json, const model_text *text, error *err) {
    if (!cJSON_IsObject(json)) return error_set(err, ERR_INVALID, "the file is not a JSON object");
    const cJSON *added = json_get(json, "added_tokens");
    size_t       added_count = (size_t)cJSON_GetArraySize(added);
    int          code = normalizer_read(&t->normalizer, json_get(json, "normalizer"), err);
    if (code == OK) code = pretokenizer_read(&t->pretokenizer, json_get(json, "pre_tokenizer"), err);
    if (code == OK) code = decoder_read(&t->decoder, json_get(json, "decoder"), err);
    t->model.byte_level = t->pretokenizer.byte_level;
    if (code == OK) code = bpe_model_read(&t->model, json_get(json, "model"), text, added_count, err);
    if (code == OK) code = added_tokens_read(&t->added, &t->model.vocab, added, err);
    if (code == OK) code = read_post_processor(t, json_get(json, "post_processor"), err);
    if (code == OK) code = check_template_ids(t, &t->front, err);
    if (code == OK) code = check_template_ids(t, &t->behind, err);
    return code;
}

static int read_tokenizer_text(tokenizer *t, view file, error *err) {
    model_text text = {0};
    buf        rest;
    if (!utf8_valid(file.data, file.size)) return error_set(err, ERR_INVALID, "the JSON is not valid UTF-8");
    buf_init(&rest, FILE_MAX_BYTES + 16);
    int code = model_text_cut(file, &text, &rest, err);
    if (code == OK) {
        cJSON *json = json_parse(rest.data, rest.size, JSON_DEPTH_MAX, err);
        code = json ? read_tokenizer(t, json, &text, err) : err->code;
        if (!json) cJSON_Delete(json_parse(file.data, file.size, JSON_DEPTH_MAX, err)); /* for the offset in the file */
        else cJSON_Delete(json);
    }
    buf_free(&rest);
    return code;
}

static int read_config_text(tokenizer *t, view file, error *err) {
    cJSON *json = json_parse(file.data, file.size, JSON_DEPTH_MAX, err);
    int    code = json ? read_config(t, json, err) : err->code;
    cJSON_Delete(json);
    return code;
}

static int read_file(tokenizer *t, const char *dir, const char *name, int (*read)(tokenizer *, view, error *), error *err) {
    char     path[4096];
    file_map file;
    if ((size_t)snprintf(path, sizeof path, "%s/%s", dir, name) >= sizeof path)
        return error_set(err, ERR_INVALID, "the path of the tokenizer is longer than %zu bytes", sizeof path);
    int code = file_map_open(&file, path, err);
    if (code != OK) return code;
    if (file.size > FILE_MAX_BYTES) {
        code =
            error_set(err, ERR_TOO_LARGE, "'%s' has %zu bytes, more than the limit of %d", path, file.size, FILE_MAX_BYTES);
    } else {
        code = read(t, (view){file.data ? file.data : "", file.size}, err);
        if (code != OK) error_prefix(err, "%s", path);
    }
    file_map_close(&file);
    return code;
}

static bool config_is_there(const char *dir) {
    char path[4096];
    return (size_t)snprintf(path, sizeof path, "%s/tokenizer_config.json", dir) < sizeof path && file_exists(path);
}

bool tokenizer_exists(const char *dir) {
    char path[4096];
    return snprintf(path, sizeof path, "%s/tokenizer.json", dir) < (int)sizeof path && file_exists(path);
}

int tokenizer_open(tokenizer **out, const char *dir, error *err) {
    error      unwanted;
    tokenizer *t = calloc(1, sizeof *t);
    if (!t) fatal("out of memory for a tokenizer");
    if (!err) err = &unwanted;
    *out = NULL;
    int code = read_file(t, dir, "tokenizer.json", read_tokenizer_text, err);
    if (code == OK && config_is_there(dir)) code = read_file(t, dir, "tokenizer_config.json", read_config_text, err);
    if (code != OK) return tokenizer_close(t), code;
    added_tokens_seal(&t->added, &t->normalizer);
    bpe_model_seal(&t->model);
    *out = t;
    return OK;
}

void tokenizer_close(tokenizer *t) {
    if (!t) return;
    normalizer_free(&t->normalizer);
    pretokenizer_free(&t->pretokenizer);
    bpe_model_free(&t->model);
    added_tokens_free(&t->added);
    decoder_free(&t->decoder);
    token_ids_free(&t->front), token_ids_free(&t->behind);
    free(t);
}
