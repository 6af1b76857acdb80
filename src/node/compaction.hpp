// Online compaction: a copy of the database without its unused pages takes the place of the database, while commands
// and reads go on.
//
// 1. bulk: copies the newest transaction to a directory of its own (state::Store::compact_to).
// 2. apply: opens the copy under its final name, beside the database in use.
// 3. The copy catches up: entries are read from the log and applied to it, between the batches of the database in use,
//    until it is a slice behind.
// 4. The copy gets a checkpoint, which makes all of it durable; then 3 again.
// 5. Apply pauses, the copy gets the last entries, and the link is moved to it: from then on a restart finds the copy.
//
// Whatever ends it before 5 leaves the database as it was.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include "base/executor.hpp"
#include "flotilla/error.hpp"
#include "flotilla/options.hpp"
#include "node/applier.hpp"
#include "node/log_writer.hpp"
#include "state/directory.hpp"
#include "state/store.hpp"

namespace flotilla::node {

/// Thread: loop.
class Compaction {
 public:
  struct Parts {
    Executor& loop;
    Executor& apply;
    Executor& bulk;
    Executor& checkpoint;
    LogWriter& log_writer;
    Applier& applier;
    state::Store& store;
    state::Directory& directory;
  };
  struct Limits {
    std::uint64_t reserve_bytes = 0;  ///< of the disk, which are left to others
    Applier::Limits slice;            ///< applied at once; larger than a batch of apply, or it would never catch up
  };
  struct Events {
    /// As Checkpoints::Events::sync_log.
    std::function<void(std::function<void()> then)> sync_log;
    std::function<void(const Error&)> failed;  ///< a local fault: which database a restart finds is open
  };
  using Done = std::function<void(Result<void>)>;
  Compaction(Parts parts, const Limits& limits, Events events);
  ~Compaction();

  /// `done` runs once, on the loop. in_use: one is under way.
  void begin(Done done);
  /// Ends the one under way with `why`, as if it had not been begun.
  void abort(const Error& why);
  bool running() const { return run_ != nullptr; }
  /// The log must keep this entry and those after it.
  std::optional<Index> first_needed() const;

 private:
  struct Run;
  enum class Phase : std::uint8_t { catching_up, checkpointed, paused };

  void open(const std::shared_ptr<Run>& run);
  void catch_up(const std::shared_ptr<Run>& run);
  void apply(const std::shared_ptr<Run>& run, std::shared_ptr<const std::vector<raft::Entry>> chunk, std::size_t from);
  void caught_up(const std::shared_ptr<Run>& run);
  void checkpoint(const std::shared_ptr<Run>& run);
  void pause(const std::shared_ptr<Run>& run);
  void change_over(const std::shared_ptr<Run>& run);
  void finish_checkpoint(const std::shared_ptr<Run>& run);
  void failed(const std::shared_ptr<Run>& run, const Error& error);
  void end(std::shared_ptr<Run> run, Result<void> result);

  template <class Work, class Then>
  void on(Executor& executor, const std::shared_ptr<Run>& run, Work work, Then then);

  const Parts parts_;
  const Limits limits_;
  const Events events_;
  std::shared_ptr<Run> run_;
  std::uint64_t runs_ = 0;
};

}  // namespace flotilla::node
