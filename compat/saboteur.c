// Stands between a program and hakmem and makes the worst mistake of an allocator: now and then it hands out the block that it
// handed out last, which is still in use. `cargo xtask compat --sabotage` runs every program on it, and each must come out wrong:
// a program that does not notice would not notice a fault of hakmem either. Only the program named by COMPAT_SABOTAGE is
// disturbed, so that it is not its shell that fails.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FIRST = 30, EVERY = 10 };

static _Atomic(void *(*)(size_t)) next_malloc;
static _Atomic(void *(*)(size_t, size_t)) next_calloc;
static _Atomic(void *(*)(void *, size_t)) next_realloc;
static _Atomic(void *(*)(size_t)) next_new;
static atomic_bool active;
static atomic_size_t calls;
static _Atomic(void *) last;
static atomic_size_t last_size;

__attribute__((constructor)) static void begin(void) {
    const char *program = getenv("COMPAT_SABOTAGE");
    char path[1024] = {0};
    if (program == NULL || readlink("/proc/self/exe", path, sizeof path - 1) < 0) return;
    const char *slash = strrchr(path, '/');
    active = strncmp(slash != NULL ? slash + 1 : path, program, strlen(program)) == 0;
}

// Threads may mix up `last` and `last_size`: then a block is too small as well.
static void *spoiled(void *block, size_t size) {
    if (!active || size == 0) return block;
    size_t number = atomic_fetch_add(&calls, 1);
    if (number > FIRST && number % EVERY == 0 && last != NULL && last_size >= size) return last;
    last = block;
    last_size = size;
    return block;
}

void *malloc(size_t size) {
    if (next_malloc == NULL) next_malloc = (void *(*)(size_t))dlsym(RTLD_NEXT, "malloc");
    return spoiled(next_malloc(size), size);
}

void *calloc(size_t count, size_t size) {
    if (next_calloc == NULL) next_calloc = (void *(*)(size_t, size_t))dlsym(RTLD_NEXT, "calloc");
    return spoiled(next_calloc(count, size), count * size);
}

// For some, Lua among them, all there is.
void *realloc(void *block, size_t size) {
    if (next_realloc == NULL) next_realloc = (void *(*)(void *, size_t))dlsym(RTLD_NEXT, "realloc");
    void *resized = next_realloc(block, size);
    return block == NULL ? spoiled(resized, size) : resized;
}

// operator new(unsigned long), which in hakmem does not come through malloc.
void *_Znwm(size_t size) {
    if (next_new == NULL) next_new = (void *(*)(size_t))dlsym(RTLD_NEXT, "_Znwm");
    return spoiled(next_new(size), size);
}
