/* tests/fuzz/fuzz_tokenizer_file.c: bytes as a tokenizer.json; where it opens, a text is encoded and decoded with it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/utf8.h"
#include "models/tokenizer.h"

static const char text[] = "The river's <|im_start|>12345 \xE2\x96\x81 caf\xC3\xA9 e\xCC\x81 \xE6\xBC\xA2\n\n  x<s>aab\xFF";

static void use(const tokenizer *t) {
    token_ids ids = {0};
    buf       out;
    buf_init(&out, 1 << 20);
    if (tokenizer_encode(t, text, sizeof text - 1, TOKENIZE_SPECIAL | TOKENIZE_BOS, &ids, NULL) == OK)
        tokenizer_decode(t, ids.ids, ids.count, true, &out, NULL);
    if (!utf8_valid(out.data ? out.data : "", out.size)) abort();
    token_ids_free(&ids);
    buf_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static char dir[] = "/tmp/penstock-fuzz-XXXXXX", path[64];
    if (!*path) {
        if (!mkdtemp(dir)) abort();
        snprintf(path, sizeof path, "%s/tokenizer.json", dir);
    }
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, size, f) != size || fclose(f) != 0) abort();
    tokenizer *t;
    error      err;
    if (tokenizer_open(&t, dir, &err) == OK) use(t), tokenizer_close(t);
    else if (!*err.text || !utf8_valid(err.text, strlen(err.text))) abort();
    unlink(path);
    return 0;
}
