/* A shared library whose constructor waits for a thread that allocates. */
#include <pthread.h>
#include <stdlib.h>

static void *allocate(void *argument) {
    void *volatile block = malloc(100);
    free(block);
    return argument;
}

__attribute__((constructor)) static void load(void) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, allocate, NULL) == 0) {
        pthread_join(thread, NULL);
    }
}
