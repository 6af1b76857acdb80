#include "raft/cluster.hpp"

using namespace flotilla;
using namespace flotilla::raft;
using namespace flotilla::raft::testing;

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

TEST_SUITE_END();
