#include "report.hpp"

#include <algorithm>
#include <functional>

#include <fmt/format.h>

namespace flotilla::sim {
namespace {

/// So many seeds without it are no accident.
constexpr std::size_t seeds_enough = 2000;

using Value = std::function<double(const Counts&)>;

/// "name total: least | a tenth has at most | half | nine tenths | most, per seed"
std::string line_of(std::string_view name, const std::vector<Counts>& seeds, const Value& value) {
  std::vector<double> values;
  std::transform(seeds.begin(), seeds.end(), std::back_inserter(values), value);
  std::sort(values.begin(), values.end());
  double total = 0;
  for (const double one : values) total += one;
  const auto at = [&](double part) { return values[static_cast<std::size_t>(part * double(values.size() - 1))]; };
  return fmt::format("  {:<22}{:>12.0f}{:>10.0f}{:>10.0f}{:>10.0f}{:>10.0f}{:>10.0f}\n", name, total, at(0), at(0.1),
                     at(0.5), at(0.9), at(1));
}

}  // namespace

std::string Report::text() const {
  if (seeds_.empty()) return {};
  std::string text = fmt::format("  {:<22}{:>12}{:>10}{:>10}{:>10}{:>10}{:>10}\n", "", "all seeds", "least", "10%",
                                 "50%", "90%", "most");
  const auto line = [&](std::string_view name, auto field) {
    text += line_of(name, seeds_, [field](const Counts& counts) { return static_cast<double>(counts.*field); });
  };
  line("events", &Counts::events);
  line("commands", &Counts::commands);
  line("  succeeded", &Counts::succeeded);
  line("  refused", &Counts::refused);
  line("  outcome unknown", &Counts::unknown);
  line("reads", &Counts::reads);
  line("elections", &Counts::elections);
  line("truncations", &Counts::truncations);
  line("snapshots installed", &Counts::installs);
  line("compactions", &Counts::compactions);
  line("configurations", &Counts::configurations);
  line("crashes", &Counts::crashes);
  line("starts", &Counts::starts);
  text += line_of("simulated seconds", seeds_,
                  [](const Counts& counts) { return std::chrono::duration<double>(counts.simulated).count(); });
  for (std::size_t i = 0; i < families; ++i) {
    text += line_of(fmt::format("fault {}", to_string(static_cast<Family>(i))), seeds_,
                    [i](const Counts& counts) { return static_cast<double>(counts.faults[i]); });
  }
  return text;
}

std::string Report::missing() const {
  std::string names;
  for (std::size_t i = 0; i < families && seeds_.size() >= seeds_enough; ++i) {
    const bool struck = std::any_of(seeds_.begin(), seeds_.end(), [i](const Counts& one) { return one.faults[i] > 0; });
    if (!struck) names += fmt::format(" {}", to_string(static_cast<Family>(i)));
  }
  return names;
}

}  // namespace flotilla::sim
