// What a member goes through while it is recorded.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "flotilla/error.hpp"
#include "member.hpp"
#include "model.hpp"

namespace crash {

enum class Step : std::uint8_t {
  work,
  commit,
  term,
  supersede,
  trim,
  install,
  copy,
  protect,
  restart,
  full,
  checkpoint,
  compact
};
inline constexpr std::size_t steps = 12;

struct Workload {
  std::string_view name;
  unsigned length = 0;                    ///< steps
  std::array<unsigned, steps> weights{};  ///< how often each, in the order of Step
  std::size_t filler_bytes_max = 0;       ///< of a command
};
/// "db" is none of these: a real database, in threads.
const std::vector<Workload>& workloads();
const Workload* find_workload(std::string_view name);

/// Plays the core, and the rest of the cluster, for one member.
class Driver {
 public:
  Driver(Member& member, Truth& truth, std::uint64_t seed) : member_(member), truth_(truth), random_(seed) {}

  /// From a start to steps of the workload; then, or after a failure, it stops. An error is one that nothing excuses.
  flotilla::Result<void> run(const Workload& workload);
  /// What was committed without this member is brought to it, or it catches up with it. Requires: it runs.
  flotilla::Result<void> catch_up();
  flotilla::Result<void> step(const Workload& workload);
  /// A cluster of one: what is in its log is committed, and nothing else ever is.
  void set_sole() { sole_ = true; }

 private:
  flotilla::Result<void> work(unsigned entries, std::uint64_t after);
  flotilla::Result<void> commit_some();
  flotilla::Result<void> new_term();
  flotilla::Result<void> install();
  flotilla::Result<void> restart();
  flotilla::Result<void> fill_disk(const Workload& workload);
  flotilla::Result<void> go_on();
  flotilla::Result<void> compact();
  flotilla::raft::Entry some_entry(std::uint64_t after);
  std::string configuration(std::uint64_t moves) const;

  Member& member_;
  Truth& truth_;
  Random random_;
  std::size_t filler_bytes_max_ = 300;
  bool sole_ = false;
};

/// A database of one member, used by several threads at once, closed and opened again. Returns what was wrong.
flotilla::Result<void> run_db(const std::filesystem::path& data_dir, std::uint64_t seed);

}  // namespace crash
