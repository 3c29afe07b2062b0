/* models/template_value.c: what values are: truth, equality, order, dictionaries, and where they come from (JSON). */
#include <math.h>
#include <string.h>

#include "base/hash.h"
#include "base/utf8.h"
#include "models/template_render.h"

const char *jinja_type_name(value v) {
    static const char *const names[] = {
        [V_MISSING] = "missing",  [V_UNDEFINED] = "Undefined", [V_NONE] = "NoneType", [V_BOOL] = "bool",
        [V_INT] = "int",          [V_FLOAT] = "float",         [V_TEXT] = "str",      [V_LIST] = "list",
        [V_TUPLE] = "tuple",      [V_DICT] = "dict",           [V_RANGE] = "range",   [V_NAMESPACE] = "Namespace",
        [V_LOOP] = "LoopContext", [V_MACRO] = "Macro",         [V_METHOD] = "method", [V_FUNCTION] = "function",
        [V_CYCLER] = "Cycler",    [V_JOINER] = "Joiner",
    };
    static const char *const views[] = {"dict_keys", "dict_values", "dict_items"};
    if (v.kind == V_VIEW) return views[v.view->kind];
    if (v.kind == V_ITERATOR) return v.iterator->type;
    return v.kind == V_TEXT && v.markup ? "Markup" : names[v.kind];
}

/* ---- undefined ---- */

static value undefined_value(render *r, undefined u) {
    undefined *kept = jinja_arena_take(&r->arena, 1, sizeof *kept);
    *kept = u;
    return (value){.kind = V_UNDEFINED, .undefined = kept};
}

value jinja_undefined_name(render *r, const text *name) { return undefined_value(r, (undefined){.name = text_value(name)}); }
value jinja_undefined_hint(render *r, const char *hint) { return undefined_value(r, (undefined){.hint = hint}); }
value jinja_undefined_member(render *r, value owner, value name) {
    return undefined_value(r, (undefined){.known = true, .owner = owner, .name = name});
}

void jinja_fail_undefined(render *r, value v) {
    const undefined *u = v.undefined;
    if (u->hint) FAIL(r, "%s", u->hint);
    size_t mark = jinja_mark(r);
    jinja_repr(r, u->name);
    const char *name = jinja_cstr(r, jinja_cut_text(r, mark));
    if (!u->known) FAIL(r, "%s is undefined", name);
    const char *type = u->owner.kind == V_NONE ? "None" : jinja_type_name(u->owner);
    const char *object = u->owner.kind == V_NONE ? "" : " object";
    if (u->name.kind == V_TEXT) FAIL(r, "'%s%s' has no attribute %s", type, object, name);
    FAIL(r, "%s%s has no element %s", type, object, name);
}

/* ---- truth, identity, length ---- */

bool jinja_has_length(value v, int64_t *length) {
    switch (v.kind) {
    case V_UNDEFINED: *length = 0; return true;
    case V_TEXT: *length = v.text->chars; return true;
    case V_LIST:
    case V_TUPLE: *length = v.array->count; return true;
    case V_DICT: *length = v.dict->count; return true;
    case V_VIEW: *length = v.view->dict->count; return true;
    case V_RANGE: *length = v.range->count; return true;
    default: return false;
    }
}

bool jinja_truth(value v) {
    int64_t length;
    switch (v.kind) {
    case V_NONE: return false;
    case V_BOOL: return v.truth;
    case V_INT: return v.integer != 0;
    case V_FLOAT: return v.real != 0;
    default: return !jinja_has_length(v, &length) || length != 0;
    }
}

bool jinja_same(value a, value b) {
    if (a.kind != b.kind) return false;
    switch (a.kind) {
    case V_NONE: return true;
    case V_BOOL: return a.truth == b.truth;
    case V_INT: return a.integer == b.integer;
    case V_FLOAT: return a.real == b.real;
    case V_TEXT: return a.text->size == b.text->size && memcmp(a.text->data, b.text->data, a.text->size) == 0;
    default: return a.array == b.array; /* every other kind is known by its address */
    }
}

/* ---- equality and order ---- */

static int order_numbers(value a, value b) {
    if (is_integral(a) && is_integral(b)) return (integral(a) > integral(b)) - (integral(a) < integral(b));
    /* A long double holds every int64 and every double. */
    long double x = a.kind == V_FLOAT ? a.real : (long double)integral(a),
                y = b.kind == V_FLOAT ? b.real : (long double)integral(b);
    if (isnan(x) || isnan(y)) return 2;
    return (x > y) - (x < y);
}

