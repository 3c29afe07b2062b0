/* models/template_iterate.c: walking along values, one item at a time, as Python's iterators do.
 *
 * Filters such as map and select are lazy there, and it shows: an error in an item that nobody asks for never happens,
 * and an iterator can be walked only once. So they are lazy here as well. */
#include "base/utf8.h"
#include "models/template_render.h"

iterator *jinja_iterator_new(render *r, iterator_next *next, value over, const char *type) {
    iterator *it = jinja_arena_take(&r->arena, 1, sizeof *it);
    *it = (iterator){.next = next, .over = over, .type = type};
    return it;
}
value jinja_iterator_value(iterator *it) { return (value){.kind = V_ITERATOR, .iterator = it}; }

/* Iterators may lie on iterators: a template can stack them as deep as it likes, the depth is counted here. */
bool jinja_next(render *r, iterator *it, value *out) {
    jinja_work(r, 1);
    jinja_enter(r);
    bool more = it->next(r, it, out);
    jinja_leave(r);
    return more;
}

value jinja_range_at(const range *g, int64_t i) { return int_value(g->start + i * g->step); }

value jinja_view_at(render *r, const view *w, uint32_t i) {
    const pair *p = &w->dict->pairs[i];
    if (w->kind == VIEW_KEYS) return p->key;
    if (w->kind == VIEW_VALUES) return p->item;
    value *both = jinja_arena_take(&r->arena, 2, sizeof *both);
    both[0] = p->key, both[1] = p->item;
    return jinja_tuple(r, both, 2);
}

/* Item `i` of what has a length and is not text. */
static value item_at(render *r, value v, int64_t i) {
    switch (v.kind) {
    case V_DICT: return v.dict->pairs[i].key;
    case V_VIEW: return jinja_view_at(r, v.view, (uint32_t)i);
    case V_RANGE: return jinja_range_at(v.range, i);
    case V_TEXT: {
        uint32_t from = jinja_text_offset(r, v.text, (uint32_t)i);
        return jinja_text_part(r, v, from, jinja_text_offset(r, v.text, (uint32_t)i + 1));
    }
    default: return v.array->items[i];
    }
}

static bool next_item(render *r, iterator *it, value *out) {
    int64_t length = 0;
    jinja_has_length(it->over, &length);
    if (it->at >= length) return false;
    *out = item_at(r, it->over, it->at++);
    return true;
}

static bool next_char(render *r, iterator *it, value *out) { /* `at` counts bytes */
    const text *t = it->over.text;
    uint32_t    cp;
    if (it->at >= t->size) return false;
    int len = utf8_decode(t->data + it->at, t->size - (size_t)it->at, &cp);
    check(len > 0);
    *out = jinja_text_part(r, it->over, (uint32_t)it->at, (uint32_t)it->at + (uint32_t)len);
    out->markup = false; /* as str's own iterator has it */
    it->at += len;
    return true;
}

static bool next_reversed(render *r, iterator *it, value *out) {
    if (it->at == 0) return false;
    *out = item_at(r, it->over, --it->at);
    return true;
}

static bool next_of_loop(render *r, iterator *it, value *out) { /* the same iterator that the loop itself walks */
    return jinja_next(r, it->over.loop->source, out);
}

bool jinja_is_iterable(value v) {
    int64_t length;
    return v.kind == V_ITERATOR || v.kind == V_LOOP || jinja_has_length(v, &length);
}

iterator *jinja_iterate(render *r, value v) {
    if (v.kind == V_ITERATOR) return v.iterator;
    if (v.kind == V_LOOP) return jinja_iterator_new(r, next_of_loop, v, "LoopContext");
    if (!jinja_is_iterable(v)) FAIL(r, "'%s' object is not iterable", jinja_type_name(v));
    return jinja_iterator_new(r, v.kind == V_TEXT ? next_char : next_item, v, "iterator");
}

iterator *jinja_reversed(render *r, value v) {
    int64_t length;
    if (!jinja_has_length(v, &length)) return NULL;
    iterator *it = jinja_iterator_new(r, next_reversed, v, v.kind == V_LIST ? "list_reverseiterator" : "reversed");
    it->at = length;
    return it;
}
