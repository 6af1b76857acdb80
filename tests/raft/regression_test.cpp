// What a second reader found: each case failed before it was mended.
#include "raft/cluster.hpp"

using namespace flotilla;
using namespace flotilla::raft;
using namespace flotilla::raft::testing;

namespace {

AppendRequest append(std::uint64_t prev, std::uint64_t prev_term, std::uint64_t commit,
                     std::vector<Entry> entries = {}) {
  return AppendRequest{Index{prev}, Term{prev_term}, Index{commit}, std::move(entries)};
}

SnapshotMeta meta_at(std::uint64_t index, std::uint64_t term) {
  return SnapshotMeta{Index{index}, Term{term}, voters({1, 2, 3}), Index{}, 77};
}

/// 1 leads term 3; everybody holds five entries, the first two of term 1 and 2.
Cluster settled() {
  Cluster cluster(3);
  const std::vector<Entry> log{entry(1, 1, "a"), entry(2, 2, "b")};
  for (std::uint64_t id : {1, 2, 3}) cluster.replace_log(id, log, {Term{2}, {}}, Index{2});
  cluster.elect(1);
  for (const char* text : {"c", "d"}) cluster.propose(1, text);
  cluster.settle();
  cluster.tick_all(2);
  REQUIRE(cluster.core(1).term() == Term{3});
  REQUIRE(cluster.core(1).commit_index() == Index{5});
  REQUIRE(cluster.core(1).match_index(node(2)) == Index{5});
  return cluster;
}

/// The disk of `id` shows what it held long ago; the leader is not told that the link broke.
void roll_back(Cluster& cluster, std::uint64_t id, std::vector<Entry> entries) {
  cluster.crash(id);
  Disk& disk = cluster.disk(id);
  disk.entries = std::move(entries);
  disk.commit_index = Index{1};
  cluster.start(id);
}

Result<Core::Position> offer(Cluster& cluster, std::size_t bytes) {
  return cluster.core(1).propose(EntryType::command, SharedBytes(std::string(bytes, 'x')), 0);
}

}  // namespace

TEST_SUITE_BEGIN("raft.regression");

TEST_CASE("a heartbeat commits nothing that this run did not match (B3)") {
  Cluster cluster = settled();
  // As long as before, but of an older term.
  roll_back(cluster, 2, {entry(1, 1, "a"), entry(2, 1, "?"), entry(3, 1, "?"), entry(4, 1, "?"), entry(5, 1, "?")});
  cluster.send(1, 2, 3, Heartbeat{.commit_index = Index{5}, .read_round = 0});
  CHECK(cluster.core(2).commit_index() == Index{1});
  cluster.tick_all(5);
  CHECK(cluster.core(2).commit_index() == Index{1});
  CHECK(cluster.core(1).progress(node(2))->rolled_back);
}

TEST_CASE("a heartbeat of a second leader of one term commits nothing that the first one matched") {
  Cluster cluster(3);
  cluster.send(1, 2, 3, append(0, 0, 0, {entry(1, 3), entry(2, 3)}));
  // Its leader fell silent; an impossible second one must not profit from what that one proved.
  cluster.filter = [](const Message&) { return false; };
  cluster.tick_only(2, 60);
  cluster.send(3, 2, 3, Heartbeat{.commit_index = Index{2}, .read_round = 0});
  REQUIRE(cluster.core(2).term() == Term{3});
  REQUIRE(cluster.core(2).leader_id() == node(3));
  CHECK(cluster.core(2).commit_index() == Index{});
}

TEST_CASE("a member that restarts within a term learns the commit index without a new entry or a broken link") {
  Cluster cluster = settled();
  cluster.crash(2);
  cluster.disk(2).commit_index = Index{1};
  cluster.start(2);
  cluster.tick_all(2);
  CHECK(cluster.core(2).commit_index() == Index{5});
  CHECK_FALSE(cluster.core(1).progress(node(2))->rolled_back);
  CHECK(cluster.core(1).progress(node(2))->mode() == ProgressMode::replicate);
}

TEST_CASE("a follower whose log ends below what it acknowledged is reported and no longer counted (E1)") {
  for (const bool proposing : {false, true}) {
    CAPTURE(proposing);
    Cluster cluster = settled();
    roll_back(cluster, 2, {entry(1, 1, "a"), entry(2, 2, "b")});
    if (proposing) cluster.propose(1, "e");
    cluster.settle();
    cluster.tick_all(3);
    REQUIRE(cluster.core(1).progress(node(2)) != nullptr);
    CHECK(cluster.core(1).progress(node(2))->rolled_back);
    CHECK_FALSE(cluster.core(1).caught_up(node(2)));
    CHECK_FALSE(cluster.core(1).progress(node(3))->rolled_back);
    // Without it, one of the other two is no majority, whatever it acknowledges ...
    const Index before = cluster.core(1).commit_index();
    cluster.isolate(3);
    cluster.propose(1, "f");
    cluster.settle();
    CHECK(cluster.core(1).commit_index() == before);
    cluster.core(1).request_read(7);
    cluster.settle();
    CHECK(cluster.server(1).reads.empty());
    CHECK_FALSE(cluster.core(1).transfer_leadership(node(2)).has_value());
    // ... and with the third one all goes on.
    cluster.heal();
    cluster.tick_all(15);
    CHECK(cluster.core(1).commit_index() == cluster.core(1).last_index());
    CHECK(cluster.server(1).reads.size() == 1);
    CHECK(cluster.core(1).role() == Role::leader);
    CHECK(cluster.core(1).progress(node(2))->rolled_back);
  }
}

