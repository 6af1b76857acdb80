// The apply thread's work: committed entries become LMDB transactions, and calls of this process end with their
// results.
#pragma once

#include <atomic>
#include <cstddef>
#include <functional>
#include <mutex>
#include <optional>
#include <vector>

#include "base/executor.hpp"
#include "base/histogram.hpp"
#include "base/queue.hpp"
#include "node/calls.hpp"
#include "raft/entry.hpp"
#include "state/directory.hpp"
#include "state/store.hpp"

namespace flotilla::node {

/// submit() on the loop thread; the store is written on the apply executor alone.
class Applier {
 public:
  struct Limits {
    std::size_t entries = 0;
    std::size_t bytes = 0;
  };
  struct Progress {
    Index applied_index;
    std::uint64_t bytes = 0;                      ///< of the applied entries, in the log
    std::vector<std::uint64_t> ended;             ///< sequences of calls of this process that ended
    std::vector<Result<Bytes>> session_outcomes;  ///< of session entries of this process

    /// Keeps the memory.
    void clear() {
      bytes = 0;
      ended.clear();
      session_outcomes.clear();
    }
  };
  struct Events {
    std::function<void(const Progress&)> applied;  ///< on the loop
    /// disk_full: what was submitted waits, and retry() tries again; nullopt: it is applied now. On the loop.
    std::function<void(const std::optional<Error>&)> full;
    std::function<void(const Error&)> failed;  ///< on the loop, once: a local fault, apply is over
  };
  Applier(Loop& loop, Executor& executor, state::Store& store, Calls& calls, Limits limits, Events events);

  /// Contiguous with what was submitted before.
  void submit(std::vector<raft::Entry> entries);
  /// There may be space again.
  void retry();
  /// Nothing is applied from now on, until go_on(). Thread: apply executor, both.
  void pause() { paused_ = true; }
  void go_on();

  /// Puts the received snapshot in `directory` in the place of the state, after what was submitted before. `done` runs
  /// on the loop: an error means that nothing has changed. What is submitted afterwards may begin with entries that the
  /// snapshot includes. A failure half-way is a fault like one of apply.
  using Installed = std::function<void(Result<Progress>)>;
  void install(state::Directory& directory, const state::Applied& received, Installed done);
  /// Thread: any.
  void report(Metrics& metrics) const;

 private:
  struct Submitted {
    Index last;
    Duration at;
  };
  void drain();
  void take_batch();
  Result<std::vector<state::Outcome>> apply_to_store();
  Result<void> apply();
  void end_call(state::Outcome& outcome, Duration now, Progress& progress);
  Result<Progress> install_now(state::Directory& directory, const state::Applied& received, bool& half_way);
  void end(const Error& error);
  void tell();

  Loop& loop_;
  Executor& executor_;
  state::Store& store_;
  Calls& calls_;
  const Limits limits_;
  Events events_;
  std::mutex mutex_;
  Queue<raft::Entry> queued_;           // guarded by mutex_
  Queue<Submitted> submitted_;          // guarded by mutex_: what is queued, and when that was
  bool scheduled_ = false;              // guarded by mutex_
  Progress unreported_;                 // guarded by mutex_
  bool reporting_ = false;              // guarded by mutex_: the loop will look at unreported_
  std::atomic<bool> retrying_ = false;  ///< a try is on its way: it may take long
  // Of the apply executor:
  std::vector<raft::Entry> batch_;  ///< not empty between two tasks: the disk was full
  Progress progress_;               ///< of one batch, until it is told
  bool full_ = false;               ///< told
  bool paused_ = false;
  bool failed_ = false;  ///< told
  Progress reported_;    ///< of the loop
  Histogram wait_, apply_, completion_, command_;
  std::atomic<std::uint64_t> entries_ = 0;  ///< applied so far
};

}  // namespace flotilla::node
