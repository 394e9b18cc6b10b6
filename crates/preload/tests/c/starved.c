/* A process whose address space has no room for a window at first: each allocation is an attempt to start, and ends in null,
 * until the limit is lifted. */
#include "check.h"

#include <errno.h>
#include <sys/resource.h>

int main(void) {
    check_library();
    for (int attempt = 0; attempt < 50; attempt++) {
        errno = 0;
        CHECK(malloc(hidden_size(100)) == NULL && errno == ENOMEM);
        CHECK(malloc(hidden_size(100000)) == NULL);
    }
    struct rlimit limit;
    CHECK(getrlimit(RLIMIT_AS, &limit) == 0);
    limit.rlim_cur = limit.rlim_max;
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
    void *block = malloc(hidden_size(100));
    CHECK(block != NULL);
    free(block);
    return finish("starved");
}
