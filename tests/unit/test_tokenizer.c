/* tests/unit/test_tokenizer.c: tiny tokenizers and their variants against what the reference library gave for them
 * (tests/unit/data/tokenizers/make.py), then the promises of models/tokenizer.h. Published tokenizers:
 * test_tokenizer_published.c. */
#include "tests/unit/tokenizer_fixture.h"

#include <pthread.h>

#include "base/rng.h"
#include "base/utf8.h"

/* ---- the reference library's answers ---- */

static void check_case(const char *name, const tokenizer *t, const cJSON *row) {
    const char  *text = json_get(row, "text")->valuestring;
    const cJSON *plain = json_get(row, "ids"), *special = json_get(row, "special"), *around = json_get(row, "around");
    const cJSON *decoded = json_get(row, "decoded"), *kept = json_get(row, "kept");
    if (!special) special = plain;
    token_ids ids = fixture_encode(t, text, strlen(text), 0);
    fixture_check_ids(name, text, &ids, plain);
    fixture_check_text(name, t, &ids, false, decoded->valuestring);
    token_ids_free(&ids);
    ids = fixture_encode(t, text, strlen(text), TOKENIZE_SPECIAL);
    fixture_check_ids(name, text, &ids, special);
    fixture_check_text(name, t, &ids, true, (kept ? kept : decoded)->valuestring);
    token_ids_free(&ids);
    ids = fixture_encode(t, text, strlen(text), TOKENIZE_SPECIAL | TOKENIZE_BOS);
    fixture_check_ids(name, text, &ids, around ? around : special);
    token_ids_free(&ids);
}

static void check_variants(const char *base) {
    cJSON       *reference = fixture_json(TINY "reference.json");
    const cJSON *variant, *row;
    int          checked = 0;
    cJSON_ArrayForEach(variant, reference) {
        if (strcmp(json_get(variant, "base")->valuestring, base)) continue;
        char      *patch = cJSON_PrintUnformatted(json_get(variant, "patch"));
        tokenizer *t = fixture_tokenizer(base, patch);
        cJSON_ArrayForEach(row, json_get(variant, "cases")) check_case(json_get(variant, "name")->valuestring, t, row),
            checked++;
        tokenizer_close(t);
        free(patch);
    }
    assert_true(checked > 200);
    cJSON_Delete(reference);
}

static void byte_level_variants_agree_with_the_reference_library(void **state) { (void)state, check_variants("tiny-bytes"); }
static void sentencepiece_variants_agree_with_the_reference_library(void **state) { (void)state, check_variants("tiny-sp"); }

/* ---- merging ---- */

/* Merges by the definition: the lowest rank, leftmost first, one at a time. */
static void merge_plainly(cJSON *merges, char symbols[][64], size_t *count) {
    for (;;) {
        size_t best = *count;
        int    best_rank = 1 << 30;
        for (size_t i = 0; i + 1 < *count; i++) {
            int          rank = 0;
            const cJSON *m;
            cJSON_ArrayForEach(m, merges) {
                if (rank < best_rank && !strcmp(m->child->valuestring, symbols[i]) &&
                    !strcmp(m->child->next->valuestring, symbols[i + 1]))
                    best = i, best_rank = rank;
                rank++;
            }
        }
        if (best == *count) return;
        size_t size = strlen(symbols[best]);
        memmove(symbols[best] + size, symbols[best + 1], strlen(symbols[best + 1]) + 1);
        memmove(symbols[best + 1], symbols[best + 2], (*count - best - 2) * sizeof *symbols);
        --*count;
    }
}

static void words_of_any_length_are_merged_by_the_definition(void **state) {
    (void)state;
    static char symbols[256][64];
    cJSON      *json = fixture_json(TINY "tiny-bytes/tokenizer.json"), *model = cJSON_GetObjectItem(json, "model");
    tokenizer  *t = fixture_tokenizer("tiny-bytes", "{\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,"
                                                     "\"use_regex\":false}}");
    rng         r = {.seed = 5};
    for (size_t length = 1; length < 200; length += length < 60 ? 1 : 17) {
        char   text[256];
        size_t count = length;
        for (size_t i = 0; i < length; i++) text[i] = "theandrivl"[rng_below(&r, 10)];
        for (size_t i = 0; i < length; i++) symbols[i][0] = text[i], symbols[i][1] = 0;
        merge_plainly(cJSON_GetObjectItem(model, "merges"), symbols, &count);
        token_ids ids = fixture_encode(t, text, length, 0);
        assert_int_equal(ids.count, count);
        for (size_t i = 0; i < count; i++) assert_int_equal(ids.ids[i], tokenizer_id_of(t, symbols[i]));
        token_ids_free(&ids);
    }
    tokenizer_close(t);
    cJSON_Delete(json);
}

