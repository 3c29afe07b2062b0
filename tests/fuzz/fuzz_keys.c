/* A key file of any bytes is read or refused by a sentence; what was read admits and bounds without harm. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "server/keys.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static bool started;
    keys       *k, *again;
    error       err;
    fault       f;
    if (!started) keys_init(), started = true;
    if (keys_read_text(&k, "f", (const char *)data, size, &err) != OK) {
        check(err.text[0] != 0 && k == NULL);
        return 0;
    }
    check(keys_read_text(&again, "f", (const char *)data, size, &err) == OK);
    size_t  header = size < 200 ? size : 200; /* the file's own bytes as what a client sends */
    tenant *t = keys_find(k, (const char *)data, header);
    check(t == NULL || keys_admit_anyone(k));
    if (t && tenant_enter(t, 1, &f) == 0) {
        tenant_charge(t, size);
        keys_inherit(again, k);
        keys_free(k);
        tenant_leave(t);
        k = NULL;
    }
    keys_free(k), keys_free(again);
    return 0;
}
