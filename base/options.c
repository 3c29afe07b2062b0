#include "base/options.h"

#include <ini.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/options_table.h"
#include "base/utf8.h"

enum { FILE_BYTES_MAX = 1 << 20, NAME_MAX_BYTES = 64 };

struct option_string {
    option_string *next;
    char           text[];
};

static const char *keep(options *o, const char *text) {
    size_t         n = strlen(text) + 1;
    option_string *s = malloc(sizeof *s + n);
    if (!s) fatal("out of memory keeping a setting of %zu bytes", n);
    memcpy(s->text, text, n);
    s->next = o->strings, o->strings = s;
    return s->text;
}

/* The value has been checked already. */
static void slot_set(options *o, option_slot *slot, const char *text, option_origin origin, unsigned line) {
    option_value value;
    int          code = option_parse(slot->row, slot->row->name, text, &value, NULL);
    check(code == OK);
    if (!slot->text || strcmp(slot->text, text) != 0) slot->text = keep(o, text);
    slot->origin = origin, slot->line = line;
    option_store(slot->row, slot->settings, &value, slot->text);
}

void options_add(options *o, const option_row *rows, size_t row_count, void *settings) {
    option_slot *grown = realloc(o->slots, (o->slot_count + row_count) * sizeof *grown);
    if (!grown) fatal("out of memory making a table of %zu settings", row_count);
    o->slots = grown;
    for (size_t i = 0; i < row_count; i++) {
        option_slot *slot = &o->slots[o->slot_count++];
        *slot = (option_slot){.row = &rows[i], .settings = settings};
        error err;
        if (!rows[i].default_text) option_store(&rows[i], settings, &(option_value){0}, NULL);
        else if (option_parse(&rows[i], rows[i].name, rows[i].default_text, &(option_value){0}, &err) == OK)
            slot_set(o, slot, rows[i].default_text, ORIGIN_DEFAULT, 0);
        else fatal("the default of a setting is not valid: %s", err.text);
    }
}

options *options_new(const option_row *rows, size_t row_count, void *settings) {
    options *o = calloc(1, sizeof *o);
    if (!o) fatal("out of memory for settings");
    options_add(o, rows, row_count, settings);
    return o;
}

void options_free(options *o) {
    if (!o) return;
    for (option_string *s = o->strings, *next; s; s = next) next = s->next, free(s);
    free(o->slots);
    free(o);
}

static option_slot *slot_find(const options *o, const char *name, size_t n) {
    for (size_t i = 0; i < o->slot_count; i++)
        if (strlen(o->slots[i].row->name) == n && memcmp(o->slots[i].row->name, name, n) == 0) return &o->slots[i];
    return NULL;
}

bool options_was_set(const options *o, const char *name) {
    const option_slot *slot = slot_find(o, name, strlen(name));
    return slot && slot->origin != ORIGIN_DEFAULT;
}

/* ---- reload ---- */
/* "30s" and "30000ms" are the same time. */
static bool same_value(const option_slot *a, const option_slot *b) {
    option_value x, y;
    if (!a->text || !b->text) return a->text == b->text;
    if (a->row->kind == OPTION_STRING || a->row->kind == OPTION_CHOICE) return strcmp(a->text, b->text) == 0;
    check(option_parse(a->row, a->row->name, a->text, &x, NULL) == OK);
    check(option_parse(b->row, b->row->name, b->text, &y, NULL) == OK);
    return x.boolean == y.boolean && x.integer == y.integer && x.real == y.real;
}

static void take_over(options *o, option_slot *slot, const option_slot *from) {
    if (from->text) return slot_set(o, slot, from->text, from->origin, from->line);
    slot->text = NULL, slot->origin = from->origin, slot->line = from->line;
    option_store(slot->row, slot->settings, &(option_value){0}, NULL);
}

uint32_t options_reload(options *o, const options *fresh, options_change told, void *context) {
    uint32_t count = 0;
    check(o->slot_count == fresh->slot_count);
    if (fresh->path) o->path = keep(o, fresh->path);
    for (size_t i = 0; i < o->slot_count; i++) {
        option_slot       *slot = &o->slots[i];
        const option_slot *from = &fresh->slots[i];
        check(slot->row == from->row);
        if (!slot->row->section) continue;
        bool same = same_value(slot, from);
        if (!same) told(context, slot->row, slot->text, from->text, slot->row->reloadable), count++;
        if (same || slot->row->reloadable) take_over(o, slot, from);
    }
    return count;
}

/* ---- a mistyped name: the nearest one by edit distance ---- */

