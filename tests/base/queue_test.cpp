#include "base/queue.hpp"

#include <algorithm>
#include <deque>
#include <memory>
#include <random>

#include <doctest/doctest.h>

using flotilla::Queue;

TEST_SUITE_BEGIN("base.queue");

namespace {

using Number = std::unique_ptr<int>;  // so that a lost or doubled element is noticed

/// One random change of both.
void change(Queue<Number>& queue, std::deque<int>& model, std::mt19937& random, int value, bool growing) {
  const auto below = [&](std::size_t bound) {
    return std::uniform_int_distribution<std::size_t>(0, bound - 1)(random);
  };
  switch (below(growing ? 16 : 8)) {
    case 0:
    case 1:
      if (!model.empty()) queue.pop_front(), model.pop_front();
      break;
    case 2:
      if (!model.empty()) queue.pop_back(), model.pop_back();
      break;
    case 3: {
      const std::size_t count = below(std::min<std::size_t>(model.size(), 20) + 1);
      queue.erase_front(count);
      model.erase(model.begin(), model.begin() + static_cast<std::ptrdiff_t>(count));
      break;
    }
    case 4: {
      const std::size_t left = model.size() - below(std::min<std::size_t>(model.size(), 20) + 1);
      while (queue.size() > left) queue.pop_back();
      model.resize(left);
      break;
    }
    case 5: {
      const std::size_t at = below(model.size() + 1);
      queue.insert(at, std::make_unique<int>(value));
      model.insert(model.begin() + static_cast<std::ptrdiff_t>(at), value);
      break;
    }
    case 6:
      queue.push_front(std::make_unique<int>(value));
      model.push_front(value);
      break;
    default: queue.push_back(std::make_unique<int>(value)); model.push_back(value);
  }
}

}  // namespace

TEST_CASE("a queue holds what a deque does, whatever is added and removed where") {
  std::mt19937 random(1);
  Queue<Number> queue;
  std::deque<int> model;
  for (int i = 0; i < 60'000; ++i) {
    change(queue, model, random, i, i / 1000 % 3 != 2);
    REQUIRE(queue.size() == model.size());
    REQUIRE(queue.empty() == model.empty());
    if (model.empty()) continue;
    const std::size_t at = random() % model.size();
    REQUIRE(*queue[at] == model[at]);
    REQUIRE(*queue.front() == model.front());
    REQUIRE(*queue.back() == model.back());
    if (i % 97 != 0) continue;
    REQUIRE(std::equal(queue.begin(), queue.end(), model.begin(), model.end(),
                       [](const Number& number, int value) { return *number == value; }));
  }
}

TEST_CASE("a queue keeps a little memory for what comes next, and not what a burst needed") {
  Queue<int> queue;
  for (int i = 0; i < 100; ++i) queue.push_back(i);
  const std::size_t capacity = queue.capacity();
  CHECK(capacity < 200);
  queue.clear();
  CHECK(queue.capacity() == capacity);

  for (int i = 0; i < 100'000; ++i) queue.push_back(i);
  while (queue.size() > 10'000) queue.pop_front();
  CHECK(queue.capacity() <= 40'000);
  CHECK(queue.front() == 90'000);
  CHECK(queue.back() == 99'999);
  queue.clear();
  CHECK(queue.capacity() == Queue<int>::kept_elements);
}

TEST_SUITE_END();
