/* server/docs.h: the pages of docs/ that are printed from tables (`make docs`); a test fails when one is stale. */
#pragma once
#include "base/buf.h"

#define DOCS_PAGES "configuration|api|metrics|openapi"

void docs_print(const char *page, buf *out); /* one of DOCS_PAGES */

void docs_configuration(buf *out); /* from server/settings.c, keys.c, base/error.h */
void docs_api(buf *out);           /* from server/docs_api.md, params.c, fault.c, openapi */
void docs_metrics(buf *out);       /* from server/health.c and server/metrics_table.c */
