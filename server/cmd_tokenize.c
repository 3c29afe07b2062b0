/* server/cmd_tokenize.c: `penstock tokenize`, text to token ids and back on the command line.
 *
 * A line of --jsonl that cannot be done gives {"error": ...} in its place, so that answers stay beside their questions;
 * the exit status at the end tells. Strings may hold \u0000, which base/json.h refuses for the sake of C strings: a line
 * is parsed in the pieces between them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/json.h"
#include "models/tokenizer.h"
#include "server/commands.h"

enum { LINE_MAX_BYTES = 64 << 20, OUTPUT_MAX_BYTES = 1 << 30, JSON_DEPTH_MAX = 4 };

typedef struct {
    const char *dir;
    bool        jsonl, decode, special, bos, help;
    char      **words; /* what is not an option */
    int         word_count;
} options;

static const char usage[] =
    "Usage: penstock tokenize --model DIR [OPTIONS] TEXT\n"
    "       penstock tokenize --model DIR --decode [OPTIONS] ID...\n"
    "       penstock tokenize --model DIR --jsonl [OPTIONS] < LINES\n"
    "\n"
    "Prints the token ids of TEXT, or the text of the IDs. DIR needs only the tokenizer's files.\n"
    "\n"
    "  --model DIR  the folder of tokenizer.json\n"
    "  --jsonl      one JSON string a line in, one JSON array of ids a line out (with --decode: the other way round)\n"
    "  --decode     ids to text\n"
    "  --special    read the text of special tokens as these tokens; with --decode keep them in the text\n"
    "  --bos        add what the tokenizer adds around a text, such as a beginning-of-sequence token\n"
    "  --           what follows is not an option\n";

static int parse(options *o, int argc, char **argv, error *err) {
    struct {
        const char *name;
        bool       *set;
    } flags[] = {{"--jsonl", &o->jsonl},
                 {"--decode", &o->decode},
                 {"--special", &o->special},
                 {"--bos", &o->bos},
                 {"--help", &o->help}};
    int i = 1;
    for (; i < argc && strncmp(argv[i], "--", 2) == 0; i++) {
        bool known = false;
        if (argv[i][2] == 0) {
            i++;
            break;
        }
        for (size_t f = 0; f < sizeof flags / sizeof *flags; f++)
            if (strcmp(argv[i], flags[f].name) == 0) known = *flags[f].set = true;
        if (strcmp(argv[i], "--model") == 0 && i + 1 < argc) known = true, o->dir = argv[++i];
        if (!known)
            return error_set(err, ERR_USAGE, "cannot use '%s' here; 'penstock tokenize --help' lists the options", argv[i]);
    }
    o->words = argv + i, o->word_count = argc - i;
    if (o->help) return OK;
    if (!o->dir) return error_set(err, ERR_USAGE, "--model DIR is missing");
    if (o->jsonl && o->word_count)
        return error_set(err, ERR_USAGE, "--jsonl reads standard input; '%s' is one too many", o->words[0]);
    if (!o->jsonl && !o->decode && o->word_count != 1)
        return error_set(err, ERR_USAGE, "give the text as one argument (there are %d)", o->word_count);
    return OK;
}

/* ---- one conversion ---- */

static unsigned encode_flags(const options *o) { return (o->special ? TOKENIZE_SPECIAL : 0) | (o->bos ? TOKENIZE_BOS : 0); }

static void print_ids(buf *out, const token_ids *ids, const char *separator) {
    for (size_t i = 0; i < ids->count; i++) buf_printf(out, "%s%u", i ? separator : "", ids->ids[i]);
}

static int add_id(token_ids *ids, double value, error *err) {
    if (!(value >= 0 && value < UINT32_MAX) || value != (uint32_t)value)
        return error_set(err, ERR_INVALID, "an id must be an integer of at least 0, not %g", value);
    if (ids->count == ids->capacity) {
        size_t    want = ids->capacity ? ids->capacity * 2 : 64;
        uint32_t *grown = realloc(ids->ids, want * sizeof *grown);
        if (!grown) fatal("out of memory for %zu ids", want);
        ids->ids = grown, ids->capacity = want;
    }
    ids->ids[ids->count++] = (uint32_t)value;
    return OK;
}

/* ---- the command line's own text or ids ---- */

static int convert_words(const options *o, const tokenizer *t, buf *out, error *err) {
    token_ids ids = {0};
    int       code = OK;
    if (!o->decode) {
        code = tokenizer_encode(t, o->words[0], strlen(o->words[0]), encode_flags(o), &ids, err);
        if (code == OK) print_ids(out, &ids, " ");
    }
    for (int i = 0; o->decode && code == OK && i < o->word_count; i++) {
        char  *end;
        double value = strtod(o->words[i], &end);
        code = *end || end == o->words[i] ? error_set(err, ERR_INVALID, "'%s' is not a token id", o->words[i])
                                          : add_id(&ids, value, err);
    }
    if (o->decode && code == OK) code = tokenizer_decode(t, ids.ids, ids.count, o->special, out, err);
    buf_char(out, '\n');
    token_ids_free(&ids);
    return code;
}

/* ---- JSON lines ---- */

/* Where the next \u0000 escape begins in the inside of a JSON string, or n. */
static size_t find_nul_escape(const char *s, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (s[i] != '\\') continue;
        if (n - i >= 6 && memcmp(s + i, "\\u0000", 6) == 0) return i;
        i++;
    }
    return n;
}

