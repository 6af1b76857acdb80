#include "raft/cluster.hpp"

using namespace flotilla;
using namespace flotilla::raft;
using namespace flotilla::raft::testing;

namespace {

VoteRequest asking(std::uint64_t last_index, std::uint64_t last_term, bool pre = false, bool transfer = false) {
  return VoteRequest{.pre = pre, .transfer = transfer, .last_index = Index{last_index}, .last_term = Term{last_term}};
}

/// What `id` sent to `to` and is still on its way; the newest.
template <class T>
std::optional<std::pair<Term, T>> newest(const Cluster& cluster, std::uint64_t from, std::uint64_t to) {
  for (auto message = cluster.network.rbegin(); message != cluster.network.rend(); ++message) {
    if (message->from != node(from) || message->to != node(to)) continue;
    if (const T* body = body_of<T>(*message)) return std::pair(message->term, *body);
  }
  return std::nullopt;
}

}  // namespace

TEST_SUITE_BEGIN("raft.election");

TEST_CASE("three members elect one leader by themselves and commit its first entry") {
  Cluster cluster(3);
  cluster.tick_all(40);
  REQUIRE(cluster.leader().has_value());
  for (std::uint64_t id : {1, 2, 3}) {
    CHECK(cluster.core(id).leader_id() == node(*cluster.leader()));
    CHECK(cluster.core(id).commit_index() == Index{1});
    CHECK(cluster.core(id).term() == Term{1});
  }
}

TEST_CASE("a healthy cluster holds no second election") {
  Cluster cluster(5);
  cluster.tick_all(40);
  const Term term = cluster.core(1).term();
  cluster.tick_all(500);
  CHECK(cluster.core(1).term() == term);
}

TEST_CASE("a one-member cluster elects itself, commits and reads without a message") {
  Cluster cluster(1);
  cluster.core(1).campaign();
  cluster.settle();
  CHECK(cluster.core(1).role() == Role::leader);
  cluster.propose(1, "x");
  cluster.settle();
  CHECK(cluster.applied(1) == "x ");
  cluster.core(1).request_read(7);
  cluster.settle();
  REQUIRE(cluster.server(1).reads.size() == 1);
  CHECK(cluster.server(1).reads[0].read_index == Index{2});
  CHECK(cluster.network.empty());
}

TEST_CASE("a one-member cluster elects itself at its first timeout") {
  Cluster cluster(1);
  cluster.tick_all(20);
  CHECK(cluster.core(1).role() == Role::leader);
}

TEST_CASE("a follower grants at most one vote per term (A1)") {
  Cluster cluster(3);
  cluster.send(2, 1, 5, asking(0, 0));
  CHECK(newest<VoteReply>(cluster, 1, 2)->second.granted);
  cluster.send(3, 1, 5, asking(9, 4));
  CHECK_FALSE(newest<VoteReply>(cluster, 1, 3)->second.granted);
  // Also after it heard a leader, and after a restart.
  cluster.send(2, 1, 5, Heartbeat{});
  cluster.restart(1);
  cluster.send(3, 1, 5, asking(9, 4));
  CHECK_FALSE(newest<VoteReply>(cluster, 1, 3)->second.granted);
  CHECK(cluster.disk(1).hard_state == HardState{Term{5}, node(2)});
}

TEST_CASE("a vote is told only once it is durable (A3)") {
  Cluster cluster(3);
  cluster.hold_writes(1);
  cluster.send(2, 1, 5, asking(0, 0));
  CHECK_FALSE(newest<VoteReply>(cluster, 1, 2).has_value());
  cluster.sync_one(1);
  CHECK(newest<VoteReply>(cluster, 1, 2)->second.granted);
  CHECK(cluster.disk(1).hard_state == HardState{Term{5}, node(2)});
}

TEST_CASE("the own vote counts only once it is durable, not with a write from before it (A3, A21)") {
  Cluster cluster(1);
  cluster.hold_writes(1);
  cluster.send(9, 1, 4, asking(0, 0));
  cluster.core(1).campaign();
  cluster.take(1);
  REQUIRE(cluster.core(1).role() == Role::candidate);
  cluster.sync_one(1);
  CHECK(cluster.core(1).role() == Role::candidate);
  CHECK(cluster.disk(1).hard_state == HardState{Term{4}, node(9)});
  while (cluster.sync_one(1)) {
  }
  CHECK(cluster.disk(1).hard_state == HardState{Term{5}, node(1)});
  CHECK(cluster.core(1).role() == Role::leader);
}

