// Something to look at: a list, threads, a recursion.
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

struct node { int value; struct node *next; };

static struct node *push(struct node *head, int value) {
    struct node *node = malloc(sizeof *node);
    node->value = value;
    node->next = head;
    return node;
}

static int depth(int n) { return n == 0 ? 0 : 1 + depth(n - 1); }

static void *work(void *head) {
    long sum = 0;
    for (struct node *node = head; node; node = node->next) sum += node->value;
    return (void *)sum;
}

int main(void) {
    struct node *head = NULL;
    for (int value = 1; value <= 100; value++) head = push(head, value);
    pthread_t thread;
    void *sum;
    pthread_create(&thread, NULL, work, head);
    pthread_join(thread, &sum);
    printf("%ld %d\n", (long)sum, depth(50));
    while (head) {
        struct node *next = head->next;
        free(head);
        head = next;
    }
    return 3;
}
