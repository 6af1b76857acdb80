#include "workload.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <memory>
#include <mutex>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <thread>
#include <utility>

#include <fmt/format.h>

#include "histogram.hpp"
#include "random.hpp"

namespace flotilla::bench {
namespace {

const std::array workloads{
    Workload{.name = "put"},
    Workload{.name = "cas", .writes = Kind::cas},
    Workload{.name = "put_ten", .writes = Kind::put_ten},
    Workload{.name = "get", .gets = 100},
    Workload{.name = "get_local", .gets = 100, .reads = Kind::get_local},
    Workload{.name = "scan", .gets = 100, .reads = Kind::scan},
    Workload{.name = "ycsb_a", .gets = 50, .skewed = true},
    Workload{.name = "ycsb_b", .gets = 95, .skewed = true},
    Workload{.name = "ycsb_c", .gets = 100, .skewed = true},
    Workload{.name = "ycsb_f", .gets = 50, .modifications = 50, .skewed = true},
};

using Clock = std::chrono::steady_clock;

struct Record {
  std::string_view key;
  std::string_view value;
};

/// A file of records, mapped: its pages are nobody's own memory.
class Records {
 public:
  explicit Records(const std::string& path) {
    const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    struct stat info {};
    if (descriptor >= 0 && ::fstat(descriptor, &info) == 0) {
      size_ = static_cast<std::size_t>(info.st_size);
      data_ = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED | MAP_POPULATE, descriptor, 0);
    }
    ::close(descriptor);
    if (data_ == MAP_FAILED) throw std::runtime_error(path + " cannot be read");
    std::string_view rest(static_cast<const char*>(data_), size_);
    while (!rest.empty()) {
      const std::string_view key = take(rest);
      all_.push_back({key, take(rest)});
    }
  }
  ~Records() { ::munmap(data_, size_); }
  Records(const Records&) = delete;
  Records& operator=(const Records&) = delete;

  const std::vector<Record>& all() const { return all_; }

 private:
  /// Its length before it: four bytes, little-endian.
  static std::string_view take(std::string_view& rest) {
    std::uint32_t size = 0;
    if (rest.size() < sizeof size) throw std::runtime_error("a record is cut off");
    std::memcpy(&size, rest.data(), sizeof size);
    rest.remove_prefix(sizeof size);
    if (rest.size() < size) throw std::runtime_error("a record is cut off");
    const std::string_view word = rest.substr(0, size);
    rest.remove_prefix(size);
    return word;
  }

  void* data_ = MAP_FAILED;
  std::size_t size_ = 0;
  std::vector<Record> all_;
};

/// What every key has at first.
std::string first_value(std::size_t bytes) {
  std::string value(bytes, 'v');
  for (std::size_t i = 0; i < bytes; ++i) value[i] = static_cast<char>('a' + (i * 7) % 26);
  return value;
}

/// What the callers of one run share.
struct Shared {
  Shared(Target& of, const Load& with) : target(of), load(with) {}

  Histogram& latencies(unsigned caller) { return (*stripes)[caller % stripes->size()]; }
  void end() {
    const std::lock_guard lock(mutex);
    if (--running == 0) ended.notify_all();
  }

  Target& target;
  const Load& load;
  std::optional<Zipf> zipf;
  /// Each key once, so many at a time, or each record, until there is none left; 0: until it is stopped.
  std::size_t at_once = 0;
  const std::vector<Record>* records = nullptr;
  std::atomic<std::uint64_t> next = 0;
  std::atomic<bool> counting = false;
  std::atomic<bool> stopping = false;
  /// Callers that are threads should not meet in one.
  const std::unique_ptr<std::array<Histogram, 16>> stripes = std::make_unique<std::array<Histogram, 16>>();
  std::mutex mutex;
  std::condition_variable ended;
  unsigned running = 0;
};

/// One closed loop. Used by one thread at a time: whichever ends its operation.
class Caller final : public Operation {
 public:
  Caller(Shared& shared, unsigned number)
      : shared_(shared),
        latencies_(shared.latencies(number)),
        random_(shared.load.seed * 1'000'003 + number),
        value_(first_value(shared.load.value_bytes)) {
    caller = number;
  }

  /// Goes on by itself until the run ends. As a loop where an operation ends inside start().
  void run() {
    while (true) {
      if (!modifying_) {
        if (shared_.stopping.load(std::memory_order_relaxed) || !choose()) return shared_.end();
        begin_ = Clock::now();
      }
      state_.store(State::asking, std::memory_order_relaxed);
      shared_.target.start(*this);
      if (state_.exchange(State::waiting, std::memory_order_acq_rel) == State::asking) return;
    }
  }

