// What the library may allocate for each entry. The bounds are lowered as allocations go, never raised without a
// reason.
#include <algorithm>
#include <array>
#include <atomic>
#include <map>
#include <string>

#include <doctest/doctest.h>

#include <flotilla/flotilla.hpp>
#include <flotilla/standard.hpp>
#include "bench/allocation_counter.hpp"
#include "support/temp_dir.hpp"

namespace {

using namespace flotilla;

constexpr std::uint32_t batch = 64;

/// Outlives the calls' completions.
struct Pending {
  std::atomic<std::uint32_t> left = 0;
  std::atomic<bool> failed = false;
};

/// Calls that many puts, and waits for all. Called on the loop thread, where a barrier ends, so that it takes them in
/// one turn, and log and apply in one batch: the numbers of allocations are alike in each round.
void put_batch(DB& db, Pending& pending) {
  static constexpr std::array<char, 100> value{};
  pending.left = batch;
  db.barrier([&](const Result<Index>&) {
    const bench::CountAsCall counting;
    for (std::uint32_t i = 0; i < batch; ++i) {
      const char key[] = {'k', static_cast<char>(i)};
      db.command("put", {"t", {key, sizeof key}, {value.data(), value.size()}},
                 [&pending](const Result<Bytes>& result) {
                   if (!result) pending.failed = true;
                   if (--pending.left == 0) pending.left.notify_one();
                 });
    }
  });
  for (std::uint32_t now = pending.left; now != 0; now = pending.left) pending.left.wait(now);
}

std::map<std::string, std::uint64_t> counts_by_thread() {
  std::map<std::string, std::uint64_t> counts;
  for (const auto& thread : bench::allocations()) counts[thread.name] += thread.own.count;
  return counts;
}

}  // namespace

TEST_SUITE_BEGIN("bench.allocations");

TEST_CASE("no thread allocates more than it did, for each entry of one member") {
  const test::TempDir dir;
  Options options;
  options.data_dir = dir / "data";
  DB db = DB::open(options, standard_commands()).value();
  Pending pending;
  constexpr std::uint64_t rounds = 2000;
  for (std::uint64_t i = 0; i < rounds; ++i) put_batch(db, pending);
  const auto before = counts_by_thread();
  for (std::uint64_t i = 0; i < rounds; ++i) put_batch(db, pending);
  const auto after = counts_by_thread();
  REQUIRE_FALSE(pending.failed);
  for (const auto& [thread, bound] :
       {std::pair{"flotilla-loop", 0.17}, {"flotilla-apply", 0.19}, {"flotilla-log", 0.07}}) {
    const double per_entry = static_cast<double>(after.at(thread) - before.at(thread)) / (rounds * batch);
    MESSAGE(std::string(thread) << ": " << per_entry << " allocations for each entry, at most " << bound);
    CHECK(per_entry <= bound);
  }
}

TEST_CASE("a local read allocates nothing") {
  const test::TempDir dir;
  Options options;
  options.data_dir = dir / "data";
  DB db = DB::open(options, standard_commands()).value();
  REQUIRE(db.command("put", {"t", "k", "v"}).get());
  const auto reads = [&db] {
    bool found = true;
    for (int i = 0; i < 1000; ++i) {
      const ReadTxn snapshot = db.read().value();
      const ReadTxn another = db.read().value();
      found = snapshot.table("t").get("k") == "v" && another.index() >= snapshot.index() && found;
    }
    return found;
  };
  const auto allocated = [] {
    const bench::CountAsCall counting;
    std::uint64_t sum = 0;
    for (const auto& thread : bench::allocations()) sum += thread.in_calls.count;
    return sum;
  };
  REQUIRE(reads());
  const std::uint64_t before = allocated();
  const std::uint64_t own = allocated() - before;  // what asking costs
  {
    const bench::CountAsCall counting;
    CHECK(reads());
  }
  CHECK(allocated() - before - 2 * own == 0);
}

TEST_SUITE_END();