TEST_CASE("who was set back is asked at the pace of heartbeats, not at the network's") {
  Cluster cluster = settled();
  roll_back(cluster, 2, {entry(1, 1, "a")});
  unsigned messages = 0;
  cluster.filter = [&](const Message& message) {
    messages += message.from == node(2) || message.to == node(2) ? 1u : 0u;
    return true;
  };
  cluster.tick_all(20);
  CHECK(cluster.core(1).progress(node(2))->rolled_back);
  CHECK(messages <= 20 * 6);
}

TEST_CASE("a late rejection of a sound follower is cleared up at once (B6, B26)") {
  Cluster cluster = settled();
  const AppendReply late{.accepted = false, .rejected_index = Index{4}, .last_index = Index{2}};
  cluster.send(2, 1, 3, late);
  cluster.settle();
  CHECK_FALSE(cluster.core(1).progress(node(2))->rolled_back);
  CHECK(cluster.core(1).match_index(node(2)) == Index{5});
  cluster.propose(1, "e");
  cluster.settle();
  CHECK(cluster.core(2).commit_index() == Index{6});
}

TEST_CASE("a snapshot of a later term than the member's own raises its term") {
  Cluster cluster(3);
  cluster.replace_log(2, {entry(1, 1), entry(2, 1)}, {Term{2}, node(1)});
  cluster.send(1, 2, 2, SnapshotRequest{Index{9}, Term{2}, voters({1, 2, 3})});
  REQUIRE(cluster.server(2).offer.has_value());
  cluster.core(2).snapshot_installed(meta_at(11, 5));
  CHECK(cluster.core(2).term() == Term{5});
  CHECK(cluster.core(2).facts().voted_for == NodeId{});
  CHECK(cluster.core(2).last_index() == Index{11});
  const Ready ready = cluster.core(2).take_ready();
  REQUIRE(ready.hard_state.has_value());
  CHECK(ready.hard_state->term == Term{5});
  CHECK(ready.log_restart.has_value());
  // Its leader of term 2 is none any more.
  CHECK(cluster.core(2).leader_id() == NodeId{});
  CHECK(ready.messages_after_sync.empty());
}

TEST_CASE("a snapshot that cannot be is refused, not asserted on") {
  SnapshotMeta late_configuration = meta_at(9, 2);
  late_configuration.configuration_index = Index{10};
  SnapshotMeta without_voters = meta_at(9, 2);
  without_voters.configuration = Configuration{};
  const std::vector<SnapshotMeta> impossible{meta_at(0, 2),
                                             meta_at(9, 0),
                                             late_configuration,
                                             without_voters,
                                             meta_at(~std::uint64_t{0}, 2),
                                             meta_at(9, ~std::uint64_t{0}),
                                             meta_at(9, 1)};
  for (std::size_t i = 0; i < impossible.size(); ++i) {
    CAPTURE(i);
    Cluster cluster(3);
    cluster.replace_log(2, {entry(1, 2), entry(2, 2)}, {Term{2}, node(1)}, Index{2});
    cluster.send(1, 2, 2, SnapshotRequest{Index{9}, Term{2}, voters({1, 2, 3})});
    REQUIRE(cluster.server(2).offer.has_value());
    const std::uint64_t before = cluster.core(2).ignored_messages();
    cluster.core(2).snapshot_installed(impossible[i]);
    CHECK(cluster.core(2).last_index() == Index{2});
    CHECK(cluster.core(2).term() == Term{2});
    CHECK(cluster.core(2).ignored_messages() == before + 1);
    const Ready ready = cluster.core(2).take_ready();
    REQUIRE(ready.messages.size() == 1);
    REQUIRE(body_of<SnapshotReply>(ready.messages[0]) != nullptr);
    CHECK_FALSE(body_of<SnapshotReply>(ready.messages[0])->accepted);
  }
}

