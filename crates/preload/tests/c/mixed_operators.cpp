// Blocks that a library with operators of its own makes, which this program deletes, and the other way round.
#include "check.h"

#include <cstring>
#include <new>

struct Wide {
    char bytes[100];
};

Wide *make();
char *make_large();
char *make_empty();
void drop(Wide *wide);

int main(int, char **arguments) {
    check_library();
    Wide *wide = make();
    Wide *again = static_cast<Wide *>(hidden(wide));
    delete wide;
    if (std::strcmp(arguments[1], "twice") == 0) delete again;
    operator delete(make_large());
    operator delete(make_empty(), std::size_t(0));
    drop(new Wide());
    return finish("mixed_operators");
}
