/* tests/fuzz/fuzz_tokenizer_text.c: a text through three tokenizers. The first byte chooses which and the flags, the second
 * where a guard stands. What must hold: decoding is valid UTF-8, the stream equals the whole, and byte-level text comes
 * back as it was. Run from the root of the repository. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "models/tokenizer.h"

static const char *const dirs[] = {"tests/unit/data/tokenizers/tiny-bytes", "tests/unit/data/tokenizers/tiny-sp",
                                   "models/embedded"};
enum { TOKENIZERS = sizeof dirs / sizeof *dirs };

static const tokenizer *open_once(unsigned which) {
    static tokenizer *opened[TOKENIZERS];
    error             err;
    if (opened[which] || tokenizer_open(&opened[which], dirs[which], &err) == OK) return opened[which];
    fprintf(stderr, "%s\n", err.text);
    abort();
}

static void check_stream(const tokenizer *t, const token_ids *ids, const buf *whole) {
    detokenizer d;
    buf         out;
    buf_init(&out, 1 << 24);
    detokenizer_init(&d, t, true);
    for (size_t i = 0; i < ids->count; i++) {
        size_t before = out.size;
        detokenizer_feed(&d, ids->ids[i], &out);
        if (out.data && !utf8_valid(out.data + before, out.size - before)) abort();
    }
    detokenizer_finish(&d, &out);
    if (out.size != whole->size || (out.size && memcmp(out.data, whole->data, out.size))) abort();
    buf_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2) return 0;
    const tokenizer *t = open_once(data[0] % TOKENIZERS);
    const char      *text = (const char *)data + 2;
    size_t           n = size - 2, guard = data[1];
    token_ids        ids = {0};
    buf              out;
    error            err;
    buf_init(&out, 1 << 24);
    if (tokenizer_encode_guarded(t, text, n, data[0] / TOKENIZERS & TOKENIZE_SPECIAL, &guard, guard < n, &ids, &err) != OK)
        abort();
    if (tokenizer_decode(t, ids.ids, ids.count, true, &out, &err) != OK) abort();
    check_stream(t, &ids, &out);
    if (data[0] % TOKENIZERS == 0 && utf8_valid(text, n) && (out.size != n || (n && memcmp(out.data, text, n)))) abort();
    token_ids_free(&ids);
    buf_free(&out);
    return 0;
}
