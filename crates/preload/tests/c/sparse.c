/* A block of which two pages are in use, larger than the library's window, grows where something lies behind it: it takes its pages along,
 * and those that nobody has touched take no memory. */
#include "check.h"

#include <sys/mman.h>

static const size_t MIB = (size_t)1 << 20;

static size_t resident_bytes(void) {
    size_t all = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    CHECK(file != NULL && fscanf(file, "%zu %zu", &all, &resident) == 2);
    fclose(file);
    return resident * 4096;
}

int main(void) {
    check_library();
    size_t bytes = 512 * MIB, before = resident_bytes();
    char *block = malloc(bytes);
    CHECK(block != NULL);
    block[0] = 1;
    block[bytes - 1] = 2;
    for (int step = 0; step < 3; step++) {
        /* Fails where something is there already. */
        mmap(block + bytes, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
        size_t grown = bytes + bytes / 4;
        block = realloc(block, grown);
        CHECK(block != NULL && block[0] == 1 && block[bytes - 1] == 2 && block[grown - 1] == 0);
        bytes = grown;
        block[bytes - 1] = 2;
    }
    CHECK(resident_bytes() < before + 64 * MIB);
    free(block);
    return finish("sparse");
}
