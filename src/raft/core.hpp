// The consensus core: Raft as a deterministic function of its inputs. No I/O, clock, thread, lock, randomness or
// exception.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "flotilla/error.hpp"
#include "flotilla/status.hpp"
#include "raft/configuration.hpp"
#include "raft/entry.hpp"
#include "raft/invariants.hpp"
#include "raft/message.hpp"
#include "raft/progress.hpp"
#include "raft/ready.hpp"

namespace flotilla::raft {

struct CoreOptions {
  NodeId id;
  std::uint64_t seed = 1;        ///< of the election timeouts; different on every member and at every start
  unsigned election_ticks = 10;  ///< randomised to [election_ticks, 2 * election_ticks)
  unsigned heartbeat_ticks = 1;
  std::size_t append_bytes_max = 1u << 20;     ///< entries in one AppendRequest; a single larger entry still goes
  std::size_t inflight_bytes_max = 16u << 20;  ///< unanswered appends per follower
  std::size_t inflight_messages_max = 256;
  std::size_t uncommitted_bytes_max = 256u << 20;  ///< proposals refused with `overloaded` above it
  std::size_t tail_bytes_max = 64u << 20;          ///< applied entries kept in memory for slow followers
  std::size_t committed_bytes_max = 16u << 20;     ///< in one Ready
  /// A follower refuses new entries while more than this is committed and not applied; a leader refuses proposals while
  /// more than this is not applied here, or not durable here.
  std::size_t unapplied_bytes_max = 512u << 20;
  /// Of one entry. A larger one is refused when proposed and ignored when received: no disk here would take it.
  std::size_t payload_bytes_max = 64u << 20;
  /// A leader whose own disk completes nothing for so long, while it has something to complete, steps down; unless its
  /// own vote alone is a quorum: then there is nobody to step down for.
  unsigned storage_stall_ticks = 50;
};

/// What survived on disk.
struct Restored {
  HardState hard_state;  ///< no entry, and not the one at base_index, is of a later term
  /// The entry before `entries`: (0, 0) at the very beginning, else where the applied state ends or the log was
  /// trimmed.
  Index base_index;
  Term base_term;
  /// In force at base_index.
  Configuration configuration;
  Index configuration_index;
  /// Durable entries base_index + 1 ... ; those at or below applied_index may be missing.
  std::vector<Entry> entries;
  Index commit_index;  ///< as far as known; at least applied_index
  Index applied_index;
  Index first_index;       ///< oldest entry that LogRead can still get; base_index + 1 if there is none
  std::uint64_t time = 0;  ///< of the entry at base_index
};

/// Owner thread: loop. Every call is O(1) or O(what it adds); after any of them take_ready() may have something.
class Core {
 public:
  Core(const CoreOptions& options, Restored restored);
  ~Core();

  /// One unit of time passed.
  void tick();
  /// A message from a peer, already decoded. Never asserts on its contents: what cannot be is ignored and counted.
  void step(Message message);

  /// Appends an entry as leader and returns its (term, index): it is applied if and only if the entry committed at that
  /// index has that term. `time` is the caller's wall clock in microseconds; clamped. Errors: not_leader;
  /// proposal_dropped (a transfer is under way); entry_too_large (payload_bytes_max); overloaded: too much waits for a
  /// majority, for the own applier or for the own disk.
  struct Position {
    Term term;
    Index index;
  };
  [[nodiscard]] Result<Position> propose(EntryType type, SharedBytes payload, std::uint64_t time);
  /// Appends a change of members to `wanted` (not joint): directly if at most one voter comes or goes, else through a
  /// joint configuration that is left by itself. Errors: not_leader; proposal_dropped (a transfer is under way);
  /// overloaded = try again: another change is under way, this leader has not committed yet, or the voters it has heard
  /// from lately are no majority of `wanted` (a new voter is a learner first); invalid_argument: not valid, or no
  /// change.
  [[nodiscard]] Result<Position> propose_configuration(Configuration wanted, std::uint64_t time);
  /// Asks for a read index; the answer arrives in Ready::reads under `id` (unique in this run of the member). Works on
  /// any member.
  void request_read(std::uint64_t id);
  /// Hands leadership to a voter; proposals are refused meanwhile, for at most election_ticks. Errors: not_leader;
  /// invalid_argument: not a voter, this member itself, or one whose disk was set back; overloaded: a transfer to
  /// another is under way.
  [[nodiscard]] Result<void> transfer_leadership(NodeId to);
  /// Stands for election now if it may (tests; a one-member cluster at start).
  void campaign();

  /// The Ready of `sequence`, and every one before it, is durable; its last entry was (term, index), or (0, 0) if it
  /// had none.
  void persisted(std::uint64_t sequence, Term term, Index index);
  /// Everything up to `index` is applied: entries below may leave memory.
  void applied(Index index);
  /// The answer to a LogRead; empty if the log no longer has it (then the follower needs a snapshot).
  void loaded(NodeId peer, Index first_index, Term prev_term, std::vector<Entry> entries);
  /// The log begins at `first_index` from now on.
  void trimmed(Index first_index);
  /// The answers to a SnapshotSend: `peer` holds the bytes of a snapshot as of `meta`, and may be told to install it;
  /// or it could not be brought there.
  void snapshot_sent(NodeId peer, const SnapshotMeta& meta);
  void snapshot_failed(NodeId peer);
  /// The answers to a SnapshotOffer: the state is now durably the one of `meta` (which may be newer than the offer), or
  /// stays what it was. Until then this member takes no entries and does not stand for election. A `meta` that cannot
  /// be is refused. One of a later term than the member's own raises that.
  void snapshot_installed(const SnapshotMeta& meta);
  void snapshot_refused();
  /// The link to `peer` broke: what was in flight may be lost; probe again.
  void unreachable(NodeId peer);

  /// True if take_ready() would return something to do. (A leader may find that a window is full after all: then the
  /// Ready is empty, and durable like any other.)
  bool has_ready() const;
  Ready take_ready();

  NodeId id() const;
  Role role() const;
  Term term() const;
  NodeId leader_id() const;  ///< 0 if unknown
  Index commit_index() const;
  Index last_index() const;
  Index stable_index() const;
  const Configuration& configuration() const;
  Index configuration_index() const;
  /// Leader: whether this follower holds everything it could be sent up to about now (a learner may be promoted).
  bool caught_up(NodeId peer) const;
  Index match_index(NodeId peer) const;
  bool transfer_pending() const;
  /// Of an entry of this log, as far back as it is known.
  std::optional<Term> term_at(Index index) const;
  /// Leader: what it knows about a follower; nullptr if there is none of this id.
  const Progress* progress(NodeId peer) const;
  /// Leader: record bytes that are appended and not committed.
  std::uint64_t uncommitted_bytes() const;
  /// Messages that could not be, or were for somebody else.
  std::uint64_t ignored_messages() const;

  Facts facts() const;
  /// Costly: every invariant that this core alone can check. nullptr, or the name of the broken one.
  const char* broken() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace flotilla::raft
