/* The program around the cases: lists them, or runs one of them for one size, with its mistake or without.
 *
 *     misuse --list
 *     misuse NAME SIZE [control]
 *
 * Exit status: 0 harmless (or the control twin came back), 1 missed, 2 the case could not be arranged, 3 a function is
 * missing. It writes `reached` to fd 1 when the case has come back, so that a report at exit is told from one before.
 */
#include "suite.h"

#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

extern struct entry *__start_misuse_cases[];
extern struct entry *__stop_misuse_cases[];

size_t size = 64;
bool mistake = true;

static const struct {
    const char *name;
    enum sizes bit;
    size_t bytes;
} SIZES[] = {
    {"small", SMALL, 64}, {"mid", MID, 8 << 10}, {"run", RUN, 128 << 10}, {"big", BIG, 4 << 20}, {"-", NONE, 64},
};
enum { SIZE_COUNT = sizeof SIZES / sizeof SIZES[0] };

/* Texts go out with `write`: stdio would allocate in the middle of a case. */
static void say(int fd, const char *text) {
    if (write(fd, text, strlen(text)) < 0) {
        _exit(2);
    }
}

void cannot(const char *why) {
    say(2, "misuse: cannot be arranged: ");
    say(2, why);
    say(2, "\n");
    _exit(2);
}

void not_available(const char *function) {
    say(2, "misuse: there is no ");
    say(2, function);
    say(2, "\n");
    _exit(3);
}

static void list(void) {
    static const char *const SUCCESS[] = {"report", "stop", "no use"};
    for (struct entry **entry = __start_misuse_cases; entry < __stop_misuse_cases; entry++) {
        const char *file = strrchr((*entry)->file, '/');
        for (int index = 0; index < SIZE_COUNT; index++) {
            if ((*entry)->sizes & SIZES[index].bit) {
                printf("%s\t%d\t%s\t%s\t%s\t%s\t%s\n", file == NULL ? (*entry)->file : file + 1, (*entry)->line,
                       (*entry)->name, SIZES[index].name, SUCCESS[(*entry)->success],
                       (*entry)->bar == DEFAULT_BAR ? "bar" : "", (*entry)->what);
            }
        }
    }
}

/* `malloc` must come from the library that EXPECT_LIBRARY names a part of: a preload that failed must not count. */
static void check_library(void) {
    const char *expected = getenv("EXPECT_LIBRARY");
    Dl_info info;
    void *address = dlsym(RTLD_DEFAULT, "malloc");
    if (expected != NULL &&
        (address == NULL || dladdr(address, &info) == 0 || strstr(info.dli_fname, expected) == NULL)) {
        cannot("malloc is not of the library under test");
    }
}

int main(int argc, char **argv) {
    /* One byte: too little for a file, and a core_pattern with a pipe is left alone as well. */
    struct rlimit no_core = {1, 1};
    setrlimit(RLIMIT_CORE, &no_core);
    if (argc == 2 && strcmp(argv[1], "--list") == 0) {
        list();
        return 0;
    }
    if (argc < 3) {
        cannot("usage: misuse --list | misuse NAME SIZE [control]");
    }
    check_library();
    mistake = argc < 4;
    int chosen = 0;
    while (chosen < SIZE_COUNT && strcmp(SIZES[chosen].name, argv[2]) != 0) {
        chosen++;
    }
    for (struct entry **entry = __start_misuse_cases; entry < __stop_misuse_cases; entry++) {
        if (chosen < SIZE_COUNT && strcmp((*entry)->name, argv[1]) == 0 && ((*entry)->sizes & SIZES[chosen].bit)) {
            size = SIZES[chosen].bytes;
            enum verdict verdict = (*entry)->run();
            say(1, "reached\n");
            return mistake ? (int)verdict : 0;
        }
    }
    cannot("no such case");
}

char *block_of(size_t bytes) {
    char *block = hidden(malloc(hidden_size(bytes)));
    if (block == NULL) {
        cannot("out of memory");
    }
    if (bytes > 0) {
        block[0] = block[bytes - 1] = 1;
    }
    return block;
}

static char *neighbours[4];

char *fresh_of(size_t bytes) {
    for (int index = 0; index < 3; index++) {
        neighbours[index] = block_of(bytes);
    }
    char *block = block_of(bytes);
    neighbours[3] = block_of(bytes);
    return block;
}

char *fresh(void) { return fresh_of(size); }

bool is_neighbour(const char *address) {
    for (int index = 0; index < 4; index++) {
        if (neighbours[index] == address) {
            return true;
        }
    }
    return false;
}

void churn(size_t bytes, size_t count) {
    static char *blocks[4096];
    for (size_t index = 0; index < count; index++) {
        blocks[index] = block_of(bytes);
    }
    for (size_t index = 0; index < count; index++) {
        free(blocks[index]);
    }
}

size_t many(void) { return size <= 64 ? 4096 : size <= 8 << 10 ? 512 : size <= 128 << 10 ? 64 : 8; }

struct job {
    void (*body)(void *);
    void *argument;
    bool stays;
    pthread_barrier_t done;
};

static void *thread_of(void *argument) {
    struct job *job = argument;
    job->body(job->argument);
    if (job->stays) {
        pthread_barrier_wait(&job->done);
        for (;;) {
            pause();
        }
    }
    return NULL;
}

static pthread_t start(struct job *job) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, thread_of, job) != 0) {
        cannot("no thread");
    }
    return thread;
}

void in_thread(void (*body)(void *), void *argument) {
    struct job job = {.body = body, .argument = argument};
    pthread_join(start(&job), NULL);
}

void in_staying_thread(void (*body)(void *), void *argument) {
    static struct job jobs[8];
    static int job_count;
    struct job *job = &jobs[job_count++];
    job->body = body;
    job->argument = argument;
    job->stays = true;
    pthread_barrier_init(&job->done, NULL, 2);
    start(job);
    pthread_barrier_wait(&job->done);
}

void free_it(void *block) { free(block); }

enum verdict like_child(pid_t child) {
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) != child) {
        cannot("no child");
    }
    if (WIFSIGNALED(status)) {
        signal(WTERMSIG(status), SIG_DFL);
        raise(WTERMSIG(status));
    }
    return WIFEXITED(status) && WEXITSTATUS(status) == HARMLESS ? HARMLESS : MISSED;
}

/* Put together at run time, so that the program's own image does not hold it. */
static void secret(char *place) {
    for (int index = 0; index < 16; index++) {
        place[index] = (char)(0xc3 ^ (index * 37));
    }
}

void write_secrets(char *block) {
    /* Not in the first half of each 64 bytes, where lists keep their links: those are gone anyway. */
    for (size_t at = 32; at + 16 <= size; at += 64) {
        secret(block + at);
    }
}

bool has_secret(const char *block, size_t bytes) {
    char wanted[16];
    secret(wanted);
    bool found = false;
    for (size_t at = 32; at + 16 <= bytes && !found; at += 64) {
        found = memcmp(block + at, wanted, sizeof wanted) == 0;
    }
    memset(hidden(wanted), 0, sizeof wanted);
    return found;
}
