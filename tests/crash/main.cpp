// crash: images of power losses, recovered and judged.
//   crash [--images N] [--seed S] [--workload W] [--rule R] [--planted NAME] [--keep DIR] [--jobs N]
//   crash --recording FILE --image I[.J[.K]]      one again
//   crash --planted                               every planted fault, and whether it is found
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstring>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <fmt/format.h>

#include "base/assert.hpp"
#include "history.hpp"
#include "images.hpp"
#include "judge.hpp"
#include "member.hpp"
#include "recorder.hpp"
#include "recording.hpp"
#include "workload.hpp"

namespace {

using namespace crash;

constexpr unsigned depth_max = 3;
constexpr unsigned image_seconds_max = 60;
constexpr std::uint64_t kept_max = 20;
/// Images of one recording, of one start, and of one start in a start.
constexpr std::uint64_t images_per_recording = 150;
constexpr std::uint64_t images_per_start = 2;
constexpr std::uint64_t starts_per_third_loss = 4;

// ---- the arguments

using Path = std::vector<std::uint64_t>;

struct Arguments {
  std::uint64_t images = 2000;
  std::uint64_t seed = 1;
  std::string workload;
  std::optional<Rule> rule;
  std::string planted;
  bool all_planted = false;
  std::filesystem::path keep;
  std::filesystem::path recording;
  Path image;
  unsigned jobs = std::max(1u, std::thread::hardware_concurrency());
};

/// What is left out on purpose, to see that the images show it.
const std::map<std::string, Planted>& planted_faults() {
  static const std::map<std::string, Planted> all{
      {"answer-before-sync", {"", true}},
      {"no-sync-of-blocks", {"*.seg", false}},
      {"no-sync-of-zeros", {"*.tmp", false}},
      {"no-sync-of-data-file", {"data.mdb", false}},
      {"no-sync-of-log-directory", {"log", false}},
      {"no-sync-of-data-directory", {"data", false}},
      {"no-sync-of-parent-directory", {"/", false}},
      {"no-sync-of-identity", {"node.tmp", false}},
      {"no-sync-of-install-mark", {"installed", false}},
      {"no-sync-of-received-directory", {"state.*.tmp", false}},
      {"no-sync-of-state-directory", {"state.[0-9]", false}},
  };
  return all;
}

std::vector<std::string> workload_names() {
  std::vector<std::string> names;
  for (const Workload& one : workloads()) names.emplace_back(one.name);
  names.emplace_back("db");
  return names;
}

Path parse_path(const std::string& text) {
  Path path;
  std::istringstream in(text);
  for (std::string number; std::getline(in, number, '.');) path.push_back(std::stoull(number));
  return path;
}

std::string to_string(const Path& path) {
  std::string text;
  for (const std::uint64_t number : path) text += (text.empty() ? "" : ".") + std::to_string(number);
  return text;
}

// ---- what all processes count together

struct Counts {
  std::atomic<std::uint64_t> images;
  std::atomic<std::uint64_t> doubles;
  std::atomic<std::uint64_t> wrong;
  std::atomic<std::uint64_t> next_recording;
  std::atomic<std::uint64_t> operations;
  std::atomic<std::uint64_t> by_depth[depth_max];
  std::atomic<std::uint64_t> by_rule[rules][endings];
  std::atomic<std::uint64_t> by_workload[16][endings];
};

Counts& make_counts() {
  void* const shared = ::mmap(nullptr, sizeof(Counts), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED) throw std::runtime_error("mmap");
  return *new (shared) Counts();
}

// ---- one recording and all images of it

class Campaign {
 public:
  Campaign(const Arguments& arguments, const Planted& planted, Counts& counts, std::filesystem::path scratch)
      : arguments_(arguments), planted_(planted), counts_(counts), scratch_(std::move(scratch)) {}

  void run(const std::string& workload, std::uint64_t seed) {
    const std::filesystem::path root = scratch_ / "recorded";
    Recording recording = record(workload, seed, root, planted_);
    remove(root);
    run(recording);
  }

  void run(const Recording& recording) {
    recording_ = &recording;
    counts_.operations += recording.operations.size();
    if (!recording.failure.empty()) report({}, nullptr, "the workload itself: " + recording.failure, {});
    Expectation expected;
    expected.sole = recording.sole;
    expected.answers_early = planted_.answer_early;
    losses({}, Disk(), recording.operations, expected, recording.truth, images_per_recording);
  }

 private:
  struct Point {
    std::uint64_t number = 0;
    std::uint64_t position = 0;  ///< this operation is under way
    Rule rule{};
    std::uint64_t seed = 0;
  };

  bool enough() const {
    if (!arguments_.image.empty()) return false;
    return counts_.images >= arguments_.images || (!arguments_.planted.empty() && counts_.wrong > 0);
  }

