/* Handlers of forks that a constructor registers, before anything is allocated: one waits for a thread that allocates, as that of any
 * library with a lock of its own does, and all of them allocate. */
#include "check.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FORKS = 100, BLOCKS = 64 };

static pthread_mutex_t own = PTHREAD_MUTEX_INITIALIZER;
static atomic_int is_over;

/* More than caches hold, so that slow paths and their locks are on the way. */
static void allocate(void) {
    void *blocks[BLOCKS];
    for (size_t index = 0; index < BLOCKS; index++) {
        CHECK((blocks[index] = malloc(hidden_size(index * 1100 + 1))) != NULL);
    }
    for (size_t index = 0; index < BLOCKS; index++) {
        free(blocks[index]);
    }
}

static void before(void) {
    CHECK(pthread_mutex_lock(&own) == 0);
    allocate();
}

static void after(void) {
    allocate();
    CHECK(pthread_mutex_unlock(&own) == 0);
}

__attribute__((constructor)) static void begin(void) {
    CHECK(pthread_atfork(before, after, after) == 0);
}

static void *work(void *argument) {
    while (!is_over) {
        CHECK(pthread_mutex_lock(&own) == 0);
        allocate();
        CHECK(pthread_mutex_unlock(&own) == 0);
    }
    return argument;
}

int main(void) {
    pthread_t thread;
    check_library();
    CHECK(pthread_create(&thread, NULL, work, NULL) == 0);
    for (int index = 0; index < FORKS; index++) {
        int status;
        pid_t child = fork();
        if (child == 0) {
            allocate();
            _exit(failures);
        }
        CHECK(child > 0 && waitpid(child, &status, 0) == child && status == 0);
    }
    is_over = 1;
    CHECK(pthread_join(thread, NULL) == 0);
    return finish("fork_handlers");
}
