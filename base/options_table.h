/* base/options_table.h: what options.c and its two halves (option_value.c, options_text.c) share. Include options.h. */
#pragma once
#include "base/options.h"

enum { OPTION_TEXT_MAX = 4000 }; /* bytes of one value, and of one line of a file */

typedef struct {
    bool     boolean;
    uint64_t integer; /* u32; i32, sign-extended; bytes of a size; microseconds of a duration */
    double   real;
} option_value;

/* Checks `text` against the row; `label` names the setting in the sentence ("--port"). Strings and choices have no value
 * beside their text. */
int option_parse(const option_row *row, const char *label, const char *text, option_value *out, error *err);
/* Writes the value into the settings struct; strings and choices point to `text`, which must stay. */
void option_store(const option_row *row, void *settings, const option_value *value, const char *text);

typedef enum { ORIGIN_DEFAULT, ORIGIN_FILE, ORIGIN_COMMAND_LINE } option_origin;

typedef struct {
    const option_row *row;
    void             *settings;
    const char       *text; /* as it was written; NULL: none */
    option_origin     origin;
    unsigned          line; /* ORIGIN_FILE: in options.path */
} option_slot;

typedef struct option_string option_string;

struct options {
    option_slot   *slots;
    size_t         slot_count;
    const char    *path;    /* of the file read last */
    option_string *strings; /* every text a slot points to or pointed to: settings may still be read by other threads */
};
