/* Frees that the C library makes with its own stack lock held, while much memory waits to be purged: they must not start a
   thread, which takes that lock. Hung before the scavenger was parked ahead of time. */
#include "check.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { WORKERS = 12, BLOCKS = 100 };

static pthread_t workers[WORKERS];

static void *worker(void *argument) { return argument; }

/* Joining many threads overflows the cache of stacks: stacks and their thread vectors are freed under its lock. */
static void *joiner(void *argument) {
    void *block = malloc(100);
    for (int i = 0; i < WORKERS; i++)
        pthread_join(workers[i], NULL);
    free(block);
    return argument;
}

int main(void) {
    void *blocks[BLOCKS];
    alarm(100);
    for (int i = 0; i < BLOCKS; i++) {
        blocks[i] = malloc(1 << 20);
        CHECK(blocks[i] != NULL);
        memset(blocks[i], 1, 1 << 20);
    }
    for (int i = 0; i < BLOCKS; i++)
        free(blocks[i]);
    for (int i = 0; i < WORKERS; i++)
        CHECK(pthread_create(&workers[i], NULL, worker, NULL) == 0);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, joiner, NULL) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    return failures != 0;
}