static int order_texts(const text *a, const text *b) { /* the order of UTF-8 bytes is that of code points */
    int c = memcmp(a->data, b->data, a->size < b->size ? a->size : b->size);
    return c ? (c > 0) - (c < 0) : (a->size > b->size) - (a->size < b->size);
}

static bool equal_arrays(render *r, const array *a, const array *b) {
    if (a->count != b->count) return false;
    for (uint32_t i = 0; i < a->count; i++)
        if (!jinja_equal(r, a->items[i], b->items[i])) return false;
    return true;
}

static bool equal_dicts(render *r, const dict *a, const dict *b) {
    if (a->count != b->count) return false;
    for (uint32_t i = 0; i < a->count; i++) {
        const value *other = jinja_dict_get(r, b, a->pairs[i].key);
        if (!other || !jinja_equal(r, a->pairs[i].item, *other)) return false;
    }
    return true;
}

static bool equal_ranges(const range *a, const range *b) {
    return a->count == b->count && (a->count == 0 || (a->start == b->start && (a->count == 1 || a->step == b->step)));
}

/* keys() and items() are sets; values() is only equal to itself. */
static bool equal_views(render *r, const view *a, const view *b) {
    if (a->kind == VIEW_VALUES || b->kind == VIEW_VALUES || a->kind != b->kind) return a == b;
    if (a->dict->count != b->dict->count) return false;
    for (uint32_t i = 0; i < a->dict->count; i++) {
        const value *other = jinja_dict_get(r, b->dict, a->dict->pairs[i].key);
        if (!other || (a->kind == VIEW_ITEMS && !jinja_equal(r, a->dict->pairs[i].item, *other))) return false;
    }
    return true;
}

static bool equal_inside(render *r, value a, value b) {
    switch (a.kind) {
    case V_UNDEFINED: return true;
    case V_LIST:
    case V_TUPLE: return a.array == b.array || equal_arrays(r, a.array, b.array);
    case V_DICT: return a.dict == b.dict || equal_dicts(r, a.dict, b.dict);
    case V_VIEW: return equal_views(r, a.view, b.view);
    case V_RANGE: return equal_ranges(a.range, b.range);
    case V_METHOD: return a.method->row == b.method->row && jinja_same(a.method->self, b.method->self);
    default: return jinja_same(a, b);
    }
}

bool jinja_equal(render *r, value a, value b) {
    jinja_work(r, 1);
    if (is_number(a) && is_number(b)) return order_numbers(a, b) == 0;
    if (a.kind != b.kind) return false;
    if (a.kind == V_TEXT) jinja_work_bytes(r, a.text->size);
    jinja_enter(r);
    bool equal = equal_inside(r, a, b);
    jinja_leave(r);
    return equal;
}

static int order_arrays(render *r, const array *a, const array *b, const char *op) {
    jinja_enter(r);
    uint32_t i = 0;
    while (i < a->count && i < b->count && jinja_equal(r, a->items[i], b->items[i])) i++;
    int order = i < a->count && i < b->count ? jinja_order(r, a->items[i], b->items[i], op)
                                             : (a->count > b->count) - (a->count < b->count);
    jinja_leave(r);
    return order;
}

int jinja_order(render *r, value a, value b, const char *op) {
    jinja_work(r, 1);
    if (is_number(a) && is_number(b)) return order_numbers(a, b);
    if (a.kind == V_UNDEFINED) jinja_fail_undefined(r, a);
    if (b.kind == V_UNDEFINED) jinja_fail_undefined(r, b);
    if (a.kind == V_TEXT && b.kind == V_TEXT) {
        jinja_work_bytes(r, a.text->size);
        return order_texts(a.text, b.text);
    }
    if (is_array(a) && a.kind == b.kind) return order_arrays(r, a.array, b.array, op);
    FAIL(r, "'%s' not supported between instances of '%s' and '%s'", op, jinja_type_name(a), jinja_type_name(b));
}

static bool text_holds(render *r, const text *t, value item) {
    if (item.kind != V_TEXT) FAIL(r, "'in <string>' requires string as left operand, not %s", jinja_type_name(item));
    return jinja_text_find(r, t, item.text, 0, t->size) >= 0;
}

