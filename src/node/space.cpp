#include "node/space.hpp"

#include <algorithm>
#include <chrono>
#include <utility>

#include <fmt/format.h>

#include "state/file.hpp"

namespace flotilla::node {
namespace {

constexpr Duration interval = std::chrono::milliseconds(200);
constexpr Duration retry_pause_max = std::chrono::seconds(3);

}  // namespace

Space::Space(Loop& loop, Executor& executor, const state::Store& store, Limits limits)
    : loop_(loop), executor_(executor), store_(store), limits_(std::move(limits)) {}

std::optional<Error> Space::look(const state::Store& store, const Limits& limits) {
  if (limits.reserve_bytes > 0) {
    if (auto room = state::check_room(limits.directory, 0, limits.reserve_bytes);
        !room && room.error() == Errc::disk_full) {
      return Error(Errc::disk_full, room.error().message() +
                                        " (Options::disk_reserve_bytes); the command was not "
                                        "written, and others will be when there is space again");
    }
  }
  if (const std::uint64_t bytes = store.file_bytes(); limits.state_bytes_max > 0 && bytes > limits.state_bytes_max) {
    return Error(
        Errc::disk_full,
        fmt::format(
            "the database file has {} bytes, Options::state_bytes_max is {}: the command was not "
            "written. The file does not shrink by itself: DB::compact(), or a larger limit at the next open. Read "
            "transactions that stay open make it grow (the oldest is {} ms old and keeps {} bytes)",
            bytes, limits.state_bytes_max, store.oldest_reader_age().count(), store.pinned_bytes()));
  }
  return std::nullopt;
}

void Space::set_full(Writer writer, const std::optional<Error>& why) {
  full_[static_cast<std::size_t>(writer)] = why;
  retried_at_ = loop_.now();
  retry_pause_ = interval;
}

bool Space::retry_due() {
  const bool waiting = std::any_of(full_.begin(), full_.end(), [](const auto& why) { return why.has_value(); });
  if (!waiting || loop_.now() - retried_at_ < retry_pause_) return false;
  retried_at_ = loop_.now();
  retry_pause_ = std::min(2 * retry_pause_, retry_pause_max);
  return true;
}

const std::optional<Error>& Space::refusal() const {
  for (const auto& why : full_) {
    if (why) return why;
  }
  return refusal_;
}

void Space::tick() {
  const bool asked = limits_.reserve_bytes > 0 || limits_.state_bytes_max > 0;
  if (!asked || asking_ || loop_.now() - asked_at_ < interval) return;
  asking_ = true;
  asked_at_ = loop_.now();
  executor_.post([this, &store = store_, limits = limits_, &loop = loop_, alive = std::weak_ptr(alive_)] {
    auto refusal = look(store, limits);
    loop.post([this, alive, refusal = std::move(refusal)]() mutable {
      if (alive.expired()) return;
      asking_ = false;
      refusal_ = std::move(refusal);
    });
  });
}

}  // namespace flotilla::node
