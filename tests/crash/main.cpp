// crash: images of power losses, recovered and judged.
//   crash [--images N] [--seed S] [--workload W] [--rule R] [--keep DIR] [--jobs N] [--until-wrong]
//   crash --recording FILE --image I[.J[.K]]      one again
//   crash --planted [NAME]                        protective steps left out one after the other: are the images wrong?
//   crash --faults                                every file call fails in turn
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <map>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <fmt/format.h>

#include "base/assert.hpp"
#include "campaign.hpp"
#include "workload.hpp"

namespace {

using namespace crash;

/// What is left out on purpose, to see that the images show it.
const std::map<std::string, Planted>& planted_faults() {
  static const std::map<std::string, Planted> all{
      {"answer-before-sync", {.answer_early = true}},
      {"checkpoint-ahead-of-log", {.state_first = true}},
      {"no-sync-of-blocks", {.ignored_syncs = "*.seg"}},
      {"no-sync-of-zeros", {.ignored_syncs = "*.tmp"}},
      {"no-sync-of-data-file", {.ignored_syncs = "data.mdb"}},
      {"no-sync-of-log-directory", {.ignored_syncs = "log"}},
      {"no-sync-of-data-directory", {.ignored_syncs = "data"}},
      {"no-sync-of-parent-directory", {.ignored_syncs = "/"}},
      {"no-sync-of-identity", {.ignored_syncs = "node.tmp"}},
      {"no-sync-of-checkpoint", {.ignored_syncs = "checkpoint.tmp"}},
      {"no-sync-of-state-directory", {.ignored_syncs = "state.[0-9]"}},
  };
  return all;
}

// ---- all of them

std::filesystem::path scratch_directory() {
  const std::filesystem::path memory = "/dev/shm";
  const auto base = std::filesystem::is_directory(memory) ? memory : std::filesystem::temp_directory_path();
  return base / fmt::format("flotilla-crash-{}", ::getpid());
}

/// Every call of a fixed workload fails in turn, in each way.
void sweep(Campaign& campaign, Counts& counts, std::uint64_t seed) {
  std::size_t behind = 0;  // ways of failing whose last call is passed
  while (behind < fault_kinds) {
    const std::uint64_t number = counts.next_recording++;
    behind = campaign.run_fault("faults", seed, number / fault_kinds, number % fault_kinds) ? 0 : behind + 1;
  }
}

void work(const Arguments& arguments, const Planted& planted, Counts& counts, const std::filesystem::path& scratch) {
  std::filesystem::create_directories(scratch);
  Campaign campaign(arguments, planted, counts, scratch);
  if (!arguments.recording.empty()) return campaign.run(Recording::read_from(arguments.recording));
  if (arguments.faults) return sweep(campaign, counts, arguments.seed);
  std::vector<std::string> names = workload_names();
  if (!arguments.workload.empty()) names = {arguments.workload};
  while (!campaign.enough()) {
    const std::uint64_t number = counts.next_recording++;
    campaign.run(names[number % names.size()], arguments.seed + number / names.size());
  }
}

/// Several processes; each is without threads whenever it makes another.
void work_all(const Arguments& arguments, const Planted& planted, Counts& counts) {
  const std::filesystem::path scratch = scratch_directory();
  std::vector<pid_t> workers;
  const unsigned jobs = arguments.recording.empty() ? arguments.jobs : 1;
  for (unsigned i = 0; i < jobs; ++i) {
    std::fflush(stdout);
    const pid_t worker = ::fork();
    if (worker < 0) throw std::runtime_error("fork");
    if (worker == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      int result = 0;
      try {
        work(arguments, planted, counts, scratch / std::to_string(i));
      } catch (const std::exception& thrown) {
        fmt::print("crash: {}\n", thrown.what());
        result = 1;
      }
      std::fflush(stdout);
      ::_exit(result);
    }
    workers.push_back(worker);
  }
  for (const pid_t worker : workers) {
    int status = 0;
    ::waitpid(worker, &status, 0);
    if (status != 0) {
      ++counts.wrong;
      fmt::print("crash: a worker ended with status {}\n", status);
    }
  }
  std::error_code ignored;
  std::filesystem::remove_all(scratch, ignored);
}

template <class Row>
void print_table(std::string_view title, const std::vector<std::string>& names, const Row& row) {
  fmt::print("  {:<14}", title);
  for (std::size_t ending = 0; ending < endings; ++ending) fmt::print("{:>10}", to_string(static_cast<Ending>(ending)));
  fmt::print("\n");
  for (std::size_t i = 0; i < names.size(); ++i) {
    fmt::print("  {:<14}", names[i]);
    for (std::size_t ending = 0; ending < endings; ++ending) fmt::print("{:>10}", row[i][ending].load());
    fmt::print("\n");
  }
}

int run_images(const Arguments& arguments) {
  Counts& counts = make_counts();
  const auto begun = std::chrono::steady_clock::now();
  work_all(arguments, {}, counts);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
  std::vector<std::string> rule_names;
  for (std::size_t i = 0; i < rules; ++i) rule_names.emplace_back(to_string(static_cast<Rule>(i)));
  print_table("rule", rule_names, counts.by_rule);
  print_table("workload", workload_names(), counts.by_workload);
  fmt::print("  losses in a row: 1: {}, 2: {}, 3: {}; {} operations recorded; {} images were as others; {:.1f} s\n",
             counts.by_depth[0].load(), counts.by_depth[1].load(), counts.by_depth[2].load(), counts.operations.load(),
             counts.doubles.load(), seconds);
  fmt::print("crash: {} images, {} wrong\n", counts.images.load(), counts.wrong.load());
  return counts.wrong == 0 ? 0 : 1;
}

int run_faults(const Arguments& arguments) {
  Counts& counts = make_counts();
  work_all(arguments, {}, counts);
  std::uint64_t faults = 0;
  fmt::print("  {:<22}{:>10}{:>10}\n", "fault", "went on", "stopped");
  for (std::size_t kind = 0; kind < fault_kinds; ++kind) {
    fmt::print("  {:<22}{:>10}{:>10}\n", all_fault_kinds[kind].name, counts.went_on[kind].load(),
               counts.stopped[kind].load());
    faults += counts.went_on[kind] + counts.stopped[kind];
  }
  fmt::print("  {} starts afterwards\ncrash: {} faults, {} wrong\n", counts.images.load(), faults, counts.wrong.load());
  return counts.wrong == 0 ? 0 : 1;
}

int run_planted(const Arguments& arguments) {
  unsigned missed = 0;
  for (const auto& [name, planted] : planted_faults()) {
    if (!arguments.all_planted && name != arguments.planted) continue;
    Arguments one = arguments;
    one.planted = name;
    one.until_wrong = true;
    Counts& counts = make_counts();
    work_all(one, planted, counts);
    const bool found = counts.wrong > 0;
    fmt::print("{}: {} after {} images\n", name, found ? "found" : "MISSED", counts.images.load());
    missed += found ? 0 : 1;
  }
  fmt::print("crash: {} planted faults missed\n", missed);
  return missed == 0 ? 0 : 1;
}

bool parse(int count, char** values, Arguments& arguments) {
  for (int i = 1; i < count; ++i) {
    const std::string name = values[i];
    if (name == "--until-wrong") {
      arguments.until_wrong = true;
      continue;
    }
    if (name == "--faults") {
      arguments.faults = true;
      continue;
    }
    const bool more = i + 1 < count && values[i + 1][0] != '-';
    if (name == "--planted" && !more) {
      arguments.all_planted = true;
      continue;
    }
    if (!more) return false;
    const std::string value = values[++i];
    if (name == "--images") {
      arguments.images = std::stoull(value);
    } else if (name == "--seed") {
      arguments.seed = std::stoull(value);
    } else if (name == "--workload") {
      arguments.workload = value;
      if (value != "db" && find_workload(value) == nullptr) return false;
    } else if (name == "--rule") {
      arguments.rule = rule_of(value);
      if (!arguments.rule) return false;
    } else if (name == "--planted") {
      arguments.planted = value;
      if (!planted_faults().contains(value)) return false;
    } else if (name == "--keep") {
      arguments.keep = value;
    } else if (name == "--recording") {
      arguments.recording = value;
    } else if (name == "--image") {
      arguments.image = parse_path(value);
    } else if (name == "--jobs") {
      arguments.jobs = static_cast<unsigned>(std::stoul(value));
    } else {
      return false;
    }
  }
  return true;
}

[[noreturn]] void throw_broken(const char* expression, const char* file, int line) {
  throw std::logic_error(fmt::format("{}:{}: {}", file, line, expression));
}

}  // namespace

int main(int count, char** values) {
  flotilla::set_assert_handler(throw_broken);
  Arguments arguments;
  arguments.jobs = std::max(1u, std::thread::hardware_concurrency());
  arguments.keep = std::filesystem::temp_directory_path() / "flotilla-crash";
  if (!parse(count, values, arguments)) {
    fmt::print(
        stderr,
        "usage: crash [--images N] [--seed S] [--workload W] [--rule R] [--jobs N] [--keep DIR] [--until-wrong]\n"
        "       crash --recording FILE --image I[.J[.K]]\n"
        "       crash --planted [NAME]\n"
        "       crash --faults\n");
    return 2;
  }
  if (arguments.faults) return run_faults(arguments);
  if (arguments.all_planted || !arguments.planted.empty()) return run_planted(arguments);
  return run_images(arguments);
}
