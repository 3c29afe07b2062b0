#include "engine/cuda_object.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FILE_NAME "penstock-cuda.so"

/* The folder this program lies in, without a slash at the end; empty where /proc does not say. */
static void own_folder(char *out, size_t size) {
    const ssize_t n = readlink("/proc/self/exe", out, size - 1);
    out[n > 0 ? n : 0] = 0;
    char *slash = strrchr(out, '/');
    if (slash) *slash = 0;
}

static bool find_file(char *path, size_t size, char *why, size_t why_size) {
    char        folder[512];
    const char *named = getenv("PENSTOCK_CUDA_OBJECT");
    if (named && *named) {
        snprintf(path, size, "%s", named);
        return true;
    }
    own_folder(folder, sizeof folder);
    snprintf(path, size, "%s/" FILE_NAME, folder);
    if (access(path, R_OK) == 0) return true;
    snprintf(path, size, "%s/../lib/penstock/" FILE_NAME, folder);
    if (access(path, R_OK) == 0) return true;
    snprintf(why, why_size, "there is no " FILE_NAME " beside the daemon or in ../lib/penstock; it is built where nvcc is");
    return false;
}

const cuda_object *cuda_object_open(cuda_card *card, char *why, size_t why_size) {
    char path[600];
    if (!find_file(path, sizeof path, why, why_size)) return NULL;
    void *file = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!file) {
        snprintf(why, why_size, "the CUDA object cannot be opened: %s", dlerror());
        return NULL;
    }
    const cuda_object *(*table)(void) = NULL;
    void *const symbol = dlsym(file, CUDA_OBJECT_SYMBOL);
    memcpy(&table, &symbol, sizeof table);
    const cuda_object *o = table ? table() : NULL;
    if (!o || o->version != CUDA_OBJECT_VERSION || o->bytes != sizeof *o) {
        snprintf(why, why_size, "%s is of another version than this daemon; install both from one build", path);
        return NULL; // cppcheck-suppress resourceLeak
    }
    return o->find(card, why, why_size) ? o : NULL; // cppcheck-suppress resourceLeak; it stays open
}
