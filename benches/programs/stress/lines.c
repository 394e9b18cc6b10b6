/* Threads that write into small blocks all the time. If an allocator gives two threads blocks in the same cache line, or gives
 * a thread a line back that another one still writes into, the writes take turns instead of running side by side.
 *
 * lines active|passive THREADS ROUNDS WRITES
 * active: each thread allocates its own blocks. passive: its first comes from the main thread, beside those of the others; what
 * it frees should not be handed out to it again as long as its neighbours are written to. */
#include "../common.h"

enum { BYTES = 16 };

static unsigned long rounds, writes;
static unsigned char *from_main[MOST_THREADS];

static void *work(void *argument) {
    struct worker *self = argument;
    free(from_main[self->index]);
    for (unsigned long round = 0; round < rounds; round++) {
        volatile unsigned char *block = or_die(malloc(BYTES));
        for (unsigned index = 0; index < BYTES; index++)
            block[index] = (unsigned char)(index + round);
        for (unsigned long write = 0; write < writes; write++)
            block[write % BYTES]++;
        for (unsigned index = 0; index < BYTES; index++)
            self->sum += block[index];
        free((void *)block);
    }
    return NULL;
}

int main(int count, char **arguments) {
    int passive = count > 1 && strcmp(arguments[1], "passive") == 0;
    unsigned threads = (unsigned)argument(count, arguments, 2, 2);
    rounds = argument(count, arguments, 3, 30000);
    writes = argument(count, arguments, 4, 8000);
    for (unsigned index = 0; passive && index < threads; index++)
        from_main[index] = or_die(malloc(BYTES));
    return print_sum(in_threads(threads, 1, work));
}
