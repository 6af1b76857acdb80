// Stripes: what all threads use at once stands there once for each of sixteen groups of them, with a lock of its own,
// so that those who do the same seldom wait for each other.
#pragma once

#include <atomic>
#include <cstddef>

namespace flotilla {

inline constexpr std::size_t stripe_count = 16;
/// Stripes begin on lines of the processors' caches of their own.
inline constexpr std::size_t stripe_alignment = 64;

/// Below stripe_count; always the same for one thread. Thread: any.
inline std::size_t stripe_of_this_thread() noexcept {
  static std::atomic<std::size_t> threads{0};
  thread_local const std::size_t number = threads.fetch_add(1, std::memory_order_relaxed);
  return number % stripe_count;
}

}  // namespace flotilla
