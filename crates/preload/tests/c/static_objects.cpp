// Objects that live before main, after it, and per thread, all of which allocate in their constructors and destructors.
#include "check.h"

#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

struct Hoard {
    std::vector<std::string> texts;
    std::map<int, std::unique_ptr<int[]>> numbers;

    explicit Hoard(int seed) {
        for (int index = 0; index < 200; index++) {
            texts.emplace_back(static_cast<size_t>(seed + index * 37 % 3000), 'a');
            numbers[index * 7 % 101] = std::make_unique<int[]>(static_cast<size_t>(index + 1));
        }
    }

    ~Hoard() {
        // A last use, and something new on the way out.
        std::string all;
        for (const std::string &text : texts) {
            CHECK(text.empty() || (text.front() == 'a' && text.back() == 'a'));
            all += text;
        }
        numbers[1000] = std::make_unique<int[]>(all.size() / 100 + 1);
        if (failures != 0) {
            _Exit(3);
        }
    }
};

static Hoard before_main(1);
static std::unique_ptr<Hoard> reset_late = std::make_unique<Hoard>(2);

static Hoard &on_first_use() {
    static Hoard hoard(3);
    return hoard;
}

static thread_local Hoard per_thread(4);

// Made in the destructor of another thread-local object, so that the end of a thread takes several rounds.
struct Late {
    ~Late() {
        static thread_local Hoard later(5);
        later.texts.push_back("aa");
    }
};

static thread_local Late late;

int main() {
    check_library();
    for (int round = 0; round < 30; round++) {
        std::vector<std::thread> threads;
        for (int index = 0; index < 4; index++) {
            threads.emplace_back([] {
                (void)&late;
                per_thread.texts.push_back("aaa");
                on_first_use();
            });
        }
        for (std::thread &thread : threads) {
            thread.join();
        }
    }
    per_thread.texts.push_back("a");
    (void)&late;
    std::atexit([] { reset_late.reset(new Hoard(6)); });
    return finish("static_objects");
}
