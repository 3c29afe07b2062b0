#include "engine/sim_machine.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/file.h"
#include "base/json.h"

enum { FILE_BYTES_MAX = 1 << 16 };

/* Of the datasheets' dense bf16 rate and bandwidth: about three quarters and nine tenths, as good kernels reach. Links: PCI
 * Express 5 and 4 of sixteen lanes at about four fifths; of the CPU what one core copies. */
static const sim_machine table[] = {
    {.name = "h200",
     .bytes_per_s = 4.3e12,
     .flops_per_s = 700e12,
     .launch_ns = 4000,
     .link_bytes_per_s = 50e9,
     .memory_bytes = UINT64_C(141) << 30},
    {.name = "h100",
     .bytes_per_s = 2.9e12,
     .flops_per_s = 700e12,
     .launch_ns = 4000,
     .link_bytes_per_s = 50e9,
     .memory_bytes = UINT64_C(80) << 30},
    {.name = "a100-80g",
     .bytes_per_s = 1.75e12,
     .flops_per_s = 250e12,
     .launch_ns = 5000,
     .link_bytes_per_s = 25e9,
     .memory_bytes = UINT64_C(80) << 30},
    /* two threads of a Zen 5 server, bf16 */
    {.name = "cpu",
     .bytes_per_s = 5.0e10,
     .flops_per_s = 4.2e11,
     .launch_ns = 3000,
     .link_bytes_per_s = 8e9,
     .memory_bytes = UINT64_C(64) << 30},
};
enum { ROWS = sizeof table / sizeof *table };

static int find_row(sim_machine *out, const char *name, error *err) {
    char known[128] = "";
    for (int i = 0; i < ROWS; i++) {
        if (!name || !*name || strcasecmp(table[i].name, name) == 0) return *out = table[i], OK;
        strcat(known, i ? ", " : "");
        strcat(known, table[i].name);
    }
    return error_set(err, ERR_NOT_FOUND, "the sim device models no machine named '%s'; it has %s", name, known);
}

/* ---- the calibration file ---- */

static int find_kind(const char *name) {
    for (int k = 0; k < OP_KIND_COUNT; k++)
        if (strcmp(op_name((op_kind)k), name) == 0) return k;
    return -1;
}

static int read_points(sim_fit *f, const cJSON *list, error *err) {
    const cJSON *item;
    if (!list) return OK;
    if (!cJSON_IsArray(list)) return error_set(err, ERR_INVALID, "'by_rows' is a list of [rows, factor]");
    cJSON_ArrayForEach(item, list) {
        const cJSON *rows = cJSON_GetArrayItem(item, 0), *factor = cJSON_GetArrayItem(item, 1);
        if (f->point_count == SIM_POINTS_MAX)
            return error_set(err, ERR_INVALID, "'by_rows' has more than %d points", SIM_POINTS_MAX);
        if (!cJSON_IsNumber(rows) || !cJSON_IsNumber(factor) || !(factor->valuedouble >= 0 && factor->valuedouble <= 1e6) ||
            !(rows->valuedouble > (f->point_count ? f->rows[f->point_count - 1] : 0) && rows->valuedouble <= 1e9))
            return error_set(err, ERR_INVALID,
                             "'by_rows' is a list of [rows, factor] with rising rows and factors from 0 to 1e6");
        f->rows[f->point_count] = rows->valuedouble, f->factor[f->point_count++] = factor->valuedouble;
    }
    return OK;
}

static int read_fit(sim_machine *m, const cJSON *item, error *err) {
    const int kind = item->string ? find_kind(item->string) : -1;
    if (kind < 0) return error_set(err, ERR_INVALID, "there is no operator '%.64s'", item->string ? item->string : "");
    sim_fit *f = &m->fits[kind];
    *f = (sim_fit){.known = true};
    int status = json_read_f64(item, "fixed_ns", 0, 1e12, &f->fixed_ns, err);
    if (status == OK) status = json_read_f64(item, "ns_per_row", 0, 1e9, &f->ns_per_row, err);
    if (status == OK) status = json_read_f64(item, "ns_per_byte", 0, 1e6, &f->ns_per_byte, err);
    if (status == OK) status = json_read_f64(item, "ns_per_flop", 0, 1e6, &f->ns_per_flop, err);
    return status == OK ? read_points(f, json_get(item, "by_rows"), err) : status;
}

