#include "raft/cluster.hpp"

using namespace flotilla;
using namespace flotilla::raft;
using namespace flotilla::raft::testing;

namespace {

Configuration with_learners(std::initializer_list<std::uint64_t> voter_ids,
                            std::initializer_list<std::uint64_t> learner_ids) {
  Configuration configuration = voters(voter_ids);
  for (std::uint64_t id : learner_ids) configuration.members.push_back(learner(id));
  std::sort(configuration.members.begin(), configuration.members.end(),
            [](const Member& left, const Member& right) { return left.id < right.id; });
  return configuration;
}

Errc code_of(const Result<Core::Position>& result) {
  REQUIRE_FALSE(result.has_value());
  return static_cast<Errc>(result.error().code().value());
}

void change(Cluster& cluster, std::uint64_t leader, const Configuration& wanted) {
  REQUIRE(cluster.core(leader).propose_configuration(wanted, 0).has_value());
  cluster.settle();
}

unsigned configurations_in(const Cluster& cluster, const Disk& disk) {
  (void)cluster;
  unsigned count = 0;
  for (const Entry& at : disk.entries) count += at.type == EntryType::configuration ? 1u : 0u;
  return count;
}

}  // namespace

TEST_SUITE_BEGIN("raft.membership");

TEST_CASE("a member with an empty log and no configuration joins as a learner and catches up") {
  Cluster cluster(3);
  cluster.elect(1);
  for (const char* text : {"a", "b"}) cluster.propose(1, text);
  cluster.settle();
  cluster.add(4);
  change(cluster, 1, with_learners({1, 2, 3}, {4}));
  CHECK(cluster.applied(4) == "a b ");
  CHECK(cluster.core(4).configuration() == with_learners({1, 2, 3}, {4}));
  CHECK(cluster.core(1).caught_up(node(4)));
  change(cluster, 1, voters({1, 2, 3, 4}));
  cluster.propose(1, "c");
  cluster.settle();
  CHECK(cluster.applied(4) == "a b c ");
  CHECK(cluster.core(1).configuration() == voters({1, 2, 3, 4}));
}

TEST_CASE("a learner that lags is not caught up (D11)") {
  Cluster cluster(3, with_learners({1, 2}, {3}));
  cluster.elect(1);
  CHECK(cluster.core(1).caught_up(node(3)));
  cluster.isolate(3);
  cluster.propose(1, "x");
  cluster.tick_all(2);
  CHECK_FALSE(cluster.core(1).caught_up(node(3)));
  CHECK_FALSE(cluster.core(1).caught_up(node(9)));
  CHECK_FALSE(cluster.core(2).caught_up(node(3)));
}

TEST_CASE("a configuration is in force as soon as it is in the log, committed or not") {
  Cluster cluster(3);
  cluster.elect(1);
  cluster.isolate(1);
  REQUIRE(cluster.core(1).propose_configuration(voters({1, 2}), 0).has_value());
  CHECK(cluster.core(1).configuration() == voters({1, 2}));
  CHECK(cluster.core(1).configuration_index() == Index{2});
  CHECK(cluster.core(1).commit_index() == Index{1});
}

TEST_CASE("one voter comes or goes directly; more go through a joint configuration, left by itself once (D7, D8)") {
  Cluster cluster(5, with_learners({1, 2, 3}, {4, 5}));
  cluster.elect(1);
  change(cluster, 1, with_learners({1, 2, 3, 4}, {5}));
  CHECK(configurations_in(cluster, cluster.disk(2)) == 1);
  change(cluster, 1, voters({1, 4, 5}));  // out 2 and 3, in 5
  CHECK(cluster.core(1).configuration() == voters({1, 4, 5}));
  CHECK(configurations_in(cluster, cluster.disk(1)) == 3);
  std::vector<bool> joint;
  for (const Entry& at : cluster.disk(5).entries) {
    if (at.type == EntryType::configuration) joint.push_back(decode_configuration(at.payload.view())->joint());
  }
  CHECK(joint == std::vector{false, true, false});
}

TEST_CASE("to replace one voter by another is two changes, and goes through a joint configuration") {
  Cluster cluster(4, with_learners({1, 2, 3}, {4}));
  cluster.elect(1);
  cluster.filter = [](const Message&) { return false; };
  REQUIRE(cluster.core(1).propose_configuration(voters({1, 2, 4}), 0).has_value());
  CHECK(cluster.core(1).configuration().joint());
}

