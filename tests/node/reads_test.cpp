#include "node/reads.hpp"

#include <doctest/doctest.h>

#include <vector>

#include "led_core.hpp"

using namespace flotilla;
using namespace std::chrono_literals;
using flotilla::node::Reads;

namespace {

raft::Core follower() {
  return test::core_of({{NodeId{1}, "", true}, {NodeId{2}, "", true}});
}

struct Ended {
  std::vector<Result<Index>> results;
  IndexCompletion done() {
    return [this](Result<Index> result) { results.push_back(std::move(result)); };
  }
};

}  // namespace

TEST_SUITE_BEGIN("node.reads");

TEST_CASE("barriers of one turn share a request, and each waits for apply to reach the read index") {
  Reads reads(0);
  raft::Core core = follower();
  Ended ended;
  reads.add({1s, ended.done()}, Index{5});
  reads.add({1s, ended.done()}, Index{5});
  reads.request(core);
  reads.answer({1, Index{7}}, Index{5});
  CHECK(ended.results.empty());
  reads.applied(Index{6});
  CHECK(ended.results.empty());
  reads.applied(Index{8});
  REQUIRE(ended.results.size() == 2);
  CHECK(ended.results[0] == Index{8});
  CHECK(reads.size() == 0);
}

TEST_CASE("a read index that is already applied ends the barrier at once") {
  Reads reads(0);
  raft::Core core = follower();
  Ended ended;
  reads.add({1s, ended.done()}, Index{5});
  reads.request(core);
  reads.answer({1, Index{5}}, Index{5});
  CHECK(ended.results.size() == 1);
}

TEST_CASE("what no leader confirmed is asked again under a new id until its deadline") {
  Reads reads(0);
  raft::Core core = follower();
  Ended ended;
  reads.add({1s, ended.done()}, Index{5});
  reads.request(core);
  reads.answer({1, std::nullopt}, Index{5});
  reads.tick(500ms, false);
  CHECK(ended.results.empty());
  reads.request(core);
  reads.answer({1, Index{5}}, Index{5});  // an answer to the first asking proves nothing
  CHECK(ended.results.empty());
  reads.answer({2, std::nullopt}, Index{5});
  reads.tick(1s, false);
  REQUIRE(ended.results.size() == 1);
  CHECK(ended.results[0].error() == Errc::no_leader);
}

TEST_CASE("a barrier that waits for apply ends by its deadline") {
  Reads reads(0);
  Ended ended;
  reads.add({1s, ended.done(), Index{9}}, Index{5});
  reads.tick(999ms, true);
  CHECK(ended.results.empty());
  reads.tick(1s, true);
  REQUIRE(ended.results.size() == 1);
  CHECK(ended.results[0].error() == Errc::timeout);
  CHECK(reads.size() == 0);
}

TEST_CASE("ending all leaves nobody waiting, wherever it stands") {
  Reads reads(0);
  raft::Core core = follower();
  Ended ended;
  reads.add({1s, ended.done()}, Index{5});
  reads.request(core);
  reads.add({1s, ended.done()}, Index{5});
  reads.add({1s, ended.done(), Index{9}}, Index{5});
  reads.end_all(Error(Errc::closed));
  CHECK(ended.results.size() == 3);
  CHECK(reads.size() == 0);
}

TEST_SUITE_END();
