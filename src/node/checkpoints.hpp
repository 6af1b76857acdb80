// When the database gets a checkpoint: so that a restart replays little, the file does not grow without bound, and the
// log can be trimmed.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>

#include "base/executor.hpp"
#include "flotilla/error.hpp"
#include "flotilla/options.hpp"
#include "state/store.hpp"

namespace flotilla::node {

/// Thread: loop. One at a time: begun on the apply executor, between two batches; made durable on another.
class Checkpoints {
 public:
  struct Limits {  ///< see Options
    std::uint64_t log_bytes = 0;
    std::uint64_t growth_bytes = 0;
    Duration interval{};
  };
  struct Events {
    /// `then` runs once the log is durable as far as it is applied. None: it always is.
    std::function<void(std::function<void()> then)> sync_log;
    std::function<void(const Error&)> failed;  ///< a local fault
  };
  Checkpoints(Loop& loop, Executor& apply, Executor& writer, state::Store& store, Limits limits, LogSink log_sink,
              Events events);
  ~Checkpoints();

  /// Entries of so many bytes in the log were applied.
  void applied(std::uint64_t bytes) { log_bytes_ += bytes; }
  void tick();
  /// No more of them; the one under way is written in haste, and nobody hears of it.
  void stop() {
    ending_->store(true);
    running_.reset();  // what it holds keeps the database open
  }

  /// What the one in force includes: the log must have all after it. The store is asked each time: another database,
  /// with a checkpoint of its own, may be in this one's place before anybody says so here.
  Index index() const { return store_.last_checkpoint().index; }

 private:
  struct Running {
    std::shared_ptr<state::Store::NewCheckpoint> checkpoint;
    std::uint64_t log_bytes = 0;  ///< on the loop: applied when it was wanted
  };
  bool due() const;
  void begin();
  void finish(const std::shared_ptr<Running>& running);
  void finished(const std::shared_ptr<Running>& running, const Result<Index>& result);

  Loop& loop_;
  Executor& apply_;
  Executor& writer_;
  state::Store& store_;
  const Limits limits_;
  const LogSink log_sink_;
  const Events events_;
  std::shared_ptr<Running> running_;
  std::uint64_t log_bytes_ = 0;  ///< applied since
  Duration last_at_;
  Duration not_before_{};
  /// Nobody waits for the log's syncs any more, nor for word of the one under way. Outlives this.
  const std::shared_ptr<std::atomic<bool>> ending_ = std::make_shared<std::atomic<bool>>(false);
};

}  // namespace flotilla::node
