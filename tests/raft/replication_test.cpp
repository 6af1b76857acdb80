#include "raft/cluster.hpp"

using namespace flotilla;
using namespace flotilla::raft;
using namespace flotilla::raft::testing;

namespace {

AppendRequest append(std::uint64_t prev, std::uint64_t prev_term, std::uint64_t commit,
                     std::vector<Entry> entries = {}) {
  return AppendRequest{Index{prev}, Term{prev_term}, Index{commit}, std::move(entries)};
}

std::optional<AppendReply> answer(const Cluster& cluster, std::uint64_t from) {
  for (auto message = cluster.network.rbegin(); message != cluster.network.rend(); ++message) {
    if (message->from != node(from)) continue;
    if (const auto* body = body_of<AppendReply>(*message)) return *body;
  }
  return std::nullopt;
}

std::vector<Entry> log_of(const std::vector<std::uint64_t>& terms) {
  std::vector<Entry> entries;
  for (std::uint64_t term : terms) entries.push_back(entry(entries.size() + 1, term, "t" + std::to_string(term)));
  return entries;
}

}  // namespace

TEST_SUITE_BEGIN("raft.replication");

TEST_CASE("a command reaches every member, in one order") {
  Cluster cluster(3);
  cluster.elect(1);
  for (const char* text : {"a", "b", "c"}) cluster.propose(1, text);
  cluster.settle();
  for (std::uint64_t id : {1, 2, 3}) CHECK(cluster.applied(id) == "a b c ");
}

TEST_CASE("followers learn of a commit at once, not at the next heartbeat") {
  Cluster cluster(3);
  cluster.elect(1);
  cluster.propose(1, "a");
  cluster.settle();  // no tick in between
  CHECK(cluster.applied(2) == "a ");
  CHECK(cluster.applied(3) == "a ");
}

TEST_CASE("proposals of one turn share an append") {
  Cluster cluster(2);
  cluster.elect(1);
  for (int i = 0; i < 50; ++i) cluster.propose(1, "x");
  cluster.take(1);
  CHECK(cluster.count_in_network<AppendRequest>() == 1);
}

TEST_CASE("appends are pipelined within the window, then wait") {
  Cluster cluster(2, std::nullopt, [](CoreOptions& options) { options.inflight_messages_max = 4; });
  cluster.elect(1);
  cluster.hold_writes(2);
  for (int i = 0; i < 10; ++i) {
    cluster.propose(1, "x");
    cluster.take(1);
  }
  CHECK(cluster.count_in_network<AppendRequest>() == 4);
  cluster.release_writes(2);
  cluster.settle();
  CHECK(cluster.core(1).commit_index() == Index{11});
}

TEST_CASE("the window counts bytes too") {
  Cluster cluster(2, std::nullopt, [](CoreOptions& options) {
    options.inflight_bytes_max = 1000;
    options.append_bytes_max = 600;
  });
  cluster.elect(1);
  for (int i = 0; i < 10; ++i) cluster.propose(1, std::string(500, 'x'));
  cluster.take(1);
  CHECK(cluster.count_in_network<AppendRequest>() == 2);
  cluster.settle();
  CHECK(cluster.core(2).commit_index() == Index{11});
}

TEST_CASE("network and own disk work in parallel; the own copy counts only once durable (B23)") {
  Cluster cluster(3);
  cluster.elect(1);
  cluster.hold_writes(1);
  cluster.hold_writes(2);
  cluster.propose(1, "x");
  cluster.settle();
  CHECK(cluster.core(3).last_index() == Index{2});
  CHECK(cluster.core(1).match_index(node(3)) == Index{2});
  CHECK(cluster.core(1).commit_index() == Index{1});
  cluster.sync_one(1);
  cluster.settle();
  CHECK(cluster.core(1).commit_index() == Index{2});
}

TEST_CASE("a follower acknowledges only what is durable (B24)") {
  Cluster cluster(3);
  cluster.hold_writes(2);
  cluster.send(1, 2, 1, append(0, 0, 0, log_of({1, 1})));
  CHECK_FALSE(answer(cluster, 2).has_value());
  cluster.sync_one(2);
  REQUIRE(answer(cluster, 2).has_value());
  CHECK(answer(cluster, 2)->accepted);
  CHECK(answer(cluster, 2)->match_index == Index{2});
  CHECK(cluster.disk(2).last_index() == Index{2});
}

