/* models/template_node.h: a template between its source and its output: tokens, then nodes.
 *
 *   source --template_lex.c--> tokens --template_parse*.c--> nodes --template_scope.c--> nodes with hidden names */
#pragma once
#include "models/template_value.h"

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
    N_IF,           /* test, body, test, body, ..., else body if the count is odd */
    N_FOR,          /* kids by FOR_... */
    N_SET,          /* target, value */
    N_SET_BLOCK,    /* target, filter or NULL, body */
    N_MACRO,        /* parameters (name_count), defaults, body */
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

/* A row of the tables of filters and tests, or NULL. */
const builtin *jinja_find_filter(const char *name, size_t n);
const builtin *jinja_find_test(const char *name, size_t n);
