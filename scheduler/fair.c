#include "scheduler/fair.h"

#include "base/error.h"

#define UNITS_PER_US 1024.0
#define WEIGHT_MIN 1e-3
#define WEIGHT_MAX 1e3

void fair_init(tenant_table *t, bool turns, uint32_t count, uint32_t page_count, uint64_t seed, carver *c) {
    *t = (tenant_table){.turns = turns, .count = count, .page_count = page_count};
    t->all = carve(c, count, sizeof *t->all);
    t->touched = carve(c, count, sizeof *t->touched);
    jobs_init(&t->names, count - 1, seed, c);
    heap_init(&t->ready, count, c);
    if (c->memory) t->all[NOBODY].weight = 1;
}

static uint32_t name_of(uint32_t index) { return index - 1; }

uint32_t fair_find(const tenant_table *t, uint64_t id) {
    const uint32_t name = id == 0 ? NO_JOB : jobs_find(&t->names, id);
    return name == NO_JOB ? NOBODY : name + 1;
}

static uint64_t units(const tenant *x, double us) { return (uint64_t)(us * UNITS_PER_US / x->weight); }
static uint64_t turn_of(const tenant *x) { return x->virtual_time + x->lent; }

/* ---- those who wait ---- */

static void add_to_ready(tenant_table *t, uint32_t index) {
    heap_add(&t->ready, (heap_entry){0, index, turn_of(&t->all[index]), index});
}

static void move(tenant_table *t, uint32_t index) {
    if (!heap_holds(&t->ready, index)) return;
    heap_remove(&t->ready, index);
    add_to_ready(t, index);
}

/* ---- coming and going ---- */

static uint32_t place_for(tenant_table *t, uint64_t id, uint64_t arrival, uint64_t now_us) {
    const uint32_t name = id == 0 ? NO_JOB : jobs_enter(&t->names, id, arrival, now_us);
    if (name == NO_JOB) return NOBODY;
    if (t->names.all[name].arrival == arrival)
        t->all[name + 1] = (tenant){.touched = t->all[name + 1].touched}; /* newly here */
    return name + 1;
}

uint32_t fair_enter(tenant_table *t, uint64_t id, double weight, uint64_t arrival, uint64_t now_us) {
    const uint32_t index = place_for(t, id, arrival, now_us);
    tenant        *x = &t->all[index];
    x->weight = index == NOBODY || !(weight > 0) ? 1
                : weight < WEIGHT_MIN            ? WEIGHT_MIN
                : weight > WEIGHT_MAX            ? WEIGHT_MAX
                                                 : weight;
    t->live_count += x->live++ == 0;
    return index;
}

void fair_leave(tenant_table *t, uint32_t index, uint64_t now_us) {
    tenant *x = &t->all[index];
    check(index < t->count && x->live > 0);
    if (index != NOBODY) jobs_leave(&t->names, name_of(index), now_us, true);
    t->live_count -= --x->live == 0;
}

void fair_stand(tenant_table *t, uint32_t index, bool stands, uint64_t now_us) {
    tenant *x = &t->all[index];
    check(stands || x->standing > 0);
    if (stands && x->standing++ == 0) x->stands_since_us = now_us;
    if (!stands && --x->standing == 0) x->stood_us += (double)(now_us - x->stands_since_us);
}

/* ---- what they had ---- */

static tenant *touch(tenant_table *t, uint32_t index) {
    tenant *x = &t->all[index];
    if (!x->touched) t->touched[t->touched_count++] = index;
    x->touched = true;
    return x;
}

static void repay(tenant *x, uint64_t part, uint64_t *lent) {
    check(part <= *lent && *lent <= x->lent);
    x->lent -= part, *lent -= part;
}

uint64_t fair_lend(tenant_table *t, uint32_t index, double us) {
    tenant        *x = &t->all[index];
    const uint64_t lent = units(x, us);
    if (turn_of(x) > t->clock) t->clock = turn_of(x);
    x->lent += lent;
    if (x->lent > t->lent_most) t->lent_most = x->lent;
    move(t, index);
    return lent;
}

