/* models/template_parse.c: expressions, by recursive descent. Each function is one rule of Jinja's grammar. */
#include <string.h>

#include "models/template_parser.h"

static node *make_constant(parser *p, uint32_t line, value v) {
    node *n = parser_make_leaf(p, N_CONST, line);
    n->constant = v;
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
    token t = parser_expect(p, T_NAME);
    for (size_t i = 0; i < sizeof constants / sizeof *constants; i++)
        if (parser_token_is_name(&t, constants[i].name)) return make_constant(p, t.line, constants[i].v);
    return parser_make_named(p, N_NAME, &t);
}

static node *parse_strings(parser *p) { /* strings that follow each other are one */
    token  first = p->now;
    size_t size = 0, room = 0;
    char  *joined = NULL;
    for (; p->now.kind == T_STRING; parser_advance(p)) {
        if (size + p->now.size > room) {
            room = (size + p->now.size) * 2;
            char *more = jinja_arena_take(p->x.arena, room, 1);
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
    return k == T_VARIABLE_END || k == T_BLOCK_END || k == T_RPAREN || (stop_name && parser_at_name(p, stop_name));
}

/* One expression, or several with commas between: a tuple. */
node *jinja_parse_tuple(parser *p, tuple_rule rule) {
    uint32_t  line = p->now.line;
    node_list items = {0};
    bool      is_tuple = false;
    while (!ends_tuple(p, rule.stop_name)) {
        parser_add(p, &items, rule.item(p));
        if (!parser_skip(p, T_COMMA)) break;
        is_tuple = true;
    }
    if (!is_tuple && items.count) return items.kids[0];
    if (!is_tuple && !rule.may_be_empty) parser_fail_at_token(p, "an expression");
    return parser_make(p, N_TUPLE, line, &items);
}

static node *parse_parentheses(parser *p) {
    parser_expect(p, T_LPAREN);
    node *inner = jinja_parse_tuple(p, (tuple_rule){.item = jinja_parse_expression, .may_be_empty = true});
    parser_expect(p, T_RPAREN);
    return inner;
}

static node *parse_list(parser *p) {
    uint32_t  line = parser_expect(p, T_LBRACKET).line;
    node_list items = {0};
    while (p->now.kind != T_RBRACKET) {
        parser_add(p, &items, jinja_parse_expression(p));
        if (!parser_skip(p, T_COMMA)) break;
    }
    parser_expect(p, T_RBRACKET);
    return parser_make(p, N_LIST, line, &items);
}

static node *parse_dict(parser *p) {
    uint32_t  line = parser_expect(p, T_LBRACE).line;
    node_list items = {0};
    while (p->now.kind != T_RBRACE) {
        parser_add(p, &items, jinja_parse_expression(p));
        parser_expect(p, T_COLON);
        parser_add(p, &items, jinja_parse_expression(p));
        if (!parser_skip(p, T_COMMA)) break;
    }
    parser_expect(p, T_RBRACE);
    return parser_make(p, N_DICT, line, &items);
}

node *jinja_parse_primary(parser *p) {
    token t = p->now;
    switch (t.kind) {
    case T_NAME: return parse_name(p);
    case T_STRING: return parse_strings(p);
    case T_INTEGER: parser_advance(p); return make_constant(p, t.line, int_value(t.integer));
    case T_FLOAT: parser_advance(p); return make_constant(p, t.line, real_value(t.real));
    case T_LPAREN: return parse_parentheses(p);
    case T_LBRACKET: return parse_list(p);
    case T_LBRACE: return parse_dict(p);
    default: parser_fail_at_token(p, "an expression");
    }
}

/* ---- calls, subscripts, filters, tests ---- */

/* Arguments in parentheses, added behind what `kids` holds already; keyword names and flags go into *shape. */
static void parse_arguments(parser *p, node_list *kids, node *shape) {
    const text **names = NULL;
    uint32_t     names_room = 0, line = parser_expect(p, T_LPAREN).line;
    node        *star = NULL, *star_star = NULL;
    while (p->now.kind != T_RPAREN) {
        bool ok = !star_star;
        if (parser_skip(p, T_MUL)) {
            ok = ok && !star, star = jinja_parse_expression(p);
        } else if (parser_skip(p, T_POW)) {
            star_star = jinja_parse_expression(p);
        } else if (p->now.kind == T_NAME && parser_look(p)->kind == T_ASSIGN) {
            if (shape->name_count == names_room) {
                const text **more =
                    jinja_arena_take(p->x.arena, names_room = names_room ? names_room * 2 : 4, sizeof *names);
                if (shape->name_count) memcpy(more, names, shape->name_count * sizeof *names);
                names = more;
            }
            names[shape->name_count++] = parser_token_text(p, &p->now);
            parser_advance(p), parser_advance(p);
            parser_add(p, kids, jinja_parse_expression(p));
        } else {
            ok = ok && !star && !shape->name_count, parser_add(p, kids, jinja_parse_expression(p));
        }
        if (!ok) PARSE_FAIL(p, line, "the arguments of a call are in an order that Python does not allow");
        if (!parser_skip(p, T_COMMA)) break;
    }
    parser_expect(p, T_RPAREN);
    if (star) parser_add(p, kids, star), shape->flags |= ARGS_STAR;
    if (star_star) parser_add(p, kids, star_star), shape->flags |= ARGS_STAR_STAR;
    shape->names = names;
}

static node *parse_call(parser *p, node *callee) {
    node      shape = {0};
    node_list kids = {0};
    uint32_t  line = p->now.line;
    parser_add(p, &kids, callee);
    parse_arguments(p, &kids, &shape);
    node *n = parser_make(p, N_CALL, line, &kids);
    n->flags = shape.flags, n->names = shape.names, n->name_count = shape.name_count;
    return n;
}

static node *parse_bound(parser *p) { /* one of the three in a slice */
    token_kind k = p->now.kind;
    return k == T_COLON || k == T_RBRACKET || k == T_COMMA ? NULL : jinja_parse_expression(p);
}

/* What stands between the brackets; a slice comes back as N_SLICE whose first kid is still missing. */
static node *parse_subscript_item(parser *p) {
    uint32_t line = p->now.line;
    node    *start = parse_bound(p);
    if (!parser_skip(p, T_COLON)) {
        if (!start) parser_fail_at_token(p, "an expression");
        return start;
    }
    node *stop = parse_bound(p), *step = parser_skip(p, T_COLON) ? parse_bound(p) : NULL;
    return MAKE(p, N_SLICE, line, NULL, start, stop, step);
}

static node *parse_brackets(parser *p, node *owner) {
    uint32_t  line = parser_expect(p, T_LBRACKET).line;
    node_list items = {0};
    while (p->now.kind != T_RBRACKET) {
        parser_add(p, &items, parse_subscript_item(p));
        if (!parser_skip(p, T_COMMA)) break;
    }
    parser_expect(p, T_RBRACKET);
    if (items.count == 1 && items.kids[0]->kind == N_SLICE && !items.kids[0]->kids[0]) {
        node **bounds = items.kids[0]->kids;
        return MAKE(p, N_SLICE, line, owner, bounds[1], bounds[2], bounds[3]);
    }
    for (uint32_t i = 0; i < items.count; i++)
        if (items.kids[i]->kind == N_SLICE && !items.kids[i]->kids[0])
            PARSE_FAIL(p, line, "a slice stands alone between its brackets");
    return MAKE(p, N_ITEM, line, owner, items.count == 1 ? items.kids[0] : parser_make(p, N_TUPLE, line, &items));
}

static node *parse_dot(parser *p, node *owner) {
    uint32_t line = parser_expect(p, T_DOT).line;
    if (p->now.kind == T_INTEGER) {
        node *index = jinja_parse_primary(p);
        return MAKE(p, N_ITEM, line, owner, index);
    }
    token name = parser_expect(p, T_NAME);
    node *n = MAKE(p, N_ATTRIBUTE, line, owner);
    n->name = parser_token_text(p, &name);
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
    token       t = parser_expect(p, T_NAME);
    const text *name = parser_token_text(p, &t);
    while (parser_skip(p, T_DOT)) {
        token more = parser_expect(p, T_NAME);
        char *joined = jinja_arena_take(p->x.arena, (size_t)name->size + 1 + more.size, 1);
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
node *jinja_parse_filter_name(parser *p, node *input) {
    uint32_t    line = p->now.line;
    const text *name = parse_dotted_name(p);
    node        shape = {0};
    node_list   kids = {0};
    parser_add(p, &kids, input);
    if (p->now.kind == T_LPAREN) parse_arguments(p, &kids, &shape);
    return finish_builtin(parser_make(p, N_FILTER, line, &kids), name, &shape);
}

static bool starts_test_argument(const parser *p) {
    switch (p->now.kind) {
    case T_NAME: return !parser_at_name(p, "else") && !parser_at_name(p, "or") && !parser_at_name(p, "and");
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
    parser_expect_name(p, "is");
    bool        negated = parser_skip_name(p, "not");
    const text *name = parse_dotted_name(p);
    node        shape = {0};
    node_list   kids = {0};
    parser_add(p, &kids, input);
    if (p->now.kind == T_LPAREN) {
        parse_arguments(p, &kids, &shape);
    } else if (starts_test_argument(p)) {
        if (parser_at_name(p, "is")) PARSE_FAIL(p, line, "tests with 'is' cannot be chained");
        node *argument = jinja_parse_primary(p);
        parser_add(p, &kids, parse_postfix(p, argument));
    }
    node *n = finish_builtin(parser_make(p, N_TEST, line, &kids), name, &shape);
    return negated ? MAKE(p, N_NOT, line, n) : n;
}

static node *parse_filters_and_tests(parser *p, node *n) {
    for (;;) {
        if (parser_skip(p, T_PIPE)) n = jinja_parse_filter_name(p, n);
        else if (parser_at_name(p, "is")) n = parse_test(p, n);
        else if (p->now.kind == T_LPAREN) n = parse_call(p, n);
        else return n;
    }
}

/* ---- operators, loosest last ---- */

static node *parse_unary(parser *p, bool with_filters) {
    uint32_t line = p->now.line;
    node    *n;
    if (++p->depth > NESTING_MAX) PARSE_FAIL(p, line, "expressions nest deeper than %d levels", NESTING_MAX);
    if (parser_skip(p, T_SUB)) {
        n = parse_unary(p, false), n = MAKE(p, N_NEGATE, line, n);
    } else if (parser_skip(p, T_ADD)) {
        n = parse_unary(p, false), n = MAKE(p, N_PLUS, line, n);
    } else {
        n = jinja_parse_primary(p);
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
    while (parser_skip(p, T_POW)) left = make_binary(p, OP_POW, left, parse_unary(p, true));
    return left;
}

static node *parse_product(parser *p) {
    static const uint8_t ops[] = {[T_MUL] = OP_MUL, [T_DIV] = OP_DIV, [T_FLOORDIV] = OP_FLOORDIV, [T_MOD] = OP_MOD};
    node                *left = parse_power(p);
    for (token_kind k; (k = p->now.kind) == T_MUL || k == T_DIV || k == T_FLOORDIV || k == T_MOD;) {
        parser_advance(p);
        left = make_binary(p, ops[k], left, parse_power(p));
    }
    return left;
}

static node *parse_concat(parser *p) {
    uint32_t  line = p->now.line;
    node_list parts = {0};
    do parser_add(p, &parts, parse_product(p));
    while (parser_skip(p, T_TILDE));
    return parts.count == 1 ? parts.kids[0] : parser_make(p, N_CONCAT, line, &parts);
}

static node *parse_sum(parser *p) {
    node *left = parse_concat(p);
    for (token_kind k; (k = p->now.kind) == T_ADD || k == T_SUB;) {
        parser_advance(p);
        left = make_binary(p, k == T_ADD ? OP_ADD : OP_SUB, left, parse_concat(p));
    }
    return left;
}

static bool skip_comparison(parser *p, uint8_t *op) {
    static const uint8_t ops[] = {
        [T_EQ] = CMP_EQ, [T_NE] = CMP_NE, [T_LT] = CMP_LT, [T_LE] = CMP_LE, [T_GT] = CMP_GT, [T_GE] = CMP_GE};
    token_kind k = p->now.kind;
    if (k >= T_EQ && k <= T_GE) *op = ops[k];
    else if (parser_at_name(p, "in")) *op = CMP_IN;
    else if (parser_at_name(p, "not") && parser_token_is_name(parser_look(p), "in")) parser_advance(p), *op = CMP_NOT_IN;
    else return false;
    parser_advance(p);
    return true;
}

static node *parse_comparison(parser *p) {
    enum { CHAIN_MAX = 64 };
    uint32_t  line = p->now.line, count = 0;
    uint8_t   ops[CHAIN_MAX];
    node_list kids = {0};
    parser_add(p, &kids, parse_sum(p));
    for (uint8_t op; skip_comparison(p, &op); parser_add(p, &kids, parse_sum(p))) {
        if (count == CHAIN_MAX) PARSE_FAIL(p, line, "more than %d comparisons are chained", CHAIN_MAX);
        ops[count++] = op;
    }
    if (count == 0) return kids.kids[0];
    node    *n = parser_make(p, N_COMPARE, line, &kids);
    uint8_t *kept = jinja_arena_take(p->x.arena, count, 1);
    memcpy(kept, ops, count);
    n->ops = kept;
    return n;
}

static node *parse_not(parser *p) {
    unsigned negations = 0;
    uint32_t line = p->now.line;
    for (; parser_skip_name(p, "not"); negations++)
        if (negations == NESTING_MAX) PARSE_FAIL(p, line, "more than %d 'not's follow each other", NESTING_MAX);
    node *n = parse_comparison(p);
    while (negations--) n = MAKE(p, N_NOT, line, n);
    return n;
}

static node *parse_and(parser *p) {
    node *left = parse_not(p);
    while (parser_skip_name(p, "and")) {
        node *right = parse_not(p);
        left = MAKE(p, N_AND, left->line, left, right);
    }
    return left;
}

node *jinja_parse_or(parser *p) {
    node *left = parse_and(p);
    while (parser_skip_name(p, "or")) {
        node *right = parse_and(p);
        left = MAKE(p, N_OR, left->line, left, right);
    }
    return left;
}

/* `a if b else c` */
node *jinja_parse_expression(parser *p) {
    uint32_t line = p->now.line;
    if (++p->depth > NESTING_MAX) PARSE_FAIL(p, line, "expressions nest deeper than %d levels", NESTING_MAX);
    node *n = jinja_parse_or(p);
    while (parser_skip_name(p, "if")) {
        node *test = jinja_parse_or(p), *otherwise = NULL;
        if (parser_skip_name(p, "else")) otherwise = jinja_parse_expression(p);
        n = MAKE(p, N_COND, line, test, n, otherwise);
    }
    p->depth--;
    return n;
}

node *jinja_parse_any_tuple(parser *p) { return jinja_parse_tuple(p, (tuple_rule){.item = jinja_parse_expression}); }
