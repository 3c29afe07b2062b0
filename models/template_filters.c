/* models/template_filters.c: filters over sequences, and the list of all filters. The parameters' names and defaults are
 * those of jinja2/filters.py. Filters that Jinja makes lazy are iterators here, too. */
#include <math.h>
#include <string.h>

#include "models/template_render.h"

#define FILTER(name) static value name(render *r, value self, const value *arg, const call_args *args)
#define UNUSED_ARGS (void)r, (void)self, (void)arg, (void)args

static uint32_t parts_of(const text *t, char separator) {
    uint32_t n = 1;
    for (uint32_t i = 0; i < t->size; i++) n += t->data[i] == separator;
    return n;
}

/* ---- attribute getters: "a.b.0", an integer, or nothing at all ---- */

typedef struct {
    array parts;
    bool  ignore_case;
    value otherwise; /* in place of undefined; V_MISSING: none */
} getter;

static value path_part(render *r, const text *path, uint32_t from, uint32_t to) {
    const text *t = jinja_text_within(&r->arena, path->data + from, to - from);
    int64_t     index;
    bool        overflow, digits = t->size > 0;
    for (uint32_t i = 0; i < t->size; i++) digits = digits && t->data[i] >= '0' && t->data[i] <= '9';
    if (digits && jinja_parse_int(t, 10, &index, &overflow) && !overflow) return int_value(index);
    return text_value(t);
}

static getter make_getter(render *r, value attribute, bool ignore_case) {
    getter g = {.ignore_case = ignore_case};
    if (is_missing(attribute) || attribute.kind == V_NONE) return g;
    bool path = attribute.kind == V_TEXT;
    g.parts.count = path ? parts_of(attribute.text, '.') : 1;
    g.parts.items = jinja_arena_take(&r->arena, g.parts.count, sizeof(value));
    if (!path) g.parts.items[0] = attribute;
    for (uint32_t i = 0, from = 0, to; path && i < g.parts.count; i++, from = to + 1) {
        for (to = from; to < attribute.text->size && attribute.text->data[to] != '.';) to++;
        g.parts.items[i] = path_part(r, attribute.text, from, to);
    }
    return g;
}

static value fold_case(render *r, value v, bool ignore) {
    return ignore && v.kind == V_TEXT ? jinja_text_recase(r, v, CASE_LOWER) : v;
}

static value get(render *r, const getter *g, value v) {
    for (uint32_t i = 0; i < g->parts.count; i++) {
        v = jinja_item(r, v, g->parts.items[i]);
        if (v.kind == V_UNDEFINED && !is_missing(g->otherwise) && g->otherwise.kind != V_NONE) v = g->otherwise;
    }
    return fold_case(r, v, g->ignore_case);
}

static void *keep(render *r, const void *what, size_t size) {
    return memcpy(jinja_arena_take(&r->arena, 1, size), what, size);
}

/* ---- map, select, reject and their attr forms ---- */

typedef struct {
    getter      get;
    bool        by_attribute, keep_true;
    const text *name; /* of the filter or test; NULL: truth itself */
    call_args   rest;
} each_rule;

static call_args args_from(const call_args *args, uint32_t at) {
    call_args rest = *args;
    rest.count = args->count > at ? args->count - at : 0;
    rest.items = rest.count ? args->items + at : NULL;
    return rest;
}

static const value *named(const call_args *args, const char *name) {
    for (uint32_t i = 0; i < args->named_count; i++)
        if (text_is(args->names[i], name, strlen(name))) return &args->named[i];
    return NULL;
}

/* Lazy: nothing is looked at, the arguments included, before the first item is asked for. An empty input is never
 * iterated, so that None and 0 are no errors. */
static value lazily(render *r, value self, iterator_next *next, const call_args *args, each_rule rule) {
    iterator *it = jinja_iterator_new(r, next, self, "generator");
    rule.rest = *args;
    it->with = keep(r, &rule, sizeof rule);
    return jinja_iterator_value(it);
}

static bool start_each(render *r, iterator *it) {
    if (it->inner) return true;
    if (!jinja_truth(it->over)) return false;
    it->inner = jinja_iterate(r, it->over);
    return true;
}

