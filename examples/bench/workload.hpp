// The same work for us and for others: what is asked of a store, by how many callers at once, and how long it takes.
//
// A caller has one operation outstanding; when it ends, the caller begins the next (a closed loop). Latencies are the
// callers' own. A store that stands still delays few operations and keeps the others from being asked at all, so the
// upper percentiles are given twice: as measured, and corrected for those that a steady caller would have begun
// meanwhile.
//
// What a caller does besides costs every store alike, and in the process of ours counts as its own: so a caller reuses
// its keys and values, and what it measures takes the same memory however long it runs.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace flotilla::bench {

enum class Kind : std::uint8_t {
  put,
  cas,        ///< by the only caller that has this key, so that it succeeds
  put_ten,    ///< ten keys in one operation, atomic; more of them to fill a store
  get,        ///< linearizable
  get_local,  ///< of what this member, or server, has at the moment
  scan,       ///< 100 pairs in order, as get_local
};

constexpr std::size_t keys_at_once = 10;
constexpr std::size_t scan_length = 100;

/// 16 bytes.
void set_key(std::string& key, std::uint64_t number);
std::uint64_t number_of(const std::string& key);
/// How many keys at once fill a store: 100, fewer of large values.
std::size_t keys_to_fill(std::size_t value_bytes);

struct Operation {
  Operation() = default;
  Operation(const Operation&) = delete;
  Operation& operator=(const Operation&) = delete;

  /// Called once by whoever was asked: on any thread, also before start() returns. What follows is then something else.
  virtual void end(bool ok) = 0;

  Kind kind = Kind::put;
  unsigned caller = 0;
  std::vector<std::string> keys;  ///< of put_ten several
  std::string_view value;
  std::string_view expected;  ///< of cas

 protected:
  ~Operation() = default;
};

/// A store as one client process sees it.
class Target {
 public:
  Target() = default;
  Target(const Target&) = delete;
  Target& operator=(const Target&) = delete;
  virtual ~Target() = default;

  /// Before each run: so many callers, numbered from 0.
  virtual void callers(unsigned count) { static_cast<void>(count); }
  /// False: it cannot be asked for this.
  virtual bool offers(Kind kind) const = 0;
  /// Puts keys below `keys`, if it has a way of its own for that.
  virtual bool fill(std::uint64_t keys, std::string_view value) {
    static_cast<void>(keys), static_cast<void>(value);
    return false;
  }
  /// Ends before start() returns: each caller gets a thread of its own.
  virtual bool blocking(Kind kind) const = 0;
  /// `operation` stays as it is until it ends.
  virtual void start(Operation& operation) = 0;
  /// Of a member: whether it is the leader.
  virtual bool leads() const { return true; }
  /// What it says of itself, as a JSON value.
  virtual std::string report() const { return "null"; }
};

struct Workload {
  std::string name;
  /// Parts of 100. What is left are puts.
  unsigned gets = 0;
  unsigned modifications = 0;  ///< a get and then a put
  Kind reads = Kind::get;
  Kind writes = Kind::put;
  bool skewed = false;  ///< Zipf, 0.99: as YCSB
};

/// put, cas, put_ten, get, get_local, scan, ycsb_a, ycsb_b, ycsb_c, ycsb_f.
const Workload* find_workload(std::string_view name);

struct Load {
  const Workload* workload = nullptr;
  unsigned callers = 1;
  std::chrono::milliseconds time{3000};
  std::chrono::milliseconds warm_up{300};
  std::size_t value_bytes = 100;
  std::uint64_t keys = 100'000;
  std::uint64_t seed = 1;
};

struct Figures {
  std::uint64_t operations = 0;
  std::uint64_t all_operations = 0;  ///< also before and after the time that is measured
  std::uint64_t failures = 0;
  double seconds = 0;
  /// Microseconds.
  double p50 = 0, p99 = 0, p999 = 0, longest = 0;
  double p99_corrected = 0, p999_corrected = 0;
};

Figures run(Target& target, const Load& load);
/// Puts each key once, many at a time.
Figures fill(Target& target, const Load& load);
/// Puts each record of a file once (`records` writes such files), and ends with the last.
Figures load_records(Target& target, const std::string& path, unsigned callers);

/// One process of a benchmark: reads lines from standard input, and answers each with one line.
///   fill KEYS VALUE_BYTES CALLERS                               a JSON object, as run
///   load FILE CALLERS                                           likewise
///   run WORKLOAD CALLERS MILLISECONDS VALUE_BYTES KEYS SEED     a JSON object; {"unsupported": true}
///   leads                                                       true or false
///   report                                                      a JSON value
///   quit
int serve(Target& target);

}  // namespace flotilla::bench