TEST_CASE("a repeated append is not acknowledged before the first one is durable") {
  Cluster cluster(3);
  cluster.hold_writes(2);
  for (int i = 0; i < 2; ++i) cluster.send(1, 2, 1, append(0, 0, 0, log_of({1, 1})));
  CHECK_FALSE(answer(cluster, 2).has_value());
}

TEST_CASE("a late or repeated append removes nothing (B2)") {
  Cluster cluster(3);
  cluster.send(1, 2, 1, append(0, 0, 0, log_of({1, 1, 1, 1})));
  cluster.send(1, 2, 1, append(0, 0, 0, log_of({1, 1})));
  cluster.send(1, 2, 1, append(1, 1, 0));
  CHECK(cluster.core(2).last_index() == Index{4});
  CHECK(answer(cluster, 2)->match_index == Index{1});
}

TEST_CASE("an answer reports what its request proved, never the whole tail (B8)") {
  Cluster cluster(3);
  cluster.replace_log(2, log_of({1, 1, 1, 1}), {Term{1}, {}});
  cluster.send(1, 2, 2, append(1, 1, 0, {entry(2, 1)}));
  CHECK(answer(cluster, 2)->match_index == Index{2});
}

TEST_CASE("a follower commits no further than what its request matched (B3)") {
  Cluster cluster(3);
  cluster.replace_log(2, log_of({1, 1, 1, 1}), {Term{1}, {}});
  cluster.send(1, 2, 2, append(2, 1, 4));
  CHECK(cluster.core(2).commit_index() == Index{2});
}

TEST_CASE("a leader tells a follower no commit index beyond what it knows to match (B3)") {
  Cluster cluster(3);
  cluster.elect(1);
  cluster.isolate(3);
  cluster.propose(1, "x");
  cluster.settle();
  cluster.heal();
  cluster.filter = [](const Message& message) { return !body_of<AppendRequest>(message); };
  cluster.tick_all(3);
  CHECK(cluster.core(1).commit_index() == Index{2});
  CHECK(cluster.core(3).commit_index() == Index{1});
}

TEST_CASE("what is committed matches by definition, also when it left the log (B4, B15)") {
  Cluster cluster(3);
  cluster.elect(1);
  for (int i = 0; i < 5; ++i) cluster.propose(1, "x");
  cluster.settle();
  cluster.trim(2, Index{5});
  cluster.restart(2);
  cluster.send(1, 2, 1, append(1, 1, 0, {entry(2, 1), entry(3, 1)}));
  REQUIRE(answer(cluster, 2).has_value());
  CHECK(answer(cluster, 2)->accepted);
  CHECK(cluster.core(2).last_index() == Index{6});
}

TEST_CASE("an append that contradicts what is committed is ignored, not asserted on") {
  Cluster cluster(3);
  cluster.replace_log(2, log_of({1, 1, 1}), {Term{1}, {}}, Index{3});
  const std::uint64_t before = cluster.core(2).ignored_messages();
  cluster.send(1, 2, 5, append(1, 1, 0, {entry(2, 2), entry(3, 2), entry(4, 5)}));
  cluster.send(1, 2, 5, append(3, 2, 0, {entry(4, 5)}));  // right after it
  CHECK(cluster.core(2).last_index() == Index{3});
  CHECK(cluster.core(2).ignored_messages() == before + 2);
}

