/* A heap that grows and shrinks again and again, as that of a program which loads, works and drops: memory that is given back
 * at once must be faulted in again, memory that is never given back stays in the peak of whatever else runs.
 *
 * phases PHASES MEBIBYTES */
#include "../common.h"

enum { CHURN = 200000, CHURN_SLOTS = 500 };

int main(int count, char **arguments) {
    unsigned long phases = argument(count, arguments, 1, 6);
    size_t most = argument(count, arguments, 2, 300) << 20;
    size_t room = most / 64;
    struct block **blocks = or_die(malloc(room * sizeof *blocks));
    struct block *churn[CHURN_SLOTS] = {0};
    uint64_t random = 1, sum = 0;
    for (unsigned long phase = 0; phase < phases; phase++) {
        size_t used = 0;
        /* Each phase has its own mix, so that memory must move between sizes. */
        unsigned low = 5 + phase % 3, high = low + 5 + phase % 4;
        for (size_t bytes = 0; bytes < most && used < room;) {
            size_t size = random_size(&random, low, high);
            blocks[used] = new_block(size, (uint32_t)used);
            used++;
            bytes += size;
        }
        /* Half in order, half at random. */
        for (size_t index = 0; index < used / 2; index++)
            sum += free_block(blocks[index]);
        for (size_t index = used / 2; index < used; index++) {
            size_t other = index + random_below(&random, used - index);
            struct block *block = blocks[other];
            blocks[other] = blocks[index];
            sum += free_block(block);
        }
        /* The quiet part: ordinary small work. */
        for (unsigned step = 0; step < CHURN; step++) {
            struct block **slot = &churn[random_below(&random, CHURN_SLOTS)];
            if (*slot != NULL)
                sum += free_block(*slot);
            *slot = new_block(16 + random_below(&random, 500), step);
        }
    }
    for (unsigned index = 0; index < CHURN_SLOTS; index++)
        if (churn[index] != NULL)
            sum += free_block(churn[index]);
    free(blocks);
    return print_sum(sum);
}
