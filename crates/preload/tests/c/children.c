/* Children of a program with threads and much memory: one that was made without the C library's knowledge ends like any other, and
 * one of a fork, which has one thread, stays alone. */
#include "check.h"

#include <dirent.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BYTES = 64 << 20, BLOCKS = 2000, STATUS = 7, STACK_BYTES = 1 << 20 };

static char stack[STACK_BYTES];

static void *sleeper(void *argument) {
    free(hidden(malloc(100)));
    for (;;) {
        pause();
    }
    return argument;
}

static void allocate(void) {
    static void *blocks[BLOCKS];
    for (size_t index = 0; index < BLOCKS; index++) {
        CHECK((blocks[index] = malloc(hidden_size(1000 + index * 20))) != NULL);
    }
    for (size_t index = 0; index < BLOCKS; index++) {
        free(blocks[index]);
    }
}

static int threads(void) {
    DIR *tasks = opendir("/proc/self/task");
    int count = -2;
    CHECK(tasks != NULL);
    while (readdir(tasks) != NULL) {
        count++;
    }
    closedir(tasks);
    return count;
}

static int made_by_hand(void *argument) {
    (void)argument;
    exit(STATUS);
}

static int status_of(pid_t child) {
    int status = 0;
    CHECK(child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status));
    return WEXITSTATUS(status);
}

int main(void) {
    pthread_t thread;
    check_library();
    CHECK(pthread_create(&thread, NULL, sleeper, NULL) == 0);
    char *large = hidden(malloc(BYTES));
    CHECK(large != NULL);
    memset(large, 1, BYTES);
    allocate();
    usleep(50000);
    pid_t child = fork();
    if (child == 0) {
        allocate();
        usleep(50000);
        CHECK(threads() == 1);
        _exit(failures);
    }
    CHECK(status_of(child) == 0);
    CHECK(status_of(clone(made_by_hand, stack + STACK_BYTES, SIGCHLD, NULL)) == STATUS);
    return finish("children");
}
