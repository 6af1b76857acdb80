#include "histogram.hpp"

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include <doctest/doctest.h>

using flotilla::bench::Histogram;
using std::chrono::nanoseconds;

namespace {

/// Most are short, some a thousand times as long.
std::vector<std::int64_t> some_times(std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<std::int64_t> times;
  for (int i = 0; i < 5000; ++i) {
    times.push_back(static_cast<std::int64_t>(1000 + random() % 100'000 * (random() % 50 == 0 ? 1000 : 1)));
  }
  return times;
}

Histogram& add_all(Histogram& histogram, const std::vector<std::int64_t>& times) {
  for (const std::int64_t time : times) histogram.add(nanoseconds(time));
  return histogram;
}

void check_agree(const Histogram& histogram, std::vector<std::int64_t> times) {
  std::sort(times.begin(), times.end());
  for (const double part : {0.0, 0.1, 0.5, 0.9, 0.99, 0.999, 1.0}) {
    CAPTURE(part);
    const std::int64_t exact = times[static_cast<std::size_t>(static_cast<double>(times.size() - 1) * part)];
    const auto found = histogram.percentile(part).count();
    CHECK(std::abs(found - exact) <= exact / 64);
  }
}

}  // namespace

TEST_SUITE("examples.histogram") {
  TEST_CASE("its percentiles are those of the sorted times") {
    const auto times = some_times(1);
    Histogram histogram;
    check_agree(add_all(histogram, times), times);
    CHECK(histogram.count() == times.size());
    CHECK(Histogram().percentile(0.5).count() == 0);
  }

  TEST_CASE("two that are added are as one") {
    const auto times = some_times(2);
    Histogram both;
    Histogram other;
    for (std::size_t i = 0; i < times.size(); ++i) (i % 3 == 0 ? both : other).add(nanoseconds(times[i]));
    both.add(other);
    check_agree(both, times);
  }

  TEST_CASE("a caller who waited counts for those that a steady one would have begun meanwhile") {
    auto times = some_times(3);
    constexpr std::int64_t interval = 60'000;
    Histogram histogram;
    add_all(histogram, times).correct(nanoseconds(interval));
    const std::size_t measured = times.size();
    for (std::size_t i = 0; i < measured; ++i) {
      for (std::int64_t missed = times[i] - interval; missed > interval; missed -= interval) times.push_back(missed);
    }
    CHECK(times.size() > 10 * measured);
    CHECK(std::abs(static_cast<double>(histogram.count()) / static_cast<double>(times.size()) - 1) < 0.01);
    check_agree(histogram, times);
  }
}
