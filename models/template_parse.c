/* models/template_parse.c: tokens made into nodes, by recursive descent. Each function is one rule of Jinja's grammar and
 * leaves the parser at the first token after it. Statements are a table from the tag's name to its rule. */
#include <string.h>

#include "models/template_internal.h"

typedef struct parser {
    lexer    x;
    token    now, ahead;
    bool     looked_ahead;
    unsigned depth, loops, outer_loops; /* loops: `for`s around this place within the same macro */
} parser;

#define PARSE_FAIL(p, at_line, ...) ((p)->x.trap->line = (at_line), jinja_fail((p)->x.trap, ERR_INVALID, __VA_ARGS__))

static node *parse_expression(parser *p);
static node *parse_statements(parser *p, const char *const *ends);

/* ---- tokens ---- */

static void advance(parser *p) {
    p->now = p->looked_ahead ? p->ahead : jinja_lex(&p->x);
    p->looked_ahead = false;
}

static const token *look(parser *p) {
    if (!p->looked_ahead) p->ahead = jinja_lex(&p->x), p->looked_ahead = true;
    return &p->ahead;
}

static bool token_is_name(const token *t, const char *name) {
    return t->kind == T_NAME && t->size == strlen(name) && memcmp(t->data, name, t->size) == 0;
}
static bool at_name(const parser *p, const char *name) { return token_is_name(&p->now, name); }

static bool skip_name(parser *p, const char *name) {
    if (!at_name(p, name)) return false;
    advance(p);
    return true;
}

static bool skip(parser *p, token_kind kind) {
    if (p->now.kind != kind) return false;
    advance(p);
    return true;
}

static const char *token_words(const token *t) {
    static const char *const words[] = {
        [T_EOF] = "the end of the template",
        [T_DATA] = "text",
        [T_VARIABLE_BEGIN] = "'{{'",
        [T_VARIABLE_END] = "'}}'",
        [T_BLOCK_BEGIN] = "'{%'",
        [T_BLOCK_END] = "'%}'",
        [T_NAME] = "a name",
        [T_STRING] = "a string",
        [T_INTEGER] = "an integer",
        [T_FLOAT] = "a number",
        [T_ASSIGN] = "'='",
        [T_COLON] = "':'",
        [T_COMMA] = "','",
        [T_LPAREN] = "'('",
        [T_RPAREN] = "')'",
        [T_LBRACKET] = "'['",
        [T_RBRACKET] = "']'",
        [T_LBRACE] = "'{'",
        [T_RBRACE] = "'}'",
    };
    return (size_t)t->kind < sizeof words / sizeof *words && words[t->kind] ? words[t->kind] : "an operator";
}

static _Noreturn void fail_at_token(parser *p, const char *expected) {
    const token *t = &p->now;
    if (t->kind == T_NAME)
        PARSE_FAIL(p, t->line, "expected %s, not '%.*s'", expected, t->size > 60 ? 60 : (int)t->size, t->data);
    PARSE_FAIL(p, t->line, "expected %s, not %s", expected, token_words(t));
}

static token expect(parser *p, token_kind kind) {
    token t = p->now;
    if (t.kind != kind) fail_at_token(p, token_words(&(token){.kind = kind}));
    advance(p);
    return t;
}

static void expect_name(parser *p, const char *name) {
    if (!skip_name(p, name)) fail_at_token(p, name);
}

/* ---- nodes ---- */

typedef struct {
    node   **kids;
    uint32_t count, capacity;
} node_list;

static void add(parser *p, node_list *l, node *n) {
    if (l->count == l->capacity) {
        uint32_t capacity = l->capacity ? l->capacity * 2 : 4;
        node   **kids = arena_take(p->x.arena, capacity, sizeof *kids);
        if (l->count) memcpy(kids, l->kids, l->count * sizeof *kids);
        l->kids = kids, l->capacity = capacity;
    }
    l->kids[l->count++] = n;
}

static node *make(parser *p, node_kind kind, uint32_t line, const node_list *kids) {
    node *n = arena_take(p->x.arena, 1, sizeof *n);
    *n = (node){.kind = (uint8_t)kind, .line = line, .count = kids->count, .kids = kids->kids};
    for (uint32_t i = 0; i < n->count; i++)
        if (n->kids[i] && n->kids[i]->height >= n->height) n->height = n->kids[i]->height + 1;
    if (n->height > NESTING_MAX) PARSE_FAIL(p, line, "this nests or chains more than %d levels", NESTING_MAX);
    return n;
}

static node *make_leaf(parser *p, node_kind kind, uint32_t line) { return make(p, kind, line, &(node_list){0}); }

