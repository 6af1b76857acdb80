#include "node/proposals.hpp"

#include <doctest/doctest.h>

#include <map>

using namespace flotilla;
using namespace std::chrono_literals;
using flotilla::node::Calls;
using flotilla::node::Done;
using flotilla::node::Proposals;
using flotilla::node::Refusal;

namespace {

/// A cluster of one that leads at once, or a follower that never does.
raft::Core core_of(std::size_t voters, std::size_t uncommitted_bytes_max = 1u << 20) {
  raft::Restored restored;
  for (std::size_t i = 1; i <= voters; ++i) restored.configuration.members.push_back({NodeId{i}, "", true});
  restored.configuration_index = Index{1};
  restored.base_index = Index{1};
  restored.base_term = Term{1};
  restored.hard_state.term = Term{1};
  restored.commit_index = restored.applied_index = Index{1};
  restored.first_index = Index{2};
  return raft::Core({.id = NodeId{1}, .uncommitted_bytes_max = uncommitted_bytes_max}, std::move(restored));
}

const Proposals::Refuse allow = [](std::string_view) { return std::nullopt; };

void lead(raft::Core& core) {
  core.campaign();
  while (core.has_ready()) {
    const raft::Ready ready = core.take_ready();
    const bool any = !ready.entries.empty();
    core.persisted(ready.sequence, any ? ready.entries.back().term : Term{},
                   any ? ready.entries.back().index : Index{});
  }
  REQUIRE(core.role() == Role::leader);
}

struct World {
  Calls calls{7, {1000, 100}};
  Proposals proposals{calls};
  std::map<std::uint64_t, Result<Bytes>> ended;

  std::uint64_t call(Duration deadline = 1s) {
    const auto sequence = std::make_shared<std::uint64_t>(0);
    Done done(Completion([this, sequence](Result<Bytes> result) { ended.emplace(*sequence, std::move(result)); }));
    *sequence = calls.begin(1, done).value().id.sequence;
    proposals.add({.sequence = *sequence, .payload = SharedBytes("payload"), .deadline = deadline});
    return *sequence;
  }
};

}  // namespace

TEST_SUITE_BEGIN("node.proposals");

TEST_CASE("nothing but the opening of the session is sent before it is open") {
  World world;
  raft::Core core = core_of(1);
  lead(core);
  const Index before = core.last_index();
  world.call();
  world.proposals.propose(core, 1, allow);
  CHECK(core.last_index() == before);
  world.proposals.add({.sequence = 0, .type = raft::EntryType::session, .payload = SharedBytes("s")});
  world.proposals.propose(core, 1, allow);
  CHECK(core.last_index() == before + 1);
  world.proposals.session_opened();
  world.proposals.propose(core, 1, allow);
  CHECK(core.last_index() == before + 2);
  CHECK_FALSE(world.proposals.has_unplaced());
}

TEST_CASE("an overloaded leader refuses a call only while no copy of it is under way") {
  World world;
  raft::Core core = core_of(1, 1);
  lead(core);
  world.proposals.session_opened();
  const std::uint64_t first = world.call();
  world.proposals.propose(core, 1, allow);  // not durable, so nothing else is taken
  world.proposals.place_again();
  world.proposals.propose(core, 1, allow);
  CHECK_FALSE(world.ended.contains(first));
  CHECK(world.proposals.has_unplaced());

  world.proposals.forget({first});
  const std::uint64_t second = world.call();
  world.proposals.propose(core, 1, allow);
  REQUIRE(world.ended.contains(second));
  CHECK(world.ended.at(second).error() == Errc::overloaded);
}

TEST_CASE("a call that was never sent ends as refused, one that was as unknown") {
  World world;
  raft::Core core = core_of(1);
  lead(core);
  world.proposals.session_opened();
  const auto sent = world.call(1s);
  world.proposals.propose(core, 1, allow);
  const auto unsent = world.call(1s);
  world.proposals.tick(999ms, true);
  CHECK(world.ended.empty());
  world.proposals.tick(1s, false);
  REQUIRE(world.ended.size() == 2);
  CHECK(world.ended.at(sent).error() == Errc::outcome_unknown);
  CHECK(world.ended.at(unsent).error() == Errc::no_leader);
}

