/* Settings: one table of rows, read from defaults, a file and the command line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/options.h"

typedef struct {
    bool        cache, quick;
    uint32_t    port;
    uint64_t    memory_bytes, wait_us;
    double      share;
    const char *name, *device;
} sample;

#define AT(field) offsetof(sample, field)
static const option_row rows[] = {
    {NULL, "quick", OPTION_BOOL, AT(quick), 0, 0, NULL, NULL, NULL, "hurry", false},
    {"server", "port", OPTION_U32, AT(port), 1, 65535, "8080", NULL, "N", "TCP port", false},
    {"server", "wait", OPTION_DURATION, AT(wait_us), 0.001, 3600, "30s", NULL, NULL, "patience", true},
    {"engine", "cache", OPTION_BOOL, AT(cache), 0, 0, "yes", NULL, NULL, "reuse", false},
    {"engine", "memory", OPTION_U64_SIZE, AT(memory_bytes), 0, 0, NULL, NULL, NULL, "room", false},
    {"engine", "share", OPTION_F64, AT(share), 0.05, 0.98, "0.9", NULL, NULL, "of the memory", false},
    {"engine", "device", OPTION_CHOICE, AT(device), 0, 0, "auto", "auto|cpu|cuda", NULL, "what computes", false},
    {"engine", "name", OPTION_STRING, AT(name), 0, 0, NULL, NULL, "NAME", "what it is called", false},
};

typedef struct {
    sample   values;
    options *o;
    error    err;
} fixture;

static fixture *open_fixture(void) {
    fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    f->o = options_new(rows, sizeof rows / sizeof *rows, &f->values);
    return f;
}
static void close_fixture(fixture *f) {
    options_free(f->o);
    free(f);
}
static int read_text(fixture *f, const char *text) { return options_read_text(f->o, "p.conf", text, strlen(text), &f->err); }

/* Splits a command line at blanks. */
static int read_line(fixture *f, const char *line) {
    static char copy[512];
    char       *argv[32] = {"penstock"};
    int         argc = 1;
    const char *rest[2];
    size_t      rest_count;
    snprintf(copy, sizeof copy, "%s", line);
    for (char *at, *word = strtok_r(copy, " ", &at); word; word = strtok_r(NULL, " ", &at)) argv[argc++] = word;
    return options_read_args(f->o, argc, argv, rest, 2, &rest_count, &f->err);
}

static void assert_refused(const char *line, const char *sentence) {
    fixture *f = open_fixture();
    assert_int_equal(read_line(f, line), ERR_USAGE);
    assert_string_equal(f->err.text, sentence);
    close_fixture(f);
}
static void assert_file_refused(const char *text, const char *sentence) {
    fixture *f = open_fixture();
    sample   before = f->values;
    assert_int_not_equal(read_text(f, text), OK);
    assert_string_equal(f->err.text, sentence);
    assert_memory_equal(&before, &f->values, sizeof before);
    close_fixture(f);
}

static void a_setting_nobody_touched_has_its_default(void **state) {
    (void)state;
    fixture *f = open_fixture();
    assert_int_equal(f->values.port, 8080);
    assert_int_equal(f->values.wait_us, 30000000);
    assert_true(f->values.cache);
    assert_false(f->values.quick);
    assert_true(f->values.share == 0.9);
    assert_string_equal(f->values.device, "auto");
    assert_null(f->values.name);
    assert_false(options_was_set(f->o, "port"));
    close_fixture(f);
}

static void flags_are_read_in_every_way_they_may_be_written(void **state) {
    (void)state;
    fixture *f = open_fixture();
    assert_int_equal(read_line(f, "--port 80 --name=a=b --no-cache --quick --device cpu --share=5e-1"), OK);
    assert_int_equal(f->values.port, 80);
    assert_string_equal(f->values.name, "a=b");
    assert_false(f->values.cache);
    assert_true(f->values.quick);
    assert_string_equal(f->values.device, "cpu");
    assert_true(f->values.share == 0.5);
    assert_true(options_was_set(f->o, "port"));
    assert_int_equal(read_line(f, "--cache=yes --quick=no"), OK);
    assert_true(f->values.cache);
    assert_false(f->values.quick);
    close_fixture(f);
}

