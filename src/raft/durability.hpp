// What of the log was handed out to be written, and what of it is durable here.
#pragma once

#include <cstdint>
#include <deque>

#include "flotilla/types.hpp"

namespace flotilla::raft {

/// Writes complete in the order of their Readies. A truncation lowers what every outstanding write can still prove: its
/// completion says nothing about entries that replaced the ones it carried, also if these have equal term and index.
class Durability {
 public:
  explicit Durability(Index durable) : stable_(durable), queued_(durable) {}

  /// The last entry that is durable here.
  Index stable_index() const noexcept { return stable_; }
  /// The last entry handed out to be written.
  Index queued_index() const noexcept { return queued_; }
  std::uint64_t taken() const noexcept { return taken_; }
  std::uint64_t persisted() const noexcept { return persisted_; }

  /// A Ready with everything up to `last` is taken; returns its sequence.
  std::uint64_t take(Index last);
  /// Requires: sequence <= taken(). True if stable_index() or persisted() rose.
  bool complete(std::uint64_t sequence);
  /// Entries after `last_kept` left the log.
  void truncate(Index last_kept) noexcept;
  /// The log begins anew, durably, after `base`.
  void reset(Index base) noexcept;

 private:
  struct Write {
    std::uint64_t sequence;
    Index last;  ///< everything up to here is durable once the write is
  };
  std::deque<Write> outstanding_;
  Index stable_;
  Index queued_;
  std::uint64_t taken_ = 0;
  std::uint64_t persisted_ = 0;
};

}  // namespace flotilla::raft
