/* One round through every part of the allocator, for programs that make it go wrong: tiny blocks, runs, big and outside
 * blocks, all ways of realloc, threads that come and go, purging. Any call may be refused. A refusal must say ENOMEM, a
 * success must leave errno alone, and whatever was handed out keeps its bytes until it is freed. */
#ifndef SCENARIO_H
#define SCENARIO_H

#include "check.h"

#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

enum { SLOTS = 640, THREADS = 3, PAGE = 4096, MARK = 77 };

struct slot {
    unsigned char *block;
    size_t bytes;
    unsigned char mark;
};

static struct slot slots[SLOTS];
static int next_slot;
/* Requests that ended in null since this was last set. */
static _Atomic int refused_requests;

/* The functions of the library, if it is in use. */
static void (*check_invariants)(void);
static void (*collect)(void);

static void find_functions(void) {
    *(void **)&check_invariants = dlsym(RTLD_DEFAULT, "hak_check_invariants");
    *(void **)&collect = dlsym(RTLD_DEFAULT, "hak_collect");
    if (getenv("EXPECT_LIBRARY") != NULL) {
        CHECK(check_invariants != NULL && collect != NULL);
    }
}

static void check_all(void) {
    if (check_invariants != NULL) {
        check_invariants();
    }
}

static void give_back(void) {
    if (collect != NULL) {
        collect();
    } else {
        malloc_trim(0);
    }
}

/* Every byte of a small block is written and checked, one byte of each page of a large one, fewer of a big one: a round
 * is run thousands of times, and most of its time goes into touching memory. */
static size_t step_of(size_t bytes) {
    return bytes <= 4 * PAGE ? 1 : bytes <= 2 << 20 ? PAGE : 32 * PAGE;
}

static void fill(struct slot *slot) {
    for (size_t at = 0; at < slot->bytes; at += step_of(slot->bytes)) {
        slot->block[at] = slot->mark;
    }
}

static int is_filled(const struct slot *slot, size_t bytes) {
    for (size_t at = 0; at < bytes; at += step_of(slot->bytes)) {
        if (slot->block[at] != slot->mark) {
            return 0;
        }
    }
    return 1;
}

/* What every allocation promises; the block goes into a slot. */
static struct slot *keep(void *block, size_t bytes) {
    if (block == NULL) {
        CHECK(errno == ENOMEM);
        refused_requests++;
        return NULL;
    }
    CHECK(errno == MARK);
    CHECK((uintptr_t)block % 16 == 0 && malloc_usable_size(block) >= bytes);
    struct slot *slot = &slots[next_slot++ % SLOTS];
    if (slot->block != NULL) {
        CHECK(is_filled(slot, slot->bytes));
        free(slot->block);
    }
    *slot = (struct slot){block, bytes, (unsigned char)(1 + next_slot % 250)};
    fill(slot);
    return slot;
}

static struct slot *take(size_t bytes) {
    errno = MARK;
    return keep(malloc(hidden_size(bytes)), bytes);
}

static struct slot *take_zeroed(size_t bytes) {
    errno = MARK;
    unsigned char *block = calloc(1, hidden_size(bytes));
    for (size_t at = 0; block != NULL && at < bytes; at += step_of(bytes)) {
        if (block[at] != 0) {
            CHECK(!"calloc returned bytes that are not zero");
            break;
        }
    }
    return keep(block, bytes);
}

static struct slot *take_aligned(size_t align, size_t bytes) {
    void *block = NULL;
    errno = MARK;
    int result = posix_memalign(&block, align, hidden_size(bytes));
    CHECK(result == (block == NULL ? ENOMEM : 0) && (uintptr_t)block % align == 0 && errno == MARK);
    if (block == NULL) {
        errno = ENOMEM;
    }
    return keep(block, bytes);
}

static void resize(struct slot *slot, size_t bytes) {
    if (slot == NULL || slot->block == NULL) {
        return;
    }
    errno = MARK;
    unsigned char *moved = realloc(slot->block, hidden_size(bytes));
    if (moved == NULL) {
        CHECK(errno == ENOMEM && is_filled(slot, slot->bytes));
        refused_requests++;
        return;
    }
    CHECK(errno == MARK);
    struct slot old = {moved, slot->bytes, slot->mark};
    CHECK(is_filled(&old, bytes < old.bytes ? bytes : old.bytes));
    slot->block = moved;
    slot->bytes = bytes;
    fill(slot);
}

static void drop(struct slot *slot) {
    if (slot == NULL || slot->block == NULL) {
        return;
    }
    CHECK(is_filled(slot, slot->bytes));
    errno = MARK;
    free(slot->block);
    CHECK(errno == MARK);
    slot->block = NULL;
}

/* A thread allocates, frees half of what it is given, and leaves half of its own blocks to whoever started it. */
struct errand {
    struct slot given[40];
    struct slot left[40];
    unsigned seed;
};

