#include "base/histogram.hpp"

#include <algorithm>
#include <numeric>

namespace flotilla {

Distribution Histogram::distribution() const {
  std::array<std::uint64_t, bucket_count> counts{};
  for (std::size_t i = 0; i < bucket_count; ++i) counts[i] = buckets_[i].load(std::memory_order_relaxed);
  Distribution known;
  known.count = std::accumulate(counts.begin(), counts.end(), std::uint64_t{0});
  known.sum = Duration(static_cast<std::int64_t>(sum_.load(std::memory_order_relaxed)));
  const std::uint64_t longest = longest_.load(std::memory_order_relaxed);
  known.longest = Duration(static_cast<std::int64_t>(longest));
  // The smallest value that `part` of all are not above.
  const auto percentile = [&](double part) {
    const auto wanted = static_cast<std::uint64_t>(static_cast<double>(known.count) * part);
    std::uint64_t seen = 0;
    for (std::size_t i = 0; i < bucket_count; ++i) {
      seen += counts[i];
      if (seen > wanted) return Duration(static_cast<std::int64_t>(std::min(top_of(i), longest)));
    }
    return known.longest;
  };
  known.p50 = percentile(0.5);
  known.p99 = percentile(0.99);
  known.p999 = percentile(0.999);
  return known;
}

}  // namespace flotilla
