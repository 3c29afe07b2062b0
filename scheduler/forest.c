#include "scheduler/forest.h"

#include "base/error.h"

void forest_init(item_forest *f, uint32_t item_count, carver *c) {
    *f = (item_forest){.item_count = item_count};
    f->nodes = carve(c, item_count, sizeof *f->nodes);
}

static uint32_t way_of(const item_forest *f, uint32_t item) { return item == NO_ITEM ? 0 : f->nodes[item].way; }

/* Puts the shorter way to the right. Returns whether the item's own way is another one now. */
static bool lean_left(item_forest *f, uint32_t item) {
    forest_node   *n = &f->nodes[item];
    const uint32_t before = n->way;
    if (way_of(f, n->left) < way_of(f, n->right)) {
        const uint32_t right = n->right;
        n->right = n->left, n->left = right;
    }
    n->way = way_of(f, n->right) + 1;
    return n->way != before;
}

/* Down both ways to the right, the earlier item first; then up again, each leaning left. */
static uint32_t merge(item_forest *f, uint32_t a, uint32_t b) {
    uint32_t top = NO_ITEM, *place = &top, last = NO_ITEM;
    while (a != NO_ITEM && b != NO_ITEM) {
        if (heap_before(&f->nodes[b].entry, &f->nodes[a].entry)) {
            const uint32_t other = a;
            a = b, b = other;
        }
        *place = a;
        f->nodes[a].parent = last;
        last = a, place = &f->nodes[a].right;
        a = f->nodes[a].right;
    }
    *place = a != NO_ITEM ? a : b;
    if (*place != NO_ITEM) f->nodes[*place].parent = last;
    for (; last != NO_ITEM; last = f->nodes[last].parent) lean_left(f, last);
    return top;
}

void forest_add(item_forest *f, uint32_t *first, heap_entry e) {
    check(e.item < f->item_count && !forest_holds(f, e.item));
    f->nodes[e.item] = (forest_node){e, NO_ITEM, NO_ITEM, NO_ITEM, 1};
    *first = merge(f, *first, e.item);
}

/* Its children take its place together; above them, whoever's way became another one leans anew. */
void forest_remove(item_forest *f, uint32_t *first, uint32_t item) {
    check(item < f->item_count && forest_holds(f, item));
    forest_node   *n = &f->nodes[item];
    const uint32_t above = n->parent, below = merge(f, n->left, n->right);
    if (below != NO_ITEM) f->nodes[below].parent = above;
    n->way = 0;
    if (above == NO_ITEM) {
        check(*first == item);
        *first = below;
        return;
    }
    *(f->nodes[above].left == item ? &f->nodes[above].left : &f->nodes[above].right) = below;
    for (uint32_t i = above; i != NO_ITEM && lean_left(f, i);) i = f->nodes[i].parent;
}

/* Without recursion: down to the left, and up from where there is no more. */
uint32_t forest_check(const item_forest *f, uint32_t first) {
    uint32_t count = 0, from = NO_ITEM;
    if (first != NO_ITEM) check(f->nodes[first].parent == NO_ITEM);
    for (uint32_t i = first; i != NO_ITEM;) {
        const forest_node *n = &f->nodes[i];
        uint32_t           next = n->parent;
        if (from == n->parent) { /* seen for the first time */
            count++;
            check(n->entry.item == i && n->way == way_of(f, n->right) + 1 && way_of(f, n->left) >= way_of(f, n->right));
            check(n->parent == NO_ITEM || heap_before(&f->nodes[n->parent].entry, &n->entry));
            next = n->left != NO_ITEM ? n->left : n->parent;
        } else if (from == n->left && n->right != NO_ITEM) {
            next = n->right;
        }
        from = i, i = next;
    }
    return count;
}