TEST_CASE("a leader whose apply lags refuses proposals") {
  Core core(CoreOptions{.id = node(1), .unapplied_bytes_max = 1000},
            Restored{.configuration = voters({1}), .first_index = Index{1}});
  const auto run = [&core] {
    while (core.has_ready()) {
      const Ready ready = core.take_ready();
      core.persisted(ready.sequence, Term{}, Index{});
    }
  };
  core.campaign();
  run();
  REQUIRE(core.role() == Role::leader);
  core.applied(core.commit_index());
  unsigned taken = 0;
  while (taken < 100 && core.propose(EntryType::command, SharedBytes(std::string(164, 'x')), 0).has_value()) {
    ++taken;
    run();
  }
  REQUIRE(core.commit_index() == core.last_index());
  CHECK(taken == 5);  // of 200 bytes each
  const auto refused = core.propose(EntryType::command, SharedBytes(std::string(164, 'x')), 0);
  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error() == Errc::overloaded);
  // One that is alone too large still goes when nothing waits.
  core.applied(core.commit_index());
  CHECK(core.propose(EntryType::command, SharedBytes(std::string(5000, 'x')), 0).has_value());
}

TEST_CASE("a leader whose own disk lags behind the quorum refuses proposals") {
  Cluster cluster(3, std::nullopt, [](CoreOptions& options) { options.unapplied_bytes_max = 1000; });
  cluster.elect(1);
  cluster.hold_writes(1);
  unsigned taken = 0;
  while (taken < 100 && offer(cluster, 164).has_value()) {
    ++taken;
    cluster.settle();
  }
  CHECK(cluster.core(1).commit_index() == cluster.core(1).last_index());
  CHECK(taken == 5);
  const auto refused = offer(cluster, 164);
  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error() == Errc::overloaded);
  cluster.release_writes(1);
  CHECK(offer(cluster, 5000).has_value());
}

TEST_CASE("a follower that has no room is not sent the same window again and again") {
  Cluster cluster(3, std::nullopt, [](CoreOptions& options) {
    options.unapplied_bytes_max = 2000;
    options.append_bytes_max = 400;
    options.inflight_bytes_max = 4000;
  });
  cluster.elect(1);
  cluster.server(3).auto_apply = false;
  for (int i = 0; i < 60; ++i) {
    cluster.propose(1, std::string(64, 'x'));
    cluster.settle();
  }
  std::size_t sent = 0;
  cluster.filter = [&sent](const Message& message) {
    const auto* request = body_of<AppendRequest>(message);
    if (request != nullptr && message.to == node(3)) sent += request->entries.size();
    return true;
  };
  const Index before = cluster.core(3).last_index();
  CHECK(before < cluster.core(1).last_index());
  cluster.tick_all(100);
  CHECK(sent == 0);
  CHECK(cluster.core(3).last_index() == before);
  CHECK(cluster.core(1).match_index(node(3)) == before);
  CHECK_FALSE(cluster.core(1).caught_up(node(3)));
  cluster.server(3).auto_apply = true;
  cluster.core(3).applied(before);
  cluster.tick_all(5);
  CHECK(cluster.core(3).last_index() == cluster.core(1).last_index());
  CHECK(cluster.core(1).caught_up(node(3)));
}

TEST_CASE("the only voter never steps down for its own disk") {
  Configuration alone = voters({1});
  alone.members.push_back(learner(2));
  for (const Configuration& configuration : {voters({1}), alone}) {
    Cluster cluster(configuration.members.size(), configuration,
                    [](CoreOptions& options) { options.storage_stall_ticks = 5; });
    cluster.elect(1);
    cluster.hold_writes(1);
    cluster.propose(1, "a");
    cluster.tick_all(100);
    CHECK(cluster.core(1).role() == Role::leader);
    cluster.release_writes(1);
    cluster.settle();
    CHECK(cluster.applied(1) == "a ");
  }
}

TEST_CASE("a leader that others could replace steps down for its own disk") {
  Cluster cluster(3, std::nullopt, [](CoreOptions& options) { options.storage_stall_ticks = 5; });
  cluster.elect(1);
  cluster.hold_writes(1);
  cluster.propose(1, "a");
  cluster.tick_all(6);
  CHECK(cluster.core(1).role() != Role::leader);
}

TEST_CASE("entries larger than payload_bytes_max are refused when proposed and ignored when received") {
  Cluster cluster(3, std::nullopt, [](CoreOptions& options) { options.payload_bytes_max = 100; });
  const std::uint64_t before = cluster.core(2).ignored_messages();
  cluster.send(3, 2, 1, append(0, 0, 0, {entry(1, 1, std::string(101, 'x'))}));
  CHECK(cluster.core(2).ignored_messages() == before + 1);
  CHECK(cluster.core(2).last_index() == Index{});
  cluster.send(3, 2, 1, append(0, 0, 0, {entry(1, 1, std::string(100, 'x'))}));
  CHECK(cluster.core(2).last_index() == Index{1});

  cluster.depose_and_elect(2);
  const auto refused = cluster.core(2).propose(EntryType::command, SharedBytes(std::string(101, 'x')), 0);
  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error() == Errc::entry_too_large);
  CHECK(cluster.core(2).propose(EntryType::command, SharedBytes(std::string(100, 'x')), 0).has_value());
}

TEST_SUITE_END();
