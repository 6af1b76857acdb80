// Latencies of a run, in a few kilobytes however many there are: what is measured must not grow by being measured.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <chrono>
#include <cstddef>
#include <cstdint>

namespace flotilla::bench {

/// Counts of durations, in 64 buckets to each power of two: within one part in 128, up to 137 s. Thread: any; whoever
/// reads waits until all have ended.
class Histogram {
 public:
  void add(std::chrono::nanoseconds time) { add(bucket_of(static_cast<std::uint64_t>(time.count())), 1); }
  void add(const Histogram& other) {
    for (std::size_t i = 0; i < buckets; ++i) add(i, other.at(i));
  }

  std::uint64_t count() const {
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < buckets; ++i) sum += at(i);
    return sum;
  }

  /// Of `part` = 1, the longest.
  std::chrono::nanoseconds percentile(double part) const {
    const std::uint64_t all = count();
    if (all == 0) return {};
    auto before = static_cast<std::uint64_t>(static_cast<double>(all - 1) * part);
    std::size_t i = 0;
    for (; before >= at(i); ++i) before -= at(i);
    return std::chrono::nanoseconds(middle_of(i));
  }

  /// Adds what a steady caller, who begins an operation each `interval`, would have begun while one took longer.
  void correct(std::chrono::nanoseconds interval) {
    const auto step = static_cast<std::uint64_t>(interval.count());
    if (step == 0) return;
    std::array<std::uint64_t, buckets> missed{};
    for (std::size_t i = bucket_of(2 * step); i < buckets; ++i) {
      const std::uint64_t time = middle_of(i);
      if (at(i) == 0 || time <= 2 * step) continue;
      const std::uint64_t all = (time - step - 1) / step;  // of time - step, time - 2 * step, ..., those above step
      const auto not_below = [&](std::uint64_t bound) {
        return bound > time ? 0 : std::min(all, (time - bound) / step);
      };
      for (std::size_t j = bucket_of(step); j <= i; ++j) {
        missed[j] += at(i) * (not_below(first_of(j)) - not_below(first_of(j + 1)));
      }
    }
    for (std::size_t i = 0; i < buckets; ++i) add(i, missed[i]);
  }

 private:
  static constexpr std::size_t buckets = 2048;
  static constexpr int bits = 6;
  static constexpr std::uint64_t half = std::uint64_t{1} << bits;

  static std::size_t bucket_of(std::uint64_t time) {
    const int shift = std::max(static_cast<int>(std::bit_width(time)) - bits - 1, 0);
    return std::min<std::size_t>(static_cast<std::size_t>(shift) * half + (time >> shift), buckets - 1);
  }
  static std::uint64_t first_of(std::size_t bucket) {
    return bucket < 2 * half ? bucket : (bucket % half + half) << (bucket / half - 1);
  }
  static std::uint64_t middle_of(std::size_t bucket) { return (first_of(bucket) + first_of(bucket + 1) - 1) / 2; }

  std::uint64_t at(std::size_t bucket) const { return counts_[bucket].load(std::memory_order_relaxed); }
  void add(std::size_t bucket, std::uint64_t count) { counts_[bucket].fetch_add(count, std::memory_order_relaxed); }

  std::array<std::atomic<std::uint64_t>, buckets> counts_{};
};

}  // namespace flotilla::bench
