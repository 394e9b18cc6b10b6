/* A server without a network: clients make requests in text, a pool of workers parses them, works on a table that all share,
 * and hands the answers back to the client that asked. Requests and answers are freed by another thread than made them.
 *
 * service CLIENTS WORKERS REQUESTS_PER_CLIENT */
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

namespace {

/* What waits for one of several threads; `close` makes all that wait return nothing. */
template <typename Item> class Queue {
public:
    void push(Item item) {
        std::lock_guard<std::mutex> guard(lock_);
        items_.push_back(std::move(item));
        ready_.notify_one();
    }
    bool pop(Item &item) {
        std::unique_lock<std::mutex> guard(lock_);
        ready_.wait(guard, [this] { return closed_ || !items_.empty(); });
        if (items_.empty())
            return false;
        item = std::move(items_.front());
        items_.pop_front();
        return true;
    }
    void close() {
        std::lock_guard<std::mutex> guard(lock_);
        closed_ = true;
        ready_.notify_all();
    }

private:
    std::mutex lock_;
    std::condition_variable ready_;
    std::deque<Item> items_;
    bool closed_ = false;
};

struct Answer {
    std::map<std::string, std::string> fields;
    std::string body;
};

struct Request {
    std::string text;
    Queue<std::unique_ptr<Answer>> *client;
};

using Requests = Queue<std::unique_ptr<Request>>;

std::map<std::string, std::string> parsed(const std::string &text) {
    std::map<std::string, std::string> fields;
    for (std::size_t from = 0; from < text.size();) {
        std::size_t end = text.find('&', from), equals = text.find('=', from);
        end = end == std::string::npos ? text.size() : end;
        fields[text.substr(from, equals - from)] = text.substr(equals + 1, end - equals - 1);
        from = end + 1;
    }
    return fields;
}

void work(Requests &requests) {
    /* What this worker remembers, and forgets when it is too much. */
    std::unordered_map<std::string, std::string> known;
    std::unique_ptr<Request> request;
    while (requests.pop(request)) {
        auto answer = std::make_unique<Answer>();
        answer->fields = parsed(request->text);
        for (const auto &field : answer->fields) {
            answer->body += field.first + ": " + field.second + "\r\n";
            known[field.second] = field.first;
        }
        answer->body += std::string(200, '.');
        if (known.size() > 5000)
            known.clear();
        request->client->push(std::move(answer));
    }
}

void ask(Requests &requests, unsigned client, unsigned count, uint64_t &sum) {
    Queue<std::unique_ptr<Answer>> answers;
    unsigned open = 0;
    auto read_one = [&] {
        std::unique_ptr<Answer> answer;
        answers.pop(answer);
        open--;
        for (const auto &field : answer->fields)
            sum += field.second.size() * field.first.size();
        sum += answer->body.size();
    };
    for (unsigned made = 0; made < count; made++) {
        auto request = std::make_unique<Request>();
        request->client = &answers;
        for (unsigned field = 0; field < 8; field++)
            request->text += (field == 0 ? "field" : "&field") + std::to_string(field) + "=value number " +
                             std::to_string((client + 1) * made * (field + 1) % 99991);
        requests.push(std::move(request));
        if (++open == 32)
            read_one();
    }
    while (open > 0)
        read_one();
}

}  // namespace

int main(int count, char **arguments) {
    unsigned clients = count > 1 ? std::atoi(arguments[1]) : 4;
    unsigned workers = count > 2 ? std::atoi(arguments[2]) : 4;
    unsigned each = count > 3 ? std::atoi(arguments[3]) : 30000;
    Requests requests;
    std::vector<std::thread> pool, asking;
    std::vector<uint64_t> sums(clients * 16);
    for (unsigned worker = 0; worker < workers; worker++)
        pool.emplace_back([&] { work(requests); });
    for (unsigned client = 0; client < clients; client++)
        asking.emplace_back([&, client] { ask(requests, client, each, sums[client * 16]); });
    for (auto &thread : asking)
        thread.join();
    requests.close();
    for (auto &thread : pool)
        thread.join();
    uint64_t sum = 0;
    for (uint64_t share : sums)
        sum += share;
    return std::printf("%016llx\n", static_cast<unsigned long long>(sum)) > 0 ? 0 : 1;
}
