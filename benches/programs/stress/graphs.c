/* Threads that each keep a bag of objects, most of them small and a few large, swap some through slots that all of them see,
 * and end; the next phase's threads find what was left in the slots.
 *
 * graphs THREADS PHASES OBJECTS_PER_THREAD */
#include <stdatomic.h>

#include "../common.h"

enum { SHARED = 1000, WORD = sizeof(uint64_t) };

/* Words [1, words) hold a value that follows from the first. */
struct object {
    uint64_t words;
    uint64_t values[];
};

static _Atomic(struct object *) shared[SHARED];
static unsigned long objects;

static struct object *new_object(uint64_t *random) {
    /* One in a hundred is a hundred times as large, one in ten thousand again. */
    uint64_t words = 1 + random_below(random, 16);
    if (random_below(random, 100) == 0)
        words *= 100;
    if (random_below(random, 100) == 0)
        words *= 20;
    struct object *object = or_die(malloc(sizeof *object + words * WORD));
    object->words = words;
    for (uint64_t word = 0; word < words; word++)
        object->values[word] = (words * 77) ^ word;
    return object;
}

static uint64_t free_object(struct object *object) {
    if (object == NULL)
        return 0;
    uint64_t words = object->words;
    for (uint64_t word = 0; word < words; word++)
        if (object->values[word] != ((words * 77) ^ word))
            abort();
    free(object);
    return words * words;
}

static void *work(void *argument) {
    struct worker *self = argument;
    struct object **bag = NULL;
    size_t used = 0, room = 0;
    for (unsigned long made = 0; made < objects; made++) {
        if (used == room) {
            room = room == 0 ? 64 : room * 2;
            bag = or_die(realloc(bag, room * sizeof *bag));
        }
        bag[used++] = new_object(&self->random);
        if (random_below(&self->random, 4) == 0) {
            struct object **mine = &bag[random_below(&self->random, used)];
            *mine = atomic_exchange(&shared[random_below(&self->random, SHARED)], *mine);
        }
        if (random_below(&self->random, 100) < 66) {
            struct object **mine = &bag[random_below(&self->random, used)];
            self->sum += free_object(*mine);
            *mine = bag[--used];
        }
    }
    while (used > 0)
        self->sum += free_object(bag[--used]);
    free(bag);
    return NULL;
}

int main(int count, char **arguments) {
    unsigned threads = (unsigned)argument(count, arguments, 1, 4);
    unsigned long phases = argument(count, arguments, 2, 10);
    objects = argument(count, arguments, 3, 60000);
    uint64_t sum = 0;
    for (unsigned long phase = 0; phase < phases; phase++)
        sum += in_threads(threads, phase, work);
    for (unsigned index = 0; index < SHARED; index++)
        sum += free_object(atomic_exchange(&shared[index], NULL));
    return print_sum(sum);
}
