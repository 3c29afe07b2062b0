/* models/template_parser.h: what the two halves of the parser share: the tokens at hand, nodes in the making, and those
 * rules for expressions that statements use. A rule is called at its first token and leaves the parser at the first one
 * after. */
#pragma once
#include "models/template_node.h"

typedef struct {
    lexer    x;
    token    now, ahead;
    bool     looked_ahead;
    unsigned depth, loops, outer_loops; /* loops: `for`s around this place within the same macro */
} parser;

#define PARSE_FAIL(p, at_line, ...) jinja_fail(jinja_trap_at((p)->x.trap, (at_line)), ERR_INVALID, __VA_ARGS__)

/* ---- template_parser.c ---- */

void                           parser_advance(parser *p);
const token                   *parser_look(parser *p); /* the token after the current one */
bool                           parser_token_is_name(const token *t, const char *name);
bool                           parser_at_name(const parser *p, const char *name);
bool                           parser_skip_name(parser *p, const char *name);
bool                           parser_skip(parser *p, token_kind kind);
token                          parser_expect(parser *p, token_kind kind);
void                           parser_expect_name(parser *p, const char *name);
__attribute__((noreturn)) void parser_fail_at_token(parser *p, const char *expected);

typedef struct {
    node   **kids;
    uint32_t count, capacity;
} node_list;
void        parser_add(parser *p, node_list *l, node *n);
node       *parser_make(parser *p, node_kind kind, uint32_t line, const node_list *kids);
node       *parser_make_leaf(parser *p, node_kind kind, uint32_t line);
node       *parser_make_with(parser *p, node_kind kind, uint32_t line, unsigned count, node *const *kids);
node       *parser_make_named(parser *p, node_kind kind, const token *name);
const text *parser_token_text(parser *p, const token *t);
#define MAKE(p, kind, line, ...)                                                                                            \
    parser_make_with(p, kind, line, sizeof((node *[]){__VA_ARGS__}) / sizeof(node *), (node *[]){__VA_ARGS__})

/* ---- template_parse.c ---- */

typedef struct {
    node *(*item)(parser *p);
    const char *stop_name;
    bool        may_be_empty;
} tuple_rule;
node *jinja_parse_tuple(parser *p, tuple_rule rule); /* one expression, or several with commas between */
node *jinja_parse_any_tuple(parser *p);
node *jinja_parse_expression(parser *p);
node *jinja_parse_or(parser *p); /* an expression without `a if b` */
node *jinja_parse_primary(parser *p);
node *jinja_parse_filter_name(parser *p, node *input); /* name or name(arguments), without the | */
