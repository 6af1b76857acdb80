// Callers in a closed loop, and percentiles, for benchmarks of one database.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <fmt/format.h>

#include <flotilla/flotilla.hpp>

namespace flotilla::bench {

using Clock = std::chrono::steady_clock;
using Latencies = std::vector<std::chrono::nanoseconds>;

inline std::chrono::nanoseconds percentile(const Latencies& sorted, double part) {
  if (sorted.empty()) return {};
  return sorted[static_cast<std::size_t>(static_cast<double>(sorted.size() - 1) * part)];
}

inline double microseconds(std::chrono::nanoseconds time) {
  return static_cast<double>(time.count()) / 1000;
}

/// One caller: one command after the other, each waited for. Returns the latencies of those that succeeded.
inline Latencies call_until(DB& db, unsigned caller, std::string_view value, const std::atomic<bool>& stop,
                            std::atomic<std::uint64_t>& failures) {
  Latencies latencies;
  std::uint64_t number = 0;
  while (!stop) {
    const std::string key = fmt::format("key-{:03}-{:08}", caller, number++ * 2'654'435'761u % 100'000'000);
    const Clock::time_point begin = Clock::now();
    if (db.command("put", {"bench", key, value}).get()) {
      latencies.push_back(Clock::now() - begin);
    } else {
      ++failures;
    }
  }
  return latencies;
}

/// Of so many callers in that time, sorted. command_failed if one failed.
inline Result<Latencies> call(DB& db, unsigned callers, std::string_view value, std::chrono::milliseconds time) {
  std::atomic<bool> stop = false;
  std::atomic<std::uint64_t> failures = 0;
  std::vector<Latencies> latencies(callers);
  std::vector<std::thread> threads;
  for (unsigned caller = 0; caller < callers; ++caller) {
    threads.emplace_back([&, caller] { latencies[caller] = call_until(db, caller, value, stop, failures); });
  }
  std::this_thread::sleep_for(time);
  stop = true;
  for (std::thread& thread : threads) thread.join();
  if (failures > 0) return fail(Errc::command_failed, fmt::format("{} commands failed", failures.load()));
  Latencies all;
  for (const Latencies& one : latencies) all.insert(all.end(), one.begin(), one.end());
  std::sort(all.begin(), all.end());
  return all;
}

}  // namespace flotilla::bench
