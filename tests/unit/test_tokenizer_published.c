/* tests/unit/test_tokenizer_published.c: the published tokenizers of ../shared/tokenizers against recorded ids, and the one
 * of the embedded model. Skipped by name where they are not there. */
#include "tests/unit/tokenizer_fixture.h"

static const char *shared_path(const char *name) {
    static char path[4][4096];
    static int  next;
    const char *shared = getenv("PENSTOCK_SHARED");
    char       *p = path[next++ & 3];
    snprintf(p, sizeof path[0], "%s/tokenizers/%s", shared ? shared : "../shared", name);
    return p;
}

static void read_shared(const char *name, buf *out) {
    error err = {0};
    buf_init(out, 64 << 20);
    if (file_read(out, shared_path(name), &err) != OK) fail_msg("%s", err.text);
}

/* A file of shared JSON. It may hold \u0000, which base/json.h refuses: a noncharacter stands for it (in `nul`). */
static const char nul[] = "\xEF\xB7\x90";
static cJSON     *shared_json(const char *name) {
        buf text;
        read_shared(name, &text);
        for (char *at = text.data; (at = strstr(at, "\\u0000")); at += 6) memcpy(at, "\\uFDD0", 6);
    cJSON *json = json_parse(text.data, text.size, 64, NULL);
        assert_non_null(json);
        buf_free(&text);
        return json;
}

static size_t restore_nul(char *text) {
    size_t n = strlen(text);
    for (char *at = text; (at = memmem(at, n - (size_t)(at - text), nul, 3)); n -= 2) {
        *at++ = 0;
        memmove(at, at + 2, n - (size_t)(at - text) - 1);
    }
    return n;
}

/* The files over 2 MB are kept compressed. */
static tokenizer *open_shared(const char *folder) {
    char       dir[] = "/tmp/penstock-published-XXXXXX", path[128], command[5000], name[64];
    tokenizer *t = NULL;
    error      err = {0};
    snprintf(name, sizeof name, "%s/tokenizer.json", folder);
    if (file_exists(shared_path(name))) {
        if (tokenizer_open(&t, shared_path(folder), &err) != OK) fail_msg("%s", err.text);
        return t;
    }
    strcat(name, ".gz");
    if (!file_exists(shared_path(name))) skip();
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/tokenizer.json", dir);
    snprintf(command, sizeof command, "gzip -dc '%s' > %s", shared_path(name), path);
    assert_int_equal(system(command), 0);
    int code = tokenizer_open(&t, dir, &err);
    unlink(path), rmdir(dir);
    if (code != OK) fail_msg("%s", err.text);
    return t;
}

/* Inputs parted by a line, outputs one line each; the last input is empty. */
static void check_line_vectors(const tokenizer *t, const char *inputs, const char *outputs, int count) {
    static const char part[] = "\n__ggml_vocab_test__\n";
    buf               in, out;
    read_shared(inputs, &in), read_shared(outputs, &out);
    char *text = in.data, *line = out.data;
    int   checked = 0;
    for (char *end; text; text = end ? end + sizeof part - 1 : NULL, checked++) {
        end = strstr(text, part);
        token_ids ids = fixture_encode(t, text, end ? (size_t)(end - text) : strlen(text), 0);
        for (size_t i = 0; i < ids.count; i++) {
            char         *after;
            unsigned long id = strtoul(line, &after, 10);
            if (after == line || id != ids.ids[i])
                fail_msg("%s, input %d: id %zu is %u, not %lu", inputs, checked, i, ids.ids[i], id);
            line = after;
        }
        line += strspn(line, " ");
        assert_true(*line == '\n' || *line == 0);
        line += *line == '\n';
        token_ids_free(&ids);
    }
    assert_int_equal(checked, count);
    buf_free(&in), buf_free(&out);
}

static void check_generated(const tokenizer *t, const char *name) {
    cJSON *rows = shared_json(name), *row;
    cJSON_ArrayForEach(row, rows) {
        char     *text = cJSON_GetObjectItem(row, "text")->valuestring;
        size_t    n = restore_nul(text);
        token_ids ids = fixture_encode(t, text, n, cJSON_IsTrue(json_get(row, "special")) ? TOKENIZE_SPECIAL : 0);
        fixture_check_ids(name, text, &ids, json_get(row, "ids"));
        fixture_check_text(name, t, &ids, true, NULL);
        token_ids_free(&ids);
    }
    assert_true(cJSON_GetArraySize(rows) > 100);
    cJSON_Delete(rows);
}

