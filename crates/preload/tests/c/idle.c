/* A program that has freed much and goes idle. With an argument it has a second thread, which allocates nothing: its memory must
   come back while it does nothing at all. */
#include "check.h"
#include <fcntl.h>
#include <pthread.h>
#include <time.h>
#include <unistd.h>

/* More than the stack of an ordinary thread of the library's, which holds a copy of it. */
static __thread volatile char much[1 << 20];

enum { BLOCKS = 200000, BYTES = 500, LOOKS = 300, ENOUGH_PAGES = 30 << 8 };

static char *blocks[BLOCKS];

static void *sleeper(void *argument) {
    for (;;)
        pause();
    return argument;
}

/* Read without an allocation, which would be activity. */
static long resident_pages(void) {
    char text[64] = {0};
    int file = open("/proc/self/statm", O_RDONLY);
    CHECK(file >= 0 && read(file, text, sizeof text - 1) > 0);
    close(file);
    return strtol(strchr(text, ' '), NULL, 10);
}

int main(int count, char **arguments) {
    (void)arguments;
    check_library();
    much[0] = 1;
    pthread_t thread;
    if (count > 1)
        CHECK(pthread_create(&thread, NULL, sleeper, NULL) == 0);
    for (int index = 0; index < BLOCKS; index++) {
        blocks[index] = malloc(BYTES);
        memset(blocks[index], 1, BYTES);
    }
    CHECK(resident_pages() > ENOUGH_PAGES);
    for (int index = 0; index < BLOCKS; index++)
        free(blocks[index]);
    struct timespec tenth = {0, 100000000};
    for (int look = 0; count > 1 && look < LOOKS && resident_pages() > ENOUGH_PAGES; look++)
        nanosleep(&tenth, NULL);
    if (count > 1)
        CHECK(resident_pages() <= ENOUGH_PAGES);
    return finish("idle");
}
