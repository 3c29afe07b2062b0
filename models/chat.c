/* models/chat.c: finding a folder's chat template, and bringing messages into the shape it expects.
 *
 * Templates differ in what they take: content as text or as a list of parts, no content as null or as "", the arguments
 * of a tool call as a mapping or as JSON text. Nothing in the file says which, so each template is tried once at start:
 * small conversations with a known word in them are rendered in each form, and the form whose output shows the word,
 * and neither an error nor Python's rendering of a list, is the one it is given from then on. */
#include "models/chat.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"

enum { ROLE_USER, ROLE_SYSTEM, ROLE_ASSISTANT, ROLE_TOOL, ROLES };

typedef struct {
    template *t;                         /* NULL: none */
    bool      parts[ROLES], text[ROLES]; /* shows content parts, content as text, in messages of this role */
    bool      empty_text;                /* wants "" where there is no content, not null */
    bool      json_text;                 /* wants the arguments of a tool call as JSON text, not as a mapping */
} tried_template;

struct chat_format {
    tried_template ordinary, with_tools; /* with_tools: only where the folder has a separate one */
    cJSON         *special;              /* bos_token, eos_token ... -> string */
};

enum { CONFIG_BYTES_MAX = 32 << 20, CONFIG_DEPTH_MAX = 64 };

/* ---- trying a template ---- */

#define WORD "quagga71"
enum { SHOWN = 4 }; /* a score from here on: the word is there as it should be */

/* A context from a form with one gap. */
static cJSON *filled(const char *form, const char *part) {
    char        text[2048];
    const char *gap = strstr(form, "%s");
    int         n = snprintf(text, sizeof text, "%.*s%s%s", (int)(gap - form), form, part, gap + 2);
    check(n > 0 && (size_t)n < sizeof text);
    cJSON *value = json_parse(text, (size_t)n, CONFIG_DEPTH_MAX, NULL);
    check(value);
    return value;
}

static void add_missing(cJSON *context, const cJSON *members) {
    for (const cJSON *m = members ? members->child : NULL; m; m = m->next)
        if (!json_get(context, m->string)) cJSON_AddItemToObject(context, m->string, cJSON_Duplicate(m, true));
}

/* How well the template takes this context; 0: it fails. A list or mapping that comes out as data, as Python or JSON
 * write it, was not understood. Consumes the context. */
static int try_context(const chat_format *c, const template *t, cJSON *context) {
    template_limits limits = {.steps_max = 200000, .depth_max = 200, .output_max = 1 << 20};
    int             score = 0;
    buf             out;
    error           ignored;
    buf_init(&out, 1 << 20);
    add_missing(context, c->special);
    if (template_render(t, context, 0, &limits, &out, &ignored) == OK) {
        const char *s = out.data ? out.data : "";
        bool        as_data = strstr(s, "': '" WORD) || strstr(s, "\"text\": \"" WORD) || strstr(s, "\"text\":\"" WORD);
        score = 1 + SHOWN * (strstr(s, WORD) != NULL && !as_data) + 2 * (strstr(s, "None") == NULL);
    }
    buf_free(&out);
    cJSON_Delete(context);
    return score;
}

#define CALL_OF_F(content, arguments)                                                                                       \
    "{\"role\":\"assistant\",\"content\":" content ",\"tool_calls\":[{\"id\":\"call00001\",\"type\":\"function\","          \
    "\"function\":{\"name\":\"f\",\"arguments\":" arguments "}}]}"
#define TOOLS                                                                                                               \
    "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"description\":\"d\",\"parameters\":{\"type\":"        \
    "\"object\","                                                                                                           \
    "\"properties\":{\"k\":{\"type\":\"string\",\"description\":\"e\"}},\"required\":[\"k\"]}}}]"
#define USER "{\"role\":\"user\",\"content\":\"a\"}"
#define END "\"add_generation_prompt\":true}"

static void try_content(const chat_format *c, tried_template *t) {
    static const char *const with_content[ROLES] = {
        [ROLE_USER] = "{\"messages\":[{\"role\":\"user\",\"content\":%s}],\"tools\":null," END,
        [ROLE_SYSTEM] = "{\"messages\":[{\"role\":\"system\",\"content\":%s}," USER "],\"tools\":null," END,
        [ROLE_ASSISTANT] = "{\"messages\":[" USER ",{\"role\":\"assistant\",\"content\":%s}," USER "],\"tools\":null," END,
        [ROLE_TOOL] =
            "{\"messages\":[" USER "," CALL_OF_F("\"\"", "{}") ",{\"role\":\"tool\",\"tool_call_id\":\"call00001\","
                                                               "\"name\":\"f\",\"content\":%s}]," TOOLS "," END,
    };
    for (int role = 0; role < ROLES; role++) {
        t->parts[role] =
            try_context(c, t->t, filled(with_content[role], "[{\"type\":\"text\",\"text\":\"" WORD "\"}]")) >= SHOWN;
        t->text[role] = try_context(c, t->t, filled(with_content[role], "\"" WORD "\"")) >= SHOWN;
    }
}

