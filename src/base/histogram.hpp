// How long something takes: a counter for each range of durations, an eighth of a power of two wide.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "base/executor.hpp"
#include "flotilla/metrics.hpp"

namespace flotilla {

class Histogram {
 public:
  /// Thread: one at a time.
  void add(Duration time) noexcept {
    const std::uint64_t nanoseconds = time.count() < 0 ? 0 : static_cast<std::uint64_t>(time.count());
    increase(buckets_[bucket_of(nanoseconds)], 1);
    increase(sum_, nanoseconds);
    if (nanoseconds > longest_.load(std::memory_order_relaxed)) longest_.store(nanoseconds, std::memory_order_relaxed);
  }
  /// Thread: any. What is being added meanwhile may be half there.
  Distribution distribution() const;

 private:
  static constexpr unsigned parts_bits = 3;
  static constexpr std::size_t parts = 1u << parts_bits;
  static constexpr unsigned bits_max = 40;  ///< 18 minutes: what takes longer is counted there
  using Counter = std::atomic<std::uint64_t>;

  static void increase(Counter& counter, std::uint64_t by) noexcept {
    counter.store(counter.load(std::memory_order_relaxed) + by, std::memory_order_relaxed);
  }
  /// Below 8 ns each has its own; above, the position of the highest bit and the three bits after it.
  static std::size_t bucket_of(std::uint64_t value) noexcept {
    if (value < parts) return value;
    const unsigned highest = static_cast<unsigned>(std::bit_width(value)) - 1;
    if (highest >= bits_max) return bucket_count - 1;
    return (highest - parts_bits + 1) * parts + ((value >> (highest - parts_bits)) & (parts - 1));
  }
  /// The largest value in it.
  static std::uint64_t top_of(std::size_t bucket) noexcept {
    if (bucket < parts) return bucket;
    const std::size_t shift = bucket / parts - 1;
    return ((parts + bucket % parts + 1) << shift) - 1;
  }
  static constexpr std::size_t bucket_count = (bits_max - parts_bits + 1) * parts;

  std::array<Counter, bucket_count> buckets_{};
  Counter sum_{0};
  Counter longest_{0};
};

}  // namespace flotilla
