#include "base/task.hpp"

#include <array>
#include <memory>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

using flotilla::Task;

namespace {

/// Too large to stand in a Task, as a rule.
struct Load {
  std::array<char, 100> bytes{};
};

/// Both with a small function and with a large one: made, moved and ended, each runs and is ended once.
template <class Captured>
void check_life(Captured captured) {
  const auto owner = std::make_shared<int>(0);
  const auto make = [&] {
    return Task([owner, captured] {
      static_cast<void>(captured);
      ++*owner;
    });
  };
  {
    Task task = make();
    CHECK(task);
    CHECK(owner.use_count() == 2);
    task();
    task();
    CHECK(*owner == 2);
    Task other = std::move(task);
    CHECK_FALSE(task);  // NOLINT: what is left of it is the test
    CHECK(owner.use_count() == 2);
    other();
    CHECK(*owner == 3);
    task = make();
    CHECK(owner.use_count() == 3);
    task = std::move(other);  // ends the one it had
    CHECK(owner.use_count() == 2);
    auto& same = task;
    task = std::move(same);
    CHECK(owner.use_count() == 2);
    task();
    CHECK(*owner == 4);
  }
  CHECK(owner.use_count() == 1);
  std::vector<Task> many;
  for (int i = 0; i < 100; ++i) many.push_back(make());  // moves all when it grows
  CHECK(owner.use_count() == 101);
  for (Task& task : many) task();
  CHECK(*owner == 104);
  many.erase(many.begin(), many.begin() + 50);
  CHECK(owner.use_count() == 51);
  many.clear();
  CHECK(owner.use_count() == 1);
}

}  // namespace

TEST_SUITE("base.task") {
  TEST_CASE("a function in a task, or beside it, is moved with it and ends with it") {
    SUBCASE("small") {
      check_life(char{});
    }
    SUBCASE("large") {
      check_life(Load{});
    }
  }

  TEST_CASE("none is false, also after it was moved") {
    Task none;
    CHECK_FALSE(none);
    Task other = std::move(none);
    CHECK_FALSE(other);
    other = Task();
    CHECK_FALSE(other);
  }

  TEST_CASE("a task may be replaced by one that it captured itself") {
    int ran = 0;
    auto inner = std::make_shared<Task>([&ran] { ++ran; });
    Task task = [inner] { (*inner)(); };
    Task* const part = inner.get();
    inner.reset();  // the task alone has it now
    task = std::move(*part);
    task();
    CHECK(ran == 1);
  }

  TEST_CASE("what can only be moved may be captured, and the task may be moved while nobody runs it") {
    int sum = 0;
    Task task = [&sum, part = std::make_unique<int>(7)] { sum += *part; };
    Task moved = std::move(task);
    moved();
    CHECK(sum == 7);
  }
}
