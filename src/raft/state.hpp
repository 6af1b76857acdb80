// The state behind Core, and its handlers: one family per file.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <utility>
#include <variant>
#include <vector>

#include "raft/configuration.hpp"
#include "raft/core.hpp"
#include "raft/durability.hpp"
#include "raft/invariants.hpp"
#include "raft/progress.hpp"
#include "raft/quorum.hpp"
#include "raft/random.hpp"
#include "raft/tail.hpp"

namespace flotilla::raft {

/// Terms and indexes above this are not taken from messages, so that arithmetic on them never overflows.
inline constexpr std::uint64_t number_max = std::uint64_t{1} << 62;
/// No cluster holds so many elections in a century. A term further ahead than that was never reached by any, and
/// whoever adopted it might have none left to stand in. Far from any power of two, so that a term with a flipped bit is
/// either ignored by all members or adopted by all, however far behind one of them is.
inline constexpr std::uint64_t term_leap_max = std::uint64_t{3} << 31;
/// Reads that one leader holds at a time, its own and its followers'.
inline constexpr std::size_t pending_reads_max = 1u << 16;

struct Follower {};

/// Standing for election, first by pre-vote, then in earnest.
struct Candidate {
  bool pre = true;
  /// The Ready that carries this member's own vote: it counts once that is durable.
  std::uint64_t vote_sequence = 0;
  std::vector<std::pair<NodeId, bool>> votes;  ///< each voter once

  std::optional<bool> vote_of(NodeId id) const;
  /// The first answer of a voter counts.
  void record(NodeId id, bool granted);
};

/// A read whose index waits to be confirmed by a round of heartbeats.
struct PendingRead {
  NodeId from;  ///< who asked; this member itself or a follower
  std::uint64_t id = 0;
  Index read_index;
  std::uint64_t round = 0;  ///< 0: not assigned to a round yet
};

struct Transfer {
  NodeId to;  ///< 0: the first voter that has the whole log; this leader is none itself any more
  unsigned ticks = 0;
  bool ordered = false;  ///< TimeoutNow is on its way
};

struct Leader {
  std::vector<Progress> peers;  ///< all other members of the configuration, and those that are leaving; sorted by id
  Index term_start;             ///< the no-op that began the term
  Index commit_before_tick;     ///< commit_index at the last tick
  unsigned heartbeat_ticks = 0;
  unsigned stall_ticks = 0;  ///< since the own disk completed something
  bool flush = false;        ///< something may be sent at the next take_ready()
  std::uint64_t read_round = 0;
  std::deque<PendingRead> reads;
  std::optional<Transfer> transfer;
};

/// A read asked of the leader by this follower.
struct ForwardedRead {
  NodeId leader;
  unsigned ticks = 0;
};

struct ConfigurationAt {
  Index index;
  Configuration configuration;
};

struct Core::State {
  State(const CoreOptions& wanted, Restored restored);

  // core.cpp: dispatch, roles, Ready
  void tick();
  void step(Message message);
  bool plausible(const Message& message) const;
  bool reachable(Term wanted) const;
  bool admit_higher_term(const Message& message);
  bool hear_leader(NodeId from);
  void answer_stale(const Message& message);
  void step_down(Term new_term, NodeId leader);
  void become_follower(Term new_term, NodeId leader);
  void ignore() { ++ignored; }
  void send(NodeId to, Body body) { outgoing.push_back(Message{options.id, to, term, std::move(body)}); }
  void send_after_sync(NodeId to, Body body) { gated.push_back(Message{options.id, to, term, std::move(body)}); }
  bool has_ready() const;
  Ready take_ready();
  void deliver_committed(Ready& ready);
  void note_changes(Ready& ready);
  void persisted(std::uint64_t sequence, Term entry_term, Index index);
  void applied(Index index);
  Role role() const;
  Facts facts() const;
  void check();
  const char* broken() const;

  // election.cpp
  void reset_election_timer();
  void tick_election();
  bool may_stand() const;
  bool sticky() const;
  void campaign();
  void campaign_pre_vote();
  void campaign_in_earnest(bool ordered_by_leader);
  void ask_for_votes(bool pre, bool ordered_by_leader);
  void count_votes();
  void become_leader();
  void handle(const Message& envelope, const VoteRequest& request);
  void handle_pre_vote(const Message& envelope, const VoteRequest& request);
  void handle(const Message& envelope, const VoteReply& reply);
  bool is_up_to_date(Index index, Term index_term) const;
  void own_vote_durable();
  bool own_vote_waits() const;

