/* A server whose connections outlive its threads: blocks are replaced at random, and every so often a thread starts its
 * successor, leaves it all its blocks, and ends. So most blocks are freed by a thread that did not allocate them.
 *
 * generations THREADS SLOTS REPLACEMENTS GENERATIONS LEAST_BYTES MOST_BYTES */
#include "../common.h"

enum { MOST_SLOTS = 20000 };

static unsigned long slots, replacements, generations, least_bytes, most_bytes;

struct lane {
    uint64_t random;
    uint64_t sum;
    unsigned long generation;
    struct block *blocks[MOST_SLOTS];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t lane_is_over = PTHREAD_COND_INITIALIZER;
static unsigned long lanes_over;

static struct block *fresh(struct lane *lane) {
    size_t bytes = least_bytes + random_below(&lane->random, most_bytes - least_bytes + 1);
    return new_block(bytes, (uint32_t)next_random(&lane->random));
}

static void start(struct lane *lane);

static void *generation(void *argument) {
    struct lane *lane = argument;
    for (unsigned long round = 0; round < replacements; round++) {
        struct block **slot = &lane->blocks[random_below(&lane->random, slots)];
        lane->sum += free_block(*slot);
        *slot = fresh(lane);
    }
    if (++lane->generation < generations) {
        start(lane);
        return NULL;
    }
    pthread_mutex_lock(&lock);
    lanes_over++;
    pthread_cond_signal(&lane_is_over);
    pthread_mutex_unlock(&lock);
    return NULL;
}

static void start(struct lane *lane) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, generation, lane) != 0)
        abort();
    pthread_detach(thread);
}

int main(int count, char **arguments) {
    unsigned long threads = argument(count, arguments, 1, 4);
    slots = argument(count, arguments, 2, 1000);
    replacements = argument(count, arguments, 3, 20000);
    generations = argument(count, arguments, 4, 250);
    least_bytes = argument(count, arguments, 5, 8);
    most_bytes = argument(count, arguments, 6, 1000);
    static struct lane lanes[MOST_THREADS];
    if (threads > MOST_THREADS || slots > MOST_SLOTS)
        return 2;
    for (unsigned long index = 0; index < threads; index++) {
        lanes[index].random = index;
        for (unsigned long slot = 0; slot < slots; slot++)
            lanes[index].blocks[slot] = fresh(&lanes[index]);
    }
    for (unsigned long index = 0; index < threads; index++)
        start(&lanes[index]);
    pthread_mutex_lock(&lock);
    while (lanes_over < threads)
        pthread_cond_wait(&lane_is_over, &lock);
    pthread_mutex_unlock(&lock);
    uint64_t sum = 0;
    for (unsigned long index = 0; index < threads; index++) {
        for (unsigned long slot = 0; slot < slots; slot++)
            sum += free_block(lanes[index].blocks[slot]);
        sum += lanes[index].sum;
    }
    return print_sum(sum);
}
