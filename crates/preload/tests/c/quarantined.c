/* What the library reports as held while many large blocks wait in quarantine: address space without memory. */
#include "check.h"

#include <malloc.h>

#define BLOCK_BYTES (4u << 20)

static size_t reported(const char *text) {
    static char xml[4096];
    FILE *file = fmemopen(xml, sizeof xml, "w");
    CHECK(file != NULL && malloc_info(0, file) == 0);
    fclose(file);
    const char *found = strstr(xml, text);
    CHECK(found != NULL);
    return found == NULL ? 0 : strtoul(found + strlen(text), NULL, 10);
}

int main(void) {
    check_library();
    for (int index = 0; index < 30; index++) {
        char *block = malloc(hidden_size(BLOCK_BYTES));
        CHECK(block != NULL);
        memset(block, 1, BLOCK_BYTES);
        free(block);
    }
    CHECK(mallinfo2().arena < 2 * BLOCK_BYTES);
    CHECK(reported("<system type=\"current\" size=\"") < 2 * BLOCK_BYTES);
    return finish("quarantined");
}
