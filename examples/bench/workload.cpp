#include "workload.hpp"

#include <algorithm>
#include <array>
#include <condition_variable>
#include <iostream>
#include <mutex>
#include <optional>
#include <sstream>
#include <thread>

#include <fmt/format.h>

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

/// What the callers of one run share.
struct Shared {
  Target& target;
  const Load& load;
  std::optional<Zipf> zipf;
  bool filling = false;  ///< each key once, until there is none left
  std::atomic<std::uint64_t> next_key = 0;
  std::atomic<bool> counting = false;
  std::atomic<bool> stopping = false;
  std::mutex mutex;
  std::condition_variable ended;
  unsigned running = 0;

  void end() {
    const std::lock_guard lock(mutex);
    if (--running == 0) ended.notify_all();
  }
};

/// One closed loop. Used by one thread at a time: whichever ends its operation.
class Caller {
 public:
  Caller(Shared& shared, unsigned number)
      : shared_(shared), random_(shared.load.seed * 1'000'003 + number), number_(number) {
    operation_.caller = number;
    value_ = first_value(shared.load.value_bytes);
  }

  /// Goes on by itself until the run ends. As a loop where an operation ends inside start().
  void run() {
    while (true) {
      if (!modifying_) {
        if (shared_.stopping.load(std::memory_order_relaxed) || !choose()) return shared_.end();
        begin_ = Clock::now();
      }
      state_.store(State::asking, std::memory_order_relaxed);
      shared_.target.start(operation_, [this](bool ok) {
        finish(ok);
        if (state_.exchange(State::ended, std::memory_order_acq_rel) == State::waiting) run();
      });
      if (state_.exchange(State::waiting, std::memory_order_acq_rel) == State::asking) return;
    }
  }

  const Latencies& latencies() const { return latencies_; }
  std::uint64_t all_operations() const { return all_operations_; }
  std::uint64_t failures() const { return failures_; }

 private:
  enum class State : std::uint8_t { asking, waiting, ended };

  std::uint64_t any_key() { return shared_.zipf ? shared_.zipf->next(random_) : random_.below(shared_.load.keys); }

  void new_value() {
    const std::uint64_t bits = random_.next();
    std::copy_n(reinterpret_cast<const char*>(&bits), std::min<std::size_t>(value_.size(), 8), value_.begin());
  }

  /// False: everything is done.
  bool choose() {
    if (shared_.filling) return choose_next();
    const Workload& workload = *shared_.load.workload;
    const std::uint64_t draw = random_.below(100);
    modify_ = draw < workload.modifications;
    const bool reads = draw < workload.modifications + workload.gets;
    operation_.kind = reads ? workload.reads : workload.writes;
    operation_.keys.clear();
    if (operation_.kind == Kind::cas) {
      choose_cas();
      return true;
    }
    const std::size_t count = operation_.kind == Kind::put_ten ? keys_at_once : 1;
    for (std::size_t i = 0; i < count; ++i) operation_.keys.push_back(key_of(any_key()));
    if (!reads) write();
    return true;
  }

  bool choose_next() {
    const std::uint64_t key = shared_.next_key++;
    if (key >= shared_.load.keys) return false;
    operation_.keys.assign(1, key_of(key));
    operation_.value = value_;
    return true;
  }

  void write() {
    new_value();
    operation_.value = value_;
  }

  /// Its keys are its own, above all that others use.
  void choose_cas() {
    constexpr std::uint64_t own_keys = 10;
    const std::uint64_t which = random_.below(own_keys);
    operation_.keys.push_back(key_of(shared_.load.keys + number_ * own_keys + which));
    own_.resize(own_keys);
    std::string& before = own_[which];
    if (before.empty()) operation_.kind = Kind::put;  // so that its value is known
    operation_.expected = before;
    write();
    before = value_;
  }

  void finish(bool ok) {
    if (modify_ && ok && !modifying_) {
      modifying_ = true;
      operation_.kind = Kind::put;
      return write();
    }
    modifying_ = false;
    ++all_operations_;
    if (!shared_.counting.load(std::memory_order_relaxed)) return;
    if (!ok) {
      ++failures_;
      return;
    }
    latencies_.push_back(Clock::now() - begin_);
  }

