/* Factors products of two primes by Pollard's rho, with whole numbers of any length whose every intermediate value is a block
 * of its own: a great many tiny blocks that live for a few dozen instructions.
 *
 * factor STEPS */
#include "../common.h"

/* Digits in base 2^32, the least first; the highest is not 0. */
struct number {
    uint32_t count;
    uint32_t digits[];
};

static struct number *with_room(uint32_t count) {
    struct number *number = or_die(malloc(sizeof *number + count * sizeof(uint32_t)));
    number->count = count;
    return number;
}

static struct number *trimmed(struct number *number) {
    while (number->count > 0 && number->digits[number->count - 1] == 0)
        number->count--;
    return number;
}

static struct number *from_u64(uint64_t value) {
    struct number *number = with_room(2);
    number->digits[0] = (uint32_t)value;
    number->digits[1] = (uint32_t)(value >> 32);
    return trimmed(number);
}

static struct number *copy(const struct number *number) {
    struct number *other = with_room(number->count);
    memcpy(other->digits, number->digits, number->count * sizeof(uint32_t));
    return other;
}

static int compare(const struct number *left, const struct number *right) {
    if (left->count != right->count)
        return left->count < right->count ? -1 : 1;
    for (uint32_t at = left->count; at-- > 0;)
        if (left->digits[at] != right->digits[at])
            return left->digits[at] < right->digits[at] ? -1 : 1;
    return 0;
}

static struct number *add_small(const struct number *number, uint32_t small) {
    struct number *sum = with_room(number->count + 1);
    uint64_t carry = small;
    for (uint32_t at = 0; at < number->count; at++) {
        carry += number->digits[at];
        sum->digits[at] = (uint32_t)carry;
        carry >>= 32;
    }
    sum->digits[number->count] = (uint32_t)carry;
    return trimmed(sum);
}

/* The larger minus the smaller. */
static struct number *distance(const struct number *left, const struct number *right) {
    if (compare(left, right) < 0) {
        const struct number *swapped = left;
        left = right;
        right = swapped;
    }
    struct number *difference = with_room(left->count);
    int64_t borrow = 0;
    for (uint32_t at = 0; at < left->count; at++) {
        borrow += (int64_t)left->digits[at] - (at < right->count ? right->digits[at] : 0);
        difference->digits[at] = (uint32_t)borrow;
        borrow >>= 32;
    }
    return trimmed(difference);
}

static struct number *product(const struct number *left, const struct number *right) {
    struct number *result = with_room(left->count + right->count);
    memset(result->digits, 0, result->count * sizeof(uint32_t));
    for (uint32_t i = 0; i < left->count; i++) {
        uint64_t carry = 0;
        for (uint32_t j = 0; j < right->count; j++) {
            carry += (uint64_t)left->digits[i] * right->digits[j] + result->digits[i + j];
            result->digits[i + j] = (uint32_t)carry;
            carry >>= 32;
        }
        result->digits[i + right->count] = (uint32_t)carry;
    }
    return trimmed(result);
}

/* `count` digits shifted left by `shift` < 32 bits, into one digit more. */
static void shift_left(uint32_t *to, const uint32_t *from, uint32_t count, unsigned shift) {
    uint64_t carry = 0;
    for (uint32_t at = 0; at < count; at++) {
        carry |= (uint64_t)from[at] << shift;
        to[at] = (uint32_t)carry;
        carry >>= 32;
    }
    to[count] = (uint32_t)carry;
}

