#include "history.hpp"

#include <algorithm>

#include <fmt/format.h>

namespace flotilla::sim {

std::uint64_t History::ask(Session session, std::string key, bool fails) {
  const std::uint64_t id = operations_.size() + 1;
  operations_.emplace(id, Operation{session, std::move(key), fails, {}});
  events_.push_back({What::asked, id});
  return id;
}

void History::answer(std::uint64_t id, Result<Bytes> result) {
  Operation& operation = operations_.at(id);
  if (operation.result) broken(fmt::format("operation {} ended twice", id));
  operation.result = std::move(result);
  events_.push_back({What::answered, id});
  if (!operation.told()) return;
  const std::optional<Index> index = index_of(id);
  if (!index) return broken(fmt::format("operation {} was acknowledged and never ran", id));
  acknowledged_ = std::max(acknowledged_, *index);
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
  if (!operations_.contains(id)) broken(fmt::format("operation {} ran, and nobody asked for it", id));
  if (once) events_.push_back({What::ran, id});
}

std::uint64_t History::ask_read(Session session, std::string key, ReadKind kind) {
  const std::uint64_t id = reads_.size() + 1;
  reads_.emplace(id, Read{session, std::move(key), kind, {}, 0, {}});
  events_.push_back({What::read_asked, id});
  return id;
}

void History::saw(std::uint64_t id, std::size_t length, Index index) {
  Read& read = reads_.at(id);
  read.length = length;
  read.index = index;
  events_.push_back({What::read_saw, id});
}

void History::check() {
  if (broken_) return;
  check_results();
  check_refused();
  check_order();
}

std::optional<Index> History::index_of(std::uint64_t id) const {
  const auto at = index_of_.find(id);
  return at == index_of_.end() ? std::nullopt : std::optional(at->second);
}

/// Every list's length after each of its operations, by a model that runs them in the order of the witness.
void History::check_results() {
  for (const auto& [index, id] : at_) {
    const Operation& operation = operations_.at(id);
    std::vector<Index>& list = lists_[operation.key];
    if (!operation.fails) list.push_back(index);
    if (!operation.result || !*operation.result) continue;
    if (operation.fails) {
      broken(fmt::format("operation {} fails, and its caller was told {}", id, **operation.result));
    } else if (**operation.result != std::to_string(list.size())) {
      broken(fmt::format("operation {} at index {} answered {}, the model {}", id, index.value, **operation.result,
                         list.size()));
    }
  }
}

/// Refused means: never took effect.
void History::check_refused() {
  for (const auto& [id, operation] : operations_) {
    if (operation.open() || operation.told() || !index_of(id)) continue;
    broken(fmt::format("operation {} was refused ({}) and took effect", id, operation.result->error().message()));
  }
}

/// What began after something was known comes after it.
void History::check_order() {
  Past past;
  const auto learn = [&past](Session session, Index index) {
    past.known = std::max(past.known, index);
    past.known_to[session] = std::max(past.known_to[session], index);
  };
  for (const Event& event : events_) {
    const std::optional<Index> index = index_of(event.id);
    switch (event.what) {
      case What::asked:
        if (!index || *index > past.known) break;
        broken(fmt::format("operation {} was asked when index {} was known, and ran at {}", event.id, past.known.value,
                           index->value));
        break;
      case What::answered:
        if (const Operation& operation = operations_.at(event.id); operation.told()) learn(operation.session, *index);
        break;
      case What::ran: past.newest_run = std::max(past.newest_run, *index); break;
      case What::read_asked: {
        Read& read = reads_.at(event.id);
        read.floor = read.kind == ReadKind::linearizable ? past.known : past.known_to[read.session];
        break;
      }
      case What::read_saw: {
        const Read& read = reads_.at(event.id);
        check_read(read, event.id, past.newest_run);
        learn(read.session, read.index);
        break;
      }
    }
  }
}

void History::check_read(const Read& read, std::uint64_t id, Index newest_run) {
  if (read.index < read.floor) {
    broken(fmt::format("read {} at index {} misses what was known at {}", id, read.index.value, read.floor.value));
  }
  const std::vector<Index>& list = lists_[read.key];
  const auto length_at = [&list](Index index) {
    return static_cast<std::size_t>(std::upper_bound(list.begin(), list.end(), index) - list.begin());
  };
  if (length_at(read.index) != read.length) {
    broken(fmt::format("read {} of '{}' at index {} saw {} values, the model {}", id, read.key, read.index.value,
                       read.length, length_at(read.index)));
  } else if (length_at(std::min(read.index, newest_run)) != read.length) {
    broken(fmt::format("read {} of '{}' at index {} saw what had not run anywhere", id, read.key, read.index.value));
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