static node *make_with(parser *p, node_kind kind, uint32_t line, unsigned count, node *const *kids) {
    node_list l = {0};
    for (unsigned i = 0; i < count; i++) add(p, &l, kids[i]);
    return make(p, kind, line, &l);
}
#define MAKE(p, kind, line, ...)                                                                                            \
    make_with(p, kind, line, sizeof((node *[]){__VA_ARGS__}) / sizeof(node *), (node *[]){__VA_ARGS__})

static const text *token_text(parser *p, const token *t) { return jinja_text(p->x.arena, t->data, t->size); }

static node *make_constant(parser *p, uint32_t line, value v) {
    node *n = make_leaf(p, N_CONST, line);
    n->constant = v;
    return n;
}

static node *make_named(parser *p, node_kind kind, const token *name) {
    node *n = make_leaf(p, kind, name->line);
    n->name = token_text(p, name);
    return n;
}

/* ---- primary expressions ---- */

static const struct {
    const char *name;
    value       v;
} constants[] = {
    {"true", {.kind = V_BOOL, .truth = true}},
    {"True", {.kind = V_BOOL, .truth = true}},
    {"false", {.kind = V_BOOL}},
    {"False", {.kind = V_BOOL}},
    {"none", {.kind = V_NONE}},
    {"None", {.kind = V_NONE}},
};

static node *parse_name(parser *p) {
    token t = expect(p, T_NAME);
    for (size_t i = 0; i < sizeof constants / sizeof *constants; i++)
        if (token_is_name(&t, constants[i].name)) return make_constant(p, t.line, constants[i].v);
    return make_named(p, N_NAME, &t);
}

static node *parse_strings(parser *p) { /* strings that follow each other are one */
    token  first = p->now;
    size_t size = 0, room = 0;
    char  *joined = NULL;
    for (; p->now.kind == T_STRING; advance(p)) {
        if (size + p->now.size > room) {
            room = (size + p->now.size) * 2;
            char *more = arena_take(p->x.arena, room, 1);
            if (size) memcpy(more, joined, size);
            joined = more;
        }
        if (p->now.size) memcpy(joined + size, p->now.data, p->now.size);
        size += p->now.size;
    }
    return make_constant(p, first.line, text_value(jinja_text_within(p->x.arena, joined ? joined : "", size)));
}

static bool ends_tuple(const parser *p, const char *stop_name) {
    token_kind k = p->now.kind;
    return k == T_VARIABLE_END || k == T_BLOCK_END || k == T_RPAREN || (stop_name && at_name(p, stop_name));
}

typedef struct {
    node *(*item)(parser *p);
    const char *stop_name;
    bool        may_be_empty;
} tuple_rule;

/* One expression, or several with commas between: a tuple. */
static node *parse_tuple(parser *p, tuple_rule rule) {
    uint32_t  line = p->now.line;
    node_list items = {0};
    bool      is_tuple = false;
    while (!ends_tuple(p, rule.stop_name)) {
        add(p, &items, rule.item(p));
        if (!skip(p, T_COMMA)) break;
        is_tuple = true;
    }
    if (!is_tuple && items.count) return items.kids[0];
    if (!is_tuple && !rule.may_be_empty) fail_at_token(p, "an expression");
    return make(p, N_TUPLE, line, &items);
}

static node *parse_parentheses(parser *p) {
    expect(p, T_LPAREN);
    node *inner = parse_tuple(p, (tuple_rule){.item = parse_expression, .may_be_empty = true});
    expect(p, T_RPAREN);
    return inner;
}

static node *parse_list(parser *p) {
    uint32_t  line = expect(p, T_LBRACKET).line;
    node_list items = {0};
    while (p->now.kind != T_RBRACKET) {
        add(p, &items, parse_expression(p));
        if (!skip(p, T_COMMA)) break;
    }
    expect(p, T_RBRACKET);
    return make(p, N_LIST, line, &items);
}

static node *parse_dict(parser *p) {
    uint32_t  line = expect(p, T_LBRACE).line;
    node_list items = {0};
    while (p->now.kind != T_RBRACE) {
        add(p, &items, parse_expression(p));
        expect(p, T_COLON);
        add(p, &items, parse_expression(p));
        if (!skip(p, T_COMMA)) break;
    }
    expect(p, T_RBRACE);
    return make(p, N_DICT, line, &items);
}

