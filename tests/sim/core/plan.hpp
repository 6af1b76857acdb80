// What one seed draws before its run begins: the cluster, the network, the disks and the faults.
#pragma once

#include <cstdint>
#include <string>

#include "raft/core.hpp"
#include "raft/random.hpp"

namespace flotilla::sim {

/// Virtual time. One tick of an unskewed clock is `tick_units`.
using Time = std::uint64_t;
inline constexpr Time tick_units = 1000;
/// What a heavy tail adds to a message's delay: often as much as an election takes, now and then several leaderships.
inline constexpr Time heavy_delay = 20 * tick_units;
inline constexpr Time heavy_delay_max = 10 * heavy_delay;

/// Each fault family is off in about a third of the seeds, so that faults do not mask each other.
struct Plan {
  std::uint64_t seed = 0;
  std::uint64_t nodes = 3;   ///< ids 1 ... nodes
  std::uint64_t voters = 3;  ///< of the first configuration: 1 ... voters
  std::uint64_t events = 2500;

  bool fifo_links = false;  ///< streams that reset, instead of messages that are lost and reordered
  Time delay_min = 0;
  Time delay_mean = 100;
  bool heavy_tail = false;
  std::uint64_t loss_permille = 0;
  std::uint64_t double_permille = 0;

  Time disk_mean = 100;
  bool disk_hangs = false;
  bool partitions = false;
  bool crashes = false;
  bool pauses = false;
  bool skew = false;
  bool slow_apply = false;
  bool membership = false;
  bool transfers = false;
  bool reads = false;
  bool trims = false;
  bool forced_campaigns = false;
  bool strikes = false;  ///< at leaders, where it hurts most

  Time fault_mean = 0;   ///< between two faults
  Time client_mean = 0;  ///< between two actions of the clients
  raft::CoreOptions options{};
};

Plan draw_plan(std::uint64_t seed);
/// One line for a failure report.
std::string to_string(const Plan& plan);

}  // namespace flotilla::sim
