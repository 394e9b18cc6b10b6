/* The malloc family behaves as glibc's manual says. */
#include "check.h"

#include <errno.h>
#include <malloc.h>
#include <stdint.h>
#include <unistd.h>

#define HUGE_BYTES (hidden_size(PTRDIFF_MAX) + 1)

static int aligned(void *pointer, size_t alignment) {
    return ((uintptr_t)pointer & (alignment - 1)) == 0;
}

static int all_bytes(const unsigned char *bytes, size_t count, int value) {
    for (size_t index = 0; index < count; index++) {
        if (bytes[index] != value) {
            return 0;
        }
    }
    return 1;
}

static void check_malloc(void) {
    for (size_t bytes = 0; bytes <= 4096; bytes++) {
        unsigned char *block = malloc(hidden_size(bytes));
        CHECK(block != NULL && aligned(block, 16));
        CHECK(malloc_usable_size(block) >= bytes);
        memset(block, 1, malloc_usable_size(block));
        free(block);
    }
    for (size_t bytes = 5000; bytes < (64u << 20); bytes = bytes * 3 / 2) {
        unsigned char *block = malloc(bytes);
        CHECK(block != NULL && aligned(block, 16));
        block[0] = block[bytes - 1] = 1;
        free(block);
    }
    void *one = malloc(hidden_size(0)), *other = malloc(hidden_size(0));
    CHECK(one != NULL && other != NULL && one != other);
    free(one);
    free(other);
    errno = 0;
    CHECK(malloc(HUGE_BYTES) == NULL && errno == ENOMEM);
    errno = 0;
    CHECK(malloc(hidden_size(SIZE_MAX)) == NULL && errno == ENOMEM);
}

static void check_free(void) {
    free(hidden(NULL));
    size_t sizes[] = {1, 100, 5000, 100000, 3u << 20, 40u << 20};
    for (size_t index = 0; index < sizeof sizes / sizeof *sizes; index++) {
        char *block = malloc(sizes[index]);
        block[0] = 1;
        errno = 12345;
        free(block);
        CHECK(errno == 12345);
    }
}

static void check_calloc(void) {
    for (int round = 0; round < 3; round++) {
        size_t sizes[] = {1, 17, 1000, 5000, 70000, 600000, 5u << 20};
        for (size_t index = 0; index < sizeof sizes / sizeof *sizes; index++) {
            unsigned char *block = calloc(hidden_size(sizes[index]), 1);
            CHECK(block != NULL && all_bytes(block, sizes[index], 0));
            memset(block, 0xff, sizes[index]);
            free(block);
        }
    }
    void *block = calloc(hidden_size(0), 8);
    CHECK(block != NULL);
    free(block);
    errno = 0;
    CHECK(calloc(hidden_size(SIZE_MAX / 2), 3) == NULL && errno == ENOMEM);
    errno = 0;
    CHECK(calloc(hidden_size((size_t)1 << 33), (size_t)1 << 33) == NULL && errno == ENOMEM);
}

static void check_realloc(void) {
    unsigned char *block = realloc(hidden(NULL), 10);
    CHECK(block != NULL);
    memset(block, 7, 10);
    size_t kept = 10;
    size_t sizes[] = {100, 1000, 900, 5000, 40000, 300000, 3u << 20, 9u << 20, 2u << 20, 50000, 20, 5};
    for (size_t index = 0; index < sizeof sizes / sizeof *sizes; index++) {
        block = realloc(block, sizes[index]);
        CHECK(block != NULL && aligned(block, 16));
        kept = kept < sizes[index] ? kept : sizes[index];
        CHECK(all_bytes(block, kept, 7));
        memset(block, 7, sizes[index]);
        kept = sizes[index];
    }
    errno = 0;
    CHECK(realloc(hidden(block), HUGE_BYTES) == NULL && errno == ENOMEM);
    CHECK(all_bytes(block, 5, 7));
    /* glibc frees and returns NULL. */
    CHECK(realloc(block, hidden_size(0)) == NULL);
    block = realloc(hidden(NULL), hidden_size(0));
    CHECK(block != NULL);
    free(block);
}

static void check_reallocarray(void) {
    unsigned char *block = reallocarray(hidden(NULL), 10, 10);
    CHECK(block != NULL);
    memset(block, 3, 100);
    block = reallocarray(block, 100, 10);
    CHECK(block != NULL && all_bytes(block, 100, 3));
    errno = 0;
    CHECK(reallocarray(hidden(block), hidden_size(SIZE_MAX / 2), 3) == NULL && errno == ENOMEM);
    CHECK(all_bytes(block, 100, 3));
    free(block);
}

