/* bench/shared_flags.h: what the commands share: limits of time and models on the command line, and files for reports. */
#pragma once
#include "base/buf.h"
#include "bench/trace.h"
#include "models/checkpoint.h"

enum { REPORT_BYTES_MAX = 1 << 30 };

/* "ttft_ms=500,tpot_ms=50" (also tbt_ms, e2e_ms) */
int read_slo(const char *text, slo *out, error *err);

int make_folder(const char *path, error *err); /* with those above it */
int write_file(const char *folder, const char *name, const buf *content, error *err);

const char *file_name(const char *path);  /* its last part */
double      trace_span_s(const trace *t); /* when the last request that has a time of its own is due */

/* A shape that the program knows, in any case and with or without "random:", or a checkpoint's folder. */
int  open_model(checkpoint **out, const char *name, error *err);
void name_lower(const char *from, char *to, size_t room); /* "Llama 3.1" as "llama-3.1" */
