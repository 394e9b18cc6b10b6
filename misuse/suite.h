/* A suite of programs with one mistake each: what a case is, and what the cases share.
 *
 * A case is a function. It runs alone in a process of its own, for one of its sizes, and reaches the mistake only where
 * it tests `mistake`: without it, it is its own control twin, which every level of every allocator must let pass.
 * `cargo xtask misuse` reads the list of cases from the program itself (`--list`), so a case is written in one place.
 */
#ifndef SUITE_H
#define SUITE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <malloc.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What a case comes back with, if it comes back. */
enum verdict {
    HARMLESS = 0, /* the mistake had no effect: null was returned, the secret is gone */
    MISSED = 1,   /* nothing stopped it */
};

/* What counts as caught. */
enum success {
    REPORT, /* ends with a line of hakmem's on fd 2 and SIGABRT (of other allocators: any fatal signal) */
    STOP,   /* any fatal signal: a report, a fault on a guard page, damage found by whatever it met */
    NO_USE, /* the case comes back HARMLESS, or as STOP */
};

/* Sizes that a case runs for. One block of each is served by another part of hakmem. */
enum sizes {
    SMALL = 1, /* 64 bytes */
    MID = 2,   /* 8 KiB */
    RUN = 4,   /* 128 KiB */
    BIG = 8,   /* 4 MiB */
    NONE = 16, /* the mistake has no size */
    SLABS = SMALL | MID,
    LARGE = RUN | BIG,
    ALL = SLABS | LARGE,
};

/* Whether the default level has to catch it (docs/misuse.md says which mistakes those are). */
enum bar { BEYOND, DEFAULT_BAR };

struct entry {
    const char *name;
    const char *what; /* the mistake, and where it is not obvious, what caught means */
    const char *file;
    int line;
    int sizes;
    enum success success;
    enum bar bar;
    enum verdict (*run)(void);
};

/* Defines a case; its body follows. The linker gathers the pointers to the entries in one array. */
#define CASE(name, sizes, success, bar, what)                                                                          \
    static enum verdict run_##name(void);                                                                              \
    static struct entry entry_##name = {#name, what, __FILE__, __LINE__, sizes, success, bar, run_##name};             \
    __attribute__((section("misuse_cases"), used)) static struct entry *listed_##name = &entry_##name;                 \
    static enum verdict run_##name(void)

extern size_t size;  /* bytes of the block, from the size that the case runs for */
extern bool mistake; /* false in the control twin */

/* Says why the case cannot show its mistake here, and ends the process; neither caught nor missed. */
void cannot(const char *why) __attribute__((noreturn));
/* The same where the allocator lacks a function. */
void not_available(const char *function) __attribute__((noreturn));

/* Hides a pointer from the compiler, which otherwise warns about these programs or repairs them. */
static inline void *hidden(void *pointer) {
    __asm__ volatile("" : "+r"(pointer) : : "memory");
    return pointer;
}

static inline size_t hidden_size(size_t bytes) {
    __asm__ volatile("" : "+r"(bytes));
    return bytes;
}

/* A block of `bytes` bytes, written at both ends, between neighbours of the same size that stay in use. */
char *fresh_of(size_t bytes);
/* The same of `size` bytes. */
char *fresh(void);
/* Whether `fresh` handed out a block at this address. */
bool is_neighbour(const char *address);
/* `malloc` that must succeed, written at both ends. */
char *block_of(size_t bytes);
/* Allocates `count` blocks of `bytes`, then frees them all. */
void churn(size_t bytes, size_t count);
/* How many blocks of `size` a case that needs many of them takes: fewer of large ones. */
size_t many(void);

/* Runs `body` in a thread that has ended when this returns. */
void in_thread(void (*body)(void *), void *argument);
/* Runs `body` in a thread that waits for ever afterwards; returns when `body` is done. */
void in_staying_thread(void (*body)(void *), void *argument);
/* `free` with the type of a thread's body. */
void free_it(void *block);

/* Waits for a forked child and ends the way it ended. */
enum verdict like_child(pid_t child);

/* A secret of 16 bytes that is not in memory by chance, at offset 32 of each 64 bytes of the block. */
void write_secrets(char *block);
bool has_secret(const char *block, size_t bytes);

#ifdef __cplusplus
}
#endif
#endif