static void check_aligned(void) {
    for (size_t alignment = sizeof(void *); alignment <= (64u << 20); alignment *= 2) {
        size_t sizes[] = {1, 24, alignment, alignment + 1, 5000};
        for (size_t index = 0; index < sizeof sizes / sizeof *sizes; index++) {
            void *block = NULL;
            CHECK(posix_memalign(&block, alignment, sizes[index]) == 0);
            CHECK(block != NULL && aligned(block, alignment) && malloc_usable_size(block) >= sizes[index]);
            *(volatile char *)block = 1;
            void *other = aligned_alloc(alignment, (sizes[index] + alignment - 1) / alignment * alignment);
            CHECK(other != NULL && aligned(other, alignment) && other != block);
            void *third = memalign(alignment, sizes[index]);
            CHECK(third != NULL && aligned(third, alignment));
            /* An aligned block may be reallocated; its bytes move along, its alignment need not. */
            memset(third, 5, 1);
            third = realloc(third, sizes[index] + 100);
            CHECK(third != NULL && *(char *)third == 5);
            free(block);
            free(other);
            free(third);
        }
    }
    void *untouched = (void *)&failures;
    errno = 12345;
    CHECK(posix_memalign(&untouched, hidden_size(0), 8) == EINVAL);
    CHECK(posix_memalign(&untouched, hidden_size(4), 8) == EINVAL);
    CHECK(posix_memalign(&untouched, hidden_size(24), 8) == EINVAL);
    CHECK(errno == 12345);
    CHECK(posix_memalign(&untouched, 64, HUGE_BYTES) == ENOMEM);
    CHECK(untouched == (void *)&failures);
    errno = 0;
    CHECK(aligned_alloc(64, HUGE_BYTES) == NULL && errno == ENOMEM);
    void *zero = NULL;
    CHECK(posix_memalign(&zero, 64, hidden_size(0)) == 0);
    free(zero);

    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    void *block = valloc(100);
    CHECK(block != NULL && aligned(block, page));
    free(block);
    block = pvalloc(page + 1);
    CHECK(block != NULL && aligned(block, page) && malloc_usable_size(block) >= 2 * page);
    free(block);
}

static void check_information(void) {
    enum { BLOCKS = 2000, BYTES = 1000 };
    static void *blocks[BLOCKS];
    CHECK(malloc_usable_size(NULL) == 0);
    struct mallinfo2 before = mallinfo2();
    for (int index = 0; index < BLOCKS; index++) {
        blocks[index] = malloc(BYTES);
    }
    struct mallinfo2 during = mallinfo2();
    CHECK(during.uordblks + during.hblkhd >= before.uordblks + before.hblkhd + BLOCKS * BYTES);
    for (int index = 0; index < BLOCKS; index++) {
        free(blocks[index]);
    }
    struct mallinfo2 after = mallinfo2();
    CHECK(after.uordblks + after.hblkhd < during.uordblks + during.hblkhd - BLOCKS * BYTES / 2);

    int trimmed = malloc_trim(0);
    CHECK(trimmed == 0 || trimmed == 1);
    CHECK(mallopt(M_MMAP_THRESHOLD, 1 << 20) == 1);
    char *text = NULL;
    size_t length = 0;
    FILE *stream = open_memstream(&text, &length);
    CHECK(malloc_info(0, stream) == 0);
    fclose(stream);
    CHECK(length > 0 && strncmp(text, "<malloc", 7) == 0 && strstr(text, "</malloc>") != NULL);
    free(text);
    CHECK(malloc_info(1, stdout) == EINVAL);
    malloc_stats();
}

/* Memory that the C library allocates itself is freed by the program. */
static void check_library_blocks(void) {
    char *copy = strdup("copied");
    CHECK(strcmp(copy, "copied") == 0);
    free(copy);
    char *path = realpath("/", NULL);
    CHECK(strcmp(path, "/") == 0);
    free(path);
    char *text = NULL;
    CHECK(asprintf(&text, "%d", 42) == 2 && strcmp(text, "42") == 0);
    free(text);
    char *line = NULL;
    size_t room = 0;
    FILE *file = fopen("/proc/self/maps", "r");
    while (getline(&line, &room, file) > 0) {
    }
    fclose(file);
    free(line);
}

int main(void) {
    check_library();
    check_malloc();
    check_free();
    check_calloc();
    check_realloc();
    check_reallocarray();
    check_aligned();
    check_information();
    check_library_blocks();
    return finish("malloc_family");
}