  std::vector<Point> draw(const Path& path, const std::vector<OperationPtr>& operations, std::uint64_t count) const {
    std::uint64_t seed = recording_->seed;
    for (const std::uint64_t number : path) seed = mixed(seed, number);
    std::uint64_t starts = 0;  // how many operations belong to the start
    while (starts < operations.size() &&
           (operations[starts]->kind != Operation::Kind::mark || operations[starts]->mark != MarkKind::started))
      ++starts;
    std::vector<Point> points;
    for (std::uint64_t number = 0; number < count; ++number) {
      Random random(mixed(seed, number));
      Point point{.number = number, .seed = random()};
      const std::uint64_t drawn = random();
      point.rule = arguments_.rule.value_or(static_cast<Rule>(drawn % rules));
      // Evenly over the whole; of a start after a loss every second point lies within the start itself.
      const std::uint64_t reach =
          !path.empty() && number % 2 == 0 ? std::min<std::uint64_t>(starts + 1, operations.size()) : operations.size();
      point.position = (reach * number + random.below(reach + 1)) / count;
      if (!path.empty()) point.position = random.below(reach + 1);
      points.push_back(point);
    }
    if (const std::size_t depth = path.size(); depth < arguments_.image.size()) {
      std::erase_if(points, [&](const Point& point) { return point.number != arguments_.image[depth]; });
    }
    std::stable_sort(points.begin(), points.end(),
                     [](const Point& left, const Point& right) { return left.position < right.position; });
    return points;
  }

  /// Power is lost at many points of `operations`, which began on `disk`.
  void losses(const Path& path, Disk disk, const std::vector<OperationPtr>& operations, Expectation expected,
              const Truth& truth, std::uint64_t count) {
    std::set<std::uint64_t> seen;
    std::uint64_t done = 0;
    for (const Point& point : draw(path, operations, count)) {
      if (enough()) return;
      for (; done < point.position; ++done) {
        disk.apply(operations[done]);
        expected.take(*operations[done]);
      }
      Disk during = disk;
      Expectation then = expected;
      if (done < operations.size() && point.rule != Rule::killed) {
        during.apply(operations[done], true);
        then.take(*operations[done], true);
      }
      Random random(point.seed);
      auto crash = make_crash(disk, during, point.rule, random);
      const std::uint64_t hash =
          crash ? mixed(crash->image.hash(), mixed(then.promised, then.committed + then.acknowledged)) : 0;
      if (!crash || (point.rule != Rule::killed && !seen.insert(hash).second)) {
        ++counts_.doubles;
        continue;
      }
      Path below = path;
      below.push_back(point.number);
      where_ = fmt::format("operation {} of {}, {}", point.position, operations.size(),
                           done < operations.size() ? describe(*operations[done]) : "at the end");
      trace_ = &operations;
      position_ = point.position;
      start_on(below, point, *crash, then, truth);
    }
  }

