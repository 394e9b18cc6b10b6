/* A program that limits its address space while it runs, to a little more than it uses, and goes on: its own mappings, threads and
 * blocks of every size. At the end something lies in the way of a heap that grows upwards. */
#include "check.h"

#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define MIB ((size_t)1 << 20)
enum { COUNT = 300000 };

static char *blocks[COUNT];

static void limit_address_space(size_t bytes) {
    struct rlimit limit;
    CHECK(getrlimit(RLIMIT_AS, &limit) == 0);
    limit.rlim_cur = bytes;
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
    struct rlimit now;
    CHECK(prlimit(0, RLIMIT_AS, NULL, &now) == 0 && now.rlim_cur == bytes);
    // One place for the new limit and the old one.
    CHECK(prlimit(0, RLIMIT_AS, &now, &now) == 0 && now.rlim_cur == bytes);
}

static void *allocate_and_free(void *bytes) {
    char *block = malloc((size_t)bytes);
    CHECK(block != NULL);
    memset(block, 1, (size_t)bytes);
    free(block);
    return NULL;
}

static void map_start_allocate(void) {
    void *own = mmap(NULL, 64 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(own != MAP_FAILED && munmap(own, 64 * MIB) == 0);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, allocate_and_free, (void *)hidden_size(3000)) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    for (size_t bytes = 1; bytes < 100 * MIB; bytes = bytes * 3 + 1) {
        allocate_and_free((void *)bytes);
    }
}

/* Until there is no more; what there was is whole, and can be had again. */
static void exhaust(size_t bytes) {
    size_t most = 0;
    for (unsigned round = 0; round < 2; round++) {
        size_t count = 0;
        while (count < COUNT && (blocks[count] = malloc(bytes)) != NULL) {
            memset(blocks[count], (int)count, bytes);
            count++;
        }
        CHECK(count < COUNT && count * bytes > 100 * MIB && count > most / 2);
        most = count;
        for (size_t block = 0; block < count; block++) {
            CHECK(blocks[block][0] == (char)block && blocks[block][bytes - 1] == (char)block);
            free(blocks[block]);
        }
    }
}

/* The end of the mappings that `block` lies in. */
static uintptr_t end_of_mappings(const char *block) {
    uintptr_t begin, end, found = 0;
    char line[512];
    FILE *file = fopen("/proc/self/maps", "r");
    CHECK(file != NULL);
    while (file != NULL && fgets(line, sizeof line, file) != NULL && sscanf(line, "%lx-%lx", &begin, &end) == 2) {
        if ((begin <= (uintptr_t)block && (uintptr_t)block < end) || begin == found) {
            found = end;
        }
    }
    if (file != NULL) {
        fclose(file);
    }
    CHECK(found != 0);
    return found;
}

static void go_on_past(char *small) {
    void *place = (void *)end_of_mappings(small);
    void *obstacle = mmap(place, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    CHECK(obstacle == place);
    char *block = malloc(80 * MIB);
    CHECK(block != NULL && malloc_usable_size(block) >= 80 * MIB);
    block[0] = block[80 * MIB - 1] = 7;
    block = realloc(block, 120 * MIB);
    CHECK(block != NULL && block[0] == 7 && block[80 * MIB - 1] == 7);
    block = realloc(block, 40 * MIB);
    CHECK(block != NULL && block[0] == 7);
    char *other = calloc(1, 100 * MIB);
    CHECK(other != NULL && other[0] == 0 && other[100 * MIB - 1] == 0);
    block = realloc(block, 100);
    CHECK(block != NULL && block[0] == 7);
    free(block);
    free(other);
    free(memalign(4 * MIB, 50 * MIB));
    CHECK(munmap(obstacle, 4096) == 0);
}

int main(void) {
    check_library();
    char *small = malloc(100);
    memset(small, 5, 100);

    /* A child that shares the memory: it releases the parent's window, which goes on. */
    pid_t child = vfork();
    if (child == 0) {
        static const struct rlimit none = {1 << 20, 1 << 20};
        setrlimit(RLIMIT_AS, &none);
        _exit(0);
    }
    CHECK(child > 0 && waitpid(child, NULL, 0) == child);
    child = fork();
    if (child == 0) {
        limit_address_space(400 * MIB);
        map_start_allocate();
        _exit(failures);
    }
    int status = 1;
    CHECK(child > 0 && waitpid(child, &status, 0) == child && status == 0);

    map_start_allocate();
    limit_address_space(600 * MIB);
    map_start_allocate();
    go_on_past(small);
    exhaust(3000);
    exhaust(20000);
    exhaust(3 * MIB);
    /* What a heap that was everywhere has left, others find (glibc's can keep all of it for itself). */
    if (getenv("EXPECT_LIBRARY") != NULL) {
        map_start_allocate();
    }
    CHECK(small[0] == 5 && small[99] == 5);
    limit_address_space(RLIM_INFINITY);
    char *large = malloc(2048 * MIB);
    CHECK(large != NULL);
    free(large);
    free(small);
    return finish("address_limit");
}
