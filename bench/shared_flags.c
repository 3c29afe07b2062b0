#include "bench/shared_flags.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int read_slo(const char *text, slo *out, error *err) {
    const struct {
        const char *name;
        double     *to;
    } limits[] = {
        {"ttft_ms", &out->ttft_ms}, {"tpot_ms", &out->tpot_ms}, {"tbt_ms", &out->tbt_ms}, {"e2e_ms", &out->e2e_ms}};
    for (const char *at = text; at && *at;) {
        size_t n = strcspn(at, "="), i = 0;
        char  *end;
        while (i < 4 && (strlen(limits[i].name) != n || memcmp(limits[i].name, at, n) != 0)) i++;
        double value = at[n] ? strtod(at + n + 1, &end) : NAN;
        if (i == 4 || !(value > 0 && value < 1e12) || end == at + n + 1 || (*end && *end != ','))
            return error_set(err, ERR_USAGE, "--slo '%.80s' is not like ttft_ms=500,tpot_ms=50 (also tbt_ms, e2e_ms)", at);
        *limits[i].to = value;
        at = *end ? end + 1 : end;
    }
    return OK;
}

int make_folder(const char *path, error *err) {
    char   part[4096];
    size_t n = strlen(path);
    if (n >= sizeof part) return error_set(err, ERR_USAGE, "--out is longer than %zu bytes", sizeof part - 1);
    for (size_t i = 1; i <= n; i++) {
        if (path[i] != '/' && path[i] != 0) continue;
        memcpy(part, path, i), part[i] = 0;
        if (mkdir(part, 0777) != 0 && errno != EEXIST)
            return error_set(err, ERR_IO, "cannot make %s: %s", part, strerror(errno));
    }
    return OK;
}

int write_file(const char *folder, const char *name, const buf *content, error *err) {
    char path[4352];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "w");
    bool  good = f && fwrite(content->data ? content->data : "", 1, content->size, f) == content->size;
    if (f && fclose(f) != 0) good = false;
    return good ? OK : error_set(err, ERR_IO, "cannot write %s: %s", path, strerror(errno));
}

const char *file_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

double trace_span_s(const trace *t) {
    uint64_t last_us = 0;
    for (uint32_t i = 0; i < t->request_count; i++)
        if (t->requests[i].at_us > last_us) last_us = t->requests[i].at_us;
    return (double)last_us * 1e-6;
}

/* ---- the model by its name ---- */

void name_lower(const char *from, char *to, size_t room) {
    size_t i = 0;
    for (; from[i] && i + 1 < room; i++) to[i] = from[i] == ' ' ? '-' : (char)tolower((unsigned char)from[i]);
    to[i] = 0;
}

static int refuse_model(const char *name, error *err) {
    buf known;
    buf_init(&known, 1 << 14);
    for (uint32_t i = 0; checkpoint_random_name(i); i++)
        buf_printf(&known, "%s%s", i ? ", " : "", checkpoint_random_name(i) + strlen("random:"));
    const int code =
        error_set(err, ERR_NOT_FOUND, "there is no model '%s', neither a folder nor one of %s", name, known.data);
    buf_free(&known);
    return code;
}

int open_model(checkpoint **out, const char *name, error *err) {
    char        shape[256] = "random:";
    struct stat s;
    if (strncmp(name, "random:", 7) == 0 || stat(name, &s) == 0) return checkpoint_open(out, name, err);
    name_lower(name, shape + strlen(shape), sizeof shape - strlen(shape));
    for (uint32_t i = 0; checkpoint_random_name(i); i++)
        if (strcmp(checkpoint_random_name(i), shape) == 0) return checkpoint_open(out, shape, err);
    return refuse_model(name, err);
}
