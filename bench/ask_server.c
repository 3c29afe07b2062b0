/* What a replay must know of a server: the model's name, how long a context may be, how many token ids there are. */
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "bench/replay.h"

enum { VOCAB_MIN = 16, VOCAB_MAX = 1 << 24 };

/* Every script and the odd symbol: somewhere in it are ids near the end of any vocabulary. */
static const char sample_text[] =
    "The quick brown fox, 0123456789 jumps over; naive facade: zebra-crossing @ 42% <tag> {x[i]} \\n\\t #include // "
    "unbelievable "
    "\xD0\x9F\xD1\x80\xD0\xB8\xD0\xB2\xD0\xB5\xD1\x82 \xE4\xBD\xA0\xE5\xA5\xBD\xE4\xB8\x96\xE7\x95\x8C "
    "\xE3\x81\x93\xE3\x82\x93\xE3\x81\xAB\xE3\x81\xA1\xE3\x81\xAF \xEC\x95\x88\xEB\x85\x95 "
    "\xD9\x85\xD8\xB1\xD8\xAD\xD8\xA8\xD8\xA7 "
    "\xF0\x9F\x98\x80 antidisestablishmentarianism electroencephalography straightforwardly perpendicular";

static cJSON *ask(client *c, const char *path, const char *text, error *err) {
    buf    body, page;
    cJSON *said = NULL;
    buf_init(&body, 64 << 10), buf_init(&page, ANSWER_PAGE_BYTES_MAX);
    if (text) buf_str(&body, text);
    if (client_ask(c, path, text ? &body : NULL, &page, err) == OK)
        said = json_parse(page.data ? page.data : "", page.size, 32, err);
    buf_free(&body), buf_free(&page);
    return said;
}

/* Ours is `vocab_size`; llama.cpp says meta.n_vocab. */
static void read_model(const cJSON *card, server_facts *facts) {
    const char *id = NULL;
    json_read_string(card, "id", &id, NULL);
    if (id) snprintf(facts->model, sizeof facts->model, "%s", id);
    json_read_u32(card, "max_model_len", 2, UINT32_MAX, &facts->context_max, NULL);
    json_read_u32(card, "vocab_size", VOCAB_MIN, VOCAB_MAX, &facts->vocab_size, NULL);
    json_read_u32(json_get(card, "meta"), "n_vocab", VOCAB_MIN, VOCAB_MAX, &facts->vocab_size, NULL);
}

/* The highest id that a text with a bit of everything is made of: an id below it is valid too. */
static void probe_vocabulary(client *c, const char *model, server_facts *facts) {
    buf body;
    buf_init(&body, 64 << 10);
    buf_str(&body, "{\"model\":"), json_quote(&body, model, strlen(model));
    buf_str(&body, ",\"prompt\":"), json_quote(&body, sample_text, sizeof sample_text - 1);
    buf_str(&body, ",\"content\":"), json_quote(&body, sample_text, sizeof sample_text - 1), buf_str(&body, "}");
    cJSON       *said = ask(c, "/tokenize", body.data, NULL);
    const cJSON *id;
    int64_t      highest = 0, value;
    cJSON_ArrayForEach(id, json_get(said, "tokens")) {
        if (json_whole_number(id, &value) && value > highest && value < VOCAB_MAX) highest = value;
    }
    if (highest + 1 >= VOCAB_MIN) facts->vocab_size = (uint32_t)highest + 1;
    cJSON_Delete(said), buf_free(&body);
}

static int choose_model(client *c, const replay_config *config, server_facts *facts, error *err) {
    error        why = {0};
    cJSON       *said = ask(c, "/v1/models", NULL, &why);
    const cJSON *card, *found = NULL;
    cJSON_ArrayForEach(card, json_get(said, "data")) {
        const cJSON *id = json_get(card, "id");
        if (!found && (!config->model || (cJSON_IsString(id) && strcmp(id->valuestring, config->model) == 0))) found = card;
    }
    if (found) read_model(found, facts);
    cJSON_Delete(said);
    if (config->model) return snprintf(facts->model, sizeof facts->model, "%s", config->model), OK;
    if (facts->model[0]) return OK;
    return error_set(err, ERR_IO, "%s does not list its models (%s); is it up? Else name one with --model", config->url,
                     why.text[0] ? why.text : "no usable entry");
}

int replay_ask_server(replay_config *config, server_facts *facts, error *err) {
    uv_loop_t loop;
    client   *c;
    *facts = (server_facts){{0}, 0, 0, false};
    uv_loop_init(&loop);
    int code = client_open(&c, &loop, config->url, config->api_key, err);
    if (code != OK) return uv_loop_close(&loop), code;
    code = choose_model(c, config, facts, err);
    if (code == OK && !config->rules.vocab_size && !facts->vocab_size) probe_vocabulary(c, facts->model, facts);
    if (code == OK) {
        buf page;
        buf_init(&page, ANSWER_PAGE_BYTES_MAX);
        facts->has_metrics = client_ask(c, "/metrics", NULL, &page, NULL) == OK;
        buf_free(&page);
    }
    client_close(c);
    uv_run(&loop, UV_RUN_DEFAULT);
    uv_loop_close(&loop), client_free(c);
    if (code != OK) return code;
    config->model = facts->model;
    if (!config->rules.vocab_size) config->rules.vocab_size = facts->vocab_size;
    if (!config->rules.context_max) config->rules.context_max = facts->context_max;
    if (config->rules.vocab_size) return OK;
    return error_set(err, ERR_USAGE, "%s does not say how many token ids there are; give --vocab N", config->url);
}
