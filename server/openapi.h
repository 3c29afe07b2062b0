/* server/openapi.h: the API as an OpenAPI 3.1 document: what is fixed from server/openapi/base.json, the request bodies from
 * the table of parameters (params.h), so that it says what the validator does. */
#pragma once
#include <cjson/cJSON.h>

#include "base/buf.h"

cJSON *openapi_build(void);     /* cJSON_Delete */
void   openapi_write(buf *out); /* as text */
