/* What processes and threads live through while they allocate: `life_cycle STORY [NUMBER]`. Every story ends by itself; a
 * child that hangs is ended by an alarm and counts as failed. */
#include "check.h"

#include <errno.h>
#include <limits.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <malloc.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static atomic_int stop;

/* Blocks of every kind come and go; each keeps its bytes. */
static void work(unsigned seed, int rounds) {
    struct {
        unsigned char *block;
        size_t bytes;
    } slots[48] = {0};
    for (int round = 0; round <= rounds; round++) {
        for (int slot = 0; slot < 48; slot++) {
            seed = seed * 1103515245 + 12345;
            if (slots[slot].block != NULL && (round == rounds || seed >> 16 & 1)) {
                unsigned char mark = (unsigned char)(slot + 1);
                CHECK(slots[slot].block[0] == mark && slots[slot].block[slots[slot].bytes - 1] == mark);
                free(slots[slot].block);
                slots[slot].block = NULL;
            }
            if (slots[slot].block == NULL && round < rounds) {
                size_t bytes = 1 + (seed >> 8) % 4000;
                bytes *= seed % 97 == 0 ? 60 : 1;
                slots[slot].block = malloc(hidden_size(bytes));
                slots[slot].bytes = bytes;
                CHECK(slots[slot].block != NULL);
                slots[slot].block[0] = slots[slot].block[bytes - 1] = (unsigned char)(slot + 1);
            }
        }
    }
}

static void *busy(void *argument) {
    while (!stop) {
        work((unsigned)(size_t)argument, 20);
    }
    return NULL;
}

static void *brief(void *argument) {
    work((unsigned)(size_t)argument, 20);
    return NULL;
}

static void start(pthread_t *threads, int count, void *(*run)(void *)) {
    for (int index = 0; index < count; index++) {
        CHECK(pthread_create(&threads[index], NULL, run, (void *)(size_t)(index + 1)) == 0);
    }
}

static void join(pthread_t *threads, int count) {
    for (int index = 0; index < count; index++) {
        CHECK(pthread_join(threads[index], NULL) == 0);
    }
}

static void wait_for(pid_t pid) {
    int status = -1;
    CHECK(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0);
}

/* Forks while threads of the forking process allocate, three levels deep. A child frees what its parent made, starts
 * threads, and forks again while they run. */
static void *inherited[64];

static void fork_level(int level) {
    pthread_t threads[2];
    stop = 0;
    start(threads, 2, busy);
    for (int number = 0; number < (level == 0 ? 6 : 3); number++) {
        for (int index = 0; index < 64; index++) {
            inherited[index] = malloc(hidden_size(1 + (size_t)index * (index % 16 == 0 ? 40000 : 70)));
        }
        pid_t pid = fork();
        if (pid == 0) {
            alarm(240);
            for (int index = 0; index < 64; index++) {
                free(inherited[index]);
            }
            work((unsigned)number, 10);
            if (level < 2) {
                fork_level(level + 1);
            }
            _exit(failures != 0);
        }
        wait_for(pid);
        for (int index = 0; index < 64; index++) {
            free(inherited[index]);
        }
    }
    stop = 1;
    join(threads, 2);
}

static void forks(void) {
    fork_level(0);
}

/* Programs are started by posix_spawn and by vfork, whose child runs in the parent's memory, while threads allocate. */
static void spawns(void) {
    pthread_t threads[3];
    char *arguments[] = {"true", NULL};
    start(threads, 3, busy);
    for (int number = 0; number < 40; number++) {
        pid_t pid = -1;
        CHECK(posix_spawnp(&pid, "true", NULL, NULL, arguments, environ) == 0);
        wait_for(pid);
        pid = vfork();
        if (pid == 0) {
            execvp("true", arguments);
            _exit(1);
        }
        wait_for(pid);
        work((unsigned)number, 3);
    }
    stop = 1;
    join(threads, 3);
}

/* Blocks made by one thread are freed by another, and the two end in every order. */
struct pair {
    void *blocks[300];
    atomic_int made, freed, owner_may_end, owner_ended;
};

static void *owner(void *argument) {
    struct pair *pair = argument;
    for (int index = 0; index < 300; index++) {
        pair->blocks[index] = malloc(hidden_size(16 + (size_t)index * 20));
        memset(pair->blocks[index], index, 16);
    }
    pair->made = 1;
    while (!pair->owner_may_end) {
        work(5, 1);
    }
    return NULL;
}

