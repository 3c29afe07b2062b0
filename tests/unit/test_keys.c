/* Who may ask, and for how much: what a key file admits, and what a tenant's account allows. Time is an argument. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "server/keys.h"

#define SOMEBODY "sha256:221df437bc4f8c4d9718bd7a9ec4c1021c72fd69dfb2a5f568ecf4607c824bee"

static keys *read_text(const char *text) {
    keys *k;
    error err;
    if (keys_read_text(&k, "keys", text, strlen(text), &err) != OK) fail_msg("%s", err.text);
    return k;
}

static void refuse(const char *text, const char *sentence) {
    keys *k;
    error err;
    assert_int_not_equal(keys_read_text(&k, "keys", text, strlen(text), &err), OK);
    assert_null(k);
    if (!strstr(err.text, sentence)) fail_msg("'%s' does not say '%s'", err.text, sentence);
}

/* A file line for a key known in plain. */
static const char *line_for(const char *name, const char *key) {
    static char out[8][512];
    static int  at;
    buf         line;
    error       err;
    char       *text = out[at++ % 8];
    buf_init(&line, 512);
    if (key_line(name, key, strlen(key), &line, &err) != OK) fail_msg("%s", err.text);
    line.data[line.size - 1] = 0;
    snprintf(text, sizeof out[0], "%s", line.data);
    buf_free(&line);
    return text;
}

static tenant *find(const keys *k, const char *header) { return keys_find(k, header, header ? strlen(header) : 0); }

static void a_key_finds_its_tenant_and_no_other_does(void **state) {
    char text[2048];
    (void)state;
    snprintf(text, sizeof text, "# who\n\n%s weight=2.5 concurrency=3 # limits\n%s\n",
             line_for("alice", "sk-alice-0123456789"), line_for("bob", "sk-bob-9876543210xx"));
    keys *k = read_text(text);
    assert_string_equal(find(k, "Bearer sk-alice-0123456789")->name, "alice");
    assert_string_equal(find(k, "bearer   sk-bob-9876543210xx")->name, "bob");
    assert_true(find(k, "Bearer sk-alice-0123456789")->weight == 2.5);
    assert_int_equal(find(k, "Bearer sk-alice-0123456789")->concurrency, 3);
    assert_true(find(k, "Bearer sk-bob-9876543210xx")->weight == 1);
    assert_null(find(k, NULL));
    assert_null(find(k, ""));
    assert_null(find(k, "Bearer "));
    assert_null(find(k, "Bearer sk-alice-012345678"));
    assert_null(find(k, "Bearer sk-alice-01234567890"));
    assert_null(find(k, "Basic sk-alice-0123456789"));
    assert_null(find(k, "sk-alice-0123456789"));
    keys_free(k);
}

static void a_digest_is_what_sha256sum_prints(void **state) {
    (void)state; /* printf %s sk-0123456789abcdef | sha256sum */
    assert_string_equal(line_for("a", "sk-0123456789abcdef"),
                        "a sha256:221df437bc4f8c4d9718bd7a9ec4c1021c72fd69dfb2a5f568ecf4607c824bee");
}

static void a_made_key_is_admitted_and_no_two_are_alike(void **state) {
    char first[KEY_TEXT_BYTES], second[KEY_TEXT_BYTES], header[128];
    (void)state;
    key_make(first), key_make(second);
    assert_string_not_equal(first, second);
    assert_int_equal(strlen(first), 46);
    keys *k = read_text(line_for("x", first));
    snprintf(header, sizeof header, "Bearer %s", first);
    assert_non_null(find(k, header));
    snprintf(header, sizeof header, "Bearer %s", second);
    assert_null(find(k, header));
    keys_free(k);
}

static void two_keys_on_a_line_are_one_tenant(void **state) {
    char text[1024];
    (void)state;
    snprintf(text, sizeof text, "%s %s\n", line_for("a", "sk-0123456789-old"),
             strchr(line_for("a", "sk-0123456789-new"), ' '));
    keys *k = read_text(text);
    assert_non_null(find(k, "Bearer sk-0123456789-old"));
    assert_ptr_equal(find(k, "Bearer sk-0123456789-old"), find(k, "Bearer sk-0123456789-new"));
    keys_free(k);
}

static void anyone_is_who_has_no_key_or_an_unknown_one(void **state) {
    (void)state;
    keys *k = read_text("guest anyone concurrency=1\n");
    assert_true(keys_admit_anyone(k));
    assert_string_equal(find(k, NULL)->name, "guest");
    assert_string_equal(find(k, "Bearer none")->name, "guest");
    keys_free(k);
    k = read_text("# nobody\n");
    assert_false(keys_admit_anyone(k));
    assert_null(find(k, NULL));
    keys_free(k);
}

