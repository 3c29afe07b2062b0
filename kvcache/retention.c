#include "kvcache/retention.h"

#include "base/error.h"

void kept_pages_init(kept_pages *k, uint32_t page_count, carver *c) {
    *k = (kept_pages){.page_count = page_count, .grade = GRADE_UNKNOWN};
    for (int g = 0; g < GRADES; g++) k->heads[g] = k->tails[g] = NO_PAGE;
    k->next = carve(c, page_count, sizeof *k->next);
    k->previous = carve(c, page_count, sizeof *k->previous);
    k->kept_at = carve(c, page_count, sizeof *k->kept_at);
    k->grades = carve(c, page_count, sizeof *k->grades);
    k->most = carve(c, page_count, sizeof *k->most);
}

void kept_pages_start(kept_pages *k) {
    for (uint32_t page = 0; page < k->page_count; page++) k->most[page] = GRADES - 1;
}

/* ---- lists ---- */

static void list_append(kept_pages *k, uint32_t page, uint8_t grade) {
    check(page < k->page_count && k->kept_at[page] == 0);
    k->kept_at[page] = ++k->turn;
    k->grades[page] = grade;
    k->next[page] = NO_PAGE;
    k->previous[page] = k->tails[grade];
    *(k->tails[grade] == NO_PAGE ? &k->heads[grade] : &k->next[k->tails[grade]]) = page;
    k->tails[grade] = page;
    k->kept_count++;
}

static void list_remove(kept_pages *k, uint32_t page) {
    check(page < k->page_count && k->kept_at[page] != 0 && k->kept_count > 0);
    const uint32_t next = k->next[page], previous = k->previous[page], grade = k->grades[page];
    *(previous == NO_PAGE ? &k->heads[grade] : &k->next[previous]) = next;
    *(next == NO_PAGE ? &k->tails[grade] : &k->previous[next]) = previous;
    k->kept_at[page] = 0;
    k->kept_count--;
}

/* ---- lru: one list ---- */

static void lru_keep(kept_pages *k, uint32_t page, uint32_t before) {
    (void)before;
    list_append(k, page, 0);
}

static uint32_t lru_victim(const kept_pages *k) { return k->heads[0]; }

const retention_api retention_lru = {"lru", lru_keep, list_remove, lru_victim};

/* ---- workflow (SAGA, arXiv 2605.00528: 0.3 of idle time, 0.7 of the grade) ---- */

#define IDLE_WEIGHT 0.3
#define GRADE_WEIGHT 0.7

static void workflow_keep(kept_pages *k, uint32_t page, uint32_t before) {
    const uint8_t grade = k->grade < k->most[page] ? k->grade : k->most[page];
    list_append(k, page, grade);
    if (before != NO_PAGE && grade < k->most[before]) k->most[before] = grade;
}

static uint32_t workflow_victim(const kept_pages *k) {
    uint64_t oldest = 0;
    uint32_t victim = NO_PAGE;
    double   worst = -1;
    for (int g = 0; g < GRADES; g++)
        if (k->heads[g] != NO_PAGE && k->turn + 1 - k->kept_at[k->heads[g]] > oldest)
            oldest = k->turn + 1 - k->kept_at[k->heads[g]];
    for (int g = 0; g < GRADES; g++) {
        if (k->heads[g] == NO_PAGE) continue;
        const double idle = (double)(k->turn + 1 - k->kept_at[k->heads[g]]) / (double)oldest;
        const double score = IDLE_WEIGHT * idle + GRADE_WEIGHT * g / (GRADES - 1);
        if (score > worst) worst = score, victim = k->heads[g];
    }
    return victim;
}

const retention_api retention_workflow = {"workflow", workflow_keep, list_remove, workflow_victim};

void kept_pages_tail(kept_pages *k, uint32_t page) { k->most[page] = GRADES - 1; }

/* ---- invariants ---- */

static uint32_t check_list(const kept_pages *k, uint32_t grade) {
    uint32_t seen = 0, previous = NO_PAGE;
    for (uint32_t page = k->heads[grade]; page != NO_PAGE; page = k->next[page]) {
        check(page < k->page_count && k->kept_at[page] != 0 && k->kept_at[page] <= k->turn && k->grades[page] == grade);
        check(k->previous[page] == previous && (previous == NO_PAGE || k->kept_at[previous] < k->kept_at[page]));
        check(++seen <= k->kept_count);
        previous = page;
    }
    check(k->tails[grade] == previous);
    return seen;
}

void kept_pages_check(const kept_pages *k) {
    uint32_t seen = 0;
    for (uint32_t g = 0; g < GRADES; g++) seen += check_list(k, g);
    check(seen == k->kept_count);
}
