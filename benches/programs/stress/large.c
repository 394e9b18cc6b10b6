/* Large blocks, allocated, written to once per page, and freed. An allocator that asks the system for each, or gives each back,
 * pays for the pages every time.
 *
 * large THREADS ROUNDS LEAST_BITS MOST_BITS */
#include "../common.h"

enum { LIVE = 6, PAGE = 4096 };

static unsigned long rounds, least_bits, most_bits;

struct large {
    unsigned char *bytes;
    size_t size;
};

static uint64_t sum_and_free(struct large *large) {
    uint64_t sum = 0;
    for (size_t at = 0; at < large->size; at += PAGE)
        sum += large->bytes[at];
    free(large->bytes);
    large->bytes = NULL;
    return sum;
}

static void *work(void *argument) {
    struct worker *self = argument;
    struct large live[LIVE] = {{0}};
    for (unsigned long round = 0; round < rounds; round++) {
        struct large *slot = &live[random_below(&self->random, LIVE)];
        if (slot->bytes != NULL)
            self->sum += sum_and_free(slot);
        slot->size = random_size(&self->random, (unsigned)least_bits, (unsigned)most_bits);
        slot->bytes = or_die(malloc(slot->size));
        for (size_t at = 0; at < slot->size; at += PAGE)
            slot->bytes[at] = (unsigned char)(at / PAGE + round);
    }
    for (unsigned index = 0; index < LIVE; index++)
        if (live[index].bytes != NULL)
            self->sum += sum_and_free(&live[index]);
    return NULL;
}

int main(int count, char **arguments) {
    unsigned threads = (unsigned)argument(count, arguments, 1, 1);
    rounds = argument(count, arguments, 2, 8000);
    least_bits = argument(count, arguments, 3, 16);
    most_bits = argument(count, arguments, 4, 25);
    return print_sum(in_threads(threads, 1, work));
}
