/* Faults of a program whose every allocation is a guarded sample, and faults that are none of the library's business: on small
 * alternate stacks, from two threads at once, and in a program that goes on after its faults. The argument says which. */
#include "check.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096, ROUNDS = 200 };

static void *freed_block(void) {
    char *block = malloc(100);
    free(hidden(block));
    return block;
}

/* An alternate stack that ends at a page without access: what does not fit on it is seen. */
static void use_alternate_stack(size_t bytes) {
    size_t mapped = (bytes + PAGE - 1) / PAGE * PAGE;
    char *pages = mmap(NULL, PAGE + mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(pages != MAP_FAILED && mprotect(pages + PAGE, mapped, PROT_READ | PROT_WRITE) == 0);
    stack_t stack = {.ss_sp = pages + PAGE, .ss_size = bytes};
    CHECK(sigaltstack(&stack, NULL) == 0);
}

static void *touch_freed_on_alternate_stack(void *bytes) {
    use_alternate_stack((uintptr_t)bytes);
    *(volatile char *)freed_block() = 1;
    return NULL;
}

static pthread_barrier_t barrier;

static void *touch_freed_together(void *unused) {
    volatile char *block = freed_block();
    pthread_barrier_wait(&barrier);
    *block = 1;
    return unused;
}

static struct sigaction former;
static sigjmp_buf back;
static volatile char *const NOWHERE = (char *)0x12345000;
static volatile int handled;

static void jump_back(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)context;
    CHECK(info->si_code > 0 && info->si_addr == NOWHERE);
    handled++;
    siglongjmp(back, 1);
}

static void on_overflow(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)info, (void)context;
    _exit(7);
}

static void install(void (*handler)(int, siginfo_t *, void *), int flags) {
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | flags};
    sigemptyset(&action.sa_mask);
    CHECK(sigaction(SIGSEGV, &action, NULL) == 0);
}

/* As virtual machines do: a fault is caught, and the program goes on somewhere else. */
static void go_on_after_faults(void) {
    for (volatile int round = 0; round < ROUNDS; round++) {
        if (sigsetjmp(back, 1) == 0) {
            *NOWHERE = 1;
        }
        free(hidden(malloc(50)));
    }
    CHECK(handled == ROUNDS);
}

/* A handler from after the first sample, before which the library puts its own once. */
static void install_between_samples(void (*handler)(int, siginfo_t *, void *)) {
    free(hidden(malloc(50)));
    CHECK(sigaction(SIGSEGV, NULL, &former) == 0);
    install(handler, 0);
    free(hidden(malloc(50)));
}

static void call_the_former(int signal, siginfo_t *info, void *context) {
    former.sa_sigaction(signal, info, context);
}

static void *touch_freed(void *unused) {
    *(volatile char *)freed_block() = 1;
    return unused;
}

/* A report that gets stuck, because nobody reads it; and a child that makes the same mistake meanwhile. */
static void fork_while_reporting(void) {
    int ends[2], errors = dup(2);
    CHECK(pipe(ends) == 0 && fcntl(ends[1], F_SETFL, O_NONBLOCK) == 0);
    while (write(ends[1], "x", 1) == 1) {
    }
    CHECK(fcntl(ends[1], F_SETFL, 0) == 0 && dup2(ends[1], 2) == 2);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, touch_freed, NULL) == 0);
    /* The report has a time limit, which is set at its beginning. */
    struct itimerval limit = {0};
    while (limit.it_value.tv_sec == 0) {
        getitimer(ITIMER_REAL, &limit);
    }
    pid_t child = fork();
    if (child == 0) {
        alarm(20);
        dup2(errors, 2);
        touch_freed(NULL);
    }
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    _exit(failures);
}

static char *own_pages;

/* Where the program was kept out by itself, it lets itself in again. */
static void open_own_page(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)context;
    char *page = own_pages + ((char *)info->si_addr - own_pages) / PAGE * PAGE;
    CHECK(info->si_code > 0 && mprotect(page, PAGE, PROT_READ | PROT_WRITE) == 0);
    handled++;
}

/* As collectors and emulators do, to see which pages are written to. */
static void watch_own_pages(void) {
    install(open_own_page, 0);
    CHECK(posix_memalign((void **)&own_pages, PAGE, 4 * PAGE) == 0);
    memset(own_pages, 1, 4 * PAGE);
    CHECK(mprotect(own_pages, 4 * PAGE, PROT_READ) == 0);
    for (int page = 0; page < 4; page += 3) {
        ((volatile char *)own_pages)[page * PAGE + 5] = 2;
    }
    CHECK(handled == 2 && mprotect(own_pages, 4 * PAGE, PROT_READ | PROT_WRITE) == 0);
    free(own_pages);
}

/* A thread that allocates nothing. */
static void *touch_nowhere(void *unused) {
    if (sigsetjmp(back, 1) == 0) {
        *NOWHERE = 1;
    }
    return unused;
}

static void run(void *(*body)(void *)) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, body, NULL) == 0 && pthread_join(thread, NULL) == 0);
}

__attribute__((noinline)) static int recurse(int depth) {
    volatile char frame[PAGE];
    frame[depth % PAGE] = 1;
    return depth < 0 ? 0 : frame[0] + recurse(depth + 1) + frame[depth % PAGE];
}

int main(int argc, char **argv) {
    check_library();
    const char *role = argc > 1 ? argv[1] : "";
    if (strcmp(role, "alternate") == 0) {
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, touch_freed_on_alternate_stack, (void *)strtoul(argv[2], NULL, 10)) == 0);
        pthread_join(thread, NULL);
    } else if (strcmp(role, "together") == 0) {
        pthread_t threads[4];
        pthread_barrier_init(&barrier, NULL, 4);
        for (int index = 0; index < 4; index++) {
            CHECK(pthread_create(&threads[index], NULL, touch_freed_together, NULL) == 0);
        }
        pthread_join(threads[0], NULL);
    } else if (strcmp(role, "late") == 0) {
        /* The report still comes when another handler was there first, and the program blocks everything it can. */
        install(jump_back, SA_ONSTACK);
        sigset_t all;
        sigfillset(&all);
        sigdelset(&all, SIGSEGV);
        CHECK(pthread_sigmask(SIG_SETMASK, &all, NULL) == 0);
        *(volatile char *)freed_block() = 1;
    } else if (strcmp(role, "go on") == 0) {
        install(jump_back, 0);
        go_on_after_faults();
    } else if (strcmp(role, "go on, alternate") == 0) {
        use_alternate_stack(16 * PAGE);
        install(jump_back, SA_ONSTACK);
        go_on_after_faults();
    } else if (strcmp(role, "without a heap") == 0) {
        install_between_samples(jump_back);
        for (int round = 0; round < 2; round++) {
            run(touch_nowhere);
        }
        CHECK(handled == 2);
    } else if (strcmp(role, "without a heap, chained") == 0) {
        install_between_samples(call_the_former);
        run(touch_nowhere);
    } else if (strcmp(role, "fork while reporting") == 0) {
        fork_while_reporting();
    } else if (strcmp(role, "own pages") == 0) {
        watch_own_pages();
    } else if (strcmp(role, "overflow") == 0) {
        use_alternate_stack(4 * PAGE);
        install(on_overflow, SA_ONSTACK);
        free(hidden(malloc(50)));
        return recurse(0) & 1;
    } else {
        CHECK(!"no such role");
    }
    return finish("sampled");
}
