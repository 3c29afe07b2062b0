/* models/template_internal.h: what the template_*.c files share; nobody else includes it.
 *
 *   source --template_lex--> tokens --template_parse--> nodes --template_scope--> nodes with hidden names
 *   nodes + context --template_eval--> output,   through   template_value (what values are),   template_show (how they
 *   print), template_ops (operators, attributes, items), template_call (arguments, macros, globals) and three tables:
 *   template_filters*, template_tests, template_methods.
 *
 * Memory: a compiled template owns one arena, a rendering another. Nothing is freed singly. Values never change, but for
 * namespaces, iterators, loops, cyclers and joiners, so strings and lists are shared freely.
 * Errors: every failure goes through jinja_fail, which jumps to the one setjmp in template.c; what was allocated lies in
 * the arena, so there is nothing to unwind on the way.
 * Bounds: jinja_work spends steps, jinja_enter spends depth, the arena and the output spend bytes. */
#pragma once
#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "models/template.h"

/* ---- failing, memory ---- */

typedef struct {
    jmp_buf  jump;
    error   *err;
    uint32_t line; /* of the template, for the sentence; 0: none */
} trap;

_Noreturn void jinja_fail(trap *t, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

typedef struct arena_block arena_block;
typedef struct {
    trap        *trap;
    arena_block *blocks;
    char        *tip, *end; /* free bytes of the newest block */
    uint64_t     left;      /* bytes that may still be taken */
} arena;

void  arena_init(arena *a, trap *t, uint64_t limit_bytes);
void  arena_free(arena *a);
void *arena_take(arena *a, size_t count, size_t size_each); /* zeroed, 16-byte aligned; fails over the limit */

/* ---- values ---- */

typedef struct {
    const char *data; /* valid UTF-8, not NUL-terminated */
    uint32_t    size; /* bytes */
    uint32_t    chars;
} text;

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
    bool        peeked, ended;
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

/* ---- calls ---- */

typedef struct {
    const value       *items; /* positional */
    uint32_t           count, named_count;
    const text *const *names;
    const value       *named;
} call_args;

/* One row of a table of filters, tests, methods or functions. `params` names what follows self, for binding as in
 * Python ("width first blank"; a leading "/" makes them positional-only); NULL: the function reads `args` itself.
 * Arguments that were not given are V_MISSING in arg[]. */
enum { BUILTIN_PARAMS_MAX = 8 };
typedef value builtin_call(render *r, value self, const value *arg, const call_args *args);
struct builtin {
    const char   *name, *params;
    uint8_t       required;
    builtin_call *call;
};

/* ---- nodes ---- */

typedef enum {
    N_CONST,
    N_NAME,
    N_TUPLE,
    N_LIST,
    N_DICT, /* key, value, key, value ... */
    N_COND, /* test, then, else or NULL */
    N_OR,
    N_AND,
    N_NOT,
    N_NEGATE,
    N_PLUS,
    N_BINARY,  /* op */
    N_COMPARE, /* first, then one kid for each of ops[] */
    N_CONCAT,
    N_ATTRIBUTE,
    N_ITEM,
    N_SLICE,    /* object, start, stop, step; NULL where left out */
    N_CALL,     /* callee, arguments */
    N_FILTER,   /* input, arguments */
    N_TEST,     /* input, arguments */
    N_CAPTURED, /* the text a filter block or set block captured */
    N_STORE,    /* a name that is assigned to */
    N_NAMESPACE_STORE,
    N_TEXT,
    N_OUTPUT,
    N_BODY,
    N_IF, /* test, body, test, body, ..., else body if the count is odd */
    N_FOR,
    N_SET,          /* target, value */
    N_SET_BLOCK,    /* target, filter or NULL, body */
    N_MACRO,        /* parameters (param_count), defaults, body */
    N_CALL_BLOCK,   /* call, macro */
    N_FILTER_BLOCK, /* filter, body */
    N_WITH,         /* target, value, target, value ..., body */
    N_BLOCK,        /* body */
    N_BREAK,
    N_CONTINUE,
} node_kind;

enum { FOR_TARGET, FOR_ITERABLE, FOR_TEST, FOR_BODY, FOR_ELSE, FOR_KIDS };
enum { ARGS_STAR = 1, ARGS_STAR_STAR = 2 };                     /* call flags: the last kids are *a, **k */
enum { MACRO_CALLER = 1, MACRO_KWARGS = 2, MACRO_VARARGS = 4 }; /* macro flags: what its body uses */
enum { FOR_RECURSIVE = 1, BLOCK_SCOPED = 1 };

typedef enum { OP_ADD, OP_SUB, OP_MUL, OP_DIV, OP_FLOORDIV, OP_MOD, OP_POW } binary_op;
typedef enum { CMP_EQ, CMP_NE, CMP_LT, CMP_LE, CMP_GT, CMP_GE, CMP_IN, CMP_NOT_IN } compare_op;

struct node {
    uint8_t            kind, op, flags;
    uint16_t           height; /* of the tree below */
    uint32_t           line, count;
    uint32_t           name_count; /* call: keyword arguments; body: hidden names; macro: parameters */
    node             **kids;
    const text        *name; /* variable, attribute, filter, test */
    const text *const *names;
    const uint8_t     *ops;
    const builtin     *row; /* filter or test; NULL: unknown, an error only when it is reached */
    value              constant;
};

struct template {
    arena arena;
    node *root;
};

/* ---- compiling ---- */

typedef enum {
    T_EOF,
    T_DATA,
    T_VARIABLE_BEGIN,
    T_VARIABLE_END,
    T_BLOCK_BEGIN,
    T_BLOCK_END,
    T_NAME,
    T_STRING,
    T_INTEGER,
    T_FLOAT,
    T_ADD,
    T_SUB,
    T_MUL,
    T_DIV,
    T_FLOORDIV,
    T_MOD,
    T_POW,
    T_TILDE,
    T_EQ,
    T_NE,
    T_LT,
    T_LE,
    T_GT,
    T_GE,
    T_ASSIGN,
    T_DOT,
    T_COLON,
    T_PIPE,
    T_COMMA,
    T_SEMICOLON,
    T_LPAREN,
    T_RPAREN,
    T_LBRACKET,
    T_RBRACKET,
    T_LBRACE,
    T_RBRACE,
} token_kind;

typedef struct {
    token_kind  kind;
    uint32_t    line;
    const char *data; /* data, name, operator: as in the source; string: with escapes resolved */
    uint32_t    size;
    int64_t     integer;
    double      real;
} token;

enum { NESTING_MAX = 200 }; /* brackets, blocks and chained operators in a template; Python's own limits are near */

typedef struct {
    arena      *arena;
    trap       *trap;
    const char *source; /* newlines are \n only, the last one is gone */
    uint32_t    size, at, line;
    uint8_t     state;
    uint32_t    open_count; /* brackets that are open inside a tag */
    char        open[NESTING_MAX];
} lexer;

void  jinja_lex_start(lexer *x, arena *a, const char *source, size_t n);
token jinja_lex(lexer *x); /* T_EOF again and again at the end */

node *jinja_parse(arena *a, const char *source, size_t n);
void  jinja_hide_names(arena *a, node *root);

const builtin       *jinja_find_filter(const char *name, size_t n);
const builtin       *jinja_find_test(const char *name, size_t n);
const builtin       *jinja_find_method(value_kind kind, const text *name);
const builtin       *jinja_find_function(const text *name);
const builtin       *jinja_find_row(const builtin *rows, size_t count, const char *name, size_t n);
extern const builtin jinja_text_filters[];
extern const size_t  jinja_text_filter_count;

/* ---- rendering ---- */

/* A frame of variables. Lookup walks outward; assignment is always to the innermost. */
struct scope {
    scope *outside;
    struct variable {
        const text *name;
        value       held; /* V_MISSING: hidden, see template_scope.c */
    } * variables;
    uint32_t count, capacity;
};

struct render {
    trap  trap;
    arena arena;
    const template *template;
    uint64_t    steps_left;
    uint32_t    depth_left;
    buf         out; /* the output, and above it, as a stack, every string in the making */
    scope      *root, *scope;
    const dict *context;
    const text *captured; /* what N_CAPTURED stands for */
    int64_t     now_unix_s;
};

#define FAIL(r, ...) jinja_fail(&(r)->trap, ERR_INVALID, __VA_ARGS__)

void               jinja_out_of_steps(render *r) __attribute__((noreturn));
void               jinja_out_of_depth(render *r) __attribute__((noreturn));
static inline void jinja_work(render *r, uint64_t steps) {
    if (r->steps_left < steps) jinja_out_of_steps(r);
    r->steps_left -= steps;
}
static inline void jinja_work_bytes(render *r, size_t n) { jinja_work(r, 1 + n / 32); }
static inline void jinja_enter(render *r) {
    if (r->depth_left == 0) jinja_out_of_depth(r);
    r->depth_left--;
}
static inline void jinja_leave(render *r) { r->depth_left++; }

/* template_memory.c: strings in the making lie on top of r->out; jinja_cut takes off what came after `mark`. */
static inline size_t jinja_mark(const render *r) { return r->out.size; }
void                 jinja_put(render *r, const void *bytes, size_t n);
void                 jinja_put_str(render *r, const char *s);
void                 jinja_put_char(render *r, uint32_t codepoint);
void                 jinja_put_format(render *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
const text          *jinja_cut_text(render *r, size_t mark);
value                jinja_cut(render *r, size_t mark);
const text          *jinja_text(arena *a, const char *data, size_t n);        /* copies */
const text          *jinja_text_within(arena *a, const char *data, size_t n); /* points to data, which must live as long */
const char          *jinja_cstr(render *r, const text *t);                    /* for messages: cut short, NUL-terminated */

/* template_value.c */
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

const char    *jinja_type_name(value v); /* as Python calls it: "str", "NoneType" */
value          jinja_undefined_name(render *r, const text *name);
value          jinja_undefined_member(render *r, value owner, value name);
value          jinja_undefined_hint(render *r, const char *hint);
_Noreturn void jinja_fail_undefined(render *r, value undefined_value);

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

/* template_iterate.c */
bool      jinja_is_iterable(value v);
iterator *jinja_iterate(render *r, value v); /* fails on what cannot be iterated */
bool      jinja_next(render *r, iterator *it, value *out);
iterator *jinja_reversed(render *r, value v); /* NULL: cannot be */
iterator *jinja_iterator_new(render *r, iterator_next *next, value over, const char *type);
value     iterator_value(iterator *it);
value     jinja_range_at(const range *g, int64_t i);
value     jinja_view_at(render *r, const view *w, uint32_t i);

/* template_show.c: appended to r->out */
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

/* template_text.c: texts as sequences of characters */
uint32_t text_offset(render *r, const text *t, uint32_t index);       /* byte offset of character `index` */
uint32_t text_chars_before(render *r, const text *t, uint32_t bytes); /* characters in the first `bytes` */
value    text_part(render *r, value of, uint32_t from_byte, uint32_t to_byte);
int64_t  text_find(render *r, const text *t, const text *part, size_t from_byte, size_t to_byte); /* byte, or -1 */
int64_t  text_rfind(render *r, const text *t, const text *part, size_t from_byte, size_t to_byte);
bool     text_is_space(uint32_t codepoint);
bool     text_is_printable(uint32_t codepoint);
bool     text_is_word(uint32_t codepoint);
enum { STRIP_LEFT = 1, STRIP_RIGHT = 2 };
value text_strip(render *r, value of, value chars, unsigned sides);
typedef enum { CASE_UPPER, CASE_LOWER, CASE_TITLE, CASE_FOLD, CASE_SWAP, CASE_CAPITALIZE } text_case;
value text_recase(render *r, value of, text_case how);
typedef struct {
    const text *old, *new;
    int64_t     count_max; /* negative: all */
} text_change;
value text_replace(render *r, value of, const text_change *change);
value text_split(render *r, value of, const text *separator_or_null, int64_t splits_max);
value text_rsplit(render *r, value of, const text *separator_or_null, int64_t splits_max);
value text_lines(render *r, value of, bool keep_ends);
value text_slice(render *r, value of, value start, value stop, value step);
value text_pad(render *r, value of, int64_t width, const text *fill, int where); /* <0 left, 0 center, >0 right */

/* template_format.c */
value jinja_format_percent(render *r, value format, value with); /* "%s" % x */
value jinja_format_braces(render *r, value format, const call_args *args,
                          const dict *mapping_or_null);                       /* format, format_map */
bool  jinja_parse_int(const text *t, int base, int64_t *out, bool *overflow); /* as int(str, base) */
bool  jinja_parse_real(const text *t, double *out);

/* template_ops.c */
value   jinja_binary(render *r, binary_op op, value a, value b);
bool    jinja_compare(render *r, compare_op op, value a, value b);
value   jinja_negate(render *r, value v);
value   jinja_plus(render *r, value v);
value   jinja_attribute(render *r, value owner, const text *name);
value   jinja_item(render *r, value owner, value key);
value   jinja_slice(render *r, value of, value start, value stop, value step);
int64_t jinja_slice_bounds(render *r, int64_t length, value bounds[3], int64_t *first); /* count; bounds[2] = step */

/* template_sort.c */
void jinja_sort(render *r, value *items, const value *keys, uint32_t count, bool reverse);

/* template_call.c */
value       jinja_call(render *r, value callee, const call_args *args);
value       jinja_call_row(render *r, const builtin *row, value self, const call_args *args);
value       jinja_call_filter(render *r, const text *name, value self, const call_args *args);
bool        jinja_call_test(render *r, const text *name, value self, const call_args *args);
int64_t     arg_int(render *r, value v, int64_t otherwise);
bool        arg_truth(value v, bool otherwise);
const text *arg_text(render *r, value v, const char *what);

/* template_eval.c */
void   jinja_run(render *r);
value  jinja_eval(render *r, const node *n);
value  jinja_run_body(render *r, const node *body, scope *inner);
value  jinja_run_loop(render *r, const node *n, scope *outside, value over, uint32_t depth0);
scope *scope_open(render *r, scope *outside);
void   scope_set(render *r, scope *s, const text *name, value v);
value  jinja_loop_attribute(render *r, loop_state *l, const text *name); /* V_MISSING: there is none */
