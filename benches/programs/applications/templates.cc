// What a large C++ program is to its compiler: most of the library's headers, templates over templates, constant evaluation.
#include <algorithm>
#include <array>
#include <functional>
#include <map>
#include <memory>
#include <numeric>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <tuple>
#include <unordered_map>
#include <variant>
#include <vector>

template <int Number> struct Shape {
    std::map<std::string, std::vector<std::array<int, Number + 1>>> sides;
    std::variant<int, std::string, std::vector<double>, std::tuple<std::array<char, Number + 1>, std::string>> value;
    std::function<int(const Shape &)> measure = [](const Shape &shape) {
        return std::visit([](const auto &held) { return static_cast<int>(sizeof held) + Number; }, shape.value);
    };
    int total() const {
        int sum = measure(*this);
        for (const auto &[name, list] : sides)
            sum += std::accumulate(list.begin(), list.end(), static_cast<int>(name.size()),
                                   [](int so_far, const auto &side) { return so_far + side[Number]; });
        return sum;
    }
};

template <int Number> constexpr long fibonacci() {
    if constexpr (Number < 2)
        return Number;
    else
        return fibonacci<Number - 1>() + fibonacci<Number - 2>();
}

template <int... Numbers> int all(std::integer_sequence<int, Numbers...>) {
    return (Shape<Numbers>{}.total() + ...) + static_cast<int>((fibonacci<Numbers>() + ...));
}

int main() {
    std::regex pattern("(a|b)*c{2,3}[^x-z]+");
    std::unordered_map<std::string, std::set<std::shared_ptr<Shape<3>>>> shapes;
    shapes["first"].insert(std::make_shared<Shape<3>>());
    std::ostringstream text;
    text << all(std::make_integer_sequence<int, 6>{}) << shapes.size() << std::regex_match("aacc!", pattern);
    return static_cast<int>(text.str().size());
}
