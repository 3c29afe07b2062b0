/* base/options_text.c: the table of settings told to a person: --help, --dump-config, docs/configuration.md. */
#include <stdio.h>
#include <string.h>

#include "base/options_table.h"

enum { HELP_INDENT = 30, HELP_WIDTH = 110 };

static const char *argument_name(const option_row *row) {
    static const char *const by_kind[] = {
        [OPTION_U32] = "N",         [OPTION_U64_SIZE] = "SIZE", [OPTION_F64] = "X",    [OPTION_STRING] = "TEXT",
        [OPTION_DURATION] = "TIME", [OPTION_BOOL] = NULL,       [OPTION_CHOICE] = NULL};
    if (row->argument) return row->argument;
    return row->kind == OPTION_CHOICE ? row->choices : by_kind[row->kind];
}

/* "1..65535", "yes|no", "0.05..0.98 s"; nothing where any value will do. */
static void append_range(const option_row *row, buf *out) {
    if (row->kind == OPTION_BOOL) buf_str(out, "yes or no");
    if (row->kind == OPTION_CHOICE) buf_str(out, row->choices);
    if (row->min == 0 && row->max == 0) return;
    buf_printf(out, "%.15g to %.15g%s", row->min, row->max,
               row->kind == OPTION_U64_SIZE   ? " bytes"
               : row->kind == OPTION_DURATION ? " s"
                                              : "");
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

/* Words of `text` from column `column` on, broken before HELP_WIDTH. */
static void append_wrapped(const char *text, size_t column, buf *out) {
    while (*text) {
        size_t word = strcspn(text, " ");
        if (column + word > HELP_WIDTH && column > HELP_INDENT) {
            buf_printf(out, "\n%*s", HELP_INDENT, "");
            column = HELP_INDENT;
        }
        buf_append(out, text, word);
        column += word;
        text += word;
        if (*text == ' ') buf_char(out, ' '), column++, text++;
    }
    buf_char(out, '\n');
}

static void help_row(const options *o, const option_slot *slot, buf *out) {
    (void)o;
    const option_row *row = slot->row;
    const char       *argument = argument_name(row);
    char              flag[128], text[1024], range[128];
    buf               range_text;
    buf_init(&range_text, sizeof range - 1);
    if (row->kind != OPTION_BOOL && row->kind != OPTION_CHOICE) append_range(row, &range_text);
    snprintf(range, sizeof range, "%s", range_text.size ? range_text.data : "");
    buf_free(&range_text);
    bool on = row->kind == OPTION_BOOL && row->default_text && strcmp(row->default_text, "yes") == 0;
    snprintf(flag, sizeof flag, "  --%s%s%s%s", on ? "no-" : "", row->name, argument ? " " : "", argument ? argument : "");
    bool shows_default = row->default_text && *row->default_text && row->kind != OPTION_BOOL;
    snprintf(text, sizeof text, "%s%s%s%s%s%s%s%s", on ? "do not: " : "", row->help, *range || shows_default ? " (" : "",
             range, *range && shows_default ? "; " : "", shows_default ? "default " : "",
             shows_default ? row->default_text : "", *range || shows_default ? ")" : "");
    if (strlen(flag) + 2 > HELP_INDENT) buf_printf(out, "%s\n%*s", flag, HELP_INDENT, "");
    else buf_printf(out, "%-*s", HELP_INDENT, flag);
    append_wrapped(text, HELP_INDENT, out);
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
