#include "raft/cluster.hpp"

using namespace flotilla;
using namespace flotilla::raft;
using namespace flotilla::raft::testing;

TEST_SUITE_BEGIN("raft.transfer");

TEST_CASE("leadership goes to the named voter at once, also with everybody hearing a leader (A22)") {
  Cluster cluster(5);
  cluster.elect(1);
  cluster.tick_all(1);
  REQUIRE(cluster.core(1).transfer_leadership(node(4)).has_value());
  cluster.settle();
  CHECK(cluster.leader() == 4);
  CHECK(cluster.core(1).leader_id() == node(4));
  CHECK(cluster.core(4).term() == Term{2});
}

TEST_CASE("the target is brought up to date first (C19)") {
  Cluster cluster(3);
  cluster.elect(1);
  cluster.isolate(3);
  cluster.propose(1, "x");
  cluster.settle();
  cluster.heal();
  REQUIRE(cluster.core(1).transfer_leadership(node(3)).has_value());
  CHECK(cluster.count_in_network<TimeoutNow>() == 0);
  cluster.core(1).unreachable(node(3));
  cluster.tick_all(2);
  CHECK(cluster.leader() == 3);
  CHECK(cluster.applied(3) == "x ");
}

TEST_CASE("proposals are refused meanwhile, for a bounded time (C19)") {
  Cluster cluster(3);
  cluster.elect(1);
  cluster.crash(3);
  REQUIRE(cluster.core(1).transfer_leadership(node(3)).has_value());
  CHECK(cluster.core(1).transfer_pending());
  const auto refused = cluster.core(1).propose(EntryType::command, {}, 0);
  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error() == Errc::proposal_dropped);
  const auto change = cluster.core(1).propose_configuration(voters({1, 2}), 0);
  REQUIRE_FALSE(change.has_value());
  CHECK(change.error() == Errc::proposal_dropped);
  cluster.tick_all(10);
  CHECK_FALSE(cluster.core(1).transfer_pending());
  CHECK(cluster.leader() == 1);
  cluster.propose(1, "x");
  cluster.settle();
  CHECK(cluster.applied(2) == "x ");
}

TEST_CASE("only another voter can be named (C20)") {
  Configuration configuration = voters({1, 2});
  configuration.members.push_back(learner(3));
  Cluster cluster(3, configuration);
  cluster.elect(1);
  for (std::uint64_t id : {1, 3, 9}) {
    CAPTURE(id);
    const auto refused = cluster.core(1).transfer_leadership(node(id));
    REQUIRE_FALSE(refused.has_value());
    CHECK(refused.error() == Errc::invalid_argument);
  }
  CHECK(cluster.core(2).transfer_leadership(node(1)).error() == Errc::not_leader);
}

TEST_CASE("a second target is refused while the first is awaited; the same one is not") {
  Cluster cluster(3);
  cluster.elect(1);
  cluster.filter = [](const Message&) { return false; };
  REQUIRE(cluster.core(1).transfer_leadership(node(2)).has_value());
  CHECK(cluster.core(1).transfer_leadership(node(2)).has_value());
  CHECK(cluster.core(1).transfer_leadership(node(3)).error() == Errc::overloaded);
}

TEST_CASE("an order that reaches a learner, a stranger or a removed member does nothing (C20, D12)") {
  Configuration configuration = voters({1, 2});
  configuration.members.push_back(learner(3));
  Cluster cluster(3, configuration);
  cluster.add(9);
  cluster.elect(1);
  cluster.send(1, 3, 1, TimeoutNow{});
  cluster.send(1, 9, 1, TimeoutNow{});
  CHECK(cluster.core(3).role() == Role::follower);
  CHECK(cluster.core(9).role() == Role::follower);
}

TEST_CASE("an order of anybody but the leader, or of an old one, does nothing") {
  Cluster cluster(3);
  cluster.elect(1);
  cluster.send(3, 2, 1, TimeoutNow{});
  CHECK(cluster.core(2).role() == Role::follower);
  cluster.depose_and_elect(3);
  cluster.send(1, 2, 1, TimeoutNow{});
  CHECK(cluster.core(2).role() == Role::follower);
}

TEST_CASE("a repeated order starts one election (stale after the first)") {
  Cluster cluster(3);
  cluster.elect(1);
  cluster.filter = [](const Message&) { return false; };
  cluster.send(1, 2, 1, TimeoutNow{});
  cluster.send(1, 2, 1, TimeoutNow{});
  CHECK(cluster.core(2).term() == Term{2});
}

TEST_CASE("what was proposed before a transfer is kept by it") {
  Cluster cluster(3);
  cluster.elect(1);
  for (const char* text : {"a", "b", "c"}) cluster.propose(1, text);
  REQUIRE(cluster.core(1).transfer_leadership(node(2)).has_value());
  cluster.settle();
  CHECK(cluster.leader() == 2);
  for (std::uint64_t id : {1, 2, 3}) CHECK(cluster.applied(id) == "a b c ");
}

TEST_SUITE_END();
