/* models/template_statements.c: the parser's other half: statements, as a table from a tag's name to its rule. */
#include <string.h>

#include "models/template_parser.h"

static node *parse_statements(parser *p, const char *const *ends);

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
    if (p->now.kind != T_NAME || parser_look(p)->kind != T_DOT) return jinja_parse_primary(p);
    token owner = parser_expect(p, T_NAME);
    node *object = parser_make_named(p, N_NAME, &owner);
    parser_expect(p, T_DOT);
    token attribute = parser_expect(p, T_NAME);
    node *n = MAKE(p, N_NAMESPACE_STORE, owner.line, object);
    n->name = parser_token_text(p, &attribute);
    return n;
}

static node *parse_target(parser *p, tuple_rule rule) {
    node *target = jinja_parse_tuple(p, rule);
    check_target(p, target);
    return target;
}

static node *parse_name_target(parser *p) {
    token name = parser_expect(p, T_NAME);
    return parser_make_named(p, N_STORE, &name);
}

/* ---- statements ---- */

static const char *const END_IF[] = {"elif", "else", "endif", NULL}, *const END_ELSE[] = {"endif", NULL},
                         *const END_FOR[] = {"endfor", "else", NULL}, *const END_FOR_ELSE[] = {"endfor", NULL};

static node *parse_if(parser *p) {
    uint32_t  line = p->now.line;
    node_list kids = {0};
    do {
        parser_advance(p); /* if, elif */
        parser_add(p, &kids, jinja_parse_tuple(p, (tuple_rule){.item = jinja_parse_or}));
        parser_add(p, &kids, parse_statements(p, END_IF));
    } while (parser_at_name(p, "elif"));
    if (parser_skip_name(p, "else")) parser_add(p, &kids, parse_statements(p, END_ELSE));
    parser_expect_name(p, "endif");
    return parser_make(p, N_IF, line, &kids);
}

static node *parse_for(parser *p) {
    node    *kids[FOR_KIDS] = {0};
    uint32_t line = p->now.line;
    uint8_t  flags = 0;
    parser_advance(p);
    p->loops++;
    kids[FOR_TARGET] = parse_target(p, (tuple_rule){.item = jinja_parse_primary, .stop_name = "in"});
    p->loops--;
    parser_expect_name(p, "in");
    kids[FOR_ITERABLE] = jinja_parse_tuple(p, (tuple_rule){.item = jinja_parse_or, .stop_name = "recursive"});
    p->loops++;
    if (parser_skip_name(p, "if")) kids[FOR_TEST] = jinja_parse_expression(p);
    if (parser_skip_name(p, "recursive")) flags |= FOR_RECURSIVE;
    kids[FOR_BODY] = parse_statements(p, END_FOR);
    p->loops--;
    if (parser_skip_name(p, "else")) kids[FOR_ELSE] = parse_statements(p, END_FOR_ELSE);
    parser_expect_name(p, "endfor");
    node *n = parser_make_with(p, N_FOR, line, FOR_KIDS, kids);
    n->flags = flags;
    return n;
}

/* A body that ends with {% end... %}, in a frame of its own. */
static node *parse_block_body(parser *p, const char *end) {
    node *body = parse_statements(p, (const char *const[]){end, NULL});
    parser_expect_name(p, end);
    return body;
}

static node *parse_filter_chain(parser *p, node *input) {
    do input = jinja_parse_filter_name(p, input);
    while (parser_skip(p, T_PIPE));
    return input;
}

static node *parse_set(parser *p) {
    uint32_t line = p->now.line;
    parser_advance(p);
    node *target = parse_target(p, (tuple_rule){.item = parse_target_item});
    if (parser_skip(p, T_ASSIGN)) {
        node *v = jinja_parse_any_tuple(p);
        return MAKE(p, N_SET, line, target, v);
    }
    node *filter = parser_skip(p, T_PIPE) ? parse_filter_chain(p, parser_make_leaf(p, N_CAPTURED, line)) : NULL;
    node *body = parse_block_body(p, "endset");
    return MAKE(p, N_SET_BLOCK, line, target, filter, body);
}

static node *parse_filter_block(parser *p) {
    uint32_t line = p->now.line;
    parser_advance(p);
    node *filter = parse_filter_chain(p, parser_make_leaf(p, N_CAPTURED, line));
    node *body = parse_block_body(p, "endfilter");
    return MAKE(p, N_FILTER_BLOCK, line, filter, body);
}

static node *parse_with(parser *p) {
    uint32_t  line = p->now.line;
    node_list kids = {0};
    parser_advance(p);
    while (p->now.kind != T_BLOCK_END) {
        if (kids.count) parser_expect(p, T_COMMA);
        parser_add(p, &kids, parse_target(p, (tuple_rule){.item = jinja_parse_primary}));
        parser_expect(p, T_ASSIGN);
        parser_add(p, &kids, jinja_parse_expression(p));
    }
    parser_add(p, &kids, parse_block_body(p, "endwith"));
    return parser_make(p, N_WITH, line, &kids);
}

/* (a, b, c=1): names, then defaults. */
static void parse_signature(parser *p, node_list *kids, uint32_t *parameters) {
    node_list defaults = {0};
    parser_expect(p, T_LPAREN);
    while (p->now.kind != T_RPAREN) {
        if (kids->count) parser_expect(p, T_COMMA);
        parser_add(p, kids, parse_name_target(p));
        if (parser_skip(p, T_ASSIGN)) parser_add(p, &defaults, jinja_parse_expression(p));
        else if (defaults.count) parser_fail_at_token(p, "a default, as the parameter before has one");
    }
    parser_expect(p, T_RPAREN);
    *parameters = kids->count;
    for (uint32_t i = 0; i < defaults.count; i++) parser_add(p, kids, defaults.kids[i]);
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
    parser_add(p, kids, body);
    node *n = parser_make(p, N_MACRO, line, kids);
    n->name_count = parameters;
    for (size_t i = 0; i < sizeof special / sizeof *special; i++)
        if (mentions(body, special[i].name) && !has_parameter(n, special[i].name)) n->flags |= special[i].flag;
    return n;
}

