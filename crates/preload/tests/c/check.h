/* What the C programs share: a check that names its line and counts, and whether the library under test is in use. */
#ifndef CHECK_H
#define CHECK_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

static int failures;

/* Checks go on after a failure: one run names all that is wrong. */
#define CHECK(fact)                                                                                                    \
    do {                                                                                                               \
        if (!(fact)) {                                                                                                 \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #fact);                                                 \
            failures++;                                                                                                \
        }                                                                                                              \
    } while (0)

/* With EXPECT_LIBRARY set, `malloc` must come from the library of that name; a preload that failed must not pass. */
static void check_library(void) {
    const char *expected = getenv("EXPECT_LIBRARY");
    Dl_info info;
    void *address = dlsym(RTLD_DEFAULT, "malloc");
    if (expected == NULL) {
        return;
    }
    CHECK(address != NULL && dladdr(address, &info) != 0 && strstr(info.dli_fname, expected) != NULL);
}

static int finish(const char *name) {
    if (failures == 0) {
        printf("%s: ok\n", name);
    }
    return failures == 0 ? 0 : 1;
}

/* Hides a value from the optimiser, which otherwise removes or warns about calls of malloc and free that make no sense. */
static void *hidden(void *pointer) {
    __asm__ volatile("" : "+r"(pointer) : : "memory");
    return pointer;
}

static size_t hidden_size(size_t size) {
    __asm__ volatile("" : "+r"(size));
    return size;
}

static inline void check_unused(void) {
    (void)check_library;
    (void)finish;
    (void)hidden;
    (void)hidden_size;
}

#ifdef __cplusplus
}
#endif
#endif