static node *parse_primary(parser *p) {
    token t = p->now;
    switch (t.kind) {
    case T_NAME: return parse_name(p);
    case T_STRING: return parse_strings(p);
    case T_INTEGER: advance(p); return make_constant(p, t.line, int_value(t.integer));
    case T_FLOAT: advance(p); return make_constant(p, t.line, real_value(t.real));
    case T_LPAREN: return parse_parentheses(p);
    case T_LBRACKET: return parse_list(p);
    case T_LBRACE: return parse_dict(p);
    default: fail_at_token(p, "an expression");
    }
}

/* ---- calls, subscripts, filters, tests ---- */

/* Arguments in parentheses, added behind what `kids` holds already; keyword names and flags go into *shape. */
static void parse_arguments(parser *p, node_list *kids, node *shape) {
    const text **names = NULL;
    uint32_t     names_room = 0, line = expect(p, T_LPAREN).line;
    node        *star = NULL, *star_star = NULL;
    while (p->now.kind != T_RPAREN) {
        bool ok = !star_star;
        if (skip(p, T_MUL)) {
            ok = ok && !star, star = parse_expression(p);
        } else if (skip(p, T_POW)) {
            star_star = parse_expression(p);
        } else if (p->now.kind == T_NAME && look(p)->kind == T_ASSIGN) {
            if (shape->name_count == names_room) {
                const text **more = arena_take(p->x.arena, names_room = names_room ? names_room * 2 : 4, sizeof *names);
                if (shape->name_count) memcpy(more, names, shape->name_count * sizeof *names);
                names = more;
            }
            names[shape->name_count++] = token_text(p, &p->now);
            advance(p), advance(p);
            add(p, kids, parse_expression(p));
        } else {
            ok = ok && !star && !shape->name_count, add(p, kids, parse_expression(p));
        }
        if (!ok) PARSE_FAIL(p, line, "the arguments of a call are in an order that Python does not allow");
        if (!skip(p, T_COMMA)) break;
    }
    expect(p, T_RPAREN);
    if (star) add(p, kids, star), shape->flags |= ARGS_STAR;
    if (star_star) add(p, kids, star_star), shape->flags |= ARGS_STAR_STAR;
    shape->names = names;
}

static node *parse_call(parser *p, node *callee) {
    node      shape = {0};
    node_list kids = {0};
    uint32_t  line = p->now.line;
    add(p, &kids, callee);
    parse_arguments(p, &kids, &shape);
    node *n = make(p, N_CALL, line, &kids);
    n->flags = shape.flags, n->names = shape.names, n->name_count = shape.name_count;
    return n;
}

static node *parse_bound(parser *p) { /* one of the three in a slice */
    token_kind k = p->now.kind;
    return k == T_COLON || k == T_RBRACKET || k == T_COMMA ? NULL : parse_expression(p);
}

/* What stands between the brackets; a slice comes back as N_SLICE whose first kid is still missing. */
static node *parse_subscript_item(parser *p) {
    uint32_t line = p->now.line;
    node    *start = parse_bound(p);
    if (!skip(p, T_COLON)) {
        if (!start) fail_at_token(p, "an expression");
        return start;
    }
    node *stop = parse_bound(p), *step = skip(p, T_COLON) ? parse_bound(p) : NULL;
    return MAKE(p, N_SLICE, line, NULL, start, stop, step);
}

static node *parse_brackets(parser *p, node *owner) {
    uint32_t  line = expect(p, T_LBRACKET).line;
    node_list items = {0};
    while (p->now.kind != T_RBRACKET) {
        add(p, &items, parse_subscript_item(p));
        if (!skip(p, T_COMMA)) break;
    }
    expect(p, T_RBRACKET);
    if (items.count == 1 && items.kids[0]->kind == N_SLICE && !items.kids[0]->kids[0]) {
        node **bounds = items.kids[0]->kids;
        return MAKE(p, N_SLICE, line, owner, bounds[1], bounds[2], bounds[3]);
    }
    for (uint32_t i = 0; i < items.count; i++)
        if (items.kids[i]->kind == N_SLICE && !items.kids[i]->kids[0])
            PARSE_FAIL(p, line, "a slice stands alone between its brackets");
    return MAKE(p, N_ITEM, line, owner, items.count == 1 ? items.kids[0] : make(p, N_TUPLE, line, &items));
}

static node *parse_dot(parser *p, node *owner) {
    uint32_t line = expect(p, T_DOT).line;
    if (p->now.kind == T_INTEGER) {
        node *index = parse_primary(p);
        return MAKE(p, N_ITEM, line, owner, index);
    }
    token name = expect(p, T_NAME);
    node *n = MAKE(p, N_ATTRIBUTE, line, owner);
    n->name = token_text(p, &name);
    return n;
}