static void a_bad_line_is_refused_by_a_sentence_that_names_it(void **state) {
    char text[1024];
    (void)state;
    refuse("\nal!ce anyone", "keys:2: a name must be");
    refuse("alice", "keys:1: alice has no key; `penstock key alice`");
    refuse("alice anyone\nalice anyone", "keys:2: alice has a line already");
    refuse("alice anyone\nbob anyone", "keys:2: 'anyone' is already alice");
    refuse("alice sha256:12", "64 hexadecimal digits");
    refuse("alice sha256:zz", "64 hexadecimal digits");
    refuse("alice anyone weight=0", "weight must be between 0.01 and 100, not 0");
    refuse("alice anyone weight=nan", "weight must be a number");
    refuse("alice anyone concurrency=-1", "concurrency must be a whole number");
    refuse("alice anyone wieght=1", "a key has no setting 'wieght'");
    refuse("alice anyone priority=-7 priority-min=3", "priority -7 is below priority-min 3");
    refuse("alice anyone \xff", "UTF-8");
    snprintf(text, sizeof text, "%s\n%s\n", line_for("a", "sk-0123456789-old"), line_for("b", "sk-0123456789-old"));
    refuse(text, "keys:2: this key is already a's");
}

static void a_key_in_plain_is_refused_and_not_repeated(void **state) {
    keys *k;
    error err;
    (void)state;
    assert_int_equal(keys_read_text(&k, "keys", "alice sk-verysecret", 19, &err), ERR_INVALID);
    assert_null(strstr(err.text, "verysecret"));
    assert_non_null(strstr(err.text, "--stdin"));
}

static void a_weak_or_unsendable_key_is_not_made_a_line(void **state) {
    buf   line;
    error err;
    (void)state;
    buf_init(&line, 256);
    assert_int_equal(key_line("a", "short", 5, &line, &err), ERR_INVALID);
    assert_int_equal(key_line("a", "0123456789 abcdef", 17, &line, &err), ERR_INVALID);
    assert_int_equal(key_line("a b", "0123456789abcdef", 16, &line, &err), ERR_USAGE);
    assert_int_equal(line.size, 0);
}

static void requests_at_once_are_bounded(void **state) {
    fault f;
    (void)state;
    keys   *k = read_text("guest anyone concurrency=2\n");
    tenant *t = find(k, NULL);
    assert_int_equal(tenant_enter(t, 1, &f), 0);
    assert_int_equal(tenant_enter(t, 1, &f), 0);
    assert_int_equal(tenant_enter(t, 1, &f), -1);
    assert_int_equal(f.kind, FAULT_LIMIT);
    assert_int_equal(f.retry_after_s, 1);
    tenant_leave(t);
    assert_int_equal(tenant_enter(t, 1, &f), 0);
    tenant_leave(t), tenant_leave(t);
    keys_free(k);
}

static void tokens_come_back_with_time(void **state) {
    fault          f;
    const uint64_t start_us = 5000000, second_us = 1000000;
    (void)state;
    keys   *k = read_text("guest anyone tokens-per-minute=600\n"); /* ten a second */
    tenant *t = find(k, NULL);
    assert_int_equal(tenant_enter(t, start_us, &f), 0);
    tenant_charge(t, 650); /* more than there is: the last request may overdraw */
    tenant_leave(t);
    assert_int_equal(tenant_enter(t, start_us, &f), -1);
    assert_int_equal(f.kind, FAULT_LIMIT);
    assert_in_range(f.retry_after_s, 5, 7);
    assert_int_equal(tenant_enter(t, start_us + 4 * second_us, &f), -1);
    assert_int_equal(tenant_enter(t, start_us + 6 * second_us, &f), 0);
    tenant_leave(t);
    tenant_charge(t, 1000000);
    assert_int_equal(tenant_enter(t, start_us + 6 * second_us, &f), -1);
    assert_int_equal(f.retry_after_s, 119); /* clients give up at two minutes */
    keys_free(k);
}

static void what_a_request_may_use_is_taken_before_and_the_rest_given_back(void **state) {
    fault          f;
    const uint64_t now_us = 1000000;
    tenant_figures figures[2];
    (void)state;
    keys   *k = read_text("guest anyone tokens-per-minute=600\n");
    tenant *t = find(k, NULL);
    assert_int_equal(tenant_reserve(t, 400, now_us, &f), 0);
    assert_int_equal(tenant_reserve(t, 300, now_us, &f), -1); /* though it may turn out to need less */
    assert_int_equal(f.kind, FAULT_LIMIT);
    assert_in_range(f.retry_after_s, 10, 11);
    assert_int_equal(tenant_reserve(t, 200, now_us, &f), 0);
    assert_int_equal(tenant_enter(t, now_us, &f), -1); /* nothing is left */
    tenant_use(t, 150), tenant_give_back(t, 250);
    assert_int_equal(tenant_reserve(t, 251, now_us, &f), -1);
    assert_int_equal(tenant_reserve(t, 250, now_us, &f), 0);
    keys_figures(k, figures, 2);
    assert_int_equal(figures[0].tokens, 150); /* what was used, and no reserve */
    keys_free(k);
}