TEST_CASE("a vote in a term that is already known is durable before it is told (A3)") {
  Cluster cluster(3);
  cluster.send(2, 1, 5, VoteReply{.pre = true, .granted = false});
  REQUIRE(cluster.core(1).term() == Term{5});
  cluster.send(3, 1, 5, asking(0, 0));
  CHECK(newest<VoteReply>(cluster, 1, 3)->second.granted);
  CHECK(cluster.disk(1).hard_state == HardState{Term{5}, node(3)});
}

TEST_CASE("who asks again gets the same vote again: the answer may have been lost") {
  Cluster cluster(3);
  cluster.send(2, 1, 5, asking(0, 0));
  cluster.network.clear();
  cluster.send(2, 1, 5, asking(0, 0));
  CHECK(newest<VoteReply>(cluster, 1, 2)->second.granted);
}

TEST_CASE("stickiness ends with the shortest election timeout, before the own timer (A14)") {
  Cluster cluster(3);
  cluster.elect(1);
  cluster.tick_all(1);
  cluster.filter = [](const Message&) { return false; };
  for (int i = 0; i < 9; ++i) cluster.tick(2);
  cluster.send(3, 2, 2, asking(1, 1, true));
  CHECK_FALSE(newest<VoteReply>(cluster, 2, 3)->second.granted);
  cluster.tick(2);
  if (cluster.core(2).role() == Role::follower) {
    cluster.send(3, 2, 2, asking(1, 1, true));
    CHECK(newest<VoteReply>(cluster, 2, 3)->second.granted);
  }
}

TEST_CASE("a late write of an old vote does not release a newer one (A3)") {
  Cluster cluster(3);
  cluster.hold_writes(1);
  cluster.send(2, 1, 5, asking(0, 0));
  cluster.send(3, 1, 6, asking(0, 0));
  REQUIRE(cluster.server(1).writing.size() == 2);
  cluster.sync_one(1);
  CHECK_FALSE(newest<VoteReply>(cluster, 1, 3).has_value());
  CHECK(cluster.disk(1).hard_state == HardState{Term{5}, node(2)});
  cluster.sync_one(1);
  CHECK(newest<VoteReply>(cluster, 1, 3)->second.granted);
}

TEST_CASE("a candidate asks only once its whole log, term and vote are durable (A15)") {
  Cluster cluster(3);
  cluster.elect(1);
  cluster.hold_writes(2);
  cluster.propose(1, "x");
  cluster.take(1);
  cluster.settle();
  cluster.filter = [](const Message&) { return false; };
  cluster.settle();
  CHECK(cluster.core(2).last_index() == Index{2});
  CHECK(cluster.core(2).stable_index() == Index{1});
  cluster.tick_only(2, 25);
  CHECK_FALSE(newest<VoteRequest>(cluster, 2, 1).has_value());
  cluster.filter = nullptr;
  while (cluster.sync_one(2)) {
  }
  const auto request = newest<VoteRequest>(cluster, 2, 1);
  REQUIRE(request.has_value());
  CHECK(request->second.last_index == cluster.disk(2).last_index());
}

TEST_CASE("a crashed candidate cannot win the term that it forgot") {
  Cluster cluster(3);
  cluster.hold_writes(1);
  cluster.core(1).campaign();
  cluster.settle();
  cluster.crash(1);
  CHECK(cluster.disk(1).hard_state == HardState{});
  for (std::uint64_t id : {2, 3}) CHECK(cluster.disk(id).hard_state == HardState{});
}