static node *parse_postfix(parser *p, node *n) {
    for (;;) {
        if (p->now.kind == T_DOT) n = parse_dot(p, n);
        else if (p->now.kind == T_LBRACKET) n = parse_brackets(p, n);
        else if (p->now.kind == T_LPAREN) n = parse_call(p, n);
        else return n;
    }
}

static const text *parse_dotted_name(parser *p) {
    token       t = expect(p, T_NAME);
    const text *name = token_text(p, &t);
    while (skip(p, T_DOT)) {
        token more = expect(p, T_NAME);
        char *joined = arena_take(p->x.arena, (size_t)name->size + 1 + more.size, 1);
        memcpy(joined, name->data, name->size);
        joined[name->size] = '.';
        memcpy(joined + name->size + 1, more.data, more.size);
        name = jinja_text_within(p->x.arena, joined, (size_t)name->size + 1 + more.size);
    }
    return name;
}

static node *finish_builtin(node *n, const text *name, const node *shape) {
    n->name = name, n->flags = shape->flags, n->names = shape->names, n->name_count = shape->name_count;
    n->row = n->kind == N_FILTER ? jinja_find_filter(name->data, name->size) : jinja_find_test(name->data, name->size);
    return n;
}

/* name, name(args); the parser stands at the name. */
static node *parse_filter_name(parser *p, node *input) {
    uint32_t    line = p->now.line;
    const text *name = parse_dotted_name(p);
    node        shape = {0};
    node_list   kids = {0};
    add(p, &kids, input);
    if (p->now.kind == T_LPAREN) parse_arguments(p, &kids, &shape);
    return finish_builtin(make(p, N_FILTER, line, &kids), name, &shape);
}

static bool starts_test_argument(const parser *p) {
    switch (p->now.kind) {
    case T_NAME: return !at_name(p, "else") && !at_name(p, "or") && !at_name(p, "and");
    case T_STRING:
    case T_INTEGER:
    case T_FLOAT:
    case T_LBRACKET:
    case T_LBRACE: return true;
    default: return false;
    }
}

static node *parse_test(parser *p, node *input) {
    uint32_t line = p->now.line;
    expect_name(p, "is");
    bool        negated = skip_name(p, "not");
    const text *name = parse_dotted_name(p);
    node        shape = {0};
    node_list   kids = {0};
    add(p, &kids, input);
    if (p->now.kind == T_LPAREN) {
        parse_arguments(p, &kids, &shape);
    } else if (starts_test_argument(p)) {
        if (at_name(p, "is")) PARSE_FAIL(p, line, "tests with 'is' cannot be chained");
        node *argument = parse_primary(p);
        add(p, &kids, parse_postfix(p, argument));
    }
    node *n = finish_builtin(make(p, N_TEST, line, &kids), name, &shape);
    return negated ? MAKE(p, N_NOT, line, n) : n;
}

static node *parse_filters_and_tests(parser *p, node *n) {
    for (;;) {
        if (skip(p, T_PIPE)) n = parse_filter_name(p, n);
        else if (at_name(p, "is")) n = parse_test(p, n);
        else if (p->now.kind == T_LPAREN) n = parse_call(p, n);
        else return n;
    }
}

/* ---- operators, loosest last ---- */

static node *parse_unary(parser *p, bool with_filters) {
    uint32_t line = p->now.line;
    node    *n;
    if (++p->depth > NESTING_MAX) PARSE_FAIL(p, line, "expressions nest deeper than %d levels", NESTING_MAX);
    if (skip(p, T_SUB)) {
        n = parse_unary(p, false), n = MAKE(p, N_NEGATE, line, n);
    } else if (skip(p, T_ADD)) {
        n = parse_unary(p, false), n = MAKE(p, N_PLUS, line, n);
    } else {
        n = parse_primary(p);
    }
    n = parse_postfix(p, n);
    if (with_filters) n = parse_filters_and_tests(p, n);
    p->depth--;
    return n;
}

static node *make_binary(parser *p, binary_op op, node *left, node *right) {
    node *n = MAKE(p, N_BINARY, left->line, left, right);
    n->op = (uint8_t)op;
    return n;
}

static node *parse_power(parser *p) {
    node *left = parse_unary(p, true);
    while (skip(p, T_POW)) left = make_binary(p, OP_POW, left, parse_unary(p, true));
    return left;
}

