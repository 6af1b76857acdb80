#include "history.hpp"

#include <algorithm>

#include <fmt/format.h>

namespace flotilla::sim {

std::uint64_t History::invoke(std::string key, bool fails, Duration now) {
  const std::uint64_t id = operations_.size() + 1;
  operations_.emplace(id, Operation{id, std::move(key), fails, now, {}, {}});
  return id;
}

Index History::end(std::uint64_t id, Result<Bytes> result, Duration now) {
  Operation& operation = operations_.at(id);
  if (operation.ended) broken(fmt::format("operation {} ended twice", id));
  operation.ended = now;
  operation.result = std::move(result);
  const bool told = *operation.result || (operation.fails && operation.result->error() == Errc::command_failed);
  if (!told) return {};
  const auto at = index_of_.find(id);
  if (at == index_of_.end()) {
    broken(fmt::format("operation {} was acknowledged and never ran", id));
    return {};
  }
  acknowledged_ = std::max(acknowledged_, at->second);
  return at->second;
}

void History::ran(std::uint64_t id, Index index) {
  const auto [at, first] = at_.emplace(index, id);
  if (!first && at->second != id) {
    broken(fmt::format("index {} ran operation {} on one member and {} on another", index.value, at->second, id));
  }
  const auto [where, once] = index_of_.emplace(id, index);
  if (!once && where->second != index) {
    broken(fmt::format("operation {} ran at index {} and again at {}", id, where->second.value, index.value));
  }
}

void History::check() {
  // The sequential model: every list's length after each of its operations.
  std::map<std::string, std::vector<Index>> lists;
  for (const auto& [index, id] : at_) {
    const Operation& operation = operations_.at(id);
    if (!operation.fails) lists[operation.key].push_back(index);
    if (!operation.result || !*operation.result) continue;
    const std::size_t length = lists[operation.key].size();
    if (**operation.result != std::to_string(length)) {
      broken(fmt::format("operation {} at index {} answered {}, the model {}", id, index.value, **operation.result,
                         length));
    }
  }
  // Refused means: never took effect.
  for (const auto& [id, operation] : operations_) {
    if (!operation.result || *operation.result) continue;
    const Error& error = operation.result->error();
    const bool open = error == Errc::outcome_unknown || (operation.fails && error == Errc::command_failed);
    if (!open && index_of_.contains(id)) {
      broken(fmt::format("operation {} was refused ({}) and took effect", id, error.message()));
    }
  }
  // Real time: what was answered before another was asked is before it in the log.
  struct Event {
    Duration when;
    bool invoked;
    std::uint64_t id;
  };
  std::vector<Event> events;
  for (const auto& [id, operation] : operations_) {
    if (!index_of_.contains(id) || !operation.result) continue;
    events.push_back({operation.invoked, true, id});
    if (*operation.result) events.push_back({*operation.ended, false, id});
  }
  std::sort(events.begin(), events.end(), [](const Event& left, const Event& right) {
    return left.when != right.when ? left.when < right.when : left.invoked > right.invoked;
  });
  Index before;
  for (const Event& event : events) {
    const Index index = index_of_.at(event.id);
    if (!event.invoked) {
      before = std::max(before, index);
    } else if (index < before) {
      broken(fmt::format("operation {} was asked after index {} was answered, and ran at {}", event.id, before.value,
                         index.value));
    }
  }
  for (const ReadSeen& read : reads_) {
    if (read.index < read.at_least) {
      broken(
          fmt::format("a read at index {} misses what was acknowledged at {}", read.index.value, read.at_least.value));
    }
    const auto& list = lists[read.key];
    const auto length = static_cast<std::size_t>(std::upper_bound(list.begin(), list.end(), read.index) - list.begin());
    if (length != read.length) {
      broken(fmt::format("a read of '{}' at index {} saw {} values, the model {}", read.key, read.index.value,
                         read.length, length));
    }
  }
}

std::string History::describe_last(std::size_t count) const {
  std::string text;
  for (std::uint64_t id = operations_.size() - std::min(count, operations_.size()) + 1; id <= operations_.size();
       ++id) {
    const Operation& operation = operations_.at(id);
    text += fmt::format("\n    operation {}: {}", id,
                        !operation.result   ? "open"
                        : *operation.result ? "succeeded"
                                            : operation.result->error().message());
  }
  return text;
}

std::size_t History::count(Errc code) const {
  return static_cast<std::size_t>(std::count_if(operations_.begin(), operations_.end(), [&](const auto& entry) {
    return entry.second.result && !*entry.second.result && entry.second.result->error() == code;
  }));
}

std::size_t History::succeeded() const {
  return static_cast<std::size_t>(std::count_if(operations_.begin(), operations_.end(), [](const auto& entry) {
    return entry.second.result && entry.second.result->has_value();
  }));
}

}  // namespace flotilla::sim
