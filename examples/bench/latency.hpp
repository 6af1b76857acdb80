// What the benchmarks say of latencies.
#pragma once

#include <chrono>
#include <cstddef>
#include <vector>

namespace flotilla::bench {

using Clock = std::chrono::steady_clock;
using Latencies = std::vector<std::chrono::nanoseconds>;

inline std::chrono::nanoseconds percentile(const Latencies& sorted, double part) {
  if (sorted.empty()) return {};
  return sorted[static_cast<std::size_t>(static_cast<double>(sorted.size() - 1) * part)];
}

inline double microseconds(std::chrono::nanoseconds time) {
  return static_cast<double>(time.count()) / 1000;
}

}  // namespace flotilla::bench