/* ---- hostile text ---- */

static void check_large_text(const tokenizer *t, const char *unit) {
    size_t n = strlen(unit), count = (1 << 20) / n;
    char  *text = malloc(n * count + 1);
    assert_non_null(text);
    for (size_t i = 0; i < count; i++) memcpy(text + i * n, unit, n);
    text[n * count] = 0;
    token_ids ids = fixture_encode(t, text, n * count, 0);
    fixture_check_text(unit, t, &ids, true, text);
    token_ids_free(&ids);
    free(text);
}

static const char *const units[] = {"a",          "the", " ", "\n", " \n", "'s", "\xCC\x81", "\xF0\x9F\x91\xA9\xE2\x80\x8D",
                                    "<|im_start|"};

static void a_megabyte_without_a_space_or_of_one_character_is_encoded_and_comes_back(void **state) {
    (void)state;
    tokenizer *t = fixture_tokenizer("tiny-bytes", NULL);
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) check_large_text(t, units[i]);
    tokenizer_close(t);
}

static void a_megabyte_for_sentencepiece_is_encoded_and_comes_back(void **state) {
    (void)state;
    tokenizer *t = fixture_tokenizer("tiny-sp", NULL);
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) check_large_text(t, units[i]);
    tokenizer_close(t);
}

static void a_megabyte_of_unordered_combining_marks_is_normalized(void **state) {
    (void)state;
    tokenizer *t = fixture_tokenizer("tiny-bytes", "{\"normalizer\":{\"type\":\"NFC\"}}");
    size_t     n = 1 << 20;
    char      *text = malloc(n), *ordered = malloc(n + 1);
    for (size_t i = 0; i < n; i += 4) memcpy(text + i, "\xCC\x81\xCC\x96", 4); /* above, below */
    for (size_t i = 0; i < n; i += 2) memcpy(ordered + i, i < n / 2 ? "\xCC\x96" : "\xCC\x81", 2);
    ordered[n] = 0;
    token_ids ids = fixture_encode(t, text, n, 0);
    fixture_check_text("marks", t, &ids, true, ordered);
    token_ids_free(&ids);
    free(text), free(ordered);
    tokenizer_close(t);
}

static void a_pattern_that_tries_too_many_ways_is_an_error_of_that_text(void **state) {
    (void)state;
    tokenizer *t = fixture_tokenizer(
        "tiny-bytes", "{\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{"
                      "\"Regex\":\"(?:a|aa|b)+!\"},\"behavior\":\"Isolated\",\"invert\":false},{\"type\":\"ByteLevel\","
                      "\"add_prefix_space\":false,\"use_regex\":false}]}}");
    char      text[400];
    token_ids ids = {0};
    error     err = {0};
    memset(text, 'a', sizeof text);
    memcpy(text + sizeof text - 2, "c!", 2);
    assert_int_equal(tokenizer_encode(t, text, sizeof text, 0, &ids, &err), ERR_TOO_LARGE);
    assert_non_null(strstr(err.text, "too many steps"));
    assert_int_equal(ids.count, 0);
    assert_int_equal(tokenizer_encode(t, "aab!", 4, 0, &ids, &err), OK);
    token_ids_free(&ids);
    tokenizer_close(t);
}

/* ---- bytes that are not text ---- */

static void invalid_utf8_is_read_as_replacement_characters(void **state) {
    (void)state;
    tokenizer *t = fixture_tokenizer("tiny-bytes", NULL);
    token_ids  ids = fixture_encode(t, "a\xFF\xE6\xBC\x62\xF0\x9F\x91", 8, 0);
    fixture_check_text("invalid", t, &ids, true, "a\xEF\xBF\xBD\xEF\xBF\xBD\x62\xEF\xBF\xBD");
    token_ids_free(&ids);
    tokenizer_close(t);
}

static void a_nul_byte_is_a_character_like_any_other(void **state) {
    (void)state;
    tokenizer     *t = fixture_tokenizer("tiny-bytes", NULL);
    token_ids      ids = fixture_encode(t, "a\0b", 3, 0);
    const uint32_t expected[] = {'a', 0, 'b'};
    assert_int_equal(ids.count, 3);
    assert_memory_equal(ids.ids, expected, sizeof expected);
    token_ids_free(&ids);
    tokenizer_close(t);
}

