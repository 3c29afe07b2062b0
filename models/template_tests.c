/* models/template_tests.c: what `is` asks. */
#include <utf8proc.h>

#include "base/utf8.h"
#include "models/template_render.h"

#define TEST(name) static value name(render *r, value self, const value *arg, const call_args *args)
#define ANSWER(yes) return (void)r, (void)self, (void)arg, (void)args, bool_value(yes)

static int64_t remainder_of(render *r, value self, value by) {
    value rest = jinja_binary(r, OP_MOD, self, by);
    if (rest.kind == V_FLOAT) return rest.real == 0 ? 0 : rest.real == 1 ? 1 : 2;
    if (!is_integral(rest)) return 2; /* "..." % 2 is a text, which equals no number */
    return integral(rest) == 0 ? 0 : integral(rest) == 1 ? 1 : 2;
}

TEST(test_odd) { ANSWER(remainder_of(r, self, int_value(2)) == 1); }
TEST(test_even) { ANSWER(remainder_of(r, self, int_value(2)) == 0); }
TEST(test_divisibleby) { ANSWER(remainder_of(r, self, arg[0]) == 0); }

TEST(test_defined) { ANSWER(self.kind != V_UNDEFINED); }
TEST(test_undefined) { ANSWER(self.kind == V_UNDEFINED); }
TEST(test_none) { ANSWER(self.kind == V_NONE); }
TEST(test_boolean) { ANSWER(self.kind == V_BOOL); }
TEST(test_true) { ANSWER(self.kind == V_BOOL && self.truth); }
TEST(test_false) { ANSWER(self.kind == V_BOOL && !self.truth); }
TEST(test_integer) { ANSWER(self.kind == V_INT); }
TEST(test_float) { ANSWER(self.kind == V_FLOAT); }
TEST(test_number) { ANSWER(is_number(self)); }
TEST(test_string) { ANSWER(self.kind == V_TEXT); }
TEST(test_mapping) { ANSWER(self.kind == V_DICT); }
TEST(test_iterable) { ANSWER(jinja_is_iterable(self)); }
TEST(test_escaped) { ANSWER(self.kind == V_TEXT && self.markup); }
TEST(test_sameas) { ANSWER(jinja_same(self, arg[0])); }
TEST(test_in) { ANSWER(jinja_contains(r, arg[0], self)); }

TEST(test_sequence) {
    int64_t length;
    ANSWER(self.kind != V_VIEW && jinja_has_length(self, &length));
}

TEST(test_callable) {
    ANSWER(self.kind == V_FUNCTION || self.kind == V_METHOD || self.kind == V_MACRO || self.kind == V_LOOP ||
           self.kind == V_JOINER || self.kind == V_UNDEFINED);
}

/* All cased characters are of this case, and there is one. */
static bool all_cased(render *r, value v, bool upper) {
    const text *t = jinja_str(r, v);
    bool        any = false;
    jinja_work_bytes(r, t->size);
    for (uint32_t i = 0, cp; i < t->size;) {
        i += (uint32_t)utf8_decode(t->data + i, t->size - i, &cp);
        utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
        if (c == UTF8PROC_CATEGORY_LT || c == (upper ? UTF8PROC_CATEGORY_LL : UTF8PROC_CATEGORY_LU)) return false;
        any |= c == (upper ? UTF8PROC_CATEGORY_LU : UTF8PROC_CATEGORY_LL);
    }
    return any;
}
TEST(test_upper) { ANSWER(all_cased(r, self, true)); }
TEST(test_lower) { ANSWER(all_cased(r, self, false)); }

TEST(test_filter) { ANSWER(self.kind == V_TEXT && jinja_find_filter(self.text->data, self.text->size) != NULL); }
TEST(test_test) { ANSWER(self.kind == V_TEXT && jinja_find_test(self.text->data, self.text->size) != NULL); }

TEST(test_eq) { ANSWER(jinja_compare(r, CMP_EQ, self, arg[0])); }
TEST(test_ne) { ANSWER(jinja_compare(r, CMP_NE, self, arg[0])); }
TEST(test_lt) { ANSWER(jinja_compare(r, CMP_LT, self, arg[0])); }
TEST(test_le) { ANSWER(jinja_compare(r, CMP_LE, self, arg[0])); }
TEST(test_gt) { ANSWER(jinja_compare(r, CMP_GT, self, arg[0])); }
TEST(test_ge) { ANSWER(jinja_compare(r, CMP_GE, self, arg[0])); }

static const builtin tests[] = {
    {"odd", "", 0, test_odd},
    {"even", "", 0, test_even},
    {"divisibleby", "num", 1, test_divisibleby},
    {"defined", "", 0, test_defined},
    {"undefined", "", 0, test_undefined},
    {"filter", "", 0, test_filter},
    {"test", "", 0, test_test},
    {"none", "", 0, test_none},
    {"boolean", "", 0, test_boolean},
    {"false", "", 0, test_false},
    {"true", "", 0, test_true},
    {"integer", "", 0, test_integer},
    {"float", "", 0, test_float},
    {"lower", "", 0, test_lower},
    {"upper", "", 0, test_upper},
    {"string", "", 0, test_string},
    {"mapping", "", 0, test_mapping},
    {"number", "", 0, test_number},
    {"sequence", "", 0, test_sequence},
    {"iterable", "", 0, test_iterable},
    {"callable", "/", 0, test_callable},
    {"sameas", "other", 1, test_sameas},
    {"escaped", "", 0, test_escaped},
    {"in", "seq", 1, test_in},
    {"==", "/other", 1, test_eq},
    {"eq", "/other", 1, test_eq},
    {"equalto", "/other", 1, test_eq},
    {"!=", "/other", 1, test_ne},
    {"ne", "/other", 1, test_ne},
    {">", "/other", 1, test_gt},
    {"gt", "/other", 1, test_gt},
    {"greaterthan", "/other", 1, test_gt},
    {">=", "/other", 1, test_ge},
    {"ge", "/other", 1, test_ge},
    {"<", "/other", 1, test_lt},
    {"lt", "/other", 1, test_lt},
    {"lessthan", "/other", 1, test_lt},
    {"<=", "/other", 1, test_le},
    {"le", "/other", 1, test_le},
};

const builtin *jinja_find_test(const char *name, size_t n) {
    return jinja_find_row(tests, sizeof tests / sizeof *tests, name, n);
}