static node *parse_product(parser *p) {
    static const uint8_t ops[] = {[T_MUL] = OP_MUL, [T_DIV] = OP_DIV, [T_FLOORDIV] = OP_FLOORDIV, [T_MOD] = OP_MOD};
    node                *left = parse_power(p);
    for (token_kind k; (k = p->now.kind) == T_MUL || k == T_DIV || k == T_FLOORDIV || k == T_MOD;) {
        advance(p);
        left = make_binary(p, ops[k], left, parse_power(p));
    }
    return left;
}

static node *parse_concat(parser *p) {
    uint32_t  line = p->now.line;
    node_list parts = {0};
    do add(p, &parts, parse_product(p));
    while (skip(p, T_TILDE));
    return parts.count == 1 ? parts.kids[0] : make(p, N_CONCAT, line, &parts);
}

static node *parse_sum(parser *p) {
    node *left = parse_concat(p);
    for (token_kind k; (k = p->now.kind) == T_ADD || k == T_SUB;) {
        advance(p);
        left = make_binary(p, k == T_ADD ? OP_ADD : OP_SUB, left, parse_concat(p));
    }
    return left;
}

static bool skip_comparison(parser *p, uint8_t *op) {
    static const uint8_t ops[] = {
        [T_EQ] = CMP_EQ, [T_NE] = CMP_NE, [T_LT] = CMP_LT, [T_LE] = CMP_LE, [T_GT] = CMP_GT, [T_GE] = CMP_GE};
    token_kind k = p->now.kind;
    if (k >= T_EQ && k <= T_GE) *op = ops[k];
    else if (at_name(p, "in")) *op = CMP_IN;
    else if (at_name(p, "not") && token_is_name(look(p), "in")) advance(p), *op = CMP_NOT_IN;
    else return false;
    advance(p);
    return true;
}

static node *parse_comparison(parser *p) {
    enum { CHAIN_MAX = 64 };
    uint32_t  line = p->now.line, count = 0;
    uint8_t   ops[CHAIN_MAX];
    node_list kids = {0};
    add(p, &kids, parse_sum(p));
    for (uint8_t op; skip_comparison(p, &op); add(p, &kids, parse_sum(p))) {
        if (count == CHAIN_MAX) PARSE_FAIL(p, line, "more than %d comparisons are chained", CHAIN_MAX);
        ops[count++] = op;
    }
    if (count == 0) return kids.kids[0];
    node    *n = make(p, N_COMPARE, line, &kids);
    uint8_t *kept = arena_take(p->x.arena, count, 1);
    memcpy(kept, ops, count);
    n->ops = kept;
    return n;
}

static node *parse_not(parser *p) {
    unsigned negations = 0;
    uint32_t line = p->now.line;
    for (; skip_name(p, "not"); negations++)
        if (negations == NESTING_MAX) PARSE_FAIL(p, line, "more than %d 'not's follow each other", NESTING_MAX);
    node *n = parse_comparison(p);
    while (negations--) n = MAKE(p, N_NOT, line, n);
    return n;
}

static node *parse_and(parser *p) {
    node *left = parse_not(p);
    while (skip_name(p, "and")) {
        node *right = parse_not(p);
        left = MAKE(p, N_AND, left->line, left, right);
    }
    return left;
}

static node *parse_or(parser *p) {
    node *left = parse_and(p);
    while (skip_name(p, "or")) {
        node *right = parse_and(p);
        left = MAKE(p, N_OR, left->line, left, right);
    }
    return left;
}

/* `a if b else c` */
static node *parse_expression(parser *p) {
    uint32_t line = p->now.line;
    if (++p->depth > NESTING_MAX) PARSE_FAIL(p, line, "expressions nest deeper than %d levels", NESTING_MAX);
    node *n = parse_or(p);
    while (skip_name(p, "if")) {
        node *test = parse_or(p), *otherwise = NULL;
        if (skip_name(p, "else")) otherwise = parse_expression(p);
        n = MAKE(p, N_COND, line, test, n, otherwise);
    }
    p->depth--;
    return n;
}

static node *parse_any_tuple(parser *p) { return parse_tuple(p, (tuple_rule){.item = parse_expression}); }

/* ---- targets of assignments ---- */

static void check_target(parser *p, node *n) {
    if (n->kind == N_NAME) {
        n->kind = N_STORE;
        if (p->loops + p->outer_loops && TEXT_IS(n->name, "loop"))
            PARSE_FAIL(p, n->line, "the special variable 'loop' cannot be assigned to inside a loop");
    } else if (n->kind == N_TUPLE) {
        for (uint32_t i = 0; i < n->count; i++) check_target(p, n->kids[i]);
    } else if (n->kind != N_NAMESPACE_STORE) {
        PARSE_FAIL(p, n->line, "only names can be assigned to");
    }
}

