/* Every door, every small size: all bytes are written, usable_size is exact or more, contents survive realloc.
 * With the argument "overflow": one byte too many, in a block that is never freed. */
#include "check.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>

static void use(unsigned char *block, size_t bytes, int zeroed)
{
    CHECK(block != NULL && malloc_usable_size(block) >= bytes);
    for (size_t i = 0; zeroed && i < bytes; i++)
        CHECK(block[i] == 0);
    memset(block, 0xa5, bytes);
}

int main(int argc, char **argv)
{
    (void)argv;
    for (size_t bytes = 0; bytes < 40000; bytes += bytes < 1100 ? 1 : 997) {
        unsigned char *blocks[5] = { malloc(bytes), calloc(1, bytes), calloc(bytes, 1), memalign(64, bytes), NULL };
        CHECK(posix_memalign((void **)&blocks[4], 4096, bytes) == 0);
        for (int i = 0; i < 5; i++)
            use(blocks[i], bytes, i == 1 || i == 2);
        for (int i = 0; i < 5; i++) {
            size_t more = bytes + 1 + (size_t)i * 7;
            blocks[i] = realloc(blocks[i], more);
            for (size_t k = 0; k < bytes; k++)
                CHECK(blocks[i][k] == 0xa5);
            use(blocks[i], more, 0);
            blocks[i] = realloc(blocks[i], more / 2 + 1);
            use(blocks[i], more / 2 + 1, 0);
            free(blocks[i]);
        }
    }
    if (argc > 1) {
        static unsigned char *volatile kept;
        kept = malloc(100);
        kept[100] = 'x';
    }
    return 0;
}
