/* Fills the library's window with blocks of the size that the argument says, until there is no more. Then big blocks, which may lie
 * elsewhere, still come, go and grow. */
#include "check.h"

static const size_t MIB = (size_t)1 << 20;

int main(int argc, char **argv) {
    check_library();
    size_t bytes = argc > 1 ? strtoul(argv[1], NULL, 10) : 1000, filled = 0;
    /* As every program does. */
    free(hidden(malloc(10)));
    /* A window of 64 MiB; headroom for what a block takes beside its bytes. */
    for (char *block; filled < 70 * MIB && (block = malloc(bytes)) != NULL; filled += bytes) {
        block[0] = 1;
    }
    CHECK(filled > 30 * MIB);
    for (size_t big = 3 * MIB; big < 100 * MIB; big *= 3) {
        char *block = malloc(big);
        CHECK(block != NULL);
        if (block != NULL) {
            block[0] = block[big - 1] = 7;
            block = realloc(block, big * 2);
            CHECK(block != NULL && block[0] == 7 && block[big - 1] == 7);
        }
        free(block);
    }
    return finish("full_window");
}
