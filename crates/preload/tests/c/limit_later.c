/* A memory limit that is set while the program runs holds for every thread, whether it has a heap or not. */
#include "check.h"
#include <pthread.h>
#include <stdint.h>

static const size_t MIB = (size_t)1 << 20;

/* `hak_options_t`, without the library's header. */
struct options {
    uint32_t magic, version;
    size_t struct_size;
    const char *profile;
    uint64_t purge_delay_ms, big_retain_bytes, memory_limit_bytes, reserved[16];
};

static pthread_key_t key;
static int rounds, was_asked;

static int is_refused(size_t bytes) {
    char *block = hidden(malloc(bytes));
    free(block);
    return block == NULL;
}

/* The heap of a thread is given up in the second round of its destructors. */
static void at_end(void *value) {
    if (++rounds < 4) {
        pthread_setspecific(key, value);
    } else {
        CHECK(is_refused(200 * MIB));
        was_asked = 1;
    }
}

static void *thread(void *unused) {
    free(hidden(malloc(10)));
    pthread_setspecific(key, &key);
    return unused;
}

int main(void) {
    check_library();
    int (*configure)(const struct options *);
    *(void **)&configure = dlsym(RTLD_DEFAULT, "hak_configure");
    CHECK(!is_refused(200 * MIB));
    struct options options = {0x48414B4D, 1, sizeof options, NULL, UINT64_MAX, UINT64_MAX, 64 * MIB, {0}};
    CHECK(configure(&options) == 0);
    CHECK(is_refused(200 * MIB));
    CHECK(!is_refused(3 * MIB));
    CHECK(pthread_key_create(&key, at_end) == 0);
    pthread_t other;
    CHECK(pthread_create(&other, NULL, thread, NULL) == 0);
    pthread_join(other, NULL);
    CHECK(was_asked);
    return finish("limit_later");
}