static token_ids list_of(const cJSON *list) {
    token_ids    ids = {.ids = malloc(sizeof(uint32_t) * ((size_t)cJSON_GetArraySize(list) + 1))};
    const cJSON *item;
    cJSON_ArrayForEach(item, list) ids.ids[ids.count++] = (uint32_t)item->valuedouble;
    return ids;
}

/* The recorded text was cleaned of spaces before punctuation: compared without any spaces. */
static void check_cleaned(const tokenizer *t, const token_ids *ids, bool keep, const char *expected) {
    buf out;
    buf_init(&out, 1 << 20);
    assert_int_equal(tokenizer_decode(t, ids->ids, ids->count, keep, &out, NULL), OK);
    const char *a = out.data ? out.data : "", *b = expected;
    while (*a || *b) {
        a += strspn(a, " "), b += strspn(b, " ");
        if (*a != *b) fail_msg("decoded \"%s\", not \"%s\"", out.data, expected);
        if (*a) a++, b++;
    }
    buf_free(&out);
}

/* in_front: how many ids the recording has in front that this tokenizer does not add. */
static void check_hf_cases(const tokenizer *t, const char *name, size_t in_front) {
    cJSON *rows = shared_json(name), *row;
    cJSON_ArrayForEach(row, rows) {
        const char *text = json_get(row, "input")->valuestring;
        token_ids   ids = list_of(json_get(json_get(row, "encoded"), "input_ids"));
        token_ids   own = fixture_encode(t, text, strlen(text), 0);
        assert_int_equal(own.count + in_front, ids.count);
        assert_memory_equal(own.ids, ids.ids + in_front, own.count * sizeof *own.ids);
        check_cleaned(t, &ids, true, json_get(row, "decoded_with_special")->valuestring);
        check_cleaned(t, &ids, false, json_get(row, "decoded_without_special")->valuestring);
        token_ids_free(&ids), token_ids_free(&own);
    }
    assert_int_equal(cJSON_GetArraySize(rows), 18);
    cJSON_Delete(rows);
}

static void check_long_text(const tokenizer *t, const char *name, size_t in_front) {
    cJSON      *json = shared_json(name);
    const char *text = json_get(json, "text")->valuestring;
    token_ids   expected = list_of(json_get(json, "token_ids")), ids = fixture_encode(t, text, strlen(text), 0);
    assert_int_equal(ids.count + in_front, expected.count);
    assert_memory_equal(ids.ids, expected.ids + in_front, ids.count * sizeof *ids.ids);
    fixture_check_text(name, t, &ids, false, text);
    token_ids_free(&ids), token_ids_free(&expected);
    cJSON_Delete(json);
}

static void gpt2_gives_the_recorded_ids(void **state) {
    (void)state;
    tokenizer *t = open_shared("gpt2");
    check_line_vectors(t, "gpt2/ggml-vocab-gpt-2.inp", "gpt2/ggml-vocab-gpt-2.out", 47);
    check_generated(t, "gpt2/generated_vectors.json");
    check_hf_cases(t, "gpt2/hf_cases_distilgpt2.json", 0);
    check_long_text(t, "gpt2/hf_long_text_gpt2.json", 0);
    tokenizer_close(t);
}

static void qwen3_gives_the_recorded_ids(void **state) {
    (void)state;
    tokenizer *t = open_shared("qwen3");
    check_line_vectors(t, "qwen3/ggml-vocab-qwen2.inp", "qwen3/ggml-vocab-qwen2.out", 47);
    check_generated(t, "qwen3/generated_vectors.json");
    tokenizer_close(t);
}

static void phi3_gives_the_recorded_ids(void **state) {
    (void)state;
    tokenizer *t = open_shared("phi-3-mini");
    check_line_vectors(t, "phi-3-mini/ggml-vocab-phi-3.inp", "phi-3-mini/ggml-vocab-phi-3.out", 47);
    check_generated(t, "phi-3-mini/generated_vectors.json");
    check_hf_cases(t, "phi-3-mini/hf_cases_llama2_vocab.json", 1);
    check_long_text(t, "phi-3-mini/hf_long_text_llama2_vocab.json", 1);
    tokenizer_close(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gpt2_gives_the_recorded_ids),
        cmocka_unit_test(qwen3_gives_the_recorded_ids),
        cmocka_unit_test(phi3_gives_the_recorded_ids),
    };
    return cmocka_run_group_tests_name("tokenizer_published", tests, NULL, NULL);
}