  void start_on(const Path& path, const Point& point, const Crash& crash, const Expectation& expected,
                const Truth& truth) {
    ++counts_.images;
    ++counts_.by_depth[path.size() - 1];
    std::fflush(stdout);
    const pid_t child = ::fork();
    if (child < 0) throw std::runtime_error("fork");
    const std::filesystem::path place = scratch_ / to_string(path);
    if (child == 0) {
      ::alarm(image_seconds_max);
      try {
        live(path, point, crash, expected, truth, place);
      } catch (const std::exception& thrown) {
        report(path, &point, fmt::format("exception: {}", thrown.what()), crash.image);
      }
      std::fflush(stdout);
      ::_exit(0);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    if (status != 0) {
      report(path, &point,
             WIFSIGNALED(status) ? fmt::format("ended by signal {}", strsignal(WTERMSIG(status))) : "ended early",
             crash.image);
      remove(place);
    }
  }

  /// In a process of its own: start, be judged, go on, and lose power again.
  void live(const Path& path, const Point& point, const Crash& crash, Expectation expected, Truth truth,
            const std::filesystem::path& place) {
    std::filesystem::create_directory(place);
    const std::filesystem::path root = place / "root";
    const std::filesystem::path data_dir = root / "data";
    crash.image.write_to(root);
    const Expectation before = expected;
    Truth truth_before = truth;
    Recorder::begin(root, crash.disk);
    Member member({.data_dir = data_dir}, truth);
    const auto started = member.start();
    std::optional<flotilla::Error> failure;
    if (!started) failure = started.error();
    Verdict verdict = judge(member, failure, crash.image, crash.damage, expected, truth, data_dir);
    const bool goes_on = verdict.wrong.empty() && verdict.ending != Ending::refused;
    if (goes_on) verdict.wrong = go_on(member, truth, point.seed);
    member.stop();
    if (goes_on && verdict.wrong.empty()) {
      verdict.wrong = check_contents(data_dir, truth, member.applied());
      if (!verdict.wrong.empty()) verdict.wrong = "after going on: " + verdict.wrong;
    }
    Recorder::end();
    remove(place);
    const auto ending = static_cast<std::size_t>(verdict.ending);
    ++counts_.by_rule[static_cast<std::size_t>(point.rule)][ending];
    ++counts_.by_workload[workload_number()][ending];
    if (!verdict.wrong.empty()) return report(path, &point, verdict.wrong, crash.image);
    if (!goes_on || path.size() == depth_max) return;
    if (path.size() == 2 && point.seed % starts_per_third_loss != 0 && arguments_.image.empty()) return;
    // What damage cost is no promise any more; a later loss must not cost more.
    Expectation begun = before;
    begun.promised = std::min(begun.promised, expected.promised);
    const std::vector<OperationPtr> operations = Recorder::operations();
    losses(path, crash.disk, operations, begun, truth, images_per_start);
  }

  std::string go_on(Member& member, Truth& truth, std::uint64_t seed) const {
    const Workload* workload = find_workload(recording_->workload);
    Driver driver(member, truth, mixed(seed, 1));
    if (recording_->sole) driver.set_sole();
    static const Workload plain{"plain", 0, {1}, 500};
    if (auto done = driver.catch_up(); !done) return "catching up: " + done.error().message();
    for (std::uint64_t steps = 1 + seed % 5; steps > 0; --steps) {
      if (auto done = driver.step(workload == nullptr ? plain : *workload); !done)
        return "going on: " + done.error().message();
    }
    return {};
  }

  std::size_t workload_number() const {
    const auto names = workload_names();
    return static_cast<std::size_t>(std::find(names.begin(), names.end(), recording_->workload) - names.begin());
  }

  void report(const Path& path, const Point* point, const std::string& wrong, const Image& image) {
    const std::uint64_t number = counts_.wrong++;
    if (!arguments_.planted.empty()) {
      if (number == 0) fmt::print("  {} {}: {}\n", recording_->workload, point ? to_string(point->rule) : "", wrong);
      return;
    }
    const std::filesystem::path kept =
        arguments_.keep / fmt::format("{}-{}-{}", recording_->workload, recording_->seed, to_string(path));
    fmt::print("WRONG: {} seed {} image {}, {}: {}\n", recording_->workload, recording_->seed, to_string(path),
               point ? fmt::format("{} at {}", to_string(point->rule), where_) : "", wrong);
    if (number < kept_max) {
      std::filesystem::create_directories(kept);
      recording_->write_to(kept / "recording");
      if (!image.nodes.empty()) {
        std::filesystem::remove_all(kept / "image");
        image.write_to(kept / "image");
      }
      std::ofstream trace(kept / "operations");
      for (std::uint64_t i = 0; trace_ != nullptr && i < trace_->size(); ++i) {
        trace << (i == position_ ? "=> " : "   ") << i << " " << describe(*(*trace_)[i]) << "\n";
      }
      if (point)
        fmt::print("  again: ./dev crash --recording {} --image {}\n", (kept / "recording").string(), to_string(path));
    }
    std::fflush(stdout);
  }

  static void remove(const std::filesystem::path& path) {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }

  const Arguments& arguments_;
  const Planted planted_;
  Counts& counts_;
  const std::filesystem::path scratch_;
  const Recording* recording_ = nullptr;
  std::string where_;
  const std::vector<OperationPtr>* trace_ = nullptr;
  std::uint64_t position_ = 0;
};

// ---- all of them

std::filesystem::path scratch_directory() {
  const std::filesystem::path memory = "/dev/shm";
  const auto base = std::filesystem::is_directory(memory) ? memory : std::filesystem::temp_directory_path();
  return base / fmt::format("flotilla-crash-{}", ::getpid());
}

void work(const Arguments& arguments, const Planted& planted, Counts& counts, const std::filesystem::path& scratch) {
  std::filesystem::create_directories(scratch);
  Campaign campaign(arguments, planted, counts, scratch);
  if (!arguments.recording.empty()) return campaign.run(Recording::read_from(arguments.recording));
  std::vector<std::string> names = workload_names();
  if (!arguments.workload.empty()) names = {arguments.workload};
  while (counts.images < arguments.images && (arguments.planted.empty() || counts.wrong == 0)) {
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

int run_planted(const Arguments& arguments) {
  unsigned missed = 0;
  for (const auto& [name, planted] : planted_faults()) {
    if (!arguments.all_planted && name != arguments.planted) continue;
    Arguments one = arguments;
    one.planted = name;
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
  arguments.keep = std::filesystem::temp_directory_path() / "flotilla-crash";
  if (!parse(count, values, arguments)) {
    fmt::print(stderr,
               "usage: crash [--images N] [--seed S] [--workload W] [--rule R] [--jobs N] [--keep DIR]\n"
               "       crash --recording FILE --image I[.J[.K]]\n"
               "       crash --planted [NAME]\n");
    return 2;
  }
  if (arguments.all_planted || !arguments.planted.empty()) return run_planted(arguments);
  return run_images(arguments);
}