static void words_that_are_no_flags_are_handed_back(void **state) {
    (void)state;
    fixture    *f = open_fixture();
    char       *argv[] = {"penstock", "one", "--port", "9", "--", "--two"};
    const char *rest[2];
    size_t      rest_count;
    assert_int_equal(options_read_args(f->o, 6, argv, rest, 2, &rest_count, &f->err), OK);
    assert_int_equal(rest_count, 2);
    assert_string_equal(rest[0], "one");
    assert_string_equal(rest[1], "--two");
    assert_int_equal(options_read_args(f->o, 6, argv, rest, 1, &rest_count, &f->err), ERR_USAGE);
    assert_string_equal(f->err.text, "'--two' is one word too many");
    close_fixture(f);
}

static void sizes_and_times_take_units(void **state) {
    static const struct {
        const char *text;
        uint64_t    bytes;
    } sizes[] = {{"0", 0},
                 {"7", 7},
                 {"1K", 1024},
                 {"512M", 512ull << 20},
                 {"1.5G", 3ull << 29},
                 {"2GiB", 2ull << 30},
                 {"1T", 1ull << 40},
                 {"3 MiB", 3 << 20}};
    static const struct {
        const char *text;
        uint64_t    us;
    } times[] = {{"1", 1000000}, {"250ms", 250000}, {"1500us", 1500}, {"5min", 300000000}, {"0.5h", 1800000000}};
    (void)state;
    char line[64];
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        fixture *f = open_fixture();
        snprintf(line, sizeof line, "[engine]\nmemory = %s\n", sizes[i].text);
        assert_int_equal(read_text(f, line), OK);
        assert_int_equal(f->values.memory_bytes, sizes[i].bytes);
        close_fixture(f);
    }
    for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
        fixture *f = open_fixture();
        snprintf(line, sizeof line, "[server]\nwait = %s\n", times[i].text);
        assert_int_equal(read_text(f, line), OK);
        assert_int_equal(f->values.wait_us, times[i].us);
        close_fixture(f);
    }
}

static void a_bad_flag_is_refused_by_one_sentence_that_names_it(void **state) {
    (void)state;
    assert_refused("--port 70000", "--port must be between 1 and 65535, not 70000");
    assert_refused("--port 99999999999999999999", "--port must be between 1 and 65535, not 99999999999999999999");
    assert_refused("--port -1", "--port must be a whole number, not '-1'");
    assert_refused("--port 0x10", "--port must be a whole number, not '0x10'");
    assert_refused("--port", "--port needs a value: N");
    assert_refused("--prot 1", "there is no setting --prot; did you mean --port?");
    assert_refused("--something-else", "there is no setting --something-else; --help lists them all");
    assert_refused("--no-port", "there is no setting --no-port; --help lists them all");
    assert_refused("-p", "there is no flag '-p'; flags are written --name");
    assert_refused("--device gpu", "--device must be one of auto|cpu|cuda, not 'gpu'");
    assert_refused("--device auto|cpu", "--device must be one of auto|cpu|cuda, not 'auto|cpu'");
    assert_refused("--share nan", "--share must be a number, not 'nan'");
    assert_refused("--share 1", "--share must be between 0.05 and 0.98, not 1");
    assert_refused("--cache=maybe", "--cache must be yes or no, not 'maybe'");
    assert_refused("--wait 2h", "--wait must be between 0.001 and 3600 seconds, not 2h");
    assert_refused("--wait 1e3", "--wait must be a time such as 250ms, 30s or 5min, not '1e3'");
    assert_refused("--memory 2GB", "--memory must be a size such as 512M, 2GiB or 1.5G (powers of 1024), not '2GB'");
    assert_refused("--memory 99999999999T",
                   "--memory must be a size such as 512M, 2GiB or 1.5G (powers of 1024), not '99999999999T'");
}

static void a_file_sets_what_it_names_and_nothing_else(void **state) {
    (void)state;
    fixture *f = open_fixture();
    assert_int_equal(
        read_text(f,
                  "# a comment\r\n[server]\r\n  port = 81   ; trailing\r\n\n[engine]\nname = \"a # \\\"b\\\" \\\\\" # c\n"),
        OK);
    assert_int_equal(f->values.port, 81);
    assert_string_equal(f->values.name, "a # \"b\" \\");
    assert_int_equal(f->values.wait_us, 30000000);
    close_fixture(f);
}

