/* models/template_value.h: what a template computes with: Python's values, as far as templates can see them.
 *
 * Values are 16 bytes and passed by value; what they point to lies in the rendering's arena. They never change, but for
 * namespaces, iterators, loops, cyclers and joiners, so texts, lists and dicts are shared freely. */
#pragma once
#include "base/json.h"
#include "models/template_memory.h"

typedef enum {
    V_MISSING, /* an argument that was not given; never seen by a template */
    V_UNDEFINED,
    V_NONE,
    V_BOOL,
    V_INT,
    V_FLOAT,
    V_TEXT,
    V_LIST,
    V_TUPLE,
    V_DICT,
    V_VIEW,
    V_RANGE,
    V_ITERATOR,
    V_NAMESPACE,
    V_LOOP,
    V_MACRO,
    V_METHOD,
    V_FUNCTION,
    V_CYCLER,
    V_JOINER,
} value_kind;

typedef struct array      array;
typedef struct dict       dict;
typedef struct view       view;
typedef struct range      range;
typedef struct iterator   iterator;
typedef struct loop_state loop_state;
typedef struct macro      macro;
typedef struct method     method;
typedef struct undefined  undefined;
typedef struct cycler     cycler;
typedef struct builtin    builtin;
typedef struct node       node;
typedef struct scope      scope;
typedef struct render     render;
typedef struct call_args  call_args;

typedef struct {
    uint8_t kind;
    bool    markup; /* text that `safe` or `escape` made: what is added to it gets HTML-escaped, as with MarkupSafe */
    union {
        bool             truth;
        int64_t          integer;
        double           real;
        const text      *text;
        const array     *array; /* V_LIST, V_TUPLE */
        dict            *dict;  /* V_DICT, V_NAMESPACE */
        const view      *view;
        const range     *range;
        iterator        *iterator;
        loop_state      *loop;
        const macro     *macro;
        const method    *method;
        const builtin   *function;
        const undefined *undefined;
        cycler          *cycler; /* V_CYCLER, V_JOINER */
    };
} value;

struct array {
    value   *items;
    uint32_t count;
    bool     group; /* a tuple of `groupby`, with the attributes grouper and list */
};

typedef struct {
    value    key, item;
    uint64_t hash;
} pair;
struct dict {
    pair     *pairs; /* in order of insertion */
    uint32_t  count, capacity;
    uint32_t *slots; /* index of a pair + 1, by hash; NULL while there are few */
    uint32_t  slot_mask;
};

typedef enum { VIEW_KEYS, VIEW_VALUES, VIEW_ITEMS } view_kind;
struct view {
    const dict *dict;
    view_kind   kind;
};

struct range {
    int64_t start, stop, step, count;
};

/* What a `for` walks along. `next` fills *out or says that there is no more. */
typedef bool iterator_next(render *r, iterator *it, value *out);
struct iterator {
    iterator_next *next;
    value          over; /* what is walked */
    int64_t        at;
    iterator      *inner; /* of a filter: where its items come from */
    void          *with;  /* of a filter: what it needs to know */
    const char    *type;  /* how Python calls it */
};

struct loop_state {
    iterator   *source;
    value       over;
    const node *recursive;      /* the `for` itself where it may call itself, else NULL */
    scope      *outside;        /* where that `for` is defined */
    int64_t     index0, length; /* length -1: not known yet */
    uint32_t    depth0;
    bool        peeked;
    value       before, current, after;
    value       changed; /* tuple of the last `loop.changed`, or V_MISSING */
};

struct macro {
    const node *definition;
    scope      *outside;
};

struct method {
    value          self;
    const builtin *row;
};

struct undefined {
    const char *hint;  /* a whole sentence, or NULL */
    bool        known; /* owner is what has no such member; otherwise `name` is a variable */
    value       owner, name;
};

struct cycler {
    const array *items;
    uint32_t     at;        /* cycler: next item; joiner: 1 once used */
    value        separator; /* joiner */
};

