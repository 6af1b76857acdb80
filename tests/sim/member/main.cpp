// Whole members under simulation:
//   member_sim [--seeds N] [--from SEED] [--members N] [--families a,b,c|none] [--until 12.5s] [--no-shrink]
//   [--verbose]
#include <unistd.h>

#include <atomic>
#include <mutex>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <fmt/format.h>

#include "base/assert.hpp"
#include "report.hpp"
#include "shrink.hpp"
#include "world.hpp"

namespace {

using namespace flotilla::sim;

constexpr auto shrink_limit = std::chrono::seconds(60);
/// One seed in so many is run twice, and must take the same way.
constexpr std::uint64_t seeds_per_repetition = 50;

struct Arguments {
  std::uint64_t seeds = 50;
  std::uint64_t from = 1;
  std::optional<std::size_t> members;
  std::optional<FamilySet> families;
  std::optional<flotilla::Duration> until;
  std::optional<Family> planted;
  bool shrink = true;
  bool verbose = false;

  Plan plan(std::uint64_t seed) const {
    Plan plan = draw_plan(seed);
    plan.members = members.value_or(plan.members);
    plan.families = families.value_or(plan.families);
    plan.until = until.value_or(plan.until);
    plan.planted = planted;
    return plan;
  }
};

std::optional<FamilySet> families_of(const std::string& list) {
  FamilySet set;
  std::istringstream names(list == "none" ? "" : list);
  for (std::string name; std::getline(names, name, ',');) {
    const auto family = family_of(name);
    if (!family) return std::nullopt;
    set.set(position(*family));
  }
  return set;
}

bool take(const std::string& name, const std::string& value, Arguments& arguments) {
  if (name == "--seeds") {
    arguments.seeds = std::stoull(value);
  } else if (name == "--from") {
    arguments.from = std::stoull(value);
  } else if (name == "--members") {
    arguments.members = std::stoull(value);
  } else if (name == "--until") {
    arguments.until = std::chrono::round<flotilla::Duration>(std::chrono::duration<double>(std::stod(value)));
  } else if (name == "--families") {
    arguments.families = families_of(value);
    return arguments.families.has_value();
  } else if (name == "--planted") {
    arguments.planted = family_of(value);
    return arguments.planted.has_value();
  } else {
    return false;
  }
  return true;
}

bool parse(int count, char** values, Arguments& arguments) {
  for (int i = 1; i < count; ++i) {
    const std::string name = values[i];
    if (name == "--verbose") {
      arguments.verbose = true;
    } else if (name == "--no-shrink") {
      arguments.shrink = false;
    } else if (i + 1 >= count || !take(name, values[++i], arguments)) {
      return false;
    }
  }
  return !arguments.members || *arguments.members > 0;
}

/// LMDB's files: in memory where the system has it, for speed alone.
std::filesystem::path scratch() {
  const std::filesystem::path memory = "/dev/shm";
  const auto base = std::filesystem::is_directory(memory) ? memory : std::filesystem::temp_directory_path();
  return base / fmt::format("flotilla-sim-{}", ::getpid());
}

/// Caught by the world, which then names its seed.
[[noreturn]] void throw_broken(const char* expression, const char* file, int line) {
  throw std::logic_error(fmt::format("{}:{}: {}", file, line, expression));
}

struct Ran {
  Outcome outcome;
  Counts counts;
  std::uint64_t trace = 0;
};

Ran run(const Plan& plan, bool verbose) {
  const auto directory = scratch() / std::to_string(plan.seed);
  World world(plan, directory, verbose);
  const std::string failure = world.run();
  std::error_code code;
  std::filesystem::remove_all(directory, code);
  return {{failure, world.ended()}, world.counts(), world.trace()};
}

class Runs {
 public:
  explicit Runs(const Arguments& arguments) : arguments_(arguments), next_(arguments.from) {}

  int run_all() {
    std::vector<std::thread> threads;
    const unsigned count = std::max(1u, std::thread::hardware_concurrency());
    for (unsigned i = 0; i < count; ++i) threads.emplace_back([this] { work(); });
    for (std::thread& thread : threads) thread.join();
    std::error_code code;
    std::filesystem::remove_all(scratch(), code);
    report();
    return failed_ == 0 ? 0 : 1;
  }

 private:
  void work() {
    for (std::uint64_t seed = next_++; seed < arguments_.from + arguments_.seeds; seed = next_++) one(seed);
  }
  void one(std::uint64_t seed) {
    const Plan plan = arguments_.plan(seed);
    Ran ran = run(plan, arguments_.verbose);
    if (ran.outcome.failure.empty() && seed % seeds_per_repetition == 0 && run(plan, false).trace != ran.trace) {
      ran.outcome.failure = "a second run of the same seed took another way";
    }
    {
      const std::lock_guard lock(mutex_);
      report_.add(ran.counts);
      if (arguments_.verbose) fmt::print("seed {}: trace {:016x}\n", seed, ran.trace);
      if (ran.outcome.failure.empty()) return;
      ++failed_;
      fmt::print("seed {} FAILED: {}\n  again: {}\n", seed, ran.outcome.failure, command_of(plan));
      std::fflush(stdout);
      // One is enough for one look at it; others may be the same.
      if (!arguments_.shrink || std::exchange(shrunk_, true)) return;
    }
    make_small(plan, ran.outcome);
  }
  void make_small(const Plan& plan, const Outcome& outcome) {
    const auto end = std::chrono::steady_clock::now() + shrink_limit;
    unsigned runs = 0;
    const Plan small = shrink(
        plan, outcome,
        [&runs](const Plan& smaller) {
          ++runs;
          return run(smaller, false).outcome;
        },
        [end] { return std::chrono::steady_clock::now() >= end; });
    const std::lock_guard lock(mutex_);
    fmt::print("seed {} in {} runs made smaller:\n  {}\n", plan.seed, runs, command_of(small));
    std::fflush(stdout);
  }
  void report() {
    const std::string missing = arguments_.families ? "" : report_.missing();
    if (!missing.empty()) ++failed_;
    fmt::print("member simulation: {} seeds, {} failed\n{}", arguments_.seeds, failed_, report_.text());
    if (!missing.empty()) fmt::print("FAILED: in so many seeds these never struck:{}\n", missing);
  }

  const Arguments arguments_;
  std::atomic<std::uint64_t> next_;
  std::mutex mutex_;
  Report report_;
  std::uint64_t failed_ = 0;
  bool shrunk_ = false;
};

}  // namespace

int main(int count, char** values) {
  flotilla::set_assert_handler(throw_broken);
  Arguments arguments;
  if (!parse(count, values, arguments)) {
    fmt::print(stderr,
               "usage: member_sim [--seeds N] [--from SEED] [--members N] [--families a,b,c|none] [--until 12.5s]\n"
               "                  [--no-shrink] [--verbose]\n");
    return 2;
  }
  return Runs(arguments).run_all();
}