static void more_than_a_minute_s_worth_waits_for_a_full_account_and_not_for_ever(void **state) {
    fault          f;
    const uint64_t now_us = 1000000;
    (void)state;
    keys   *k = read_text("guest anyone tokens-per-minute=600\n");
    tenant *t = find(k, NULL);
    tenant_enter(t, now_us, &f);
    tenant_charge(t, 100);
    assert_int_equal(tenant_reserve(t, 6000, now_us, &f), -1);
    assert_int_equal(tenant_reserve(t, 6000, now_us + 10 * 1000000, &f), 0);
    tenant_give_back(t, 6000);
    tenant_leave(t);
    keys_free(k);
    k = read_text("rich anyone\n"); /* no bound */
    assert_int_equal(tenant_reserve(find(k, NULL), UINT32_MAX, now_us, &f), 0);
    keys_free(k);
}

static void an_idle_hour_earns_no_more_than_a_minute(void **state) {
    fault f;
    (void)state;
    keys   *k = read_text("guest anyone tokens-per-minute=60\n");
    tenant *t = find(k, NULL);
    assert_int_equal(tenant_enter(t, 1000000, &f), 0);
    assert_int_equal(tenant_enter(t, 3601 * 1000000ull, &f), 0);
    tenant_charge(t, 60);
    assert_int_equal(tenant_enter(t, 3601 * 1000000ull, &f), -1);
    tenant_leave(t), tenant_leave(t);
    keys_free(k);
}

static void clients_are_told_what_is_left(void **state) {
    buf out;
    (void)state;
    buf_init(&out, 1024);
    keys   *k = read_text("slow anyone tokens-per-minute=600\n");
    tenant *t = find(k, NULL);
    tenant_headers(t, 1000000, &out);
    assert_non_null(strstr(out.data, "x-ratelimit-remaining-tokens: 600\r\n"));
    tenant_charge(t, 100);
    buf_clear(&out);
    tenant_headers(t, 1000000, &out);
    assert_string_equal(out.data, "x-ratelimit-limit-tokens: 600\r\nx-ratelimit-remaining-tokens: 500\r\n"
                                  "x-ratelimit-reset-tokens: 10.000s\r\n");
    keys_free(k);
    k = read_text("fast anyone\n");
    buf_clear(&out);
    tenant_headers(find(k, NULL), 1000000, &out);
    assert_int_equal(out.size, 0);
    keys_free(k);
    buf_free(&out);
}

static void a_reload_forgives_no_debt_and_counts_on(void **state) {
    fault f;
    (void)state;
    keys   *old = read_text("guest anyone tokens-per-minute=60 concurrency=5\n");
    tenant *before = find(old, NULL);
    assert_int_equal(tenant_enter(before, 1000000, &f), 0);
    tenant_charge(before, 500);
    keys *fresh = read_text("guest anyone tokens-per-minute=60 concurrency=5\nother " SOMEBODY "\n");
    keys_inherit(fresh, old);
    keys_free(old);
    tenant *after = find(fresh, NULL);
    assert_int_equal(tenant_enter(after, 1000000, &f), -1);
    assert_int_equal(f.kind, FAULT_LIMIT);
    keys *wide = read_text("guest anyone concurrency=2\n"), *none = read_text("# all gone\n");
    keys_inherit(wide, fresh);
    keys_free(fresh);
    tenant *last = find(wide, NULL);
    assert_int_equal(tenant_enter(last, 2000000, &f), 0);
    assert_int_equal(tenant_enter(last, 2000000, &f), -1); /* the one from before the reloads is still at work */
    tenant_leave(before);
    assert_int_equal(tenant_enter(last, 2000000, &f), 0);
    keys_inherit(none, wide);
    keys_free(wide);
    tenant_leave(last), tenant_leave(last); /* longer than the file that named them */
    keys_free(none);
}

