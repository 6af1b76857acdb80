// What one seed draws before its run begins, and what a failing one is shrunk by.
#pragma once

#include <bitset>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/executor.hpp"

namespace flotilla::sim {

/// Fault families; each is off in about a third of the seeds, so that they do not mask one another.
enum class Family : std::uint8_t {
  crash,         ///< power loss of one member
  crash_many,    ///< of a majority, or of all, at once
  kill,          ///< the process alone dies: what it wrote and did not sync stays, for now
  torn,          ///< power loss in the middle of a file call
  torn_start,    ///< the same while it starts
  close,         ///< an orderly end and a start
  partition,     ///< one member or a split, both ways
  one_way,       ///< one direction of one pair
  reset,         ///< all connections of a pair break
  slow_network,  ///< latency, tiny chunks, random resets; for the whole run
  slow_disk,     ///< for the whole run
  disk_hang,     ///< the log thread of a member stands still
  io_error,      ///< one file call, or all from it on; what was not synced may be dropped
  disk_full,     ///< there is no space for a file call, or for all from it on; after a while there is
  slow_apply,    ///< the apply thread stands still
  pause,         ///< a whole process stands still
  drift,         ///< clocks at different rates; for the whole run
  bit_rot,       ///< of what was durable: the member refuses to start, and is replaced
  set_back,      ///< a disk is what it was a while ago; then the member is replaced
  wipe,          ///< an empty disk, and so a new member
  removal,       ///< a member is removed; it comes back as a new one
  demotion,      ///< one voter, or two, are learners for a while, or one takes the place of another
  growth,        ///< a new member joins, as a voter or as a learner that is promoted later
  transfer,      ///< of the leadership, asked of any member
  torn_install,  ///< power loss around the moment when a snapshot is installed
  compaction,    ///< a member's database is compacted: no fault, but one may come in the middle of it
  count_,
};
inline constexpr std::size_t families = static_cast<std::size_t>(Family::count_);
constexpr std::size_t position(Family family) {
  return static_cast<std::size_t>(family);
}
std::string_view to_string(Family family);
std::optional<Family> family_of(std::string_view name);
using FamilySet = std::bitset<families>;

struct Plan {
  std::uint64_t seed = 0;
  std::size_t members = 3;
  FamilySet families;
  Duration until = std::chrono::seconds(60);  ///< clients and faults end so long after the cluster was formed
  /// Only to try out what watches over the simulator: the second time that this family strikes is a failure.
  std::optional<Family> planted;

  friend bool operator==(const Plan&, const Plan&) = default;
};

Plan draw_plan(std::uint64_t seed);
/// Repeats exactly this run.
std::string command_of(const Plan& plan);

}  // namespace flotilla::sim
