// One seed: a cluster, its clients, its faults, and what must hold at every step and at the end.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "history.hpp"
#include "member.hpp"
#include "oracle.hpp"
#include "wiretap.hpp"

namespace flotilla::sim {

/// Fault families; each is off in about a third of the seeds, so that they do not mask one another.
enum class Family : std::uint8_t {
  crash,         ///< power loss of one member
  crash_many,    ///< of a majority, or of all, at once
  close,         ///< an orderly end and a start
  partition,     ///< one member or a split, both ways
  one_way,       ///< one direction of one pair
  reset,         ///< all connections of a pair break
  slow_network,  ///< latency, tiny chunks, random resets; for the whole run
  slow_disk,     ///< for the whole run
  disk_hang,     ///< the log thread of a member stands still
  slow_apply,    ///< the apply thread stands still
  pause,         ///< a whole process stands still
  drift,         ///< clocks at different rates; for the whole run
  count_,
};
inline constexpr std::size_t families = static_cast<std::size_t>(Family::count_);
std::string_view to_string(Family family);

struct Totals {
  std::uint64_t seeds = 0;
  std::uint64_t events = 0;
  std::uint64_t operations = 0;
  std::uint64_t succeeded = 0;
  std::uint64_t refused = 0;
  std::uint64_t unknown = 0;
  std::uint64_t lost_callers = 0;  ///< their member died
  std::uint64_t reads = 0;
  std::uint64_t elections = 0;  ///< terms that had a leader
  std::uint64_t starts = 0;
  std::array<std::uint64_t, families> faults{};

  void add(const Totals& other);
};

class World {
 public:
  World(std::uint64_t seed, const std::filesystem::path& directory, bool verbose);
  /// Empty, or what broke.
  std::string run();
  const Totals& totals() const { return totals_; }
  /// Equal for equal seeds, on every compiler.
  std::uint64_t trace() const { return trace_; }

 private:
  bool has(Family family) const { return on_[static_cast<std::size_t>(family)]; }
  void fired(Family family) { ++totals_.faults[static_cast<std::size_t>(family)]; }
  std::uint64_t below(std::uint64_t bound) { return scheduler_.below(bound); }
  Duration between(Duration least, Duration most) { return scheduler_.between(least, most); }
  SimMember& any() { return *members_[below(members_.size())]; }

  void form_cluster();
  void later(Duration delay, std::function<void()> what);
  void client(std::size_t number);
  void fault();
  void strike(Family family);
  void crash(SimMember& member, Duration down);
  void bring_up(SimMember& member);
  void heal();
  void watch();
  const raft::Core* core_of(NodeId id) const;
  void run_until_healed(const char* what, const std::function<bool()>& done);
  std::string describe() const;
  void check_end();
  void broken(std::string what) { history_.broken(std::move(what)); }

  const bool verbose_;
  test::SimScheduler scheduler_;
  test::SimNetwork network_;
  History history_;
  Oracle oracle_;
  Wiretap wiretap_;
  std::vector<std::unique_ptr<SimMember>> members_;
  std::array<bool, families> on_{};
  bool healing_ = false;
  Totals totals_;
  std::uint64_t trace_ = 0;
};

}  // namespace flotilla::sim
