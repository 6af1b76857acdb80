#include "raft/progress.hpp"

#include "raft/cluster.hpp"

using namespace flotilla;
using namespace flotilla::raft;
using namespace flotilla::raft::testing;

namespace {
const Window window{.bytes_max = 100, .messages_max = 3};

Progress replicating(std::uint64_t match) {
  Progress progress(node(2), Index{match + 1});
  progress.accepted(Index{match});
  return progress;
}
}  // namespace

TEST_SUITE_BEGIN("raft.progress");

TEST_CASE("a probe is one append, until it is answered") {
  Progress progress(node(2), Index{5});
  CHECK(progress.may_append(window));
  progress.appended(Index{6}, 10);
  CHECK_FALSE(progress.may_append(window));
  CHECK(progress.next_index() == Index{5});
  CHECK(progress.accepted(Index{6}));
  CHECK(progress.mode() == ProgressMode::replicate);
  CHECK(progress.next_index() == Index{7});
}

TEST_CASE("the window closes by messages and by bytes, and opens as they are answered (B16)") {
  Progress progress = replicating(4);
  progress.appended(Index{5}, 10);
  progress.appended(Index{6}, 10);
  progress.appended(Index{7}, 10);
  CHECK_FALSE(progress.may_append(window));
  progress.accepted(Index{6});
  CHECK(progress.inflight_messages() == 1);
  CHECK(progress.inflight_bytes() == 10);
  progress.appended(Index{8}, 90);
  CHECK_FALSE(progress.may_append(window));
  progress.accepted(Index{8});
  CHECK(progress.inflight_bytes() == 0);
  CHECK(progress.may_append(window));
}

TEST_CASE("an append larger than the window goes when nothing else is out") {
  Progress progress = replicating(4);
  progress.appended(Index{5}, 1000);
  CHECK_FALSE(progress.may_append(window));
  progress.accepted(Index{5});
  CHECK(progress.may_append(window));
}

TEST_CASE("an old rejection changes nothing (B6)") {
  Progress progress = replicating(4);
  CHECK_FALSE(progress.rejected(Index{4}, Index{1}));
  CHECK_FALSE(progress.rejected(Index{3}, Index{1}));
  CHECK(progress.next_index() == Index{5});
  Progress probe(node(2), Index{9});
  probe.appended(Index{8}, 0);
  CHECK_FALSE(probe.rejected(Index{7}, Index{1}));  // of another probe
  CHECK(probe.paused());
}

TEST_CASE("every rejection lowers the probe, by the hint but never to what matches (B22)") {
  Progress progress(node(2), Index{9});
  progress.appended(Index{8}, 0);
  CHECK(progress.rejected(Index{8}, Index{100}));
  CHECK(progress.next_index() == Index{8});
  progress.appended(Index{7}, 0);
  CHECK(progress.rejected(Index{7}, Index{3}));
  CHECK(progress.next_index() == Index{3});
  Progress matched = replicating(4);
  matched.appended(Index{9}, 1);
  CHECK(matched.rejected(Index{9}, Index{0}));
  CHECK(matched.next_index() == Index{5});
  CHECK(matched.inflight_messages() == 0);
}

TEST_CASE("match_index never falls and next_index stays above it (B26)") {
  Progress progress = replicating(4);
  progress.appended(Index{9}, 1);
  CHECK(progress.accepted(Index{7}));
  CHECK_FALSE(progress.accepted(Index{6}));
  CHECK(progress.match_index() == Index{7});
  progress.probe_again();
  CHECK(progress.next_index() == Index{8});
  CHECK(progress.broken() == nullptr);
}

TEST_CASE("nothing is appended while a snapshot is under way") {
  Progress progress = replicating(4);
  progress.appended(Index{5}, 1);
  progress.enter_snapshot();
  CHECK_FALSE(progress.may_append(window));
  CHECK(progress.inflight_messages() == 0);
  CHECK_FALSE(progress.rejected(Index{9}, Index{1}));
  progress.leave_snapshot();
  CHECK(progress.mode() == ProgressMode::probe);
}

TEST_SUITE_END();