bool jinja_contains(render *r, value container, value item) {
    if (container.kind == V_TEXT) return text_holds(r, container.text, item);
    if (container.kind == V_DICT) return jinja_dict_get(r, container.dict, item) != NULL;
    if (container.kind == V_VIEW && container.view->kind == VIEW_KEYS)
        return jinja_dict_get(r, container.view->dict, item) != NULL;
    if (!jinja_is_iterable(container)) FAIL(r, "argument of type '%s' is not iterable", jinja_type_name(container));
    iterator *it = jinja_iterate(r, container);
    for (value each; jinja_next(r, it, &each);)
        if (jinja_equal(r, each, item)) return true;
    return false;
}

int64_t jinja_length(render *r, value v) {
    int64_t length;
    if (v.kind == V_LOOP) {
        static const text name = {"length", 6, 6};
        return jinja_loop_attribute(r, v.loop, &name).integer;
    }
    if (!jinja_has_length(v, &length)) FAIL(r, "object of type '%s' has no len()", jinja_type_name(v));
    return length;
}

/* ---- lists ---- */

array *jinja_array_new(render *r, uint32_t count) {
    array *a = jinja_arena_take(&r->arena, 1, sizeof *a);
    a->items = jinja_arena_take(&r->arena, count, sizeof *a->items);
    a->count = count;
    jinja_work(r, 1 + count / 4);
    return a;
}

static value array_value(render *r, value_kind kind, value *items, size_t count) {
    array *a = jinja_arena_take(&r->arena, 1, sizeof *a);
    a->items = items, a->count = (uint32_t)count;
    return (value){.kind = (uint8_t)kind, .array = a};
}
value jinja_list(render *r, value *items, size_t count) { return array_value(r, V_LIST, items, count); }
value jinja_tuple(render *r, value *items, size_t count) { return array_value(r, V_TUPLE, items, count); }

void jinja_grow(render *r, growing *g, value v) {
    if (g->count == g->capacity) {
        uint32_t capacity = g->capacity ? g->capacity * 2 : 8;
        value   *items = jinja_arena_take(&r->arena, capacity, sizeof *items);
        if (g->count) memcpy(items, g->items, g->count * sizeof *items);
        g->items = items, g->capacity = capacity;
    }
    g->items[g->count++] = v;
    jinja_work(r, 1);
}
value jinja_grown(render *r, growing *g) { return jinja_list(r, g->items, g->count); }

value jinja_to_list(render *r, value iterable) {
    growing   g = {0};
    iterator *it = jinja_iterate(r, iterable);
    for (value each; jinja_next(r, it, &each);) jinja_grow(r, &g, each);
    return jinja_grown(r, &g);
}

/* ---- dictionaries ---- */

enum { LINEAR_MAX = 8 }; /* up to here a dict is searched from end to end */

bool jinja_hashable(value v) {
    if (v.kind == V_LIST || v.kind == V_DICT) return false;
    if (v.kind == V_VIEW) return v.view->kind == VIEW_VALUES;
    if (v.kind == V_TUPLE)
        for (uint32_t i = 0; i < v.array->count; i++)
            if (!jinja_hashable(v.array->items[i])) return false;
    return true;
}

/* Equal keys have equal hashes: 1, 1.0 and true are one key. Adversarial collisions cost steps, which are bounded. */
static uint64_t hash_key(render *r, value key) {
    jinja_work(r, 1);
    if (key.kind == V_TEXT) {
        jinja_work_bytes(r, key.text->size);
        return hash_u64(key.text->data, key.text->size, V_TEXT);
    }
    if (is_number(key)) {
        double f = real_of(key) + 0.0; /* -0.0 becomes 0.0 */
        return hash_u64(&f, sizeof f, V_FLOAT);
    }
    if (key.kind == V_TUPLE) {
        jinja_enter(r);
        uint64_t h = V_TUPLE;
        for (uint32_t i = 0; i < key.array->count; i++) h = h * 0x9E3779B97F4A7C15u + hash_key(r, key.array->items[i]);
        jinja_leave(r);
        return h;
    }
    if (key.kind == V_LIST || key.kind == V_DICT || key.kind == V_VIEW)
        FAIL(r, "unhashable type: '%s'", jinja_type_name(key));
    return key.kind; /* None, and things that are only equal to themselves */
}

dict *jinja_dict_new(render *r) { return jinja_arena_take(&r->arena, 1, sizeof(dict)); }

