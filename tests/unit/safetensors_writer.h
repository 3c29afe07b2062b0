/* tests/unit/safetensors_writer.h: small safetensors files and folders for tests. */
#pragma once
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/error.h"

/* A file: header length (padded with spaces to 8), header, data. Caller frees with buf_free. */
static buf writer_file(const char *header, const void *data, size_t data_size) {
    buf    out;
    size_t n = strlen(header), padded = (n + 7) / 8 * 8;
    buf_init(&out, 64 << 20);
    for (int i = 0; i < 8; i++) buf_char(&out, (char)(padded >> (8 * i)));
    buf_append(&out, header, n);
    for (size_t i = n; i < padded; i++) buf_char(&out, ' ');
    buf_append(&out, data, data_size);
    return out;
}

/* Grows a header and the data behind it, tensor by tensor. */
typedef struct {
    buf header, data;
} writer;

static inline void writer_begin(writer *w) {
    buf_init(&w->header, 16 << 20);
    buf_init(&w->data, 64 << 20);
    buf_str(&w->header, "{\"__metadata__\":{\"format\":\"pt\"}");
}

/* shape: "4,8" or "8"; every byte of the tensor is `fill`. */
static inline void writer_add(writer *w, const char *name, const char *type, const char *shape, size_t bytes, char fill) {
    size_t begin = w->data.size;
    for (size_t i = 0; i < bytes; i++) buf_char(&w->data, fill);
    buf_printf(&w->header, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[%zu,%zu]}", name, type, shape, begin,
               begin + bytes);
}

static inline buf writer_end(writer *w) {
    buf_char(&w->header, '}');
    buf out = writer_file(w->header.data, w->data.data, w->data.size);
    buf_free(&w->header);
    buf_free(&w->data);
    return out;
}

/* A scratch folder, removed with what writer_put put there. */
static char writer_dir[64];

static inline int writer_setup(void **state) {
    (void)state;
    strcpy(writer_dir, "/tmp/penstock-test-XXXXXX");
    return mkdtemp(writer_dir) ? 0 : -1;
}
static inline int writer_teardown(void **state) {
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", writer_dir);
    return system(command);
}
static inline void writer_put(const char *name, const void *bytes, size_t n) {
    char path[256];
    snprintf(path, sizeof path, "%s/%s", writer_dir, name);
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(bytes, 1, n, file) != n || fclose(file) != 0) fatal("cannot write %s", path);
}
static inline void writer_put_text(const char *name, const char *text) { writer_put(name, text, strlen(text)); }
static inline void writer_put_buf(const char *name, buf b) {
    writer_put(name, b.data, b.size);
    buf_free(&b);
}
static inline void writer_remove(const char *name) {
    char path[256];
    snprintf(path, sizeof path, "%s/%s", writer_dir, name);
    remove(path);
}
