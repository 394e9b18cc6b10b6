/* A program that allocates, confines itself to what it needs and what glibc's malloc does, and goes on. Any other system call ends it.
 * With the argument "first" it confines itself before it allocates; with "exit" it ends as most programs do. */
#include "check.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static const unsigned allowed[] = {
    SYS_brk,   SYS_mmap, SYS_munmap,     SYS_mremap,          SYS_mprotect,  SYS_madvise,   SYS_futex,
    SYS_write, SYS_exit, SYS_exit_group, SYS_clock_nanosleep, SYS_nanosleep, SYS_getrandom,
};

static void confine(void) {
    enum { COUNT = sizeof allowed / sizeof *allowed };
    struct sock_filter code[2 * COUNT + 2];
    size_t at = 0;
    code[at++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (size_t index = 0; index < COUNT; index++) {
        code[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, allowed[index], 0, 1);
        code[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    }
    code[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
    struct sock_fprog program = {.len = (unsigned short)at, .filter = code};
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
}

/* Blocks of all sizes come and go, and the heap grows past what brings huge pages, scavengers and learners. */
static void work(unsigned rounds) {
    enum { SLOTS = 20000 };
    static char *blocks[SLOTS];
    unsigned random = 1;
    for (unsigned round = 0; round < rounds; round++) {
        for (unsigned slot = 0; slot < SLOTS; slot++) {
            random = random * 1103515245 + 12345;
            if (blocks[slot] != NULL && random >> 28 < 9) {
                free(blocks[slot]);
                blocks[slot] = NULL;
            } else if (blocks[slot] == NULL) {
                size_t bytes = 16 + (random >> 8) % (slot % 100 ? 300 : 60000);
                blocks[slot] = malloc(bytes);
                CHECK(blocks[slot] != NULL);
                memset(blocks[slot], 1, bytes);
            }
        }
        char *big = malloc(3 << 20);
        memset(big, 2, 3 << 20);
        big = realloc(big, 9 << 20);
        CHECK(big != NULL && big[(3 << 20) - 1] == 2);
        memset(big, 3, 9 << 20);
        free(big);
        free(calloc(1, 40 << 20));
        free(realloc(malloc(100000), 700000));
        usleep(3000);
    }
}

int main(int argc, char **argv) {
    const char *role = argc > 1 ? argv[1] : "";
    check_library();
    if (strcmp(role, "first") != 0) {
        work(10);
    }
    confine();
    work(30);
    static const char said[] = "confined and alive\n";
    CHECK(write(1, said, sizeof said - 1) == sizeof said - 1);
    if (strcmp(role, "exit") == 0) {
        exit(failures != 0);
    }
    /* As such programs end: without handlers, which nobody has looked at. */
    _exit(failures != 0);
}
