#include "models/template_parser.h"

#include <string.h>

/* ---- tokens ---- */

void parser_advance(parser *p) {
    p->now = p->looked_ahead ? p->ahead : jinja_lex(&p->x);
    p->looked_ahead = false;
}

const token *parser_look(parser *p) {
    if (!p->looked_ahead) p->ahead = jinja_lex(&p->x), p->looked_ahead = true;
    return &p->ahead;
}

bool parser_token_is_name(const token *t, const char *name) {
    return t->kind == T_NAME && t->size == strlen(name) && memcmp(t->data, name, t->size) == 0;
}
bool parser_at_name(const parser *p, const char *name) { return parser_token_is_name(&p->now, name); }

bool parser_skip_name(parser *p, const char *name) {
    if (!parser_at_name(p, name)) return false;
    parser_advance(p);
    return true;
}

bool parser_skip(parser *p, token_kind kind) {
    if (p->now.kind != kind) return false;
    parser_advance(p);
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

__attribute__((noreturn)) void parser_fail_at_token(parser *p, const char *expected) {
    const token *t = &p->now;
    if (t->kind == T_NAME)
        PARSE_FAIL(p, t->line, "expected %s, not '%.*s'", expected, t->size > 60 ? 60 : (int)t->size, t->data);
    PARSE_FAIL(p, t->line, "expected %s, not %s", expected, token_words(t));
}

token parser_expect(parser *p, token_kind kind) {
    token t = p->now;
    if (t.kind != kind) parser_fail_at_token(p, token_words(&(token){.kind = kind}));
    parser_advance(p);
    return t;
}

void parser_expect_name(parser *p, const char *name) {
    if (!parser_skip_name(p, name)) parser_fail_at_token(p, name);
}

/* ---- nodes ---- */

void parser_add(parser *p, node_list *l, node *n) {
    if (l->count == l->capacity) {
        uint32_t capacity = l->capacity ? l->capacity * 2 : 4;
        node   **kids = jinja_arena_take(p->x.arena, capacity, sizeof *kids);
        if (l->count) memcpy(kids, l->kids, l->count * sizeof *kids);
        l->kids = kids, l->capacity = capacity;
    }
    l->kids[l->count++] = n;
}

node *parser_make(parser *p, node_kind kind, uint32_t line, const node_list *kids) {
    node *n = jinja_arena_take(p->x.arena, 1, sizeof *n);
    *n = (node){.kind = (uint8_t)kind, .line = line, .count = kids->count, .kids = kids->kids};
    for (uint32_t i = 0; i < n->count; i++)
        if (n->kids[i] && n->kids[i]->height >= n->height) n->height = n->kids[i]->height + 1;
    if (n->height > NESTING_MAX) PARSE_FAIL(p, line, "this nests or chains more than %d levels", NESTING_MAX);
    return n;
}

node *parser_make_leaf(parser *p, node_kind kind, uint32_t line) { return parser_make(p, kind, line, &(node_list){0}); }

node *parser_make_with(parser *p, node_kind kind, uint32_t line, unsigned count, node *const *kids) {
    node_list l = {0};
    for (unsigned i = 0; i < count; i++) parser_add(p, &l, kids[i]);
    return parser_make(p, kind, line, &l);
}

const text *parser_token_text(parser *p, const token *t) { return jinja_text(p->x.arena, t->data, t->size); }

node *parser_make_named(parser *p, node_kind kind, const token *name) {
    node *n = parser_make_leaf(p, kind, name->line);
    n->name = parser_token_text(p, name);
    return n;
}
