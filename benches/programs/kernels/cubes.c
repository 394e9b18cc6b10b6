/* Makes sums of products smaller: prime implicants by merging cubes that differ in one variable, then a small cover of the
 * function by them. Cubes, rows and columns are bit vectors of their own, made and dropped by the ten thousand.
 *
 * cubes VARIABLES FUNCTIONS */
#include "../common.h"

/* `known` are the variables that the cube fixes, `value` what to. */
struct cube {
    uint32_t known, value;
    int merged;
    struct cube *next_in_table;
};

struct list {
    struct cube **cubes;
    size_t count, room;
};

struct bits {
    size_t words;
    uint64_t word[];
};

static unsigned variables;

static void append(struct list *list, struct cube *cube) {
    if (list->count == list->room) {
        list->room = list->room == 0 ? 8 : list->room * 2;
        list->cubes = or_die(realloc(list->cubes, list->room * sizeof *list->cubes));
    }
    list->cubes[list->count++] = cube;
}

static void drop(struct list *list) {
    for (size_t index = 0; index < list->count; index++)
        free(list->cubes[index]);
    free(list->cubes);
    *list = (struct list){0};
}

struct table {
    struct cube **heads;
    size_t mask;
};

static struct cube **chain(const struct table *table, uint32_t known, uint32_t value) {
    uint64_t mixed = ((uint64_t)known << 32 | value) * 0x9e3779b97f4a7c15u;
    return &table->heads[(mixed >> 32) & table->mask];
}

static struct cube *find(const struct table *table, uint32_t known, uint32_t value) {
    struct cube *cube = *chain(table, known, value);
    while (cube != NULL && (cube->known != known || cube->value != value))
        cube = cube->next_in_table;
    return cube;
}

/* Adds the cube to list and table unless it is there. */
static void add(struct list *list, const struct table *table, uint32_t known, uint32_t value) {
    if (find(table, known, value) != NULL)
        return;
    struct cube **head = chain(table, known, value);
    struct cube *cube = or_die(malloc(sizeof *cube));
    *cube = (struct cube){known, value, 0, *head};
    *head = cube;
    append(list, cube);
}

static struct table new_table(size_t entries) {
    size_t size = 16;
    while (size < entries * 2)
        size *= 2;
    return (struct table){or_die(calloc(size, sizeof(struct cube *))), size - 1};
}

/* The cubes that no larger one contains. */
static struct list prime_implicants(struct list *minterms, struct table table) {
    struct list primes = {0}, level = *minterms;
    while (level.count > 0) {
        struct list above = {0};
        struct table table_above = new_table(level.count * 2);
        for (size_t index = 0; index < level.count; index++) {
            struct cube *cube = level.cubes[index];
            for (uint32_t rest = cube->known; rest != 0; rest &= rest - 1) {
                uint32_t bit = rest & -rest;
                struct cube *twin = find(&table, cube->known, cube->value ^ bit);
                if (twin == NULL)
                    continue;
                cube->merged = 1;
                if ((cube->value & bit) == 0)
                    add(&above, &table_above, cube->known & ~bit, cube->value);
            }
        }
        for (size_t index = 0; index < level.count; index++) {
            struct cube *cube = level.cubes[index];
            if (cube->merged)
                free(cube);
            else
                append(&primes, cube);
        }
        free(level.cubes);
        free(table.heads);
        level = above;
        table = table_above;
    }
    free(level.cubes);
    free(table.heads);
    *minterms = (struct list){0};
    return primes;
}

static struct bits *new_bits(size_t count) {
    size_t words = (count + 63) / 64;
    struct bits *bits = or_die(calloc(1, sizeof *bits + words * sizeof(uint64_t)));
    bits->words = words;
    return bits;
}

static unsigned common(const struct bits *left, const struct bits *right) {
    unsigned count = 0;
    for (size_t at = 0; at < left->words; at++)
        count += (unsigned)__builtin_popcountll(left->word[at] & right->word[at]);
    return count;
}

/* Takes the implicant that covers most of what is left, until nothing is; returns a sum over those taken. */
static uint64_t cover(const struct list *primes, const uint32_t *on, size_t on_count) {
    struct bits **rows = or_die(malloc(primes->count * sizeof *rows));
    struct bits *left = new_bits(on_count);
    for (size_t column = 0; column < on_count; column++)
        left->word[column / 64] |= 1ull << column % 64;
    for (size_t row = 0; row < primes->count; row++) {
        const struct cube *cube = primes->cubes[row];
        rows[row] = new_bits(on_count);
        for (size_t column = 0; column < on_count; column++)
            if ((on[column] & cube->known) == cube->value)
                rows[row]->word[column / 64] |= 1ull << column % 64;
    }
    uint64_t sum = 0;
    for (;;) {
        size_t best = 0;
        unsigned most = 0;
        for (size_t row = 0; row < primes->count; row++) {
            unsigned covered = rows[row] == NULL ? 0 : common(rows[row], left);
            if (covered == 0 && rows[row] != NULL) {
                free(rows[row]);
                rows[row] = NULL;
            }
            if (covered > most) {
                most = covered;
                best = row;
            }
        }
        if (most == 0)
            break;
        /* A new set without what this one covers. */
        struct bits *rest = new_bits(on_count);
        for (size_t at = 0; at < rest->words; at++)
            rest->word[at] = left->word[at] & ~rows[best]->word[at];
        free(left);
        left = rest;
        sum = sum * 31 + primes->cubes[best]->known * 7 + primes->cubes[best]->value;
    }
    for (size_t row = 0; row < primes->count; row++)
        free(rows[row]);
    free(rows);
    free(left);
    return sum;
}

int main(int count, char **arguments) {
    variables = (unsigned)argument(count, arguments, 1, 12);
    unsigned long functions = argument(count, arguments, 2, 150);
    uint32_t all = (1u << variables) - 1;
    uint32_t *on = or_die(malloc(((size_t)all + 1) * sizeof *on));
    uint64_t random = 1, sum = 0;
    for (unsigned long function = 0; function < functions; function++) {
        struct list minterms = {0};
        struct table table = new_table((size_t)all + 1);
        size_t on_count = 0;
        /* Random cubes, so that there is something to merge, and as many random points. */
        for (unsigned made = 0; made < variables * 5; made++) {
            uint32_t known = (uint32_t)next_random(&random) | (uint32_t)next_random(&random);
            uint32_t value = (uint32_t)next_random(&random) & known;
            for (uint32_t point = 0; point <= all; point++)
                if ((point & known) == (value & all))
                    add(&minterms, &table, all, point);
        }
        for (uint32_t made = 0; made < all / 8; made++)
            add(&minterms, &table, all, (uint32_t)next_random(&random) & all);
        for (size_t index = 0; index < minterms.count; index++)
            on[on_count++] = minterms.cubes[index]->value;
        struct list primes = prime_implicants(&minterms, table);
        sum = sum * 31 + primes.count + cover(&primes, on, on_count);
        drop(&primes);
    }
    free(on);
    return print_sum(sum);
}
