/* Allocation in destructors of pthread keys, in late rounds, by many short threads, and frees after a thread's end. */
#include "check.h"

#include <pthread.h>
#include <stdatomic.h>

enum { THREADS = 200, ROUNDS = 3, BLOCKS = 40 };

static pthread_key_t key;
static atomic_int runs;

struct left {
    int rounds;
    void *blocks[BLOCKS];
};

static void leave(int rounds) {
    struct left *left = malloc(sizeof *left);
    left->rounds = rounds;
    for (int index = 0; index < BLOCKS; index++) {
        left->blocks[index] = malloc(1 + 97 * index);
        memset(left->blocks[index], index, 1 + 97 * index);
    }
    pthread_setspecific(key, left);
}

static void at_exit(void *value) {
    struct left *left = value;
    for (int index = 0; index < BLOCKS; index++) {
        unsigned char *bytes = left->blocks[index];
        CHECK(bytes[0] == index && bytes[97 * index] == index);
        free(bytes);
    }
    int rounds = left->rounds;
    free(left);
    free(calloc(100, 100));
    runs++;
    if (rounds > 0) {
        leave(rounds - 1);
    }
}

static void *thread(void *argument) {
    if (argument != NULL) {
        free(malloc(100));
    }
    leave(ROUNDS - 1);
    /* Freed by the main thread, after this one has ended. */
    char *result = malloc(5000);
    memset(result, 9, 5000);
    return result;
}

int main(void) {
    check_library();
    CHECK(pthread_key_create(&key, at_exit) == 0);
    for (int number = 0; number < THREADS; number += 4) {
        pthread_t threads[4];
        for (int index = 0; index < 4; index++) {
            CHECK(pthread_create(&threads[index], NULL, thread, index % 2 ? &key : NULL) == 0);
        }
        for (int index = 0; index < 4; index++) {
            void *result = NULL;
            CHECK(pthread_join(threads[index], &result) == 0);
            CHECK(((char *)result)[4999] == 9);
            free(result);
        }
    }
    CHECK(runs == THREADS * ROUNDS);
    return finish("thread_exit");
}
