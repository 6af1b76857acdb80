#include "raft/cluster.hpp"

using namespace flotilla;
using namespace flotilla::raft;
using namespace flotilla::raft::testing;

namespace {

/// 1 leads; 3 lags behind what 1 and 2 have trimmed.
Cluster with_a_laggard(std::function<void(CoreOptions&)> adjust = {}) {
  Cluster cluster(3, std::nullopt, [adjust](CoreOptions& options) {
    options.tail_bytes_max = 0;
    if (adjust) adjust(options);
  });
  cluster.elect(1);
  cluster.isolate(3);
  for (const char* text : {"a", "b", "c", "d"}) {
    cluster.propose(1, text);
    cluster.settle();
  }
  cluster.trim(1, Index{5});
  cluster.trim(2, Index{5});
  cluster.core(1).unreachable(node(3));
  return cluster;
}

SnapshotRequest announcing(std::uint64_t index, std::uint64_t index_term) {
  return SnapshotRequest{Index{index}, Term{index_term}, voters({1, 2, 3})};
}

std::optional<SnapshotReply> answer(const Cluster& cluster) {
  for (const Message& message : cluster.network) {
    if (const auto* body = body_of<SnapshotReply>(message)) return *body;
  }
  return std::nullopt;
}

SnapshotMeta meta_at(std::uint64_t index, std::uint64_t term) {
  return SnapshotMeta{Index{index}, Term{term}, voters({1, 2, 3}), Index{}, 77};
}

}  // namespace

TEST_SUITE_BEGIN("raft.snapshot");

TEST_CASE("a follower that needs what the log no longer has gets a snapshot, then entries") {
  Cluster cluster = with_a_laggard();
  cluster.heal();
  cluster.tick_all(15);
  CHECK(cluster.applied(3) == "a b c d ");
  CHECK(cluster.disk(3).base.index == Index{5});
  cluster.propose(1, "e");
  cluster.settle();
  CHECK(cluster.applied(3) == "a b c d e ");
  CHECK(cluster.core(1).progress(node(3))->mode() == ProgressMode::replicate);
}

TEST_CASE("a snapshot at the leader's last index ends the probing without a new write (B14)") {
  Cluster cluster = with_a_laggard();
  cluster.heal();
  cluster.tick_all(15);
  CHECK(cluster.core(1).match_index(node(3)) == cluster.core(1).last_index());
  CHECK(cluster.core(1).progress(node(3))->mode() == ProgressMode::replicate);
}

TEST_CASE("an empty joiner of a trimmed log gets a snapshot with the configuration in it (D5)") {
  Cluster cluster = with_a_laggard();
  cluster.heal();
  cluster.tick_all(15);
  cluster.add(4);
  Configuration wanted = voters({1, 2, 3});
  wanted.members.push_back(learner(4));
  REQUIRE(cluster.core(1).propose_configuration(wanted, 0).has_value());
  cluster.settle();
  cluster.tick_all(15);
  CHECK(cluster.applied(4) == "a b c d ");
  CHECK(cluster.core(4).configuration() == wanted);
  cluster.restart(4);
  CHECK(cluster.core(4).configuration() == wanted);
}

TEST_CASE("the sender's part fails and is tried again, not at once") {
  Cluster cluster = with_a_laggard();
  cluster.heal();
  cluster.serve = false;
  cluster.tick_all(2);
  REQUIRE(cluster.server(1).snapshot_sends.size() == 1);
  CHECK(cluster.core(1).progress(node(3))->mode() == ProgressMode::snapshot);
  cluster.core(1).snapshot_failed(node(3));
  cluster.tick_all(5);
  CHECK(cluster.server(1).snapshot_sends.size() == 1);
  cluster.tick_all(10);
  CHECK(cluster.server(1).snapshot_sends.size() == 2);
  cluster.serve = true;
  cluster.settle();
  cluster.tick_all(2);
  CHECK(cluster.applied(3) == "a b c d ");
}

TEST_CASE("an announcement that is lost is repeated") {
  Cluster cluster = with_a_laggard();
  cluster.heal();
  unsigned announced = 0;
  cluster.filter = [&](const Message& message) {
    if (!body_of<SnapshotRequest>(message)) return true;
    return ++announced > 2;
  };
  cluster.tick_all(45);
  CHECK(announced == 3);
  CHECK(cluster.applied(3) == "a b c d ");
}

TEST_CASE("the receiver refuses, and the sender begins anew") {
  Cluster cluster = with_a_laggard();
  cluster.heal();
  cluster.serve = false;
  cluster.tick_all(2);
  cluster.core(1).snapshot_sent(node(3), meta_at(5, 1));
  cluster.settle();
  REQUIRE(cluster.server(3).offer.has_value());
  CHECK(cluster.server(3).offer->index == Index{5});
  CHECK(cluster.server(3).offer->index_term == Term{1});
  cluster.core(3).snapshot_refused();
  cluster.settle();
  CHECK(cluster.core(1).progress(node(3))->mode() == ProgressMode::probe);
  cluster.serve = true;
  cluster.tick_all(25);
  CHECK(cluster.applied(3) == "a b c d ");
}