TEST_CASE("a joint configuration is left only once it is committed itself (D7)") {
  Cluster cluster(4, with_learners({1, 2, 3}, {4}));
  cluster.elect(1);
  cluster.filter = [](const Message&) { return false; };
  cluster.propose(1, "x");
  REQUIRE(cluster.core(1).propose_configuration(voters({1, 2, 4}), 0).has_value());
  cluster.settle();
  // Commits the command before it, by both groups.
  for (std::uint64_t id : {2, 4}) cluster.send(id, 1, 1, AppendReply{.accepted = true, .match_index = Index{2}});
  CHECK(cluster.core(1).commit_index() == Index{2});
  CHECK(cluster.core(1).configuration().joint());
  CHECK(cluster.core(1).last_index() == Index{3});
  for (std::uint64_t id : {2, 4}) cluster.send(id, 1, 1, AppendReply{.accepted = true, .match_index = Index{3}});
  CHECK_FALSE(cluster.core(1).configuration().joint());
  CHECK(cluster.core(1).last_index() == Index{4});
}

TEST_CASE("in a joint configuration both majorities decide (C13)") {
  Cluster cluster(5, with_learners({1, 2, 3}, {4, 5}));
  cluster.elect(1);
  cluster.filter = [](const Message& message) { return message.from != node(2) && message.from != node(3); };
  REQUIRE(cluster.core(1).propose_configuration(voters({1, 4, 5}), 0).has_value());
  cluster.settle();
  CHECK(cluster.core(1).match_index(node(4)) == Index{2});
  CHECK(cluster.core(1).match_index(node(5)) == Index{2});
  CHECK(cluster.core(1).commit_index() == Index{1});
  cluster.filter = nullptr;
  cluster.tick_all(12);
  CHECK(cluster.core(1).configuration() == voters({1, 4, 5}));
  CHECK(cluster.core(1).commit_index() >= Index{3});
}

TEST_CASE("no change before the leader has committed an entry of its own term (D1)") {
  Cluster cluster(3);
  cluster.filter = [](const Message& message) { return !body_of<AppendRequest>(message); };
  cluster.elect(1);
  CHECK(code_of(cluster.core(1).propose_configuration(voters({1, 2}), 0)) == Errc::overloaded);
}

TEST_CASE("the disjoint majorities of the single-server bug of 2015 cannot form (D1)") {
  // 1 appends {1, 2, 3, 4, 5} alone; 2 leads next and would remove 1.
  Cluster cluster(5, with_learners({1, 2, 3, 4}, {5}));
  cluster.elect(1);
  cluster.isolate(1);
  REQUIRE(cluster.core(1).propose_configuration(voters({1, 2, 3, 4, 5}), 0).has_value());
  cluster.settle();
  cluster.filter = [](const Message& message) {
    const auto* request = body_of<AppendRequest>(message);
    return request == nullptr || request->entries.empty();
  };
  cluster.tick_all(60);
  REQUIRE(cluster.leader() != 1);
  const std::uint64_t second = *cluster.leader();
  CHECK(code_of(cluster.core(second).propose_configuration(with_learners({2, 3, 4}, {5}), 0)) == Errc::overloaded);
}

TEST_CASE("one change at a time, until the final form is committed (D8)") {
  Cluster cluster(5, with_learners({1, 2, 3}, {4, 5}));
  cluster.elect(1);
  cluster.filter = [](const Message& message) { return !body_of<AppendReply>(message); };
  change(cluster, 1, voters({1, 4, 5}));
  CHECK(code_of(cluster.core(1).propose_configuration(voters({1, 2}), 0)) == Errc::overloaded);
  cluster.filter = nullptr;
  cluster.tick_all(15);
  change(cluster, 1, voters({1, 4}));
  CHECK(cluster.core(1).configuration() == voters({1, 4}));
}

