// Window: a map from numbers that lie close together and come nearly in order, such as the sequences of calls that have
// not ended, to values, in one ring of memory.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>

#include "base/assert.hpp"
#include "base/queue.hpp"

namespace flotilla {

/// Holds a slot for each number from the smallest to the largest in it: whoever adds numbers bounds how far apart they
/// are. Adding and removing invalidate pointers to values.
template <class T>
class Window {
 public:
  bool empty() const noexcept { return size_ == 0; }
  std::size_t size() const noexcept { return size_; }
  /// The smallest number. Requires: not empty().
  std::uint64_t first() const {
    FLOTILLA_ASSERT(!empty());
    return first_;
  }

  /// nullptr: it is not there.
  T* find(std::uint64_t number) {
    if (number < first_ || number - first_ >= slots_.size()) return nullptr;
    std::optional<T>& slot = slots_[static_cast<std::size_t>(number - first_)];
    return slot ? &*slot : nullptr;
  }
  /// False: it is there already.
  bool emplace(std::uint64_t number, T value) {
    if (find(number) != nullptr) return false;
    if (empty()) first_ = number;
    const auto before = static_cast<std::size_t>(number < first_ ? first_ - number : 0);
    const auto at = static_cast<std::size_t>(number < first_ ? 0 : number - first_);
    // All memory at once: failing half-way would leave empty slots at an end.
    slots_.reserve(std::max(before + slots_.size(), at + 1));
    for (; first_ > number; --first_) slots_.push_front(std::nullopt);
    while (slots_.size() <= at) slots_.push_back(std::nullopt);
    slots_[at].emplace(std::move(value));
    ++size_;
    return true;
  }
  /// Whether it was there.
  bool erase(std::uint64_t number) {
    if (find(number) == nullptr) return false;
    slots_[static_cast<std::size_t>(number - first_)].reset();
    --size_;
    for (; !slots_.empty() && !slots_.front(); ++first_) slots_.pop_front();
    while (!slots_.empty() && !slots_.back()) slots_.pop_back();
    return true;
  }
  void clear() {
    slots_.clear();
    size_ = 0;
  }
  /// Calls visit(number, value) for each, smallest number first; it must neither add nor remove.
  template <class Visit>
  void for_each(Visit visit) {
    for (std::size_t at = 0; at < slots_.size(); ++at) {
      if (slots_[at]) visit(first_ + at, *slots_[at]);
    }
  }

 private:
  Queue<std::optional<T>> slots_;  ///< Invariant: the first and the last hold a value
  std::uint64_t first_ = 0;        ///< the number of the first slot
  std::size_t size_ = 0;
};

}  // namespace flotilla
