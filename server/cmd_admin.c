/* server/cmd_admin.c: `penstock admin`: one request to a daemon's admin socket (admin.c), its answer on standard output. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/command_line.h"
#include "base/file.h"
#include "base/json.h"
#include "server/commands.h"

enum { ANSWER_MAX_BYTES = 32 << 20, KEYS_MAX_BYTES = 4 << 20 };

typedef enum { TAKES_NOTHING, TAKES_ID, TAKES_FILE, TAKES_WORD } takes;
static const struct {
    const char *name, *method, *path;
    takes       takes;
    const char *argument, *help;
} actions[] = {
    {"status", "GET", "/", TAKES_NOTHING, "", "what it does"},
    {"requests", "GET", "/requests", TAKES_NOTHING, "", "every request at work"},
    {"abort", "DELETE", "/requests/", TAKES_ID, "ID", "end a request; its client is told"},
    {"tenants", "GET", "/tenants", TAKES_NOTHING, "", "who has a key, and what of its limits is used"},
    {"keys", "PUT", "/keys", TAKES_FILE, "FILE", "take the keys of this file, until the next reload or restart"},
    {"cache", "GET", "/cache", TAKES_NOTHING, "", "pages of the prefix cache"},
    {"cache-reset", "DELETE", "/cache", TAKES_NOTHING, "", "forget every cached prefix that nobody uses"},
    {"pause", "POST", "/pause", TAKES_NOTHING, "", "turn new requests away (503); those at work go on"},
    {"hold", "POST", "/hold", TAKES_NOTHING, "", "pause, and begin no further pass: everything stands still"},
    {"resume", "POST", "/resume", TAKES_NOTHING, "", "after pause or hold"},
    {"drain", "POST", "/drain", TAKES_NOTHING, "", "end as after SIGTERM"},
    {"reload", "POST", "/reload", TAKES_NOTHING, "", "read the settings and keys anew, and say what changed"},
    {"config", "GET", "/config", TAKES_NOTHING, "", "every setting in force, with its origin"},
    {"log-level", "GET", "/log-level", TAKES_NOTHING, "", "least important line that is logged"},
    {"set-log-level", "PUT", "/log-level", TAKES_WORD, "LEVEL",
     "error, warn, info or debug, until the next reload or restart"},
    {"log-reopen", "POST", "/log-reopen", TAKES_NOTHING, "", "open the log file anew"},
};
enum { ACTION_COUNT = sizeof actions / sizeof *actions };

typedef struct {
    const char *socket;
} admin_flags;

static const option_row flag_rows[] = {
    {NULL, "socket", OPTION_STRING, offsetof(admin_flags, socket), 0, 0, "/run/penstock/admin.sock", NULL, "PATH",
     "the daemon's admin-socket", false},
};

static void write_usage(buf *out) {
    buf_str(out, "Usage: penstock admin [--socket PATH] ACTION [ARGUMENT]\n\nAsks a running daemon, or tells it what to do, "
                 "over its admin socket (serve --admin-socket).\n\n");
    for (int i = 0; i < ACTION_COUNT; i++)
        buf_printf(out, "  %-13s %-6s %s\n", actions[i].name, actions[i].argument, actions[i].help);
}

static int dial(const char *path, error *err) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path) return error_set(err, ERR_USAGE, "the path %.80s is too long", path);
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0) return fd;
    error_set(err, ERR_IO, "no daemon answers at %s: %s; name its admin-socket with --socket", path, strerror(errno));
    if (fd >= 0) close(fd);
    return err->code;
}

static bool send_all(int fd, const char *bytes, size_t n) {
    while (n > 0) {
        ssize_t sent = send(fd, bytes, n, MSG_NOSIGNAL);
        if (sent <= 0) return false;
        bytes += sent, n -= (size_t)sent;
    }
    return true;
}

static int talk(const char *path, const buf *request, buf *answer, error *err) {
    char    piece[65536];
    ssize_t n;
    int     fd = dial(path, err);
    if (fd < 0) return fd;
    if (send_all(fd, request->data, request->size))
        while ((n = recv(fd, piece, sizeof piece, 0)) > 0) buf_append(answer, piece, (size_t)n);
    close(fd);
    return answer->size ? OK : error_set(err, ERR_IO, "the daemon at %s gave no answer", path);
}

/* The sentence of {"error": {"message"}}. */
static int refused(int status, const char *body, size_t n, error *err) {
    cJSON       *json = json_parse(body, n, 8, NULL);
    const cJSON *message = json ? json_get(json_get(json, "error"), "message") : NULL;
    int          code = status == 404 ? ERR_NOT_FOUND : status < 500 ? ERR_INVALID : ERR_FULL;
    error_set(err, code, "%.400s", message && cJSON_IsString(message) ? message->valuestring : "the daemon refused");
    cJSON_Delete(json);
    return code;
}