  Shared& shared_;
  Random random_;
  unsigned number_;
  Operation operation_;
  std::string value_;
  std::vector<std::string> own_;
  Clock::time_point begin_;
  bool modify_ = false;     ///< this operation is of two parts
  bool modifying_ = false;  ///< and is at the second
  std::atomic<State> state_ = State::asking;
  Latencies latencies_;
  std::uint64_t all_operations_ = 0;
  std::uint64_t failures_ = 0;
};

/// A steady caller would have begun another operation each `interval`.
Latencies corrected(const Latencies& latencies, std::chrono::nanoseconds interval) {
  Latencies all = latencies;
  if (interval == std::chrono::nanoseconds(0)) return all;
  for (const std::chrono::nanoseconds latency : latencies) {
    for (std::chrono::nanoseconds missed = latency; missed > 2 * interval;) {
      missed -= interval;
      all.push_back(missed);
    }
  }
  std::sort(all.begin(), all.end());
  return all;
}

using Callers = std::vector<std::unique_ptr<Caller>>;

/// Runs them all; `control` returns when they are to stop, or at once where they stop by themselves.
template <class Control>
Callers run_callers(Shared& shared, bool threads, Control control) {
  shared.target.callers(shared.load.callers);
  shared.running = shared.load.callers;
  Callers callers;
  for (unsigned i = 0; i < shared.load.callers; ++i) callers.push_back(std::make_unique<Caller>(shared, i));
  std::vector<std::thread> own;
  for (auto& caller : callers) {
    if (threads) {
      own.emplace_back([&caller] { caller->run(); });
    } else {
      caller->run();
    }
  }
  control();
  shared.stopping = !shared.filling;
  {
    std::unique_lock lock(shared.mutex);
    shared.ended.wait(lock, [&] { return shared.running == 0; });
  }
  for (std::thread& thread : own) thread.join();
  return callers;
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

std::string key_of(std::uint64_t number) {
  return fmt::format("user{:012}", number);
}

std::string first_value(std::size_t bytes) {
  std::string value(bytes, 'v');
  for (std::size_t i = 0; i < bytes; ++i) value[i] = static_cast<char>('a' + (i * 7) % 26);
  return value;
}

const Workload* find_workload(std::string_view name) {
  const auto at =
      std::find_if(workloads.begin(), workloads.end(), [&](auto& workload) { return workload.name == name; });
  return at == workloads.end() ? nullptr : &*at;
}

Figures run(Target& target, const Load& load) {
  Shared shared{.target = target, .load = load, .zipf = {}, .mutex = {}, .ended = {}};
  if (load.workload->skewed) shared.zipf.emplace(load.keys);
  Figures figures;
  const Callers callers = run_callers(shared, blocking(target, *load.workload), [&] {
    std::this_thread::sleep_for(load.warm_up);
    shared.counting = true;
    const Clock::time_point begin = Clock::now();
    std::this_thread::sleep_for(load.time);
    shared.counting = false;
    figures.seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  });
  Latencies all;
  for (const auto& caller : callers) {
    all.insert(all.end(), caller->latencies().begin(), caller->latencies().end());
    figures.all_operations += caller->all_operations();
    figures.failures += caller->failures();
  }
  std::sort(all.begin(), all.end());
  figures.operations = all.size();
  const auto us = [](const Latencies& sorted, double part) { return microseconds(percentile(sorted, part)); };
  figures.p50 = us(all, 0.5);
  figures.p99 = us(all, 0.99);
  figures.p999 = us(all, 0.999);
  figures.longest = us(all, 1);
  const Latencies steady = corrected(all, percentile(all, 0.5));
  figures.p99_corrected = us(steady, 0.99);
  figures.p999_corrected = us(steady, 0.999);
  return figures;
}

Figures fill(Target& target, const Load& load) {
  if (target.fill(load.keys, first_value(load.value_bytes))) return {.operations = load.keys};
  Shared shared{
      .target = target, .load = load, .zipf = {}, .filling = true, .counting = true, .mutex = {}, .ended = {}};
  Figures figures;
  const Clock::time_point begin = Clock::now();
  for (const auto& caller : run_callers(shared, target.blocking(Kind::put), [] {})) {
    figures.operations += caller->latencies().size();
    figures.failures += caller->failures();
  }
  figures.seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  return figures;
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