static node *parse_target_item(parser *p) { /* a name or a namespace's attribute */
    if (p->now.kind != T_NAME || look(p)->kind != T_DOT) return parse_primary(p);
    token owner = expect(p, T_NAME);
    node *object = make_named(p, N_NAME, &owner);
    expect(p, T_DOT);
    token attribute = expect(p, T_NAME);
    node *n = MAKE(p, N_NAMESPACE_STORE, owner.line, object);
    n->name = token_text(p, &attribute);
    return n;
}

static node *parse_target(parser *p, tuple_rule rule) {
    node *target = parse_tuple(p, rule);
    check_target(p, target);
    return target;
}

static node *parse_name_target(parser *p) {
    token name = expect(p, T_NAME);
    return make_named(p, N_STORE, &name);
}

/* ---- statements ---- */

static const char *const END_IF[] = {"elif", "else", "endif", NULL}, *const END_ELSE[] = {"endif", NULL},
                         *const END_FOR[] = {"endfor", "else", NULL}, *const END_FOR_ELSE[] = {"endfor", NULL};

static node *parse_if(parser *p) {
    uint32_t  line = p->now.line;
    node_list kids = {0};
    do {
        advance(p); /* if, elif */
        add(p, &kids, parse_tuple(p, (tuple_rule){.item = parse_or}));
        add(p, &kids, parse_statements(p, END_IF));
    } while (at_name(p, "elif"));
    if (skip_name(p, "else")) add(p, &kids, parse_statements(p, END_ELSE));
    expect_name(p, "endif");
    return make(p, N_IF, line, &kids);
}

static node *parse_for(parser *p) {
    node    *kids[FOR_KIDS] = {0};
    uint32_t line = p->now.line;
    uint8_t  flags = 0;
    advance(p);
    p->loops++;
    kids[FOR_TARGET] = parse_target(p, (tuple_rule){.item = parse_primary, .stop_name = "in"});
    p->loops--;
    expect_name(p, "in");
    kids[FOR_ITERABLE] = parse_tuple(p, (tuple_rule){.item = parse_or, .stop_name = "recursive"});
    p->loops++;
    if (skip_name(p, "if")) kids[FOR_TEST] = parse_expression(p);
    if (skip_name(p, "recursive")) flags |= FOR_RECURSIVE;
    kids[FOR_BODY] = parse_statements(p, END_FOR);
    p->loops--;
    if (skip_name(p, "else")) kids[FOR_ELSE] = parse_statements(p, END_FOR_ELSE);
    expect_name(p, "endfor");
    node *n = make_with(p, N_FOR, line, FOR_KIDS, kids);
    n->flags = flags;
    return n;
}

/* A body that ends with {% end... %}, in a frame of its own. */
static node *parse_block_body(parser *p, const char *end) {
    node *body = parse_statements(p, (const char *const[]){end, NULL});
    expect_name(p, end);
    return body;
}

static node *parse_filter_chain(parser *p, node *input) {
    do input = parse_filter_name(p, input);
    while (skip(p, T_PIPE));
    return input;
}

static node *parse_set(parser *p) {
    uint32_t line = p->now.line;
    advance(p);
    node *target = parse_target(p, (tuple_rule){.item = parse_target_item});
    if (skip(p, T_ASSIGN)) {
        node *v = parse_any_tuple(p);
        return MAKE(p, N_SET, line, target, v);
    }
    node *filter = skip(p, T_PIPE) ? parse_filter_chain(p, make_leaf(p, N_CAPTURED, line)) : NULL;
    node *body = parse_block_body(p, "endset");
    return MAKE(p, N_SET_BLOCK, line, target, filter, body);
}

static node *parse_filter_block(parser *p) {
    uint32_t line = p->now.line;
    advance(p);
    node *filter = parse_filter_chain(p, make_leaf(p, N_CAPTURED, line));
    node *body = parse_block_body(p, "endfilter");
    return MAKE(p, N_FILTER_BLOCK, line, filter, body);
}

static node *parse_with(parser *p) {
    uint32_t  line = p->now.line;
    node_list kids = {0};
    advance(p);
    while (p->now.kind != T_BLOCK_END) {
        if (kids.count) expect(p, T_COMMA);
        add(p, &kids, parse_target(p, (tuple_rule){.item = parse_primary}));
        expect(p, T_ASSIGN);
        add(p, &kids, parse_expression(p));
    }
    add(p, &kids, parse_block_body(p, "endwith"));
    return make(p, N_WITH, line, &kids);
}

