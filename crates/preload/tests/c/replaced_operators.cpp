// A program that replaces the plain `new` and `delete` and leaves the others to the library, which must call these two, as the standard
// says: each block has a header, and what came or went another way would show.
#include "check.h"

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

// That the sized form is not replaced, too, is the point.
#pragma GCC diagnostic ignored "-Wsized-deallocation"

static const std::uint64_t MARK = 0x68616b6d656d2121;
static int live;

void *operator new(std::size_t bytes) {
    auto *block = static_cast<std::uint64_t *>(std::malloc(bytes + 16));
    if (block == nullptr) throw std::bad_alloc();
    *block = MARK;
    live++;
    return block + 2;
}

void operator delete(void *pointer) noexcept {
    if (pointer == nullptr) return;
    std::uint64_t *block = static_cast<std::uint64_t *>(pointer) - 2;
    CHECK(*block == MARK);
    *block = 0;
    live--;
    std::free(block);
}

struct Wide {
    char bytes[100];
};

int main() {
    check_library();
    int before = live;
    std::size_t sizes[] = {1, 8, 100, 5000, 100000, 3000000};
    for (std::size_t bytes : sizes) {
        bytes = hidden_size(bytes);
        void *one = ::operator new(bytes);
        void *two = ::operator new[](bytes);
        void *three = ::operator new(bytes, std::nothrow);
        void *four = ::operator new[](bytes, std::nothrow);
        CHECK(one && two && three && four && live == before + 4);
        ::operator delete(one, bytes);
        ::operator delete[](two, bytes);
        ::operator delete(three, std::nothrow);
        ::operator delete[](four);
        CHECK(live == before);
    }
    CHECK(::operator new(hidden_size(SIZE_MAX / 2), std::nothrow) == nullptr);
    Wide *wides = new Wide[7];
    delete[] wides;
    delete static_cast<Wide *>(hidden(new Wide()));
    std::vector<std::unique_ptr<Wide>> all;
    for (int i = 0; i < 1000; i++) all.push_back(std::make_unique<Wide>());
    CHECK(live > before + 1000);
    std::vector<std::unique_ptr<Wide>>().swap(all);
    CHECK(live == before);
    // Those with an alignment are not replaced, and are each other's.
    void *aligned = ::operator new(100, std::align_val_t{256});
    ::operator delete(aligned, 100, std::align_val_t{256});
    CHECK(live == before);
    return finish("replaced_operators");
}
