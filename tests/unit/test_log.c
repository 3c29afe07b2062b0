/* The log of a daemon: it never waits for who reads it, loses nothing while there is room, and says what it lost. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include "base/log.h"

enum { THREADS = 2, LINES = 3000, LINE_BYTES = 1000, PATIENCE_MS = 60000 };

static struct {
    int    stderr_before, reading;
    char   text[16 << 20];
    size_t size;
} pipe_;

static void take_stderr(void) {
    int ends[2];
    fflush(stderr);
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    pipe_.stderr_before = dup(STDERR_FILENO);
    assert_int_equal(dup2(ends[1], STDERR_FILENO), STDERR_FILENO);
    close(ends[1]);
    pipe_.reading = ends[0], pipe_.size = 0;
}

static void *read_to_end(void *unused) {
    for (ssize_t n; (n = read(pipe_.reading, pipe_.text + pipe_.size, sizeof pipe_.text - 1 - pipe_.size)) > 0;)
        pipe_.size += (size_t)n;
    pipe_.text[pipe_.size] = 0;
    return unused;
}

/* Reads what was logged until all of it is written, and puts the old standard error back. */
static void give_stderr_back(void) {
    pthread_t reader;
    pthread_create(&reader, NULL, read_to_end, NULL);
    log_flush(PATIENCE_MS);
    dup2(pipe_.stderr_before, STDERR_FILENO); /* the pipe's last writer */
    pthread_join(reader, NULL);
    close(pipe_.stderr_before), close(pipe_.reading);
}

static void *write_lines(void *name) {
    char filler[LINE_BYTES];
    memset(filler, 'x', sizeof filler), filler[sizeof filler - 1] = 0;
    for (int i = 0; i < LINES; i++) log_info("test", "%s %d %s", (const char *)name, i, filler);
    return NULL;
}

static unsigned count(const char *what) {
    unsigned n = 0;
    for (const char *at = pipe_.text; (at = strstr(at, what)); at += strlen(what)) n++;
    return n;
}

static void lines_are_written_whole_and_in_order(void **state) {
    (void)state;
    take_stderr();
    for (int i = 0; i < 100; i++) log_info("test", "line %d", i);
    log_debug("test", "nobody asked");
    give_stderr_back();
    char *rest, *line = strtok_r(pipe_.text, "\n", &rest), want[32];
    for (int i = 0; i < 100; i++, line = strtok_r(NULL, "\n", &rest)) {
        snprintf(want, sizeof want, "test: line %d", i);
        assert_non_null(line);
        assert_string_equal(strstr(line, "test: "), want);
    }
    assert_null(line);
    assert_int_equal(log_dropped(), 0);
}

static void who_logs_waits_for_no_reader_and_what_is_lost_is_told(void **state) {
    pthread_t          threads[THREADS];
    static char        names[THREADS][8] = {"one", "two"};
    unsigned long long told = 0, all = 0;
    (void)state;
    take_stderr();
    for (int i = 0; i < THREADS; i++) pthread_create(&threads[i], NULL, write_lines, names[i]);
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL); /* though nothing is read */
    assert_true(log_dropped() > 0 && log_dropped() < THREADS * LINES);
    give_stderr_back();
    take_stderr();
    log_info("test", "there is room again");
    give_stderr_back();
    assert_non_null(strstr(pipe_.text, "there is room again"));
    told = log_dropped();
    take_stderr();
    write_lines("one");
    give_stderr_back();
    all = count("xxx\n");
    assert_true(all + log_dropped() - told == LINES);
}

static void the_place_of_what_was_lost_is_a_line(void **state) {
    unsigned long long told = 0, before = log_dropped();
    (void)state;
    take_stderr();
    write_lines("one"), write_lines("two");
    give_stderr_back();
    for (const char *at = pipe_.text; (at = strstr(at, " lines were dropped")); at++) {
        const char *digits = at;
        while (digits[-1] >= '0' && digits[-1] <= '9') digits--;
        told += strtoull(digits, NULL, 10);
    }
    assert_true(told == log_dropped() - before && told > 0);
    assert_int_equal(count("xxx\n") + told, 2 * LINES);
}

static int start(void **state) {
    (void)state;
    log_configure(LOG_INFO, false);
    log_start();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_are_written_whole_and_in_order),
        cmocka_unit_test(who_logs_waits_for_no_reader_and_what_is_lost_is_told),
        cmocka_unit_test(the_place_of_what_was_lost_is_a_line),
    };
    return cmocka_run_group_tests_name("log", tests, start, NULL);
}