/* (a, b, c=1): names, then defaults. */
static void parse_signature(parser *p, node_list *kids, uint32_t *parameters) {
    node_list defaults = {0};
    expect(p, T_LPAREN);
    while (p->now.kind != T_RPAREN) {
        if (kids->count) expect(p, T_COMMA);
        add(p, kids, parse_name_target(p));
        if (skip(p, T_ASSIGN)) add(p, &defaults, parse_expression(p));
        else if (defaults.count) fail_at_token(p, "a default, as the parameter before has one");
    }
    expect(p, T_RPAREN);
    *parameters = kids->count;
    for (uint32_t i = 0; i < defaults.count; i++) add(p, kids, defaults.kids[i]);
}

static bool mentions(const node *n, const char *name) {
    if (!n) return false;
    if (n->kind == N_NAME && text_is(n->name, name, strlen(name))) return true;
    for (uint32_t i = 0; i < n->count; i++)
        if (mentions(n->kids[i], name)) return true;
    return false;
}

static bool has_parameter(const node *n, const char *name) {
    for (uint32_t i = 0; i < n->name_count; i++)
        if (text_is(n->kids[i]->name, name, strlen(name))) return true;
    return false;
}

/* The part of a macro that a call block shares: kids holds parameters and defaults. */
static node *finish_macro(parser *p, node_list *kids, uint32_t parameters, uint32_t line, const char *end) {
    static const struct {
        const char *name;
        uint8_t     flag;
    } special[] = {{"caller", MACRO_CALLER}, {"kwargs", MACRO_KWARGS}, {"varargs", MACRO_VARARGS}};
    unsigned loops = p->loops;
    p->outer_loops += loops, p->loops = 0;
    node *body = parse_block_body(p, end);
    p->outer_loops -= loops, p->loops = loops;
    add(p, kids, body);
    node *n = make(p, N_MACRO, line, kids);
    n->name_count = parameters;
    for (size_t i = 0; i < sizeof special / sizeof *special; i++)
        if (mentions(body, special[i].name) && !has_parameter(n, special[i].name)) n->flags |= special[i].flag;
    return n;
}

static node *parse_macro(parser *p) {
    uint32_t  line = p->now.line, parameters = 0;
    node_list kids = {0};
    advance(p);
    token name = expect(p, T_NAME);
    parse_signature(p, &kids, &parameters);
    node *n = finish_macro(p, &kids, parameters, line, "endmacro");
    n->name = token_text(p, &name);
    return n;
}

static node *parse_call_block(parser *p) {
    uint32_t  line = p->now.line, parameters = 0;
    node_list kids = {0};
    advance(p);
    if (p->now.kind == T_LPAREN) parse_signature(p, &kids, &parameters);
    node *call = parse_expression(p);
    if (call->kind != N_CALL) PARSE_FAIL(p, line, "a call block needs a call, as in {%% call name() %%}");
    node *body = finish_macro(p, &kids, parameters, line, "endcall");
    return MAKE(p, N_CALL_BLOCK, line, call, body);
}

/* {% generation %} marks what the assistant said, for training; here it is only a frame of its own. */
static node *parse_generation(parser *p) {
    uint32_t line = p->now.line;
    advance(p);
    unsigned loops = p->loops;
    p->outer_loops += loops, p->loops = 0;
    node *body = parse_block_body(p, "endgeneration");
    p->outer_loops -= loops, p->loops = loops;
    return MAKE(p, N_WITH, line, body);
}

static node *parse_block(parser *p) {
    uint32_t line = p->now.line;
    advance(p);
    token name = expect(p, T_NAME);
    bool  scoped = skip_name(p, "scoped");
    skip_name(p, "required");
    unsigned loops = p->loops;
    p->outer_loops += loops, p->loops = 0;
    node *body = parse_block_body(p, "endblock");
    p->outer_loops -= loops, p->loops = loops;
    if (p->now.kind == T_NAME && p->now.size == name.size && memcmp(p->now.data, name.data, name.size) == 0) advance(p);
    node *n = MAKE(p, N_BLOCK, line, body);
    n->flags = scoped ? BLOCK_SCOPED : 0;
    return n;
}

static node *parse_print(parser *p) {
    uint32_t  line = p->now.line;
    node_list kids = {0};
    advance(p);
    while (p->now.kind != T_BLOCK_END) {
        if (kids.count) expect(p, T_COMMA);
        node *e = parse_expression(p);
        add(p, &kids, MAKE(p, N_OUTPUT, e->line, e));
    }
    return make(p, N_BODY, line, &kids);
}

