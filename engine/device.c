#include <stdio.h>
#include <string.h>

#include "engine/cuda_object.h"
#include "engine/device.h"

/* In the order in which `auto` asks them. sim is never chosen: it only pretends. */
static const device_api *const devices[] = {&device_cpu, &device_sim};
enum { DEVICES = sizeof devices / sizeof *devices };

/* Why there is no CUDA device here, as what follows "because". */
static void why_no_cuda(char *why, size_t why_size) {
    cuda_card card;
    if (cuda_object_open(&card, why, why_size))
        snprintf(why, why_size, "this build has no CUDA device that uses %s", card.name);
}

static const device_api *find_auto(char *why, size_t why_size) {
    char reason[256];
    if (!device_cpu.available(reason, sizeof reason)) {
        snprintf(why, why_size, "%s", reason);
        return NULL;
    }
    why_no_cuda(reason, sizeof reason);
    snprintf(why, why_size, "cpu, because %s", reason);
    return &device_cpu;
}

const device_api *device_find(const char *name, char *why, size_t why_size) {
    char reason[256];
    if (why_size) *why = 0;
    if (!name || strcmp(name, "auto") == 0) return find_auto(why, why_size);
    for (int i = 0; i < DEVICES; i++)
        if (strcmp(devices[i]->name, name) == 0) return devices[i]->available(why, why_size) ? devices[i] : NULL;
    if (strcmp(name, "cuda") == 0) {
        why_no_cuda(reason, sizeof reason);
        snprintf(why, why_size, "--device cuda cannot be had, because %s", reason);
    } else snprintf(why, why_size, "there is no device named '%s'; there are auto, cpu, cuda and sim", name);
    return NULL;
}
