/* A handler of SIGABRT that allocates and frees: what a crash reporter does. A report must end there and not wait for a lock
 * that its own thread holds. The argument chooses the mistake. */
#include "check.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static size_t bytes;

static void on_abort(int number) {
    (void)number;
    for (size_t size = 1; size < 100000; size *= 3) {
        free(malloc(size));
    }
    for (int i = 0; i < 100; i++) {
        char *volatile block = malloc(bytes);
        free(block);
    }
    CHECK(write(1, "handled\n", 8) == 8);
    _exit(7);
}

int main(int argc, char **argv) {
    check_library();
    CHECK(argc == 3 && signal(SIGABRT, on_abort) != SIG_ERR);
    bytes = strtoul(argv[2], NULL, 10);
    volatile char *volatile block = malloc(bytes);
    if (strcmp(argv[1], "double-free") == 0) {
        free((void *)block);
        free((void *)block);
    } else if (strcmp(argv[1], "overflow") == 0) {
        block[bytes] = 'x';
        free((void *)block);
    } else if (strcmp(argv[1], "overflow-realloc") == 0) {
        block[bytes] = 'x';
        block = realloc((void *)block, bytes - 1);
    } else if (strcmp(argv[1], "overflow-at-exit") == 0) {
        block[bytes] = 'x';
        return 0;
    } else if (strcmp(argv[1], "wrong-pointer") == 0) {
        volatile char *volatile inside = block + 16;
        free((void *)inside);
    }
    return 0;
}