static node *parse_loop_control(parser *p) {
    uint32_t  line = p->now.line;
    node_kind kind = at_name(p, "break") ? N_BREAK : N_CONTINUE;
    if (!p->loops) PARSE_FAIL(p, line, "'%s' outside a loop", kind == N_BREAK ? "break" : "continue");
    advance(p);
    return make_leaf(p, kind, line);
}

static node *refuse_tag(parser *p) {
    PARSE_FAIL(p, p->now.line, "the tag '%.*s' needs other files or HTML escapes; chat templates have neither",
               (int)p->now.size, p->now.data);
}

static const struct {
    const char *tag;
    node *(*parse)(parser *p);
} statements[] = {
    {"if", parse_if},
    {"for", parse_for},
    {"set", parse_set},
    {"macro", parse_macro},
    {"call", parse_call_block},
    {"filter", parse_filter_block},
    {"with", parse_with},
    {"generation", parse_generation},
    {"block", parse_block},
    {"print", parse_print},
    {"break", parse_loop_control},
    {"continue", parse_loop_control},
    {"include", refuse_tag},
    {"extends", refuse_tag},
    {"import", refuse_tag},
    {"from", refuse_tag},
    {"autoescape", refuse_tag},
};

static node *parse_statement(parser *p) {
    if (p->now.kind != T_NAME) fail_at_token(p, "the name of a tag");
    for (size_t i = 0; i < sizeof statements / sizeof *statements; i++)
        if (at_name(p, statements[i].tag)) {
            node *n = statements[i].parse(p);
            expect(p, T_BLOCK_END);
            return n;
        }
    PARSE_FAIL(p, p->now.line, "unknown tag '%.*s'", p->now.size > 60 ? 60 : (int)p->now.size, p->now.data);
}

static node *parse_output(parser *p) {
    uint32_t line = expect(p, T_VARIABLE_BEGIN).line;
    node    *e = parse_any_tuple(p);
    expect(p, T_VARIABLE_END);
    return MAKE(p, N_OUTPUT, line, e);
}

static node *parse_data(parser *p) {
    token t = expect(p, T_DATA);
    node *n = make_leaf(p, N_TEXT, t.line);
    n->constant = text_value(jinja_text(p->x.arena, t.data, t.size));
    return n;
}

static bool at_end_tag(const parser *p, const char *const *ends) {
    for (; *ends; ends++)
        if (at_name(p, *ends)) return true;
    return false;
}

/* Everything up to one of the tags `ends` (NULL: to the end of the template), whose name is then the current token. */
static node *parse_body(parser *p, const char *const *ends, uint32_t line) {
    node_list kids = {0};
    for (;;) {
        switch (p->now.kind) {
        case T_DATA: add(p, &kids, parse_data(p)); break;
        case T_VARIABLE_BEGIN: add(p, &kids, parse_output(p)); break;
        case T_BLOCK_BEGIN:
            advance(p);
            if (ends && at_end_tag(p, ends)) return make(p, N_BODY, line, &kids);
            add(p, &kids, parse_statement(p));
            break;
        default:
            if (ends) PARSE_FAIL(p, line, "the template ends before '%s' for what begins here", ends[0]);
            return make(p, N_BODY, line, &kids);
        }
    }
}

static node *parse_statements(parser *p, const char *const *ends) {
    uint32_t line = p->now.line;
    skip(p, T_COLON);
    expect(p, T_BLOCK_END);
    if (++p->depth > NESTING_MAX) PARSE_FAIL(p, p->now.line, "blocks nest deeper than %d levels", NESTING_MAX);
    node *body = parse_body(p, ends, line);
    p->depth--;
    return body;
}

/* A filter or test that does not exist is an error at once, but where it stands in a branch only when it is reached. */
static void check_known(parser *p, const node *n, bool in_branch) {
    bool is_filter = n->kind == N_FILTER;
    if ((is_filter || n->kind == N_TEST) && !n->row && !in_branch)
        PARSE_FAIL(p, n->line, "no %s named '%.*s'", is_filter ? "filter" : "test",
                   n->name->size > 60 ? 60 : (int)n->name->size, n->name->data);
    for (uint32_t i = 0; i < n->count; i++) {
        const node *kid = n->kids[i];
        bool        own_frame = n->kind == N_MACRO || (kid && kid->kind == N_BODY);
        if (kid) check_known(p, kid, n->kind == N_IF || n->kind == N_COND || (in_branch && !own_frame));
    }
}

node *jinja_parse(arena *a, const char *source, size_t n) {
    parser p = {0};
    jinja_lex_start(&p.x, a, source, n);
    advance(&p);
    node *root = parse_body(&p, NULL, 1);
    check_known(&p, root, false);
    return root;
}