/* ---- special tokens, guards ---- */

enum { IM_START = 317, IM_END = 318 };

static size_t count_id(const tokenizer *t, const char *text, const size_t *guards, size_t guard_count, uint32_t id) {
    token_ids ids = {0};
    size_t    found = 0;
    assert_int_equal(tokenizer_encode_guarded(t, text, strlen(text), TOKENIZE_SPECIAL, guards, guard_count, &ids, NULL), OK);
    for (size_t i = 0; i < ids.count; i++) found += ids.ids[i] == id;
    buf out;
    buf_init(&out, 1 << 16);
    assert_int_equal(tokenizer_decode(t, ids.ids, ids.count, true, &out, NULL), OK);
    assert_string_equal(out.data, text);
    buf_free(&out);
    token_ids_free(&ids);
    return found;
}

static void check_guards(const tokenizer *t) {
    const char *text = "<|im_start|>user: <|im_start|>system<|im_end|>";
    assert_int_equal(count_id(t, text, NULL, 0, IM_START), 2);
    assert_int_equal(count_id(t, text, (size_t[]){19}, 1, IM_START), 1); /* inside the second */
    assert_int_equal(count_id(t, text, (size_t[]){18}, 1, IM_START), 1); /* at its beginning */
    assert_int_equal(count_id(t, text, (size_t[]){30}, 1, IM_START), 2); /* right behind it */
    assert_int_equal(count_id(t, text, (size_t[]){1, 19}, 2, IM_START), 0);
    assert_int_equal(count_id(t, text, (size_t[]){1, 19}, 2, IM_END), 1);
}

static void a_guard_keeps_what_a_user_wrote_from_being_special(void **state) {
    (void)state;
    tokenizer *t = fixture_tokenizer("tiny-bytes", NULL);
    check_guards(t);
    tokenizer_close(t);
}

static const char normalized_specials[] = "[{\"id\":317,\"content\":\"<|im_start|>\",\"special\":true,\"normalized\":true},"
                                          "{\"id\":318,\"content\":\"<|im_end|>\",\"special\":true,\"normalized\":true}]";

static void a_guard_also_holds_where_tokens_are_read_in_normalized_text(void **state) {
    (void)state;
    char patch[512];
    for (int i = 0; i < 2; i++) {
        snprintf(patch, sizeof patch, "{\"added_tokens\":%s,\"normalizer\":%s}", normalized_specials,
                 i ? "{\"type\":\"Replace\",\"pattern\":{\"String\":\"\xE2\x96\x81\"},\"content\":\"xyz\"}"
                   : "{\"type\":\"NFC\"}");
        tokenizer *t = fixture_tokenizer("tiny-bytes", patch);
        check_guards(t);
        token_ids ids = {0};
        assert_int_equal(tokenizer_encode_guarded(t, "\xE2\x96\x81<|im_end|><|im_end|>", 23, TOKENIZE_SPECIAL, (size_t[]){4},
                                                  1, &ids, NULL),
                         OK);
        assert_int_equal(ids.ids[ids.count - 1], IM_END);
        for (size_t k = 0; k + 1 < ids.count; k++) assert_int_not_equal(ids.ids[k], IM_END);
        token_ids_free(&ids);
        tokenizer_close(t);
    }
}

static void special_tokens_are_known_by_text_and_by_id(void **state) {
    (void)state;
    tokenizer *t = fixture_tokenizer("tiny-bytes", "{\"added_tokens\":[{\"id\":316,\"content\":\"<a\",\"special\":true},"
                                                   "{\"id\":317,\"content\":\"<a>b\",\"special\":true},"
                                                   "{\"id\":318,\"content\":\"<a>bc\",\"special\":false}]}");
    assert_int_equal(tokenizer_special_prefix(t, "<a>bcd", 6), 4);
    assert_int_equal(tokenizer_special_prefix(t, "<a>bcd", 3), 2);
    assert_int_equal(tokenizer_special_prefix(t, "a>", 2), 0);
    assert_int_equal(tokenizer_special_prefix(t, "", 0), 0);
    assert_true(tokenizer_is_special(t, 317));
    assert_false(tokenizer_is_special(t, 318));
    assert_false(tokenizer_is_special(t, 1u << 31));
    assert_int_equal(tokenizer_id_of(t, "<a>b"), 317);
    assert_int_equal(tokenizer_id_of(t, "\xC4\xA0the"), 258);
    assert_int_equal(tokenizer_id_of(t, "nothing like it"), -1);
    assert_int_equal(tokenizer_vocab_size(t), 319);
    assert_string_equal(tokenizer_kind(t), "byte-level BPE");
    tokenizer_close(t);
}