static void try_tool_calls(const chat_format *c, tried_template *t) {
    static const char *const form[4] = {
        CALL_OF_F("null", "{\"k\":\"" WORD "\"}"),
        CALL_OF_F("\"\"", "{\"k\":\"" WORD "\"}"),
        CALL_OF_F("null", "\"{\\\"k\\\":\\\"" WORD "\\\"}\""),
        CALL_OF_F("\"\"", "\"{\\\"k\\\":\\\"" WORD "\\\"}\""),
    };
    int best = 0;
    for (int i = 0; i < 4; i++) { /* the first of the best */
        int score = try_context(c, t->t,
                                filled("{\"messages\":[" USER ",%s,{\"role\":\"tool\",\"tool_call_id\":\"call00001\","
                                       "\"name\":\"f\",\"content\":\"b\"}]," TOOLS "," END,
                                       form[i]));
        if (score > best) best = score, t->empty_text = i & 1, t->json_text = i & 2;
    }
}

static int adopt(chat_format *c, tried_template *slot, const char *source, size_t n, error *err) {
    int code = template_compile(&slot->t, source, n, err);
    if (code != OK) return code;
    try_content(c, slot);
    try_tool_calls(c, slot);
    return OK;
}

/* ---- reading the folder ---- */

static void path_in(char *path, size_t room, const char *dir, const char *name) { snprintf(path, room, "%s/%s", dir, name); }

/* DIR/name as JSON, or NULL where there is no such file. */
static int read_json(const char *dir, const char *name, cJSON **out, error *err) {
    char path[4096];
    buf  text;
    path_in(path, sizeof path, dir, name);
    *out = NULL;
    if (!file_exists(path)) return OK;
    buf_init(&text, CONFIG_BYTES_MAX);
    int code = file_read(&text, path, err);
    if (code == OK && !(*out = json_parse(text.data ? text.data : "", text.size, CONFIG_DEPTH_MAX, err)))
        code = error_prefix(err, "'%s'", path);
    buf_free(&text);
    return code;
}

/* Special tokens are strings, or objects with their text in `content`. */
static void add_special(cJSON *special, const cJSON *config) {
    static const char *const names[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                        "pad_token", "cls_token", "mask_token"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const cJSON *token = json_get(config, names[i]);
        if (cJSON_IsObject(token)) token = json_get(token, "content");
        if (cJSON_IsString(token) && !json_get(special, names[i]))
            cJSON_AddStringToObject(special, names[i], token->valuestring);
    }
}

static int adopt_file(chat_format *c, tried_template *slot, const char *path, error *err) {
    buf text;
    buf_init(&text, CONFIG_BYTES_MAX);
    int code = file_read(&text, path, err);
    if (code == OK && (code = adopt(c, slot, text.data ? text.data : "", text.size, err)) != OK)
        error_prefix(err, "'%s'", path);
    buf_free(&text);
    return code;
}

static int adopt_text(chat_format *c, tried_template *slot, const cJSON *source, error *err) {
    if (!cJSON_IsString(source))
        return error_set(err, ERR_INVALID, "a chat template in tokenizer_config.json is not a string");
    return adopt(c, slot, source->valuestring, strlen(source->valuestring), err);
}

/* [{"name": "default", "template": ...}, {"name": "tool_use", ...}] */
static int adopt_named(chat_format *c, const cJSON *list, error *err) {
    int code = OK;
    for (const cJSON *item = list->child; item && code == OK; item = item->next) {
        const cJSON *name = json_get(item, "name");
        bool         is_default = cJSON_IsString(name) && !strcmp(name->valuestring, "default");
        bool         is_tool_use = cJSON_IsString(name) && !strcmp(name->valuestring, "tool_use");
        if (is_default || is_tool_use)
            code = adopt_text(c, is_default ? &c->ordinary : &c->with_tools, json_get(item, "template"), err);
    }
    if (code == OK && !c->ordinary.t)
        code = error_set(
            err, ERR_INVALID,
            "tokenizer_config.json lists chat templates, but none is named 'default'; choose one with --chat-template");
    return code;
}

