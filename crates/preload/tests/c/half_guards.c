/* What mprotect may do where a process has all the mappings it may have: of a range over two mappings the first changes, the second
 * cannot be cut. Blocks of several superslabs are freed meanwhile, and what they leave is used again. */
#include "check.h"

#include <errno.h>
#include <malloc.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { COUNT = 8, ROUNDS = 500 };
static const size_t MAPPING = (size_t)2 << 20, BYTES = (size_t)7 << 20;
static volatile int is_full, halves;

int mprotect(void *address, size_t bytes, int protection) {
    if (is_full && protection == PROT_NONE) {
        if (bytes > MAPPING) {
            syscall(SYS_mprotect, address, MAPPING, protection);
            halves++;
        }
        errno = ENOMEM;
        return -1;
    }
    return (int)syscall(SYS_mprotect, address, bytes, protection);
}

static char *block_of(size_t bytes) {
    char *block = malloc(bytes);
    CHECK(block != NULL);
    for (size_t at = 0; at < bytes; at += MAPPING / 2) {
        block[at] = 1;
    }
    return block;
}

int main(void) {
    check_library();
    free(hidden(malloc(10)));
    is_full = 1;
    char *blocks[COUNT];
    for (int index = 0; index < COUNT; index++) {
        blocks[index] = block_of(BYTES);
    }
    for (int index = 0; index < COUNT; index++) {
        free(blocks[index]);
    }
    /* The guard before such a block is several mappings long. */
    free(hidden(memalign(2 * MAPPING, BYTES)));
    is_full = 0;
    CHECK(halves > COUNT || getenv("EXPECT_LIBRARY") == NULL);
    for (int round = 0; round < ROUNDS; round++) {
        free(block_of(BYTES));
    }
    return finish("half_guards");
}
