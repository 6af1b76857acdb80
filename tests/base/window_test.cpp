#include "base/window.hpp"

#include <map>
#include <random>
#include <vector>

#include <doctest/doctest.h>

using flotilla::Window;

TEST_SUITE_BEGIN("base.window");

namespace {

using Pairs = std::vector<std::pair<std::uint64_t, int>>;

template <class T>
Pairs pairs_of(Window<T>& window) {
  Pairs pairs;
  window.for_each([&](std::uint64_t number, int value) { pairs.emplace_back(number, value); });
  return pairs;
}

}  // namespace

TEST_CASE("a window holds what a map does, whatever numbers come and go in which order") {
  constexpr std::uint64_t width = 200;
  for (unsigned seed = 1; seed <= 20; ++seed) {
    CAPTURE(seed);
    std::mt19937 random(seed);
    Window<int> window;
    std::map<std::uint64_t, int> model;
    std::uint64_t from = seed % 2 == 0 ? 0 : 1'000'000'000;  // numbers come from here on, and it rises
    for (int i = 0; i < 5'000; ++i) {
      if (model.empty() || model.begin()->first > from) from += random() % 4;
      const std::uint64_t number = from + random() % width;
      if (random() % 2 == 0) {
        REQUIRE(window.emplace(number, i) == model.emplace(number, i).second);
      } else {
        const std::uint64_t gone = random() % 2 == 0 && !model.empty() ? model.begin()->first : number;
        REQUIRE(window.erase(gone) == (model.erase(gone) == 1));
      }
      REQUIRE(window.size() == model.size());
      REQUIRE(window.empty() == model.empty());
      if (!model.empty()) REQUIRE(window.first() == model.begin()->first);
      const std::uint64_t asked = from + random() % (2 * width) - random() % 2;
      const auto at = model.find(asked);
      const int* const found = window.find(asked);
      REQUIRE((found != nullptr) == (at != model.end()));
      if (found != nullptr) REQUIRE(*found == at->second);
      if (i % 50 == 0) REQUIRE(pairs_of(window) == Pairs(model.begin(), model.end()));
      if (random() % 1000 == 0) window.clear(), model.clear();
    }
  }
}

TEST_CASE("a window takes numbers below its first one, and begins anywhere when it is empty") {
  Window<int> window;
  CHECK(window.emplace(7, 70));
  CHECK(window.emplace(5, 50));
  CHECK_FALSE(window.emplace(5, 51));
  CHECK(window.find(6) == nullptr);
  CHECK(window.emplace(6, 60));
  CHECK(pairs_of(window) == Pairs{{5, 50}, {6, 60}, {7, 70}});
  for (const std::uint64_t number : {5, 7, 6}) CHECK(window.erase(number));
  CHECK(window.empty());
  CHECK_FALSE(window.erase(6));
  CHECK(window.emplace(std::uint64_t{1} << 60, 1));
  CHECK(window.emplace((std::uint64_t{1} << 60) - 2, 2));
  CHECK(window.first() == (std::uint64_t{1} << 60) - 2);
  window.clear();
  CHECK(window.find(std::uint64_t{1} << 60) == nullptr);
  CHECK(window.emplace(0, 0));
  CHECK(window.find(0) != nullptr);
}

TEST_SUITE_END();
