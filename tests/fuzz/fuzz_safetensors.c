/* tests/fuzz/fuzz_safetensors.c: a container file, or (first byte 'I') an index of shards. What was accepted must lie
 * inside the input. */
#include <stdlib.h>
#include <string.h>

#include "models/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int touch_row(void *context, text_slice tensor, text_slice file, error *err) {
    unsigned *sum = context;
    (void)err;
    for (size_t i = 0; i < tensor.size; i++) *sum += (unsigned char)tensor.at[i];
    for (size_t i = 0; i < file.size; i++) *sum += (unsigned char)file.at[i];
    return OK;
}

static void touch_tensors(const safetensors *s, const char *bytes, size_t size) {
    uint64_t covered = 0;
    for (size_t i = 0; i < s->count; i++) {
        const safetensor *t = &s->tensors[i];
        if (t->bytes && (t->data < bytes || t->data + t->bytes > bytes + size)) abort();
        char *name = strndup(t->name, t->name_size);
        if (safetensors_find(s, name) != t && strlen(name) == t->name_size) abort();
        free(name);
        covered += t->bytes;
    }
    if (covered > size) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    error       err;
    unsigned    sum = 0;
    const char *bytes = (const char *)data;
    if (size && data[0] == 'I') return (void)safetensors_parse_index(bytes + 1, size - 1, touch_row, &sum, &err), 0;
    safetensors s;
    if (safetensors_parse(&s, bytes, size, &err) == OK) touch_tensors(&s, bytes, size);
    safetensors_close(&s);
    return 0;
}
