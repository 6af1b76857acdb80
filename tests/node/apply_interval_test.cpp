// When members apply what nobody there waits for: three real members in virtual time.
#include <doctest/doctest.h>

#include "sim_members.hpp"

using namespace flotilla;
using namespace flotilla::sim;
using namespace std::chrono_literals;

namespace {

constexpr Duration step = 100us;

/// The leader gets a call each millisecond.
void load(Members& members, std::size_t calls, const std::function<void()>& at_each_step) {
  SimMember* const leader = members.leader();
  REQUIRE(leader != nullptr);
  for (std::size_t call = 0; call < calls; ++call) {
    leader->append("k" + std::to_string(call), false, 10s);
    for (Duration passed{}; passed < 1ms; passed += step) {
      members.scheduler.run_for(step);
      at_each_step();
    }
  }
}

}  // namespace

TEST_SUITE_BEGIN("node.apply_interval");

TEST_CASE("a follower that nobody waits on applies what has come in an interval together, and no later") {
  const Duration interval = 5ms;
  Members members([interval](MemberOptions& options) {
    options.apply_interval = interval;
    options.checkpoint_bytes = 256u << 10;  // the map is small
  });
  SimMember* const follower = members.follower();
  REQUIRE(follower != nullptr);
  constexpr std::size_t calls = 400;
  std::size_t batches = 0;
  Index applied = follower->status().applied_index;
  Duration behind_since = members.scheduler.now();
  Duration longest{};
  load(members, calls, [&] {
    const Status status = follower->status();
    if (std::exchange(applied, status.applied_index) != status.applied_index) {
      ++batches;
      behind_since = members.scheduler.now();
    }
    if (status.applied_index == status.commit_index) behind_since = members.scheduler.now();
    longest = std::max(longest, members.scheduler.now() - behind_since);
  });
  CHECK(batches <= calls * 1ms / interval + 1);
  CHECK(batches >= calls * 1ms / interval / 2);
  CHECK(longest <= interval + 1ms);  // waiting for the applier, and the steps of this test
  members.scheduler.run_for(interval + 10ms);
  CHECK(follower->status().applied_index == members.leader()->status().applied_index);
}

TEST_CASE("who waits on a follower does not wait for its interval") {
  Members members([](MemberOptions& options) { options.apply_interval = 10s; });
  SimMember* const follower = members.follower();
  REQUIRE(follower != nullptr);
  const auto caught_up = [&] { return follower->status().applied_index >= members.leader()->status().applied_index; };
  SUBCASE("a call") {
    load(members, 20, [] {});
    REQUIRE_FALSE(caught_up());
    follower->append("k", false, 10s);
    CHECK(members.scheduler.run_until([&] { return follower->pending_calls() == 0; }, 100ms));
    CHECK(caught_up());
  }
  SUBCASE("a read") {
    load(members, 20, [] {});
    REQUIRE_FALSE(caught_up());
    follower->read_linearizable("k", 10s);
    CHECK(members.scheduler.run_until(caught_up, 100ms));
  }
  SUBCASE("nor does the first command after a pause") {
    members.scheduler.run_for(11s);
    members.leader()->append("k", false, 10s);
    const Index before = follower->status().applied_index;
    CHECK(members.scheduler.run_until([&] { return follower->status().applied_index > before; }, 100ms));
  }
  SUBCASE("nor a full batch") {
    const Index before = follower->status().applied_index;
    load(members, 3, [] {});
    for (int call = 0; call < 200; ++call) members.leader()->append("k" + std::to_string(call), false, 10s);
    CHECK(members.scheduler.run_until([&] { return follower->status().applied_index - before >= 64; }, 100ms));
  }
}

TEST_SUITE_END();
