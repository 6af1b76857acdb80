#include "campaign.hpp"

#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fstream>
#include <set>
#include <sstream>
#include <stdexcept>

#include <fmt/format.h>

#include "member.hpp"
#include "workload.hpp"

namespace crash {
namespace {

constexpr unsigned image_seconds_max = 60;
constexpr std::uint64_t kept_max = 20;
/// Losses in one recording, at least and at most.
constexpr std::uint64_t losses_min = 8;
constexpr std::uint64_t losses_max = 150;
/// Images of one start, and of one start in a start.
constexpr std::uint64_t images_per_start = 2;
/// What a killed process left pending may still be lost: that is worth more.
constexpr std::uint64_t images_per_killed = 6;
constexpr std::uint64_t starts_per_third_loss = 4;

void remove_tree(const std::filesystem::path& path) {
  std::error_code ignored;
  std::filesystem::remove_all(path, ignored);
}

}  // namespace

const FaultKind all_fault_kinds[fault_kinds] = {
    {"EIO, once", EIO, false, IoFault::Kind::error},       {"EIO, from then on", EIO, true, IoFault::Kind::error},
    {"ENOSPC, once", ENOSPC, false, IoFault::Kind::error}, {"ENOSPC, from then on", ENOSPC, true, IoFault::Kind::error},
    {"EINTR, once", EINTR, false, IoFault::Kind::error},   {"half of it, once", 0, false, IoFault::Kind::part},
};

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

Counts& make_counts() {
  void* const shared = ::mmap(nullptr, sizeof(Counts), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED) throw std::runtime_error("mmap");
  return *new (shared) Counts();
}

// ---- recordings

Campaign::Campaign(const Arguments& arguments, const Planted& planted, Counts& counts, std::filesystem::path scratch)
    : arguments_(arguments), planted_(planted), counts_(counts), scratch_(std::move(scratch)) {}

void Campaign::run(const std::string& workload, std::uint64_t seed) {
  const std::filesystem::path root = scratch_ / "recorded";
  Recording recording = record(workload, seed, root, planted_);
  remove_tree(root);
  run(recording);
}

void Campaign::run(const Recording& recording) {
  recording_ = &recording;
  counts_.operations += recording.operations.size();
  if (!recording.failure.empty()) report({}, nullptr, "the workload itself: " + recording.failure, {});
  losses({}, Disk(), recording.operations, first_expectation(), recording.truth,
         draw({}, recording.operations, losses_per_recording()));
}

bool Campaign::run_fault(const std::string& workload, std::uint64_t seed, std::uint64_t at, std::size_t kind) {
  const FaultKind& how = all_fault_kinds[kind];
  const std::filesystem::path root = scratch_ / "recorded";
  Planted planted;
  planted.fault = {.at = at, .code = how.code, .from_then_on = how.from_then_on, .kind = how.kind};
  Recording recording = record(workload, seed, root, planted);
  remove_tree(root);
  if (!recording.struck) return false;
  recording_ = &recording;
  ++(recording.failure.empty() ? counts_.went_on : counts_.stopped)[kind];
  std::vector<Point> points;
  const std::uint64_t number = at * fault_kinds + kind;
  for (const Rule rule : {Rule::killed, number % 2 == 0 ? Rule::synced : Rule::subset}) {
    points.push_back({number * 2 + points.size(), recording.operations.size(), rule, mixed(number, points.size())});
  }
  losses({}, Disk(), recording.operations, first_expectation(), recording.truth, points);
  return true;
}

Expectation Campaign::first_expectation() const {
  Expectation expected;
  expected.sole = recording_->sole;
  expected.answers_early = planted_.answer_early;
  return expected;
}

// ---- losses of power

/// So that every workload is there twice at least.
std::uint64_t Campaign::losses_per_recording() const {
  constexpr std::uint64_t images_per_loss = 4;
  if (!arguments_.image.empty()) return losses_max;
  return std::clamp(arguments_.images / (2 * images_per_loss * workload_names().size()), losses_min, losses_max);
}

bool Campaign::enough() const {
  if (!arguments_.image.empty() || arguments_.faults) return false;
  return counts_.images >= arguments_.images || (arguments_.until_wrong && counts_.wrong > 0);
}

std::vector<Campaign::Point> Campaign::draw(const Path& path, const std::vector<OperationPtr>& operations,
                                            std::uint64_t count) const {
  std::uint64_t seed = recording_->seed;
  for (const std::uint64_t number : path) seed = mixed(seed, number);
  const auto started = std::find_if(operations.begin(), operations.end(), [](const OperationPtr& one) {
    return one->kind == Operation::Kind::mark && one->mark == MarkKind::started;
  });
  const std::uint64_t whole = operations.size();
  const std::uint64_t start = std::min<std::uint64_t>(started - operations.begin() + 1, whole);
  std::vector<std::uint64_t> renamed;
  for (std::uint64_t at = 0; at < whole; ++at) {
    if (operations[at]->kind == Operation::Kind::rename) renamed.push_back(at + 1);
  }
  std::vector<Point> points;
  for (std::uint64_t number = 0; number < count; ++number) {
    Random random(mixed(seed, number));
    Point point{.number = number, .seed = random()};
    point.rule = static_cast<Rule>(random() % rules);
    if (path.empty() && arguments_.rule) point.rule = *arguments_.rule;
    // Of a start after a loss, every second point lies within the start itself.
    const bool within = !path.empty() && number % 2 == 0;
    point.position = random.below((within ? start : whole) + 1);
    // Every second killed process leaves a name that is there, and not durable yet.
    if (point.rule == Rule::killed && !renamed.empty() && random.one_in(2)) {
      point.position = renamed[random.below(renamed.size())];
    }
    points.push_back(point);
  }
  if (const std::size_t depth = path.size(); depth < arguments_.image.size()) {
    std::erase_if(points, [&](const Point& point) { return point.number != arguments_.image[depth]; });
  }
  std::stable_sort(points.begin(), points.end(),
                   [](const Point& left, const Point& right) { return left.position < right.position; });
  return points;
}

/// Power is lost at `points` of `operations`, which began on `disk`.
void Campaign::losses(const Path& path, Disk disk, const std::vector<OperationPtr>& operations, Expectation expected,
                      const Truth& truth, const std::vector<Point>& points) {
  std::set<std::uint64_t> seen;
  std::uint64_t done = 0;
  for (const Point& point : points) {
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
    const auto crash = make_crash(disk, during, point.rule, random);
    const auto identity = [&] {
      return mixed(crash->image.hash(), mixed(then.promised, then.committed + then.acknowledged));
    };
    if (!crash || (point.rule != Rule::killed && !seen.insert(identity()).second)) {
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

void Campaign::start_on(const Path& path, const Point& point, const Crash& crash, const Expectation& expected,
                        const Truth& truth) {
  ++counts_.images;
  ++counts_.by_depth[path.size() - 1];
  std::fflush(stdout);
  const pid_t child = ::fork();
  if (child < 0) throw std::runtime_error("fork");
  const std::filesystem::path place = scratch_ / to_string(path);
  if (child == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
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
  if (status == 0) return;
  report(path, &point,
         WIFSIGNALED(status) ? fmt::format("ended by signal {}", strsignal(WTERMSIG(status))) : "ended early",
         crash.image);
  remove_tree(place);
}

/// In a process of its own: start, be judged, go on, and lose power again.
void Campaign::live(const Path& path, const Point& point, const Crash& crash, Expectation expected, Truth truth,
                    const std::filesystem::path& place) {
  std::filesystem::create_directory(place);
  const std::filesystem::path root = place / "root";
  const std::filesystem::path data_dir = root / "data";
  crash.image.write_to(root);
  Expectation begun = expected;
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
  remove_tree(place);
  const auto ending = static_cast<std::size_t>(verdict.ending);
  ++counts_.by_rule[static_cast<std::size_t>(point.rule)][ending];
  ++counts_.by_workload[workload_number()][ending];
  if (!verdict.wrong.empty()) return report(path, &point, verdict.wrong, crash.image);
  if (!goes_on || path.size() == depth_max || arguments_.faults) return;
  if (path.size() == 2 && point.seed % starts_per_third_loss != 0 && arguments_.image.empty()) return;
  // What damage cost is no promise any more; a later loss must not cost more.
  begun.promised = std::min(begun.promised, expected.promised);
  begun.acknowledged = std::min(begun.acknowledged, expected.acknowledged);
  const std::vector<OperationPtr> operations = Recorder::operations();
  losses(path, crash.disk, operations, begun, truth,
         draw(path, operations, point.rule == Rule::killed ? images_per_killed : images_per_start));
}

std::string Campaign::go_on(Member& member, Truth& truth, std::uint64_t seed) const {
  static const Workload plain{"plain", 0, {1}, 500};
  const Workload* const known = find_workload(recording_->workload);
  Driver driver(member, truth, mixed(seed, 1));
  if (recording_->sole) driver.set_sole();
  if (auto done = driver.catch_up(); !done) return "catching up: " + done.error().message();
  for (std::uint64_t left = 1 + seed % 5; left > 0; --left) {
    if (auto done = driver.step(known == nullptr ? plain : *known); !done) return "going on: " + done.error().message();
  }
  return {};
}

std::size_t Campaign::workload_number() const {
  const auto names = workload_names();
  return static_cast<std::size_t>(std::find(names.begin(), names.end(), recording_->workload) - names.begin());
}

void Campaign::report(const Path& path, const Point* point, const std::string& wrong, const Image& image) {
  const std::uint64_t number = counts_.wrong++;
  const std::string rule(point == nullptr ? "" : to_string(point->rule));
  if (!arguments_.planted.empty()) {
    if (number == 0) fmt::print("  {} {}: {}\n", recording_->workload, rule, wrong);
    return;
  }
  const std::string name = fmt::format("{}-{}-{}", recording_->workload, recording_->seed, to_string(path));
  fmt::print("WRONG: {} seed {} image {}, {} at {}: {}\n", recording_->workload, recording_->seed, to_string(path),
             rule, where_, wrong);
  if (number < kept_max) {
    const std::filesystem::path kept = arguments_.keep / name;
    std::filesystem::create_directories(kept);
    recording_->write_to(kept / "recording");
    remove_tree(kept / "image");
    image.write_to(kept / "image");
    std::ofstream trace(kept / "operations");
    for (std::uint64_t i = 0; trace_ != nullptr && i < trace_->size(); ++i) {
      trace << (i == position_ ? "=> " : "   ") << i << " " << describe(*(*trace_)[i]) << "\n";
    }
    if (point != nullptr && !arguments_.faults) {
      fmt::print("  again: ./dev crash --recording {} --image {}\n", (kept / "recording").string(), to_string(path));
    }
  }
  std::fflush(stdout);
}

}  // namespace crash
