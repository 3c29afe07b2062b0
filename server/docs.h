/* server/docs.h: the pages of docs/ that are printed from tables (`make docs`); a test fails when one is stale. */
#pragma once
#include "base/buf.h"

#define DOCS_PAGES "configuration|api|openapi"

typedef struct {
    const char *name;
    void (*write)(buf *out);
} docs_page;
const docs_page *docs_find(const char *name); /* one of DOCS_PAGES; NULL */

void docs_configuration(buf *out); /* from server/settings.c, keys.c, base/error.h */
void docs_api(buf *out);           /* from server/docs_api.md, params.c, fault.c, openapi */
