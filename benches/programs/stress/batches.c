/* Batches of blocks of one size after the other, each freed in another order while part of the batch before is still there.
 *
 * batches THREADS ROUNDS MOST_BYTES */
#include "../common.h"

enum { MOST_BLOCKS = 4096 };

static unsigned long rounds, most_bytes;

/* Frees blocks [0, count) of `blocks` in one of five orders. */
static uint64_t free_in_order(struct block **blocks, unsigned count, unsigned order) {
    uint64_t sum = 0;
    switch (order % 5) {
    case 0:
        for (unsigned index = 0; index < count; index++)
            sum += free_block(blocks[index]);
        break;
    case 1:
        for (unsigned index = count; index-- > 0;)
            sum += free_block(blocks[index]);
        break;
    case 2: /* Every second, then the others. */
        for (unsigned first = 0; first < 2; first++)
            for (unsigned index = first; index < count; index += 2)
                sum += free_block(blocks[index]);
        break;
    case 3: /* From both ends to the middle. */
        for (unsigned low = 0, high = count; low < high;) {
            sum += free_block(blocks[low++]);
            if (low < high)
                sum += free_block(blocks[--high]);
        }
        break;
    default: /* Every seventh, seven times over. */
        for (unsigned first = 0; first < 7; first++)
            for (unsigned index = first; index < count; index += 7)
                sum += free_block(blocks[index]);
    }
    return sum;
}

static void *work(void *argument) {
    struct worker *self = argument;
    struct block **blocks = or_die(calloc(2 * MOST_BLOCKS, sizeof *blocks));
    struct block **now = blocks, **before = blocks + MOST_BLOCKS;
    unsigned kept = 0;
    for (unsigned long round = 0; round < rounds; round++) {
        unsigned order = (unsigned)round + self->index;
        for (size_t bytes = 9; bytes <= most_bytes; bytes += 1 + bytes / 5) {
            unsigned count = bytes < 256 ? MOST_BLOCKS : MOST_BLOCKS / 8;
            for (unsigned index = 0; index < count; index++)
                now[index] = new_block(bytes, (uint32_t)(round + index));
            self->sum += free_in_order(before, kept, order);
            unsigned freed = count / 2;
            self->sum += free_in_order(now, freed, ++order);
            kept = count - freed;
            struct block **rest = before;
            memmove(now, now + freed, kept * sizeof *now);
            before = now;
            now = rest;
        }
    }
    self->sum += free_in_order(before, kept, 0);
    free(blocks);
    return NULL;
}

int main(int count, char **arguments) {
    unsigned threads = (unsigned)argument(count, arguments, 1, 1);
    rounds = argument(count, arguments, 2, 200);
    most_bytes = argument(count, arguments, 3, 2000);
    return print_sum(in_threads(threads, 1, work));
}