static void read_map(render *r, each_rule *rule) {
    const call_args *args = &rule->rest;
    const value     *attribute = named(args, "attribute"), *otherwise = named(args, "default");
    rule->by_attribute = args->count == 0 && attribute;
    if (!rule->by_attribute) {
        if (args->count == 0) FAIL(r, "map requires a filter argument");
        rule->name = jinja_arg_text(r, args->items[0], "map's filter");
        rule->rest = args_from(args, 1);
        return;
    }
    if (args->named_count > 1u + (otherwise != NULL)) FAIL(r, "map got an unexpected keyword argument");
    rule->get = make_getter(r, *attribute, false);
    if (otherwise) rule->get.otherwise = *otherwise;
}

static bool next_mapped(render *r, iterator *it, value *out) {
    each_rule *rule = it->with;
    value      item;
    if (!it->inner && jinja_truth(it->over)) read_map(r, rule);
    if (!start_each(r, it) || !jinja_next(r, it->inner, &item)) return false;
    *out = rule->by_attribute ? get(r, &rule->get, item) : jinja_call_filter(r, rule->name, item, &rule->rest);
    return true;
}

static void read_select(render *r, each_rule *rule) {
    uint32_t at = rule->by_attribute;
    if (rule->by_attribute) {
        if (rule->rest.count == 0) FAIL(r, "Missing parameter for attribute name");
        rule->get = make_getter(r, rule->rest.items[0], false);
    }
    if (rule->rest.count > at) rule->name = jinja_arg_text(r, rule->rest.items[at], "the test's name");
    rule->rest = args_from(&rule->rest, at + 1);
}

static bool next_selected(render *r, iterator *it, value *out) {
    each_rule *rule = it->with;
    if (!it->inner && jinja_truth(it->over)) read_select(r, rule);
    if (!start_each(r, it)) return false;
    while (jinja_next(r, it->inner, out)) {
        value looked_at = rule->by_attribute ? get(r, &rule->get, *out) : *out;
        bool  passed = rule->name ? jinja_call_test(r, rule->name, looked_at, &rule->rest) : jinja_truth(looked_at);
        if (passed == rule->keep_true) return true;
    }
    return false;
}

FILTER(filter_map) { return (void)arg, lazily(r, self, next_mapped, args, (each_rule){0}); }
FILTER(filter_select) { return (void)arg, lazily(r, self, next_selected, args, (each_rule){.keep_true = true}); }
FILTER(filter_reject) { return (void)arg, lazily(r, self, next_selected, args, (each_rule){0}); }
FILTER(filter_selectattr) {
    return (void)arg, lazily(r, self, next_selected, args, (each_rule){.by_attribute = true, .keep_true = true});
}
FILTER(filter_rejectattr) { return (void)arg, lazily(r, self, next_selected, args, (each_rule){.by_attribute = true}); }

/* ---- unique, batch, slice, items ---- */

typedef struct {
    getter  get;
    dict   *seen;
    int64_t count;
    value   fill, list;
} grouping_rule;

static bool next_unique(render *r, iterator *it, value *out) {
    grouping_rule *rule = it->with;
    if (!it->inner) it->inner = jinja_iterate(r, it->over), rule->seen = jinja_dict_new(r);
    while (jinja_next(r, it->inner, out)) {
        value    key = get(r, &rule->get, *out);
        uint32_t before = rule->seen->count;
        jinja_dict_set(r, rule->seen, key, none_value());
        if (rule->seen->count > before) return true;
    }
    return false;
}

static value grouping_iterator(render *r, value self, iterator_next *next, grouping_rule rule) {
    iterator *it = jinja_iterator_new(r, next, self, "generator");
    it->with = keep(r, &rule, sizeof rule);
    return jinja_iterator_value(it);
}

FILTER(filter_unique) {
    (void)args;
    return grouping_iterator(r, self, next_unique,
                             (grouping_rule){.get = make_getter(r, arg[1], !jinja_arg_truth(arg[0], false))});
}

