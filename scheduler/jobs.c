#include "scheduler/jobs.h"

#include "base/error.h"

void jobs_init(job_table *t, uint32_t count, uint64_t seed, carver *c) {
    *t = (job_table){.count = count, .oldest = NO_JOB, .newest = NO_JOB};
    t->all = carve(c, count, sizeof *t->all);
    t->free = carve(c, count, sizeof *t->free);
    id_map_init(&t->ids, count, seed, c);
}

uint32_t jobs_find(const job_table *t, uint64_t id) { return id_map_find(&t->ids, id); }

/* ---- the idle ones, the oldest first ---- */

static void add_idle(job_table *t, uint32_t index) {
    t->all[index].older = t->newest, t->all[index].newer = NO_JOB;
    *(t->newest == NO_JOB ? &t->oldest : &t->all[t->newest].newer) = index;
    t->newest = index;
}

static void remove_idle(job_table *t, uint32_t index) {
    const job *j = &t->all[index];
    *(j->older == NO_JOB ? &t->oldest : &t->all[j->older].newer) = j->newer;
    *(j->newer == NO_JOB ? &t->newest : &t->all[j->newer].older) = j->older;
}

/* ---- coming and going ---- */

static uint32_t take_place(job_table *t) {
    if (t->free_count > 0) return t->free[--t->free_count];
    if (t->used < t->count) return t->used++;
    if (t->oldest == NO_JOB) return NO_JOB;
    jobs_forget(t, t->oldest);
    return t->free[--t->free_count];
}

uint32_t jobs_enter(job_table *t, uint64_t id, uint64_t arrival, uint64_t arrived_us) {
    check(id != 0);
    uint32_t index = jobs_find(t, id);
    if (index == NO_JOB) {
        index = take_place(t);
        if (index == NO_JOB) return NO_JOB;
        t->all[index] = (job){.id = id, .arrival = arrival, .arrived_us = arrived_us};
        id_map_add(&t->ids, id, index);
    } else if (t->all[index].live == 0) {
        remove_idle(t, index);
    }
    t->all[index].live++;
    return index;
}

void jobs_leave(job_table *t, uint32_t index, uint64_t now_us, bool finished) {
    check(index < t->used && t->all[index].live > 0);
    job *j = &t->all[index];
    j->ended_us = now_us;
    j->turns += finished;
    if (--j->live == 0) add_idle(t, index);
}

void jobs_forget(job_table *t, uint32_t index) {
    check(index < t->used && t->all[index].live == 0);
    remove_idle(t, index);
    id_map_remove(&t->ids, t->all[index].id);
    t->free[t->free_count++] = index;
}

void jobs_check(const job_table *t) {
    uint32_t idle = 0, older = NO_JOB;
    for (uint32_t i = t->oldest; i != NO_JOB; i = t->all[i].newer) {
        check(i < t->used && ++idle <= t->count);
        check(t->all[i].live == 0 && t->all[i].older == older && jobs_find(t, t->all[i].id) == i);
        if (older != NO_JOB) check(t->all[older].ended_us <= t->all[i].ended_us);
        older = i;
    }
    check(t->newest == older && idle + t->free_count <= t->used && t->ids.count + t->free_count == t->used);
}