static void the_command_line_wins_over_the_file_whichever_comes_first(void **state) {
    (void)state;
    fixture *f = open_fixture();
    assert_int_equal(read_line(f, "--port 80"), OK);
    assert_int_equal(read_text(f, "[server]\nport = 81\nwait = 1s\n"), OK);
    assert_int_equal(f->values.port, 80);
    assert_int_equal(f->values.wait_us, 1000000);
    assert_int_equal(read_line(f, "--wait 2s"), OK);
    assert_int_equal(f->values.wait_us, 2000000);
    close_fixture(f);
}

static void a_bad_file_is_refused_as_a_whole(void **state) {
    (void)state;
    assert_file_refused("[server]\nport = 81\nport = 0\n", "p.conf:3: port must be between 1 and 65535, not 0");
    assert_file_refused("[server]\nport = 81\nprot = 82\n", "p.conf:3: there is no setting prot; did you mean port?");
    assert_file_refused("[engine]\nport = 81\n", "p.conf:2: 'port' belongs into the section [server], not [engine]");
    assert_file_refused("port = 81\n", "p.conf:1: 'port' belongs into the section [server]");
    assert_file_refused("[server]\nport\n", "p.conf:2: expected [section] or name = value");
    assert_file_refused("[server\nport = 81\n", "p.conf:1: expected [section] or name = value");
    assert_file_refused("[engine]\nname = \"open\n", "p.conf:2: the quotes around the value of 'name' do not close");
    assert_file_refused("[server]\nquick = yes\n", "p.conf:2: there is no setting quick; --help lists them all");
    assert_file_refused("[server]\nport = \xff\n", "p.conf: the file is not UTF-8 text");
}

static void a_file_that_is_not_there_is_named(void **state) {
    (void)state;
    fixture *f = open_fixture();
    assert_int_equal(options_read_file(f->o, "/nonexistent/p.conf", &f->err), ERR_NOT_FOUND);
    assert_string_equal(f->err.text, "cannot open '/nonexistent/p.conf': No such file or directory");
    close_fixture(f);
}

static void a_line_of_any_length_is_read_whole_or_refused(void **state) {
    (void)state;
    static char text[8000];
    for (size_t length = 3900; length < 4200; length++) {
        fixture *f = open_fixture();
        strcpy(text, "[engine]\nname = ");
        memset(text + strlen(text), 'x', length), text[16 + length] = 0;
        if (read_text(f, text) == OK) assert_int_equal(strlen(f->values.name), length);
        else assert_string_equal(f->err.text, "p.conf: line 2 is longer than 4000 bytes");
        close_fixture(f);
    }
}

static void a_dump_names_each_origin_and_can_be_read_back(void **state) {
    (void)state;
    fixture *f = open_fixture(), *again = open_fixture();
    buf      dump, dump_again;
    buf_init(&dump, 1 << 16), buf_init(&dump_again, 1 << 16);
    assert_int_equal(read_text(f, "[server]\nwait = 9s\n[engine]\nname = \" a;b # \\\"\"\n"), OK);
    assert_int_equal(read_line(f, "--port 80"), OK);
    options_dump(f->o, &dump);
    assert_non_null(strstr(dump.data, "port = 80                               # command line\n"));
    assert_non_null(strstr(dump.data, "wait = 9s                               # p.conf:2\n"));
    assert_non_null(strstr(dump.data, "device = auto                           # default\n"));
    assert_non_null(strstr(dump.data, "# memory =                              # default\n"));
    assert_null(strstr(dump.data, "quick"));
    assert_int_equal(read_text(again, dump.data), OK);
    assert_int_equal(again->values.port, 80);
    assert_int_equal(again->values.wait_us, 9000000);
    assert_string_equal(again->values.name, " a;b # \"");
    buf_free(&dump), buf_free(&dump_again);
    close_fixture(f), close_fixture(again);
}

static void help_and_docs_tell_every_setting(void **state) {
    (void)state;
    fixture *f = open_fixture();
    buf      help, page;
    buf_init(&help, 1 << 16), buf_init(&page, 1 << 16);
    const char *only[] = {"server"};
    options_help(f->o, &help, NULL, 0);
    assert_non_null(strstr(help.data, "[engine]\n  --no-cache                  do not reuse\n"));
    assert_non_null(strstr(help.data, "  --port N                    TCP port (default 8080)\n"));
    options_markdown(f->o, &page);
    assert_non_null(strstr(page.data, "| `device` | auto\\|cpu\\|cuda | `auto` | what computes |\n"));
    assert_non_null(strstr(page.data, "| `wait` | 0.001 to 3600 s | `30s` | patience (reloaded by SIGHUP) |\n"));
    buf_clear(&help);
    options_help(f->o, &help, only, 1);
    assert_null(strstr(help.data, "[engine]"));
    buf_free(&help), buf_free(&page);
    close_fixture(f);
}

