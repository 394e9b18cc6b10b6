// What a small process pays for the library. With an argument it first allocates that many bytes, in mixed sizes.
// Prints its anonymous memory, what is resident of the library EXPECT_LIBRARY, how much of that is read-only, and its largest mapping, in KiB.
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char text[1 << 20];

// Reads a file of /proc without the help of stdio, which allocates.
static void read_all(const char *path) {
    int file = open(path, O_RDONLY);
    size_t length = 0;
    ssize_t got;
    while ((got = read(file, text + length, sizeof text - 1 - length)) > 0) length += (size_t)got;
    text[length] = 0;
    close(file);
}

static void allocate(size_t wanted) {
    unsigned state = 12345;
    void *last = 0;
    for (size_t total = 0; total < wanted;) {
        state = state * 1103515245 + 12345;
        unsigned draw = (state >> 16) & 0x7fff;
        size_t bytes = 8 + (draw % 10 < 7 ? draw % 120 : draw % 1024);
        void *block = malloc(bytes);
        if (block == 0) exit(2);
        memset(block, 1, bytes);
        total += bytes;
        // Some are freed again, in another order than they came.
        if (draw % 4 == 0 && last != 0) {
            free(last);
            last = 0;
            total -= bytes;
        } else if (draw % 8 == 1) {
            last = block;
        }
    }
}

int main(int count, char **arguments) {
    if (count > 1) allocate((size_t)atol(arguments[1]));
    const char *library = getenv("EXPECT_LIBRARY");
    long anonymous = 0, resident = 0, constants = 0, largest = 0;
    int is_library = 0, is_constant = 0;
    read_all("/proc/self/smaps");
    for (char *line = text; *line != 0; line = strchr(line, '\n') + 1) {
        char *end = strchr(line, '\n');
        unsigned long from, to;
        char access[5];
        if (sscanf(line, "%lx-%lx %4s ", &from, &to, access) == 3) {
            if ((long)((to - from) >> 10) > largest) largest = (long)((to - from) >> 10);
            char *name = library == 0 ? 0 : strstr(line, library);
            is_library = name != 0 && name < end;
            is_constant = strcmp(access, "r--p") == 0;
        } else if (strncmp(line, "Anonymous:", 10) == 0) {
            anonymous += atol(line + 10);
        } else if (strncmp(line, "Rss:", 4) == 0 && is_library) {
            resident += atol(line + 4);
            if (is_constant) constants += atol(line + 4);
        }
    }
    char answer[128];
    int length = snprintf(answer, sizeof answer, "anonymous=%ld library=%ld constants=%ld largest=%ld\n", anonymous, resident, constants, largest);
    return write(1, answer, (size_t)length) == length ? 0 : 1;
}
