/* models/chat.h: a chat request's messages made into the text a model was trained on.
 *
 * Finds a folder's template (--chat-template FILE, else chat_template.jinja, else tokenizer_config.json's
 * chat_template: string or named list), and brings OpenAI-shaped messages into the shape templates expect: content
 * parts joined to text where the template does not iterate over them, tool-call arguments as a mapping, missing content
 * as an empty string or null as the template needs. */
#pragma once
#include "models/template.h"
#include "models/tokenizer.h"

typedef struct chat_format chat_format;

/* `dir` may be NULL where a template file is given. */
int  chat_format_open(chat_format **out, const char *dir, const char *template_file_or_null, error *err);
void chat_format_close(chat_format *c);

/* Whether the folder has a template at all; without one chat_render joins messages plainly ("role: content") and says so
 * once at start. */
bool chat_format_has_template(const chat_format *c);

/* `context` holds messages, tools, add_generation_prompt and any chat_template_kwargs as members, and is changed by
 * normalization. bos_token and eos_token are added from tokenizer_config.json. Appends the rendered text. */
int chat_render(const chat_format *c, cJSON *context, int64_t now_unix_s, buf *out, error *err);

/* Its two halves: messages checked and brought into the template's shape; the template applied to a context as it is
 * (`penstock render`), with only those special tokens added that it does not name itself. */
int chat_normalize(const chat_format *c, cJSON *context, error *err);
int chat_apply(const chat_format *c, cJSON *context, int64_t now_unix_s, buf *out, error *err);

/* The same as ids. Special tokens are parsed where the template wrote them, never where a user did: before rendering,
 * each special token's text (tokens marked special in the tokenizer file) inside a string of `context` gets a Unicode
 * noncharacter that occurs nowhere in the context put after its first character; after rendering the marks are taken
 * out again and their places are passed to tokenizer_encode_guarded. */
int chat_encode(const chat_format *c, const tokenizer *t, cJSON *context, int64_t now_unix_s, token_ids *out, error *err);
