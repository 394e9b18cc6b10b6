// Blocks of every size to 8 MiB, allocated in every way, freed by whichever thread takes them, every byte checked.
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <malloc.h>
#include <new>
#include <thread>
#include <vector>

namespace {

struct Random {
    std::uint64_t state;
    std::uint64_t next() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        return state;
    }
    std::size_t below(std::size_t limit) { return next() % limit; }
};

// At the front of every block: what its bytes must be.
struct Header {
    std::size_t size;
    std::uint64_t seed;
};

constexpr std::size_t slot_count = 2000;
constexpr std::size_t big_slot_count = 16;
std::atomic<Header *> slots[slot_count];
std::atomic<Header *> big_slots[big_slot_count];
std::atomic<bool> stop{false};
std::atomic<unsigned long> block_count{0};

[[noreturn]] void fail(const char *what, const void *block, std::size_t size) {
    std::fprintf(stderr, "stress: %s: block %p of %zu bytes\n", what, block, size);
    std::abort();
}

std::size_t random_size(Random &random) {
    // Evenly over the doublings, so that each layer gets its share; 8 MiB is the top.
    const std::size_t top = std::size_t{1} << random.below(24);
    const std::size_t size = top + random.below(top);
    return size > (8u << 20) ? 8u << 20 : size;
}

void fill(Header *block) {
    auto *bytes = reinterpret_cast<unsigned char *>(block + 1);
    const std::size_t count = block->size - sizeof(Header);
    const std::uint64_t word = block->seed * 0x9e3779b97f4a7c15u + block->size;
    std::size_t at = 0;
    for (; at + 8 <= count; at += 8) std::memcpy(bytes + at, &word, 8);
    for (; at < count; ++at) bytes[at] = static_cast<unsigned char>(word >> (at % 8 * 8));
}

void check(const Header *block, std::size_t size) {
    const auto *bytes = reinterpret_cast<const unsigned char *>(block + 1);
    const std::size_t count = size - sizeof(Header);
    const std::uint64_t word = block->seed * 0x9e3779b97f4a7c15u + block->size;
    std::size_t at = 0;
    for (; at + 8 <= count; at += 8)
        if (std::memcmp(bytes + at, &word, 8) != 0) fail("a byte changed", block, block->size);
    for (; at < count; ++at)
        if (bytes[at] != static_cast<unsigned char>(word >> (at % 8 * 8))) fail("a byte changed", block, block->size);
}

Header *make(Random &random) {
    std::size_t size = random_size(random);
    if (size < sizeof(Header)) size = sizeof(Header);
    void *block = nullptr;
    std::size_t alignment = 16;
    switch (random.below(8)) {
    case 0: {
        block = std::calloc(1, size);
        for (std::size_t at = 0; at < size; ++at)
            if (static_cast<unsigned char *>(block)[at] != 0) fail("calloc gave a byte that is not zero", block, size);
        break;
    }
    case 1:
        alignment = std::size_t{16} << random.below(10);
        if (posix_memalign(&block, alignment, size) != 0) block = nullptr;
        break;
    case 2:
        alignment = std::size_t{16} << random.below(6);
        block = aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
        break;
    default: block = std::malloc(size); break;
    }
    if (block == nullptr) fail("out of memory", block, size);
    if (reinterpret_cast<std::uintptr_t>(block) % alignment != 0) fail("misaligned", block, size);
    if (malloc_usable_size(block) < size) fail("usable size is too small", block, size);
    auto *header = static_cast<Header *>(block);
    header->size = size;
    header->seed = random.next();
    fill(header);
    block_count.fetch_add(1, std::memory_order_relaxed);
    return header;
}

void end(Header *block, Random &random) {
    if (block == nullptr) return;
    const std::size_t size = block->size;
    check(block, size);
    if (random.below(4) == 0) {
        std::size_t changed = random.below(2) ? random_size(random) : size + random.below(size);
        if (changed < sizeof(Header)) changed = sizeof(Header);
        auto *moved = static_cast<Header *>(std::realloc(block, changed));
        if (moved == nullptr) fail("out of memory", block, changed);
        if (moved->size != size) fail("realloc lost the contents", moved, size);
        const std::size_t kept = changed < size ? changed : size;
        // The tail of a word that was cut is still the same bytes.
        const auto *bytes = reinterpret_cast<const unsigned char *>(moved + 1);
        const std::uint64_t word = moved->seed * 0x9e3779b97f4a7c15u + moved->size;
        for (std::size_t at = 0; at < kept - sizeof(Header); ++at)
            if (bytes[at] != static_cast<unsigned char>(word >> (at % 8 * 8))) fail("realloc changed a byte", moved, size);
        block = moved;
    }
    std::free(block);
}

void churn(std::uint64_t seed, unsigned steps) {
    Random random{seed * 2654435761u + 88172645463325252u};
    thread_local std::vector<char> of_this_thread(1000, 'x'); // freed by the destructor at thread exit
    for (unsigned step = 0; step < steps && !stop.load(std::memory_order_relaxed); ++step) {
        Header *made = make(random);
        auto &slot = made->size > (256u << 10) ? big_slots[random.below(big_slot_count)] : slots[random.below(slot_count)];
        end(slot.exchange(made, std::memory_order_acq_rel), random);
    }
    of_this_thread.resize(2000);
}

} // namespace

int main(int argument_count, char **arguments) {
    const double seconds = argument_count > 1 ? std::atof(arguments[1]) : 5;
    const auto finish = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
    // Two threads stay, three come and go.
    std::vector<std::thread> staying;
    for (unsigned thread = 1; thread <= 2; ++thread) staying.emplace_back(churn, thread, ~0u);
    for (std::uint64_t seed = 100; std::chrono::steady_clock::now() < finish; seed += 3) {
        std::vector<std::thread> passing;
        for (unsigned thread = 0; thread < 3; ++thread) passing.emplace_back(churn, seed + thread, 200u);
        for (auto &thread : passing) thread.join();
    }
    stop = true;
    for (auto &thread : staying) thread.join();
    Random random{1};
    for (auto &slot : slots) end(slot.exchange(nullptr), random);
    for (auto &slot : big_slots) end(slot.exchange(nullptr), random);
    std::fprintf(stderr, "stress: %lu blocks in %.0f s\n", block_count.load(), seconds);
    std::puts("every byte was as it was left");
    return block_count.load() > 1000 ? 0 : 1;
}
