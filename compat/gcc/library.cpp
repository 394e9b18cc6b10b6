// Uses much of the standard library, so that the compiler has work and the program allocates in many ways.
#include <algorithm>
#include <deque>
#include <forward_list>
#include <functional>
#include <future>
#include <iostream>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <numeric>
#include <optional>
#include <queue>
#include <random>
#include <regex>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <tuple>
#include <unordered_map>
#include <unordered_set>
#include <variant>
#include <vector>

namespace {

struct alignas(128) Wide {
    unsigned char bytes[128];
};

template <int Depth> struct Nested {
    std::map<std::string, Nested<Depth - 1>> children;
    std::variant<int, std::string, std::vector<double>> value;
    std::size_t size() const {
        return std::accumulate(children.begin(), children.end(), std::size_t{1},
                               [](std::size_t sum, const auto &child) { return sum + child.second.size(); });
    }
    static Nested make(std::mt19937 &numbers) {
        Nested made;
        switch (numbers() % 3) {
        case 0: made.value = static_cast<int>(numbers() % 1000); break;
        case 1: made.value = std::string(numbers() % 100, 'x'); break;
        default: made.value = std::vector<double>(numbers() % 50, 0.5); break;
        }
        for (unsigned i = 0; i < 3 + numbers() % 3; ++i)
            made.children.emplace("child " + std::to_string(numbers() % 100), Nested<Depth - 1>::make(numbers));
        return made;
    }
};
template <> struct Nested<0> {
    std::string text;
    std::size_t size() const { return 1; }
    static Nested make(std::mt19937 &numbers) { return {std::string(numbers() % 40, 'y')}; }
};

unsigned long containers(unsigned seed) {
    std::mt19937 numbers(seed);
    std::unordered_map<std::string, std::vector<int>> table;
    std::set<std::tuple<int, std::string>> ordered;
    std::list<std::string> list;
    std::deque<std::unique_ptr<Wide>> wide;
    std::priority_queue<std::pair<int, std::shared_ptr<std::string>>> queue;
    unsigned long sum = 0;
    for (int i = 0; i < 20000; ++i) {
        table["key " + std::to_string(numbers() % 3000)].push_back(i);
        ordered.emplace(static_cast<int>(numbers() % 1000), std::string(numbers() % 30, 'z'));
        list.push_front(std::string(numbers() % 300, 'l'));
        if (list.size() > 500) list.pop_back();
        wide.push_back(std::make_unique<Wide>());
        if (reinterpret_cast<std::uintptr_t>(wide.back().get()) % alignof(Wide) != 0) throw std::logic_error("alignment");
        if (wide.size() > 300) wide.pop_front();
        queue.emplace(static_cast<int>(numbers() % 100000), std::make_shared<std::string>("q"));
        if (queue.size() > 1000) { sum += queue.top().first; queue.pop(); }
    }
    for (const auto &entry : table) sum += entry.second.size() * entry.first.size();
    return sum + ordered.size() + list.size();
}

} // namespace

int main() {
    std::mt19937 numbers(7);
    std::cout << "tree " << Nested<6>::make(numbers).size() << "\n";

    std::vector<std::future<unsigned long>> futures;
    for (unsigned seed = 0; seed < 6; ++seed) futures.push_back(std::async(std::launch::async, containers, seed));
    for (auto &future : futures) std::cout << "containers " << future.get() << "\n";

    std::string text;
    for (int i = 0; i < 2000; ++i) text += "name" + std::to_string(i % 37) + "=" + std::to_string(i) + ";";
    const std::regex pattern("(name[0-9]*7)=([0-9]+);");
    long found = 0;
    for (std::sregex_iterator at(text.begin(), text.end(), pattern), end; at != end; ++at) found += std::stol((*at)[2]);
    std::cout << "regex " << found << "\n";

    int caught = 0;
    for (int i = 0; i < 1000; ++i) {
        try {
            throw std::runtime_error("text that is too long for the small string buffer " + std::to_string(i));
        } catch (const std::exception &error) {
            caught += std::string(error.what()).size() > 40;
        }
    }
    try {
        volatile std::size_t huge = static_cast<std::size_t>(-1) / 4;
        delete[] new char[huge];
        std::cout << "no bad_alloc\n";
    } catch (const std::bad_alloc &) {
        std::cout << "caught " << caught << " and bad_alloc\n";
    }

    std::mutex lock;
    std::vector<std::unique_ptr<std::string>> shared;
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t)
        threads.emplace_back([&, t] {
            for (int i = 0; i < 5000; ++i) {
                auto mine = std::make_unique<std::string>(i % 200, 'a' + t);
                std::lock_guard<std::mutex> guard(lock);
                shared.push_back(std::move(mine));
                if (shared.size() > 100) shared.erase(shared.begin() + i % 100);
            }
        });
    for (auto &thread : threads) thread.join();
    std::cout << "shared " << shared.size() << "\n";
}
