/* A settings file of any bytes is read or refused by a sentence; what was read can be dumped and read back the same. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/options.h"

typedef struct {
    bool        cache;
    uint32_t    port;
    uint64_t    memory_bytes, wait_us;
    double      share;
    const char *name, *device;
} sample;

#define AT(field) offsetof(sample, field)
static const option_row rows[] = {
    {"a", "port", OPTION_U32, AT(port), 1, 65535, "8080", NULL, "N", "", false},
    {"a", "wait", OPTION_DURATION, AT(wait_us), 0, 0, "30s", NULL, NULL, "", false},
    {"a", "cache", OPTION_BOOL, AT(cache), 0, 0, "yes", NULL, NULL, "", false},
    {"b", "memory", OPTION_U64_SIZE, AT(memory_bytes), 0, 0, NULL, NULL, NULL, "", false},
    {"b", "share", OPTION_F64, AT(share), 0.05, 0.98, "0.9", NULL, NULL, "", false},
    {"b", "device", OPTION_CHOICE, AT(device), 0, 0, "auto", "auto|cpu|cuda", NULL, "", false},
    {"b", "name", OPTION_STRING, AT(name), 0, 0, NULL, NULL, NULL, "", false},
};
enum { ROW_COUNT = sizeof rows / sizeof *rows };

static bool same_text(const char *a, const char *b) { return a == b || (a && b && strcmp(a, b) == 0); }

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    sample   once = {0}, again = {0};
    error    err;
    options *o = options_new(rows, ROW_COUNT, &once), *o2 = options_new(rows, ROW_COUNT, &again);
    if (options_read_text(o, "f", (const char *)data, size, &err) == OK) {
        buf dump;
        buf_init(&dump, 1 << 20);
        options_dump(o, &dump);
        check(options_read_text(o2, "f", dump.data, dump.size, &err) == OK);
        check(once.port == again.port && once.wait_us == again.wait_us && once.cache == again.cache);
        check(once.memory_bytes == again.memory_bytes && once.share == again.share);
        check(same_text(once.name, again.name) && same_text(once.device, again.device));
        buf_free(&dump);
    } else {
        check(err.text[0] != 0);
    }
    options_free(o), options_free(o2);
    return 0;
}
