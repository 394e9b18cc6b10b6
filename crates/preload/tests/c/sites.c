/* A program whose big blocks all have one size and come from places that use them differently: tables that are hardly touched and
 * buffers that are filled; a buffer that comes back now and then, and a batch of them that does not. The argument says which two.
 * Tells its page faults, its peak and its mean resident memory. */
#include "check.h"

#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MIB = 1 << 20, BLOCK = 32 * MIB, TABLES = 8, ROUNDS = 24, BATCH = 4, PAUSE_US = 60 * 1000 };

/* The places. Each is a function of its own, so that a stack tells them apart; what follows the call keeps it one. */
__attribute__((noinline)) char *take_table(void) {
    char *block = malloc(BLOCK);
    CHECK(block);
    for (size_t at = 0; at < BLOCK; at += 256 << 10) block[at] = 1;
    return block;
}

__attribute__((noinline)) char *take_buffer(void) {
    char *block = malloc(BLOCK);
    CHECK(block);
    memset(block, 2, BLOCK);
    return block;
}

__attribute__((noinline)) char *take_batch(void) {
    char *block = malloc(BLOCK);
    CHECK(block);
    memset(block, 3, BLOCK);
    return block;
}

static size_t resident_mib(void) {
    size_t pages = 0;
    FILE *statm = fopen("/proc/self/statm", "r");
    CHECK(statm && fscanf(statm, "%*s %zu", &pages) == 1);
    fclose(statm);
    return pages * (size_t)sysconf(_SC_PAGESIZE) / MIB;
}

/* The learning thread waits for slow paths before it begins. */
static void show_activity(void) {
    static void *runs[300];
    for (size_t at = 0; at < 300; at++) runs[at] = hidden(malloc(40000 + at * 200));
    for (size_t at = 0; at < 300; at++) free(runs[at]);
}

static size_t tables_and_buffers(void) {
    char *tables[TABLES];
    size_t sum = 0;
    for (int at = 0; at < TABLES; at++) tables[at] = take_table();
    for (int round = 0; round < ROUNDS; round++) {
        char *buffer = take_buffer();
        free(tables[round % TABLES]);
        tables[round % TABLES] = take_table();
        sum += resident_mib();
        free(buffer);
    }
    for (int at = 0; at < TABLES; at++) free(tables[at]);
    return sum / ROUNDS;
}

static size_t buffer_and_batches(useconds_t pause_us) {
    size_t sum = 0;
    for (int round = 0; round < ROUNDS; round++) {
        char *buffer = take_buffer();
        if (round % 8 == 0) {
            char *batch[BATCH];
            for (int at = 0; at < BATCH; at++) batch[at] = take_batch();
            for (int at = 0; at < BATCH; at++) free(batch[at]);
        }
        free(buffer);
        usleep(pause_us);
        /* A slow path, so that what is due is purged. */
        free(hidden(malloc(3 * MIB)));
        sum += resident_mib();
    }
    return sum / ROUNDS;
}

/* The place is in a library that comes and goes, and is there at the end. */
static size_t plugged(const char *library) {
    for (int round = 0; round < 3; round++) {
        void *plugin = dlopen(library, RTLD_NOW);
        CHECK(plugin);
        char *(*take)(size_t) = (char *(*)(size_t))dlsym(plugin, "plugin_take");
        CHECK(take);
        for (int at = 0; at < 4; at++) free(take(BLOCK));
        CHECK(round == 2 || dlclose(plugin) == 0);
        free(take_table());
    }
    return resident_mib();
}

static size_t run(int count, char **arguments) {
    CHECK(count > 1);
    if (strcmp(arguments[1], "pages") == 0) return tables_and_buffers();
    /* With a number behind it, so many milliseconds. */
    if (strcmp(arguments[1], "keep") == 0) return buffer_and_batches(count > 2 ? atoi(arguments[2]) * 1000 : PAUSE_US);
    CHECK(count > 2 && strcmp(arguments[1], "plugin") == 0);
    return plugged(arguments[2]);
}

int main(int count, char **arguments) {
    show_activity();
    if (count > 2 && strcmp(arguments[2], "forked") == 0) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child > 0) {
            int status = 1;
            CHECK(waitpid(child, &status, 0) == child);
            return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
        }
    }
    struct rusage before, after;
    getrusage(RUSAGE_SELF, &before);
    size_t mean = run(count, arguments);
    getrusage(RUSAGE_SELF, &after);
    printf("faults %ld\npeak_mib %ld\nmean_mib %zu\n", after.ru_minflt - before.ru_minflt, after.ru_maxrss / 1024, mean);
    return 0;
}