static void tenants_share_prefixes_only_by_the_same_word(void **state) {
    char text[2048];
    (void)state;
    snprintf(text, sizeof text, "%s\n%s\n%s cache=team\n%s cache=team\n%s cache=b\n", line_for("a", "sk-0123456789-aaaa"),
             line_for("b", "sk-0123456789-bbbb"), line_for("c", "sk-0123456789-cccc"), line_for("d", "sk-0123456789-dddd"),
             line_for("e", "sk-0123456789-eeee"));
    keys   *k = read_text(text);
    tenant *a = find(k, "Bearer sk-0123456789-aaaa"), *b = find(k, "Bearer sk-0123456789-bbbb");
    tenant *c = find(k, "Bearer sk-0123456789-cccc"), *d = find(k, "Bearer sk-0123456789-dddd");
    tenant *e = find(k, "Bearer sk-0123456789-eeee");
    assert_true(tenant_cache_salt(a, NULL) == tenant_cache_salt(a, NULL));
    assert_true(tenant_cache_salt(a, NULL) == tenant_cache_salt(a, ""));
    assert_true(tenant_cache_salt(a, NULL) != tenant_cache_salt(b, NULL));
    assert_true(tenant_cache_salt(a, NULL) != tenant_cache_salt(NULL, NULL));
    assert_true(tenant_cache_salt(a, "x") != tenant_cache_salt(a, NULL));
    assert_true(tenant_cache_salt(a, "x") != tenant_cache_salt(b, "x"));
    assert_true(tenant_cache_salt(c, NULL) == tenant_cache_salt(d, NULL));
    assert_true(tenant_cache_salt(b, NULL) != tenant_cache_salt(e, NULL)); /* a word is not a name */
    keys_free(k);
}

static int start(void **state) {
    (void)state;
    keys_init();
    return 0;
}

static void the_figures_of_many_tenants_stay_few(void **state) {
    static char    text[64 * 128];
    tenant_figures f[4];
    fault          refused;
    (void)state;
    for (int i = 0; i < 6; i++) {
        char name[16], key[32];
        snprintf(name, sizeof name, "t%d", i), snprintf(key, sizeof key, "sk-tenant-%d-0123456789", i);
        strcat(text, line_for(name, key)), strcat(text, " concurrency=1\n");
    }
    keys   *k = read_text(text);
    tenant *first = find(k, "Bearer sk-tenant-0-0123456789"), *last = find(k, "Bearer sk-tenant-5-0123456789"),
           *fifth = find(k, "Bearer sk-tenant-4-0123456789");
    assert_int_equal(tenant_enter(first, 1, &refused), 0);
    assert_int_equal(tenant_enter(first, 1, &refused), -1);
    assert_int_equal(tenant_enter(last, 1, &refused), 0);
    tenant_charge(last, 7), tenant_charge(fifth, 5);
    assert_int_equal(keys_figures(k, f, 4), 4);
    assert_string_equal(f[0].name, "t0");
    assert_int_equal(f[0].requests, 1);
    assert_int_equal(f[0].refused, 1);
    assert_int_equal(f[0].running, 1);
    assert_string_equal(f[2].name, "t2");
    assert_string_equal(f[3].name, "(other)"); /* three of them */
    assert_int_equal(f[3].tokens, 12);
    assert_int_equal(f[3].requests, 1);
    assert_int_equal(keys_figures(NULL, f, 4), 0);
    tenant_leave(first), tenant_leave(last);
    assert_int_equal(keys_figures(k, f, 4), 4);
    assert_int_equal(f[0].running, 0);
    keys_free(k);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_key_finds_its_tenant_and_no_other_does),
        cmocka_unit_test(a_digest_is_what_sha256sum_prints),
        cmocka_unit_test(a_made_key_is_admitted_and_no_two_are_alike),
        cmocka_unit_test(two_keys_on_a_line_are_one_tenant),
        cmocka_unit_test(anyone_is_who_has_no_key_or_an_unknown_one),
        cmocka_unit_test(a_bad_line_is_refused_by_a_sentence_that_names_it),
        cmocka_unit_test(a_key_in_plain_is_refused_and_not_repeated),
        cmocka_unit_test(a_weak_or_unsendable_key_is_not_made_a_line),
        cmocka_unit_test(requests_at_once_are_bounded),
        cmocka_unit_test(tokens_come_back_with_time),
        cmocka_unit_test(what_a_request_may_use_is_taken_before_and_the_rest_given_back),
        cmocka_unit_test(more_than_a_minute_s_worth_waits_for_a_full_account_and_not_for_ever),
        cmocka_unit_test(an_idle_hour_earns_no_more_than_a_minute),
        cmocka_unit_test(clients_are_told_what_is_left),
        cmocka_unit_test(a_reload_forgives_no_debt_and_counts_on),
        cmocka_unit_test(tenants_share_prefixes_only_by_the_same_word),
        cmocka_unit_test(the_figures_of_many_tenants_stay_few),
    };
    return cmocka_run_group_tests_name("keys", tests, start, NULL);
}