TEST_CASE("a follower's calls stay unplaced, and time out as certainly not applied") {
  World world;
  raft::Core core = core_of(3);
  world.proposals.session_opened();
  const auto call = world.call(1s);
  world.proposals.propose(core, 1, allow);
  CHECK(world.proposals.has_unplaced());
  world.proposals.tick(1s, true);
  CHECK(world.ended.at(call).error() == Errc::timeout);
}

TEST_CASE("a call with an older copy out is not refused by a refusal of the newer one") {
  World world;
  raft::Core core = core_of(1);
  lead(core);
  world.proposals.session_opened();
  const auto call = world.call(1s);
  world.proposals.propose(core, 1, allow);  // attempt 1
  world.proposals.place_again();
  world.proposals.propose(core, 1, allow);  // attempt 2
  world.proposals.refused({{call, 2, Errc::unknown_command, "no"}});
  CHECK(world.ended.empty());
  world.proposals.refused({{call, 1, Errc::unknown_command, "no"}});
  world.proposals.tick(1s, true);
  CHECK(world.ended.at(call).error() == Errc::timeout);  // both copies are settled: certainly not applied
}

TEST_CASE("a final refusal of the only copy ends the call with its reason") {
  World world;
  raft::Core core = core_of(1);
  lead(core);
  world.proposals.session_opened();
  const auto call = world.call(1s);
  world.proposals.propose(core, 1, allow);
  world.proposals.refused({{call, 1, Errc::unknown_command, "no such thing"}});
  CHECK(world.ended.at(call).error() == Errc::unknown_command);
  CHECK(world.ended.at(call).error().message() == "no such thing");
}

TEST_CASE("a passing refusal is tried again at the next tick") {
  World world;
  raft::Core core = core_of(1);
  lead(core);
  world.proposals.session_opened();
  const auto call = world.call(1s);
  world.proposals.propose(core, 1, allow);
  world.proposals.refused({{call, 1, Errc::not_leader, "not I"}});
  CHECK_FALSE(world.proposals.has_unplaced());
  world.proposals.tick(1ms, true);
  CHECK(world.proposals.has_unplaced());
  CHECK(world.ended.empty());
}

TEST_CASE("a call whose result arrived is not sent again") {
  World world;
  raft::Core core = core_of(1);
  lead(core);
  world.proposals.session_opened();
  const auto call = world.call(1s);
  world.proposals.propose(core, 1, allow);
  const Index last = core.last_index();
  static_cast<void>(world.calls.take(call));
  world.proposals.forget({call});
  world.proposals.place_again();
  world.proposals.propose(core, 1, allow);
  CHECK(core.last_index() == last);
}

TEST_CASE("ending all tells the sent from the unsent") {
  World world;
  raft::Core core = core_of(1);
  lead(core);
  world.proposals.session_opened();
  const auto sent = world.call();
  world.proposals.propose(core, 1, allow);
  const auto unsent = world.call();
  world.proposals.end_all(Error(Errc::shutting_down));
  CHECK(world.ended.at(sent).error() == Errc::outcome_unknown);
  CHECK(world.ended.at(unsent).error() == Errc::shutting_down);
  CHECK(world.calls.size() == 0);
}

TEST_CASE("a command that a leader must not take ends refused, unless a copy of it may be in a log") {
  World world;
  raft::Core core = core_of(1);
  lead(core);
  world.proposals.session_opened();
  const Proposals::Refuse lacking = [](std::string_view payload) {
    CHECK(payload == "payload");
    return Error(Errc::unknown_command, "node 2 lacks it");
  };
  const auto sent = world.call();
  world.proposals.propose(core, 1, allow);
  const auto unsent = world.call();
  world.proposals.place_again();
  const Index before = core.last_index();
  world.proposals.propose(core, 1, lacking);
  CHECK(core.last_index() == before);
  REQUIRE(world.ended.contains(unsent));
  CHECK(world.ended.at(unsent).error() == Errc::unknown_command);
  CHECK_FALSE(world.ended.contains(sent));
  world.proposals.tick(2s, true);
  CHECK(world.ended.at(sent).error() == Errc::outcome_unknown);
}

TEST_SUITE_END();
