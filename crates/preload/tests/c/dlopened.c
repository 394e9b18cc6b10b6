/* The library is not preloaded but loaded by dlopen, into a program with another malloc, and unloaded again:
 * `dlopened PATH ROUNDS [learn]`; with `learn` its thread is at work when the library goes. Prints AT_SECURE, so that a test can see whether the process has raised privileges. */
#include "check.h"

#include <pthread.h>
#include <sys/auxv.h>
#include <unistd.h>

static void *(*allocate)(size_t);
static void *(*resize)(void *, size_t);
static void (*release)(void *);
static void (*check_invariants)(void);
static pthread_barrier_t used, unloaded;

static void use(void) {
    unsigned char *blocks[100];
    for (int index = 0; index < 100; index++) {
        size_t bytes = index % 25 == 0 ? 3000000 : 1 + (size_t)index * 60;
        blocks[index] = allocate(bytes);
        CHECK(blocks[index] != NULL);
        blocks[index][bytes - 1] = 1;
        blocks[index] = resize(blocks[index], bytes * 2);
        CHECK(blocks[index] != NULL && blocks[index][bytes - 1] == 1);
    }
    for (int index = 0; index < 100; index++) {
        release(blocks[index]);
    }
}

static void *ends_before_unload(void *argument) {
    use();
    return argument;
}

/* Its heap was given up with the library; its end must not call into memory that is gone. */
static void *ends_after_unload(void *argument) {
    use();
    pthread_barrier_wait(&used);
    pthread_barrier_wait(&unloaded);
    return argument;
}

/* With the thread that the library has in this mode somewhere in its work. */
static void learn(void *library, int round) {
    int (*set_mode)(int);
    *(void **)&set_mode = dlsym(library, "hak_set_mode");
    CHECK(set_mode(2) == 0);
    for (int use_count = 0; use_count < round * 20; use_count++) {
        use();
    }
}

static void load_use_unload(const char *path, int learning_round) {
    pthread_t threads[2];
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        failures++;
        return;
    }
    *(void **)&allocate = dlsym(library, "hak_malloc");
    *(void **)&resize = dlsym(library, "hak_realloc");
    *(void **)&release = dlsym(library, "hak_free");
    *(void **)&check_invariants = dlsym(library, "hak_check_invariants");
    use();
    CHECK(pthread_create(&threads[0], NULL, ends_before_unload, NULL) == 0 && pthread_join(threads[0], NULL) == 0);
    check_invariants();
    if (learning_round >= 0) {
        learn(library, learning_round);
    }
    CHECK(pthread_create(&threads[1], NULL, ends_after_unload, NULL) == 0);
    pthread_barrier_wait(&used);
    CHECK(dlclose(library) == 0);
    pthread_barrier_wait(&unloaded);
    CHECK(pthread_join(threads[1], NULL) == 0);
}

int main(int count, char **arguments) {
    CHECK((count == 3 || count == 4) && pthread_barrier_init(&used, NULL, 2) == 0 && pthread_barrier_init(&unloaded, NULL, 2) == 0);
    for (int round = 0; round < atoi(arguments[2]); round++) {
        load_use_unload(arguments[1], count == 4 ? round : -1);
    }
    printf("secure=%lu\n", getauxval(AT_SECURE));
    return finish("dlopened");
}
