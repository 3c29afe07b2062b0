/* The prefix index: a page is found by its tokens and everything before them, and by nothing else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "kvcache/prefix_index.h"

enum { PAGES = 300, PAGE_TOKENS = 4 };

typedef struct {
    prefix_index index;
    void        *memory;
    uint32_t     scratch[PAGES];
} fixture;

static void open_index(fixture *f, uint64_t seed) {
    carver sizes = {0};
    prefix_index_init(&f->index, PAGES, PAGE_TOKENS, seed, &sizes);
    f->memory = calloc(1, sizes.used);
    assert_non_null(f->memory);
    prefix_index_init(&f->index, PAGES, PAGE_TOKENS, seed, &(carver){.memory = f->memory});
}

static const uint32_t abcd[PAGE_TOKENS] = {1, 2, 3, 4}, efgh[PAGE_TOKENS] = {5, 6, 7, 8};

static uint32_t find(fixture *f, uint32_t parent, uint64_t salt, const uint32_t *tokens) {
    prefix_key k = prefix_key_of(&f->index, parent, salt, tokens);
    return prefix_find(&f->index, &k);
}
static void add(fixture *f, uint32_t parent, uint64_t salt, const uint32_t *tokens, uint32_t page) {
    prefix_key k = prefix_key_of(&f->index, parent, salt, tokens);
    prefix_add(&f->index, &k, page);
    prefix_index_check(&f->index, f->scratch);
}

static void a_page_is_found_by_its_tokens_and_its_prefix(void **state) {
    (void)state;
    fixture f;
    open_index(&f, 1);
    assert_int_equal(find(&f, NO_PAGE, 0, abcd), NO_PAGE);
    add(&f, NO_PAGE, 0, abcd, 7);
    add(&f, 7, 0, efgh, 3);
    assert_int_equal(find(&f, NO_PAGE, 0, abcd), 7);
    assert_int_equal(find(&f, 7, 0, efgh), 3);
    assert_int_equal(find(&f, NO_PAGE, 0, efgh), NO_PAGE); /* the same tokens after nothing */
    assert_int_equal(find(&f, 3, 0, efgh), NO_PAGE);       /* the same tokens after more */
    free(f.memory);
}

static void every_token_of_a_page_counts(void **state) {
    (void)state;
    fixture f;
    open_index(&f, 1);
    add(&f, NO_PAGE, 0, abcd, 0);
    for (uint32_t i = 0; i < PAGE_TOKENS; i++) {
        uint32_t other[PAGE_TOKENS];
        memcpy(other, abcd, sizeof other);
        other[i] ^= 1u << 31;
        assert_int_equal(find(&f, NO_PAGE, 0, other), NO_PAGE);
    }
    free(f.memory);
}

static void different_salts_never_share(void **state) {
    (void)state;
    fixture f;
    open_index(&f, 1);
    add(&f, NO_PAGE, 11, abcd, 0);
    assert_int_equal(find(&f, NO_PAGE, 12, abcd), NO_PAGE);
    add(&f, NO_PAGE, 12, abcd, 1);
    assert_int_equal(find(&f, NO_PAGE, 11, abcd), 0);
    assert_int_equal(find(&f, NO_PAGE, 12, abcd), 1);
    free(f.memory);
}

static void equal_hashes_of_different_content_are_told_apart(void **state) {
    (void)state;
    fixture f;
    open_index(&f, 1);
    prefix_key k = prefix_key_of(&f.index, NO_PAGE, 0, abcd), forged = k;
    forged.tokens = efgh; /* what a collision of 128 bits would look like */
    prefix_add(&f.index, &k, 0);
    assert_int_equal(prefix_find(&f.index, &forged), NO_PAGE);
    prefix_add(&f.index, &forged, 1);
    assert_int_equal(prefix_find(&f.index, &k), 0);
    assert_int_equal(prefix_find(&f.index, &forged), 1);
    prefix_remove(&f.index, 0);
    assert_int_equal(prefix_find(&f.index, &k), NO_PAGE);
    assert_int_equal(prefix_find(&f.index, &forged), 1);
    free(f.memory);
}

static void the_seed_changes_every_hash(void **state) {
    (void)state;
    fixture a, b;
    open_index(&a, 1);
    open_index(&b, 2);
    prefix_key x = prefix_key_of(&a.index, NO_PAGE, 0, abcd), y = prefix_key_of(&b.index, NO_PAGE, 0, abcd);
    assert_false(hash128_equal(x.hash, y.hash));
    free(a.memory);
    free(b.memory);
}

/* Against a plain array: random chains grow and lose their tails. */
static void a_full_index_survives_random_additions_and_removals(void **state) {
    (void)state;
    fixture f;
    open_index(&f, 3);
    rng      r = {.seed = 5};
    uint32_t parent[PAGES] = {0}, tokens[PAGES][PAGE_TOKENS] = {0}, children[PAGES] = {0};
    bool     there[PAGES] = {false};
    for (uint32_t step = 0; step < 6000; step++) {
        uint32_t page = (uint32_t)rng_below(&r, PAGES);
        if (there[page] && children[page] == 0) {
            prefix_remove(&f.index, page);
            there[page] = false;
            if (parent[page] != NO_PAGE) children[parent[page]]--;
        } else if (!there[page]) {
            uint32_t before = (uint32_t)rng_below(&r, PAGES);
            parent[page] = before != page && there[before] ? before : NO_PAGE;
            for (uint32_t i = 0; i < PAGE_TOKENS; i++) tokens[page][i] = (uint32_t)rng_below(&r, 1000);
            if (find(&f, parent[page], 0, tokens[page]) != NO_PAGE) continue;
            prefix_key k = prefix_key_of(&f.index, parent[page], 0, tokens[page]);
            prefix_add(&f.index, &k, page);
            there[page] = true;
            if (parent[page] != NO_PAGE) children[parent[page]]++;
        }
        if (step % 50) continue;
        prefix_index_check(&f.index, f.scratch);
        for (uint32_t i = 0; i < PAGES; i++)
            if (there[i]) assert_int_equal(find(&f, parent[i], 0, tokens[i]), i);
    }
    free(f.memory);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_page_is_found_by_its_tokens_and_its_prefix),
        cmocka_unit_test(every_token_of_a_page_counts),
        cmocka_unit_test(different_salts_never_share),
        cmocka_unit_test(equal_hashes_of_different_content_are_told_apart),
        cmocka_unit_test(the_seed_changes_every_hash),
        cmocka_unit_test(a_full_index_survives_random_additions_and_removals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
