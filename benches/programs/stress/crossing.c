/* Threads that allocate blocks of widely different sizes, keep some, and give lists of others to their neighbour, which frees
 * them between its own allocations.
 *
 * crossing THREADS ROUNDS BLOCKS_PER_ROUND MOST_BYTES */
#include <stdatomic.h>

#include "../common.h"

enum { KEPT = 4096 };

/* The link is written into the block behind its header. */
struct gift {
    struct block header;
    struct gift *next;
};

static _Atomic(struct gift *) doors[MOST_THREADS];
static unsigned threads;
static unsigned long rounds, blocks_per_round, most_bytes;

static void give(unsigned receiver, struct gift *first, struct gift *last) {
    struct gift *head = atomic_load(&doors[receiver]);
    do
        last->next = head;
    while (!atomic_compare_exchange_weak(&doors[receiver], &head, first));
}

static uint64_t free_gifts(unsigned receiver) {
    uint64_t sum = 0;
    for (struct gift *gift = atomic_exchange(&doors[receiver], NULL); gift != NULL;) {
        struct gift *next = gift->next;
        sum += free_block(&gift->header);
        gift = next;
    }
    return sum;
}

static size_t any_size(uint64_t *random) {
    /* The smaller of two is drawn twice as often below the middle as above it. */
    size_t one = random_below(random, most_bytes), other = random_below(random, most_bytes);
    return 24 + (one < other ? one : other);
}

static void *work(void *argument) {
    struct worker *self = argument;
    struct block **kept = or_die(calloc(KEPT, sizeof *kept));
    for (unsigned long round = 0; round < rounds; round++) {
        struct gift *first = NULL, *last = NULL;
        for (unsigned long made = 0; made < blocks_per_round; made++) {
            struct block *block = new_block(any_size(&self->random), (uint32_t)next_random(&self->random));
            if (made % 3 == 0) {
                struct gift *gift = (struct gift *)block;
                gift->next = first;
                first = gift;
                last = last == NULL ? gift : last;
                continue;
            }
            struct block **slot = &kept[random_below(&self->random, KEPT)];
            if (*slot != NULL)
                self->sum += free_block(*slot);
            *slot = block;
        }
        give((self->index + 1) % threads, first, last);
        self->sum += free_gifts(self->index);
    }
    for (unsigned index = 0; index < KEPT; index++)
        if (kept[index] != NULL)
            self->sum += free_block(kept[index]);
    free(kept);
    return NULL;
}

int main(int count, char **arguments) {
    threads = (unsigned)argument(count, arguments, 1, 4);
    rounds = argument(count, arguments, 2, 200);
    blocks_per_round = argument(count, arguments, 3, 3000);
    most_bytes = argument(count, arguments, 4, 16000);
    uint64_t sum = in_threads(threads, 1, work);
    for (unsigned index = 0; index < threads; index++)
        sum += free_gifts(index);
    return print_sum(sum);
}