TEST_CASE("append requests that cannot be are ignored") {
  struct Row {
    const char* what;
    AppendRequest request;
  };
  Entry wrong_payload = entry(4, 2, "not a configuration");
  wrong_payload.type = EntryType::configuration;
  const std::vector<Row> rows{
      {"a gap after prev", append(3, 1, 0, {entry(5, 2)})},
      {"a gap inside", append(3, 1, 0, {entry(4, 2), entry(6, 2)})},
      {"terms fall", append(3, 1, 0, {entry(4, 2), entry(5, 1)})},
      {"a term above the leader's", append(3, 1, 0, {entry(4, 3)})},
      {"a term below prev's", append(3, 2, 0, {entry(4, 1)})},
      {"an index without a term", append(3, 0, 0)},
      {"a term without an index", append(0, 1, 0)},
      {"prev of a later term", append(3, 9, 0)},
      {"term zero", append(0, 0, 0, {entry(1, 0)})},
      {"a malformed configuration", append(3, 1, 0, {wrong_payload})},
      {"a configuration without voters", append(3, 1, 0, {configuration_entry(4, 2, Configuration{})})},
      {"an index out of range", append(~std::uint64_t{0}, 1, 0)},
      {"a commit index out of range", append(3, 1, ~std::uint64_t{0})},
  };
  for (const Row& row : rows) {
    CAPTURE(row.what);
    Cluster cluster(3);
    cluster.replace_log(2, log_of({1, 1, 1}), {Term{2}, {}});
    const std::uint64_t before = cluster.core(2).ignored_messages();
    cluster.send(1, 2, 2, row.request);
    CHECK(cluster.core(2).ignored_messages() == before + 1);
    CHECK(cluster.core(2).last_index() == Index{3});
  }
}

TEST_CASE("append table: what a follower answers, and what its log is afterwards (Figure 2)") {
  struct Row {
    std::vector<std::uint64_t> log;
    std::uint64_t prev, prev_term;
    std::vector<Entry> entries;
    bool accepted;
    std::uint64_t match_or_conflict_index, conflict_term;
    const char* after;
  };
  const std::vector<Row> rows{
      {{}, 0, 0, {entry(1, 1)}, true, 1, 0, "1 "},
      {{1, 1}, 2, 1, {entry(3, 4)}, true, 3, 0, "1 1 4 "},
      {{1, 1}, 3, 1, {entry(4, 4)}, false, 0, 0, "1 1 "},
      {{1, 1}, 2, 2, {entry(3, 4)}, false, 1, 1, "1 1 "},
      {{1, 2, 2, 3}, 3, 4, {}, false, 2, 2, "1 2 2 3 "},
      {{1, 2, 2, 3}, 1, 1, {entry(2, 4)}, true, 2, 0, "1 4 "},
      {{1, 2, 2, 3}, 1, 1, {entry(2, 2)}, true, 2, 0, "1 2 2 3 "},
      {{1, 2, 2, 3}, 2, 2, {entry(3, 2), entry(4, 4), entry(5, 4)}, true, 5, 0, "1 2 2 4 4 "},
      {{1, 2, 2, 3}, 4, 3, {}, true, 4, 0, "1 2 2 3 "},
  };
  for (std::size_t i = 0; i < rows.size(); ++i) {
    CAPTURE(i);
    const Row& row = rows[i];
    Cluster cluster(3);
    cluster.replace_log(2, log_of(row.log), {Term{4}, {}});
    cluster.send(1, 2, 4, append(row.prev, row.prev_term, 0, row.entries));
    const auto reply = answer(cluster, 2);
    REQUIRE(reply.has_value());
    CHECK(reply->accepted == row.accepted);
    if (row.accepted) {
      CHECK(reply->match_index == Index{row.match_or_conflict_index});
    } else {
      CHECK(reply->rejected_index == Index{row.prev});
      CHECK(reply->conflict_index == Index{row.match_or_conflict_index});
      CHECK(reply->conflict_term == Term{row.conflict_term});
      CHECK(reply->last_index == Index{row.log.size()});
    }
    CHECK(cluster.terms(2) == row.after);
  }
}