static node *parse_macro(parser *p) {
    uint32_t  line = p->now.line, parameters = 0;
    node_list kids = {0};
    parser_advance(p);
    token name = parser_expect(p, T_NAME);
    parse_signature(p, &kids, &parameters);
    node *n = finish_macro(p, &kids, parameters, line, "endmacro");
    n->name = parser_token_text(p, &name);
    return n;
}

static node *parse_call_block(parser *p) {
    uint32_t  line = p->now.line, parameters = 0;
    node_list kids = {0};
    parser_advance(p);
    if (p->now.kind == T_LPAREN) parse_signature(p, &kids, &parameters);
    node *call = jinja_parse_expression(p);
    if (call->kind != N_CALL) PARSE_FAIL(p, line, "a call block needs a call, as in {%% call name() %%}");
    node *body = finish_macro(p, &kids, parameters, line, "endcall");
    return MAKE(p, N_CALL_BLOCK, line, call, body);
}

/* {% generation %} marks what the assistant said, for training; here it is only a frame of its own. */
static node *parse_generation(parser *p) {
    uint32_t line = p->now.line;
    parser_advance(p);
    unsigned loops = p->loops;
    p->outer_loops += loops, p->loops = 0;
    node *body = parse_block_body(p, "endgeneration");
    p->outer_loops -= loops, p->loops = loops;
    return MAKE(p, N_WITH, line, body);
}

static node *parse_block(parser *p) {
    uint32_t line = p->now.line;
    parser_advance(p);
    token name = parser_expect(p, T_NAME);
    bool  scoped = parser_skip_name(p, "scoped");
    parser_skip_name(p, "required");
    unsigned loops = p->loops;
    p->outer_loops += loops, p->loops = 0;
    node *body = parse_block_body(p, "endblock");
    p->outer_loops -= loops, p->loops = loops;
    if (p->now.kind == T_NAME && p->now.size == name.size && memcmp(p->now.data, name.data, name.size) == 0)
        parser_advance(p);
    node *n = MAKE(p, N_BLOCK, line, body);
    n->flags = scoped ? BLOCK_SCOPED : 0;
    return n;
}

static node *parse_print(parser *p) {
    uint32_t  line = p->now.line;
    node_list kids = {0};
    parser_advance(p);
    while (p->now.kind != T_BLOCK_END) {
        if (kids.count) parser_expect(p, T_COMMA);
        node *e = jinja_parse_expression(p);
        parser_add(p, &kids, MAKE(p, N_OUTPUT, e->line, e));
    }
    return parser_make(p, N_BODY, line, &kids);
}

static node *parse_loop_control(parser *p) {
    uint32_t  line = p->now.line;
    node_kind kind = parser_at_name(p, "break") ? N_BREAK : N_CONTINUE;
    if (!p->loops) PARSE_FAIL(p, line, "'%s' outside a loop", kind == N_BREAK ? "break" : "continue");
    parser_advance(p);
    return parser_make_leaf(p, kind, line);
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
    if (p->now.kind != T_NAME) parser_fail_at_token(p, "the name of a tag");
    for (size_t i = 0; i < sizeof statements / sizeof *statements; i++)
        if (parser_at_name(p, statements[i].tag)) {
            node *n = statements[i].parse(p);
            parser_expect(p, T_BLOCK_END);
            return n;
        }
    PARSE_FAIL(p, p->now.line, "unknown tag '%.*s'", p->now.size > 60 ? 60 : (int)p->now.size, p->now.data);
}

static node *parse_output(parser *p) {
    uint32_t line = parser_expect(p, T_VARIABLE_BEGIN).line;
    node    *e = jinja_parse_any_tuple(p);
    parser_expect(p, T_VARIABLE_END);
    return MAKE(p, N_OUTPUT, line, e);
}

static node *parse_data(parser *p) {
    token t = parser_expect(p, T_DATA);
    node *n = parser_make_leaf(p, N_TEXT, t.line);
    n->constant = text_value(jinja_text(p->x.arena, t.data, t.size));
    return n;
}

static bool at_end_tag(const parser *p, const char *const *ends) {
    for (; *ends; ends++)
        if (parser_at_name(p, *ends)) return true;
    return false;
}

/* Everything up to one of the tags `ends` (NULL: to the end of the template), whose name is then the current token. */
static node *parse_body(parser *p, const char *const *ends, uint32_t line) {
    node_list kids = {0};
    for (;;) {
        switch (p->now.kind) {
        case T_DATA: parser_add(p, &kids, parse_data(p)); break;
        case T_VARIABLE_BEGIN: parser_add(p, &kids, parse_output(p)); break;
        case T_BLOCK_BEGIN:
            parser_advance(p);
            if (ends && at_end_tag(p, ends)) return parser_make(p, N_BODY, line, &kids);
            parser_add(p, &kids, parse_statement(p));
            break;
        default:
            if (ends) PARSE_FAIL(p, line, "the template ends before '%s' for what begins here", ends[0]);
            return parser_make(p, N_BODY, line, &kids);
        }
    }
}

static node *parse_statements(parser *p, const char *const *ends) {
    uint32_t line = p->now.line;
    parser_skip(p, T_COLON);
    parser_expect(p, T_BLOCK_END);
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
    parser_advance(&p);
    node *root = parse_body(&p, NULL, 1);
    check_known(&p, root, false);
    return root;
}
