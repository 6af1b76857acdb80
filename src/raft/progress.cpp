#include "raft/progress.hpp"

#include <algorithm>

#include "base/assert.hpp"

namespace flotilla::raft {

bool Progress::may_append(const Window& window) const noexcept {
  if (mode_ != ProgressMode::replicate) return mode_ == ProgressMode::probe && !paused_;
  return inflight_.empty() || (inflight_.size() < window.messages_max && inflight_bytes_ < window.bytes_max);
}

void Progress::appended(Index last, std::size_t bytes) {
  FLOTILLA_ASSERT(mode_ != ProgressMode::snapshot);
  FLOTILLA_ASSERT(last.next() >= next_index_);
  if (mode_ == ProgressMode::probe) {
    paused_ = true;
    return;
  }
  FLOTILLA_ASSERT(last >= next_index_);
  next_index_ = last.next();
  inflight_.push_back(Sent{last, bytes});
  inflight_bytes_ += bytes;
  FLOTILLA_ASSERT(match_index_ < next_index_);
}

bool Progress::accepted(Index match_index) {
  if (match_index < match_index_) return false;
  const bool news = match_index > match_index_;
  if (news) stalled_ticks = 0;
  match_index_ = match_index;
  next_index_ = std::max(next_index_, match_index.next());
  while (!inflight_.empty() && inflight_.front().last <= match_index) {
    inflight_bytes_ -= inflight_.front().bytes;
    inflight_.pop_front();
  }
  if (mode_ == ProgressMode::probe) {
    mode_ = ProgressMode::replicate;
    next_index_ = match_index.next();
    paused_ = false;
  }
  FLOTILLA_ASSERT(match_index_ < next_index_);
  return news;
}

bool Progress::rejected(Index rejected_index, Index hint) {
  // Of an append from before what has been accepted since, or of another probe than the last.
  if (mode_ == ProgressMode::snapshot || rejected_index <= match_index_) return false;
  if (mode_ == ProgressMode::probe && rejected_index.next() != next_index_) return false;
  if (mode_ == ProgressMode::replicate && rejected_index >= next_index_) return false;
  forget_inflight();
  mode_ = ProgressMode::probe;
  paused_ = false;
  next_index_ = std::clamp(hint, match_index_.next(), rejected_index);
  FLOTILLA_ASSERT(match_index_ < next_index_);
  return true;
}

void Progress::probe_again() noexcept {
  if (mode_ == ProgressMode::snapshot) return;
  if (mode_ == ProgressMode::replicate) next_index_ = match_index_.next();
  forget_inflight();
  mode_ = ProgressMode::probe;
  paused_ = true;
  stalled_ticks = 0;
}

void Progress::enter_snapshot() noexcept {
  forget_inflight();
  mode_ = ProgressMode::snapshot;
  next_index_ = match_index_.next();
  snapshot.reset();
  stalled_ticks = 0;
}

void Progress::leave_snapshot() noexcept {
  mode_ = ProgressMode::probe;
  next_index_ = match_index_.next();
  snapshot.reset();
  stalled_ticks = 0;
  paused_ = true;
}

void Progress::forget_inflight() noexcept {
  inflight_.clear();
  inflight_bytes_ = 0;
}

const char* Progress::broken() const {
  if (match_index_ >= next_index_) return "match_index < next_index";
  const bool replicates = mode_ == ProgressMode::replicate;
  if (!replicates && !inflight_.empty()) return "only a replicating follower has appends in flight";
  std::size_t bytes = 0;
  Index last = match_index_;
  for (const Sent& sent : inflight_) {
    bytes += sent.bytes;
    if (sent.last <= last) return "appends in flight rise and lie above match_index";
    last = sent.last;
  }
  if (bytes != inflight_bytes_) return "in-flight bytes are the sum of what is in flight";
  if (replicates && last >= next_index_) return "appends in flight lie below next_index";
  return nullptr;
}

}  // namespace flotilla::raft
