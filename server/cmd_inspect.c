/* server/cmd_inspect.c: `penstock inspect`, the facts of a checkpoint on the terminal. */
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "models/checkpoint.h"
#include "server/commands.h"

enum { DESCRIPTION_BYTES_MAX = 64 << 10, TOKENIZER_CONFIG_BYTES_MAX = 16 << 20, TOKENIZER_CONFIG_DEPTH_MAX = 32 };

static int print_help(void) {
    puts("Usage: penstock inspect DIR | random:NAME\n\n"
         "Checks a checkpoint folder (config.json and model.safetensors or its shards) and says what it holds.\n\n"
         "Shapes with random weights:");
    for (uint32_t i = 0; checkpoint_random_name(i); i++) printf("  %s\n", checkpoint_random_name(i));
    return 0;
}

static bool tokenizer_config_has_template(const char *path) {
    buf text;
    buf_init(&text, TOKENIZER_CONFIG_BYTES_MAX);
    cJSON *json = NULL;
    if (file_read(&text, path, NULL) == OK && text.data)
        json = json_parse(text.data, text.size, TOKENIZER_CONFIG_DEPTH_MAX, NULL);
    const cJSON *value = json_get(json, "chat_template");
    bool         has = value && !cJSON_IsNull(value);
    cJSON_Delete(json);
    buf_free(&text);
    return has;
}

static void describe_companions(const char *dir, buf *out) {
    char path[4096];
    snprintf(path, sizeof path, "%s/tokenizer.json", dir);
    buf_printf(out, "\ntokenizer     %s\n", file_exists(path) ? "tokenizer.json" : "none (no tokenizer.json)");
    snprintf(path, sizeof path, "%s/chat_template.jinja", dir);
    bool own_file = file_exists(path);
    snprintf(path, sizeof path, "%s/tokenizer_config.json", dir);
    buf_printf(out, "chat template %s\n",
               own_file                              ? "chat_template.jinja"
               : tokenizer_config_has_template(path) ? "in tokenizer_config.json"
                                                     : "none");
}

int cmd_inspect(int argc, char **argv) {
    error err;
    if (argc == 2 && strcmp(argv[1], "--help") == 0) return print_help();
    if (argc != 2 || argv[1][0] == '-') {
        error_set(&err, ERR_USAGE, "one folder or random:NAME is needed; `penstock help inspect` says more");
        return command_failed(argv[0], &err);
    }
    checkpoint *c;
    if (checkpoint_open(&c, argv[1], &err) != OK) return command_failed(argv[0], &err);
    buf text;
    buf_init(&text, DESCRIPTION_BYTES_MAX);
    checkpoint_describe(c, &text);
    if (checkpoint_dir(c)) describe_companions(checkpoint_dir(c), &text);
    fputs(text.data, stdout);
    buf_free(&text);
    checkpoint_close(c);
    return 0;
}
