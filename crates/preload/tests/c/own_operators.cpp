// A library with a C++ runtime of its own inside, reduced to what matters: it exports operators that call malloc, and its own calls
// stay inside.
#include <cstdlib>
#include <new>

void *operator new(std::size_t bytes) { return std::malloc(bytes != 0 ? bytes : 1); }
void operator delete(void *block) noexcept { std::free(block); }
void operator delete(void *block, std::size_t) noexcept { std::free(block); }

struct Wide {
    char bytes[100];
};

Wide *make() { return new Wide(); }
char *make_large() { return static_cast<char *>(operator new(100000)); }
char *make_empty() { return static_cast<char *>(operator new(0)); }
void drop(Wide *wide) { delete wide; }