/* Appends the string that the JSON text is. */
static int read_json_string(const char *json, size_t n, buf *out, error *err) {
    if (n < 2 || json[0] != '"' || json[n - 1] != '"') return error_set(err, ERR_INVALID, "the line is not a JSON string");
    const char *inside = json + 1;
    size_t      left = n - 2;
    buf         piece;
    int         code = OK;
    buf_init(&piece, LINE_MAX_BYTES);
    for (;;) {
        size_t run = find_nul_escape(inside, left);
        buf_clear(&piece);
        buf_char(&piece, '"'), buf_append(&piece, inside, run), buf_char(&piece, '"');
        cJSON *value = json_parse(piece.data, piece.size, JSON_DEPTH_MAX, err);
        if (value && !cJSON_IsString(value)) error_set(err, ERR_INVALID, "the line is not a JSON string");
        bool is_string = cJSON_IsString(value);
        if (is_string) buf_str(out, value->valuestring);
        cJSON_Delete(value);
        if (!is_string) code = err->code;
        if (!is_string || run == left) break;
        buf_char(out, 0);
        inside += run + 6, left -= run + 6;
    }
    buf_free(&piece);
    return code;
}

static int encode_line(const options *o, const tokenizer *t, const buf *line, buf *out, error *err) {
    token_ids ids = {0};
    buf       text;
    buf_init(&text, LINE_MAX_BYTES);
    int code = read_json_string(line->data, line->size, &text, err);
    if (code == OK) code = tokenizer_encode(t, text.data ? text.data : "", text.size, encode_flags(o), &ids, err);
    if (code == OK) buf_char(out, '['), print_ids(out, &ids, ", "), buf_char(out, ']');
    buf_free(&text);
    token_ids_free(&ids);
    return code;
}

static int decode_line(const options *o, const tokenizer *t, const buf *line, buf *out, error *err) {
    cJSON       *list = json_parse(line->data, line->size, JSON_DEPTH_MAX, err);
    const cJSON *item;
    token_ids    ids = {0};
    buf          text;
    int          code = list ? OK : err->code;
    buf_init(&text, OUTPUT_MAX_BYTES);
    if (list && !cJSON_IsArray(list)) code = error_set(err, ERR_INVALID, "the line is not a JSON array of token ids");
    if (code == OK) cJSON_ArrayForEach(item, list) {
            code = cJSON_IsNumber(item) ? add_id(&ids, item->valuedouble, err)
                                        : error_set(err, ERR_INVALID, "an id must be an integer");
            if (code != OK) break;
        }
    if (code == OK) code = tokenizer_decode(t, ids.ids, ids.count, o->special, &text, err);
    if (code == OK) json_quote(out, text.data ? text.data : "", text.size);
    cJSON_Delete(list);
    token_ids_free(&ids);
    buf_free(&text);
    return code;
}

static void trim(buf *line) {
    size_t start = 0;
    while (line->size && strchr(" \t\r\n", line->data[line->size - 1])) line->size--;
    while (start < line->size && strchr(" \t", line->data[start])) start++;
    memmove(line->data, line->data + start, line->size - start);
    line->size -= start;
    line->data[line->size] = 0;
}

/* Reads up to a newline; false at the end of the input. What is over the buffer's limit is read and dropped. */
static bool read_line(FILE *from, buf *line) {
    int c;
    buf_clear(line);
    while ((c = getc_unlocked(from)) != EOF && c != '\n') buf_char(line, (char)c);
    if (!line->data) buf_str(line, "");
    return c != EOF || line->size || buf_overflowed(line);
}

/* Returns the code of the last line that failed, or OK. */
static int convert_lines(const options *o, const tokenizer *t) {
    buf line, out;
    int worst = OK;
    buf_init(&line, LINE_MAX_BYTES);
    buf_init(&out, OUTPUT_MAX_BYTES);
    while (read_line(stdin, &line)) {
        error err = {0};
        int   code = OK;
        buf_clear(&out);
        if (buf_overflowed(&line)) code = error_set(&err, ERR_TOO_LARGE, "the line is longer than %d bytes", LINE_MAX_BYTES);
        else trim(&line), code = o->decode ? decode_line(o, t, &line, &out, &err) : encode_line(o, t, &line, &out, &err);
        if (code != OK) {
            worst = code;
            buf_clear(&out);
            buf_str(&out, "{\"error\": "), json_quote(&out, err.text, strlen(err.text)), buf_char(&out, '}');
        }
        buf_char(&out, '\n');
        fwrite(out.data, 1, out.size, stdout);
    }
    buf_free(&line), buf_free(&out);
    return worst;
}

int cmd_tokenize(int argc, char **argv) {
    options    o = {0};
    error      err = {0};
    tokenizer *t = NULL;
    int        code = parse(&o, argc, argv, &err);
    if (code == OK && o.help) return fputs(usage, stdout), 0;
    if (code == OK) code = tokenizer_open(&t, o.dir, &err);
    if (code == OK && o.jsonl) {
        code = convert_lines(&o, t);
        tokenizer_close(t);
        return fflush(stdout) == 0 ? error_exit_status(code) : error_exit_status(ERR_IO);
    }
    if (code == OK) {
        buf out;
        buf_init(&out, OUTPUT_MAX_BYTES);
        code = convert_words(&o, t, &out, &err);
        if (code == OK && fwrite(out.data, 1, out.size, stdout) != out.size)
            code = error_set(&err, ERR_IO, "cannot write the answer");
        buf_free(&out);
    }
    tokenizer_close(t);
    return code == OK ? 0 : command_failed("tokenize", &err);
}