TEST_CASE("a new leader brings every follower of the paper's Figure 7 to its own log") {
  const std::vector<std::vector<std::uint64_t>> followers{
      {1, 1, 1, 4, 4, 5, 5, 6, 6},          {1, 1, 1, 4},          {1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6},
      {1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7}, {1, 1, 1, 4, 4, 4, 4}, {1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3},
  };
  for (std::size_t i = 0; i < followers.size(); ++i) {
    CAPTURE(i);
    Cluster cluster(3);
    cluster.replace_log(1, log_of({1, 1, 1, 4, 4, 5, 5, 6, 6, 6}), {Term{7}, {}});
    cluster.replace_log(2, log_of(followers[i]), {Term{7}, {}});
    cluster.replace_log(3, log_of({1, 1, 1, 4, 4, 5, 5, 6, 6, 6}), {Term{7}, {}});
    cluster.elect(1);
    CHECK(cluster.terms(2) == "1 1 1 4 4 5 5 6 6 6 8 ");
    CHECK(cluster.core(2).commit_index() == Index{11});
  }
}

TEST_CASE("a long divergence is bridged by terms, in few probes (B22)") {
  Cluster cluster(3);
  std::vector<Entry> longer, mine;
  for (std::uint64_t i = 1; i <= 10; ++i) {
    longer.push_back(entry(i, 1));
    mine.push_back(entry(i, 1));
  }
  for (std::uint64_t i = 11; i <= 2000; ++i) longer.push_back(entry(i, 2 + i / 1000));
  for (std::uint64_t i = 11; i <= 1500; ++i) mine.push_back(entry(i, 5));
  cluster.replace_log(1, mine, {Term{5}, {}});
  cluster.replace_log(2, longer, {Term{5}, {}});
  cluster.replace_log(3, mine, {Term{5}, {}});
  unsigned rejections = 0;
  cluster.filter = [&](const Message& message) {
    const auto* reply = body_of<AppendReply>(message);
    rejections += reply != nullptr && !reply->accepted ? 1u : 0u;
    return true;
  };
  cluster.elect(1);
  CHECK(rejections <= 4);
  CHECK(cluster.core(2).commit_index() == Index{1501});
}

TEST_CASE("an entry of an earlier term is committed only by one of the own term (B1, Figure 8)") {
  Cluster cluster(5);
  // (c): 1 leads term 4; index 2 of term 2 is on a majority; 5 has another index 2, of term 3.
  cluster.replace_log(1, log_of({1, 2}), {Term{3}, {}}, Index{1});
  cluster.replace_log(2, log_of({1, 2}), {Term{3}, {}}, Index{1});
  cluster.replace_log(3, log_of({1}), {Term{3}, {}}, Index{1});
  cluster.replace_log(4, log_of({1}), {Term{3}, {}}, Index{1});
  cluster.replace_log(5, log_of({1, 3}), {Term{3}, {}}, Index{1});
  cluster.isolate(5);
  // The own-term entry reaches nobody: cut every append to what was there before.
  cluster.filter = [](const Message& message) {
    const auto* request = body_of<AppendRequest>(message);
    return request == nullptr || request->entries.empty() || request->entries.back().term < Term{4};
  };
  cluster.core(1).campaign();
  cluster.settle();
  REQUIRE(cluster.core(1).role() == Role::leader);
  REQUIRE(cluster.core(1).term() == Term{4});
  cluster.send(3, 1, 4, AppendReply{.accepted = true, .match_index = Index{2}});
  cluster.send(2, 1, 4, AppendReply{.accepted = true, .match_index = Index{2}});
  // On three of five, and still not committed.
  CHECK(cluster.core(1).match_index(node(2)) == Index{2});
  CHECK(cluster.core(1).match_index(node(3)) == Index{2});
  CHECK(cluster.core(1).commit_index() == Index{1});
  // (e): with an own-term entry on a majority both are.
  cluster.send(2, 1, 4, AppendReply{.accepted = true, .match_index = Index{3}});
  cluster.send(3, 1, 4, AppendReply{.accepted = true, .match_index = Index{3}});
  CHECK(cluster.core(1).commit_index() == Index{3});
}

TEST_CASE("a leader counts no acknowledgement beyond its own log") {
  Cluster cluster(3);
  cluster.elect(1);
  cluster.send(2, 1, 1, AppendReply{.accepted = true, .match_index = Index{99}});
  CHECK(cluster.core(1).match_index(node(2)) == Index{1});
  CHECK(cluster.core(1).commit_index() == Index{1});
}