TEST_CASE("the more up to date log is of the later last term, then the longer one (A5)") {
  struct Row {
    std::uint64_t index, term;
    bool granted;
  };
  // The voter's log ends with (3, term 4).
  for (const Row& row : {Row{3, 4, true}, Row{4, 4, true}, Row{2, 4, false}, Row{1, 5, true}, Row{9, 3, false},
                         Row{0, 0, false}, Row{3, 3, false}, Row{3, 5, true}}) {
    for (bool pre : {false, true}) {
      CAPTURE(row.index);
      CAPTURE(row.term);
      CAPTURE(pre);
      Cluster cluster(3);
      cluster.replace_log(1, {entry(1, 1), entry(2, 2), entry(3, 4)}, {Term{5}, {}});
      cluster.send(2, 1, 6, asking(row.index, row.term, pre));
      CHECK(newest<VoteReply>(cluster, 1, 2)->second.granted == row.granted);
      CHECK(cluster.core(1).term() == (pre ? Term{5} : Term{6}));
    }
  }
}

TEST_CASE("granting a vote restarts the election timer, refusing one does not (A4)") {
  for (bool granted : {true, false}) {
    Cluster cluster(3);
    cluster.replace_log(1, {entry(1, 1)}, {Term{1}, {}});
    unsigned undisturbed = 0;
    while (cluster.core(1).role() == Role::follower) {
      cluster.tick(1);
      ++undisturbed;
    }
    cluster.restart(1);
    cluster.disk(1).hard_state = {Term{1}, {}};
    Cluster again(3);
    again.replace_log(1, {entry(1, 1)}, {Term{1}, {}});
    for (unsigned i = 0; i + 1 < undisturbed; ++i) again.tick(1);
    again.send(2, 1, 2, granted ? asking(1, 1) : asking(0, 0));
    again.tick(1);
    CHECK((again.core(1).role() == Role::follower) == granted);
  }
}

TEST_CASE("a vote repeated by the network counts once (A6)") {
  Cluster cluster(5);
  cluster.filter = [](const Message&) { return false; };
  cluster.core(1).campaign();
  cluster.settle();
  for (int i = 0; i < 3; ++i) cluster.send(2, 1, 1, VoteReply{.pre = true, .granted = true});
  CHECK(cluster.core(1).role() == Role::pre_candidate);
  cluster.send(3, 1, 1, VoteReply{.pre = true, .granted = true});
  cluster.settle();
  REQUIRE(cluster.core(1).role() == Role::candidate);
  for (int i = 0; i < 3; ++i) cluster.send(2, 1, 1, VoteReply{.pre = false, .granted = true});
  CHECK(cluster.core(1).role() == Role::candidate);
  cluster.send(3, 1, 1, VoteReply{.pre = false, .granted = true});
  CHECK(cluster.core(1).role() == Role::leader);
}

TEST_CASE("a pre-vote is no vote (A7)") {
  Cluster cluster(3);
  cluster.filter = [](const Message&) { return false; };
  cluster.core(1).campaign();
  cluster.settle();
  cluster.send(2, 1, 1, VoteReply{.pre = true, .granted = true});
  cluster.settle();
  REQUIRE(cluster.core(1).role() == Role::candidate);
  cluster.send(3, 1, 1, VoteReply{.pre = true, .granted = true});
  CHECK(cluster.core(1).role() == Role::candidate);
  cluster.send(3, 1, 1, VoteReply{.pre = false, .granted = true});
  CHECK(cluster.core(1).role() == Role::leader);
}

TEST_CASE("a vote of somebody who is no voter counts nothing") {
  Cluster cluster(4, voters({1, 2, 3}));
  cluster.filter = [](const Message&) { return false; };
  cluster.core(1).campaign();
  cluster.settle();
  cluster.send(4, 1, 1, VoteReply{.pre = true, .granted = true});
  cluster.send(9, 1, 1, VoteReply{.pre = true, .granted = true});
  CHECK(cluster.core(1).role() == Role::pre_candidate);
}

TEST_CASE("a pre-vote is granted in the term asked for, and refused in the replier's own (A8)") {
  Cluster cluster(3);
  cluster.replace_log(1, {entry(1, 1)}, {Term{3}, {}});
  cluster.send(2, 1, 7, asking(1, 1, true));
  CHECK(newest<VoteReply>(cluster, 1, 2)->first == Term{7});
  CHECK(newest<VoteReply>(cluster, 1, 2)->second.granted);
  cluster.send(3, 1, 2, asking(9, 1, true));
  CHECK(newest<VoteReply>(cluster, 1, 3)->first == Term{3});
  CHECK_FALSE(newest<VoteReply>(cluster, 1, 3)->second.granted);
  CHECK(cluster.core(1).term() == Term{3});
}

