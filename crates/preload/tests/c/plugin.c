/* A shared library that allocates when it is loaded, while it is used, and when it is unloaded. */
#include <stdlib.h>
#include <string.h>

static void *early;

__attribute__((constructor)) static void load(void) {
    early = malloc(5000);
    memset(early, 1, 5000);
}

__attribute__((destructor)) static void unload(void) {
    free(early);
    early = calloc(100, 30);
    free(early);
}

void *make(size_t bytes) {
    early = realloc(early, 90000);
    void *block = malloc(bytes);
    memset(block, 7, bytes);
    return block;
}