TEST_CASE("an acknowledgement of a stranger counts nothing (B12)") {
  Cluster cluster(3);
  cluster.elect(1);
  cluster.filter = [](const Message&) { return false; };
  cluster.propose(1, "x");
  cluster.settle();
  cluster.send(8, 1, 1, AppendReply{.accepted = true, .match_index = Index{2}});
  cluster.send(9, 1, 1, AppendReply{.accepted = true, .match_index = Index{2}});
  CHECK(cluster.core(1).commit_index() == Index{1});
  cluster.send(9, 1, 77, AppendReply{.accepted = false});
  CHECK(cluster.core(1).role() == Role::leader);
}

TEST_CASE("an old acknowledgement changes nothing (B6, B26)") {
  Cluster cluster(3);
  cluster.elect(1);
  for (int i = 0; i < 4; ++i) cluster.propose(1, "x");
  cluster.settle();
  cluster.send(2, 1, 1, AppendReply{.accepted = true, .match_index = Index{2}});
  cluster.send(2, 1, 1, AppendReply{.accepted = false, .rejected_index = Index{3}, .last_index = Index{2}});
  CHECK(cluster.core(1).match_index(node(2)) == Index{5});
  CHECK(cluster.core(1).progress(node(2))->mode() == ProgressMode::replicate);
}

TEST_CASE("a follower is spoken to again after everything in the window was lost (B17, B25)") {
  Cluster cluster(3, std::nullopt, [](CoreOptions& options) { options.inflight_messages_max = 2; });
  cluster.elect(1);
  cluster.filter = [](const Message& message) { return message.to != node(3) || !body_of<AppendRequest>(message); };
  for (int i = 0; i < 5; ++i) {
    cluster.propose(1, "x");
    cluster.settle();
  }
  cluster.filter = nullptr;
  // Heartbeats were answered all the time; the watchdog looks at the match index.
  cluster.tick_all(15);
  CHECK(cluster.core(3).commit_index() == Index{6});
}

TEST_CASE("a broken link is probed as soon as the follower speaks") {
  Cluster cluster(3);
  cluster.elect(1);
  cluster.filter = [](const Message& message) { return message.to != node(3); };
  cluster.propose(1, "x");
  cluster.settle();
  cluster.core(1).unreachable(node(3));
  CHECK(cluster.core(1).progress(node(3))->mode() == ProgressMode::probe);
  cluster.filter = nullptr;
  cluster.tick_all(1);
  CHECK(cluster.core(3).commit_index() == Index{2});
}

TEST_CASE("proposals are refused when too many bytes wait, and taken again afterwards (B16)") {
  Cluster cluster(3, std::nullopt, [](CoreOptions& options) { options.uncommitted_bytes_max = 1000; });
  cluster.elect(1);
  cluster.filter = [](const Message&) { return false; };
  unsigned taken = 0;
  while (cluster.core(1).propose(EntryType::command, SharedBytes(std::string(100, 'x')), 0).has_value()) ++taken;
  CHECK(taken == 7);
  CHECK(cluster.core(1).propose(EntryType::command, {}, 0).has_value());  // a small one fits
  cluster.settle();
  cluster.filter = nullptr;
  cluster.tick_all(12);
  CHECK(cluster.core(1).uncommitted_bytes() == 0);
  CHECK(cluster.core(1).propose(EntryType::command, SharedBytes(std::string(5000, 'x')), 0).has_value());
}

TEST_CASE("a refusal names its reason") {
  Cluster cluster(3);
  const auto refused = cluster.core(1).propose(EntryType::command, {}, 0);
  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error() == Errc::not_leader);
}

TEST_CASE("a position names the term of its proposal; another leader's entry at that index has another (B10, B20)") {
  Cluster cluster(3);
  cluster.elect(1);
  cluster.isolate(1);
  const Core::Position lost = cluster.propose(1, "lost");
  cluster.settle();
  cluster.tick_all(60);
  REQUIRE(cluster.leader().has_value());
  REQUIRE(cluster.leader() != 1);
  cluster.propose(*cluster.leader(), "kept");
  cluster.heal();
  cluster.tick_all(30);
  CHECK(cluster.core(1).term_at(lost.index) != lost.term);
  CHECK(cluster.applied(1) == "kept ");
}

