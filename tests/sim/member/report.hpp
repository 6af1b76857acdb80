// What many seeds did together.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "world.hpp"

namespace flotilla::sim {

class Report {
 public:
  void add(const Counts& counts) { seeds_.push_back(counts); }
  std::string text() const;
  /// Families that should have struck by now, and did not; empty if there is none.
  std::string missing() const;

 private:
  std::vector<Counts> seeds_;
};

}  // namespace flotilla::sim