static inline value none_value(void) { return (value){.kind = V_NONE}; }
static inline value bool_value(bool b) { return (value){.kind = V_BOOL, .truth = b}; }
static inline value int_value(int64_t i) { return (value){.kind = V_INT, .integer = i}; }
static inline value real_value(double f) { return (value){.kind = V_FLOAT, .real = f}; }
static inline value text_value(const text *t) { return (value){.kind = V_TEXT, .text = t}; }
static inline value like_value(const text *t, value like) {
    return (value){.kind = V_TEXT, .markup = like.markup, .text = t};
}
static inline bool    is_missing(value v) { return v.kind == V_MISSING; }
static inline bool    is_integral(value v) { return v.kind == V_INT || v.kind == V_BOOL; }
static inline bool    is_number(value v) { return is_integral(v) || v.kind == V_FLOAT; }
static inline bool    is_array(value v) { return v.kind == V_LIST || v.kind == V_TUPLE; }
static inline int64_t integral(value v) { return v.kind == V_BOOL ? v.truth : v.integer; }
static inline double  real_of(value v) { return v.kind == V_FLOAT ? v.real : (double)integral(v); }
static inline bool    text_is(const text *t, const char *s, size_t n) {
       return t->size == n && __builtin_memcmp(t->data, s, n) == 0;
}
#define TEXT_IS(t, literal) text_is(t, literal, sizeof(literal) - 1)

/* ---- template_value.c ---- */

const char                    *jinja_type_name(value v); /* as Python calls it: "str", "NoneType" */
value                          jinja_undefined_name(render *r, const text *name);
value                          jinja_undefined_member(render *r, value owner, value name);
value                          jinja_undefined_hint(render *r, const char *hint);
__attribute__((noreturn)) void jinja_fail_undefined(render *r, value undefined_value);

bool    jinja_truth(value v);
bool    jinja_equal(render *r, value a, value b);
bool    jinja_same(value a, value b);                             /* `is` of Python */
int     jinja_order(render *r, value a, value b, const char *op); /* <0, 0, >0, 2: unordered (NaN) */
bool    jinja_contains(render *r, value container, value item);
bool    jinja_hashable(value v);
int64_t jinja_length(render *r, value v);
bool    jinja_has_length(value v, int64_t *length);

array       *jinja_array_new(render *r, uint32_t count);
value        jinja_list(render *r, value *items, size_t count); /* takes items as they are */
value        jinja_tuple(render *r, value *items, size_t count);
value        jinja_to_list(render *r, value iterable);
dict        *jinja_dict_new(render *r);
void         jinja_dict_set(render *r, dict *d, value key, value item); /* fails on an unhashable key */
const value *jinja_dict_get(render *r, const dict *d, value key);       /* NULL: none */
const value *jinja_dict_get_text(render *r, const dict *d, const text *key);
value        jinja_from_json(render *r, const cJSON *item);

/* A list that grows while it is made; jinja_grown takes it. */
typedef struct {
    value   *items;
    uint32_t count, capacity;
} growing;
void  jinja_grow(render *r, growing *g, value v);
value jinja_grown(render *r, growing *g);

/* ---- template_iterate.c ---- */

bool      jinja_is_iterable(value v);
iterator *jinja_iterate(render *r, value v); /* fails on what cannot be iterated */
bool      jinja_next(render *r, iterator *it, value *out);
iterator *jinja_reversed(render *r, value v); /* NULL: cannot be */
iterator *jinja_iterator_new(render *r, iterator_next *next, value over, const char *type);
value     jinja_iterator_value(iterator *it);
value     jinja_range_at(const range *g, int64_t i);
value     jinja_view_at(render *r, const view *w, uint32_t i);

/* ---- template_sort.c: a stable sort ---- */

void jinja_sort(render *r, value *items, const value *keys, uint32_t count, bool reverse);

/* ---- template_show.c: what it makes is appended to what is being written ---- */

void        jinja_show(render *r, value v); /* str() */
void        jinja_repr(render *r, value v); /* repr() */
const text *jinja_str(render *r, value v);  /* str() as a text */
void        jinja_show_real(render *r, double f);
typedef struct {
    bool        ascii, sort_keys;
    const text *indent; /* one level; NULL: all on one line */
    const text *item_separator, *key_separator;
} json_style;
void        jinja_show_json(render *r, value v, const json_style *style);
void        jinja_escape_html(render *r, const text *t);
const text *jinja_escaped(render *r, value v); /* escape(v): markup stays as it is */
