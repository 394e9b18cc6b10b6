/* Blocks whose bytes nobody has written, freed: hakmem looks for its mark in them, whatever stands there. */
#include "check.h"

#include <stdlib.h>

struct pair {
    long first;
    long second;
};

/* Copies a structure of which only half has a value. */
static __attribute__((noinline)) void half(struct pair *place)
{
    struct pair value;
    value.first = 1;
    __asm__ volatile("" : : "r"(&value) : "memory");
    *place = value;
}

int main(void)
{
    check_library();
    for (int round = 0; round < 200; round++) {
        struct pair *block = malloc(sizeof *block);
        CHECK(block != NULL);
        half(block);
        free(block);
    }
    return finish("unwritten");
}
