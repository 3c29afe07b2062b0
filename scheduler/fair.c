#include "scheduler/fair.h"

#include "base/error.h"

#define UNITS_PER_US 1024.0
#define WEIGHT_MIN 1e-3
#define WEIGHT_MAX 1e3

void fair_init(tenant_table *t, bool turns, uint32_t count, uint64_t seed, carver *c) {
    *t = (tenant_table){.turns = turns, .count = count};
    t->all = carve(c, count, sizeof *t->all);
    t->touched = carve(c, count, sizeof *t->touched);
    jobs_init(&t->names, count - 1, seed, c);
    heap_init(&t->live, count, c);
    heap_init(&t->ready, count, c);
    if (c->memory) t->all[NOBODY].weight = 1;
}

static uint32_t name_of(uint32_t index) { return index - 1; }

uint32_t fair_find(const tenant_table *t, uint64_t id) {
    const uint32_t name = id == 0 ? NO_JOB : jobs_find(&t->names, id);
    return name == NO_JOB ? NOBODY : name + 1;
}

/* ---- the two heaps ---- */

static void add_to(item_heap *h, const tenant_table *t, uint32_t index) {
    heap_add(h, (heap_entry){0, index, t->all[index].virtual_time, index});
}

static void move_in(item_heap *h, const tenant_table *t, uint32_t index) {
    if (!heap_holds(h, index)) return;
    heap_remove(h, index);
    add_to(h, t, index);
}

static void move_clock(tenant_table *t) {
    const heap_entry *least = heap_first(&t->live);
    if (least && least->key > t->virtual_time) t->virtual_time = least->key;
}

/* ---- coming and going ---- */

static uint32_t place_for(tenant_table *t, uint64_t id, uint64_t arrival, uint64_t now_us) {
    const uint32_t name = id == 0 ? NO_JOB : jobs_enter(&t->names, id, arrival, now_us);
    if (name == NO_JOB) return NOBODY;
    if (t->names.all[name].arrival == arrival) t->all[name + 1] = (tenant){0}; /* newly here */
    return name + 1;
}

uint32_t fair_enter(tenant_table *t, uint64_t id, double weight, uint64_t arrival, uint64_t now_us) {
    const uint32_t index = place_for(t, id, arrival, now_us);
    tenant        *x = &t->all[index];
    x->weight = index == NOBODY || !(weight > 0) ? 1
                : weight < WEIGHT_MIN            ? WEIGHT_MIN
                : weight > WEIGHT_MAX            ? WEIGHT_MAX
                                                 : weight;
    if (x->live++ > 0) return index;
    x->live_since_us = now_us;
    if (x->virtual_time < t->virtual_time) x->virtual_time = t->virtual_time;
    add_to(&t->live, t, index);
    move_clock(t);
    return index;
}

void fair_leave(tenant_table *t, uint32_t index, uint64_t now_us) {
    tenant *x = &t->all[index];
    check(index < t->count && x->live > 0);
    if (index != NOBODY) jobs_leave(&t->names, name_of(index), now_us, true);
    if (--x->live > 0) return;
    x->live_us += (double)(now_us - x->live_since_us);
    heap_remove(&t->live, index);
    move_clock(t);
}

void fair_wait(tenant_table *t, uint32_t index, bool waits) {
    if (waits) add_to(&t->ready, t, index);
    else heap_remove(&t->ready, index);
}

/* ---- what they had ---- */

void fair_charge(tenant_table *t, uint32_t index, double us) {
    tenant *x = &t->all[index];
    x->owed_us += us;
    if (x->touched) return;
    x->touched = true;
    t->touched[t->touched_count++] = index;
}

void fair_rent(tenant_table *t, uint32_t index, uint32_t pages, uint32_t page_count, uint64_t us) {
    fair_charge(t, index, (double)us * pages / page_count);
}

void fair_settle(tenant_table *t) {
    for (uint32_t i = 0; i < t->touched_count; i++) {
        tenant *x = &t->all[t->touched[i]];
        x->service_us += x->owed_us;
        x->virtual_time += (uint64_t)(x->owed_us * UNITS_PER_US / x->weight);
        x->owed_us = 0, x->touched = false;
        move_in(&t->live, t, t->touched[i]);
        move_in(&t->ready, t, t->touched[i]);
    }
    t->touched_count = 0;
    move_clock(t);
}

double fair_jain(const tenant_table *t, uint64_t now_us) {
    double sum = 0, squares = 0, count = 0;
    for (uint32_t i = 0; i <= t->names.used; i++) {
        const tenant *x = &t->all[i];
        const double  live_us = x->live_us + (x->live ? (double)(now_us - x->live_since_us) : 0);
        if (live_us <= 0 || x->weight <= 0) continue;
        const double share = x->service_us / live_us / x->weight;
        sum += share, squares += share * share, count++;
    }
    return squares > 0 ? sum * sum / (count * squares) : 1;
}

void fair_check(const tenant_table *t) {
    jobs_check(&t->names);
    heap_check(&t->live);
    heap_check(&t->ready);
    for (uint32_t i = 0; i < t->count; i++) {
        const tenant *x = &t->all[i];
        check(heap_holds(&t->live, i) == (x->live > 0) && (x->live > 0 || !heap_holds(&t->ready, i)));
        check(x->live == 0 || x->virtual_time >= t->virtual_time);
        check(i == NOBODY || name_of(i) >= t->names.used || t->names.all[name_of(i)].live == x->live);
    }
}
