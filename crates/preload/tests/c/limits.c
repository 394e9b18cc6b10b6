/* Real refusals of the kernel, by limits that are set while the program runs: `limits KIND LEFT [cold]`. A round is run
 * within the limit, where any request may end in null, and two after the limit has gone, where none may. Unless `cold`, one
 * is run before it, so that much of the memory is there already. The last line says how many
 * did, and what the library counted. */
#include "scenario.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Mappings that the kernel cannot merge, until it gives no more; then the last LEFT of them go again. */
static char *ballast;
static size_t ballast_pages;

static void exhaust_mappings(size_t left) {
    size_t most = 1 << 20;
    ballast = mmap(NULL, most * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(ballast != MAP_FAILED);
    /* Every second page is made readable: two more mappings each, until the kernel refuses. */
    size_t page = 1;
    while (page < most && mprotect(ballast + page * PAGE, PAGE, PROT_READ) == 0) {
        page += 2;
    }
    CHECK(page < most);
    ballast_pages = most;
    /* One at a time, with what is left: splits count more than new mappings. */
    size_t single = 0;
    while (single < 4 && mmap(NULL, PAGE, single % 2 ? PROT_READ : PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) !=
                             MAP_FAILED) {
        single++;
    }
    for (size_t give = 0; give < left && page > 2; give++) {
        page -= 2;
        CHECK(mprotect(ballast + page * PAGE, PAGE, PROT_NONE) == 0);
    }
}

static void release_mappings(void) {
    CHECK(munmap(ballast, ballast_pages * PAGE) == 0);
}

static struct rlimit before;

static size_t status_kib(const char *name) {
    char line[256];
    size_t kib = 0;
    FILE *file = fopen("/proc/self/status", "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, name, strlen(name)) == 0) {
            kib = strtoul(line + strlen(name) + 1, NULL, 10);
        }
    }
    if (file != NULL) {
        fclose(file);
    }
    return kib;
}

static void limit(int resource, const char *name, size_t left_mib) {
    CHECK(getrlimit(resource, &before) == 0);
    struct rlimit now = before;
    now.rlim_cur = (status_kib(name) << 10) + (left_mib << 20);
    CHECK(setrlimit(resource, &now) == 0);
}

/* From now on madvise, whatever the advice, ends with EPERM, as in a strict sandbox. There is no way back. */
static void forbid_madvise(void) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_madvise, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof filter / sizeof filter[0], filter};
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
}

int main(int count, char **arguments) {
    check_library();
    find_functions();
    CHECK(count == 3 || count == 4);
    const char *kind = count > 1 ? arguments[1] : "";
    size_t left = count > 2 ? strtoul(arguments[2], NULL, 10) : 0;
    if (count == 3) {
        run_round();
    }
    CHECK(refused_requests == 0);
    if (strcmp(kind, "mappings") == 0) {
        exhaust_mappings(left);
    } else if (strcmp(kind, "address-space") == 0) {
        limit(RLIMIT_AS, "VmSize:", left);
    } else if (strcmp(kind, "data") == 0) {
        limit(RLIMIT_DATA, "VmData:", left);
    } else if (strcmp(kind, "madvise") == 0) {
        forbid_madvise();
    } else {
        CHECK(!"a known kind of limit");
    }
    run_round();
    int in_limit = refused_requests;
    if (strcmp(kind, "mappings") == 0) {
        release_mappings();
    } else if (strcmp(kind, "address-space") == 0) {
        CHECK(setrlimit(RLIMIT_AS, &before) == 0);
    } else if (strcmp(kind, "data") == 0) {
        CHECK(setrlimit(RLIMIT_DATA, &before) == 0);
    }
    refused_requests = 0;
    run_round();
    run_round();
    CHECK(refused_requests == 0);
    printf("null=%d", in_limit);
    print_counters();
    printf("\n");
    return finish("limits");
}
