/* server/cmd_plan.c: `penstock plan`: where the memory would go, and whether it is there. Takes what `serve` takes, and
 * takes no memory itself. */
#include <stdio.h>

#include "server/command_settings.h"
#include "server/commands.h"

static double mib(uint64_t bytes) { return (double)bytes / 0x1p20; }

static void print_rows(const memory_plan *m) {
    uint64_t device_bytes = 0;
    for (uint32_t i = 0; i < m->row_count; i++) {
        const memory_row *r = &m->rows[i];
        if (r->bytes == 0) continue;
        printf("%-22s %12.1f MiB%s\n", r->name, mib(r->bytes), r->on_device ? "" : "   (host)");
        if (r->on_device) device_bytes += r->bytes;
    }
    printf("%-22s %12.1f MiB\n", "total", mib(device_bytes));
    if (m->available_bytes) printf("%-22s %12.1f MiB\n", "available", mib(m->available_bytes));
    else printf("%-22s %16s\n", "available", "unknown");
}

static void print_capacity(const engine_config *c, const memory_plan *m) {
    const scheduler_config *s = &c->scheduler_settings;
    printf("\nKV capacity            %llu tokens: %u pages of %u tokens, %.1f KiB each\n",
           (unsigned long long)s->page_count * s->page_tokens, s->page_count, s->page_tokens, (double)m->page_bytes / 1024);
    printf("context                %u tokens, prompt and answer together\n", c->context_max);
    printf("at once                %u running requests, %u waiting; %u rows a pass; %u frames of %u rows\n", s->running_max,
           s->waiting_max, s->batch_tokens_max, s->frame_count, s->frame_tokens);
}

static int plan_model(engine_config *c, error *err) {
    checkpoint *model;
    memory_plan m = {0};
    char        why[256];
    int         code = checkpoint_open(&model, c->model, err);
    if (code != OK) return code;
    code = engine_plan(c, model, &m, err);
    if (m.row_count) {
        const device_api *api = device_find(c->device, why, sizeof why);
        printf("%s, %s\n\n", c->model, *why ? why : api->name);
        print_rows(&m);
        print_capacity(c, &m);
        puts(code == OK ? "\nIt fits." : "\nIt does not fit.");
        fflush(stdout);
    }
    checkpoint_close(model);
    return code;
}

int cmd_plan(int argc, char **argv) {
    error            err;
    command_settings c = {
        .usage = "Usage: penstock plan --model DIR [options]\n\n"
                 "Prints how much memory each part of the daemon would take with these settings, and whether it\n"
                 "fits: exit status 0 if so, 1 if not.\n"};
    int code = command_settings_read(&c, argc, argv, &err);
    if (code == OK && !c.help) code = plan_model(&c.values.engine, &err);
    command_settings_free(&c);
    if (code == OK) return 0;
    const int status = command_failed(argv[0], &err);
    return code == ERR_MEMORY ? 1 : status;
}
