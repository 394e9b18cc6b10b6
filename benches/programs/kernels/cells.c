/* What a compiled functional language does: immutable cells with reference counts, freed the moment that the last reference
 * goes. A balanced tree as a map, lists that are mapped, filtered and sorted, and symbolic derivatives that are simplified.
 *
 * cells ROUNDS */
#include "../common.h"

enum kind { LEAF, RED, BLACK, CONS, NUMBER, VARIABLE, SUM, PRODUCT };

/* `left` and `right` are owned; `value` is the key, head or number. */
struct cell {
    uint32_t references;
    uint32_t kind;
    int64_t value;
    struct cell *left, *right;
};

static struct cell *make(enum kind kind, int64_t value, struct cell *left, struct cell *right) {
    struct cell *cell = or_die(malloc(sizeof *cell));
    *cell = (struct cell){1, kind, value, left, right};
    return cell;
}

static struct cell *share(struct cell *cell) {
    if (cell != NULL)
        cell->references++;
    return cell;
}

static void release(struct cell *cell) {
    while (cell != NULL && --cell->references == 0) {
        struct cell *right = cell->right;
        release(cell->left);
        free(cell);
        cell = right;
    }
}

static int is_red(const struct cell *cell) {
    return cell != NULL && cell->kind == RED;
}

/* A black node from three keys and four subtrees, all of them owned: a red node with two black children. */
static struct cell *split(struct cell *a, int64_t x, struct cell *b, int64_t y, struct cell *c, int64_t z, struct cell *d) {
    return make(RED, y, make(BLACK, x, a, b), make(BLACK, z, c, d));
}

/* A node of that colour, without two reds in a row below it. Takes `left` and `right` over. */
static struct cell *balanced(enum kind kind, struct cell *left, int64_t key, struct cell *right) {
    struct cell *result = NULL;
    if (kind == BLACK && is_red(left) && is_red(left->left)) {
        struct cell *inner = left->left;
        result = split(share(inner->left), inner->value, share(inner->right), left->value, share(left->right), key, share(right));
    } else if (kind == BLACK && is_red(left) && is_red(left->right)) {
        struct cell *inner = left->right;
        result = split(share(left->left), left->value, share(inner->left), inner->value, share(inner->right), key, share(right));
    } else if (kind == BLACK && is_red(right) && is_red(right->left)) {
        struct cell *inner = right->left;
        result = split(share(left), key, share(inner->left), inner->value, share(inner->right), right->value, share(right->right));
    } else if (kind == BLACK && is_red(right) && is_red(right->right)) {
        struct cell *inner = right->right;
        result = split(share(left), key, share(right->left), right->value, share(inner->left), inner->value, share(inner->right));
    } else {
        return make(kind, key, left, right);
    }
    release(left);
    release(right);
    return result;
}

static struct cell *inserted(const struct cell *tree, int64_t key) {
    if (tree == NULL)
        return make(RED, key, NULL, NULL);
    if (key < tree->value)
        return balanced(tree->kind, inserted(tree->left, key), tree->value, share(tree->right));
    if (key > tree->value)
        return balanced(tree->kind, share(tree->left), tree->value, inserted(tree->right, key));
    return make(tree->kind, key, share(tree->left), share(tree->right));
}

static struct cell *insert(struct cell *tree, int64_t key) {
    struct cell *next = inserted(tree, key);
    struct cell *root = make(BLACK, next->value, share(next->left), share(next->right));
    release(next);
    release(tree);
    return root;
}

static uint64_t sum_of_keys(const struct cell *tree, uint64_t sum) {
    for (; tree != NULL; tree = tree->right)
        sum = sum_of_keys(tree->left, sum) * 31 + (uint64_t)tree->value;
    return sum;
}

/* Merges two sorted lists that it takes over. */
static struct cell *merged(struct cell *left, struct cell *right) {
    struct cell *first = NULL, **end = &first;
    const struct cell *one = left, *other = right;
    while (one != NULL || other != NULL) {
        const struct cell **less = other == NULL || (one != NULL && one->value <= other->value) ? &one : &other;
        *end = make(CONS, (*less)->value, NULL, NULL);
        end = &(*end)->right;
        *less = (*less)->right;
    }
    release(left);
    release(right);
    return first;
}

