// The C++ operators, in all their forms, and blocks that cross between them and the C family's rules.
#include "check.h"

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <new>
#include <string>
#include <thread>
#include <vector>

static bool aligned(void *pointer, std::size_t alignment) {
    return (reinterpret_cast<std::uintptr_t>(pointer) & (alignment - 1)) == 0;
}

struct alignas(256) Wide {
    char bytes[300];
};

static int handler_calls;

static void handler() {
    handler_calls++;
    std::set_new_handler(nullptr);
}

static void plain() {
    for (std::size_t bytes : {0, 1, 8, 24, 100, 1000, 5000, 100000, 3000000}) {
        bytes = hidden_size(bytes);
        void *one = ::operator new(bytes);
        void *two = ::operator new[](bytes);
        void *three = ::operator new(bytes, std::nothrow);
        void *four = ::operator new[](bytes, std::nothrow);
        CHECK(one && two && three && four && one != two && two != three && three != four);
        for (void *block : {one, two, three, four}) {
            CHECK(aligned(block, 16));
            std::memset(block, 1, bytes);
        }
        ::operator delete(one);
        ::operator delete[](two, bytes);
        ::operator delete(three, bytes);
        ::operator delete[](four, std::nothrow);
    }
    ::operator delete(hidden(nullptr));
    ::operator delete[](hidden(nullptr));
}

static void over_aligned() {
    for (std::size_t alignment : {16, 64, 4096}) {
        std::align_val_t value{alignment};
        ::operator delete(::operator new(hidden_size(0), value), std::size_t(0), value);
        ::operator delete[](::operator new[](hidden_size(0), value), std::size_t(0), value);
    }
    for (std::size_t alignment = 16; alignment <= (std::size_t{1} << 22); alignment *= 2) {
        for (std::size_t bytes : {std::size_t{1}, std::size_t{100}, alignment, alignment + 1}) {
            std::align_val_t value{alignment};
            void *one = ::operator new(bytes, value);
            void *two = ::operator new[](bytes, value);
            void *three = ::operator new(bytes, value, std::nothrow);
            void *four = ::operator new[](bytes, value, std::nothrow);
            for (void *block : {one, two, three, four}) {
                CHECK(block && aligned(block, alignment));
                static_cast<char *>(block)[bytes - 1] = 1;
            }
            ::operator delete(one, value);
            ::operator delete[](two, bytes, value);
            ::operator delete(three, bytes, value);
            ::operator delete[](four, value, std::nothrow);
        }
    }
    Wide *wide = new Wide[3];
    CHECK(aligned(wide, 256));
    delete[] wide;
}

static void refusals() {
    std::size_t huge = hidden_size(PTRDIFF_MAX);
    bool thrown = false;
    try {
        hidden(::operator new(huge));
    } catch (const std::bad_alloc &) {
        thrown = true;
    }
    CHECK(thrown);
    CHECK(::operator new(huge, std::nothrow) == nullptr);
    CHECK(::operator new[](huge, std::nothrow) == nullptr);
    CHECK(::operator new(huge, std::align_val_t{64}, std::nothrow) == nullptr);
    // libstdc++ rounds these sizes up to zero before it allocates; without the library they are granted.
    if (std::getenv("EXPECT_LIBRARY")) {
        std::size_t wraps = hidden_size(SIZE_MAX - 100);
        CHECK(::operator new(wraps, std::align_val_t{128}, std::nothrow) == nullptr);
        CHECK(::operator new[](wraps, std::align_val_t{128}, std::nothrow) == nullptr);
        thrown = false;
        try {
            hidden(::operator new(wraps, std::align_val_t{128}));
        } catch (const std::bad_alloc &) {
            thrown = true;
        }
        CHECK(thrown);
    }
    std::set_new_handler(handler);
    thrown = false;
    try {
        hidden(::operator new(huge));
    } catch (const std::bad_alloc &) {
        thrown = true;
    }
    CHECK(thrown && handler_calls == 1);
}

static void containers() {
    std::map<std::string, std::vector<int>> map;
    for (int number = 0; number < 20000; number++) {
        map["key " + std::to_string(number % 3000)].push_back(number);
    }
    std::thread other([&map] {
        for (auto &entry : map) {
            std::vector<int>().swap(entry.second);
        }
    });
    other.join();
    CHECK(map.size() == 3000);
    map.clear();
}

/* With the argument `no-refusals` nothing is refused, for tools under which nothing can be thrown out of `operator new`. */
int main(int argument_count, char **arguments) {
    check_library();
    plain();
    over_aligned();
    if (argument_count < 2 || strcmp(arguments[1], "no-refusals") != 0) {
        refusals();
    }
    containers();
    return finish("new_delete");
}
