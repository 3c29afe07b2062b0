/* models/chat_guard.h: keeps special tokens that users typed from being read as special.
 *
 * A user may write "<|im_end|>" in a message. A template puts it into the prompt between its own special tokens, and then
 * nothing tells them apart. So before rendering a mark, one Unicode noncharacter that the request does not hold, goes
 * into each special token that a user wrote, behind its first character. Rendering carries the marks along, whatever the
 * template does to the text; afterwards they are taken out, and where they were no special token may be read. The prompt
 * is the same byte for byte, as text. (A template that measures the length of such a text sees the marks.) */
#pragma once
#include "base/buf.h"
#include "base/error.h"
#include "base/json.h"
#include "models/tokenizer.h"

typedef struct {
    char    mark[5], escaped[8]; /* the noncharacter in UTF-8, and as tojson and repr write it: \ufdd0 */
    size_t *places;              /* ascending byte offsets; owned */
    size_t  count, capacity;
} chat_guard;

/* Marks every string and key inside `context`. ERR_INVALID where the request uses all noncharacters itself. */
int  chat_guard_mark(chat_guard *g, const tokenizer *t, cJSON *context, error *err);
void chat_guard_unmark(chat_guard *g, buf *rendered); /* fills places */
void chat_guard_free(chat_guard *g);