/* The remainder by long division: each digit of the quotient is guessed from the leading two and corrected. */
static struct number *remainder_of(const struct number *left, const struct number *right) {
    if (compare(left, right) < 0)
        return copy(left);
    uint32_t n = right->count;
    unsigned shift = (unsigned)__builtin_clz(right->digits[n - 1]);
    struct number *rest = with_room(left->count + 1), *divisor = with_room(n + 1);
    shift_left(rest->digits, left->digits, left->count, shift);
    shift_left(divisor->digits, right->digits, n, shift);
    uint64_t lead = divisor->digits[n - 1];
    for (uint32_t at = left->count - n + 1; at-- > 0;) {
        uint64_t top = (uint64_t)rest->digits[at + n] << 32 | rest->digits[at + n - 1];
        uint64_t guess = top / lead;
        if (guess > UINT32_MAX)
            guess = UINT32_MAX;
        int64_t borrow = 0;
        uint64_t carry = 0;
        for (uint32_t i = 0; i < n; i++) {
            carry += guess * divisor->digits[i];
            borrow += (int64_t)rest->digits[at + i] - (uint32_t)carry;
            rest->digits[at + i] = (uint32_t)borrow;
            borrow >>= 32;
            carry >>= 32;
        }
        borrow += (int64_t)rest->digits[at + n] - (int64_t)carry;
        rest->digits[at + n] = (uint32_t)borrow;
        /* The guess is at most two too large. */
        while ((int32_t)rest->digits[at + n] < 0) {
            uint64_t back = 0;
            for (uint32_t i = 0; i < n; i++) {
                back += (uint64_t)rest->digits[at + i] + divisor->digits[i];
                rest->digits[at + i] = (uint32_t)back;
                back >>= 32;
            }
            rest->digits[at + n] += (uint32_t)back;
        }
    }
    struct number *result = with_room(n);
    for (uint32_t at = 0; at < n; at++) {
        uint64_t two = (uint64_t)rest->digits[at + 1] << 32 | rest->digits[at];
        result->digits[at] = (uint32_t)(two >> shift);
    }
    free(rest);
    free(divisor);
    return trimmed(result);
}

static void become(struct number **place, struct number *value) {
    free(*place);
    *place = value;
}

static struct number *common_divisor(const struct number *left, const struct number *right) {
    struct number *one = copy(left), *other = copy(right);
    while (other->count > 0) {
        struct number *rest = remainder_of(one, other);
        become(&one, other);
        other = rest;
    }
    free(other);
    return one;
}

/* One step of the sequence: x becomes x*x + 1 modulo `modulus`. */
static void step(struct number **x, const struct number *modulus) {
    struct number *square = product(*x, *x);
    become(&square, add_small(square, 1));
    become(x, remainder_of(square, modulus));
    free(square);
}

/* A factor of `modulus`, or null after so many steps. */
static struct number *rho(const struct number *modulus, unsigned long steps) {
    struct number *slow = from_u64(2), *fast = from_u64(2), *all = from_u64(1), *found = NULL;
    for (unsigned long done = 1; done <= steps && found == NULL; done++) {
        step(&slow, modulus);
        step(&fast, modulus);
        step(&fast, modulus);
        struct number *gap = distance(slow, fast);
        struct number *more = product(all, gap);
        become(&all, remainder_of(more, modulus));
        free(more);
        free(gap);
        if (done % 128 == 0) {
            struct number *divisor = common_divisor(all, modulus);
            if (divisor->count > 1 || divisor->digits[0] != 1)
                found = divisor;
            else
                free(divisor);
        }
    }
    free(slow);
    free(fast);
    free(all);
    return found;
}

int main(int count, char **arguments) {
    static const uint64_t primes[][2] = {{1000000000039u, 2305843009213693951u},
                                         {999999999989u, 1000000000061u},
                                         {100000000003u, 2305843009213693951u}};
    unsigned long steps = argument(count, arguments, 1, 3000000);
    uint64_t sum = 0;
    for (unsigned which = 0; which < sizeof primes / sizeof *primes; which++) {
        struct number *one = from_u64(primes[which][0]), *other = from_u64(primes[which][1]);
        struct number *modulus = product(one, other);
        struct number *factor = rho(modulus, steps);
        if (factor != NULL) {
            struct number *rest = remainder_of(modulus, factor);
            if (rest->count != 0)
                return 1;
            sum = sum * 31 + factor->digits[0];
            free(rest);
            free(factor);
        }
        free(one);
        free(other);
        free(modulus);
    }
    return print_sum(sum);
}