static int read_members(sim_machine *m, const cJSON *json, error *err) {
    const char  *name = NULL, *experts = "skewed";
    double       memory = (double)m->memory_bytes;
    const cJSON *operators = json_get(json, "operators");
    if (!cJSON_IsObject(json) || !cJSON_IsObject(operators))
        return error_set(err, ERR_INVALID, "a calibration is an object with 'operators'");
    int status = json_read_string(json, "name", &name, err);
    if (status == OK) status = json_read_string(json, "experts", &experts, err);
    if (status == OK) status = json_read_f64(json, "bytes_per_s", 1, 1e18, &m->bytes_per_s, err);
    if (status == OK) status = json_read_f64(json, "flops_per_s", 1, 1e21, &m->flops_per_s, err);
    if (status == OK) status = json_read_f64(json, "launch_ns", 0, 1e12, &m->launch_ns, err);
    if (status == OK) status = json_read_f64(json, "link_bytes_per_s", 1, 1e18, &m->link_bytes_per_s, err);
    if (status == OK) status = json_read_f64(json, "memory_bytes", 1, 1e18, &memory, err);
    if (status == OK) status = json_read_f64(json, "pass_ns", 0, 1e12, &m->pass_ns, err);
    if (status == OK) status = json_read_f64(json, "request_ns", 0, 1e12, &m->request_ns, err);
    if (status != OK) return status;
    m->uniform_experts = strcmp(experts, "uniform") == 0;
    if (!m->uniform_experts && strcmp(experts, "skewed") != 0)
        return error_set(err, ERR_INVALID, "'experts' must be uniform or skewed, not '%.64s'", experts);
    m->memory_bytes = (uint64_t)memory;
    if (name) snprintf(m->name, sizeof m->name, "%s", name);
    for (const cJSON *item = operators->child; item && status == OK; item = item->next) status = read_fit(m, item, err);
    return status;
}

int sim_machine_parse(sim_machine *m, const char *path, const char *text, size_t bytes, error *err) {
    cJSON *json = json_parse(text, bytes, 6, err);
    int    status = json ? read_members(m, json, err) : ERR_INVALID;
    cJSON_Delete(json);
    if (status != OK) error_prefix(err, "calibration '%s'", path);
    return status;
}

int sim_machine_find(sim_machine *out, const char *name, const char *calibration, error *err) {
    int status = find_row(out, name, err);
    if (status != OK || !calibration) return status;
    buf text = {.limit = FILE_BYTES_MAX};
    status = file_read(&text, calibration, err);
    if (status == OK) status = sim_machine_parse(out, calibration, text.data, text.size, err);
    buf_free(&text);
    return status;
}

/* ---- cost ---- */

double sim_machine_copy_ns(const sim_machine *m, uint64_t bytes) { return (double)bytes / m->link_bytes_per_s * 1e9; }

static double factor_at(const sim_fit *f, double rows) {
    uint32_t i = 0;
    if (f->point_count == 0) return 1;
    while (i < f->point_count && f->rows[i] < rows) i++;
    if (i == 0 || i == f->point_count) return f->factor[i ? i - 1 : 0];
    const double share = (rows - f->rows[i - 1]) / (f->rows[i] - f->rows[i - 1]);
    return f->factor[i - 1] + share * (f->factor[i] - f->factor[i - 1]);
}

double sim_fit_ns(const sim_fit *f, const op_cost *cost) {
    const double bytes = cost->weight_bytes + cost->kv_bytes + cost->activation_bytes;
    const double sum = f->fixed_ns + cost->rows * f->ns_per_row + bytes * f->ns_per_byte + cost->flops * f->ns_per_flop;
    return sum * factor_at(f, cost->rows);
}

double sim_machine_op_ns(const sim_machine *m, op_kind kind, const op_cost *cost) {
    const double   bytes = cost->weight_bytes + cost->kv_bytes + cost->activation_bytes;
    const sim_fit *f = &m->fits[kind];
    if (f->known) return sim_fit_ns(f, cost);
    return m->launch_ns + 1e9 * fmax(bytes / m->bytes_per_s, cost->flops / m->flops_per_s);
}

double sim_machine_experts(const sim_machine *m, const model_facts *f, uint32_t row_count) {
    const double n = row_count, e = f->expert_count;
    if (f->expert_count == 0) return 0;
    if (m->uniform_experts) return program_expected_experts(f, row_count);
    return e * (1 - pow(1 - f->experts_per_token / e, fmin(n, 2.25 * pow(n, 0.54))));
}
