/* A process whose data are limited before it starts, as `ulimit -d` and LimitDATA= of systemd do: three quarters of the limit are there
 * for blocks, what is beyond ends in null, and what was freed serves again. */
#include "check.h"

#include <errno.h>
#include <sys/resource.h>

enum { BYTES = 1000, MOST = 100000 };

static void *blocks[MOST];

static size_t fill(void) {
    size_t count = 0;
    while (count < MOST && (blocks[count] = malloc(hidden_size(BYTES))) != NULL) {
        memset(blocks[count++], 1, BYTES);
    }
    return count;
}

int main(void) {
    check_library();
    struct rlimit limit;
    CHECK(getrlimit(RLIMIT_DATA, &limit) == 0);
    for (int round = 0; round < 3; round++) {
        errno = 0;
        size_t count = fill();
        CHECK(count < MOST && errno == ENOMEM);
        if (count * BYTES < limit.rlim_cur / 4 * 3) {
            fprintf(stderr, "%zu bytes of %zu\n", count * BYTES, (size_t)limit.rlim_cur);
            failures++;
        }
        while (count > 0) {
            free(blocks[--count]);
        }
    }
    return finish("data_limit");
}
