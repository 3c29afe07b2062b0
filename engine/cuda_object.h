/* engine/cuda_object.h: opens the CUDA object and says why not, where it cannot be used.
 *
 * penstock-cuda.so is looked for beside the daemon and in ../lib/penstock of there, where `make install` puts it;
 * PENSTOCK_CUDA_OBJECT names another file (the tests' emulated GPU). It stays open as long as the process. */
#pragma once
#include "kernels/cuda/object.h"

/* The table, and the GPU it will use; or NULL, and in `why` what follows "because". */
const cuda_object *cuda_object_open(cuda_card *card, char *why, size_t why_size);
