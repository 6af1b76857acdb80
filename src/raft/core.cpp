// Dispatch: inputs to their handlers, and what they left behind into a Ready.
#include "raft/core.hpp"

#include <algorithm>
#include <string_view>
#include <utility>

#include "base/assert.hpp"
#include "raft/state.hpp"

namespace flotilla::raft {
namespace {

template <class... T>
bool is_one_of(const Body& body) {
  return (std::holds_alternative<T>(body) || ...);
}

bool from_a_leader(const Body& body) {
  return is_one_of<AppendRequest, Heartbeat, SnapshotRequest, TimeoutNow>(body);
}

/// Numbers that no run of a cluster reaches are not taken from a message.
struct InRange {
  static bool ok(Index index) { return index.value <= number_max; }
  static bool ok(Term number) { return number.value <= number_max; }

  bool operator()(const VoteRequest& body) const { return ok(body.last_index) && ok(body.last_term); }
  bool operator()(const VoteReply&) const { return true; }
  bool operator()(const AppendRequest& body) const {
    return ok(body.prev_index) && ok(body.prev_term) && ok(body.commit_index);
  }
  bool operator()(const AppendReply& body) const {
    return ok(body.match_index) && ok(body.rejected_index) && ok(body.conflict_term) && ok(body.conflict_index) &&
           ok(body.last_index);
  }
  bool operator()(const Heartbeat& body) const { return ok(body.commit_index); }
  bool operator()(const HeartbeatReply&) const { return true; }
  bool operator()(const ReadIndexRequest&) const { return true; }
  bool operator()(const ReadIndexReply& body) const { return ok(body.read_index); }
  bool operator()(const TimeoutNow&) const { return true; }
  bool operator()(const SnapshotRequest& body) const { return ok(body.index) && ok(body.index_term); }
  bool operator()(const SnapshotReply& body) const { return ok(body.match_index); }
};

Index known_commit(const Restored& restored) {
  const Index last = restored.base_index + restored.entries.size();
  FLOTILLA_ASSERT(restored.base_index <= restored.applied_index);
  FLOTILLA_ASSERT(restored.applied_index <= last);
  // The commit index is written now and then, the log always: it may have been lost beyond what the log proves.
  return std::clamp(restored.commit_index, restored.applied_index, last);
}

}  // namespace

Core::State::State(const CoreOptions& wanted, Restored restored)
    : options(wanted),
      random(wanted.seed),
      term(restored.hard_state.term),
      voted_for(restored.hard_state.voted_for),
      tail(restored.base_index, restored.base_term, restored.time),
      durability(restored.base_index + restored.entries.size()),
      commit_index(known_commit(restored)),
      delivered_index(restored.applied_index),
      applied_index(restored.applied_index),
      first_index(restored.first_index) {
  FLOTILLA_ASSERT(options.id);
  FLOTILLA_ASSERT(options.election_ticks > options.heartbeat_ticks);
  FLOTILLA_ASSERT(restored.configuration_index <= restored.base_index);
  configurations.push_back({restored.configuration_index, std::move(restored.configuration)});
  for (Entry& entry : restored.entries) {
    if (entry.type == EntryType::configuration) {
      std::optional<Configuration> configuration = decode_configuration(entry.payload.view());
      FLOTILLA_ASSERT(configuration.has_value());
      configurations.push_back({entry.index, std::move(*configuration)});
    }
    tail.append(std::move(entry));
  }
  drop_old_configurations();
  shown_term = term;
  reset_election_timer();
  checked = facts();
  check();
}

void Core::State::tick() {
  tick_reads();
  if (leading() != nullptr) {
    tick_leader();
  } else {
    tick_election();
  }
}

bool Core::State::plausible(const Message& message) const {
  if (message.to != options.id || !message.from || message.from == options.id) return false;
  if (!message.term || !reachable(message.term)) return false;
  return std::visit(InRange{}, message.body);
}

bool Core::State::reachable(Term wanted) const {
  FLOTILLA_ASSERT(term.value <= number_max);
  return wanted.value <= std::min(number_max, term.value + term_leap_max);
}

void Core::State::step(Message message) {
  if (!plausible(message)) return ignore();
  if (message.term < term) return answer_stale(message);
  if (message.term > term && !admit_higher_term(message)) return;
  std::visit([this, &message](auto& body) { handle(message, body); }, message.body);
}

/// A sender that is behind learns the term, so that neither a cluster of mixed terms nor a deposed leader stands still.
void Core::State::answer_stale(const Message& message) {
  FLOTILLA_ASSERT(message.term < term);
  if (const auto* request = std::get_if<VoteRequest>(&message.body)) {
    send(message.from, VoteReply{.pre = request->pre, .granted = false});
  } else if (from_a_leader(message.body)) {
    send(message.from, HeartbeatReply{});
  } else if (const auto* read = std::get_if<ReadIndexRequest>(&message.body)) {
    send(message.from, ReadIndexReply{.id = read->id, .accepted = false, .read_index = {}});
  }
}

/// Adopts the higher term where the message proves that it exists and its sender may tell us. False: go no further.
bool Core::State::admit_higher_term(const Message& message) {
  FLOTILLA_ASSERT(message.term > term);
  if (const auto* request = std::get_if<VoteRequest>(&message.body)) {
    if (request->pre) return true;
    // Thesis 4.2.3: whoever hears a leader takes no part in deposing it, unless the leader asked for that.
    if (sticky() && !request->transfer) return false;
    // Only a vote that is given restarts the timer: who asks in vain must not keep a better candidate waiting.
    step_down(message.term, NodeId{});
    return true;
  }
  const auto* reply = std::get_if<VoteReply>(&message.body);
  if (reply != nullptr && reply->pre && reply->granted) return true;
  if (from_a_leader(message.body)) {
    become_follower(message.term, message.from);
    return true;
  }
  // The rest are answers and questions of members; from anybody else they prove nothing.
  if (!configuration().contains(message.from)) {
    ignore();
    return false;
  }
  become_follower(message.term, NodeId{});
  return true;
}

/// A sign of the current term's leader. False: somebody else leads this term, so it cannot be.
bool Core::State::hear_leader(NodeId from) {
  if (leading() != nullptr || (leader_id && leader_id != from)) return false;
  if (std::holds_alternative<Follower>(role_state) && leader_id == from) {
    election_ticks = 0;
  } else {
    become_follower(term, from);
  }
  if (matched_leader != from) {
    matched_leader = from;
    matched_index = Index{};
  }
  FLOTILLA_ASSERT(leader_id == from);
  return true;
}

/// Follows `leader`, or nobody, in `new_term`; the election timer runs on.
void Core::State::step_down(Term new_term, NodeId leader) {
  FLOTILLA_ASSERT(new_term >= term);
  FLOTILLA_ASSERT(leader != options.id);
  std::deque<PendingRead> reads;
  if (Leader* former = leading()) reads = std::move(former->reads);
  if (new_term > term) {
    term = new_term;
    voted_for = NodeId{};
    hard_state_dirty = true;
    matched_leader = NodeId{};
    matched_index = Index{};
  }
  role_state = Follower{};
  leader_id = leader;
  fail_forwarded_reads(leader);
  for (const PendingRead& read : reads) answer_read(read, false);
}

void Core::State::become_follower(Term new_term, NodeId leader) {
  step_down(new_term, leader);
  reset_election_timer();
}

bool Core::State::has_ready() const {
  // A new term is hard state, and a log that begins anew has a new configuration.
  if (hard_state_dirty || configuration_dirty || offer_dirty) return true;
  if (last_index() > durability.queued_index() || commit_index > delivered_index) return true;
  if (!outgoing.empty() || !gated.empty() || !answered_reads.empty()) return true;
  if (!log_reads.empty() || !snapshot_sends.empty()) return true;
  if (role() != shown_role || leader_id != shown_leader) return true;
  return leading() != nullptr && (leading()->flush || reads_wait_for_round());
}

Ready Core::State::take_ready() {
  // Here, not in each input: all proposals, answers and reads of a turn share appends and heartbeats.
  if (leading() != nullptr) {
    if (reads_wait_for_round()) start_read_round();
    if (leading()->flush) flush();
  }
  Ready ready;
  if (std::exchange(hard_state_dirty, false)) ready.hard_state = HardState{term, voted_for};
  ready.log_restart = std::exchange(log_restart, std::nullopt);
  const Index queued = durability.queued_index();
  if (last_index() > queued) ready.entries = tail.slice(queued.next(), last_index(), std::size_t{1} << 62);
  ready.sequence = durability.take(last_index());
  ready.commit_index = commit_index;
  ready.messages = std::exchange(outgoing, {});
  ready.messages_after_sync = std::exchange(gated, {});
  deliver_committed(ready);
  ready.reads = std::exchange(answered_reads, {});
  ready.log_reads = std::exchange(log_reads, {});
  ready.snapshot_sends = std::exchange(snapshot_sends, {});
  if (std::exchange(offer_dirty, false)) ready.snapshot_offer = offer;
  note_changes(ready);
  return ready;
}

void Core::State::deliver_committed(Ready& ready) {
  if (commit_index == delivered_index) return;
  ready.committed = tail.slice(delivered_index.next(), commit_index, options.committed_bytes_max);
  FLOTILLA_ASSERT(!ready.committed.empty());
  FLOTILLA_ASSERT(ready.committed.front().index == delivered_index.next());
  delivered_index = ready.committed.back().index;
}

void Core::State::note_changes(Ready& ready) {
  ready.role_changed = role() != shown_role || term != shown_term || leader_id != shown_leader;
  shown_role = role();
  shown_term = term;
  shown_leader = leader_id;
  ready.configuration_changed = std::exchange(configuration_dirty, false);
}

/// The sequence alone decides: an equal (term, index) may have left the log and come back since that write was made.
void Core::State::persisted(std::uint64_t sequence, Term entry_term, Index index) {
  FLOTILLA_ASSERT(!entry_term == !index);
  if (!durability.complete(sequence)) return;
  own_vote_durable();
  if (Leader* leader = leading()) {
    leader->stall_ticks = 0;
    advance_commit();
  }
  tail.evict(std::min(applied_index, durability.stable_index()), options.tail_bytes_max);
}

void Core::State::applied(Index index) {
  FLOTILLA_ASSERT(index <= delivered_index);
  applied_index = std::max(applied_index, index);
  tail.evict(std::min(applied_index, durability.stable_index()), options.tail_bytes_max);
}

Role Core::State::role() const {
  if (leading() != nullptr) return Role::leader;
  const auto* candidate = std::get_if<Candidate>(&role_state);
  if (candidate == nullptr) return Role::follower;
  return candidate->pre ? Role::pre_candidate : Role::candidate;
}

Facts Core::State::facts() const {
  return Facts{
      .id = options.id,
      .role = role(),
      .term = term,
      .voted_for = voted_for,
      .leader_id = leader_id,
      .applied_index = applied_index,
      .delivered_index = delivered_index,
      .commit_index = commit_index,
      .stable_index = durability.stable_index(),
      .queued_index = durability.queued_index(),
      .last_index = last_index(),
      .last_term = tail.last_term(),
      .first_index = first_index,
      .configuration_index = configuration_index(),
      .term_start = leading() != nullptr ? leading()->term_start : Index{},
      .taken = durability.taken(),
      .persisted = durability.persisted(),
  };
}

void Core::State::check() {
  const Facts now = facts();
  if (const char* name = raft::broken(now)) assert_failed(name, __FILE__, __LINE__);
  if (const char* name = raft::broken(checked, now)) assert_failed(name, __FILE__, __LINE__);
  checked = now;
}

const char* Core::State::broken() const {
  if (const char* name = raft::broken(facts())) return name;
  if (const char* name = tail.broken()) return name;
  for (std::size_t i = 1; i < configurations.size(); ++i) {
    const ConfigurationAt& here = configurations[i];
    if (here.index <= commit_index) return "only the newest committed configuration is kept";
    if (!tail.in_memory(here.index)) return "an uncommitted configuration is in the log";
    const std::string_view payload = tail.at(here.index).payload.view();
    if (payload != encode(here.configuration)) return "a configuration is what its entry says";
  }
  for (Index index = std::max(tail.memory_first_index(), configuration_index().next()); index <= last_index();
       ++index) {
    if (tail.at(index).type == EntryType::configuration) return "the configuration in force is the last of the log";
  }
  if (leading() == nullptr) return nullptr;
  for (const Progress& peer : leading()->peers) {
    if (const char* name = peer.broken()) return name;
    if (peer.match_index() > last_index()) return "no follower matches beyond the leader's log";
    const bool belongs = configuration().contains(peer.id());
    if (peer.leaving == belongs) return "exactly those outside the configuration are leaving";
  }
  for (NodeId id : configuration().ids()) {
    if (id != options.id && peer(id) == nullptr) return "a leader follows every member's progress";
  }
  return nullptr;
}

Core::Core(const CoreOptions& options, Restored restored)
    : state_(std::make_unique<State>(options, std::move(restored))) {}
Core::~Core() = default;

void Core::tick() {
  state_->tick();
  state_->check();
}
void Core::step(Message message) {
  state_->step(std::move(message));
  state_->check();
}
Result<Core::Position> Core::propose(EntryType type, SharedBytes payload, std::uint64_t time) {
  Result<Position> position = state_->propose(type, std::move(payload), time);
  state_->check();
  return position;
}
Result<Core::Position> Core::propose_configuration(Configuration wanted, std::uint64_t time) {
  Result<Position> position = state_->propose_configuration(std::move(wanted), time);
  state_->check();
  return position;
}
void Core::request_read(std::uint64_t id) {
  state_->request_read(id);
}
Result<void> Core::transfer_leadership(NodeId to) {
  return state_->transfer_leadership(to);
}
void Core::campaign() {
  state_->campaign();
  state_->check();
}
void Core::persisted(std::uint64_t sequence, Term term, Index index) {
  state_->persisted(sequence, term, index);
  state_->check();
}
void Core::applied(Index index) {
  state_->applied(index);
  state_->check();
}
void Core::loaded(NodeId peer, Index first_index, Term prev_term, std::vector<Entry> entries) {
  state_->loaded(peer, first_index, prev_term, std::move(entries));
  state_->check();
}
void Core::trimmed(Index first_index) {
  state_->trimmed(first_index);
  state_->check();
}
void Core::snapshot_sent(NodeId peer, const SnapshotMeta& meta) {
  state_->snapshot_sent(peer, meta);
  state_->check();
}
void Core::snapshot_failed(NodeId peer) {
  state_->snapshot_failed(peer);
}
void Core::snapshot_installed(const SnapshotMeta& meta) {
  state_->snapshot_installed(meta);
  state_->check();
}
void Core::snapshot_refused() {
  state_->snapshot_refused();
}
void Core::unreachable(NodeId peer) {
  state_->unreachable(peer);
}
bool Core::has_ready() const {
  return state_->has_ready();
}
Ready Core::take_ready() {
  Ready ready = state_->take_ready();
  state_->check();
  return ready;
}
NodeId Core::id() const {
  return state_->options.id;
}
Role Core::role() const {
  return state_->role();
}
Term Core::term() const {
  return state_->term;
}
NodeId Core::leader_id() const {
  return state_->leader_id;
}
Index Core::commit_index() const {
  return state_->commit_index;
}
Index Core::last_index() const {
  return state_->last_index();
}
Index Core::stable_index() const {
  return state_->durability.stable_index();
}
const Configuration& Core::configuration() const {
  return state_->configuration();
}
Index Core::configuration_index() const {
  return state_->configuration_index();
}
bool Core::caught_up(NodeId peer) const {
  const Progress* progress = state_->peer(peer);
  return progress != nullptr && progress->mode() == ProgressMode::replicate && !progress->rolled_back &&
         progress->silent_ticks < state_->options.election_ticks &&
         progress->match_index() >= std::as_const(*state_).leading()->commit_before_tick;
}
Index Core::match_index(NodeId peer) const {
  const Progress* progress = state_->peer(peer);
  return progress == nullptr ? Index{} : progress->match_index();
}
bool Core::transfer_pending() const {
  return state_->leading() != nullptr && state_->leading()->transfer.has_value();
}
std::optional<Term> Core::term_at(Index index) const {
  return state_->tail.term_at(index);
}
const Progress* Core::progress(NodeId peer) const {
  return std::as_const(*state_).peer(peer);
}
std::uint64_t Core::uncommitted_bytes() const {
  return state_->uncommitted_bytes();
}
std::uint64_t Core::ignored_messages() const {
  return state_->ignored;
}
Facts Core::facts() const {
  return state_->facts();
}
const char* Core::broken() const {
  return state_->broken();
}

}  // namespace flotilla::raft