static void *freer(void *argument) {
    struct pair *pair = argument;
    while (!pair->made) {
        sched_yield();
    }
    for (int index = 0; index < 300; index++) {
        CHECK(((unsigned char *)pair->blocks[index])[15] == (unsigned char)index);
        free(pair->blocks[index]);
        if (index == 150 && pair->owner_ended == 2) {
            /* Interleaved: the owner ends while half of its blocks are on their way back. */
            pair->owner_may_end = 1;
        }
    }
    pair->freed = 1;
    return NULL;
}

static void exit_orders(void) {
    for (int round = 0; round < 60; round++) {
        static struct pair pairs[3];
        pthread_t owners[3], freers[3];
        memset(pairs, 0, sizeof pairs);
        for (int index = 0; index < 3; index++) {
            pairs[index].owner_ended = index;
            CHECK(pthread_create(&owners[index], NULL, owner, &pairs[index]) == 0);
        }
        /* 0: the owner has gone before the first free. */
        pairs[0].owner_may_end = 1;
        CHECK(pthread_join(owners[0], NULL) == 0);
        for (int index = 0; index < 3; index++) {
            CHECK(pthread_create(&freers[index], NULL, freer, &pairs[index]) == 0);
        }
        join(freers, 3);
        /* 1: the freer has gone before the owner. */
        pairs[1].owner_may_end = 1;
        CHECK(pthread_join(owners[1], NULL) == 0 && pthread_join(owners[2], NULL) == 0);
    }
}

static atomic_int detached_left;

static void *detached(void *argument) {
    work((unsigned)(size_t)argument, 10);
    detached_left--;
    return NULL;
}

static void *cancelled(void *argument) {
    while (!stop) {
        work((unsigned)(size_t)argument, 1);
        pthread_testcancel();
    }
    return NULL;
}

static void *leaving(void *argument) {
    work((unsigned)(size_t)argument, 5);
    pthread_exit(argument);
}

/* Threads that nobody joins, threads that are cancelled between two allocations, and threads that leave by pthread_exit. */
static void exit_ways(void) {
    for (int round = 0; round < 40; round++) {
        pthread_t threads[4];
        detached_left += 4;
        start(threads, 4, detached);
        for (int index = 0; index < 4; index++) {
            CHECK(pthread_detach(threads[index]) == 0);
        }
        start(threads, 4, cancelled);
        for (int index = 0; index < 4; index++) {
            CHECK(pthread_cancel(threads[index]) == 0);
        }
        join(threads, 4);
        start(threads, 4, leaving);
        join(threads, 4);
    }
    while (detached_left > 0) {
        usleep(1000);
    }
}

/* exit() in a thread while others allocate; its handlers, of both kinds and in both orders, allocate and free. */
static void *kept;

static void exit_handler(void) {
    work(1, 5);
    free(kept);
    kept = malloc(hidden_size(3000000));
}

static void exit_handler_with_argument(int status, void *argument) {
    work(2, 5);
    CHECK(status == 0 && argument == &kept);
    free(kept);
    kept = malloc(hidden_size(100));
    static const char text[] = "life_cycle: ok\n";
    if (failures != 0 || write(1, text, sizeof text - 1) < 0) {
        _exit(1);
    }
}

static void *exiting(void *argument) {
    work(3, 3);
    exit((int)(size_t)argument);
}

static void exit_in_thread(void) {
    pthread_t threads[4];
    kept = malloc(hidden_size(500));
    CHECK(on_exit(exit_handler_with_argument, &kept) == 0 && atexit(exit_handler) == 0);
    start(threads, 3, busy);
    alarm(240);
    CHECK(pthread_create(&threads[3], NULL, exiting, NULL) == 0);
    for (;;) {
        work(9, 1);
    }
}

/* A timer interrupts allocations some thousand times. The handler allocates nothing; it may look at blocks, read the clock,
 * and change errno behind its own back. */
static atomic_long signals;
static volatile unsigned char *seen_by_handler;

static void on_timer(int number) {
    int before = errno;
    signals += number == SIGALRM && seen_by_handler[0] == 42;
    errno = before;
}

static void signal_storm(void) {
    pthread_t threads[2];
    struct sigaction action = {.sa_handler = on_timer, .sa_flags = SA_RESTART};
    struct itimerval often = {{0, 100}, {0, 100}}, never = {{0, 0}, {0, 0}};
    unsigned char *seen = malloc(hidden_size(100));
    seen[0] = 42;
    seen_by_handler = seen;
    CHECK(sigaction(SIGALRM, &action, NULL) == 0);
    start(threads, 2, busy);
    CHECK(setitimer(ITIMER_REAL, &often, NULL) == 0);
    while (signals < 2000) {
        work(4, 5);
    }
    CHECK(setitimer(ITIMER_REAL, &never, NULL) == 0);
    stop = 1;
    join(threads, 2);
    free(seen);
}

