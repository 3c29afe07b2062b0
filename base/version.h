/* base/version.h: what --version, /version and the Server header say. */
#pragma once
#define PENSTOCK_VERSION "0.1.0"