TEST_CASE("a snapshot at or below what is committed is not needed (F2)") {
  Cluster cluster(3);
  cluster.elect(1);
  for (int i = 0; i < 4; ++i) cluster.propose(1, "x");
  cluster.settle();
  cluster.send(1, 2, 1, announcing(3, 1));
  CHECK_FALSE(cluster.server(2).offer.has_value());
  REQUIRE(answer(cluster).has_value());
  CHECK(answer(cluster)->accepted);
  CHECK(answer(cluster)->match_index == Index{3});
  CHECK(cluster.core(2).last_index() == Index{5});
}

TEST_CASE("a snapshot of an entry in the log keeps the log and commits up to it (section 7)") {
  Cluster cluster(3);
  cluster.replace_log(2, {entry(1, 1), entry(2, 1), entry(3, 1)}, {Term{1}, {}});
  cluster.send(1, 2, 1, announcing(2, 1));
  CHECK_FALSE(cluster.server(2).offer.has_value());
  CHECK(cluster.core(2).commit_index() == Index{2});
  CHECK(cluster.core(2).last_index() == Index{3});
}

TEST_CASE("a snapshot replaces a log that differs; term, vote and the newest configuration stay right (D6, E8)") {
  Cluster cluster(3);
  cluster.replace_log(2, {entry(1, 1), entry(2, 1)}, {Term{3}, node(1)});
  cluster.send(1, 2, 3, announcing(9, 3));
  REQUIRE(cluster.server(2).offer.has_value());
  Configuration newer = voters({1, 2, 3, 4});
  cluster.core(2).snapshot_installed(SnapshotMeta{Index{9}, Term{3}, newer, Index{7}, 500});
  Ready ready = cluster.core(2).take_ready();
  REQUIRE(ready.log_restart.has_value());
  CHECK(ready.log_restart->index == Index{9});
  CHECK(ready.must_write());
  REQUIRE(ready.messages_after_sync.size() == 1);
  CHECK(body_of<SnapshotReply>(ready.messages_after_sync[0])->match_index == Index{9});
  CHECK(ready.configuration_changed);
  CHECK(cluster.core(2).configuration() == newer);
  CHECK(cluster.core(2).configuration_index() == Index{7});
  CHECK(cluster.core(2).commit_index() == Index{9});
  CHECK(cluster.core(2).stable_index() == Index{9});
  CHECK(cluster.core(2).term() == Term{3});
  CHECK(cluster.core(2).term_at(Index{9}) == Term{3});
  CHECK_FALSE(cluster.core(2).term_at(Index{2}).has_value());
}

TEST_CASE("the term of a snapshot is its entry's, so the next append fits (F1)") {
  Cluster cluster(3);
  cluster.send(1, 2, 5, announcing(9, 3));
  cluster.disk(2).base = meta_at(9, 3);
  cluster.core(2).snapshot_installed(meta_at(9, 3));
  cluster.send(1, 2, 5, AppendRequest{Index{9}, Term{3}, Index{9}, {entry(10, 5)}});
  CHECK(cluster.core(2).last_index() == Index{10});
}

TEST_CASE("a write from before the snapshot that completes late proves nothing after it (F15)") {
  Cluster cluster(3);
  cluster.hold_writes(2);
  cluster.send(1, 2, 1, AppendRequest{Index{}, Term{}, Index{}, {entry(1, 1), entry(2, 1), entry(3, 1), entry(4, 1)}});
  const std::uint64_t old_write = cluster.server(2).writing.back().sequence;
  cluster.send(1, 2, 2, announcing(2, 2));
  cluster.core(2).snapshot_installed(meta_at(2, 2));
  cluster.send(1, 2, 2, AppendRequest{Index{2}, Term{2}, Index{}, {entry(3, 2), entry(4, 2)}});
  cluster.core(2).persisted(old_write, Term{1}, Index{4});
  CHECK(cluster.core(2).stable_index() == Index{2});
}

TEST_CASE("while a snapshot is installed a member takes no entries and does not stand (A27, F3, F4)") {
  Cluster cluster(3);
  cluster.elect(1);
  cluster.send(1, 2, 1, announcing(9, 1));
  REQUIRE(cluster.server(2).offer.has_value());
  cluster.send(1, 2, 1, AppendRequest{Index{1}, Term{1}, Index{1}, {entry(2, 1)}});
  CHECK(cluster.core(2).last_index() == Index{1});
  cluster.filter = [](const Message&) { return false; };
  cluster.tick_only(2, 60);
  CHECK(cluster.core(2).role() == Role::follower);
  cluster.core(2).snapshot_refused();
  cluster.tick_only(2, 60);
  CHECK(cluster.core(2).role() == Role::pre_candidate);
}

