// What a read costs beside raw LMDB: gets over 100,000 keys, in one snapshot and each in a snapshot of its own.
#include <optional>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>

#include <flotilla/flotilla.hpp>
#include <flotilla/standard.hpp>
#include "bench/lmdb_table.hpp"
#include "support/temp_dir.hpp"

namespace {

using namespace flotilla;
using namespace flotilla::bench;

/// Both sides with the same contents.
class Tables {
 public:
  Tables() {
    Puts puts;
    for (std::uint64_t i = 0; i < keys; ++i) puts_.push_back(puts.next());
    raw.put(puts_);
    std::vector<std::future<Result<Bytes>>> calls;
    for (std::size_t i = 0; i < puts_.size(); ++i) {
      calls.push_back(db.command("put", {"t", puts_[i].key, puts_[i].value}));
      if (i % 1000 == 999) wait(calls);
    }
    wait(calls);
  }
  std::string_view any_key() { return puts_[random_() % puts_.size()].key; }

 private:
  static DB open(const std::filesystem::path& directory) {
    Options options;
    options.data_dir = directory;
    return DB::open(options, standard_commands()).value();
  }
  static void wait(std::vector<std::future<Result<Bytes>>>& calls) {
    for (auto& call : calls) call.get().value();
    calls.clear();
  }

  const test::TempDir dir_;
  std::vector<Put> puts_;
  std::mt19937_64 random_{2};

 public:
  LmdbTable raw{dir_ / "raw"};
  DB db = open(dir_ / "data");
};

Tables& tables() {
  static Tables both;
  return both;
}

void lmdb_get(benchmark::State& state) {
  Tables& both = tables();
  both.raw.begin_read();
  for (auto _ : state) benchmark::DoNotOptimize(both.raw.get(both.any_key()));
  both.raw.end_read();
}
BENCHMARK(lmdb_get);

void db_get(benchmark::State& state) {
  Tables& both = tables();
  const ReadTxn snapshot = both.db.read().value();
  const auto table = snapshot.table("t");
  for (auto _ : state) benchmark::DoNotOptimize(table.get(both.any_key()).value());
}
BENCHMARK(db_get);

void lmdb_read_and_get(benchmark::State& state) {
  Tables& both = tables();
  for (auto _ : state) {
    both.raw.begin_read();
    benchmark::DoNotOptimize(both.raw.get(both.any_key()));
    both.raw.end_read();
  }
}
BENCHMARK(lmdb_read_and_get);

void db_read_and_get(benchmark::State& state) {
  Tables& both = tables();
  for (auto _ : state) {
    const ReadTxn snapshot = both.db.read().value();
    benchmark::DoNotOptimize(snapshot.table("t").get(both.any_key()).value());
  }
}
BENCHMARK(db_read_and_get);

}  // namespace