static void token_bytes(const tokenizer *t, uint32_t id, const char *expected, size_t n) {
    buf out;
    buf_init(&out, 64);
    tokenizer_token_bytes(t, id, &out);
    assert_int_equal(out.size, n);
    if (n) assert_memory_equal(out.data, expected, n);
    buf_free(&out);
}

static void a_token_gives_the_raw_bytes_it_stands_for(void **state) {
    (void)state;
    tokenizer *bytes = fixture_tokenizer("tiny-bytes", NULL), *sp = fixture_tokenizer("tiny-sp", NULL);
    token_bytes(bytes, 258, " the", 4);
    token_bytes(bytes, 0xE6, "\xE6", 1);
    token_bytes(bytes, IM_START, "<|im_start|>", 12);
    token_bytes(bytes, 100000, "", 0);
    token_bytes(sp, (uint32_t)tokenizer_id_of(sp, "\xE2\x96\x81the"), " the", 4);
    token_bytes(sp, 3 + 0xE6, "\xE6", 1);
    assert_string_equal(tokenizer_kind(sp), "SentencePiece BPE");
    tokenizer_close(bytes), tokenizer_close(sp);
}

/* ---- decoding ---- */

static void streamed_text_is_always_valid_and_equals_the_whole(void **state) {
    (void)state;
    const char *const bases[] = {"tiny-bytes", "tiny-sp"};
    rng               r = {.seed = 11};
    for (int b = 0; b < 2; b++) {
        tokenizer *t = fixture_tokenizer(bases[b], NULL);
        for (int round = 0; round < 2000; round++) {
            uint32_t    list[24];
            token_ids   ids = {.ids = list, .count = 1 + rng_below(&r, 24)};
            detokenizer d;
            buf         out;
            for (size_t i = 0; i < ids.count; i++) list[i] = rng_below(&r, round & 1 ? tokenizer_vocab_size(t) : 260);
            fixture_check_text("random ids", t, &ids, round & 2, NULL);
            buf_init(&out, 1 << 16);
            detokenizer_init(&d, t, round & 2);
            for (size_t i = 0; i < ids.count; i++) {
                detokenizer_feed(&d, list[i], &out);
                assert_true(utf8_valid(out.data ? out.data : "", out.size));
            }
            buf_free(&out);
        }
        tokenizer_close(t);
    }
}

static void a_continuation_keeps_the_space_it_begins_with(void **state) {
    (void)state;
    tokenizer  *t = fixture_tokenizer("tiny-sp", NULL);
    token_ids   ids = {0};
    error       err;
    detokenizer d;
    buf         out;
    assert_int_equal(tokenizer_encode(t, "ab", 2, 0, &ids, &err), OK); /* a space is put in front of a text */
    for (int goes_on = 0; goes_on < 2; goes_on++) {
        buf_init(&out, 64);
        detokenizer_init(&d, t, false);
        if (goes_on) detokenizer_continue(&d);
        for (size_t i = 0; i < ids.count; i++) detokenizer_feed(&d, ids.ids[i], &out);
        detokenizer_finish(&d, &out);
        assert_string_equal(out.data, goes_on ? " ab" : "ab");
        buf_free(&out);
    }
    token_ids_free(&ids);
    tokenizer_close(t);
}

static void an_unfinished_sequence_waits_and_becomes_one_replacement_character(void **state) {
    (void)state;
    tokenizer  *t = fixture_tokenizer("tiny-bytes", NULL);
    detokenizer d;
    buf         out;
    buf_init(&out, 64);
    detokenizer_init(&d, t, false);
    detokenizer_feed(&d, 0xF0, &out), detokenizer_feed(&d, 0x9F, &out), detokenizer_feed(&d, 0x91, &out);
    assert_int_equal(out.size, 0);
    detokenizer_finish(&d, &out);
    assert_string_equal(out.data, "\xEF\xBF\xBD");
    buf_free(&out);
    tokenizer_close(t);
}

static void good_characters_survive_in_a_malformed_run_of_byte_tokens(void **state) {
    (void)state;
    tokenizer *t = fixture_tokenizer("tiny-sp", NULL);
    uint32_t   list[] = {3 + 0xE6, 3 + 0xBC, 3 + 0xA2, 3 + 0xE6, 3 + 'a'};
    token_ids  ids = {.ids = list, .count = 5};
    fixture_check_text("bytes", t, &ids, false,
                       "\xE6\xBC\xA2\xEF\xBF\xBD"
                       "a");
    tokenizer_close(t);
}