  void end(bool ok) override {
    finish(ok);
    if (state_.exchange(State::ended, std::memory_order_acq_rel) == State::waiting) run();
  }

  std::uint64_t all_operations() const { return all_operations_; }
  std::uint64_t failures() const { return failures_; }

 private:
  enum class State : std::uint8_t { asking, waiting, ended };

  std::uint64_t any_key() { return shared_.zipf ? shared_.zipf->next(random_) : random_.below(shared_.load.keys); }

  /// False: everything is done.
  bool choose() {
    if (shared_.records != nullptr) return choose_record();
    if (shared_.at_once > 0) return choose_next();
    const Workload& workload = *shared_.load.workload;
    const std::uint64_t draw = random_.below(100);
    modify_ = draw < workload.modifications;
    const bool reads = draw < workload.modifications + workload.gets;
    kind = reads ? workload.reads : workload.writes;
    keys.resize(kind == Kind::put_ten ? keys_at_once : 1);
    if (kind == Kind::cas) {
      choose_cas();
      return true;
    }
    for (std::string& key : keys) set_key(key, any_key());
    if (!reads) new_value();
    return true;
  }

  bool choose_record() {
    const std::uint64_t number = shared_.next++;
    if (number >= shared_.records->size()) return false;
    const Record& record = (*shared_.records)[number];
    keys.resize(1);
    keys[0] = record.key;
    value = record.value;
    return true;
  }

  bool choose_next() {
    const std::uint64_t first = shared_.next.fetch_add(shared_.at_once);
    if (first >= shared_.load.keys) return false;
    kind = Kind::put_ten;
    keys.resize(std::min<std::uint64_t>(shared_.at_once, shared_.load.keys - first));
    for (std::size_t i = 0; i < keys.size(); ++i) set_key(keys[i], first + i);
    value = value_;
    return true;
  }

  void new_value() {
    const std::uint64_t bits = random_.next();
    std::memcpy(value_.data(), &bits, std::min(value_.size(), sizeof bits));
    value = value_;
  }

  /// Its keys are its own, above all that others use.
  void choose_cas() {
    constexpr std::uint64_t own_keys = 10;
    const std::uint64_t which = random_.below(own_keys);
    set_key(keys[0], shared_.load.keys + caller * own_keys + which);
    own_.resize(own_keys);
    std::string& before = own_[which];
    if (before.empty()) kind = Kind::put;  // so that its value is known
    expected_.swap(before);
    expected = expected_;
    new_value();
    before = value_;
  }

  void finish(bool ok) {
    if (modify_ && ok && !modifying_) {
      modifying_ = true;
      kind = Kind::put;
      return new_value();
    }
    modifying_ = false;
    ++all_operations_;
    if (!shared_.counting.load(std::memory_order_relaxed)) return;
    if (!ok) {
      ++failures_;
      return;
    }
    latencies_.add(Clock::now() - begin_);
  }

  Shared& shared_;
  Histogram& latencies_;
  Random random_;
  std::string value_;
  std::string expected_;
  std::vector<std::string> own_;
  Clock::time_point begin_;
  bool modify_ = false;     ///< this operation is of two parts
  bool modifying_ = false;  ///< and is at the second
  std::atomic<State> state_ = State::asking;
  std::uint64_t all_operations_ = 0;
  std::uint64_t failures_ = 0;
};

using Callers = std::vector<std::unique_ptr<Caller>>;

/// Runs them all; `control` returns when they are to stop, or at once where they stop by themselves.
template <class Control>
Figures run_callers(Shared& shared, bool threads, Control control) {
  shared.target.callers(shared.load.callers);
  shared.running = shared.load.callers;
  Callers callers;
  for (unsigned i = 0; i < shared.load.callers; ++i) callers.push_back(std::make_unique<Caller>(shared, i));
  std::vector<std::thread> own;
  const Clock::time_point begin = Clock::now();
  for (auto& caller : callers) {
    if (threads) {
      own.emplace_back([&caller] { caller->run(); });
    } else {
      caller->run();
    }
  }
  control();
  shared.stopping = shared.at_once == 0;
  {
    std::unique_lock lock(shared.mutex);
    shared.ended.wait(lock, [&] { return shared.running == 0; });
  }
  Figures figures;
  figures.seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  for (std::thread& thread : own) thread.join();
  for (const auto& caller : callers) {
    figures.all_operations += caller->all_operations();
    figures.failures += caller->failures();
  }
  Histogram& all = shared.latencies(0);
  for (unsigned i = 1; i < shared.stripes->size(); ++i) all.add(shared.latencies(i));
  const auto us = [&all](double part) {
    return std::chrono::duration<double, std::micro>(all.percentile(part)).count();
  };
  figures.operations = all.count();
  figures.p50 = us(0.5);
  figures.p99 = us(0.99);
  figures.p999 = us(0.999);
  figures.longest = us(1);
  all.correct(all.percentile(0.5));
  figures.p99_corrected = us(0.99);
  figures.p999_corrected = us(0.999);
  return figures;
}

/// Until everything is done.
Figures run_out(Shared& shared) {
  shared.counting = true;
  return run_callers(shared, shared.target.blocking(Kind::put), [] {});
}

bool blocking(const Target& target, const Workload& workload) {
  return target.blocking(workload.gets + workload.modifications > 0 ? workload.reads : workload.writes);
}

bool offers(const Target& target, const Workload& workload) {
  if (workload.gets + workload.modifications > 0 && !target.offers(workload.reads)) return false;
  return workload.gets == 100 || target.offers(workload.writes);
}

void print(const Figures& f) {
  fmt::print(
      "{{\"operations\": {}, \"all_operations\": {}, \"failures\": {}, \"seconds\": {:.4f}, \"p50\": {:.1f}, \"p99\": "
      "{:.1f}, \"p999\": "
      "{:.1f}, "
      "\"longest\": {:.1f}, \"p99_corrected\": {:.1f}, \"p999_corrected\": {:.1f}}}\n",
      f.operations, f.all_operations, f.failures, f.seconds, f.p50, f.p99, f.p999, f.longest, f.p99_corrected,
      f.p999_corrected);
}

}  // namespace

