/* Blocks from before main to after it: constructors, exit handlers, destructors, a thread that still works at exit. */
#include "check.h"

#include <pthread.h>
#include <unistd.h>

static char *early, *middle;

static char *filled(size_t size) {
    char *block = malloc(size);
    memset(block, 5, size);
    return block;
}

static void release(char *block, size_t size) {
    if (block == NULL || block[0] != 5 || block[size - 1] != 5) {
        static const char text[] = "early_late: a block lost its bytes\n";
        /* A failed write changes nothing: the status says it, too. */
        if (write(2, text, sizeof text - 1) < 0) {
            _exit(4);
        }
        _exit(3);
    }
    free(block);
}

__attribute__((constructor(101))) static void before_all(void) {
    early = filled(3000);
    release(filled(100000), 100000);
}

__attribute__((destructor(101))) static void after_all(void) {
    release(early, 3000);
    release(filled(77), 77);
    release(filled(3u << 20), 3u << 20);
}

static void at_exit(void) {
    release(middle, 500);
    early = realloc(early, 3000);
}

static void *restless(void *argument) {
    for (;;) {
        release(filled(1000), 1000);
    }
    return argument;
}

int main(void) {
    check_library();
    pthread_t thread;
    middle = filled(500);
    CHECK(atexit(at_exit) == 0);
    CHECK(pthread_create(&thread, NULL, restless, NULL) == 0);
    usleep(20000);
    return finish("early_late");
}
