/* Misuse that must end the program. Arguments: the kind, the size of the block. Comes back with 0 if nothing stopped it. */
#include "check.h"

#include <pthread.h>
#include <stdint.h>
#include <sys/resource.h>

/* The next cancellation point would be its end. */
static void *about_to_be_cancelled(void *block) {
    char *again = hidden(block);
    pthread_cancel(pthread_self());
    free(block);
    free(again);
    return NULL;
}

int main(int argc, char **argv) {
    struct rlimit none = {0, 0};
    const char *kind = argc > 1 ? argv[1] : "";
    size_t size = argc > 2 ? strtoul(argv[2], NULL, 10) : 64;
    uint64_t local[8] = {0};

    setrlimit(RLIMIT_CORE, &none);
    check_library();
    char *neighbours[4];
    for (int index = 0; index < 4; index++) {
        neighbours[index] = hidden(malloc(size));
        neighbours[index][0] = 1;
    }
    char *block = hidden(malloc(size));
    block[0] = block[size - 1] = 1;
    if (strcmp(kind, "double") == 0) {
        char *again = hidden(block);
        free(block);
        free(again);
    } else if (strcmp(kind, "cancelled") == 0) {
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, about_to_be_cancelled, block) == 0 && pthread_join(thread, NULL) == 0);
    } else if (strcmp(kind, "misaligned") == 0) {
        free(hidden(block + 1));
    } else if (strcmp(kind, "interior") == 0) {
        free(hidden(block + (size / 2 + 15) / 16 * 16));
    } else if (strcmp(kind, "realloc") == 0 || strcmp(kind, "realloc-moving") == 0) {
        size_t wanted = strcmp(kind, "realloc") == 0 ? size - 16 : 4 * size;
        hidden(realloc(hidden(block + 16), wanted));
    } else if (strcmp(kind, "foreign") == 0) {
        free(hidden(&local[2]));
    } else {
        return 2;
    }
    return 0;
}
