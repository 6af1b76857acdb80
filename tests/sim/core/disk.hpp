// One member's durable state, as a power loss would leave it.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "oracle.hpp"
#include "raft/ready.hpp"

namespace flotilla::sim {

/// A log with the chain of hashes that identifies each of its prefixes.
class ChainedLog {
 public:
  struct Slot {
    raft::Entry entry;
    std::uint64_t chain;
  };

  explicit ChainedLog(Index base = {}, std::uint64_t base_chain = 0) : base_(base), base_chain_(base_chain) {}

  Index base() const { return base_; }
  Index last() const { return base_ + slots_.size(); }
  bool has(Index index) const { return index > base_ && index <= last(); }
  const Slot& at(Index index) const { return slots_.at(static_cast<std::size_t>(index - base_) - 1); }
  /// nullopt: outside of [base, last].
  std::optional<std::uint64_t> chain_at(Index index) const {
    if (index == base_) return base_chain_;
    if (!has(index)) return std::nullopt;
    return at(index).chain;
  }
  void append(const raft::Entry& entry) {
    const std::uint64_t before = slots_.empty() ? base_chain_ : slots_.back().chain;
    slots_.push_back({entry, chain_after(before, entry)});
  }
  void truncate(Index last_kept) { slots_.resize(static_cast<std::size_t>(last_kept - base_)); }
  /// Forgets everything up to `index`. Requires: has(index).
  void trim(Index index) {
    base_chain_ = at(index).chain;
    slots_.erase(slots_.begin(), slots_.begin() + static_cast<std::ptrdiff_t>(index - base_));
    base_ = index;
  }

 private:
  Index base_;
  std::uint64_t base_chain_;
  std::deque<Slot> slots_;
};

struct Disk {
  raft::HardState hard_state;
  Index commit_index;
  ChainedLog log;
  Term log_base_term;
  raft::SnapshotMeta checkpoint;  ///< what the state is restored from
};

}  // namespace flotilla::sim
