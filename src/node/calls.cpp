#include "node/calls.hpp"

#include <fmt/format.h>

#include "base/assert.hpp"

namespace flotilla::node {

Result<Calls::Ticket> Calls::begin(std::size_t bytes, Done& done) {
  const std::lock_guard lock(mutex_);
  if (refused_) return fail(*refused_);
  const bool too_far = next_sequence_ - oldest_ >= outstanding_max;
  if (too_far || waiting_.size() >= limits_.calls || (bytes_ + bytes > limits_.bytes && !waiting_.empty())) {
    return fail(Errc::overloaded,
                fmt::format("{} calls with {} bytes are waiting; the command was not sent, try again later",
                            waiting_.size(), bytes_));
  }
  const std::uint64_t sequence = next_sequence_++;
  bytes_ += bytes;
  waiting_.emplace(sequence, Waiting{std::move(done), bytes});
  ended_.push_back(false);
  return Ticket{{session_, sequence}, oldest_};
}

std::optional<Done> Calls::take(std::uint64_t sequence) {
  const std::lock_guard lock(mutex_);
  const auto at = waiting_.find(sequence);
  if (at == waiting_.end()) return std::nullopt;
  FLOTILLA_ASSERT(sequence >= oldest_ && sequence - oldest_ < ended_.size());
  std::optional<Done> done(std::move(at->second.done));
  bytes_ -= at->second.bytes;
  waiting_.erase(at);
  ended_[sequence - oldest_] = true;
  while (!ended_.empty() && ended_.front()) {
    ended_.pop_front();
    ++oldest_;
  }
  return done;
}

std::vector<Done> Calls::take_all() {
  const std::lock_guard lock(mutex_);
  std::vector<Done> all;
  all.reserve(waiting_.size());
  for (auto& [sequence, waiting] : waiting_) all.push_back(std::move(waiting.done));
  waiting_.clear();
  ended_.clear();
  oldest_ = next_sequence_;
  bytes_ = 0;
  return all;
}

void Calls::refuse_new(Error why) {
  const std::lock_guard lock(mutex_);
  refused_ = std::move(why);
}

std::size_t Calls::size() const {
  const std::lock_guard lock(mutex_);
  return waiting_.size();
}

}  // namespace flotilla::node
