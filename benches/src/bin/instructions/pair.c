/* Allocates and frees N times. Arguments: N, and the size, or 0 for sizes of 16 to 1024 bytes. */
#include <stdlib.h>

int main(int argc, char **argv) {
    unsigned long count = argc > 1 ? strtoul(argv[1], NULL, 10) : 0;
    unsigned long fixed = argc > 2 ? strtoul(argv[2], NULL, 10) : 64;
    static unsigned short sizes[4096];
    unsigned seed = 1;
    for (int index = 0; index < 4096; index++) {
        seed = seed * 1103515245 + 12345;
        sizes[index] = fixed != 0 ? fixed : 16 + (seed >> 16) % 1009;
    }
    for (unsigned long index = 0; index < count; index++) {
        char *block = malloc(sizes[index % 4096]);
        *(volatile char *)block = 1;
        free(block);
    }
    return 0;
}
