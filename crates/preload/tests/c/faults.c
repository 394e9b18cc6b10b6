/* The whole allocator with a kernel that says no. This program's mmap, munmap, madvise, mremap and mprotect stand before
 * the C library's, for the library under test as well; the C library's own calls, such as those for stacks, do not come
 * through here. FAULT=CALL:FROM:COUNT:ERRNO refuses COUNT calls of that name, from the one numbered FROM on, counted from
 * the start of the process; without it nothing is refused and the calls are counted. The last line of output says how many
 * calls of each name the first round made, how many were refused, and how many requests ended in null.
 *
 * Every run makes the same calls, so that a number means the same one in each. Therefore the library's window is put where
 * it is in every run: where the kernel puts it at random, blocks aligned to 4 and 8 MiB lie elsewhere in it, and what is
 * purged afterwards is one range or two. */
#include "scenario.h"

#include <stdarg.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { CLEAN_ROUNDS = 2 };
enum { MMAP, MUNMAP, MADVISE, MREMAP, MPROTECT, KINDS };

static const char *const NAMES[KINDS] = {"mmap", "munmap", "madvise", "mremap", "mprotect"};
static _Atomic long calls[KINDS];
static _Atomic long refused_calls;
/* 0: the plan is not read yet; 1: refusals may happen; 2: they are over. */
static _Atomic int phase;
static int planned_kind = -1;
static long planned_from, planned_count;
static int planned_errno;

/* Where the window is reserved, unless something is there. Not a multiple of 2 MiB: there is slack before and behind it. */
static const uintptr_t WINDOW_PLACE = ((uintptr_t)1 << 36) + PAGE;

extern char **environ;

static void read_plan(void) {
    if (phase != 0 || environ == NULL) {
        return;
    }
    const char *plan = getenv("FAULT");
    char name[16];
    if (plan != NULL && sscanf(plan, "%15[a-z]:%ld:%ld:%d", name, &planned_from, &planned_count, &planned_errno) == 4) {
        for (int kind = 0; kind < KINDS; kind++) {
            if (strcmp(name, NAMES[kind]) == 0) {
                planned_kind = kind;
            }
        }
    }
    phase = 1;
}

static int is_refused(int kind) {
    read_plan();
    if (phase == 2) {
        return 0;
    }
    long number = calls[kind]++;
    if (phase == 0 || kind != planned_kind || number < planned_from || number >= planned_from + planned_count) {
        return 0;
    }
    refused_calls++;
    errno = planned_errno;
    return 1;
}

void *mmap(void *address, size_t bytes, int protection, int flags, int fd, off_t offset) {
    if (is_refused(MMAP)) {
        return MAP_FAILED;
    }
    if (address == NULL && protection == PROT_NONE) {
        address = (void *)WINDOW_PLACE;
    }
    return (void *)syscall(SYS_mmap, address, bytes, protection, flags, fd, offset);
}

int munmap(void *address, size_t bytes) {
    return is_refused(MUNMAP) ? -1 : (int)syscall(SYS_munmap, address, bytes);
}

int madvise(void *address, size_t bytes, int advice) {
    return is_refused(MADVISE) ? -1 : (int)syscall(SYS_madvise, address, bytes, advice);
}

void *mremap(void *old, size_t old_bytes, size_t bytes, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    void *target = flags & MREMAP_FIXED ? va_arg(arguments, void *) : NULL;
    va_end(arguments);
    return is_refused(MREMAP) ? MAP_FAILED : (void *)syscall(SYS_mremap, old, old_bytes, bytes, flags, target);
}

int mprotect(void *address, size_t bytes, int protection) {
    return is_refused(MPROTECT) ? -1 : (int)syscall(SYS_mprotect, address, bytes, protection);
}

int main(void) {
    read_plan();
    check_library();
    find_functions();
    /* The advice is given and counted; that huge pages are then cleared would only take time. */
    CHECK(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0);
    run_round();
    long made[KINDS];
    for (int kind = 0; kind < KINDS; kind++) {
        made[kind] = calls[kind];
    }
    int refused_in_first = refused_requests;
    phase = 2;
    /* The refusals are over: everything works again. What stays in use after some rounds (the library's own bookkeeping of
     * freed outside blocks fills up during the first ones) must be what stays in use without any refusal: the caller
     * compares. */
    refused_requests = 0;
    for (int round = 0; round < CLEAN_ROUNDS; round++) {
        run_round();
    }
    CHECK(refused_requests == 0);
    for (int kind = 0; kind < KINDS; kind++) {
        printf("%s=%ld ", NAMES[kind], made[kind]);
    }
    printf("refused=%ld null=%d live=%zu", (long)refused_calls, refused_in_first, mallinfo2().uordblks);
    print_counters();
    printf("\n");
    return finish("faults");
}
