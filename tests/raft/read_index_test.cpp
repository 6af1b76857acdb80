#include "raft/cluster.hpp"

using namespace flotilla;
using namespace flotilla::raft;
using namespace flotilla::raft::testing;

namespace {

std::vector<ReadState> reads(Cluster& cluster, std::uint64_t id) {
  return std::exchange(cluster.server(id).reads, {});
}

}  // namespace

TEST_SUITE_BEGIN("raft.read_index");

TEST_CASE("a leader's read index includes everything committed before, confirmed by a majority") {
  Cluster cluster(3);
  cluster.elect(1);
  cluster.propose(1, "x");
  cluster.settle();
  cluster.core(1).request_read(5);
  cluster.take(1);
  CHECK(reads(cluster, 1).empty());
  cluster.settle();
  const auto answered = reads(cluster, 1);
  REQUIRE(answered.size() == 1);
  CHECK(answered[0].id == 5);
  CHECK(answered[0].read_index == Index{2});
}

TEST_CASE("reads of one turn share a round of heartbeats") {
  Cluster cluster(3);
  cluster.elect(1);
  for (std::uint64_t id = 1; id <= 100; ++id) cluster.core(1).request_read(id);
  cluster.take(1);
  CHECK(cluster.count_in_network<Heartbeat>() == 2);
  cluster.settle();
  CHECK(reads(cluster, 1).size() == 100);
}

TEST_CASE("a follower asks its leader, and a learner too") {
  Configuration configuration = voters({1, 2});
  configuration.members.push_back(learner(3));
  Cluster cluster(3, configuration);
  cluster.elect(1);
  cluster.propose(1, "x");
  cluster.settle();
  for (std::uint64_t id : {2, 3}) {
    cluster.core(id).request_read(7);
    cluster.settle();
    const auto answered = reads(cluster, id);
    REQUIRE(answered.size() == 1);
    CHECK(answered[0].read_index == Index{2});
  }
}

TEST_CASE("a member that knows no leader says so at once (C7)") {
  Cluster cluster(3);
  cluster.core(1).request_read(1);
  cluster.settle();
  const auto answered = reads(cluster, 1);
  REQUIRE(answered.size() == 1);
  CHECK_FALSE(answered[0].read_index.has_value());
}

TEST_CASE("a new leader holds reads until it committed an entry of its own term (C5)") {
  Cluster cluster(3);
  cluster.filter = [](const Message& message) { return !body_of<AppendReply>(message); };
  cluster.elect(2);
  cluster.core(2).request_read(1);
  cluster.core(1).request_read(2);
  cluster.tick_all(3);
  CHECK(reads(cluster, 2).empty());
  CHECK(reads(cluster, 1).empty());
  cluster.filter = nullptr;
  cluster.tick_all(12);
  const auto own = reads(cluster, 2);
  REQUIRE(own.size() == 1);
  CHECK(own[0].read_index >= Index{1});
  REQUIRE(reads(cluster, 1).size() == 1);
}

TEST_CASE("a deposed leader confirms nothing (C10)") {
  Cluster cluster(3);
  cluster.elect(1);
  cluster.isolate(1);
  cluster.core(1).request_read(1);
  cluster.settle();
  CHECK(reads(cluster, 1).empty());
  cluster.tick_all(12);
  // It gave up, and said so.
  const auto answered = reads(cluster, 1);
  REQUIRE(answered.size() == 1);
  CHECK_FALSE(answered[0].read_index.has_value());
}

TEST_CASE("an answer to an earlier round does not confirm a later read (C6)") {
  Cluster cluster(3);
  cluster.elect(1);
  cluster.core(1).request_read(1);
  cluster.take(1);
  std::deque<Message> first;
  cluster.filter = [&](const Message& message) {
    if (body_of<HeartbeatReply>(message)) first.push_back(message);
    return !body_of<HeartbeatReply>(message);
  };
  cluster.settle();
  cluster.core(1).request_read(2);
  cluster.filter = [](const Message&) { return false; };
  cluster.settle();
  REQUIRE(first.size() == 2);
  for (const Message& message : first) cluster.core(1).step(message);
  cluster.take(1);
  const auto answered = reads(cluster, 1);
  REQUIRE(answered.size() == 1);
  CHECK(answered[0].id == 1);
}