static bool next_batch(render *r, iterator *it, value *out) {
    grouping_rule *rule = it->with;
    growing        batch = {0};
    value          item;
    if (!it->inner) it->inner = jinja_iterate(r, it->over);
    if (it->at < 0) return false;
    if (!is_missing(rule->list)) jinja_grow(r, &batch, rule->list), rule->list = (value){0};
    while (jinja_next(r, it->inner, &item)) {
        if (batch.count == rule->count) { /* the batch is full: the item opens the next one */
            rule->list = item;
            *out = jinja_grown(r, &batch);
            return true;
        }
        jinja_grow(r, &batch, item);
    }
    it->at = -1;
    while (batch.count && rule->fill.kind != V_NONE && !is_missing(rule->fill) && batch.count < rule->count)
        jinja_grow(r, &batch, rule->fill);
    *out = jinja_grown(r, &batch);
    return batch.count > 0;
}

FILTER(filter_batch) {
    (void)args;
    return grouping_iterator(r, self, next_batch, (grouping_rule){.count = jinja_arg_int(r, arg[0], 0), .fill = arg[1]});
}

static bool next_slice(render *r, iterator *it, value *out) {
    grouping_rule *rule = it->with;
    if (it->at == 0) {
        rule->list = jinja_to_list(r, it->over);
        if (rule->count == 0) FAIL(r, "integer division or modulo by zero");
    }
    if (it->at >= rule->count) return false;
    int64_t length = rule->list.array->count, each = length / rule->count, extra = length % rule->count, i = it->at++;
    int64_t from = i * each + (i < extra ? i : extra), to = from + each + (i < extra);
    growing part = {0};
    for (int64_t k = from; k < to; k++) jinja_grow(r, &part, rule->list.array->items[k]);
    if (i >= extra && !is_missing(rule->fill) && rule->fill.kind != V_NONE) jinja_grow(r, &part, rule->fill);
    *out = jinja_grown(r, &part);
    return true;
}

FILTER(filter_slice) {
    (void)args;
    return grouping_iterator(r, self, next_slice, (grouping_rule){.count = jinja_arg_int(r, arg[0], 0), .fill = arg[1]});
}

static bool next_pair(render *r, iterator *it, value *out) {
    if (it->over.kind == V_UNDEFINED) return false;
    if (it->over.kind != V_DICT) FAIL(r, "Can only get item pairs from a mapping.");
    if (it->at >= it->over.dict->count) return false;
    *out = jinja_view_at(r, &(view){it->over.dict, VIEW_ITEMS}, (uint32_t)it->at++);
    return true;
}
FILTER(filter_items) {
    return (void)arg, (void)args, jinja_iterator_value(jinja_iterator_new(r, next_pair, self, "generator"));
}

/* ---- sort, groupby, min, max, sum ---- */

/* What each item is sorted by: a list of what each getter (one for each comma) gives, so that equal values, None or
 * undefined ones too, are never asked which is less. */
static value *sort_keys(render *r, const array *items, value attribute, bool ignore_case) {
    value   *keys = jinja_arena_take(&r->arena, items->count, sizeof *keys);
    uint32_t count = attribute.kind == V_TEXT ? parts_of(attribute.text, ',') : 1;
    getter  *by = jinja_arena_take(&r->arena, count, sizeof *by);
    if (attribute.kind != V_TEXT) by[0] = make_getter(r, attribute, ignore_case);
    for (uint32_t i = 0, from = 0, to; attribute.kind == V_TEXT && i < count; i++, from = to + 1) {
        for (to = from; to < attribute.text->size && attribute.text->data[to] != ',';) to++;
        by[i] = make_getter(r, jinja_text_part(r, attribute, from, to), ignore_case);
    }
    for (uint32_t k = 0; k < items->count; k++) {
        array *several = jinja_array_new(r, count);
        for (uint32_t i = 0; i < count; i++) several->items[i] = get(r, &by[i], items->items[k]);
        keys[k] = (value){.kind = V_LIST, .array = several};
    }
    return keys;
}

FILTER(filter_sort) {
    (void)args;
    value list = jinja_to_list(r, self);
    jinja_sort(r, list.array->items, sort_keys(r, list.array, arg[2], !jinja_arg_truth(arg[1], false)), list.array->count,
               jinja_arg_truth(arg[0], false));
    return list;
}

