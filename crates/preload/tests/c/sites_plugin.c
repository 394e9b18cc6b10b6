/* A library with a place that big blocks come from. */
#include <stdlib.h>

char *plugin_take(size_t bytes);

__attribute__((noinline)) char *plugin_take(size_t bytes) {
    char *block = malloc(bytes);
    if (block) block[bytes / 2] = 1;
    return block;
}