/* Code of the user's own, between two allocations, is left by siglongjmp out of a handler. */
static sigjmp_buf back;
static volatile sig_atomic_t may_jump;

static void on_jump_timer(int number) {
    if (number == SIGALRM && may_jump) {
        may_jump = 0;
        siglongjmp(back, 1);
    }
}

static void signal_jumps(void) {
    struct sigaction action = {.sa_handler = on_jump_timer};
    struct itimerval often = {{0, 300}, {0, 300}}, never = {{0, 0}, {0, 0}};
    static volatile int jumps;
    static unsigned char *volatile block;
    CHECK(sigaction(SIGALRM, &action, NULL) == 0 && setitimer(ITIMER_REAL, &often, NULL) == 0);
    while (jumps < 500) {
        block = malloc(hidden_size(200));
        if (sigsetjmp(back, 1) == 0) {
            may_jump = 1;
            for (;;) {
                block[jumps % 200]++;
            }
        }
        jumps++;
        free(block);
        work((unsigned)jumps, 1);
    }
    CHECK(setitimer(ITIMER_REAL, &never, NULL) == 0);
}

/* As many threads at once as asked for, with the smallest stacks, each with blocks of its own while all are there. */
static atomic_long arrived;
/* Held until all are there. */
static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;

static void *one_of_many(void *argument) {
    size_t bytes = 64 + (size_t)argument % 500;
    unsigned char *block = malloc(hidden_size(bytes));
    unsigned char *other = malloc(hidden_size(2000));
    CHECK(block != NULL && other != NULL);
    memset(block, (int)(size_t)argument, bytes);
    arrived++;
    pthread_mutex_lock(&gate);
    pthread_mutex_unlock(&gate);
    CHECK(block[bytes - 1] == (unsigned char)(size_t)argument);
    free(block);
    return other;
}

static void threads_at_once(long number) {
    pthread_t *threads = calloc((size_t)number, sizeof *threads);
    pthread_attr_t attributes;
    CHECK(pthread_attr_init(&attributes) == 0 && pthread_attr_setstacksize(&attributes, PTHREAD_STACK_MIN) == 0);
    long started = 0;
    CHECK(pthread_mutex_lock(&gate) == 0);
    while (started < number &&
           pthread_create(&threads[started], &attributes, one_of_many, (void *)(size_t)started) == 0) {
        started++;
    }
    while (arrived < started) {
        usleep(1000);
    }
    CHECK(pthread_mutex_unlock(&gate) == 0);
    for (long index = 0; index < started; index++) {
        void *left = NULL;
        CHECK(pthread_join(threads[index], &left) == 0);
        free(left);
    }
    free(threads);
    fprintf(stderr, "life_cycle: %ld threads at once, asked for %ld\n", started, number);
    CHECK(started == number);
}

static void *one_after_another(void *argument) {
    unsigned char *block = malloc(hidden_size(300));
    free(malloc(hidden_size(40)));
    memset(block, 3, 300);
    free(argument);
    return block;
}

static void threads_in_a_row(long number) {
    void *left = NULL;
    for (long index = 0; index < number; index++) {
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, one_after_another, left) == 0);
        CHECK(pthread_join(thread, &left) == 0);
    }
    free(left);
}

/* The smallest stack there is must do for every slow path: first use, refill, runs, big blocks, realloc, giving back. */
static void *on_small_stack(void *argument) {
    work(6, 20);
    unsigned char *big = malloc(hidden_size(9u << 20));
    big = realloc(big, hidden_size(30u << 20));
    CHECK(big != NULL);
    free(big);
    free(aligned_alloc(1 << 22, 1 << 22));
    return argument;
}

static void small_stack(void) {
    pthread_attr_t attributes;
    pthread_t thread;
    CHECK(pthread_attr_init(&attributes) == 0 && pthread_attr_setstacksize(&attributes, PTHREAD_STACK_MIN) == 0);
    for (int round = 0; round < 20; round++) {
        CHECK(pthread_create(&thread, &attributes, on_small_stack, NULL) == 0);
        CHECK(pthread_join(thread, NULL) == 0);
    }
}

/* Descriptors 0 to 2 are closed, and everything above them, too. */
static void closed_descriptors(void) {
    close_range(0, ~0u, 0);
    work(8, 50);
    pthread_t threads[2];
    start(threads, 2, brief);
    join(threads, 2);
}

static size_t resident_mib(void) {
    size_t total = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    CHECK(file != NULL && fscanf(file, "%zu %zu", &total, &resident) == 2);
    if (file != NULL) {
        fclose(file);
    }
    return resident >> 8;
}

