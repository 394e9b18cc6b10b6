/* Threads that allocate nothing, detached, on stacks of the program's: such a thread frees what the C library kept of it at its very end, when
 * nobody would give a heap up any more. */
#include "check.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

enum { THREADS = 640, STACK_BYTES = 64 << 10 };

static atomic_int runs;

static void *idle(void *argument) {
    runs++;
    return argument;
}

int main(void) {
    check_library();
    for (int index = 0; index < THREADS; index++) {
        pthread_attr_t attributes;
        pthread_t id;
        /* Nobody can say when a detached thread has left its stack: it stays. */
        void *stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        CHECK(stack != MAP_FAILED && pthread_attr_init(&attributes) == 0);
        CHECK(pthread_attr_setstack(&attributes, stack, STACK_BYTES) == 0);
        CHECK(pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED) == 0);
        CHECK(pthread_create(&id, &attributes, idle, NULL) == 0);
        CHECK(pthread_attr_destroy(&attributes) == 0);
        while (runs <= index) {
            usleep(10);
        }
    }
    usleep(50000);
    return finish("idle_threads");
}