static unsigned edit_distance(const char *a, size_t a_size, const char *b, size_t b_size) {
    unsigned row[NAME_MAX_BYTES + 1];
    for (size_t j = 0; j <= b_size; j++) row[j] = (unsigned)j;
    for (size_t i = 1; i <= a_size; i++) {
        unsigned diagonal = row[0];
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= b_size; j++) {
            unsigned best = diagonal + (a[i - 1] != b[j - 1]);
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            diagonal = row[j], row[j] = best;
        }
    }
    return row[b_size];
}

static const char *nearest_name(const options *o, const char *name, size_t n, bool in_file) {
    const char *nearest = NULL;
    unsigned    best = n > 12 ? 4 : 3; /* edits that still look like a slip */
    for (size_t i = 0; i < o->slot_count && n <= NAME_MAX_BYTES; i++) {
        const option_row *row = o->slots[i].row;
        if (strlen(row->name) > NAME_MAX_BYTES || (in_file && !row->section)) continue;
        unsigned d = edit_distance(name, n, row->name, strlen(row->name));
        if (d < best) best = d, nearest = row->name;
    }
    return nearest;
}

static int refuse_name(const options *o, const char *dashes, const char *name, size_t n, error *err) {
    const char *nearest = nearest_name(o, name, n, !*dashes);
    int         shown = n < 80 ? (int)n : 80;
    if (nearest)
        return error_set(err, ERR_USAGE, "there is no setting %s%.*s; did you mean %s%s?", dashes, shown, name, dashes,
                         nearest);
    return error_set(err, ERR_USAGE, "there is no setting %s%.*s; --help lists them all", dashes, shown, name);
}

/* ---- files ---- */

/* What a file says is held back here until all of it has proved valid. */
typedef struct {
    char    *text;
    unsigned line;
} staged;

typedef struct {
    options    *o;
    staged     *stage; /* [slot_count] */
    const char *at, *end;
    unsigned    line;
    error      *err;
    bool        failed;
} file_reader;

/* libinih asks for lines as fgets gives them; that they fit has been checked. */
static char *next_line(char *out, int size, void *context) {
    file_reader *r = context;
    if (r->at == r->end) return NULL;
    const char *newline = memchr(r->at, '\n', (size_t)(r->end - r->at));
    size_t      n = (size_t)((newline ? newline + 1 : r->end) - r->at);
    check(n < (size_t)size);
    memcpy(out, r->at, n), out[n] = 0;
    r->at += n, r->line++;
    return out;
}

/* Value as written in the file: "..." with \" and \\, or up to a comment that follows a blank. In place. */
static bool unquote(char *value) {
    if (*value != '"') {
        for (char *p = value; *p; p++)
            if ((*p == '#' || *p == ';') && (p == value || p[-1] == ' ' || p[-1] == '\t')) *p-- = 0;
        size_t n = strlen(value);
        while (n && (value[n - 1] == ' ' || value[n - 1] == '\t')) value[--n] = 0;
        return true;
    }
    char *out = value, *p = value + 1;
    for (; *p && *p != '"'; p++) {
        if (*p == '\\' && (p[1] == '"' || p[1] == '\\')) p++;
        *out++ = *p;
    }
    if (*p != '"') return false;
    p += 1 + strspn(p + 1, " \t");
    *out = 0;
    return !*p || *p == '#' || *p == ';';
}

static int stage_line(file_reader *r, const char *section, const char *name, const char *value) {
    option_slot *slot = slot_find(r->o, name, strlen(name));
    if (!slot || !slot->row->section) return refuse_name(r->o, "", name, strlen(name), r->err);
    if (strcmp(section, slot->row->section) != 0)
        return error_set(r->err, ERR_INVALID, "'%s' belongs into the section [%s]%s%s%s", name, slot->row->section,
                         *section ? ", not [" : "", section, *section ? "]" : "");
    char *text = strdup(value);
    if (!text) fatal("out of memory reading settings");
    staged *s = &r->stage[slot - r->o->slots];
    free(s->text);
    *s = (staged){text, r->line};
    if (!unquote(text)) return error_set(r->err, ERR_INVALID, "the quotes around the value of '%s' do not close", name);
    option_value checked;
    return option_parse(slot->row, name, text, &checked, r->err);
}

static int on_line(void *context, const char *section, const char *name, const char *value) {
    file_reader *r = context;
    if (r->failed) return 0;
    r->failed = stage_line(r, section, name, value ? value : "") != OK;
    return !r->failed;
}

static int check_lines(const char *text, size_t n, error *err) {
    if (n > FILE_BYTES_MAX) return error_set(err, ERR_TOO_LARGE, "the file is larger than %d bytes", FILE_BYTES_MAX);
    if (memchr(text, 0, n) || !utf8_valid(text, n)) return error_set(err, ERR_INVALID, "the file is not UTF-8 text");
    unsigned line = 1;
    for (size_t i = 0, begin = 0; i < n; i++) {
        if (i - begin > OPTION_TEXT_MAX)
            return error_set(err, ERR_TOO_LARGE, "line %u is longer than %d bytes", line, OPTION_TEXT_MAX);
        if (text[i] == '\n') begin = i + 1, line++;
    }
    return OK;
}

