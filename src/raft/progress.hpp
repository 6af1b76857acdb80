// What a leader knows about one follower.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>

#include "flotilla/types.hpp"
#include "raft/ready.hpp"

namespace flotilla::raft {

/// probe: one append at a time, until one is accepted and the two logs are known to meet.
/// replicate: appends are sent without waiting for answers, within a window.
/// snapshot: the log no longer has what the follower lacks; nothing is appended until a snapshot is installed there.
enum class ProgressMode : std::uint8_t { probe, replicate, snapshot };

struct Window {
  std::size_t bytes_max;
  std::size_t messages_max;
};

/// Invariant: match_index < next_index. In probe mode nothing is in flight; in snapshot mode neither.
class Progress {
 public:
  Progress(NodeId id, Index next_index) : id_(id), next_index_(next_index) {}

  NodeId id() const noexcept { return id_; }
  ProgressMode mode() const noexcept { return mode_; }
  /// Everything up to here is as in the leader's log, and durable there. Never falls.
  Index match_index() const noexcept { return match_index_; }
  /// The first entry of the next append.
  Index next_index() const noexcept { return next_index_; }
  std::size_t inflight_bytes() const noexcept { return inflight_bytes_; }
  std::size_t inflight_messages() const noexcept { return inflight_.size(); }
  /// Probe: the one append is out and not answered.
  bool paused() const noexcept { return paused_; }

  /// Whether another append may be sent now. A window always admits one, however large.
  bool may_append(const Window& window) const noexcept;
  /// An append of entries up to `last` was sent (probe: of none, if `last` is next_index() - 1).
  void appended(Index last, std::size_t bytes);
  /// Probe: something is under way that must be waited for.
  void pause() noexcept { paused_ = true; }
  /// It need not be waited for any more.
  void resume() noexcept { paused_ = false; }

  /// The follower has everything up to `match_index`. True if that is news.
  bool accepted(Index match_index);
  /// The append after `rejected_index` did not fit. False: an old answer, nothing to do. Otherwise the next probe
  /// begins at most at `hint` and always lower than the one rejected.
  bool rejected(Index rejected_index, Index hint);
  /// Anything in flight may be lost: probe from what is known, once the follower speaks.
  void probe_again() noexcept;
  void enter_snapshot() noexcept;
  /// Probe again after a snapshot failed.
  void leave_snapshot() noexcept;

  /// nullptr, or the name of what is broken.
  const char* broken() const;

  // Plain facts, kept by the leader.
  /// Its log is not what it acknowledged: its disk was set back. Until it proves the contrary (a late answer looks the
  /// same for a moment) it counts for no commit and no read, is sent no entries, and is asked at each heartbeat. A
  /// member that stays so must be replaced under a new identity.
  bool rolled_back = false;
  bool leaving = false;                  ///< not in the configuration any more; is told so, then forgotten
  unsigned leaving_ticks = 0;            ///< since then
  unsigned silent_ticks = 0;             ///< since anything was heard from it
  unsigned stalled_ticks = 0;            ///< since match_index rose, or nothing was outstanding
  Index commit_sent;                     ///< the highest commit index it was told
  std::uint64_t read_round = 0;          ///< the newest heartbeat round it answered
  std::optional<SnapshotMeta> snapshot;  ///< snapshot mode: what was brought over and may be installed there
  unsigned snapshot_retry_ticks = 0;     ///< probe mode: no new snapshot before these have passed

 private:
  struct Sent {
    Index last;
    std::size_t bytes;
  };
  void forget_inflight() noexcept;

  NodeId id_;
  ProgressMode mode_ = ProgressMode::probe;
  Index match_index_;
  Index next_index_;
  bool paused_ = false;
  std::deque<Sent> inflight_;
  std::size_t inflight_bytes_ = 0;
};

}  // namespace flotilla::raft
