// Random keys: uniform, or skewed as YCSB has them.
#pragma once

#include <cmath>
#include <cstdint>

namespace flotilla::bench {

/// SplitMix64.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}

  std::uint64_t next() {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  std::uint64_t below(std::uint64_t bound) { return next() % bound; }
  double unit() { return static_cast<double>(next() >> 11) / 9007199254740992.0; }

 private:
  std::uint64_t state_;
};

/// Zipf's distribution over [0, count) (Gray et al., "Quickly generating billion-record synthetic databases"); the
/// popular ones are scattered over the whole range.
class Zipf {
 public:
  explicit Zipf(std::uint64_t count) : count_(count) {
    for (std::uint64_t i = 1; i <= count; ++i) zeta_ += 1 / std::pow(static_cast<double>(i), theta);
    const double zeta_two = 1 + std::pow(0.5, theta);
    eta_ = (1 - std::pow(2.0 / static_cast<double>(count), 1 - theta)) / (1 - zeta_two / zeta_);
  }

  std::uint64_t next(Random& random) const {
    const double u = random.unit();
    const double uz = u * zeta_;
    std::uint64_t rank = 0;
    if (uz >= 1 + std::pow(0.5, theta)) {
      rank = static_cast<std::uint64_t>(static_cast<double>(count_) * std::pow(eta_ * u - eta_ + 1, 1 / (1 - theta)));
    } else if (uz >= 1) {
      rank = 1;
    }
    return Random(rank).next() % count_;
  }

 private:
  static constexpr double theta = 0.99;
  std::uint64_t count_;
  double zeta_ = 0;
  double eta_ = 0;
};

}  // namespace flotilla::bench