static int adopt_from_folder(chat_format *c, const char *dir, const cJSON *config, error *err) {
    char         path[4096];
    int          code = OK;
    const cJSON *source = json_get(config, "chat_template");
    path_in(path, sizeof path, dir, "chat_template.jinja");
    if (file_exists(path)) {
        code = adopt_file(c, &c->ordinary, path, err);
        path_in(path, sizeof path, dir, "additional_chat_templates/tool_use.jinja");
        if (code == OK && file_exists(path)) code = adopt_file(c, &c->with_tools, path, err);
    } else if (cJSON_IsArray(source)) {
        code = adopt_named(c, source, err);
    } else if (source && !cJSON_IsNull(source)) {
        code = adopt_text(c, &c->ordinary, source, err);
    }
    return code;
}

static int read_folder(chat_format *c, const char *dir, const char *template_file, error *err) {
    cJSON *config, *map;
    int    code = read_json(dir, "tokenizer_config.json", &config, err);
    if (code != OK) return code;
    code = read_json(dir, "special_tokens_map.json", &map, err);
    add_special(c->special, config);
    add_special(c->special, map);
    if (code == OK && !template_file) code = adopt_from_folder(c, dir, config, err);
    cJSON_Delete(config);
    cJSON_Delete(map);
    return code;
}

int chat_format_open(chat_format **out, const char *dir, const char *template_file, error *err) {
    chat_format *c = calloc(1, sizeof *c);
    if (!c || !(c->special = cJSON_CreateObject())) fatal("out of memory opening a chat template");
    *out = NULL;
    int code = dir && !file_exists(dir) ? error_set(err, ERR_NOT_FOUND, "there is no folder '%s'", dir) : OK;
    if (code == OK && dir) code = read_folder(c, dir, template_file, err);
    if (code == OK && template_file) code = adopt_file(c, &c->ordinary, template_file, err);
    if (code != OK) {
        chat_format_close(c);
        return code;
    }
    if (!c->ordinary.t) log_warn("chat", "the model has no chat template; messages are joined plainly as 'role: content'");
    *out = c;
    return OK;
}

void chat_format_close(chat_format *c) {
    if (!c) return;
    template_free(c->ordinary.t);
    template_free(c->with_tools.t);
    cJSON_Delete(c->special);
    free(c);
}

bool chat_format_has_template(const chat_format *c) { return c->ordinary.t != NULL; }

/* ---- normalizing messages ---- */

static const char *part_text(const cJSON *part) {
    const cJSON *type = json_get(part, "type"), *text = json_get(part, "text");
    if (!cJSON_IsString(type)) return NULL;
    if (!strcmp(type->valuestring, "refusal")) text = json_get(part, "refusal");
    else if (strcmp(type->valuestring, "text") != 0) return NULL;
    return cJSON_IsString(text) ? text->valuestring : NULL;
}

static int check_parts(const cJSON *parts, error *err) {
    for (const cJSON *p = parts->child; p; p = p->next) {
        const cJSON *type = json_get(p, "type");
        if (!part_text(p))
            return error_set(err, ERR_UNSUPPORTED, "a content part of type '%s' is not supported; only text is",
                             cJSON_IsString(type) ? type->valuestring : "(none)");
    }
    return OK;
}

static cJSON *joined_parts(const cJSON *parts) {
    buf text;
    buf_init(&text, SIZE_MAX / 2);
    for (const cJSON *p = parts->child; p; p = p->next) buf_str(&text, part_text(p));
    cJSON *joined = cJSON_CreateString(text.data ? text.data : "");
    buf_free(&text);
    return joined;
}

static cJSON *one_part(const cJSON *text) {
    cJSON *list = cJSON_CreateArray(), *part = cJSON_CreateObject();
    cJSON_AddStringToObject(part, "type", "text");
    cJSON_AddStringToObject(part, "text", text->valuestring);
    cJSON_AddItemToArray(list, part);
    return list;
}

static int role_of(const cJSON *message) {
    static const struct {
        const char *name;
        int         role;
    } names[] = {{"user", ROLE_USER}, {"assistant", ROLE_ASSISTANT}, {"tool", ROLE_TOOL}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(json_get(message, "role")->valuestring, names[i].name)) return names[i].role;
    return ROLE_SYSTEM;
}

static int normalize_content(const tried_template *t, cJSON *message, error *err) {
    int          role = role_of(message);
    const cJSON *content = json_get(message, "content");
    cJSON       *changed = NULL;
    if (!content || cJSON_IsNull(content)) {
        bool may_be_null = json_get(message, "tool_calls") && t->t && !t->empty_text;
        changed = may_be_null ? cJSON_CreateNull() : cJSON_CreateString("");
    } else if (cJSON_IsArray(content)) {
        int code = check_parts(content, err);
        if (code != OK) return code;
        if (!t->parts[role]) changed = joined_parts(content);
    } else if (cJSON_IsString(content) && t->parts[role] && !t->text[role]) {
        changed = one_part(content);
    }
    if (!changed) return OK;
    if (content) cJSON_ReplaceItemInObjectCaseSensitive(message, "content", changed);
    else cJSON_AddItemToObject(message, "content", changed);
    return OK;
}

