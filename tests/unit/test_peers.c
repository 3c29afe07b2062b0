/* server/peers.h: how many connections each address has. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/rng.h"
#include "server/peers.h"

static void each_address_is_counted_on_its_own(void **state) {
    (void)state;
    peers *p = peers_new();
    peers_add(p, 7), peers_add(p, 7), peers_add(p, 8);
    assert_int_equal(peers_count(p, 7), 2);
    assert_int_equal(peers_count(p, 8), 1);
    assert_int_equal(peers_count(p, 9), 0);
    peers_remove(p, 7), peers_remove(p, 7);
    assert_int_equal(peers_count(p, 7), 0);
    assert_int_equal(peers_count(p, 8), 1);
    assert_int_equal(peers_known(p), 1);
    peers_free(p);
}

/* Against an array, with few keys (long runs of collisions and removals) and with many. */
static void any_order_of_coming_and_going_keeps_every_count(void **state) {
    (void)state;
    enum { KEYS = 700 };
    for (uint32_t keys = 5; keys <= KEYS; keys += 139) {
        peers   *p = peers_new();
        uint32_t count[KEYS + 1] = {0}, known = 0;
        rng      r = {.seed = keys};
        for (int i = 0; i < 20000; i++) {
            uint64_t key = 1 + rng_below(&r, keys);
            if (count[key] && rng_below(&r, 2)) known -= --count[key] == 0, peers_remove(p, key);
            else known += count[key]++ == 0, peers_add(p, key);
            assert_int_equal(peers_count(p, key), count[key]);
        }
        for (uint32_t key = 1; key <= keys; key++) assert_int_equal(peers_count(p, key), count[key]);
        assert_int_equal(peers_known(p), known);
        peers_free(p);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_address_is_counted_on_its_own),
        cmocka_unit_test(any_order_of_coming_and_going_keeps_every_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