static void *run_errand(void *argument) {
    struct errand *errand = argument;
    for (int index = 0; index < 40; index++) {
        struct slot own = {0};
        size_t bytes = 16 + (errand->seed * 977u + (unsigned)index * 1531u) % 9000u;
        errno = MARK;
        own.block = malloc(hidden_size(index % 10 == 9 ? bytes * 16 : bytes));
        if (own.block == NULL) {
            CHECK(errno == ENOMEM);
            refused_requests++;
        } else {
            own.bytes = bytes;
            own.mark = (unsigned char)index;
            fill(&own);
        }
        if (index % 2 == 0) {
            drop(&own);
            drop(&errand->given[index]);
        }
        errand->left[index] = own;
    }
    return NULL;
}

static void run_threads(void) {
    static struct errand errands[THREADS];
    pthread_t threads[THREADS];
    int started[THREADS];
    for (int number = 0; number < THREADS; number++) {
        struct errand *errand = &errands[number];
        memset(errand, 0, sizeof *errand);
        errand->seed = (unsigned)number + 1;
        for (int index = 0; index < 40; index++) {
            struct slot *slot = take(24 + (size_t)index * 60);
            if (slot != NULL) {
                errand->given[index] = *slot;
                slot->block = NULL;
            }
        }
        /* Without memory for it there is no thread: EAGAIN, and its errand is run here. */
        started[number] = pthread_create(&threads[number], NULL, run_errand, errand) == 0;
        if (!started[number]) {
            run_errand(errand);
        }
        /* One at a time: so the calls of a round are the same in every run. */
        if (started[number]) {
            CHECK(pthread_join(threads[number], NULL) == 0);
        }
        check_all();
    }
    for (int number = 0; number < THREADS; number++) {
        for (int index = 0; index < 40; index++) {
            drop(&errands[number].given[index]);
            drop(&errands[number].left[index]);
        }
    }
}

enum { MIB = 1 << 20 };

/* Everything once. What was refused is left out; what is there keeps its bytes and is freed at the end. */
static void run_round(void) {
    for (int index = 0; index < 400; index++) {
        take(index < 300 ? 1 + (size_t)index * 31 : (size_t)(index - 299) * 300);
    }
    check_all();
    struct slot *run = take(70000);
    take_zeroed(100);
    take_zeroed(20000);
    take_zeroed(200000);
    take(2 * MIB);
    resize(run, 190000);
    resize(run, 70000);
    resize(run, 1500000);
    resize(run, 3000);
    struct slot *big = take(8 * MIB);
    struct slot *behind = take(3 * MIB);
    take_zeroed(5 * MIB);
    resize(big, 17 * MIB);
    resize(big, 9 * MIB);
    resize(big, 3 * MIB);
    drop(behind);
    resize(big, 5 * MIB);
    take_aligned(4096, 100);
    take_aligned(64 << 10, 64 << 10);
    take_aligned(4 * MIB, 100);
    take_aligned(8 * MIB, 3 * MIB);
    check_all();
    run_threads();
    /* With a window of 64 MiB these find no place in it. */
    struct slot *outside = take(40 * MIB);
    struct slot *other = take(33 * MIB);
    resize(outside, 36 * MIB);
    resize(outside, 44 * MIB);
    check_all();
    give_back();
    drop(other);
    resize(outside, 100000);
    take_zeroed(6 * MIB);
    check_all();
    for (int index = 0; index < SLOTS; index += 2) {
        drop(&slots[index]);
    }
    check_all();
    give_back();
    for (int index = 0; index < SLOTS; index++) {
        drop(&slots[index]);
    }
    give_back();
    check_all();
}

/* A number out of the library's statistics. */
static long counted(const char *name) {
    int (*dump)(int);
    *(void **)&dump = dlsym(RTLD_DEFAULT, "hak_dump_json");
    if (dump == NULL) {
        return 0;
    }
    static char text[1 << 16];
    int fd = memfd_create("dump", 0);
    CHECK(fd >= 0 && dump(fd) == 0);
    ssize_t length = pread(fd, text, sizeof text - 1, 0);
    close(fd);
    text[length > 0 ? length : 0] = 0;
    char key[64];
    snprintf(key, sizeof key, "\"%s\":", name);
    char *found = strstr(text, key);
    CHECK(found != NULL);
    return found == NULL ? 0 : strtol(found + strlen(key), NULL, 10);
}

/* Everything that a refusal may be counted in. */
static void print_counters(void) {
    static const char *const COUNTERS[] = {"mprotect_refused", "madvise_enomem", "madvise_failed", "madvise_disabled",
                                           "move_refused", "mmap_refused", "munmap_refused", "out_of_memory"};
    for (size_t index = 0; index < sizeof COUNTERS / sizeof COUNTERS[0] && check_invariants != NULL; index++) {
        printf(" %s=%ld", COUNTERS[index], counted(COUNTERS[index]));
    }
}

static inline void scenario_unused(void) {
    (void)run_round;
    (void)print_counters;
    (void)find_functions;
}

#endif