/* All memory is locked, what comes later too. The reserved part of the window has no memory to lock; its tables have. */
static void locked(void) {
    size_t before = resident_mib();
    if (mlockall(MCL_CURRENT | MCL_FUTURE) != 0) {
        fprintf(stderr, "life_cycle: NOT RUN: mlockall: %s\n", strerror(errno));
        return;
    }
    size_t after = resident_mib();
    work(3, 100);
    unsigned char *big = malloc(hidden_size(40u << 20));
    memset(big, 1, 40u << 20);
    free(big);
    malloc_trim(0);
    fprintf(stderr, "life_cycle: %zu MiB resident, %zu locked, %zu after work\n", before, after, resident_mib());
    CHECK(resident_mib() < 512);
}

/* A sandbox without getrandom, from the first instruction of the process on. */
static void without_getrandom(void) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getrandom, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof filter / sizeof filter[0], filter};
    char *arguments[] = {"life_cycle", "exit_ways", NULL};
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
    execv("/proc/self/exe", arguments);
    CHECK(!"exec");
}

/* Ends with a core file in the working directory. */
static void core(void) {
    struct rlimit all = {RLIM_INFINITY, RLIM_INFINITY};
    CHECK(setrlimit(RLIMIT_CORE, &all) == 0);
    work(3, 100);
    void *big = malloc(hidden_size(9u << 20));
    memset(big, 1, 9u << 20);
    hidden(big);
    abort();
}

/* A library whose constructor and destructor allocate comes and goes, also while a thread allocates. */
static void plugins(void) {
    pthread_t thread;
    start(&thread, 1, busy);
    for (int round = 0; round < 300; round++) {
        void *library = dlopen(getenv("LIFE_CYCLE_PLUGIN"), RTLD_NOW | RTLD_LOCAL);
        void *(*make)(size_t);
        CHECK(library != NULL);
        *(void **)&make = dlsym(library, "make");
        unsigned char *block = make(1000);
        CHECK(dlclose(library) == 0);
        CHECK(block[999] == 7);
        free(block);
    }
    stop = 1;
    join(&thread, 1);
}

/* A library whose constructor waits for a thread that allocates, after the policy of the process has been replaced: nothing in a thread's
 * allocation may wait for the dynamic linker. */
static void waiting_constructor(void) {
    struct {
        unsigned magic, version;
        size_t bytes;
        const char *profile;
        unsigned long long numbers[3], reserved[16];
    } keep_all = {0x48414B4D, 1, sizeof keep_all, NULL, {~0ULL, ~0ULL, ~0ULL}, {0}};
    int (*configure)(const void *);
    *(void **)&configure = dlsym(RTLD_DEFAULT, "hak_configure");
    CHECK(configure == NULL || configure(&keep_all) == 0);
    /* One that waits for ever ends here. */
    alarm(100);
    void *library = dlopen(getenv("LIFE_CYCLE_PLUGIN"), RTLD_NOW | RTLD_LOCAL);
    CHECK(library != NULL && dlclose(library) == 0);
}

int main(int count, char **arguments) {
    check_library();
    const char *story = count > 1 ? arguments[1] : "";
    long number = count > 2 ? strtol(arguments[2], NULL, 10) : 0;
    static const struct {
        const char *name;
        void (*tell)(void);
        void (*tell_of)(long);
    } STORIES[] = {
        {"forks", forks, NULL},
        {"spawns", spawns, NULL},
        {"exit_orders", exit_orders, NULL},
        {"exit_ways", exit_ways, NULL},
        {"exit_in_thread", exit_in_thread, NULL},
        {"signal_storm", signal_storm, NULL},
        {"signal_jumps", signal_jumps, NULL},
        {"threads_at_once", NULL, threads_at_once},
        {"threads_in_a_row", NULL, threads_in_a_row},
        {"small_stack", small_stack, NULL},
        {"closed_descriptors", closed_descriptors, NULL},
        {"locked", locked, NULL},
        {"without_getrandom", without_getrandom, NULL},
        {"core", core, NULL},
        {"plugins", plugins, NULL},
        {"waiting_constructor", waiting_constructor, NULL},
    };
    for (size_t index = 0; index < sizeof STORIES / sizeof STORIES[0]; index++) {
        if (strcmp(story, STORIES[index].name) == 0) {
            if (STORIES[index].tell != NULL) {
                STORIES[index].tell();
            } else {
                STORIES[index].tell_of(number);
            }
            return finish("life_cycle");
        }
    }
    fprintf(stderr, "life_cycle: there is no story \"%s\"\n", story);
    return 2;
}
