/* models/safetensors.h: the published container of weights, mapped and checked.
 *
 * A file is 8 bytes of little-endian header length, a JSON header {"name": {"dtype", "shape", "data_offsets"}, ...},
 * and the bytes of the tensors; see the format's description at github.com/huggingface/safetensors. Held to here:
 * names are unique, sizes follow from shapes, and the tensors cover the data exactly: no overlap, no hole, nothing
 * beyond the end. Also refused: data that is not aligned to its element (every writer since 2023 pads the header so).
 * Memory is bounded by the number of tensors (SAFETENSORS_COUNT_MAX), whatever the header claims. A file must not be
 * truncated while it is open: reading a mapped page that is gone ends the process. */
#pragma once
#include <stddef.h>

#include "base/dtype.h"
#include "base/error.h"
#include "base/file.h"

enum {
    SAFETENSORS_HEADER_MAX = 100000000, /* the format's own limit */
    SAFETENSORS_COUNT_MAX = 1 << 20,
    SAFETENSORS_RANK_MAX = 5,
    SAFETENSORS_FILES_MAX = 1024,
};

typedef struct {
    const char *name; /* name_size bytes inside the mapped header, no NUL */
    const char *data;
    uint64_t    bytes;
    uint32_t    name_size, shape[SAFETENSORS_RANK_MAX];
    uint16_t    file;
    uint8_t     rank, kind; /* kind: index for safetensor_dtype */
} safetensor;

/* Its type, where this build computes with it (else false); and what the file calls it. */
bool        safetensor_dtype(const safetensor *t, dtype *out);
const char *safetensor_dtype_name(const safetensor *t);

typedef struct {
    safetensor *tensors; /* sorted by name */
    size_t      count, capacity;
    file_map   *files;
    char      **file_names;
    uint32_t    file_count;
} safetensors;

/* One file's bytes, which must outlive *out. */
int safetensors_parse(safetensors *out, const char *bytes, size_t size, error *err);

/* DIR/model.safetensors, or the shards that DIR/model.safetensors.index.json lists (plain file names only). */
int  safetensors_open(safetensors *out, const char *dir, error *err);
void safetensors_close(safetensors *s); /* also after a failure, and again */

const safetensor *safetensors_find(const safetensors *s, const char *name);

/* The index of shards: calls add(context, tensor name, file name) for each row; names are not NUL-terminated. */
typedef struct {
    const char *at;
    size_t      size;
} text_slice;
typedef int (*safetensors_index_row)(void *context, text_slice tensor, text_slice file, error *err);
int safetensors_parse_index(const char *text, size_t n, safetensors_index_row add, void *context, error *err);
