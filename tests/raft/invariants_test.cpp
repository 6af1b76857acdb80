#include "raft/invariants.hpp"

#include "raft/cluster.hpp"
#include "raft/random.hpp"

using namespace flotilla;
using namespace flotilla::raft;
using namespace flotilla::raft::testing;

namespace {

Facts leader() {
  return Facts{.id = node(1),
               .role = Role::leader,
               .term = Term{3},
               .voted_for = node(1),
               .leader_id = node(1),
               .applied_index = Index{4},
               .delivered_index = Index{5},
               .commit_index = Index{6},
               .stable_index = Index{7},
               .queued_index = Index{8},
               .last_index = Index{9},
               .last_term = Term{3},
               .first_index = Index{2},
               .configuration_index = Index{1},
               .term_start = Index{8},
               .taken = 5,
               .persisted = 4};
}

Body random_body(Random& random) {
  const auto index = [&] { return Index{random.below(8) == 0 ? random.next() : random.below(8)}; };
  const auto term = [&] { return Term{random.below(16) == 0 ? random.next() : random.below(6)}; };
  const auto flag = [&] { return random.below(2) == 0; };
  switch (random.below(12)) {
    case 0: return VoteRequest{flag(), random.below(8) == 0, index(), term()};
    case 1: return VoteReply{flag(), flag()};
    case 2: {
      AppendRequest request{index(), term(), index(), {}};
      for (std::uint64_t count = random.below(4); count > 0; --count) {
        const Index at = random.below(8) == 0 ? index() : request.prev_index + request.entries.size() + 1;
        Entry made{random.below(3) == 0 ? term() : request.prev_term, at, EntryType::command, 0, 0, {}};
        if (random.below(6) == 0) {
          made.type = EntryType::configuration;
          made.payload =
              SharedBytes(random.below(3) == 0 ? std::string("?") : encode(voters({1, 2 + random.below(5)})));
        }
        request.entries.push_back(made);
      }
      return request;
    }
    case 3: return AppendReply{flag(), index(), index(), term(), index(), index()};
    case 4: return Heartbeat{index(), random.below(4)};
    case 5: return HeartbeatReply{random.below(4)};
    case 6: return ReadIndexRequest{random.below(4)};
    case 7: return ReadIndexReply{random.below(4), flag(), index()};
    case 8: return TimeoutNow{};
    case 9: return SnapshotRequest{index(), term(), flag() ? voters({1, 2}) : Configuration{}};
    default: return SnapshotReply{flag(), index()};
  }
}

/// One core fed with whatever a stranger may send, and with legal inputs between.
void feed_nonsense(std::uint64_t seed) {
  Random random(seed);
  Core core(CoreOptions{.id = node(1), .seed = seed, .tail_bytes_max = random.below(500)},
            Restored{.configuration = voters({1, 2, 3}), .first_index = Index{1}});
  std::deque<Ready> writing;
  bool offered = false;
  for (int step = 0; step < 300; ++step) {
    const NodeId from = node(random.below(6));
    const Term term{random.below(10) == 0 ? random.next() : random.below(3) + core.term().value};
    switch (random.below(10)) {
      case 0: core.tick(); break;
      case 1: (void)core.propose(EntryType::command, SharedBytes("x"), random.next() % 100); break;
      case 2: core.request_read(random.below(8)); break;
      case 3: (void)core.propose_configuration(voters({1, 2 + random.below(3)}), 0); break;
      case 4:
        if (random.below(3) == 0) (void)core.transfer_leadership(node(random.below(5)));
        if (random.below(3) == 0) core.campaign();
        break;
      case 5:
        if (!writing.empty()) {
          core.persisted(writing.front().sequence, Term{}, Index{});
          writing.pop_front();
        }
        break;
      case 6:
        core.loaded(from, Index{random.below(6) + 1}, Term{random.below(4)}, {entry(random.below(6), random.below(4))});
        break;
      default: core.step(Message{from, node(1), term, random_body(random)}); break;
    }
    if (offered && random.below(4) == 0) {
      core.snapshot_refused();
      offered = false;
    }
    while (core.has_ready()) {
      Ready ready = core.take_ready();
      if (!ready.committed.empty()) core.applied(ready.committed.back().index);
      offered = offered || ready.snapshot_offer.has_value();
      writing.push_back(std::move(ready));
    }
    const char* name = core.broken();
    REQUIRE_MESSAGE(name == nullptr, name);
  }
}

}  // namespace