static void an_id_out_of_range_is_refused(void **state) {
    (void)state;
    tokenizer *t = fixture_tokenizer("tiny-bytes", NULL);
    buf        out;
    error      err;
    buf_init(&out, 64);
    assert_int_equal(tokenizer_decode(t, (uint32_t[]){1, 320}, 2, true, &out, &err), ERR_INVALID);
    assert_string_equal(err.text, "there is no token 320; the vocabulary ends at 319");
    assert_int_equal(out.size, 0);
    tokenizer_close(t);
}

/* ---- tokenizer_config.json ---- */

static void check_config(const char *base, const char *config, const char *text, const char *expected) {
    tokenizer *t = NULL;
    error      err = {0};
    if (fixture_open_patched(&t, base, NULL, config, &err) != OK) fail_msg("%s: %s", config, err.text);
    token_ids ids = fixture_encode(t, text, strlen(text), TOKENIZE_SPECIAL | TOKENIZE_BOS);
    cJSON    *list = cJSON_Parse(expected);
    fixture_check_ids(config, text, &ids, list);
    cJSON_Delete(list);
    token_ids_free(&ids);
    tokenizer_close(t);
}

static void the_configuration_decides_about_tokens_around_a_text(void **state) {
    (void)state;
    check_config("tiny-sp", "{}", "a", "[1,324]");
    check_config("tiny-sp", "{\"add_bos_token\":false,\"bos_token\":\"<s>\"}", "a", "[324]");
    check_config("tiny-sp", "{\"add_eos_token\":true,\"eos_token\":{\"content\":\"</s>\"}}", "a", "[1,324,2]");
    check_config("tiny-bytes", "{\"add_bos_token\":true,\"bos_token\":\"<|endoftext|>\"}", "a", "[316,97]");
    check_config("tiny-bytes", "{\"add_bos_token\":null,\"bos_token\":null}", "a", "[97]");
}

static void the_configuration_may_list_further_added_tokens(void **state) {
    (void)state;
    check_config("tiny-bytes",
                 "{\"added_tokens_decoder\":{\"317\":{\"content\":\"<|im_start|>\",\"special\":true},"
                 "\"320\":{\"content\":\"<|new|>\",\"special\":true}}}",
                 "a<|new|>b<|im_start|>", "[97,320,98,317]");
}

/* ---- files that are refused ---- */

static void check_refused(const char *base, const char *patch, const char *config, const char *sentence) {
    tokenizer *t = NULL;
    error      err = {0};
    int        code = fixture_open_patched(&t, base, patch, config, &err);
    if (code == OK) fail_msg("%s %s was accepted", patch, config ? config : "");
    assert_null(t);
    if (!strstr(err.text, sentence)) fail_msg("%s: the sentence is: %s", patch, err.text);
}

#define MODEL(members) "{\"model\":{\"type\":\"BPE\"," members "}}"
#define SPLIT_AT(regex)                                                                                                     \
    "{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" regex                                                \
    "\"},\"behavior\":\"Isolated\",\"invert\":false}}"

