// Whole members under simulation: `member_sim [--seeds N] [--from SEED] [--verbose]`.
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <fmt/format.h>

#include "base/assert.hpp"
#include "report.hpp"
#include "world.hpp"

namespace {

using flotilla::sim::Report;
using flotilla::sim::World;

struct Arguments {
  std::uint64_t seeds = 50;
  std::uint64_t from = 1;
  bool verbose = false;
};

bool parse(int count, char** values, Arguments& arguments) {
  for (int i = 1; i < count; ++i) {
    const std::string_view name = values[i];
    if (name == "--verbose") {
      arguments.verbose = true;
    } else if (name == "--seeds" && i + 1 < count) {
      arguments.seeds = std::stoull(values[++i]);
    } else if (name == "--from" && i + 1 < count) {
      arguments.from = std::stoull(values[++i]);
    } else {
      return false;
    }
  }
  return true;
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

class Runs {
 public:
  explicit Runs(const Arguments& arguments) : arguments_(arguments), next_(arguments.from) {}

  int run() {
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
    const auto directory = scratch() / std::to_string(seed);
    World world(seed, directory, arguments_.verbose);
    const std::string broken = world.run();
    std::error_code code;
    std::filesystem::remove_all(directory, code);
    const std::lock_guard lock(mutex_);
    report_.add(world.counts());
    if (arguments_.verbose) fmt::print("seed {}: trace {:016x}\n", seed, world.trace());
    if (broken.empty()) return;
    ++failed_;
    fmt::print("seed {} FAILED: {}\n  again: ./dev sim --seeds 1 --from {}\n", seed, broken, seed);
    std::fflush(stdout);
  }
  void report() {
    const std::string missing = report_.missing();
    if (!missing.empty()) ++failed_;
    fmt::print("member simulation: {} seeds, {} failed\n{}", arguments_.seeds, failed_, report_.text());
    if (!missing.empty()) fmt::print("FAILED: in so many seeds these never struck:{}\n", missing);
  }

  const Arguments arguments_;
  std::atomic<std::uint64_t> next_;
  std::mutex mutex_;
  Report report_;
  std::uint64_t failed_ = 0;
};

}  // namespace

int main(int count, char** values) {
  flotilla::set_assert_handler(throw_broken);
  Arguments arguments;
  if (!parse(count, values, arguments)) {
    fmt::print(stderr, "usage: member_sim [--seeds N] [--from SEED] [--verbose]\n");
    return 2;
  }
  return Runs(arguments).run();
}
