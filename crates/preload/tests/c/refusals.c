/* Requests that end in null, for tests of the counters: `refusals sizes` asks for what no block is as large as, through each
 * function once, `refusals limit` for more than HAKMEM_MEMORY_LIMIT_BYTES. The last line says how many there were. */
#include "check.h"

#include <malloc.h>
#include <stdint.h>

static int refusals;

static void refused(void *block) {
    CHECK(block == NULL);
    refusals++;
}

static void ask_for_sizes(void) {
    size_t huge = hidden_size((size_t)PTRDIFF_MAX + 1), half = hidden_size((size_t)1 << 32);
    void *block = malloc(hidden_size(100));
    CHECK(block != NULL);
    refused(malloc(huge));
    refused(malloc(hidden_size((size_t)1 << 60)));
    refused(calloc(1, huge));
    refused(calloc(half, half));
    refused(realloc(hidden(block), huge));
    refused(reallocarray(hidden(block), half, half));
    refused(memalign(64, huge));
    refused(aligned_alloc(64, huge));
    refused(pvalloc(hidden_size(SIZE_MAX)));
    void *untouched = NULL;
    CHECK(posix_memalign(&untouched, 64, huge) != 0);
    refused(untouched);
    /* No size, but an argument that is wrong. */
    CHECK(posix_memalign(&untouched, 24, 1) != 0);
    free(block);
}

int main(int count, char **arguments) {
    check_library();
    if (count > 1 && strcmp(arguments[1], "limit") == 0) {
        refused(malloc(hidden_size(1u << 20 << 6)));
    } else {
        ask_for_sizes();
    }
    printf("refused=%d\n", refusals);
    return finish("refusals");
}
