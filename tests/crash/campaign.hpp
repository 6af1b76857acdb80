// One recording after the other, and all images of each.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "history.hpp"
#include "images.hpp"
#include "judge.hpp"
#include "member.hpp"
#include "recorder.hpp"
#include "recording.hpp"

namespace crash {

inline constexpr unsigned depth_max = 3;  ///< losses of power in a row

/// Which image: of the recording, then of the start on that one, and so on.
using Path = std::vector<std::uint64_t>;
Path parse_path(const std::string& text);
std::string to_string(const Path& path);

struct Arguments {
  std::uint64_t images = 2000;
  std::uint64_t seed = 1;
  std::string workload;      ///< empty: all
  std::optional<Rule> rule;  ///< of the first loss
  std::string planted;
  bool all_planted = false;
  bool faults = false;
  bool until_wrong = false;
  std::filesystem::path keep;
  std::filesystem::path recording;
  Path image;
  unsigned jobs = 1;
};

/// How a call fails: each in turn.
struct FaultKind {
  const char* name;
  int code;
  bool from_then_on;
  IoFault::Kind kind;
};
inline constexpr std::size_t fault_kinds = 6;
extern const FaultKind all_fault_kinds[fault_kinds];

std::vector<std::string> workload_names();

/// What all processes count together.
struct Counts {
  std::atomic<std::uint64_t> images;
  std::atomic<std::uint64_t> doubles;
  std::atomic<std::uint64_t> wrong;
  std::atomic<std::uint64_t> next_recording;
  std::atomic<std::uint64_t> operations;
  std::atomic<std::uint64_t> by_depth[depth_max];
  std::atomic<std::uint64_t> by_rule[rules][endings];
  std::atomic<std::uint64_t> by_workload[16][endings];
  std::atomic<std::uint64_t> went_on[fault_kinds];
  std::atomic<std::uint64_t> stopped[fault_kinds];
};
/// In memory that forked processes share.
Counts& make_counts();

/// Requires: this process has no other threads, and makes none of its own that outlive a call.
class Campaign {
 public:
  Campaign(const Arguments& arguments, const Planted& planted, Counts& counts, std::filesystem::path scratch);

  /// Records the workload, then loses power at many of its points.
  void run(const std::string& workload, std::uint64_t seed);
  void run(const Recording& recording);
  /// Records the workload while a call fails; the process and then power end where it got to. False: the fault lies
  /// behind the workload's last call.
  bool run_fault(const std::string& workload, std::uint64_t seed, std::uint64_t at, std::size_t kind);

  /// All that was asked for is done.
  bool enough() const;

 private:
  struct Point {
    std::uint64_t number = 0;
    std::uint64_t position = 0;  ///< this operation is under way
    Rule rule{};
    std::uint64_t seed = 0;
  };

  std::uint64_t losses_per_recording() const;
  std::vector<Point> draw(const Path& path, const std::vector<OperationPtr>& operations, std::uint64_t count) const;
  void losses(const Path& path, Disk disk, const std::vector<OperationPtr>& operations, Expectation expected,
              const Truth& truth, const std::vector<Point>& points);
  void start_on(const Path& path, const Point& point, const Crash& crash, const Expectation& expected,
                const Truth& truth);
  void live(const Path& path, const Point& point, const Crash& crash, Expectation expected, Truth truth,
            const std::filesystem::path& place);
  std::string go_on(Member& member, Truth& truth, std::uint64_t seed) const;
  Expectation first_expectation() const;
  std::size_t workload_number() const;
  void report(const Path& path, const Point* point, const std::string& wrong, const Image& image);

  const Arguments& arguments_;
  const Planted planted_;
  Counts& counts_;
  const std::filesystem::path scratch_;
  const Recording* recording_ = nullptr;
  // Where the loss at hand happened, for reports.
  std::string where_;
  const std::vector<OperationPtr>* trace_ = nullptr;
  std::uint64_t position_ = 0;
};

}  // namespace crash