  // replication.cpp
  Result<Position> propose(EntryType type, SharedBytes payload, std::uint64_t time);
  std::uint64_t uncommitted_bytes() const;
  Index append(EntryType type, SharedBytes payload, std::uint64_t time);
  void handle(const Message& envelope, AppendRequest& request);
  void handle(const Message& envelope, const AppendReply& reply);
  void handle(const Message& envelope, const Heartbeat& heartbeat);
  void handle(const Message& envelope, const HeartbeatReply& reply);
  bool plausible(const Message& envelope, const AppendRequest& request) const;
  void accept(const Message& envelope, AppendRequest& request);
  void reject(NodeId leader, Index prev_index);
  void acknowledge(NodeId leader, Index match_index);
  void append_new(std::vector<Entry>& entries);
  void truncate(Index last_kept);
  bool overfull() const;
  std::uint64_t behind_bytes() const;
  bool contradicts(const Progress& peer, const AppendReply& reply) const;
  void doubt(Progress& peer, const AppendReply& reply);
  void ask_to_confirm(Progress& peer);
  Index back_off(const AppendReply& reply) const;
  void peer_accepted(Progress& peer, Index match_index);
  void commit_to(Index index);
  void advance_commit();
  void flush();
  void replicate(Progress& peer);
  void announce_commit(Progress& peer);
  bool send_append(Progress& peer, bool with_entries);
  void send_entries(Progress& peer, Term prev_term, std::vector<Entry> entries);
  void read_log_for(Progress& peer);
  void loaded(NodeId peer_id, Index first, Term prev_term, std::vector<Entry> entries);
  void send_heartbeat(Progress& peer);
  void broadcast_heartbeat();
  void tick_leader();
  void tick_peer(Progress& peer);
  bool quorum_is_silent() const;
  bool storage_stalls();
  bool quorum_alone() const;
  void unreachable(NodeId peer_id);

  // read_index.cpp
  void request_read(std::uint64_t id);
  void begin_read(NodeId from, std::uint64_t id);
  void start_read_round();
  bool reads_wait_for_round() const;
  void confirm_reads();
  void answer_read(const PendingRead& read, bool confirmed);
  void fail_forwarded_reads(NodeId still_leading);
  void tick_reads();
  void handle(const Message& envelope, const ReadIndexRequest& request);
  void handle(const Message& envelope, const ReadIndexReply& reply);

  // snapshot.cpp
  void need_snapshot(Progress& peer);
  void snapshot_sent(NodeId peer_id, const SnapshotMeta& meta);
  void snapshot_failed(NodeId peer_id);
  void snapshot_installed(const SnapshotMeta& meta);
  bool possible(const SnapshotMeta& meta) const;
  void begin_log_after(const SnapshotMeta& meta);
  void snapshot_refused();
  void announce_snapshot(Progress& peer);
  void handle(const Message& envelope, const SnapshotRequest& request);
  void handle(const Message& envelope, const SnapshotReply& reply);
  void trimmed(Index index);

  // transfer.cpp
  Result<void> transfer_leadership(NodeId to);
  void continue_transfer(const Progress& peer);
  void tick_transfer();
  bool must_leave() const;
  void hand_over_and_step_down();
  void handle(const Message& envelope, const TimeoutNow& order);

  // membership.cpp
  Result<Position> propose_configuration(Configuration wanted, std::uint64_t time);
  std::optional<Error> refuse_change(const Configuration& wanted) const;
  bool would_have_quorum(const Configuration& wanted) const;
  const Configuration& configuration() const { return configurations.back().configuration; }
  Index configuration_index() const { return configurations.back().index; }
  Index append_configuration(Configuration configuration, std::uint64_t time);
  void adopt(Index index, Configuration configuration);
  void follow_members();
  void drop_configurations_after(Index last_kept);
  void drop_old_configurations();
  void follow_configuration();
  void leave_joint();
  void forget_removed();

  Leader* leading() { return std::get_if<Leader>(&role_state); }
  const Leader* leading() const { return std::get_if<Leader>(&role_state); }
  Progress* peer(NodeId id);
  const Progress* peer(NodeId id) const;
  Index last_index() const { return tail.last_index(); }
  /// Whether this leader has committed an entry of its own term. Requires: leading().
  bool own_term_committed() const { return commit_index >= leading()->term_start; }
  Window window() const { return {options.inflight_bytes_max, options.inflight_messages_max}; }

  const CoreOptions options;
  Random random;

  // Durable, by way of Ready
  Term term;
  NodeId voted_for;
  Tail tail;

  Durability durability;
  std::variant<Follower, Candidate, Leader> role_state;
  NodeId leader_id;
  unsigned election_ticks = 0;    ///< since a sign of the leader, or a vote given
  unsigned election_timeout = 0;  ///< drawn anew at each reset

  /// The highest index that the leader of this term proved to us in this run. What an earlier run acknowledged may not
  /// be on the disk any more, so the leader's memory of it proves nothing.
  Index matched_index;
  NodeId matched_leader;  ///< who proved it
  Index commit_index;
  Index delivered_index;  ///< handed to the applier
  Index applied_index;
  Index first_index;  ///< of the log on disk
  /// The newest configuration at or below commit_index, then those above it. Never empty.
  std::vector<ConfigurationAt> configurations;

  std::map<std::uint64_t, ForwardedRead> forwarded_reads;  ///< by id
  std::vector<NodeId> log_reads_out;                       ///< peers with a LogRead that is not answered
  std::optional<SnapshotOffer> offer;                      ///< being installed

  // For the next Ready
  bool hard_state_dirty = false;
  bool configuration_dirty = false;
  bool offer_dirty = false;
  std::optional<SnapshotMeta> log_restart;
  std::vector<Message> outgoing;
  std::vector<Message> gated;
  std::vector<ReadState> answered_reads;
  std::vector<LogRead> log_reads;
  std::vector<SnapshotSend> snapshot_sends;
  Role shown_role = Role::follower;
  Term shown_term;
  NodeId shown_leader;

  std::uint64_t ignored = 0;
  Facts checked;  ///< as of the last check
};

}  // namespace flotilla::raft
