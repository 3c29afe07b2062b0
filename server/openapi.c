#include "server/openapi.h"

#include <stdlib.h>
#include <string.h>

#include "base/version.h"
#include "server/params_shapes.h"

extern const char     openapi_base[];
extern const uint64_t openapi_base_bytes;
__asm__(".section .rodata\n"
        ".global openapi_base, openapi_base_bytes\n"
        "openapi_base:\n.incbin \"server/openapi/base.json\"\n"
        "openapi_base_end:\n.balign 8\n"
        "openapi_base_bytes:\n.quad openapi_base_end - openapi_base\n"
        ".previous\n");

enum { DOCUMENT_MAX_BYTES = 1 << 20 };

static cJSON *parse(const char *text, size_t n) {
    error  err;
    cJSON *value = json_parse(text, n, 64, &err);
    if (!value) fatal("the API's description is malformed: %s", err.text);
    return value;
}

static cJSON *or_null(const char *type) {
    cJSON *types = cJSON_CreateArray();
    cJSON_AddItemToArray(types, cJSON_CreateString(type));
    cJSON_AddItemToArray(types, cJSON_CreateString("null"));
    return types;
}

static void add_range(cJSON *schema, const param_row *row) {
    cJSON_AddNumberToObject(schema, "minimum", row->min);
    cJSON_AddNumberToObject(schema, "maximum", row->max);
    if (row->fallback >= row->min) cJSON_AddNumberToObject(schema, "default", row->fallback);
}

/* A length is bytes here and characters there; what is longer in characters is longer in bytes as well. */
static void add_length(cJSON *schema, const param_row *row) {
    if (row->min > 0) cJSON_AddNumberToObject(schema, "minLength", row->min);
    cJSON_AddNumberToObject(schema, "maxLength", row->max);
}

static cJSON *schema_of(const param_row *row) {
    cJSON *schema = cJSON_CreateObject(), *forms;
    switch (row->kind) {
    case PARAM_BOOL:
        cJSON_AddItemToObject(schema, "type", or_null("boolean"));
        cJSON_AddBoolToObject(schema, "default", row->fallback != 0);
        break;
    case PARAM_INT:
    case PARAM_NUMBER:
        cJSON_AddItemToObject(schema, "type", or_null(row->kind == PARAM_INT ? "integer" : "number"));
        add_range(schema, row);
        break;
    case PARAM_STRING:
        cJSON_AddItemToObject(schema, "type", or_null("string"));
        add_length(schema, row);
        break;
    case PARAM_OTHER:
        forms = cJSON_AddArrayToObject(schema, "anyOf");
        cJSON_AddItemToArray(forms, parse(row->shape->schema, strlen(row->shape->schema)));
        cJSON_AddItemToArray(forms, parse("{\"type\":\"null\"}", 15));
        break;
    case PARAM_REFUSED: cJSON_AddStringToObject(schema, "type", "null"); break;
    case PARAM_IGNORED: break;
    }
    cJSON_AddStringToObject(schema, "description", row->help);
    if (row->kind == PARAM_REFUSED) cJSON_AddBoolToObject(schema, "deprecated", true);
    return schema;
}

static cJSON *body_of(endpoint e) {
    cJSON *body = cJSON_CreateObject();
    cJSON_AddStringToObject(body, "type", "object");
    cJSON *required = cJSON_CreateArray(), *properties = cJSON_AddObjectToObject(body, "properties");
    for (uint32_t i = 0; i < param_row_count; i++) {
        const param_row *row = &param_rows[i];
        if (!(row->endpoints & e)) continue;
        cJSON *schema = schema_of(row);
        if (row->required & e) {
            cJSON_AddItemToArray(required, cJSON_CreateString(row->name));
            if (row->shape) { /* null would be the same as leaving it out */
                cJSON_Delete(schema);
                schema = parse(row->shape->schema, strlen(row->shape->schema));
                cJSON_AddStringToObject(schema, "description", row->help);
            }
        }
        cJSON_AddItemToObject(properties, row->name, schema);
    }
    if (cJSON_GetArraySize(required)) cJSON_AddItemToObject(body, "required", required);
    else cJSON_Delete(required);
    return body;
}

cJSON *openapi_build(void) {
    static const struct {
        const char *name;
        endpoint    e;
    } bodies[] = {{"ChatRequest", ENDPOINT_CHAT},
                  {"CompletionRequest", ENDPOINT_COMPLETION},
                  {"TokenizeRequest", ENDPOINT_TOKENIZE},
                  {"DetokenizeRequest", ENDPOINT_DETOKENIZE}};
    cJSON *document = parse(openapi_base, openapi_base_bytes);
    cJSON *info = cJSON_GetObjectItem(document, "info");
    cJSON_ReplaceItemInObject(info, "version", cJSON_CreateString(PENSTOCK_VERSION));
    cJSON *schemas = cJSON_GetObjectItem(cJSON_GetObjectItem(document, "components"), "schemas");
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++)
        cJSON_AddItemToObject(schemas, bodies[i].name, body_of(bodies[i].e));
    return document;
}

void openapi_write(buf *out) {
    cJSON *document = openapi_build();
    char  *text = cJSON_Print(document);
    if (!text) fatal("out of memory for the API's description");
    buf_str(out, text), buf_char(out, '\n');
    free(text);
    cJSON_Delete(document);
}