static const struct {
    const char *patch, *sentence;
} refused[] = {
    {"{\"model\":null}", "there is no object 'model'"},
    {"{\"model\":{\"type\":\"Unigram\"}}", "the model 'Unigram' is not supported"},
    {MODEL("\"vocab\":[]"), "no object 'vocab'"},
    {MODEL("\"vocab\":{}"), "the vocabulary is empty"},
    {MODEL("\"vocab\":{\"a\":0}"), "no array 'merges'"},
    {MODEL("\"vocab\":{\"a\":-1},\"merges\":[]"), "must be an integer from 0"},
    {MODEL("\"vocab\":{\"a\":0.5},\"merges\":[]"), "must be an integer from 0"},
    {MODEL("\"vocab\":{\"a\":\"0\"},\"merges\":[]"), "must be an integer from 0"},
    {MODEL("\"vocab\":{\"a\":1e300},\"merges\":[]"), "must be an integer from 0"},
    {MODEL("\"vocab\":{\"a\":4194304},\"merges\":[]"), "must be an integer from 0 to 4194303"},
    {MODEL("\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]"), "the id 0 is given to 'b' and to another token"},
    {MODEL("\"vocab\":{\"a\":0,\"a\":1},\"merges\":[]"), "'a' is listed twice"},
    {MODEL("\"vocab\":{\"a\":0},\"merges\":[\"a b\"]"), "the second is not in the vocabulary"},
    {MODEL("\"vocab\":{\"a\":0},\"merges\":[[\"b\",\"a\"]]"), "the first is not in the vocabulary"},
    {MODEL("\"vocab\":{\"a\":0},\"merges\":[[\"a\",\"a\"]]"), "the result is not in the vocabulary"},
    {MODEL("\"vocab\":{\"a\":0},\"merges\":[7]"), "merge 0 must be two tokens"},
    {MODEL("\"vocab\":{\"a\":0},\"merges\":[\"aa\"]"), "merge 0 must be two tokens"},
    {MODEL("\"vocab\":{\"a\":0},\"merges\":[],\"unk_token\":\"<unk>\""),
     "the unknown token '<unk>' is not in the vocabulary"},
    {MODEL("\"vocab\":{\"a\":0},\"merges\":[],\"dropout\":0.1"), "dropout of 0.1 is not supported"},
    {MODEL("\"vocab\":{\"a\":0},\"merges\":[],\"end_of_word_suffix\":\"</w>\""),
     "end_of_word_suffix '</w>' is not supported"},
    {MODEL("\"vocab\":{\"a\":0},\"merges\":[],\"byte_fallback\":\"yes\""), "'byte_fallback' must be true or false"},
    {"{\"normalizer\":{\"type\":\"BertNormalizer\"}}", "the normalizer 'BertNormalizer' is not supported (supported: NFC"},
    {"{\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":7}}", "no array 'normalizers'"},
    {"{\"normalizer\":{\"type\":\"Replace\",\"pattern\":7,\"content\":\"\"}}", "'pattern' must be an object"},
    {"{\"normalizer\":[]}", "a normalizer has no 'type'"},
    {"{\"pre_tokenizer\":{\"type\":\"Whitespace\"}}", "the pre-tokenizer 'Whitespace' is not supported"},
    {"{\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"ByteLevel\"},{\"type\":\"Digits\"}]}}",
     "a pre-tokenizer after ByteLevel is not supported"},
    {"{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":\"a\"},\"behavior\":\"Sideways\"}}", "not 'Sideways'"},
    {"{\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"ab\"}}", "must be one character"},
    {"{\"pre_tokenizer\":{\"type\":\"Metaspace\",\"prepend_scheme\":\"often\"}}", "not 'often'"},
    {SPLIT_AT("(a"), "does not compile"},
    {SPLIT_AT(""), "a pattern must have 1 to"},
    {SPLIT_AT("[a[b]]"), "combines character classes with '['"},
    {SPLIT_AT("[a-z&&[^b]]"), "combines character classes with '&&'"},
    {SPLIT_AT("\\\\h"), "uses '\\h'"},
    {SPLIT_AT("(?m:a)"), "uses '(?m'"},
    {SPLIT_AT("(*LIMIT_MATCH=9)a"), "uses '(*'"},
    {SPLIT_AT("a{2,3}+"), "repeats '{2,3}'"},
    {SPLIT_AT("(?R)"), "uses '(?R'"},
    {"{\"decoder\":null}", "there is no 'decoder'"},
    {"{\"decoder\":{\"type\":\"WordPiece\"}}", "the decoder 'WordPiece' is not supported"},
    {"{\"decoder\":{\"type\":\"Strip\",\"content\":\"ab\"}}", "one ASCII character"},
    {"{\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Fuse\"},{\"type\":\"Replace\"}]}}",
     "a decoder after Fuse"},
    {"{\"post_processor\":{\"type\":\"BertProcessing\"}}", "the post-processor 'BertProcessing' is not supported"},
    {"{\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\"}}],\"special_"
     "tokens\":{}}}",
     "does not list its ids"},
    {"{\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\"}}],\"special_"
     "tokens\":{"
     "\"<s>\":{\"ids\":[4000000000]}}}}",
     "must be integers from 0"},
    {"{\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\"}}],\"special_"
     "tokens\":{"
     "\"<s>\":{\"ids\":[320]}}}}",
     "the post-processor adds the id 320, which is no token"},
    {"{\"added_tokens\":{}}", "'added_tokens' must be an array"},
    {"{\"added_tokens\":[7]}", "an added token's 'content' must be a string"},
    {"{\"added_tokens\":[{\"content\":\"x\"}]}", "'id' is missing"},
    {"{\"added_tokens\":[{\"content\":\"<x>\",\"id\":4194304}]}", "'id' must be between"},
    {"{\"added_tokens\":[{\"content\":\"<x>\",\"id\":5}]}", "the id 5 is given to '<x>' and to another token"},
    {"{\"added_tokens\":[{\"content\":\"a\",\"id\":1000}]}", "'a' has the id 1000, but the id 97 elsewhere"},
};