TEST_SUITE_BEGIN("raft.invariants");

TEST_CASE("a sound state breaks nothing, nor does standing still") {
  CHECK(broken(leader()) == nullptr);
  CHECK(broken(leader(), leader()) == nullptr);
}

TEST_CASE("each sentence about one state is broken by its own violation") {
  const std::vector<std::pair<const char*, void (*)(Facts&)>> rows{
      {"applied_index <= delivered_index", [](Facts& f) { f.applied_index = Index{6}; }},
      {"delivered_index <= commit_index", [](Facts& f) { f.delivered_index = Index{7}; }},
      {"commit_index <= last_index", [](Facts& f) { f.commit_index = Index{10}; }},
      {"stable_index <= queued_index", [](Facts& f) { f.stable_index = Index{9}; }},
      {"queued_index <= last_index", [](Facts& f) { f.queued_index = Index{10}; }},
      {"the log is trimmed only below what is applied", [](Facts& f) { f.first_index = Index{6}; }},
      {"no entry is of a later term than the current", [](Facts& f) { f.last_term = Term{4}; }},
      {"the configuration in force is of an entry in the log", [](Facts& f) { f.configuration_index = Index{10}; }},
      {"nothing is persisted before it is taken", [](Facts& f) { f.persisted = 6; }},
      {"a candidate or leader has voted for itself in its term", [](Facts& f) { f.voted_for = node(2); }},
      {"a leader knows itself as the leader", [](Facts& f) { f.leader_id = node(2); }},
      {"who does not lead does not take itself for the leader", [](Facts& f) { f.role = Role::follower; }},
      {"a leader's last entry is of its own term", [](Facts& f) { f.last_term = Term{2}; }},
      {"a leader keeps the entry that began its term", [](Facts& f) { f.term_start = Index{10}; }},
  };
  for (const auto& [sentence, violate] : rows) {
    Facts facts = leader();
    violate(facts);
    CHECK(broken(facts) == std::string(sentence));
  }
}

TEST_CASE("each sentence about two successive states is broken by its own violation") {
  const std::vector<std::pair<const char*, void (*)(Facts&)>> rows{
      {"the term never falls", [](Facts& f) { f.term = Term{2}; }},
      {"one vote per term", [](Facts& f) { f.voted_for = node(2); }},
      {"commit_index never falls", [](Facts& f) { f.commit_index = Index{5}; }},
      {"applied_index never falls", [](Facts& f) { f.applied_index = Index{3}; }},
      {"delivered_index never falls", [](Facts& f) { f.delivered_index = Index{4}; }},
      {"first_index never falls", [](Facts& f) { f.first_index = Index{1}; }},
      {"sequences never fall", [](Facts& f) { f.taken = 4; }},
      {"a leader only appends to its log", [](Facts& f) { f.last_index = Index{8}; }},
      {"a leader's durable entries stay", [](Facts& f) { f.stable_index = Index{6}; }},
      {"one leader per term", [](Facts& f) { f.leader_id = node(2); }},
  };
  for (const auto& [sentence, violate] : rows) {
    Facts facts = leader();
    violate(facts);
    CHECK(broken(leader(), facts) == std::string(sentence));
  }
}

TEST_CASE("nothing that a message contains triggers an assertion (H12)") {
  for (std::uint64_t seed = 1; seed <= 2000; ++seed) {
    CAPTURE(seed);
    feed_nonsense(seed);
  }
}

TEST_SUITE_END();
