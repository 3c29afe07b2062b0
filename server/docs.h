/* server/docs.h: the pages of docs/ that are printed from tables (`make docs`); a test fails when one is stale. */
#pragma once
#include "base/buf.h"

#define DOCS_PAGES "configuration|api"

void docs_configuration(buf *out); /* from server/settings.c */
void docs_api(buf *out);           /* from server/params.c */