TEST_CASE("what no cluster could be governed by is refused (D22)") {
  Cluster cluster(3);
  cluster.elect(1);
  CHECK(code_of(cluster.core(1).propose_configuration(Configuration{}, 0)) == Errc::invalid_argument);
  CHECK(code_of(cluster.core(1).propose_configuration(with_learners({}, {1, 2}), 0)) == Errc::invalid_argument);
  CHECK(code_of(cluster.core(1).propose_configuration(Configuration{{voter(2), voter(1)}, {}}, 0)) ==
        Errc::invalid_argument);
  CHECK(code_of(cluster.core(1).propose_configuration(voters({1, 2, 3}), 0)) == Errc::invalid_argument);
  Configuration joint = voters({1, 2});
  joint.outgoing = {voter(3)};
  CHECK(code_of(cluster.core(1).propose_configuration(joint, 0)) == Errc::invalid_argument);
  CHECK(code_of(cluster.core(2).propose_configuration(voters({1, 2}), 0)) == Errc::not_leader);
}

TEST_CASE("a change that leaves no live majority is refused (D21)") {
  Cluster cluster(3);
  cluster.elect(1);
  cluster.crash(3);
  cluster.tick_all(11);
  REQUIRE(cluster.leader() == 1);
  CHECK(code_of(cluster.core(1).propose_configuration(voters({1, 3}), 0)) == Errc::overloaded);
  change(cluster, 1, voters({1, 2}));
  CHECK(cluster.core(1).configuration() == voters({1, 2}));
}

TEST_CASE("a truncated configuration is out of force, and the one before is back (D2)") {
  Cluster cluster(3);
  cluster.elect(1);
  cluster.isolate(1);
  REQUIRE(cluster.core(1).propose_configuration(voters({1, 2}), 0).has_value());
  cluster.settle();
  cluster.tick_all(60);
  REQUIRE(cluster.leader() != 1);
  cluster.heal();
  cluster.tick_all(30);
  CHECK(cluster.core(1).configuration() == voters({1, 2, 3}));
  CHECK(cluster.core(1).configuration_index() == Index{0});
}

TEST_CASE("a new leader builds on the last configuration of its log, committed or not (D3)") {
  Cluster cluster(5, with_learners({1, 2, 3}, {4, 5}));
  cluster.elect(1);
  // The joint configuration reaches 2 and is committed by nobody.
  cluster.filter = [](const Message& message) { return message.to == node(2) || !body_of<AppendRequest>(message); };
  cluster.hold_writes(2);
  REQUIRE(cluster.core(1).propose_configuration(voters({2, 4, 5}), 0).has_value());
  cluster.settle();
  CHECK(cluster.core(2).configuration().joint());
  cluster.crash(1);
  cluster.filter = nullptr;
  cluster.release_writes(2);
  cluster.settle();
  cluster.forget_leader();
  cluster.tick_all(60);
  REQUIRE(cluster.leader().has_value());
  cluster.tick_all(10);
  // Left by the new leader, without a second joint entry.
  CHECK(cluster.core(2).configuration() == voters({2, 4, 5}));
  CHECK(configurations_in(cluster, cluster.disk(2)) == 2);
}

TEST_CASE("a configuration survives a restart and the trimming of its entry (D4, D5)") {
  Cluster cluster(3);
  cluster.elect(1);
  change(cluster, 1, voters({1, 2}));
  cluster.propose(1, "a");
  cluster.settle();
  cluster.trim(2, Index{4});
  cluster.restart(2);
  CHECK(cluster.core(2).configuration() == voters({1, 2}));
  CHECK(cluster.core(2).configuration_index() == Index{2});
  cluster.restart(1);
  CHECK(cluster.core(1).configuration() == voters({1, 2}));
}

TEST_CASE("a leader that removes itself replicates until that is committed, then hands over (D9)") {
  Cluster cluster(3);
  cluster.elect(1);
  cluster.filter = [](const Message& message) { return !body_of<AppendReply>(message); };
  change(cluster, 1, voters({2, 3}));
  CHECK(cluster.core(1).role() == Role::leader);
  CHECK(cluster.core(1).commit_index() == Index{1});
  cluster.filter = nullptr;
  cluster.tick_all(13);
  CHECK(cluster.core(1).role() == Role::follower);
  REQUIRE(cluster.leader().has_value());
  CHECK(cluster.leader() != 1);
  // Without waiting for a timeout.
  CHECK(cluster.core(*cluster.leader()).term() == Term{2});
  cluster.tick_all(100);
  CHECK(cluster.core(*cluster.leader()).term() == Term{2});
}

