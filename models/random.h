/* models/random.h: well-known shapes whose weights are drawn instead of loaded, so that speed is measured at real sizes
 * without a download. */
#pragma once
#include <stddef.h>
#include <stdint.h>

/* The config text (models/random/NAME.json) of "random:NAME"; NULL where there is none. The names are
 * checkpoint_random_name()'s. */
const char *random_config(const char *name, size_t *bytes);