void fair_repay(tenant_table *t, uint32_t index, uint64_t *lent) {
    if (*lent == 0) return;
    repay(&t->all[index], *lent, lent);
    move(t, index);
}

void fair_charge(tenant_table *t, uint32_t index, double us, uint64_t *lent) {
    tenant *x = touch(t, index);
    x->owed_us += us;
    if (lent && *lent) repay(x, units(x, us) < *lent ? units(x, us) : *lent, lent);
}

static void settle(tenant *x) {
    if (x->standing) x->served_us += x->owed_us;
    x->virtual_time += units(x, x->owed_us + x->rent_us);
    x->owed_us = x->rent_us = 0;
}

void fair_settle(tenant_table *t) {
    for (uint32_t i = 0; i < t->touched_count; i++) {
        settle(&t->all[t->touched[i]]);
        t->all[t->touched[i]].touched = false;
        move(t, t->touched[i]);
    }
    t->touched_count = 0;
}

/* ---- rent ---- */

static void owe_rent(tenant_table *t, tenant *x, uint64_t now_us) {
    x->rent_us += (double)(now_us - x->rent_since_us) * (double)x->pinned_pages / t->page_count;
    x->rent_since_us = now_us;
}

void fair_pin(tenant_table *t, uint32_t index, uint32_t pages, uint64_t now_us) {
    tenant *x = touch(t, index);
    check(x->live > 0);
    owe_rent(t, x, now_us);
    if (index != NOBODY) t->names.all[name_of(index)].live++; /* nobody else gets its place */
    x->pins++, x->pinned_pages += pages;
}

void fair_unpin(tenant_table *t, uint32_t index, uint32_t pages, uint64_t now_us) {
    tenant *x = touch(t, index);
    check(x->pins > 0 && x->pinned_pages >= pages);
    owe_rent(t, x, now_us);
    if (index != NOBODY) jobs_leave(&t->names, name_of(index), now_us, false);
    x->pins--, x->pinned_pages -= pages;
}

/* Rent only ever moves somebody back, so who is still the first with all of it paid is the first. */
void fair_refresh(tenant_table *t, uint64_t now_us) {
    for (const heap_entry *first; (first = heap_first(&t->ready)) != NULL;) {
        const uint32_t index = first->item;
        tenant        *x = &t->all[index];
        if (x->pins == 0 || x->rent_since_us == now_us) return;
        owe_rent(t, x, now_us);
        settle(x);
        move(t, index);
    }
}

/* ---- waiting ---- */

void fair_wait(tenant_table *t, uint32_t index, bool waits, uint64_t now_us) {
    tenant *x = &t->all[index];
    if (!waits) {
        heap_remove(&t->ready, index);
        return;
    }
    owe_rent(t, x, now_us);
    settle(x);
    if (turn_of(x) < t->clock) x->virtual_time = t->clock - x->lent;
    add_to_ready(t, index);
}

/* ---- how equal ---- */

double fair_jain(const tenant_table *t, uint64_t now_us) {
    double sum = 0, squares = 0, count = 0;
    for (uint32_t i = 0; i <= t->names.used; i++) {
        const tenant *x = &t->all[i];
        const double  stood_us = x->stood_us + (x->standing ? (double)(now_us - x->stands_since_us) : 0);
        if (stood_us <= 0) continue;
        const double share = x->served_us / stood_us / x->weight;
        sum += share, squares += share * share, count++;
    }
    return squares > 0 ? sum * sum / (count * squares) : 1;
}

void fair_check(const tenant_table *t) {
    uint32_t live = 0;
    jobs_check(&t->names);
    heap_check(&t->ready);
    for (uint32_t i = 0; i < t->count; i++) {
        const tenant *x = &t->all[i];
        live += x->live > 0;
        check(x->standing <= x->live && (x->standing > 0 || (!heap_holds(&t->ready, i) && x->lent == 0)));
        check(!heap_holds(&t->ready, i) || turn_of(x) + t->lent_most >= t->clock);
        check(i == NOBODY || name_of(i) >= t->names.used || t->names.all[name_of(i)].live == x->live + x->pins);
    }
    check(live == t->live_count);
}