TEST_CASE("a removing leader does not count itself (D9)") {
  Cluster cluster(3);
  cluster.elect(1);
  cluster.isolate(3);
  REQUIRE(cluster.core(1).propose_configuration(voters({2, 3}), 0).has_value());
  cluster.settle();
  // 1 and 2 have it: a majority of the old members, and one of two of the new.
  CHECK(cluster.core(1).match_index(node(2)) == Index{2});
  CHECK(cluster.core(1).commit_index() == Index{1});
}

TEST_CASE("a leader that becomes a learner steps down as well (D12)") {
  Cluster cluster(3);
  cluster.elect(1);
  change(cluster, 1, with_learners({2, 3}, {1}));
  cluster.tick_all(30);
  CHECK(cluster.core(1).role() == Role::follower);
  CHECK(cluster.leader() != 1);
  cluster.propose(*cluster.leader(), "x");
  cluster.settle();
  CHECK(cluster.applied(1) == "x ");
}

TEST_CASE("the removed are told, and then left alone (D10)") {
  Cluster cluster(3);
  cluster.elect(1);
  change(cluster, 1, voters({1, 2}));
  cluster.tick_all(2);
  CHECK_FALSE(cluster.core(3).configuration().contains(node(3)));
  CHECK(cluster.core(3).commit_index() == Index{2});
  CHECK(cluster.core(1).progress(node(3)) == nullptr);
  cluster.tick_all(100);
  CHECK(cluster.core(3).role() == Role::follower);
  CHECK(cluster.core(3).term() == Term{1});
  CHECK(cluster.leader() == 1);
}

TEST_CASE("a removed member that was not told does not disturb (A14)") {
  Cluster cluster(3);
  cluster.elect(1);
  cluster.isolate(3);
  change(cluster, 1, voters({1, 2}));
  cluster.tick_all(60);
  CHECK(cluster.core(1).progress(node(3)) == nullptr);
  cluster.heal();
  cluster.tick_all(100);
  CHECK(cluster.leader() == 1);
  CHECK(cluster.core(1).term() == Term{1});
  CHECK(cluster.core(3).term() == Term{1});
}

TEST_CASE("a member that is added again after its removal goes on with what it has") {
  Cluster cluster(3);
  cluster.elect(1);
  change(cluster, 1, voters({1, 2}));
  change(cluster, 1, with_learners({1, 2}, {3}));
  cluster.propose(1, "x");
  cluster.settle();
  CHECK(cluster.applied(3) == "x ");
}

TEST_CASE("a joiner takes no offence at configurations from before it came (D19)") {
  Cluster cluster(3);
  cluster.elect(1);
  change(cluster, 1, voters({1, 2}));
  change(cluster, 1, voters({1}));
  cluster.add(9);
  change(cluster, 1, with_learners({1}, {9}));
  change(cluster, 1, voters({1, 9}));
  CHECK(cluster.core(9).configuration() == voters({1, 9}));
  cluster.propose(1, "x");
  cluster.settle();
  CHECK(cluster.applied(9) == "x ");
}

TEST_CASE("a shrinking quorum commits what waited for it (B19)") {
  Cluster cluster(2);
  cluster.elect(1);
  cluster.tick_all(1);
  cluster.isolate(2);
  cluster.propose(1, "x");
  cluster.settle();
  CHECK(cluster.core(1).commit_index() == Index{1});
  change(cluster, 1, voters({1}));
  CHECK(cluster.core(1).commit_index() == Index{3});
  CHECK(cluster.applied(1) == "x ");
}

TEST_CASE("a change of address alone is a change like any other") {
  Cluster cluster(3);
  cluster.elect(1);
  Configuration moved = voters({1, 2, 3});
  moved.members[1].address = "elsewhere:1";
  change(cluster, 1, moved);
  CHECK(cluster.core(3).configuration().find(node(2))->address == "elsewhere:1");
}

TEST_CASE("one member grows to three and back to another one") {
  Cluster cluster(1);
  cluster.core(1).campaign();
  cluster.settle();
  cluster.add(2);
  cluster.add(3);
  change(cluster, 1, with_learners({1}, {2, 3}));
  change(cluster, 1, voters({1, 2, 3}));
  CHECK(cluster.core(3).configuration() == voters({1, 2, 3}));
  change(cluster, 1, voters({3}));
  cluster.tick_all(30);
  CHECK(cluster.leader() == 3);
  cluster.propose(3, "x");
  cluster.settle();
  CHECK(cluster.applied(3) == "x ");
}

TEST_SUITE_END();