TEST_CASE("one offer at a time; a repeated or other announcement waits (F7)") {
  Cluster cluster(3);
  cluster.send(1, 2, 1, announcing(9, 1));
  REQUIRE(cluster.server(2).offer.has_value());
  cluster.server(2).offer.reset();
  cluster.send(1, 2, 1, announcing(9, 1));
  cluster.send(1, 2, 1, announcing(12, 1));
  CHECK_FALSE(cluster.server(2).offer.has_value());
}

TEST_CASE("an installed snapshot never takes the state back in time (F2, F8)") {
  Cluster cluster(3);
  cluster.elect(1);
  for (int i = 0; i < 4; ++i) cluster.propose(1, "x");
  cluster.settle();
  cluster.core(2).snapshot_installed(meta_at(3, 1));
  CHECK(cluster.core(2).commit_index() == Index{5});
  CHECK(cluster.core(2).last_index() == Index{5});
}

TEST_CASE("an installed snapshot from before the oldest known term takes nothing back either (F2)") {
  Cluster cluster = with_a_laggard();
  REQUIRE_FALSE(cluster.core(2).term_at(Index{2}).has_value());
  cluster.core(2).snapshot_installed(meta_at(2, 1));
  CHECK(cluster.core(2).commit_index() == Index{5});
  CHECK(cluster.core(2).last_index() == Index{5});
  CHECK_FALSE(cluster.core(2).take_ready().log_restart.has_value());
}

TEST_CASE("an installed snapshot of an entry in the log commits it, and what was acknowledged after it stays") {
  Cluster cluster(3);
  cluster.send(1, 2, 1, AppendRequest{Index{}, Term{}, Index{}, {entry(1, 1), entry(2, 1), entry(3, 1), entry(4, 1)}});
  cluster.core(2).snapshot_installed(meta_at(3, 1));
  const Ready ready = cluster.core(2).take_ready();
  CHECK_FALSE(ready.log_restart.has_value());
  CHECK(ready.committed.empty());
  CHECK(cluster.core(2).commit_index() == Index{3});
  CHECK(cluster.core(2).last_index() == Index{4});
  CHECK(cluster.core(2).stable_index() == Index{4});
}

TEST_CASE("answers about a transfer of an earlier leadership, or of a removed member, change nothing (D17, F18)") {
  Cluster cluster(3);
  cluster.elect(1);
  cluster.core(1).snapshot_sent(node(2), meta_at(1, 1));
  cluster.core(1).snapshot_failed(node(2));
  cluster.core(1).snapshot_sent(node(9), meta_at(1, 1));
  cluster.core(2).snapshot_sent(node(1), meta_at(1, 1));
  cluster.core(2).snapshot_failed(node(1));
  CHECK(cluster.core(1).progress(node(2))->mode() == ProgressMode::replicate);
}

TEST_CASE("a snapshot that the log was trimmed past is made anew (F13)") {
  Cluster cluster = with_a_laggard();
  cluster.heal();
  cluster.serve = false;
  cluster.tick_all(2);
  REQUIRE(cluster.core(1).progress(node(3))->mode() == ProgressMode::snapshot);
  cluster.core(1).snapshot_sent(node(3), meta_at(2, 1));
  CHECK(cluster.core(1).progress(node(3))->mode() == ProgressMode::probe);
}

TEST_CASE("announcements that cannot be are ignored") {
  Cluster cluster(3);
  const std::uint64_t before = cluster.core(2).ignored_messages();
  cluster.send(1, 2, 3, announcing(0, 1));
  cluster.send(1, 2, 3, announcing(9, 0));
  cluster.send(1, 2, 3, announcing(9, 4));
  cluster.send(1, 2, 3, SnapshotRequest{Index{9}, Term{1}, Configuration{}});
  CHECK(cluster.core(2).ignored_messages() == before + 4);
  CHECK_FALSE(cluster.server(2).offer.has_value());
}

TEST_CASE("a log that was trimmed sends what it still has, with the term before it") {
  Cluster cluster = with_a_laggard();
  cluster.heal();
  cluster.tick_all(15);
  cluster.restart(1);
  cluster.restart(2);
  cluster.restart(3);
  cluster.tick_all(60);
  REQUIRE(cluster.leader().has_value());
  cluster.propose(*cluster.leader(), "e");
  cluster.settle();
  for (std::uint64_t id : {1, 2, 3}) CHECK(cluster.applied(id) == "a b c d e ");
}

TEST_SUITE_END();