TEST_CASE("a confirmation repeated by the network counts once, a learner's not at all (C12)") {
  Configuration configuration = voters({1, 2, 3, 4, 5});
  configuration.members.push_back(learner(6));
  Cluster cluster(6, configuration);
  cluster.elect(1);
  cluster.filter = [](const Message& message) { return !body_of<HeartbeatReply>(message); };
  cluster.core(1).request_read(1);
  cluster.settle();
  const std::uint64_t round = 1;
  for (int i = 0; i < 3; ++i) cluster.send(2, 1, 1, HeartbeatReply{round});
  cluster.send(6, 1, 1, HeartbeatReply{round});
  cluster.send(9, 1, 1, HeartbeatReply{round});
  cluster.send(3, 1, 1, HeartbeatReply{round + 9});
  CHECK(reads(cluster, 1).empty());
  cluster.send(3, 1, 1, HeartbeatReply{round});
  CHECK(reads(cluster, 1).size() == 1);
}

TEST_CASE("in a joint configuration both majorities confirm (C13)") {
  Configuration configuration = voters({1, 2, 3});
  configuration.members.push_back(learner(4));
  configuration.members.push_back(learner(5));
  Cluster cluster(5, configuration);
  cluster.elect(1);
  REQUIRE(cluster.core(1).propose_configuration(voters({1, 4, 5}), 0).has_value());
  cluster.filter = [](const Message& message) {
    return !body_of<AppendReply>(message) && !body_of<HeartbeatReply>(message);
  };
  cluster.settle();
  REQUIRE(cluster.core(1).configuration().joint());
  cluster.core(1).request_read(1);
  cluster.settle();
  for (std::uint64_t id : {4, 5}) cluster.send(id, 1, 1, HeartbeatReply{1});
  CHECK(reads(cluster, 1).empty());
  cluster.send(2, 1, 1, HeartbeatReply{1});
  CHECK(reads(cluster, 1).size() == 1);
}

TEST_CASE("a read asked of a leader that is gone ends without an index") {
  Cluster cluster(3);
  cluster.elect(1);
  cluster.crash(1);
  cluster.core(2).request_read(1);
  cluster.tick_all(25);
  const auto answered = reads(cluster, 2);
  REQUIRE(answered.size() == 1);
  CHECK_FALSE(answered[0].read_index.has_value());
}

TEST_CASE("a read whose answer is lost ends in bounded time") {
  Cluster cluster(3);
  cluster.elect(1);
  cluster.filter = [](const Message& message) { return !body_of<ReadIndexReply>(message); };
  cluster.core(2).request_read(1);
  cluster.tick_all(20);
  const auto answered = reads(cluster, 2);
  REQUIRE(answered.size() == 1);
  CHECK_FALSE(answered[0].read_index.has_value());
}

TEST_CASE("an answer that nobody asked for, or of somebody else, is ignored") {
  Cluster cluster(3);
  cluster.elect(1);
  cluster.send(1, 2, 1, ReadIndexReply{9, true, Index{1}});
  cluster.filter = [](const Message&) { return false; };
  cluster.core(2).request_read(1);
  cluster.settle();
  cluster.send(3, 2, 1, ReadIndexReply{1, true, Index{1}});
  CHECK(reads(cluster, 2).empty());
  cluster.send(1, 2, 1, ReadIndexReply{1, true, Index{1}});
  CHECK(reads(cluster, 2).size() == 1);
}

TEST_CASE("a member that does not lead, and a stranger's question, are refused") {
  Cluster cluster(3);
  cluster.elect(1);
  const auto refused = [&](std::uint64_t from) {
    const auto* reply = body_of<ReadIndexReply>(cluster.network.back());
    return reply != nullptr && !reply->accepted && cluster.network.back().to == node(from);
  };
  cluster.send(3, 2, 1, ReadIndexRequest{4});
  CHECK(refused(3));
  cluster.send(9, 1, 1, ReadIndexRequest{4});
  CHECK(refused(9));
}

TEST_CASE("the reads of a leader that steps down are all answered (C1)") {
  Cluster cluster(3);
  cluster.elect(1);
  cluster.filter = [](const Message& message) { return !body_of<HeartbeatReply>(message); };
  for (std::uint64_t id = 1; id <= 5; ++id) cluster.core(1).request_read(id);
  cluster.core(2).request_read(6);
  cluster.settle();
  cluster.filter = nullptr;
  cluster.send(3, 1, 9, Heartbeat{});
  cluster.settle();
  CHECK(reads(cluster, 1).size() == 5);
  CHECK(reads(cluster, 2).size() == 1);
}

TEST_SUITE_END();