TEST_CASE("a longer log in a lower term and a shorter one in a higher find each other (A9, A10)") {
  Cluster cluster(3);
  cluster.replace_log(1, {entry(1, 1), entry(2, 1)}, {Term{1}, {}});
  cluster.replace_log(2, {entry(1, 1)}, {Term{9}, {}});
  cluster.replace_log(3, {entry(1, 1)}, {Term{4}, {}});
  cluster.isolate(3);
  cluster.tick_all(200);
  REQUIRE(cluster.leader() == 1);
  CHECK(cluster.core(1).term() > Term{9});
  CHECK(cluster.core(2).commit_index() == cluster.core(1).last_index());
}

TEST_CASE("an isolated member does not raise its term, and rejoins without an election (A12)") {
  Cluster cluster(4);
  cluster.elect(1);
  cluster.isolate(4);
  cluster.tick_all(300);
  CHECK(cluster.core(4).term() == Term{1});
  CHECK(cluster.core(4).role() == Role::pre_candidate);
  cluster.heal();
  cluster.tick_all(30);
  CHECK(cluster.leader() == 1);
  CHECK(cluster.core(1).term() == Term{1});
  CHECK(cluster.core(4).leader_id() == node(1));
}

TEST_CASE("a member with a higher term deposes a leader that cannot reach it otherwise (A12)") {
  Cluster cluster(4);
  cluster.elect(1);
  cluster.crash(4);
  cluster.disk(4).hard_state = {Term{8}, {}};
  cluster.start(4);
  cluster.tick_all(100);
  REQUIRE(cluster.leader().has_value());
  for (std::uint64_t id : {1, 2, 3, 4}) CHECK(cluster.core(id).leader_id() == node(*cluster.leader()));
  CHECK(cluster.core(4).term() > Term{8});
}

TEST_CASE("whoever hears a leader takes no part in deposing it (A13, A14)") {
  Cluster cluster(3);
  cluster.elect(1);
  cluster.tick_all(1);
  cluster.send(9, 2, 50, asking(99, 49));
  CHECK(cluster.core(2).term() == Term{1});
  cluster.send(9, 1, 50, asking(99, 49));
  CHECK(cluster.core(1).role() == Role::leader);
  cluster.send(9, 2, 50, asking(99, 49, true));
  CHECK_FALSE(newest<VoteReply>(cluster, 2, 9)->second.granted);
}

TEST_CASE("a vote that the leader ordered passes (A22)") {
  Cluster cluster(3);
  cluster.elect(1);
  cluster.tick_all(1);
  cluster.send(3, 2, 2, asking(1, 1, false, true));
  CHECK(cluster.core(2).term() == Term{2});
  CHECK(newest<VoteReply>(cluster, 2, 3)->second.granted);
}

TEST_CASE("learners, and members that know no configuration, answer a candidate by the log rule (A23)") {
  Configuration configuration = voters({1, 2});
  configuration.members.push_back(learner(3));
  Cluster cluster(3, configuration);
  cluster.add(4);
  for (std::uint64_t id : {3, 4}) {
    cluster.send(1, id, 1, asking(0, 0));
    CHECK(newest<VoteReply>(cluster, id, 1)->second.granted);
  }
}

TEST_CASE("learners and members without a configuration never stand (D12, D16)") {
  Configuration configuration = voters({1, 2});
  configuration.members.push_back(learner(3));
  Cluster cluster(3, configuration);
  cluster.add(4);
  for (std::uint64_t id : {3, 4}) {
    cluster.core(id).campaign();
    cluster.tick_only(id, 100);
    CHECK(cluster.core(id).role() == Role::follower);
    CHECK(cluster.core(id).term() == Term{});
  }
}

