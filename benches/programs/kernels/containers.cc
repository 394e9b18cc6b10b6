/* The containers of C++'s library as programs use them, each part with its own mix of nodes, buffers and strings.
 *
 * containers ordered|hashed|strings|events|vectors */
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <queue>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

namespace {

/* A splitmix64 sequence. */
class Random {
public:
    uint64_t next() {
        uint64_t mixed = state_ += 0x9e3779b97f4a7c15u;
        mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9u;
        mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebu;
        return mixed ^ (mixed >> 31);
    }
    uint64_t below(uint64_t bound) { return ((next() >> 32) * bound) >> 32; }

private:
    uint64_t state_ = 1;
};

std::string word(uint64_t number) {
    std::string text;
    do {
        text += static_cast<char>('a' + number % 26);
        number /= 26;
    } while (number > 0);
    return text;
}

/* Trees of nodes: filled, searched, half emptied, again. */
uint64_t ordered(Random &random) {
    std::map<std::string, std::vector<uint32_t>> index;
    std::set<uint64_t> seen;
    uint64_t sum = 0;
    for (int round = 0; round < 4; round++) {
        for (uint32_t line = 0; line < 150000; line++) {
            index["entry " + word(random.below(60000) * 7919)].push_back(line);
            seen.insert(random.next() >> 20);
        }
        for (auto entry = index.begin(); entry != index.end();) {
            sum = sum * 31 + entry->second.size();
            entry = random.below(2) == 0 ? index.erase(entry) : std::next(entry);
        }
        while (seen.size() > 50000)
            seen.erase(seen.begin());
    }
    return sum + seen.size() + index.size();
}

/* Hash tables that grow and rehash, with small values and with lists. */
uint64_t hashed(Random &random) {
    uint64_t sum = 0;
    for (int round = 0; round < 5; round++) {
        std::unordered_map<uint64_t, uint64_t> counts;
        std::unordered_map<std::string, std::list<uint64_t>> groups;
        for (int step = 0; step < 400000; step++) {
            uint64_t key = random.below(200000);
            counts[key] += key;
            if (step % 4 == 0)
                groups[word(key % 5000)].push_front(key);
        }
        for (uint64_t key = 0; key < 200000; key += 3)
            counts.erase(key);
        for (const auto &group : groups)
            sum += group.second.size() * group.first.size() + group.second.front();
        for (const auto &count : counts)
            sum += count.second;
    }
    return sum;
}

/* Text that is split, joined, replaced, sorted. */
uint64_t strings(Random &random) {
    uint64_t sum = 0;
    for (int round = 0; round < 60; round++) {
        std::string text;
        for (int made = 0; made < 40000; made++)
            text += word(random.next() >> random.below(60)) + (made % 12 == 11 ? '\n' : ' ');
        std::vector<std::vector<std::string>> lines;
        for (std::size_t from = 0; from < text.size();) {
            std::size_t end = text.find('\n', from);
            end = end == std::string::npos ? text.size() : end;
            std::string line = text.substr(from, end - from);
            lines.emplace_back();
            for (std::size_t begin = 0; begin < line.size();) {
                std::size_t space = line.find(' ', begin);
                space = space == std::string::npos ? line.size() : space;
                lines.back().push_back(line.substr(begin, space - begin));
                begin = space + 1;
            }
            from = end + 1;
        }
        std::vector<std::string> joined;
        for (auto &line : lines) {
            std::sort(line.begin(), line.end());
            std::string whole;
            for (const auto &part : line)
                whole = whole + part + ", ";
            joined.push_back(std::move(whole));
        }
        std::stable_sort(joined.begin(), joined.end());
        for (const auto &line : joined)
            sum = sum * 31 + line.size() + static_cast<unsigned char>(line[0]);
    }
    return sum;
}

/* A simulation: events of different classes and sizes in a queue, each of which makes others. */
struct World;
struct Event {
    explicit Event(uint64_t time) : time(time) {}
    virtual ~Event() = default;
    virtual void happen(World &world) = 0;
    uint64_t time;
};
struct Later {
    bool operator()(const std::unique_ptr<Event> &left, const std::unique_ptr<Event> &right) const {
        return left->time > right->time;
    }
};
struct World {
    Random random;
    std::priority_queue<std::unique_ptr<Event>, std::vector<std::unique_ptr<Event>>, Later> events;
    std::deque<std::shared_ptr<std::string>> messages;
    uint64_t sum = 0;
};
struct Message final : Event {
    Message(uint64_t time, std::shared_ptr<std::string> text) : Event(time), text(std::move(text)) {}
    void happen(World &world) override {
        world.sum = world.sum * 31 + text->size();
        world.messages.push_back(text);
        if (world.messages.size() > 1000)
            world.messages.pop_front();
    }
    std::shared_ptr<std::string> text;
};
struct Client final : Event {
    explicit Client(uint64_t time) : Event(time) {}
    void happen(World &world) override {
        auto text = std::make_shared<std::string>(20 + world.random.below(200), 'x');
        for (uint64_t copies = 1 + world.random.below(3); copies > 0; copies--)
            world.events.push(std::make_unique<Message>(time + 1 + world.random.below(50), text));
        world.events.push(std::make_unique<Client>(time + 1 + world.random.below(20)));
    }
    std::array<uint64_t, 6> state{};
};

uint64_t events(Random &) {
    World world;
    for (int client = 0; client < 300; client++)
        world.events.push(std::make_unique<Client>(world.random.below(100)));
    for (int step = 0; step < 2500000; step++) {
        /* The queue only shows its top as constant; it is popped at once. */
        auto event = std::move(const_cast<std::unique_ptr<Event> &>(world.events.top()));
        world.events.pop();
        event->happen(world);
    }
    return world.sum;
}

/* Vectors of vectors, built, copied, moved, grown one element at a time. */
uint64_t vectors(Random &random) {
    uint64_t sum = 0;
    for (int round = 0; round < 60; round++) {
        std::vector<std::vector<uint32_t>> neighbours(20000);
        for (int edge = 0; edge < 150000; edge++) {
            uint32_t from = static_cast<uint32_t>(random.below(neighbours.size()));
            uint32_t to = static_cast<uint32_t>(random.below(neighbours.size()));
            neighbours[from].push_back(to);
            neighbours[to].push_back(from);
        }
        auto other = neighbours;
        std::vector<uint32_t> depth(neighbours.size(), UINT32_MAX);
        std::deque<uint32_t> waiting{0};
        depth[0] = 0;
        while (!waiting.empty()) {
            uint32_t at = waiting.front();
            waiting.pop_front();
            for (uint32_t next : other[at])
                if (depth[next] == UINT32_MAX) {
                    depth[next] = depth[at] + 1;
                    waiting.push_back(next);
                }
            sum = sum * 31 + depth[at];
        }
    }
    return sum;
}

}  // namespace

int main(int count, char **arguments) {
    struct Part {
        const char *name;
        uint64_t (*run)(Random &);
    };
    const Part parts[] = {
        {"ordered", ordered}, {"hashed", hashed}, {"strings", strings}, {"events", events}, {"vectors", vectors}};
    for (const Part &part : parts) {
        if (count == 2 && std::strcmp(arguments[1], part.name) == 0) {
            Random random;
            return std::printf("%016llx\n", static_cast<unsigned long long>(part.run(random))) > 0 ? 0 : 1;
        }
    }
    return 2;
}