/* JSON text that is an object becomes one; no text at all becomes {}; what is no object stays text. */
static void normalize_arguments(const tried_template *t, cJSON *function) {
    const cJSON *arguments = json_get(function, "arguments");
    cJSON       *changed = NULL;
    if (cJSON_IsString(arguments) && !t->json_text) {
        const char *text = arguments->valuestring;
        changed = *text ? json_parse(text, strlen(text), CONFIG_DEPTH_MAX, NULL) : cJSON_CreateObject();
        if (changed && !cJSON_IsObject(changed)) cJSON_Delete(changed), changed = NULL;
    } else if (cJSON_IsObject(arguments) && t->json_text) {
        char *text = cJSON_PrintUnformatted(arguments);
        changed = cJSON_CreateString(text ? text : "{}");
        cJSON_free(text);
    }
    if (changed) cJSON_ReplaceItemInObjectCaseSensitive(function, "arguments", changed);
}

static int normalize_message(const tried_template *t, cJSON *message, error *err) {
    if (!cJSON_IsObject(message)) return error_set(err, ERR_INVALID, "each of 'messages' must be an object");
    if (!cJSON_IsString(json_get(message, "role"))) return error_set(err, ERR_INVALID, "each of 'messages' needs a 'role'");
    const cJSON *calls = json_get(message, "tool_calls");
    for (cJSON *call = cJSON_IsArray(calls) ? calls->child : NULL; call; call = call->next) {
        cJSON *function = cJSON_GetObjectItemCaseSensitive(call, "function");
        if (function) normalize_arguments(t, function);
    }
    return normalize_content(t, message, err);
}

/* No tools and an empty list of tools are the same to a request, and not to every template. */
static void normalize_tools(cJSON *context) {
    static const char *const optional[] = {"tools", "documents"};
    for (size_t i = 0; i < sizeof optional / sizeof *optional; i++) {
        const cJSON *list = json_get(context, optional[i]);
        if (cJSON_IsArray(list) && list->child) continue;
        cJSON_DeleteItemFromObjectCaseSensitive(context, optional[i]);
        cJSON_AddNullToObject(context, optional[i]);
    }
}

static const tried_template *template_for(const chat_format *c, const cJSON *context) {
    const cJSON *tools = json_get(context, "tools");
    return c->with_tools.t && tools && !cJSON_IsNull(tools) ? &c->with_tools : &c->ordinary;
}

int chat_normalize(const chat_format *c, cJSON *context, error *err) {
    cJSON *messages = cJSON_GetObjectItemCaseSensitive(context, "messages");
    if (!cJSON_IsArray(messages) || !messages->child)
        return error_set(err, ERR_INVALID, "'messages' must be a list of at least one message");
    normalize_tools(context);
    const tried_template *t = template_for(c, context);
    int                   code = OK;
    for (cJSON *m = messages->child; m && code == OK; m = m->next) code = normalize_message(t, m, err);
    return code;
}

/* ---- rendering ---- */

static void render_plainly(const cJSON *context, buf *out) {
    for (const cJSON *m = json_get(context, "messages")->child; m; m = m->next) {
        const cJSON *content = json_get(m, "content");
        buf_str(out, json_get(m, "role")->valuestring);
        buf_str(out, ": ");
        if (cJSON_IsString(content)) buf_str(out, content->valuestring);
        buf_char(out, '\n');
    }
    if (cJSON_IsTrue(json_get(context, "add_generation_prompt"))) buf_str(out, "assistant:");
}

int chat_apply(const chat_format *c, cJSON *context, int64_t now_unix_s, buf *out, error *err) {
    const tried_template *t = template_for(c, context);
    if (t->t) {
        add_missing(context, c->special);
        return template_render(t->t, context, now_unix_s, &template_limits_default, out, err);
    }
    render_plainly(context, out);
    return buf_overflowed(out) ? error_set(err, ERR_TOO_LARGE, "the messages are larger than %zu bytes", out->limit) : OK;
}

int chat_render(const chat_format *c, cJSON *context, int64_t now_unix_s, buf *out, error *err) {
    int code = chat_normalize(c, context, err);
    return code == OK ? chat_apply(c, context, now_unix_s, out, err) : code;
}
