#include "plan.hpp"

#include <array>

#include <fmt/format.h>

#include "support/sim_loop.hpp"

namespace flotilla::sim {
namespace {

constexpr std::array<std::string_view, families> names = {
    "crash",      "crash_many", "kill",         "torn",         "torn_start", "close",    "partition",
    "one_way",    "reset",      "slow_network", "slow_disk",    "disk_hang",  "io_error", "disk_full",
    "slow_apply", "pause",      "drift",        "bit_rot",      "set_back",   "wipe",     "removal",
    "demotion",   "growth",     "transfer",     "torn_install", "compaction"};

}  // namespace

std::string_view to_string(Family family) {
  return names[position(family)];
}

std::optional<Family> family_of(std::string_view name) {
  for (std::size_t i = 0; i < families; ++i) {
    if (names[i] == name) return static_cast<Family>(i);
  }
  return std::nullopt;
}

Plan draw_plan(std::uint64_t seed) {
  test::SimScheduler chance(seed * 2 + 1);
  Plan plan;
  plan.seed = seed;
  constexpr std::array<std::size_t, 10> sizes = {2, 3, 3, 3, 3, 4, 4, 5, 5, 5};
  plan.members = sizes[chance.below(sizes.size())];
  for (std::size_t i = 0; i < families; ++i) plan.families[i] = chance.chance(0.67);
  // One member at most forgets what it promised: with another, a majority might be among those who do. Nor do others
  // leave meanwhile: too few could be left of those who do not forget.
  constexpr std::array damages = {Family::bit_rot, Family::set_back, Family::wipe};
  const Family damage = damages[chance.below(damages.size())];
  for (const Family family : damages) {
    if (family != damage || plan.members < 3) plan.families.reset(position(family));
  }
  if (plan.families[position(damage)]) {
    plan.families.reset(position(Family::removal)).reset(position(Family::demotion));
  }
  return plan;
}

std::string command_of(const Plan& plan) {
  std::string list;
  for (std::size_t i = 0; i < families; ++i) {
    if (plan.families[i]) list += (list.empty() ? "" : ",") + std::string(names[i]);
  }
  std::string command =
      fmt::format("./dev sim --seeds 1 --from {} --members {} --families {} --until {}s --no-shrink", plan.seed,
                  plan.members, list.empty() ? "none" : list, std::chrono::duration<double>(plan.until).count());
  if (plan.planted) command += fmt::format(" --planted {}", to_string(*plan.planted));
  return command;
}

}  // namespace flotilla::sim
