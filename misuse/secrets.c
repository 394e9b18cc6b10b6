/* What stays in memory after a free, and what a stranger to the program could foresee or run.
 *
 * Caught: the secret is gone or cannot be read; the address could not be foreseen; the code does not run. */
#include "suite.h"

#include <spawn.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* ---- secrets ---- */

CASE(read_freed_secret, ALL, NO_USE, BEYOND, "writes secrets to a block, frees it, and reads them there") {
    char *block = fresh();
    write_secrets(block);
    if (!mistake) {
        return has_secret(block, size) ? HARMLESS : MISSED;
    }
    free(block);
    return has_secret(hidden(block), size) ? MISSED : HARMLESS;
}

CASE(read_moved_secret, SLABS | RUN, NO_USE, BEYOND,
     "writes secrets to a block, lets realloc move it, and reads them at the old address") {
    char *old = fresh(), *block = old;
    write_secrets(old);
    for (size_t bytes = 2 * size; block == old; bytes *= 2) {
        if (bytes > 64 * size || (block = hidden(realloc(block, bytes))) == NULL) {
            cannot("realloc does not move the block");
        }
    }
    return has_secret(hidden(mistake ? old : block), size) ? MISSED : HARMLESS;
}

CASE(
    uninitialised_secret, ALL, NO_USE, BEYOND,
    "writes secrets to blocks, frees them, and finds one in a block of the size that it allocates without clearing it") {
    static char *blocks[64];
    size_t count = size < (1 << 20) ? 64 : 4;
    for (size_t index = 0; index < count; index++) {
        blocks[index] = block_of(size);
        write_secrets(blocks[index]);
    }
    for (size_t index = 0; index < count; index++) {
        free(blocks[index]);
    }
    bool found = false;
    for (size_t index = 0; index < 4 * count; index++) {
        char *block = hidden(mistake ? malloc(size) : calloc(1, size));
        found |= has_secret(block, size);
    }
    return found ? MISSED : HARMLESS;
}

/* ---- code ---- */

CASE(execute_heap, SMALL | LARGE, STOP, BEYOND, "writes a return instruction to a block and calls it") {
#if defined(__x86_64__)
    static const unsigned char RETURN[] = {0xc3};
#elif defined(__aarch64__)
    static const unsigned char RETURN[] = {0xc0, 0x03, 0x5f, 0xd6};
#else
#error "the return instruction of this processor is not known here"
#endif
    char *block = fresh();
    memcpy(block, RETURN, sizeof RETURN);
    __builtin___clear_cache(block, block + sizeof RETURN);
    void (*code)(void) = (void (*)(void))hidden(block);
    if (mistake) code();
    return MISSED;
}

/* ---- addresses that can be foreseen ---- */

/* Runs this case again in a process of its own, which writes to `text`. */
static void run_again(const char *name, char *text, size_t bytes) {
    char *arguments[] = {(char *)"misuse", (char *)name, (char *)(size == 64 ? "small" : "mid"), NULL};
    int ends[2];
    pid_t child;
    posix_spawn_file_actions_t actions;
    setenv("MISUSE_AGAIN", "1", 1);
    if (pipe(ends) != 0 || posix_spawn_file_actions_init(&actions) != 0 ||
        posix_spawn_file_actions_adddup2(&actions, ends[1], 1) != 0 ||
        posix_spawn(&child, "/proc/self/exe", &actions, NULL, arguments, environ) != 0) {
        cannot("the program does not start again");
    }
    close(ends[1]);
    size_t got = 0;
    ssize_t now;
    while ((now = read(ends[0], text + got, bytes - 1 - got)) > 0) {
        got += (size_t)now;
    }
    text[got] = 0;
    waitpid(child, NULL, 0);
    if (got == 0) {
        cannot("the program started again says nothing");
    }
}

/* Compares what two runs print: the addresses of 24 blocks, from `base` on (null: from the first of them). */
static enum verdict compare_two_runs(const char *name, bool from_first) {
    static char first[4096], second[4096];
    if (getenv("MISUSE_AGAIN") != NULL) {
        char *blocks[24];
        char line[32];
        for (int index = 0; index < 24; index++) {
            blocks[index] = block_of(size);
        }
        for (int index = 0; index < 24; index++) {
            long long at = from_first ? (long long)(blocks[index] - blocks[0]) : (long long)(intptr_t)blocks[index];
            int length = snprintf(line, sizeof line, "%llx\n", at);
            if (write(1, line, (size_t)length) != length) {
                _exit(2);
            }
        }
        _exit(0);
    }
    run_again(name, first, sizeof first);
    run_again(name, second, sizeof second);
    return mistake && strcmp(first, second) == 0 ? MISSED : HARMLESS;
}

CASE(addresses_repeat, SMALL, NO_USE, BEYOND, "caught if two runs of a program get blocks at different addresses") {
    return compare_two_runs("addresses_repeat", false);
}

CASE(order_repeats, SLABS, NO_USE, BEYOND,
     "caught if the distances between the blocks of a program differ from run to run") {
    return compare_two_runs("order_repeats", true);
}

CASE(
    neighbours_foreseen, SLABS, NO_USE, BEYOND,
    "caught if fewer than half of 64 blocks in a row lie at the same distance from the one before as the one before did") {
    char *blocks[64];
    int same = 0;
    for (int index = 0; index < 64; index++) {
        blocks[index] = block_of(size);
        same += index >= 2 && blocks[index] - blocks[index - 1] == blocks[index - 1] - blocks[index - 2];
    }
    return mistake && same >= 32 ? MISSED : HARMLESS;
}

CASE(reuse_foreseen, ALL, NO_USE, BEYOND,
     "caught if fewer than half of 16 freed blocks are what the next allocation of the size gets") {
    int same = 0;
    for (int index = 0; index < 16; index++) {
        char *block = block_of(size);
        uintptr_t was = (uintptr_t)block;
        free(block);
        same += (uintptr_t)block_of(size) == was;
    }
    return mistake && same >= 8 ? MISSED : HARMLESS;
}
