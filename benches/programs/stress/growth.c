/* Buffers that grow by realloc: many strings a few bytes at a time, side by side, and arrays by half their size up to very large.
 *
 * growth ROUNDS */
#include "../common.h"

enum { STRINGS = 300 };

struct string {
    unsigned char *bytes;
    size_t used, room;
};

static void append(struct string *string, size_t bytes, unsigned char value, int doubles) {
    if (string->used + bytes > string->room) {
        string->room = doubles ? 2 * (string->used + bytes) : string->used + bytes;
        string->bytes = or_die(realloc(string->bytes, string->room));
    }
    memset(string->bytes + string->used, value, bytes);
    string->used += bytes;
}

static uint64_t sum_and_free(struct string *string) {
    uint64_t sum = string->used;
    for (size_t at = 0; at < string->used; at += 61)
        sum = sum * 31 + string->bytes[at];
    free(string->bytes);
    *string = (struct string){0};
    return sum;
}

/* Strings of up to 8 KiB that ask for exactly what they need each time. */
static uint64_t exact(uint64_t *random) {
    static struct string strings[STRINGS];
    uint64_t sum = 0;
    for (unsigned long step = 0; step < 300000; step++) {
        struct string *string = &strings[random_below(random, STRINGS)];
        append(string, 1 + random_below(random, 40), (unsigned char)step, 0);
        if (string->used > 8192)
            sum += sum_and_free(string);
    }
    for (unsigned index = 0; index < STRINGS; index++)
        sum += sum_and_free(&strings[index]);
    return sum;
}

/* A few buffers that double, up to 4 MiB each. */
static uint64_t doubling(uint64_t *random) {
    struct string strings[8] = {{0}};
    uint64_t sum = 0;
    for (unsigned long step = 0; step < 40000; step++)
        append(&strings[random_below(random, 8)], 400 + random_below(random, 400), (unsigned char)step, 1);
    for (unsigned index = 0; index < 8; index++)
        sum += sum_and_free(&strings[index]);
    return sum;
}

/* One array that grows by a half each time until it has 128 MiB, and then shrinks to a tenth. */
static uint64_t one_array(uint64_t *random) {
    size_t count = 1000;
    uint64_t *numbers = NULL;
    size_t used = 0;
    while (count < (size_t)16 << 20) {
        count += count / 2;
        numbers = or_die(realloc(numbers, count * sizeof *numbers));
        for (; used < count; used += 64)
            numbers[used] = next_random(random);
    }
    uint64_t sum = 0;
    for (size_t at = 0; at < count; at += 64)
        sum += numbers[at];
    numbers = or_die(realloc(numbers, count / 10 * sizeof *numbers));
    sum += numbers[count / 20 / 64 * 64];
    free(numbers);
    return sum;
}

int main(int count, char **arguments) {
    unsigned long rounds = argument(count, arguments, 1, 6);
    uint64_t random = 1, sum = 0;
    for (unsigned long round = 0; round < rounds; round++)
        sum += exact(&random) + doubling(&random) + one_array(&random);
    return print_sum(sum);
}
