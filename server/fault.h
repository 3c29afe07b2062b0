/* server/fault.h: what a client did wrong, or what went wrong for it, in the shape OpenAI's clients read:
 * {"error": {"message", "type", "param", "code"}}. One row per kind says status, type, code and whether to try again. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"

typedef enum {
    FAULT_NONE,
    FAULT_BODY,    /* not JSON, not an object, a name twice */
    FAULT_INVALID, /* a value that cannot be, no better code */
    FAULT_RULE,    /* values that do not go together, or a form that is not offered: no code says it better */
    FAULT_UNKNOWN, /* a parameter that nobody knows, with strict-params */
    FAULT_MISSING, /* a required parameter */
    FAULT_TYPE,
    FAULT_INT_ABOVE,
    FAULT_INT_BELOW,
    FAULT_NUMBER_ABOVE,
    FAULT_NUMBER_BELOW,
    FAULT_STRING_LONG,
    FAULT_ARRAY_LONG,
    FAULT_ARRAY_SHORT,
    FAULT_UNSUPPORTED, /* a parameter this build refuses */
    FAULT_CONTEXT,     /* prompt or prompt + answer over the context */
    FAULT_MODEL,
    FAULT_KEY,   /* no API key, or one that is nobody's */
    FAULT_LIMIT, /* more than the key allows */
    FAULT_URL,
    FAULT_METHOD,
    FAULT_MEDIA,
    FAULT_OVERLOADED,
    FAULT_DEADLINE, /* passed before the request began */
    FAULT_DRAINING,
    FAULT_PAUSED,
    FAULT_ABORTED,
    FAULT_LOADING,
    FAULT_INTERNAL,
    FAULT_DEVICE,
    FAULT_COUNT
} fault_kind;

typedef struct {
    int         status;
    const char *type, *code; /* code NULL: null */
    bool        retry;       /* another try may help */
    const char *what;        /* when it is answered; for the docs */
} fault_row;
extern const fault_row fault_rows[FAULT_COUNT];

typedef struct {
    fault_kind kind;
    char       param[64]; /* "" is null */
    char       message[512];
    uint32_t   retry_after_s; /* 0: no such header */
} fault;

/* Fills *f and returns -1. `param` may be NULL. */
int fault_set(fault *f, fault_kind kind, const char *param, const char *format, ...) __attribute__((format(printf, 4, 5)));

int         fault_status(const fault *f);
const char *fault_code(const fault *f);
bool        fault_retry(const fault *f);           /* x-should-retry */
void        fault_write(const fault *f, buf *out); /* the JSON object */