TEST_CASE("time never falls along the log, whatever the callers' clocks say") {
  Cluster cluster(3);
  cluster.elect(1);
  for (std::uint64_t time : {500u, 300u, 700u, 0u})
    REQUIRE(cluster.core(1).propose(EntryType::command, {}, time).has_value());
  cluster.settle();
  cluster.depose_and_elect(2);
  REQUIRE(cluster.core(2).propose(EntryType::command, {}, 1).has_value());
  cluster.settle();
  std::vector<std::uint64_t> times;
  for (const Entry& at : cluster.server(3).state) times.push_back(at.time);
  CHECK(times == std::vector<std::uint64_t>{0, 500, 500, 700, 700, 700, 700});
}

TEST_CASE("entries carry the checksum of their record") {
  Cluster cluster(2);
  cluster.elect(1);
  cluster.propose(1, "x");
  cluster.settle();
  for (const Entry& at : cluster.disk(2).entries) CHECK(at.crc == record_crc(at));
}

TEST_CASE("committed entries are handed out once, in order, within the limit of one Ready (B18)") {
  Cluster cluster(1, std::nullopt, [](CoreOptions& options) { options.committed_bytes_max = 200; });
  cluster.core(1).campaign();
  cluster.settle();
  for (int i = 0; i < 30; ++i) cluster.propose(1, std::string(50, 'x'));
  Index next{2};
  std::size_t largest = 0;
  while (cluster.core(1).has_ready()) {
    const Ready ready = cluster.core(1).take_ready();
    for (const Entry& committed : ready.committed) {
      CHECK(committed.index == next);
      ++next;
    }
    largest = std::max(largest, ready.committed.size());
    cluster.core(1).persisted(ready.sequence, Term{}, Index{});
  }
  CHECK(next == Index{32});
  CHECK(largest == 2);
}

TEST_CASE("old entries leave memory and come from the log for a slow follower") {
  Cluster cluster(3, std::nullopt, [](CoreOptions& options) {
    options.tail_bytes_max = 300;
    options.append_bytes_max = 400;
  });
  cluster.elect(1);
  cluster.isolate(3);
  for (int i = 0; i < 100; ++i) {
    cluster.propose(1, std::string(50, 'x'));
    cluster.settle();
  }
  unsigned reads = 0;
  cluster.serve = false;
  cluster.heal();
  for (int i = 0; i < 200 && cluster.core(3).commit_index() < Index{101}; ++i) {
    cluster.tick_all(1);
    reads += static_cast<unsigned>(cluster.server(1).log_reads.size());
    CHECK(cluster.server(1).log_reads.size() <= 1);
    cluster.serve_log_reads(1);
    cluster.settle();
  }
  CHECK(reads > 5);
  CHECK(cluster.core(3).commit_index() == Index{101});
  CHECK(cluster.applied(3) == cluster.applied(1));
}

TEST_CASE("what is applied but not durable here stays in memory: the log does not have it yet") {
  Cluster cluster(5, std::nullopt, [](CoreOptions& options) { options.tail_bytes_max = 0; });
  cluster.elect(1);
  cluster.isolate(5);
  cluster.hold_writes(1);
  cluster.propose(1, "a");
  cluster.settle();
  REQUIRE(cluster.applied(1) == "a ");
  REQUIRE(cluster.core(1).stable_index() == Index{1});
  cluster.serve = false;
  cluster.heal();
  cluster.core(1).unreachable(node(5));
  cluster.tick_all(1);
  CHECK(cluster.server(1).log_reads.empty());
  CHECK(cluster.applied(5) == "a ");
}