FILTER(filter_dictsort) {
    (void)args;
    bool ignore_case = !jinja_arg_truth(arg[0], false), by_value = arg[1].kind == V_TEXT && TEXT_IS(arg[1].text, "value");
    if (!is_missing(arg[1]) && !by_value && !(arg[1].kind == V_TEXT && TEXT_IS(arg[1].text, "key")))
        FAIL(r, "You can only sort by either \"key\" or \"value\"");
    if (self.kind == V_UNDEFINED) jinja_fail_undefined(r, self);
    if (self.kind != V_DICT) FAIL(r, "'%s' object has no attribute 'items'", jinja_type_name(self));
    uint32_t count = self.dict->count;
    array   *pairs = jinja_array_new(r, count);
    value   *keys = jinja_arena_take(&r->arena, count, sizeof *keys);
    for (uint32_t i = 0; i < count; i++) {
        const pair *p = &self.dict->pairs[i];
        pairs->items[i] = jinja_view_at(r, &(view){self.dict, VIEW_ITEMS}, i);
        keys[i] = fold_case(r, by_value ? p->item : p->key, ignore_case);
    }
    jinja_sort(r, pairs->items, keys, count, jinja_arg_truth(arg[2], false));
    return (value){.kind = V_LIST, .array = pairs};
}

FILTER(filter_groupby) {
    (void)args;
    getter by = make_getter(r, arg[0], !jinja_arg_truth(arg[2], false)), as_is = make_getter(r, arg[0], false);
    by.otherwise = as_is.otherwise = arg[1];
    value    list = jinja_to_list(r, self);
    uint32_t count = list.array->count;
    value   *keys = jinja_arena_take(&r->arena, count, sizeof *keys), *items = list.array->items;
    for (uint32_t i = 0; i < count; i++) keys[i] = get(r, &by, items[i]);
    jinja_sort(r, items, keys, count, false);
    growing groups = {0};
    for (uint32_t from = 0, to; from < count; from = to) {
        value key = get(r, &by, items[from]);
        for (to = from + 1; to < count && jinja_equal(r, key, get(r, &by, items[to]));) to++;
        array *group = jinja_array_new(r, 2);
        group->group = true;
        group->items[0] = get(r, &as_is, items[from]), group->items[1] = jinja_list(r, items + from, to - from);
        jinja_grow(r, &groups, (value){.kind = V_TUPLE, .array = group});
    }
    return jinja_grown(r, &groups);
}

static value extreme(render *r, value self, const value *arg, int sign) {
    getter    by = make_getter(r, arg[1], !jinja_arg_truth(arg[0], false));
    iterator *it = jinja_iterate(r, self);
    value     best, each, best_key;
    if (!jinja_next(r, it, &best)) return jinja_undefined_hint(r, "No aggregated item, sequence was empty.");
    best_key = get(r, &by, best);
    while (jinja_next(r, it, &each)) {
        value key = get(r, &by, each);
        int   order = jinja_order(r, key, best_key, sign < 0 ? "<" : ">");
        if (order != 2 && order * sign > 0) best = each, best_key = key;
    }
    return best;
}
FILTER(filter_min) { return (void)args, extreme(r, self, arg, -1); }
FILTER(filter_max) { return (void)args, extreme(r, self, arg, 1); }

FILTER(filter_sum) {
    (void)args;
    value total = is_missing(arg[1]) ? int_value(0) : arg[1], each;
    if (total.kind == V_TEXT) FAIL(r, "sum() can't sum strings [use ''.join(seq) instead]");
    getter    by = make_getter(r, arg[0], false);
    iterator *it = jinja_iterate(r, self);
    while (jinja_next(r, it, &each)) total = jinja_binary(r, OP_ADD, total, get(r, &by, each));
    return total;
}

/* ---- first, last, list, reverse, join, length ---- */

FILTER(filter_first) {
    UNUSED_ARGS;
    value v;
    return jinja_next(r, jinja_iterate(r, self), &v) ? v : jinja_undefined_hint(r, "No first item, sequence was empty.");
}

FILTER(filter_last) {
    UNUSED_ARGS;
    value     v;
    iterator *it = jinja_reversed(r, self);
    if (!it) FAIL(r, "'%s' object is not reversible", jinja_type_name(self));
    return jinja_next(r, it, &v) ? v : jinja_undefined_hint(r, "No last item, sequence was empty.");
}

