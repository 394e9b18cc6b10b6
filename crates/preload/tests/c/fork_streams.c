/* Forks while another thread flushes all streams and two read long lines, which `getline` makes room for with the stream locked. */
#include "check.h"
#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LINES = 20, FORKS = 300 };

static atomic_int is_over;
static char path[] = "/tmp/hakmem-streams-XXXXXX";

static void *read_lines(void *unused) {
    while (!is_over) {
        FILE *file = fopen(path, "r");
        for (;;) {
            char *line = NULL;
            size_t room = 0;
            ssize_t bytes = getline(&line, &room, file);
            free(line);
            if (bytes < 0)
                break;
        }
        fclose(file);
    }
    return unused;
}

static void *flush(void *unused) {
    while (!is_over)
        fflush(NULL);
    return unused;
}

int main(void) {
    check_library();
    FILE *file = fdopen(mkstemp(path), "w");
    for (int line = 0; line < LINES; line++) {
        for (int i = 0; i < 200000; i++)
            fputc('x', file);
        fputc('\n', file);
    }
    fclose(file);
    pthread_t threads[3];
    for (int i = 0; i < 3; i++)
        CHECK(pthread_create(&threads[i], NULL, i == 0 ? flush : read_lines, NULL) == 0);
    /* A fork that waits for ever ends here. */
    alarm(60);
    for (int i = 0; i < FORKS; i++) {
        pid_t child = fork();
        if (child == 0) {
            /* Streams can be used, and closed, in the child. */
            FILE *other = fopen("/dev/null", "w");
            fprintf(other, "%d", i);
            _exit(fclose(other) || fflush(NULL));
        }
        int status = -1;
        waitpid(child, &status, 0);
        CHECK(status == 0);
    }
    is_over = 1;
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    unlink(path);
    return failures != 0;
}