/* libinih's switches are process-wide; these are the style of systemd's files, with lines of any sensible length. */
static void configure_ini(void) {
    ini_use_stack = false, ini_max_line = ini_initial_alloc = OPTION_TEXT_MAX + 8;
    ini_allow_multiline = ini_allow_inline_comments = false;
    ini_stop_on_first_error = true;
}

static int stage_file(file_reader *r, const char *path) {
    configure_ini();
    int bad_line = ini_parse_stream(next_line, r, on_line, r);
    if (r->failed) return error_prefix(r->err, "%s:%u", path, r->line);
    if (bad_line > 0) return error_set(r->err, ERR_INVALID, "%s:%d: expected [section] or name = value", path, bad_line);
    if (bad_line < 0) fatal("out of memory reading settings");
    return OK;
}

int options_read_text(options *o, const char *path, const char *text, size_t n, error *err) {
    int code = check_lines(text, n, err);
    if (code != OK) return error_prefix(err, "%s", path), code;
    staged *stage = calloc(o->slot_count, sizeof *stage);
    if (!stage) fatal("out of memory reading settings");
    file_reader reader = {.o = o, .stage = stage, .at = text, .end = text + n, .err = err};
    code = stage_file(&reader, path);
    if (code == OK) o->path = keep(o, path);
    for (size_t i = 0; i < o->slot_count; i++) {
        if (code == OK && stage[i].text && o->slots[i].origin <= ORIGIN_FILE)
            slot_set(o, &o->slots[i], stage[i].text, ORIGIN_FILE, stage[i].line);
        free(stage[i].text);
    }
    free(stage);
    return code;
}

int options_read_file(options *o, const char *path, error *err) {
    buf text;
    buf_init(&text, FILE_BYTES_MAX);
    int code = file_read(&text, path, err);
    if (code == OK) code = options_read_text(o, path, text.size ? text.data : "", text.size, err);
    buf_free(&text);
    return code;
}

/* ---- the command line ---- */

/* argv[at] is --name, --name=VALUE or --no-name; returns how many words it took, or a negative code. */
static int read_flag(options *o, int argc, char **argv, int at, error *err) {
    const char  *name = argv[at] + 2, *equals = strchr(name, '=');
    size_t       n = equals ? (size_t)(equals - name) : strlen(name);
    option_slot *slot = slot_find(o, name, n);
    const char  *text = equals ? equals + 1 : NULL;
    int          taken = 1;
    if (!slot && !equals && strncmp(name, "no-", 3) == 0) {
        slot = slot_find(o, name + 3, n - 3);
        if (slot && slot->row->kind != OPTION_BOOL) slot = NULL;
        text = "no";
    }
    if (!slot) return refuse_name(o, "--", name, n, err);
    if (!text && slot->row->kind == OPTION_BOOL) text = "yes";
    if (!text && at + 1 < argc) text = argv[at + 1], taken = 2;
    if (!text)
        return error_set(err, ERR_USAGE, "--%s needs a value%s%s", slot->row->name, slot->row->argument ? ": " : "",
                         slot->row->argument ? slot->row->argument : "");
    char         label[NAME_MAX_BYTES + 3];
    option_value checked;
    snprintf(label, sizeof label, "--%s", slot->row->name);
    if (option_parse(slot->row, label, text, &checked, err) != OK) return err ? err->code = ERR_USAGE : ERR_USAGE;
    slot_set(o, slot, text, ORIGIN_COMMAND_LINE, 0);
    return taken;
}

int options_read_args(options *o, int argc, char **argv, const char **rest, size_t rest_max, size_t *rest_count,
                      error *err) {
    bool flags = true;
    *rest_count = 0;
    for (int i = 1; i < argc;) {
        static char help[] = "--help";
        char       *word = argv[i];
        if (flags && strcmp(word, "-h") == 0) argv[i] = word = help;
        if (flags && strcmp(word, "--") == 0) {
            flags = false, i++;
        } else if (flags && word[0] == '-' && word[1] == '-') {
            int taken = read_flag(o, argc, argv, i, err);
            if (taken < 0) return taken;
            i += taken;
        } else if (flags && word[0] == '-' && word[1]) {
            return error_set(err, ERR_USAGE, "there is no flag '%s'; flags are written --name", word);
        } else if (*rest_count == rest_max) {
            return error_set(err, ERR_USAGE, "'%s' is one word too many", word);
        } else {
            rest[(*rest_count)++] = word, i++;
        }
    }
    return OK;
}