TEST_CASE("a member stands though an uncommitted change removes it: nobody else may have the change (A25)") {
  Cluster cluster(2);
  const std::vector<Entry> log{entry(1, 1), configuration_entry(2, 1, voters({1}))};
  cluster.replace_log(1, {entry(1, 1)}, {Term{1}, {}}, Index{1});
  cluster.replace_log(2, log, {Term{1}, {}}, Index{1});
  cluster.tick_all(200);
  // It wins by 1's vote alone, commits its own removal, and hands over.
  REQUIRE(cluster.leader() == 1);
  CHECK(cluster.core(1).configuration() == voters({1}));
  CHECK(cluster.core(1).commit_index() >= Index{3});
  CHECK(cluster.core(2).role() == Role::follower);
}

TEST_CASE("votes are counted by the configuration in the log, committed or not (A24)") {
  Cluster cluster(3, voters({1}));
  // 1 alone was enough before; now it needs 2 or 3 as well.
  cluster.replace_log(1, {entry(1, 1), configuration_entry(2, 1, voters({1, 2, 3}))}, {Term{1}, {}}, Index{1});
  cluster.isolate(1);
  cluster.tick_only(1, 100);
  CHECK(cluster.core(1).role() == Role::pre_candidate);
}

TEST_CASE("split votes end: different seeds draw different timeouts (A17)") {
  Cluster cluster(4);
  cluster.tick_all(200);
  CHECK(cluster.leader().has_value());
}

TEST_CASE("timeouts are drawn from one to two election times") {
  std::set<unsigned> seen;
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    Core core(CoreOptions{.id = node(1), .seed = seed},
              Restored{.configuration = voters({1, 2}), .first_index = Index{1}});
    unsigned ticks = 0;
    while (core.role() == Role::follower) {
      core.tick();
      ++ticks;
    }
    seen.insert(ticks);
  }
  CHECK(*seen.begin() == 10);
  CHECK(*seen.rbegin() == 19);
  CHECK(seen.size() == 10);
}

TEST_CASE("a leader that hears no majority steps down, and says so (I3)") {
  Cluster cluster(3);
  cluster.elect(1);
  // One way only: it can send, nobody's answer arrives.
  cluster.cut(2, 1);
  cluster.cut(3, 1);
  cluster.tick_all(11);
  CHECK(cluster.core(1).role() != Role::leader);
  cluster.tick_all(60);
  CHECK(cluster.leader().has_value());
  CHECK(cluster.leader() != 1);
}

TEST_CASE("a leader whose own disk stalls steps down, and stands no more (E16)") {
  Cluster cluster(3);
  cluster.elect(1);
  cluster.hold_writes(1);
  cluster.propose(1, "x");
  cluster.settle();
  // The majority has it all the same.
  CHECK(cluster.applied(2) == "x ");
  cluster.tick_all(120);
  CHECK(cluster.core(1).role() == Role::follower);
  REQUIRE(cluster.leader().has_value());
  CHECK(cluster.leader() != 1);
}

TEST_CASE("a leader whose disk is slow but alive goes on") {
  Cluster cluster(3);
  cluster.elect(1);
  cluster.hold_writes(1);
  for (int i = 0; i < 10; ++i) {
    cluster.propose(1, "x");
    cluster.tick_all(40);
    cluster.sync_one(1);
  }
  CHECK(cluster.leader() == 1);
  CHECK(cluster.core(1).term() == Term{1});
}

TEST_CASE("a leader appends one entry and sends it before time passes, however long its log (A19)") {
  Cluster cluster(3);
  std::vector<Entry> log;
  for (std::uint64_t i = 1; i <= 5000; ++i) log.push_back(entry(i, 1));
  cluster.replace_log(1, log, {Term{1}, {}});
  cluster.elect(1);
  CHECK(cluster.core(1).commit_index() == Index{5001});
}

TEST_CASE("a restart keeps the term and the vote (A2)") {
  Cluster cluster(3);
  cluster.elect(2);
  for (std::uint64_t id : {1, 2, 3}) cluster.crash(id);
  for (std::uint64_t id : {1, 2, 3}) cluster.start(id);
  for (std::uint64_t id : {1, 2, 3}) {
    CHECK(cluster.core(id).term() == Term{1});
    cluster.send(9, id, 1, asking(99, 1));
    CHECK_FALSE(newest<VoteReply>(cluster, id, 9)->second.granted);
  }
}

TEST_SUITE_END();
