/* Many large blocks, and how many mappings the process has then: `guards COUNT`. A thread and a mapping must still be had. */
#include "check.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { BYTES = 33000 };

static size_t mappings(void) {
    size_t lines = 0;
    FILE *file = fopen("/proc/self/maps", "r");
    CHECK(file != NULL);
    for (int c = getc(file); c != EOF; c = getc(file)) {
        lines += c == '\n';
    }
    fclose(file);
    return lines;
}

static void *nothing(void *argument) { return argument; }

int main(int argc, char **argv) {
    check_library();
    CHECK(argc == 2);
    size_t count = strtoul(argv[1], NULL, 10);
    char **blocks = calloc(count, sizeof *blocks);
    size_t before = mappings();
    for (size_t i = 0; i < count; i++) {
        CHECK((blocks[i] = malloc(BYTES)) != NULL);
        blocks[i][0] = blocks[i][BYTES - 1] = (char)i;
    }
    size_t full = mappings();
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, nothing, NULL) == 0 && pthread_join(thread, NULL) == 0);
    CHECK(mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED);
    for (size_t i = 0; i < count; i++) {
        CHECK(blocks[i][0] == (char)i && blocks[i][BYTES - 1] == (char)i);
        free(blocks[i]);
    }
    free(blocks);
    printf("before=%zu full=%zu after=%zu\n", before, full, mappings());
    return 0;
}
