// What happened in a run, by name. A family that never fires is a bug of the simulator.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace flotilla::sim {

/// Name and whether a long run must see it.
#define FLOTILLA_SIM_HAPPENINGS(X) \
  X(events)                        \
  X(messages_sent)                 \
  X(messages_delivered)            \
  X(messages_lost)                 \
  X(messages_doubled)              \
  X(messages_cut_off)              \
  X(messages_overtaken)            \
  X(messages_to_the_dead)          \
  X(elections_won)                 \
  X(candidacies)                   \
  X(pre_votes_refused)             \
  X(leaders_deposed)               \
  X(entries_proposed)              \
  X(proposals_refused)             \
  X(entries_committed)             \
  X(writes_acknowledged)           \
  X(writes_replaced)               \
  X(truncations)                   \
  X(entries_truncated)             \
  X(appends_rejected)              \
  X(commits_before_own_disk)       \
  X(reads_asked)                   \
  X(reads_answered)                \
  X(reads_refused)                 \
  X(changes_proposed)              \
  X(changes_refused)               \
  X(joint_entered)                 \
  X(changes_committed)             \
  X(changes_truncated)             \
  X(leaders_removed)               \
  X(transfers_begun)               \
  X(transfers_ordered)             \
  X(transfers_done)                \
  X(log_reads)                     \
  X(logs_trimmed)                  \
  X(snapshots_wanted)              \
  X(snapshots_brought)             \
  X(snapshots_failed)              \
  X(snapshots_offered)             \
  X(snapshots_installed)           \
  X(snapshots_refused)             \
  X(logs_restarted)                \
  X(logs_dropped_at_start)         \
  X(crashes)                       \
  X(crashes_of_all)                \
  X(restarts)                      \
  X(writes_lost)                   \
  X(writes_kept_unconfirmed)       \
  X(writes_grouped)                \
  X(pauses)                        \
  X(disk_hangs)                    \
  X(storage_stall_step_downs)      \
  X(links_reset)                   \
  X(partitions_isolate)            \
  X(partitions_one_way)            \
  X(partitions_split)              \
  X(partitions_ring)               \
  X(partitions_star)               \
  X(partitions_matrix)             \
  X(partitions_healed)             \
  X(campaigns_forced)              \
  X(strikes_crash)                 \
  X(strikes_isolate)               \
  X(strikes_minority)              \
  X(strikes_pause)                 \
  X(strikes_after_transfer)        \
  X(reads_of_stale_leaders)        \
  X(apply_delayed)                 \
  X(healed_runs)

enum class What : unsigned {
#define X(name) name,
  FLOTILLA_SIM_HAPPENINGS(X)
#undef X
      count
};

inline constexpr std::size_t what_count = static_cast<std::size_t>(What::count);
inline constexpr std::array<std::string_view, what_count> what_names{
#define X(name) #name,
    FLOTILLA_SIM_HAPPENINGS(X)
#undef X
};

struct Counters {
  std::array<std::uint64_t, what_count> values{};

  void add(What what, std::uint64_t count = 1) { values[static_cast<std::size_t>(what)] += count; }
  std::uint64_t operator[](What what) const { return values[static_cast<std::size_t>(what)]; }
  Counters& operator+=(const Counters& other) {
    for (std::size_t i = 0; i < what_count; ++i) values[i] += other.values[i];
    return *this;
  }
};

}  // namespace flotilla::sim
