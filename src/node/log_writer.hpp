// The log thread's work: everything queued while a sync was under way becomes the next group.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "base/executor.hpp"
#include "base/histogram.hpp"
#include "log/log.hpp"
#include "raft/ready.hpp"

namespace flotilla::node {

/// submit() and read() on the loop thread; the log is touched on the log executor alone.
class LogWriter {
 public:
  struct Write {
    std::uint64_t sequence = 0;  ///< of its Ready
    std::optional<raft::HardState> hard_state;
    std::optional<raft::SnapshotMeta> log_restart;  ///< after hard_state, before entries
    std::vector<raft::Entry> entries;
    Index commit_index;
    Duration submitted{};  ///< set by submit()
  };
  struct Events {
    /// Every write up to this sequence is durable. On the loop.
    std::function<void(std::uint64_t sequence)> durable;
    /// disk_full: what was submitted waits, and retry() tries again; nullopt: it is written now. On the loop.
    std::function<void(const std::optional<Error>&)> full;
    /// The log failed; nothing more will be written. On the loop, once.
    std::function<void(const Error&)> failed;
  };
  LogWriter(Loop& loop, Executor& executor, log::Log& log, Events events);

  void submit(Write write);
  /// There may be space again.
  void retry();
  /// Everything that Events::durable spoke of survives a loss of power when `done` runs, on the loop. Needed only where
  /// not each group is synced.
  void sync(std::function<void()> done);
  /// Writes an empty block behind the last group: damage there can then be told from a torn tail.
  void protect(Index commit_index);
  /// Entries from `first` on, and the term of the one before it, if it is not known. On the loop; empty if the log no
  /// longer has them.
  /// A failure to read ends the log's run like a failure to write.
  struct Slice {
    Term prev_term;
    std::vector<raft::Entry> entries;
  };
  void read(Index first, std::optional<Term> prev_term, std::size_t bytes_max, std::function<void(Slice)> done);

  /// Lets go of what is below `first`, a whole segment at a time; `done` gets the first entry that is left. On the
  /// loop.
  void trim(Index first, std::function<void(Index)> done);

  /// Thread: any, as the next.
  std::uint64_t log_bytes() const { return log_bytes_.load(std::memory_order_relaxed); }
  void report(Metrics& metrics) const;

 private:
  void drain();
  void write_group();
  void end(const Error& error);
  Result<Slice> slice_of(Index first, std::optional<Term> prev_term, std::size_t bytes_max);
  Result<void> write_steps();
  template <class Step>
  Result<void> once(Step step);
  Result<void> append_or_resume(std::span<const log::Log::Write> writes);
  Result<void> begin_anew(const raft::SnapshotMeta& after);

  Loop& loop_;
  Executor& executor_;
  log::Log& log_;
  Events events_;
  std::mutex mutex_;
  std::vector<Write> queued_;  // guarded by mutex_
  bool scheduled_ = false;     // guarded by mutex_
  // Of the log executor:
  std::vector<Write> group_;            ///< being written; not empty between two tasks: the disk was full
  std::size_t steps_ = 0;               ///< passed in this try to write it
  std::size_t steps_done_ = 0;          ///< that need not be done again
  bool append_begun_ = false;           ///< the step after those: to be resumed
  bool full_ = false;                   ///< told
  bool failed_ = false;                 ///< told
  std::atomic<bool> retrying_ = false;  ///< a try is on its way: it may take long
  std::atomic<std::uint64_t> log_bytes_;
  Histogram wait_;
  std::atomic<std::uint64_t> entries_ = 0;  ///< handed to the log so far
};

}  // namespace flotilla::node
