/* models/template_scope.c: which names a frame hides from the start.
 *
 * Names are looked up outward at run time. Jinja decides at compile time, and that differs in one place: a frame whose
 * own code stores a name before it reads it owns the name from its beginning. So in
 *
 *     {% for m in messages %}{{ x }}{% endfor %}{% set x = 1 %}
 *
 * the loop sees an undefined x, even if the context has one: `x` belongs to the template, which has not set it yet.
 * A frame's own code is everything but the bodies of loops, macros and blocks in it, which are frames themselves. A
 * store inside `if` hides nothing (the branch may not run), and neither does one of a name that an outer frame knows.
 * This pass leaves in each frame's body node the names to be hidden when the frame opens. (jinja2/idtracking.py) */
#include <string.h>

#include "models/template_node.h"

enum { COMPARISONS_MAX = 1 << 28 }; /* of names; about a second */

typedef struct {
    arena   *a;
    uint64_t comparisons_left;
} pass;

typedef struct frame {
    const struct frame *outside;
    pass               *pass;
    const text        **known, **hidden; /* names this frame's code mentions; those it hides */
    uint32_t            known_count, known_room, hidden_count, hidden_room;
} frame;

static bool same_text(const text *a, const text *b) { return a->size == b->size && memcmp(a->data, b->data, a->size) == 0; }

static bool knows(const frame *f, const text *name) {
    if (f->pass->comparisons_left < f->known_count)
        jinja_fail(f->pass->a->trap, ERR_TOO_LARGE, "the template uses too many different names");
    f->pass->comparisons_left -= f->known_count;
    for (uint32_t i = 0; i < f->known_count; i++)
        if (same_text(f->known[i], name)) return true;
    return false;
}

static bool known_anywhere(const frame *f, const text *name) {
    for (; f; f = f->outside)
        if (knows(f, name)) return true;
    return false;
}

static void append(arena *a, const text ***list, uint32_t *count, uint32_t *room, const text *name) {
    if (*count == *room) {
        const text **more = jinja_arena_take(a, *room = *room ? *room * 2 : 8, sizeof *more);
        if (*count) memcpy(more, *list, *count * sizeof *more);
        *list = more;
    }
    (*list)[(*count)++] = name;
}

static void learn(frame *f, const text *name) {
    if (!knows(f, name)) append(f->pass->a, &f->known, &f->known_count, &f->known_room, name);
}

static void load(frame *f, const text *name) {
    if (!known_anywhere(f, name)) learn(f, name);
}

static void store(frame *f, const text *name, bool in_branch) {
    if (knows(f, name)) return;
    learn(f, name);
    if (!in_branch && !known_anywhere(f->outside, name))
        append(f->pass->a, &f->hidden, &f->hidden_count, &f->hidden_room, name);
}

/* ---- first: what a frame's own code mentions, in the order of Jinja's visitor ---- */

static void survey(frame *f, const node *n, bool in_branch) {
    switch (n->kind) {
    case N_NAME: load(f, n->name); break;
    case N_STORE: store(f, n->name, in_branch); break;
    case N_SET: survey(f, n->kids[1], in_branch), survey(f, n->kids[0], in_branch); break;
    case N_SET_BLOCK: survey(f, n->kids[0], in_branch); break;
    case N_FOR: survey(f, n->kids[FOR_ITERABLE], in_branch); break;
    case N_MACRO: store(f, n->name, in_branch); break;
    case N_CALL_BLOCK:
    case N_FILTER_BLOCK: survey(f, n->kids[0], in_branch); break;
    case N_BLOCK: break;
    case N_WITH:
        for (uint32_t i = 1; i < n->count; i += 2) survey(f, n->kids[i], in_branch);
        break;
    case N_IF:
        survey(f, n->kids[0], in_branch);
        for (uint32_t i = 1; i < n->count; i++) survey(f, n->kids[i], true);
        break;
    default:
        for (uint32_t i = 0; i < n->count; i++)
            if (n->kids[i]) survey(f, n->kids[i], in_branch);
    }
}

static void learn_targets(frame *f, const node *target) {
    if (target->kind == N_STORE) learn(f, target->name);
    for (uint32_t i = 0; i < target->count; i++) learn_targets(f, target->kids[i]);
}

/* ---- then: the frames inside it ---- */

static void descend(frame *f, node *n);

/* The frame is all set but for its body: survey that, note what is hidden, go on to the frames within. */
static void finish_frame(frame *f, node *body) {
    survey(f, body, false);
    body->names = f->hidden, body->name_count = f->hidden_count;
    descend(f, body);
}

static frame frame_in(const frame *outside, pass *of) { return (frame){.outside = outside, .pass = of}; }

static void descend_for(frame *f, node *n) {
    static const text loop = {"loop", 4, 4};
    frame             body = frame_in(f, f->pass), otherwise = frame_in(f, f->pass);
    learn(&body, &loop);
    learn_targets(&body, n->kids[FOR_TARGET]);
    finish_frame(&body, n->kids[FOR_BODY]);
    if (n->kids[FOR_ELSE]) finish_frame(&otherwise, n->kids[FOR_ELSE]);
}

static void descend_macro(frame *f, node *n) {
    static const text special[] = {{"caller", 6, 6}, {"kwargs", 6, 6}, {"varargs", 7, 7}};
    frame             body = frame_in(f, f->pass);
    for (unsigned i = 0; i < 3; i++)
        if (n->flags & 1u << i) learn(&body, &special[i]);
    for (uint32_t i = 0; i < n->name_count; i++) learn_targets(&body, n->kids[i]);
    for (uint32_t i = n->name_count; i + 1 < n->count; i++) survey(&body, n->kids[i], false);
    finish_frame(&body, n->kids[n->count - 1]);
}

static void descend_with(frame *f, node *n) {
    frame body = frame_in(f, f->pass);
    for (uint32_t i = 0; i + 1 < n->count; i += 2) learn_targets(&body, n->kids[i]);
    finish_frame(&body, n->kids[n->count - 1]);
}

static void descend(frame *f, node *n) {
    frame inner = frame_in(n->kind == N_BLOCK && !(n->flags & BLOCK_SCOPED) ? NULL : f, f->pass);
    switch (n->kind) {
    case N_FOR: descend_for(f, n); break;
    case N_MACRO: descend_macro(f, n); break;
    case N_CALL_BLOCK: descend_macro(f, n->kids[1]); break;
    case N_WITH: descend_with(f, n); break;
    case N_SET_BLOCK:
    case N_FILTER_BLOCK:
    case N_BLOCK: finish_frame(&inner, n->kids[n->count - 1]); break;
    case N_BODY:
    case N_IF:
        for (uint32_t i = 0; i < n->count; i++) descend(f, n->kids[i]);
        break;
    default: break; /* expressions hold no frames */
    }
}

void jinja_hide_names(arena *a, node *root) {
    pass  p = {a, COMPARISONS_MAX};
    frame outermost = frame_in(NULL, &p);
    finish_frame(&outermost, root);
}
