// Queue: a deque in one ring of memory that is used again, so that one that fills and empties allocates nothing.
#pragma once

#include <algorithm>
#include <cstddef>
#include <new>
#include <utility>

#include <boost/circular_buffer.hpp>

#include "base/assert.hpp"

namespace flotilla {

/// Adding may move all elements, removing too: both invalidate iterators and references.
template <class T>
class Queue {
 public:
  using value_type = T;
  using iterator = typename boost::circular_buffer<T>::iterator;
  using const_iterator = typename boost::circular_buffer<T>::const_iterator;
  /// So many elements' memory is kept for ever once they were there. More of it goes when few are left, so that a burst
  /// does not hold what it needed.
  static constexpr std::size_t kept_elements = 4096;

  bool empty() const noexcept { return ring_.empty(); }
  std::size_t size() const noexcept { return ring_.size(); }
  std::size_t capacity() const noexcept { return ring_.capacity(); }

  iterator begin() noexcept { return ring_.begin(); }
  iterator end() noexcept { return ring_.end(); }
  const_iterator begin() const noexcept { return ring_.begin(); }
  const_iterator end() const noexcept { return ring_.end(); }
  T& operator[](std::size_t at) {
    FLOTILLA_ASSERT(at < size());
    return ring_[at];
  }
  const T& operator[](std::size_t at) const {
    FLOTILLA_ASSERT(at < size());
    return ring_[at];
  }
  T& front() { return (*this)[0]; }
  const T& front() const { return (*this)[0]; }
  T& back() { return (*this)[size() - 1]; }
  const T& back() const { return (*this)[size() - 1]; }

  void reserve(std::size_t count) {
    constexpr std::size_t least = 16;
    if (count > capacity()) ring_.set_capacity(std::max({count, 2 * capacity(), least}));
  }
  void push_back(T value) {
    reserve(size() + 1);
    ring_.push_back(std::move(value));
  }
  void push_front(T value) {
    reserve(size() + 1);
    ring_.push_front(std::move(value));
  }
  /// Before the element at `at`, or behind all. Requires: at <= size().
  void insert(std::size_t at, T value) {
    FLOTILLA_ASSERT(at <= size());
    reserve(size() + 1);
    ring_.insert(begin() + static_cast<std::ptrdiff_t>(at), std::move(value));
  }

  /// Requires: not empty().
  void pop_front() { erase_front(1); }
  /// Requires: not empty().
  void pop_back() {
    FLOTILLA_ASSERT(!empty());
    ring_.pop_back();
    shrink();
  }
  /// Removes the first `count`. Requires: count <= size().
  void erase_front(std::size_t count) {
    FLOTILLA_ASSERT(count <= size());
    ring_.erase_begin(count);
    shrink();
  }
  void clear() { erase_front(size()); }

 private:
  /// From a quarter to a half, so that adding and removing cost the same however often they change places.
  void shrink() noexcept {
    if (capacity() <= kept_elements || size() > capacity() / 4) return;
    try {
      ring_.set_capacity(std::max(kept_elements, 2 * size()));
    } catch (const std::bad_alloc&) {  // then it stays as it is: removing does not fail
    }
  }

  boost::circular_buffer<T> ring_;
};

}  // namespace flotilla
