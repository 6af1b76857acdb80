#include "plan.hpp"

#include <fmt/format.h>

namespace flotilla::sim {
namespace {

using raft::Random;

bool two_thirds(Random& random) {
  return random.below(3) != 0;
}

Time between(Random& random, Time low, Time high) {
  return low + random.below(high - low + 1);
}

/// Tiny limits reach branches that real ones reach once in a million years.
raft::CoreOptions draw_options(Random& random) {
  raft::CoreOptions options{};
  options.election_ticks = static_cast<unsigned>(between(random, 8, 12));
  options.heartbeat_ticks = static_cast<unsigned>(between(random, 1, 2));
  options.storage_stall_ticks = static_cast<unsigned>(between(random, 20, 60));
  if (two_thirds(random)) options.append_bytes_max = between(random, 1, 400);
  if (two_thirds(random)) options.inflight_messages_max = between(random, 1, 6);
  if (two_thirds(random)) options.inflight_bytes_max = between(random, 1, 1000);
  if (two_thirds(random)) options.tail_bytes_max = between(random, 0, 600);
  if (random.below(4) == 0) options.uncommitted_bytes_max = between(random, 200, 1500);
  if (random.below(2) == 0) options.committed_bytes_max = between(random, 1, 300);
  if (random.below(4) == 0) options.unapplied_bytes_max = between(random, 50, 800);
  return options;
}

}  // namespace

Plan draw_plan(std::uint64_t seed) {
  Random random(seed ^ 0x706c616e);
  Plan plan;
  plan.seed = seed;
  plan.voters = between(random, 1, 5);
  plan.nodes = std::max<std::uint64_t>(plan.voters, between(random, 3, 7));
  plan.events = between(random, 2000, 3000);
  plan.fifo_links = random.below(2) == 0;
  plan.delay_min = between(random, 0, 50);
  plan.delay_mean = between(random, 10, 1000);
  plan.heavy_tail = two_thirds(random) && random.below(2) == 0;
  if (two_thirds(random)) plan.loss_permille = random.below(300);
  if (two_thirds(random)) plan.double_permille = random.below(300);
  plan.disk_mean = between(random, 1, 1500);
  plan.disk_hangs = random.below(3) == 0;
  plan.partitions = two_thirds(random);
  plan.crashes = two_thirds(random);
  plan.pauses = random.below(2) == 0;
  plan.skew = two_thirds(random);
  plan.slow_apply = random.below(2) == 0;
  plan.membership = two_thirds(random);
  plan.transfers = random.below(2) == 0;
  plan.reads = two_thirds(random);
  plan.trims = two_thirds(random);
  plan.forced_campaigns = random.below(3) == 0;
  plan.strikes = random.below(2) == 0;
  plan.fault_mean = between(random, 3 * tick_units, 40 * tick_units);
  plan.client_mean = between(random, 100, 2 * tick_units);
  plan.options = draw_options(random);
  return plan;
}

std::string to_string(const Plan& plan) {
  return fmt::format(
      "nodes {} voters {} events {} {} delay {}+{}{} loss {} double {} disk {}{}{}{}{}{}{}{}{}{}{}{}{} fault every {} "
      "client every {} append {} window {}/{} tail {}",
      plan.nodes, plan.voters, plan.events, plan.fifo_links ? "streams" : "messages", plan.delay_min, plan.delay_mean,
      plan.heavy_tail ? " heavy-tail" : "", plan.loss_permille, plan.double_permille, plan.disk_mean,
      plan.disk_hangs ? " hangs" : "", plan.partitions ? " partitions" : "", plan.crashes ? " crashes" : "",
      plan.pauses ? " pauses" : "", plan.skew ? " skew" : "", plan.slow_apply ? " slow-apply" : "",
      plan.membership ? " membership" : "", plan.transfers ? " transfers" : "", plan.reads ? " reads" : "",
      plan.trims ? " trims" : "", plan.forced_campaigns ? " campaigns" : "", plan.strikes ? " strikes" : "",
      plan.fault_mean, plan.client_mean, plan.options.append_bytes_max, plan.options.inflight_bytes_max,
      plan.options.inflight_messages_max, plan.options.tail_bytes_max);
}

}  // namespace flotilla::sim