static int print_answer(const buf *answer, error *err) {
    const char *body = strstr(answer->data, "\r\n\r\n");
    int         status = strncmp(answer->data, "HTTP/1.1 ", 9) == 0 ? atoi(answer->data + 9) : 0;
    if (!body || !status) return error_set(err, ERR_IO, "what answers there does not speak HTTP");
    body += 4;
    size_t n = answer->size - (size_t)(body - answer->data);
    if (status != 200) return refused(status, body, n, err);
    fwrite(body, 1, n, stdout);
    if (n && body[n - 1] != '\n') fputc('\n', stdout);
    return OK;
}

static int make_request(int action, const char *argument, buf *request, error *err) {
    buf body;
    int code = OK;
    buf_init(&body, KEYS_MAX_BYTES);
    if (actions[action].takes == TAKES_FILE) code = file_read(&body, argument, err);
    if (actions[action].takes == TAKES_WORD) buf_str(&body, argument);
    bool in_path = actions[action].takes == TAKES_ID;
    for (const char *p = argument; in_path && code == OK && *p; p++)
        if (*p <= ' ' || *p >= 0x7F || strchr("?#%\"<>\\", *p))
            code = error_set(err, ERR_USAGE, "'%s' is not an id", argument);
    if (code == OK) {
        buf_printf(request, "%s %s%s HTTP/1.1\r\nHost: admin\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n",
                   actions[action].method, actions[action].path, in_path ? argument : "", body.size);
        buf_append(request, body.size ? body.data : "", body.size);
    }
    buf_free(&body);
    return code;
}

static int run(const char *socket, const char *const *words, size_t count, error *err) {
    int action = 0;
    if (count == 0) return error_set(err, ERR_USAGE, "what is it to do? `penstock admin --help` lists the actions");
    while (action < ACTION_COUNT && strcmp(actions[action].name, words[0]) != 0) action++;
    if (action == ACTION_COUNT)
        return error_set(err, ERR_USAGE, "there is no action '%s'; `penstock admin --help` lists what there is", words[0]);
    bool takes_one = actions[action].takes != TAKES_NOTHING;
    if (takes_one && count < 2)
        return error_set(err, ERR_USAGE, "%s needs one word more: %s", words[0], actions[action].argument);
    if (!takes_one && count > 1) return error_set(err, ERR_USAGE, "'%s' is one word too many", words[1]);
    buf request, answer;
    buf_init(&request, 2 * KEYS_MAX_BYTES), buf_init(&answer, ANSWER_MAX_BYTES);
    int code = make_request(action, takes_one ? words[1] : NULL, &request, err);
    if (code == OK) code = talk(socket, &request, &answer, err);
    if (code == OK) code = print_answer(&answer, err);
    buf_free(&request), buf_free(&answer);
    return code;
}

int cmd_admin(int argc, char **argv) {
    admin_flags flags = {0};
    buf         usage;
    error       err;
    buf_init(&usage, 64 << 10);
    write_usage(&usage);
    command_line line = {.usage = usage.data,
                         .rows = flag_rows,
                         .row_count = sizeof flag_rows / sizeof *flag_rows,
                         .values = &flags,
                         .words_max = COMMAND_WORDS_MAX};
    int          code = command_line_read(&line, argc, argv, &err);
    if (code == OK && !line.help) code = run(flags.socket, line.words, line.word_count, &err);
    command_line_free(&line), buf_free(&usage);
    return code == OK ? 0 : command_failed("admin", &err);
}