TEST_CASE("a log read ends where the disk still has an older version") {
  Cluster cluster(3, std::nullopt, [](CoreOptions& options) { options.tail_bytes_max = 0; });
  cluster.elect(1);
  cluster.isolate(3);
  for (const char* text : {"a", "b"}) {
    cluster.propose(1, text);
    cluster.settle();
  }
  cluster.serve = false;
  cluster.heal();
  cluster.core(1).unreachable(node(3));
  cluster.tick_all(1);
  REQUIRE(cluster.server(1).log_reads.size() == 1);
  REQUIRE(cluster.server(1).log_reads[0].first_index == Index{2});
  // An answer for nobody, or to another question, does no harm.
  cluster.core(1).loaded(node(7), Index{2}, Term{1}, {entry(2, 1)});
  cluster.core(1).loaded(node(3), Index{2}, Term{1}, {entry(2, 1, "a"), entry(3, 9, "?")});
  cluster.take(1);
  const auto* request = body_of<AppendRequest>(cluster.network.front());
  REQUIRE(request != nullptr);
  CHECK(request->prev_index == Index{1});
  REQUIRE(request->entries.size() == 1);
  CHECK(request->entries[0].index == Index{2});
}

TEST_CASE("a follower with too much unapplied takes no entries until it has applied") {
  Cluster cluster(3, std::nullopt, [](CoreOptions& options) { options.unapplied_bytes_max = 100; });
  Core& core = cluster.core(2);
  const auto feed = [&](std::uint64_t index) {
    core.step(Message{node(1), node(2), Term{1},
                      append(index - 1, index == 1 ? 0 : 1, index, {entry(index, 1, std::string(90, 'x'))})});
  };
  feed(1);
  feed(2);
  CHECK(core.last_index() == Index{1});
  while (core.has_ready()) core.take_ready();
  core.applied(Index{1});
  feed(2);
  CHECK(core.last_index() == Index{2});
}

TEST_CASE("a restarted member goes on where its log ends, and learns the commit index anew") {
  Cluster cluster(3);
  cluster.elect(1);
  for (const char* text : {"a", "b"}) cluster.propose(1, text);
  cluster.settle();
  cluster.restart(2);
  CHECK(cluster.core(2).last_index() == Index{3});
  cluster.tick_all(20);
  CHECK(cluster.applied(2) == "a b ");
}

TEST_CASE("a whole cluster that loses its power loses nothing it acknowledged (I7)") {
  Cluster cluster(3);
  cluster.elect(1);
  cluster.hold_writes(1);  // the leader's own disk is behind
  cluster.propose(1, "a");
  cluster.settle();
  CHECK(cluster.applied(2) == "a ");
  for (std::uint64_t id : {1, 2, 3}) cluster.crash(id);
  for (std::uint64_t id : {1, 2, 3}) cluster.start(id);
  cluster.server(1).auto_sync = true;
  cluster.tick_all(60);
  for (std::uint64_t id : {1, 2, 3}) CHECK(cluster.applied(id) == "a ");
}

TEST_CASE("a restored commit index beyond the log is cut to what the log proves (E9)") {
  Core core(CoreOptions{node(1)}, Restored{.hard_state = {Term{1}, {}},
                                           .configuration = voters({1, 2}),
                                           .entries = log_of({1, 1}),
                                           .commit_index = Index{9},
                                           .first_index = Index{1}});
  CHECK(core.commit_index() == Index{2});
}

TEST_CASE("messages to somebody else, from nobody, or of no term are ignored") {
  Cluster cluster(3);
  Core& core = cluster.core(1);
  core.step(Message{node(2), node(3), Term{9}, Heartbeat{}});
  core.step(Message{node(0), node(1), Term{9}, Heartbeat{}});
  core.step(Message{node(1), node(1), Term{9}, Heartbeat{}});
  core.step(Message{node(2), node(1), Term{0}, Heartbeat{}});
  core.step(Message{node(2), node(1), Term{~std::uint64_t{0}}, Heartbeat{}});
  CHECK(core.ignored_messages() == 5);
  CHECK(core.term() == Term{});
}

TEST_CASE("a second leader of one term is not followed") {
  Cluster cluster(3);
  cluster.elect(1);
  cluster.send(3, 2, 1, append(0, 0, 0, log_of({1, 1, 1, 1})));
  cluster.send(3, 1, 1, Heartbeat{});
  CHECK(cluster.core(2).leader_id() == node(1));
  CHECK(cluster.core(2).last_index() == Index{1});
  CHECK(cluster.core(1).role() == Role::leader);
}

TEST_SUITE_END();
