// One seed: a cluster, its clients, its faults, and what must hold at every step and at the end.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "history.hpp"
#include "member.hpp"
#include "oracle.hpp"
#include "plan.hpp"
#include "wiretap.hpp"

namespace flotilla::sim {

/// What happened in one seed.
struct Counts {
  std::uint64_t events = 0;
  std::uint64_t commands = 0;
  std::uint64_t succeeded = 0;
  std::uint64_t refused = 0;
  std::uint64_t unknown = 0;
  std::uint64_t reads = 0;
  std::uint64_t elections = 0;  ///< terms that had a leader
  std::uint64_t truncations = 0;
  std::uint64_t configurations = 0;
  std::uint64_t crashes = 0;
  std::uint64_t starts = 0;
  std::uint64_t installs = 0;
  std::uint64_t compactions = 0;
  Duration simulated{};
  std::array<std::uint64_t, families> faults{};
};

class World {
 public:
  World(Plan plan, const std::filesystem::path& directory, bool verbose);
  /// Empty, or what broke.
  std::string run();
  /// When it did, since the cluster was formed.
  Duration ended() const { return counts_.simulated - formed_; }
  const Counts& counts() const { return counts_; }
  /// Equal for equal seeds, on every compiler.
  std::uint64_t trace() const { return trace_; }

 private:
  /// Of one member, for as long as it lasts.
  struct Trouble {
    std::optional<Family> family;  ///< its files fail, or soon will
    Errc error = Errc::io_error;
    bool tears = false;  ///< the power goes when they do
    bool drops = false;  ///< what was not synced then is lost
    std::optional<Duration> struck;
    bool mending = false;   ///< it stopped, and will be started again
    bool rotten = false;    ///< its next start must fail
    bool waits = false;     ///< it stays down until its disk may be set back
    bool set_back = false;  ///< it may find that it cannot go on
  };

  bool has(Family family) const { return plan_.families[position(family)]; }
  void fired(Family family);
  std::uint64_t below(std::uint64_t bound) { return scheduler_.below(bound); }
  Duration between(Duration least, Duration most) { return scheduler_.between(least, most); }
  SimMember& any() { return *members_[below(members_.size())]; }

  void form_cluster();
  void later(Duration delay, std::function<void()> what);
  void client(std::size_t number);
  void watch();
  void overhear(const raft::Message& message);
  const raft::Core* core_of(NodeId id) const;
  void run_until_healed(const char* what, const std::function<bool()>& done);
  std::string describe() const;
  void check_end();
  void check_effort();
  void count();
  void note(std::string_view what, const SimMember& member) const;
  void broken(std::string what) { history_.broken(std::move(what)); }

  // world_members.cpp
  bool change_members(Family family, SimMember& asked);
  SimMember& add_member(bool found, std::vector<Address> join);
  void tend_members();
  std::optional<node::Change> repair(const raft::Configuration& configuration);
  bool is_whole(const SimMember& member) const;
  std::vector<Address> addresses(const SimMember* without) const;
  bool may_be_removed(const SimMember& member) const;
  void leave(SimMember& member);

  // world_faults.cpp
  void fault();
  bool strike(Family family, SimMember& member);
  void partition();
  bool break_files(Family family, SimMember& member);
  void watch_files(SimMember& member);
  void watch_fault(SimMember& member, const Error& fault);
  void space_later(SimMember& member);
  void lose_power(SimMember& member, Duration down_max);
  void up_later(SimMember& member, Duration longest);
  void bring_up(SimMember& member);
  bool damage(Family family, SimMember& member);
  void take_image();
  bool may_be_set_back(const SimMember& member) const;
  void set_back_when_safe(SimMember& member, unsigned attempts);
  void replace(SimMember& member);
  void heal();

  const Plan plan_;
  const bool verbose_;
  const std::filesystem::path directory_;
  test::SimScheduler scheduler_;
  test::SimNetwork network_;
  History history_;
  Oracle oracle_;
  Wiretap wiretap_;
  std::vector<std::unique_ptr<SimMember>> members_;
  std::vector<Family> sudden_;  ///< those that are on and strike now and then
  std::uint64_t trailing_ = 0;
  Duration checkpoint_interval_{};

  Duration formed_{};
  bool healing_ = false;
  bool damaged_ = false;  ///< one member per seed at most loses what it promised
  std::map<const SimMember*, Trouble> troubles_;
  std::set<NodeId> leaving_;  ///< somebody asked to remove them
  Counts counts_;
  std::uint64_t trace_ = 0;
};

}  // namespace flotilla::sim