typedef struct {
    buf text;
} change_log;
typedef struct {
    uint32_t    port;
    uint64_t    wait_us;
    const char *word, *place;
} reload_sample;

static void note_change(void *context, const option_row *row, const char *from, const char *to, bool applied) {
    change_log *c = context;
    buf_printf(&c->text, "%s %s>%s%s;", row->name, from ? from : "-", to ? to : "-", applied ? "" : " later");
}

static void a_reload_takes_over_what_it_may_and_tells_the_rest(void **state) {
    reload_sample    live = {0}, other = {0};
    const option_row rows_of_it[] = {
        {"a", "port", OPTION_U32, offsetof(reload_sample, port), 0, 0, "80", NULL, NULL, "", false},
        {"a", "wait", OPTION_DURATION, offsetof(reload_sample, wait_us), 0, 0, "30s", NULL, NULL, "", true},
        {"a", "word", OPTION_STRING, offsetof(reload_sample, word), 0, 0, NULL, NULL, NULL, "", true},
        {"a", "place", OPTION_STRING, offsetof(reload_sample, place), 0, 0, "here", NULL, NULL, "", true},
    };
    (void)state;
    options   *o = options_new(rows_of_it, 4, &live), *fresh = options_new(rows_of_it, 4, &other);
    change_log log;
    buf        dump;
    error      err;
    buf_init(&log.text, 1024), buf_init(&dump, 4096);
    const char first[] = "[a]\nword = old\n", second[] = "[a]\nport = 81\nwait = 30000ms\nplace = there\n";
    assert_int_equal(options_read_text(o, "f", first, sizeof first - 1, &err), OK);
    assert_int_equal(options_read_text(fresh, "f", second, sizeof second - 1, &err), OK);
    assert_int_equal(options_reload(o, fresh, note_change, &log), 3);
    assert_string_equal(log.text.data, "port 80>81 later;word old>-;place here>there;");
    options_free(fresh);
    assert_int_equal(live.port, 80);
    assert_null(live.word);
    assert_string_equal(live.place, "there");
    options_dump(o, &dump);
    assert_non_null(strstr(dump.data, "f:3")); /* the same time, written elsewhere */
    buf_free(&log.text), buf_free(&dump);
    options_free(o);
}

static void tables_of_two_structs_are_read_as_one(void **state) {
    (void)state;
    uint32_t   tokens = 0;
    option_row more = {NULL, "tokens", OPTION_U32, 0, 0, 0, "3", NULL, "N", "how many", false};
    fixture   *f = open_fixture();
    options_add(f->o, &more, 1, &tokens);
    assert_int_equal(tokens, 3);
    assert_int_equal(read_line(f, "--tokens 5 --port 9"), OK);
    assert_int_equal(tokens, 5);
    assert_int_equal(f->values.port, 9);
    close_fixture(f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_setting_nobody_touched_has_its_default),
        cmocka_unit_test(flags_are_read_in_every_way_they_may_be_written),
        cmocka_unit_test(words_that_are_no_flags_are_handed_back),
        cmocka_unit_test(sizes_and_times_take_units),
        cmocka_unit_test(a_bad_flag_is_refused_by_one_sentence_that_names_it),
        cmocka_unit_test(a_file_sets_what_it_names_and_nothing_else),
        cmocka_unit_test(the_command_line_wins_over_the_file_whichever_comes_first),
        cmocka_unit_test(a_bad_file_is_refused_as_a_whole),
        cmocka_unit_test(a_file_that_is_not_there_is_named),
        cmocka_unit_test(a_line_of_any_length_is_read_whole_or_refused),
        cmocka_unit_test(a_dump_names_each_origin_and_can_be_read_back),
        cmocka_unit_test(help_and_docs_tell_every_setting),
        cmocka_unit_test(a_reload_takes_over_what_it_may_and_tells_the_rest),
        cmocka_unit_test(tables_of_two_structs_are_read_as_one),
    };
    return cmocka_run_group_tests_name("options", tests, NULL, NULL);
}