/* The pair with this key, or NULL and the slot where it would go. */
static pair *dict_find(render *r, const dict *d, value key, uint64_t hash, uint32_t *slot) {
    if (!d->slots) {
        for (uint32_t i = 0; i < d->count; i++)
            if (d->pairs[i].hash == hash && jinja_equal(r, d->pairs[i].key, key)) return &d->pairs[i];
        return NULL;
    }
    for (*slot = (uint32_t)hash & d->slot_mask; d->slots[*slot]; *slot = (*slot + 1) & d->slot_mask) {
        pair *p = &d->pairs[d->slots[*slot] - 1];
        if (p->hash == hash && jinja_equal(r, p->key, key)) return p;
        jinja_work(r, 1);
    }
    return NULL;
}

static void dict_enlarge(render *r, dict *d) {
    uint32_t capacity = d->capacity ? d->capacity * 2 : 4;
    pair    *pairs = jinja_arena_take(&r->arena, capacity, sizeof *pairs);
    if (d->count) memcpy(pairs, d->pairs, d->count * sizeof *pairs);
    d->pairs = pairs, d->capacity = capacity;
    if (capacity <= LINEAR_MAX) return;
    d->slots = jinja_arena_take(&r->arena, (size_t)capacity * 2, sizeof *d->slots);
    d->slot_mask = capacity * 2 - 1;
    for (uint32_t i = 0; i < d->count; i++) {
        uint32_t slot = (uint32_t)pairs[i].hash & d->slot_mask;
        while (d->slots[slot]) slot = (slot + 1) & d->slot_mask;
        d->slots[slot] = i + 1;
    }
    jinja_work(r, capacity);
}

void jinja_dict_set(render *r, dict *d, value key, value item) {
    uint32_t slot = 0;
    uint64_t hash = hash_key(r, key);
    pair    *known = dict_find(r, d, key, hash, &slot);
    if (known) {
        known->item = item; /* the first key stays, as in Python */
        return;
    }
    if (d->count == d->capacity) {
        dict_enlarge(r, d);
        dict_find(r, d, key, hash, &slot);
    }
    if (d->slots) d->slots[slot] = d->count + 1;
    d->pairs[d->count++] = (pair){key, item, hash};
}

const value *jinja_dict_get(render *r, const dict *d, value key) {
    uint32_t slot;
    pair    *found = dict_find(r, d, key, hash_key(r, key), &slot);
    return found ? &found->item : NULL;
}

const value *jinja_dict_get_text(render *r, const dict *d, const text *key) { return jinja_dict_get(r, d, text_value(key)); }

/* ---- JSON ---- */

static value from_json_string(render *r, const char *s) {
    size_t n = strlen(s);
    if (utf8_valid(s, n)) return text_value(jinja_text_within(&r->arena, s, n));
    size_t mark = jinja_mark(r);
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        int      len = utf8_decode(s + i, n - i, &cp);
        jinja_put_char(r, len > 0 ? cp : 0xFFFD);
        i += (size_t)(len > 0 ? len : -len);
    }
    return jinja_cut(r, mark);
}

/* Python keeps 3 and 3.0 apart, and so does base/json.h where the value was parsed there; a number that code made is an
 * integer if it is whole. Whole numbers beyond 2^53 that were not parsed from text print as a float does. */
static value from_json_number(const cJSON *item) {
    int64_t i;
    if (json_whole_number(item, &i)) return int_value(i);
    return real_value(item->valuedouble);
}

static value from_json_object(render *r, const cJSON *object) {
    dict *d = jinja_dict_new(r);
    for (const cJSON *c = object->child; c; c = c->next)
        jinja_dict_set(r, d, from_json_string(r, c->string ? c->string : ""), jinja_from_json(r, c));
    return (value){.kind = V_DICT, .dict = d};
}

static value from_json_array(render *r, const cJSON *list) {
    growing g = {0};
    for (const cJSON *c = list->child; c; c = c->next) jinja_grow(r, &g, jinja_from_json(r, c));
    return jinja_grown(r, &g);
}

value jinja_from_json(render *r, const cJSON *item) {
    jinja_work(r, 1);
    jinja_enter(r);
    value v = none_value();
    if (cJSON_IsBool(item)) v = bool_value(cJSON_IsTrue(item));
    else if (cJSON_IsNumber(item)) v = from_json_number(item);
    else if (cJSON_IsString(item)) v = from_json_string(r, item->valuestring ? item->valuestring : "");
    else if (cJSON_IsObject(item)) v = from_json_object(r, item);
    else if (cJSON_IsArray(item)) v = from_json_array(r, item);
    jinja_leave(r);
    return v;
}