/* A sorted list of the first `count` elements. */
static struct cell *sorted(const struct cell *list, size_t count) {
    if (count == 1)
        return make(CONS, list->value, NULL, NULL);
    const struct cell *middle = list;
    for (size_t step = 0; step < count / 2; step++)
        middle = middle->right;
    return merged(sorted(list, count / 2), sorted(middle, count - count / 2));
}

static uint64_t lists(uint64_t *random) {
    struct cell *list = NULL;
    for (unsigned made = 0; made < 30000; made++)
        list = make(CONS, (int64_t)random_below(random, 1000000), NULL, list);
    struct cell *kept = NULL;
    size_t count = 0;
    for (const struct cell *at = list; at != NULL; at = at->right) {
        if (at->value % 3 != 0) {
            kept = make(CONS, at->value * 2 + 1, NULL, kept);
            count++;
        }
    }
    struct cell *result = sorted(kept, count);
    uint64_t sum = 0;
    for (const struct cell *at = result; at != NULL; at = at->right)
        sum = sum * 31 + (uint64_t)at->value;
    release(list);
    release(kept);
    release(result);
    return sum;
}

/* Sums and products that are simplified as they are made. Take their operands over. */
static struct cell *sum_of(struct cell *left, struct cell *right) {
    if (left->kind == NUMBER && right->kind == NUMBER) {
        struct cell *number = make(NUMBER, left->value + right->value, NULL, NULL);
        release(left);
        release(right);
        return number;
    }
    if (left->kind == NUMBER && left->value == 0) {
        release(left);
        return right;
    }
    return make(SUM, 0, left, right);
}

static struct cell *product_of(struct cell *left, struct cell *right) {
    if (left->kind == NUMBER && left->value == 0) {
        release(right);
        return left;
    }
    if (left->kind == NUMBER && left->value == 1) {
        release(left);
        return right;
    }
    return make(PRODUCT, 0, left, right);
}

static struct cell *derivative(const struct cell *term) {
    switch (term->kind) {
    case VARIABLE:
        return make(NUMBER, 1, NULL, NULL);
    case SUM:
        return sum_of(derivative(term->left), derivative(term->right));
    case PRODUCT: {
        struct cell *one = product_of(derivative(term->left), share(term->right));
        return sum_of(one, product_of(derivative(term->right), share(term->left)));
    }
    default:
        return make(NUMBER, 0, NULL, NULL);
    }
}

/* The term without any sharing, as if each part had been computed anew. */
static struct cell *deep_copy(const struct cell *term) {
    if (term == NULL)
        return NULL;
    return make(term->kind, term->value, deep_copy(term->left), deep_copy(term->right));
}

static uint64_t size_of(const struct cell *term) {
    return term == NULL ? 0 : 1 + size_of(term->left) + size_of(term->right);
}

static uint64_t derivatives(void) {
    struct cell *term = make(VARIABLE, 0, NULL, NULL);
    for (int64_t power = 1; power <= 6; power++)
        term = sum_of(make(NUMBER, power, NULL, NULL), product_of(make(VARIABLE, 0, NULL, NULL), term));
    uint64_t sum = 0;
    for (unsigned order = 0; order < 5; order++) {
        struct cell *next = derivative(term);
        release(term);
        term = deep_copy(next);
        release(next);
        sum = sum * 31 + size_of(term);
    }
    release(term);
    return sum;
}

int main(int count, char **arguments) {
    unsigned long rounds = argument(count, arguments, 1, 10);
    uint64_t random = 1, sum = 0;
    for (unsigned long round = 0; round < rounds; round++) {
        struct cell *tree = NULL, *older = NULL;
        for (unsigned made = 0; made < 50000; made++) {
            tree = insert(tree, (int64_t)random_below(&random, 1000000));
            /* An old version is kept for a while, so that parts of the tree are shared. */
            if (made % 5000 == 0) {
                release(older);
                older = share(tree);
            }
        }
        sum += sum_of_keys(tree, 0);
        release(older);
        release(tree);
        sum += lists(&random) + derivatives();
    }
    return print_sum(sum);
}
