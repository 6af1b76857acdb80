#include "raft/durability.hpp"

#include <algorithm>

#include "base/assert.hpp"

namespace flotilla::raft {

std::uint64_t Durability::take(Index last) {
  FLOTILLA_ASSERT(last >= queued_);
  queued_ = last;
  ++taken_;
  // Readies that add nothing share the record of the one before them, unless that is complete already.
  if (outstanding_.empty() || outstanding_.back().last != last) outstanding_.push_back(Write{taken_, last});
  FLOTILLA_ASSERT(stable_ <= queued_);
  return taken_;
}

bool Durability::complete(std::uint64_t sequence) {
  FLOTILLA_ASSERT(sequence <= taken_);
  if (sequence <= persisted_) return false;
  persisted_ = sequence;
  while (!outstanding_.empty() && outstanding_.front().sequence <= sequence) {
    stable_ = std::max(stable_, outstanding_.front().last);
    outstanding_.pop_front();
  }
  FLOTILLA_ASSERT(stable_ <= queued_);
  return true;
}

void Durability::truncate(Index last_kept) noexcept {
  stable_ = std::min(stable_, last_kept);
  queued_ = std::min(queued_, last_kept);
  for (Write& write : outstanding_) write.last = std::min(write.last, last_kept);
}

void Durability::reset(Index base) noexcept {
  stable_ = base;
  queued_ = base;
  for (Write& write : outstanding_) write.last = base;
}

}  // namespace flotilla::raft
