#include "node/calls.hpp"

#include <fmt/format.h>

#include "base/assert.hpp"

namespace flotilla::node {

Result<Calls::Ticket> Calls::begin(std::size_t bytes, Done& done) {
  const std::lock_guard lock(mutex_);
  if (refused_) return fail(*refused_);
  const bool too_far = next_sequence_ - oldest() >= outstanding_max;
  if (too_far || waiting_.size() >= limits_.calls || (bytes_ + bytes > limits_.bytes && !waiting_.empty())) {
    return fail(Errc::overloaded,
                fmt::format("{} calls with {} bytes are waiting; the command was not sent, try again later",
                            waiting_.size(), bytes_));
  }
  const bool added = waiting_.emplace(next_sequence_, Waiting{std::move(done), bytes});
  FLOTILLA_ASSERT(added);
  bytes_ += bytes;
  return Ticket{{session_, next_sequence_++}, waiting_.first()};
}

std::optional<Done> Calls::take(std::uint64_t sequence) {
  const std::lock_guard lock(mutex_);
  Waiting* const waiting = waiting_.find(sequence);
  if (waiting == nullptr) return std::nullopt;
  FLOTILLA_ASSERT(sequence < next_sequence_);
  std::optional<Done> done(std::move(waiting->done));
  bytes_ -= waiting->bytes;
  waiting_.erase(sequence);
  return done;
}

std::vector<Done> Calls::take_all() {
  const std::lock_guard lock(mutex_);
  std::vector<Done> all;
  all.reserve(waiting_.size());
  waiting_.for_each([&](std::uint64_t, Waiting& waiting) { all.push_back(std::move(waiting.done)); });
  waiting_.clear();
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