FILTER(filter_random) {
    UNUSED_ARGS;
    FAIL(r, "the filter 'random' is not supported: the same request must give the same prompt");
}

FILTER(filter_list) { return (void)arg, (void)args, jinja_to_list(r, self); }
FILTER(filter_length) { return (void)arg, (void)args, int_value(jinja_length(r, self)); }

FILTER(filter_reverse) {
    UNUSED_ARGS;
    if (self.kind == V_TEXT) return jinja_text_slice(r, self, none_value(), none_value(), int_value(-1));
    iterator *it = jinja_reversed(r, self);
    if (it) return jinja_iterator_value(it);
    if (!jinja_is_iterable(self)) FAIL(r, "argument must be iterable");
    return jinja_to_list(r, jinja_iterator_value(jinja_reversed(r, jinja_to_list(r, self))));
}

FILTER(filter_join) {
    (void)args;
    const text *separator = is_missing(arg[0]) ? NULL : jinja_str(r, arg[0]);
    bool        by_attribute = !is_missing(arg[1]) && arg[1].kind != V_NONE;
    getter      by = make_getter(r, arg[1], false);
    iterator   *it = jinja_iterate(r, self);
    size_t      mark = jinja_mark(r);
    bool        first = true;
    for (value each; jinja_next(r, it, &each); first = false) {
        if (!first && separator) jinja_show(r, text_value(separator));
        jinja_show(r, by_attribute ? get(r, &by, each) : each);
    }
    return jinja_cut(r, mark);
}

/* ---- default, attr ---- */

FILTER(filter_default) {
    (void)args;
    bool wanted = self.kind == V_UNDEFINED || (jinja_arg_truth(arg[1], false) && !jinja_truth(self));
    if (!wanted) return self;
    return is_missing(arg[0]) ? text_value(jinja_text_within(&r->arena, "", 0)) : arg[0];
}

FILTER(filter_attr) {
    (void)args;
    const text *name = jinja_arg_text(r, arg[0], "attribute name");
    value       v = jinja_attribute(r, self, name);
    /* Only attributes, not items: what a dict holds does not count. */
    if (self.kind == V_DICT && jinja_dict_get_text(r, self.dict, name) && v.kind != V_METHOD)
        return jinja_undefined_member(r, self, text_value(name));
    return v;
}

static const builtin sequence_filters[] = {
    {"attr", "name", 1, filter_attr},
    {"batch", "linecount fill_with", 1, filter_batch},
    {"count", "/", 0, filter_length},
    {"d", "default_value boolean", 0, filter_default},
    {"default", "default_value boolean", 0, filter_default},
    {"dictsort", "case_sensitive by reverse", 0, filter_dictsort},
    {"first", "", 0, filter_first},
    {"groupby", "attribute default case_sensitive", 1, filter_groupby},
    {"items", "", 0, filter_items},
    {"join", "d attribute", 0, filter_join},
    {"last", "", 0, filter_last},
    {"length", "/", 0, filter_length},
    {"list", "", 0, filter_list},
    {"map", NULL, 0, filter_map},
    {"max", "case_sensitive attribute", 0, filter_max},
    {"min", "case_sensitive attribute", 0, filter_min},
    {"random", "", 0, filter_random},
    {"reject", NULL, 0, filter_reject},
    {"rejectattr", NULL, 0, filter_rejectattr},
    {"reverse", "", 0, filter_reverse},
    {"select", NULL, 0, filter_select},
    {"selectattr", NULL, 0, filter_selectattr},
    {"slice", "slices fill_with", 1, filter_slice},
    {"sort", "reverse case_sensitive attribute", 0, filter_sort},
    {"sum", "attribute start", 0, filter_sum},
    {"unique", "case_sensitive attribute", 0, filter_unique},
};

const builtin *jinja_find_filter(const char *name, size_t n) {
    const builtin *row = jinja_find_row(sequence_filters, sizeof sequence_filters / sizeof *sequence_filters, name, n);
    if (!row) row = jinja_find_row(jinja_text_filters, jinja_text_filter_count, name, n);
    return row;
}