void set_key(std::string& key, std::uint64_t number) {
  key.assign("user000000000000");
  for (std::size_t at = key.size() - 1; number > 0; --at, number /= 10) key[at] = static_cast<char>('0' + number % 10);
}

std::uint64_t number_of(const std::string& key) {
  return std::strtoull(key.c_str() + 4, nullptr, 10);
}

std::size_t keys_to_fill(std::size_t value_bytes) {
  constexpr std::size_t bytes = 64 << 10;
  return std::clamp<std::size_t>(bytes / (value_bytes + 32), 1, 100);
}

const Workload* find_workload(std::string_view name) {
  const auto at =
      std::find_if(workloads.begin(), workloads.end(), [&](auto& workload) { return workload.name == name; });
  return at == workloads.end() ? nullptr : &*at;
}

Figures run(Target& target, const Load& load) {
  Shared shared(target, load);
  if (load.workload->skewed) shared.zipf.emplace(load.keys);
  double seconds = 0;
  Figures figures = run_callers(shared, blocking(target, *load.workload), [&] {
    std::this_thread::sleep_for(load.warm_up);
    shared.counting = true;
    const Clock::time_point begin = Clock::now();
    std::this_thread::sleep_for(load.time);
    shared.counting = false;
    seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  });
  figures.seconds = seconds;
  return figures;
}

Figures fill(Target& target, const Load& load) {
  if (target.fill(load.keys, first_value(load.value_bytes))) return {.operations = load.keys};
  Shared shared(target, load);
  shared.at_once = keys_to_fill(load.value_bytes);
  return run_out(shared);
}

Figures load_records(Target& target, const std::string& path, unsigned callers) {
  const Records records(path);
  const Load load{.callers = callers};
  Shared shared(target, load);
  shared.at_once = 1;
  shared.records = &records.all();
  return run_out(shared);
}

int serve(Target& target) {
  fmt::print("ready\n");
  std::fflush(stdout);
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream words(line);
    std::string command;
    words >> command;
    if (command == "quit") return 0;
    Load load;
    std::uint64_t milliseconds = 0;
    if (command == "leads") {
      fmt::print("{}\n", target.leads());
    } else if (command == "report") {
      fmt::print("{}\n", target.report());
    } else if (command == "fill" && words >> load.keys >> load.value_bytes >> load.callers && load.callers > 0) {
      print(fill(target, load));
    } else if (std::string path; command == "load" && words >> path >> load.callers && load.callers > 0) {
      print(load_records(target, path, load.callers));
    } else if (std::string workload;
               command == "run" &&
               words >> workload >> load.callers >> milliseconds >> load.value_bytes >> load.keys >> load.seed &&
               load.callers > 0 && (load.workload = find_workload(workload)) != nullptr) {
      load.time = std::chrono::milliseconds(milliseconds);
      if (offers(target, *load.workload)) {
        print(run(target, load));
      } else {
        fmt::print("{{\"unsupported\": true}}\n");
      }
    } else {
      fmt::print("{{\"error\": \"cannot read the line\"}}\n");
    }
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace flotilla::bench
