#include "base/histogram.hpp"

#include <doctest/doctest.h>

using namespace flotilla;
using namespace std::chrono_literals;

TEST_SUITE_BEGIN("base.histogram");

TEST_CASE("percentiles are at most an eighth too high, and never too low") {
  for (const std::int64_t scale : {1, 7, 1000, 123'457, 1'000'000'000}) {
    CAPTURE(scale);
    Histogram histogram;
    for (std::int64_t i = 1; i <= 1000; ++i) histogram.add(Duration(i * scale));
    const Distribution known = histogram.distribution();
    CHECK(known.count == 1000);
    CHECK(known.sum == Duration(500'500 * scale));
    CHECK(known.longest == Duration(1000 * scale));
    CHECK(known.mean() == Duration(500'500 * scale / 1000));
    const auto check = [&](Duration percentile, std::int64_t exact) {
      CHECK(percentile >= Duration(exact * scale));
      CHECK(percentile <= Duration(exact * scale * 9 / 8 + 1));
    };
    check(known.p50, 501);
    check(known.p99, 991);
    check(known.p999, 1000);
  }
}

TEST_CASE("nothing measured, nothing at all and more than can be told apart") {
  Histogram histogram;
  CHECK(histogram.distribution().count == 0);
  CHECK(histogram.distribution().p99 == 0ns);
  CHECK(histogram.distribution().mean() == 0ns);
  histogram.add(-5ns);  // a clock that went back
  CHECK(histogram.distribution().longest == 0ns);
  histogram.add(100h);
  CHECK(histogram.distribution().count == 2);
  CHECK(histogram.distribution().longest == 100h);
  CHECK(histogram.distribution().p999 <= 100h);
}

TEST_SUITE_END();
