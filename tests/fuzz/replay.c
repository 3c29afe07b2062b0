/* tests/fuzz/replay.c: runs a fuzz target over files, so that its corpus is an ordinary test.
 *
 * Arguments are files or folders; without any, the target's own corpus: fuzz_NAME reads tests/fuzz/corpus/NAME. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

/* The bytes sit at the end of their allocation, so that the sanitizer sees a read past them. */
static void run_file(const char *path, size_t size) {
    FILE          *f = fopen(path, "rb");
    unsigned char *data = malloc(size ? size : 1);
    if (!f || !data || fread(data, 1, size, f) != size) {
        fprintf(stderr, "cannot read %s\n", path);
        exit(1);
    }
    fclose(f);
    LLVMFuzzerTestOneInput(data, size);
    free(data);
}

static int run_path(const char *path) {
    struct stat facts;
    if (stat(path, &facts) != 0) {
        fprintf(stderr, "%s is not there\n", path);
        exit(1);
    }
    if (!S_ISDIR(facts.st_mode)) return run_file(path, (size_t)facts.st_size), 1;
    int             count = 0;
    struct dirent **names;
    int             n = scandir(path, &names, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        char inner[4096];
        snprintf(inner, sizeof inner, "%s/%s", path, names[i]->d_name);
        if (names[i]->d_name[0] != '.') count += run_path(inner);
        free(names[i]);
    }
    if (n >= 0) free(names);
    return count;
}

int main(int argc, char **argv) {
    const char *name = strrchr(argv[0], '/');
    name = name ? name + 1 : argv[0];
    if (strncmp(name, "fuzz_", 5) == 0) name += 5;
    char corpus[256];
    snprintf(corpus, sizeof corpus, "tests/fuzz/corpus/%s", name);
    int count = 0;
    if (argc < 2) count = run_path(corpus);
    for (int i = 1; i < argc; i++) count += run_path(argv[i]);
    if (!count) return fprintf(stderr, "the corpus of %s is empty\n", name), 1;
    printf("[       OK ] the_%s_corpus_of_%d_files_is_handled\n", name, count);
    return 0;
}
