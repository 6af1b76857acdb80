// core_sim: some consensus cores under random faults, all invariants after every step.
//
//   core_sim [--seeds N] [--from SEED] [--threads N] [--verbose] [--all]
//
// Runs seeds SEED ... SEED + N - 1. A failure prints the command that replays it, and ends the run unless --all is
// given.
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include <fmt/format.h>

#include "base/assert.hpp"
#include "world.hpp"

namespace flotilla::sim {
namespace {

struct Arguments {
  std::uint64_t seeds = 100;
  std::uint64_t from = 1;
  unsigned threads = 2;
  bool verbose = false;
  bool all = false;
};

struct Outcome {
  std::uint64_t seed = 0;
  std::string failure;
  std::uint64_t trace = 0;
  std::uint64_t healing_ticks = 0;
  Counters counters;
};

[[noreturn]] void throw_broken(const char* expression, const char* file, int line) {
  throw Broken(fmt::format("{} ({}:{})", expression, file, line));
}

Outcome run_seed(std::uint64_t seed, bool verbose) {
  Outcome outcome;
  outcome.seed = seed;
  World world(draw_plan(seed), verbose);
  try {
    world.run();
  } catch (const std::exception& error) {
    outcome.failure = error.what();
  }
  outcome.trace = world.trace_hash();
  outcome.healing_ticks = world.healing_ticks();
  outcome.counters = world.counters();
  return outcome;
}

class Report {
 public:
  /// True if it failed.
  bool add(const Outcome& outcome) {
    const std::lock_guard lock(mutex_);
    ++seeds_;
    counters_ += outcome.counters;
    // Independent of the order in which the workers finish.
    trace_ += mix(outcome.seed, outcome.trace);
    ++healing_[std::min<std::size_t>(outcome.healing_ticks / 20, healing_.size() - 1)];
    if (outcome.failure.empty()) return false;
    ++failures_;
    fmt::print("FAILED seed {}: {}\n  {}\n  replay: core_sim --from {} --seeds 1 --verbose\n", outcome.seed,
               outcome.failure, to_string(draw_plan(outcome.seed)), outcome.seed);
    return true;
  }

  int print(double seconds) const {
    fmt::print("seeds {}  failed {}  events {}  trace {:016x}\n", seeds_, failures_, counters_[What::events], trace_);
    for (std::size_t i = 0; i < what_count; ++i) fmt::print("  {:<26}{:>12}\n", what_names[i], counters_.values[i]);
    fmt::print("  ticks to heal, by 20:");
    for (std::uint64_t count : healing_) fmt::print(" {}", count);
    fmt::print("\n{:.1f} s, {:.0f} events/s\n", seconds, static_cast<double>(counters_[What::events]) / seconds);
    return failures_ == 0 && every_family_fired() ? 0 : 1;
  }

 private:
  bool every_family_fired() const {
    if (seeds_ < 300) return true;
    bool all = true;
    for (std::size_t i = 0; i < what_count; ++i) {
      if (counters_.values[i] != 0) continue;
      fmt::print("never happened: {}\n", what_names[i]);
      all = false;
    }
    return all;
  }

  std::mutex mutex_;
  std::uint64_t seeds_ = 0;
  std::uint64_t failures_ = 0;
  std::uint64_t trace_ = 0;
  Counters counters_;
  std::array<std::uint64_t, 20> healing_{};
};

bool parse(int argc, char** argv, Arguments& arguments) {
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    const auto number = [&]() -> std::uint64_t { return i + 1 < argc ? std::strtoull(argv[++i], nullptr, 10) : 0; };
    if (name == "--seeds") {
      arguments.seeds = number();
    } else if (name == "--from") {
      arguments.from = number();
    } else if (name == "--threads") {
      arguments.threads = static_cast<unsigned>(number());
    } else if (name == "--verbose") {
      arguments.verbose = true;
    } else if (name == "--all") {
      arguments.all = true;
    } else {
      fmt::print("core_sim [--seeds N] [--from SEED] [--threads N] [--verbose] [--all]\n");
      return false;
    }
  }
  return arguments.threads > 0;
}

int run(const Arguments& arguments) {
  set_assert_handler(&throw_broken);
  const auto begun = std::chrono::steady_clock::now();
  Report report;
  std::atomic<std::uint64_t> next{arguments.from};
  {
    std::vector<std::jthread> workers;
    const unsigned threads = arguments.verbose ? 1 : arguments.threads;
    for (unsigned i = 0; i < threads; ++i) {
      workers.emplace_back([&] {
        for (std::uint64_t seed = next++; seed < arguments.from + arguments.seeds; seed = next++) {
          const bool failed = report.add(run_seed(seed, arguments.verbose));
          if (failed && !arguments.all) next = arguments.from + arguments.seeds;
        }
      });
    }
  }
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begun;
  return report.print(seconds.count());
}

}  // namespace
}  // namespace flotilla::sim

int main(int argc, char** argv) {
  flotilla::sim::Arguments arguments;
  if (!flotilla::sim::parse(argc, argv, arguments)) return 2;
  return flotilla::sim::run(arguments);
}
