/* Producers allocate batches of blocks and send them to consumers, which do nothing but free them: every free is remote, and
 * a producer gets its memory back only through the consumers' frees.
 *
 * pipeline PRODUCERS CONSUMERS BATCHES_PER_PRODUCER */
#include "../common.h"

enum { BATCH = 120, CAPACITY = 64 };

struct batch {
    struct block *blocks[BATCH];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t not_full = PTHREAD_COND_INITIALIZER;
static pthread_cond_t not_empty = PTHREAD_COND_INITIALIZER;
static struct batch *waiting[CAPACITY];
static unsigned waiting_count;
static unsigned producers_left;
static unsigned producers;
static unsigned long batches;

static void send(struct batch *batch) {
    pthread_mutex_lock(&lock);
    while (waiting_count == CAPACITY)
        pthread_cond_wait(&not_full, &lock);
    waiting[waiting_count++] = batch;
    pthread_cond_signal(&not_empty);
    pthread_mutex_unlock(&lock);
}

static struct batch *receive(void) {
    struct batch *batch = NULL;
    pthread_mutex_lock(&lock);
    while (waiting_count == 0 && producers_left > 0)
        pthread_cond_wait(&not_empty, &lock);
    if (waiting_count > 0) {
        batch = waiting[--waiting_count];
        pthread_cond_signal(&not_full);
    }
    pthread_mutex_unlock(&lock);
    return batch;
}

static void produce(struct worker *self) {
    for (unsigned long round = 0; round < batches; round++) {
        struct batch *batch = or_die(malloc(sizeof *batch));
        for (unsigned index = 0; index < BATCH; index++) {
            uint64_t random = next_random(&self->random);
            /* Mostly small, one in sixteen up to 2 KiB. */
            size_t bytes = random % 16 == 0 ? 256 + (random >> 8) % 1793 : 8 + (random >> 8) % 249;
            batch->blocks[index] = new_block(bytes, (uint32_t)(random >> 32));
        }
        send(batch);
    }
    pthread_mutex_lock(&lock);
    producers_left--;
    pthread_cond_broadcast(&not_empty);
    pthread_mutex_unlock(&lock);
}

static void consume(struct worker *self) {
    for (struct batch *batch = receive(); batch != NULL; batch = receive()) {
        for (unsigned index = 0; index < BATCH; index++)
            self->sum += free_block(batch->blocks[index]);
        free(batch);
    }
}

static void *work(void *argument) {
    struct worker *self = argument;
    if (self->index < producers)
        produce(self);
    else
        consume(self);
    return NULL;
}

int main(int count, char **arguments) {
    producers = producers_left = (unsigned)argument(count, arguments, 1, 2);
    unsigned consumers = (unsigned)argument(count, arguments, 2, 2);
    batches = argument(count, arguments, 3, 40000);
    return print_sum(in_threads(producers + consumers, 1, work));
}