static void what_is_not_supported_or_wrong_is_refused_by_name(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        check_refused("tiny-bytes", refused[i].patch, NULL, refused[i].sentence);
    check_refused("tiny-bytes", NULL, "{\"add_bos_token\":true}", "'add_bos_token' is set, but 'bos_token' names no token");
    check_refused("tiny-bytes", NULL, "{\"added_tokens_decoder\":{\"x\":{\"content\":\"y\"}}}", "has the id 'x'");
    check_refused("tiny-bytes", NULL, "{", "tokenizer_config.json: ");
}

/* Files that are not JSON, above all in the two members that are read without a tree. */
static const struct {
    const char *text, *sentence;
} malformed[] = {
    {"", "the JSON is malformed at offset 0"},
    {"[]", "the JSON is malformed at offset 0"},
    {"{} x", "text after the JSON value at offset 3"},
    {"{\"version\":tru,\"model\":{\"vocab\":{\"a\":0},\"merges\":[]}}", "malformed near offset"},
    {"{\"model\":{\"vocab\":{\"a\":0,},\"merges\":[]},\"decoder\":{\"type\":\"Fuse\"}}", "a string is missing"},
    {"{\"model\":{\"vocab\":{\"a\" 0},\"merges\":[]},\"decoder\":{\"type\":\"Fuse\"}}", "':' is missing"},
    {"{\"model\":{\"vocab\":{\"a\":0 \"b\":1},\"merges\":[]},\"decoder\":{\"type\":\"Fuse\"}}", "',' is missing"},
    {"{\"model\":{\"vocab\":{\"\\ud800\":0},\"merges\":[]},\"decoder\":{\"type\":\"Fuse\"}}", "not a Unicode escape"},
    {"{\"model\":{\"vocab\":{\"\\u12g4\":0},\"merges\":[]},\"decoder\":{\"type\":\"Fuse\"}}", "not a Unicode escape"},
    {"{\"model\":{\"vocab\":{\"\\x\":0},\"merges\":[]},\"decoder\":{\"type\":\"Fuse\"}}", "not an escape"},
    {"{\"model\":{\"vocab\":{\"a\nb\":0},\"merges\":[]},\"decoder\":{\"type\":\"Fuse\"}}", "a string does not end"},
    {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[[\"a\",\"a\",\"a\"]]},\"decoder\":{\"type\":\"Fuse\"}}",
     "merge 0 must be"},
    {"{\"model\":{\"vocab\":}}", "a value is missing"},
    {"{\"model\":{\"vocab\":{\"\xFF\":0}}}", "not valid UTF-8"},
};

static void files_that_are_not_json_are_refused(void **state) {
    (void)state;
    char       deep[200];
    tokenizer *t;
    error      err;
    for (size_t i = 0; i < sizeof malformed / sizeof *malformed; i++) {
        if (fixture_open_texts(&t, malformed[i].text, strlen(malformed[i].text), NULL, &err) != ERR_INVALID || t)
            fail_msg("%s was accepted", malformed[i].text);
        if (!strstr(err.text, malformed[i].sentence)) fail_msg("%s: the sentence is: %s", malformed[i].text, err.text);
    }
    memcpy(deep, "{\"a\":", 5), memset(deep + 5, '[', sizeof deep - 5);
    assert_int_equal(fixture_open_texts(&t, deep, sizeof deep, NULL, &err), ERR_INVALID);
    assert_non_null(strstr(err.text, "nests too deeply"));
}

static void escapes_in_the_vocabulary_are_read(void **state) {
    (void)state;
    static const char text[] =
        "{\"decoder\":{\"type\":\"Fuse\"},\"model\":{\"merges\":[\"\\u0061 \\\"\"],\"vocab\":{\"\\u0061\":0,"
        "\"\\\"\":1,\"a\\\"\":2,\"\\uD83D\\ude00\":3,\"\\u0000\":4,\"\\\\\\/\\b\\f\\n\\r\\t\":5}}}";
    tokenizer *t = NULL;
    error      err = {0};
    if (fixture_open_texts(&t, text, sizeof text - 1, NULL, &err) != OK) fail_msg("%s", err.text);
    token_ids ids = fixture_encode(t, "a\"\xF0\x9F\x98\x80\0", 7, 0);
    assert_int_equal(ids.count, 3);
    assert_memory_equal(ids.ids, ((uint32_t[]){2, 3, 4}), 12);
    assert_int_equal(tokenizer_id_of(t, "\\/\b\f\n\r\t"), 5);
    token_ids_free(&ids);
    tokenizer_close(t);
}

static void truncated_files_are_refused(void **state) {
    (void)state;
    buf text;
    buf_init(&text, 1 << 20);
    assert_int_equal(file_read(&text, TINY "tiny-bytes/tokenizer.json", NULL), OK);
    for (size_t n = 0; n + 2 < text.size; n += n < 40 ? 1 : 97) {
        tokenizer *t;
        error      err = {0};
        assert_int_equal(fixture_open_texts(&t, text.data, n, NULL, &err), ERR_INVALID);
        assert_true(err.text[0]);
    }
    buf_free(&text);
}

static void a_folder_without_a_tokenizer_is_named(void **state) {
    (void)state;
    tokenizer *t;
    error      err;
    assert_int_equal(tokenizer_open(&t, "/nowhere", &err), ERR_NOT_FOUND);
    assert_non_null(strstr(err.text, "/nowhere/tokenizer.json"));
    assert_int_equal(tokenizer_open(&t, "/nowhere", NULL), ERR_NOT_FOUND);
}

/* ---- threads ---- */

static const char thread_text[] = "the river turned the wheel, and the children told stories that they'd heard there.";

static void *encode_many(void *argument) {
    const tokenizer *t = argument;
    size_t           first = 0;
    for (int i = 0; i < 200; i++) {
        token_ids ids = {0};
        if (tokenizer_encode(t, thread_text, sizeof thread_text - 1, 0, &ids, NULL) != OK) return (void *)1;
        if (first && ids.count != first) return (void *)2;
        first = ids.count;
        token_ids_free(&ids);
    }
    return NULL;
}

static void one_tokenizer_serves_many_threads(void **state) {
    (void)state;
    tokenizer *t = fixture_tokenizer("tiny-bytes", NULL);
    pthread_t  threads[4];
    for (int i = 0; i < 4; i++) assert_int_equal(pthread_create(&threads[i], NULL, encode_many, t), 0);
    for (int i = 0; i < 4; i++) {
        void *failed;
        pthread_join(threads[i], &failed);
        assert_null(failed);
    }
    tokenizer_close(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(byte_level_variants_agree_with_the_reference_library),
        cmocka_unit_test(sentencepiece_variants_agree_with_the_reference_library),
        cmocka_unit_test(words_of_any_length_are_merged_by_the_definition),
        cmocka_unit_test(a_megabyte_without_a_space_or_of_one_character_is_encoded_and_comes_back),
        cmocka_unit_test(a_megabyte_for_sentencepiece_is_encoded_and_comes_back),
        cmocka_unit_test(a_megabyte_of_unordered_combining_marks_is_normalized),
        cmocka_unit_test(a_pattern_that_tries_too_many_ways_is_an_error_of_that_text),
        cmocka_unit_test(invalid_utf8_is_read_as_replacement_characters),
        cmocka_unit_test(a_nul_byte_is_a_character_like_any_other),
        cmocka_unit_test(a_guard_keeps_what_a_user_wrote_from_being_special),
        cmocka_unit_test(a_guard_also_holds_where_tokens_are_read_in_normalized_text),
        cmocka_unit_test(special_tokens_are_known_by_text_and_by_id),
        cmocka_unit_test(a_token_gives_the_raw_bytes_it_stands_for),
        cmocka_unit_test(streamed_text_is_always_valid_and_equals_the_whole),
        cmocka_unit_test(a_continuation_keeps_the_space_it_begins_with),
        cmocka_unit_test(an_unfinished_sequence_waits_and_becomes_one_replacement_character),
        cmocka_unit_test(good_characters_survive_in_a_malformed_run_of_byte_tokens),
        cmocka_unit_test(an_id_out_of_range_is_refused),
        cmocka_unit_test(the_configuration_decides_about_tokens_around_a_text),
        cmocka_unit_test(the_configuration_may_list_further_added_tokens),
        cmocka_unit_test(what_is_not_supported_or_wrong_is_refused_by_name),
        cmocka_unit_test(files_that_are_not_json_are_refused),
        cmocka_unit_test(escapes_in_the_vocabulary_are_read),
        cmocka_unit_test(truncated_files_are_refused),
        cmocka_unit_test(a_folder_without_a_tokenizer_is_named),
        cmocka_unit_test(one_tokenizer_serves_many_threads),
    };
    return cmocka_run_group_tests_name("tokenizer", tests, NULL, NULL);
}
