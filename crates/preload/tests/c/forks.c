/* Forks of a process whose other threads allocate all the time: each child allocates, frees, starts a thread and ends.
   Arguments: forks, seconds that a child may take. */
#include "check.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

enum { THREADS = 3 };

static int fork_count = 300;
static unsigned child_seconds = 100;

static atomic_int stop;

static void work(unsigned seed, int rounds) {
    void *slots[64] = {0};
    for (int round = 0; round < rounds; round++) {
        seed = seed * 1103515245 + 12345;
        unsigned slot = (seed >> 16) % 64;
        free(slots[slot]);
        size_t bytes = 1 + (seed >> 8) % 3000;
        if (seed % 101 == 0) {
            bytes *= 100;
        }
        slots[slot] = malloc(bytes);
        memset(slots[slot], 1, bytes);
    }
    for (int slot = 0; slot < 64; slot++) {
        free(slots[slot]);
    }
}

static void *busy(void *argument) {
    while (!stop) {
        work((unsigned)(size_t)argument, 500);
    }
    return NULL;
}

static void *brief(void *argument) {
    work(7, 200);
    return argument;
}

static int child(void *inherited) {
    pthread_t thread;
    free(inherited);
    work(1, 500);
    if (pthread_create(&thread, NULL, brief, NULL) != 0 || pthread_join(thread, NULL) != 0) {
        return 1;
    }
    return 0;
}

int main(int argument_count, char **arguments) {
    check_library();
    if (argument_count > 2) {
        fork_count = atoi(arguments[1]);
        child_seconds = (unsigned)atoi(arguments[2]);
    }
    pthread_t threads[THREADS];
    for (size_t index = 0; index < THREADS; index++) {
        CHECK(pthread_create(&threads[index], NULL, busy, (void *)(index + 1)) == 0);
    }
    for (int number = 0; number < fork_count; number++) {
        void *inherited = malloc(1 + number * 50);
        pid_t pid = fork();
        if (pid == 0) {
            /* A child that hangs is ended by the alarm, with a status that is not 0. */
            alarm(child_seconds);
            _exit(child(inherited));
        }
        int status = -1;
        CHECK(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0);
        free(inherited);
    }
    stop = 1;
    for (int index = 0; index < THREADS; index++) {
        CHECK(pthread_join(threads[index], NULL) == 0);
    }
    return finish("forks");
}
