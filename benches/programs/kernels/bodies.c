/* Bodies that attract each other, far groups of them as one: an octree of separately allocated nodes is built, used and torn
 * down in each step. Most of the time is computing; what an allocator adds is where it puts the nodes.
 *
 * bodies BODIES STEPS */
#include <math.h>

#include "../common.h"

struct point {
    double x, y, z;
};

struct body {
    struct point at, speed;
};

/* A cube of space: empty octants are null; a leaf holds one body. */
struct node {
    struct point middle, centre;
    double half, mass;
    const struct body *body;
    struct node *octants[8];
};

static struct node *new_node(struct point middle, double half) {
    struct node *node = or_die(calloc(1, sizeof *node));
    node->middle = middle;
    node->half = half;
    return node;
}

static unsigned octant_of(const struct node *node, struct point at) {
    return (at.x > node->middle.x ? 1u : 0u) | (at.y > node->middle.y ? 2u : 0u) | (at.z > node->middle.z ? 4u : 0u);
}

static void insert(struct node *node, const struct body *body);

static void insert_below(struct node *node, const struct body *body) {
    unsigned octant = octant_of(node, body->at);
    if (node->octants[octant] == NULL) {
        double half = node->half / 2;
        struct point middle = {node->middle.x + (octant & 1 ? half : -half), node->middle.y + (octant & 2 ? half : -half),
                               node->middle.z + (octant & 4 ? half : -half)};
        node->octants[octant] = new_node(middle, half);
    }
    insert(node->octants[octant], body);
}

static void insert(struct node *node, const struct body *body) {
    if (node->mass == 0) {
        node->body = body;
    } else {
        if (node->body != NULL && node->half > 1e-9) {
            const struct body *first = node->body;
            node->body = NULL;
            insert_below(node, first);
        }
        if (node->body == NULL)
            insert_below(node, body);
    }
    double mass = node->mass + 1;
    node->centre.x += (body->at.x - node->centre.x) / mass;
    node->centre.y += (body->at.y - node->centre.y) / mass;
    node->centre.z += (body->at.z - node->centre.z) / mass;
    node->mass = mass;
}

static void free_tree(struct node *node) {
    if (node == NULL)
        return;
    for (unsigned octant = 0; octant < 8; octant++)
        free_tree(node->octants[octant]);
    free(node);
}

static void pull(struct body *body, const struct node *node, double time) {
    double x = node->centre.x - body->at.x, y = node->centre.y - body->at.y, z = node->centre.z - body->at.z;
    double square = x * x + y * y + z * z + 1e-4;
    if (node->body != NULL || node->half * node->half < 0.16 * square) {
        double pulled = time * node->mass / (square * sqrt(square));
        body->speed.x += x * pulled;
        body->speed.y += y * pulled;
        body->speed.z += z * pulled;
        return;
    }
    for (unsigned octant = 0; octant < 8; octant++)
        if (node->octants[octant] != NULL)
            pull(body, node->octants[octant], time);
}

static double uniform(uint64_t *random) {
    return (double)(next_random(random) >> 11) / (double)(1ull << 53) * 2 - 1;
}

int main(int count, char **arguments) {
    unsigned long number = argument(count, arguments, 1, 20000);
    unsigned long steps = argument(count, arguments, 2, 12);
    struct body *bodies = or_die(calloc(number, sizeof *bodies));
    uint64_t random = 1;
    for (unsigned long index = 0; index < number; index++)
        bodies[index].at = (struct point){uniform(&random), uniform(&random), uniform(&random)};
    for (unsigned long done = 0; done < steps; done++) {
        struct node *root = new_node((struct point){0, 0, 0}, 4);
        for (unsigned long index = 0; index < number; index++)
            insert(root, &bodies[index]);
        for (unsigned long index = 0; index < number; index++)
            pull(&bodies[index], root, 1e-3 / (double)number);
        free_tree(root);
        for (unsigned long index = 0; index < number; index++) {
            struct body *body = &bodies[index];
            body->at.x += body->speed.x;
            body->at.y += body->speed.y;
            body->at.z += body->speed.z;
        }
    }
    double sum = 0;
    for (unsigned long index = 0; index < number; index++)
        sum += bodies[index].at.x * bodies[index].at.y - bodies[index].at.z;
    free(bodies);
    return printf("%.9f\n", sum) > 0 ? 0 : 1;
}
