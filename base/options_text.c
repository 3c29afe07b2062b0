/* base/options_text.c: the table of settings told to a person: --help, --dump-config, docs/configuration.md. */
#include <stdio.h>
#include <string.h>

#include "base/options_table.h"

enum { HELP_INDENT = 30, HELP_WIDTH = 110 };

static const char *argument_name(const option_row *row) {
    static const char *const by_kind[] = {
        [OPTION_U32] = "N",       [OPTION_I32] = "N",         [OPTION_U64_SIZE] = "SIZE", [OPTION_F64] = "X",
        [OPTION_STRING] = "TEXT", [OPTION_DURATION] = "TIME", [OPTION_BOOL] = NULL,       [OPTION_CHOICE] = NULL};
    if (row->argument) return row->argument;
    return row->kind == OPTION_CHOICE ? row->choices : by_kind[row->kind];
}

/* "16M" for sizes, "0.05" for anything else. */
static void append_bound(const option_row *row, double v, buf *out) {
    static const char units[] = "\0KMGT";
    int               unit = 0;
    while (row->kind == OPTION_U64_SIZE && v >= 1024 && unit < 4 && (uint64_t)v % 1024 == 0) v /= 1024, unit++;
    buf_printf(out, "%.15g", v);
    if (unit) buf_char(out, units[unit]);
}

/* "1 to 65535", "yes or no", "0.05 to 60 s"; nothing where any value will do. */
static void append_range(const option_row *row, buf *out) {
    if (row->kind == OPTION_BOOL) buf_str(out, "yes or no");
    if (row->kind == OPTION_CHOICE) buf_str(out, row->choices);
    if (row->min == 0 && row->max == 0) return;
    append_bound(row, row->min, out);
    buf_str(out, " to ");
    append_bound(row, row->max, out);
    if (row->kind == OPTION_DURATION) buf_str(out, " s");
}

static bool section_wanted(const char *section, const char *const *sections, size_t section_count) {
    for (size_t i = 0; i < section_count; i++)
        if (sections[i] && section && strcmp(sections[i], section) == 0) return true;
    return sections == NULL;
}

static bool same_section(const option_row *a, const option_row *b) {
    return a->section == b->section || (a->section && b->section && strcmp(a->section, b->section) == 0);
}

/* Rows of one section need not be neighbours: calls `each` for all rows of the section of slot `first`. */
typedef void (*slot_function)(const options *o, const option_slot *slot, buf *out);
static void for_section(const options *o, size_t first, slot_function each, buf *out) {
    for (size_t i = first; i < o->slot_count; i++)
        if (same_section(o->slots[i].row, o->slots[first].row)) each(o, &o->slots[i], out);
}
static bool first_of_section(const options *o, size_t at) {
    for (size_t i = 0; i < at; i++)
        if (same_section(o->slots[i].row, o->slots[at].row)) return false;
    return true;
}

/* Words of `text`, broken before HELP_WIDTH; the first line begins at HELP_INDENT. */
static void append_wrapped(const char *text, buf *out) {
    size_t column = HELP_INDENT;
    while (*text) {
        size_t word = strcspn(text, " ");
        if (column > HELP_INDENT && column + 1 + word > HELP_WIDTH) {
            buf_printf(out, "\n%*s", HELP_INDENT, "");
            column = HELP_INDENT;
        } else if (column > HELP_INDENT) {
            buf_char(out, ' '), column++;
        }
        buf_append(out, text, word);
        column += word, text += word + (text[word] == ' ');
    }
    buf_char(out, '\n');
}

static void help_row(const options *o, const option_slot *slot, buf *out) {
    (void)o;
    const option_row *row = slot->row;
    const char       *argument = argument_name(row), *value = row->default_text ? row->default_text : "";
    bool              is_bool = row->kind == OPTION_BOOL, on = is_bool && strcmp(value, "yes") == 0;
    char              flag[128], text[1024];
    snprintf(flag, sizeof flag, "  --%s%s%s%s", on ? "no-" : "", row->name, argument ? " " : "", argument ? argument : "");
    if (*value && !is_bool) snprintf(text, sizeof text, "%s (default %s)", row->help, value);
    else snprintf(text, sizeof text, "%s%s", on ? "do not " : "", row->help);
    if (strlen(flag) + 2 > HELP_INDENT) buf_printf(out, "%s\n%*s", flag, HELP_INDENT, "");
    else buf_printf(out, "%-*s", HELP_INDENT, flag);
    append_wrapped(text, out);
}

void options_help(const options *o, buf *out, const char *const *sections, size_t section_count) {
    for (size_t i = 0; i < o->slot_count; i++) {
        const char *section = o->slots[i].row->section;
        if (!first_of_section(o, i) || (section && !section_wanted(section, sections, section_count))) continue;
        if (section) buf_printf(out, "\n[%s]\n", section);
        else buf_str(out, "\n");
        for_section(o, i, help_row, out);
    }
}

static void append_value(const char *text, buf *out) {
    bool plain = *text && *text != '"' && text[0] != ' ' && text[strlen(text) - 1] != ' ' && !strpbrk(text, "#;");
    if (plain) {
        buf_str(out, text);
        return;
    }
    buf_char(out, '"');
    for (; *text; text++) {
        if (*text == '"' || *text == '\\') buf_char(out, '\\');
        buf_char(out, *text);
    }
    buf_char(out, '"');
}

static void dump_row(const options *o, const option_slot *slot, buf *out) {
    size_t begin = out->size;
    if (slot->text) {
        buf_printf(out, "%s = ", slot->row->name);
        append_value(slot->text, out);
    } else {
        buf_printf(out, "# %s =", slot->row->name);
    }
    size_t width = out->size - begin;
    buf_printf(out, "%*s# ", width < 40 ? (int)(40 - width) : 1, "");
    if (slot->origin == ORIGIN_FILE) buf_printf(out, "%s:%u\n", o->path, slot->line);
    else buf_str(out, slot->origin == ORIGIN_DEFAULT ? "default\n" : "command line\n");
}

void options_dump(const options *o, buf *out) {
    for (size_t i = 0; i < o->slot_count; i++) {
        if (!o->slots[i].row->section || !first_of_section(o, i)) continue;
        buf_printf(out, "%s[%s]\n", out->size ? "\n" : "", o->slots[i].row->section);
        for_section(o, i, dump_row, out);
    }
}

/* A cell of a table: "|" would end it. */
static void append_cell(const char *text, buf *out) {
    for (; *text; text++) {
        if (*text == '|') buf_char(out, '\\');
        buf_char(out, *text);
    }
}

static void markdown_row(const options *o, const option_slot *slot, buf *out) {
    (void)o;
    const option_row *row = slot->row;
    buf               range;
    buf_init(&range, 1024);
    append_range(row, &range);
    buf_printf(out, "| `%s` | ", row->name);
    append_cell(range.size ? range.data : argument_name(row), out);
    buf_free(&range);
    buf_str(out, " | ");
    if (row->default_text && *row->default_text) buf_printf(out, "`%s`", row->default_text);
    buf_str(out, " | ");
    append_cell(row->help, out);
    buf_str(out, row->reloadable ? " (reloaded by SIGHUP) |\n" : " |\n");
}

void options_markdown(const options *o, buf *out) {
    for (size_t i = 0; i < o->slot_count; i++) {
        if (!o->slots[i].row->section || !first_of_section(o, i)) continue;
        buf_printf(out, "\n## [%s]\n\n| setting | value | default | what it does |\n|---|---|---|---|\n",
                   o->slots[i].row->section);
        for_section(o, i, markdown_row, out);
    }
}
