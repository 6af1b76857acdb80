#include "net/asio_loop.hpp"

#include <future>
#include <memory>

#include <doctest/doctest.h>

using namespace flotilla;
using namespace flotilla::net;
using namespace std::chrono_literals;

TEST_SUITE_BEGIN("net.loop");

TEST_CASE("what is posted while wakes are held runs, in its order, though nothing else wakes the loop") {
  const auto loop = std::make_shared<AsioLoop>([](const Error& error) { FAIL(error.message()); });
  loop->start_thread();
  for (int round = 0; round < 2000; ++round) {
    std::vector<int> order;
    std::promise<void> ran;
    auto last = ran.get_future();
    {
      const HoldWakes hold(*loop);
      for (int i = 0; i < 3; ++i) {
        loop->post([&order, &ran, i] {
          order.push_back(i);
          if (i == 2) ran.set_value();
        });
      }
      if (round % 3 == 0) std::this_thread::sleep_for(100us);  // time to go to sleep
    }
    REQUIRE(last.wait_for(10s) == std::future_status::ready);
    REQUIRE(order == std::vector{0, 1, 2});
  }
  loop->stop();
}

TEST_CASE("a hold is of one loop: others are woken at once") {
  const auto failed = [](const Error& error) { FAIL(error.message()); };
  const auto held = std::make_shared<AsioLoop>(failed);
  const auto other = std::make_shared<AsioLoop>(failed);
  held->start_thread();
  other->start_thread();
  {
    const HoldWakes hold(*held);
    std::promise<void> ran;
    other->post([&ran] { ran.set_value(); });
    CHECK(ran.get_future().wait_for(10s) == std::future_status::ready);
  }
  other->stop();
  held->stop();
}

TEST_SUITE_END();
