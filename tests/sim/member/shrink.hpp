// Makes a failing run as small as it gets: fewer members, fewer families, less time, and still the same failure.
#pragma once

#include <functional>
#include <string>

#include "plan.hpp"

namespace flotilla::sim {

/// What two failures have in common that differ in numbers, names and places alone.
std::string class_of(const std::string& failure);

struct Outcome {
  std::string failure;  ///< empty: none
  Duration ended{};     ///< since the cluster was formed
};

/// Requires: `plan` fails with `outcome`. Returns the smallest plan found whose failure is of the same class. `run` is
/// called until nothing gets smaller, or `expired` says that it was enough.
Plan shrink(Plan plan, const Outcome& outcome, const std::function<Outcome(const Plan&)>& run,
            const std::function<bool()>& expired);

}  // namespace flotilla::sim
