// Where the time of commands goes on one member.
#pragma once

#include <chrono>
#include <cstdint>

namespace flotilla {

/// Durations that were measured since the database was opened. Percentiles are upper bounds, at most an eighth too
/// high.
struct Distribution {
  std::uint64_t count = 0;
  std::chrono::nanoseconds sum{0};
  std::chrono::nanoseconds p50{0};
  std::chrono::nanoseconds p99{0};
  std::chrono::nanoseconds p999{0};
  std::chrono::nanoseconds longest{0};

  std::chrono::nanoseconds mean() const noexcept {
    return count == 0 ? std::chrono::nanoseconds(0) : sum / static_cast<std::int64_t>(count);
  }
};

/// The stages of a command, in their order. What is measured once for many commands says so: everything that waits at
/// a stage goes on together.
struct Metrics {
  Distribution queue;       ///< each command called here: until the loop thread takes it
  Distribution log_wait;    ///< each group of the log: its oldest write waits for the group before
  Distribution log_write;   ///< each block of the log: encoding and writing
  Distribution log_sync;    ///< each block of the log: syncing it. A group is a block, unless it fills a segment
  Distribution quorum;      ///< leader, each group of new entries: from the core's log until committed
  Distribution apply_wait;  ///< each batch: its oldest entry waits for the batch before
  Distribution apply;       ///< each batch: the commands, and LMDB's commit
  Distribution completion;  ///< each batch: telling the callers of this member
  Distribution command;     ///< each command called here that was applied: from the call until its caller is told
  std::uint64_t logged_entries = 0;
  std::uint64_t applied_entries = 0;
};

}  // namespace flotilla
