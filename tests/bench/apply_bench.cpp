// What the state machine costs beside raw LMDB with the same flags: puts of a 16-byte key and a 100-byte value over
// 100,000 keys, in batches of 1, 16 and 256. Times are processor time of the one thread, so that a busy machine does
// not count; nothing is synced.
//
//   apply_bench [directory [puts]]
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <lmdb.h>

#include "state/payload.hpp"
#include "state/store.hpp"

namespace {

using flotilla::Args;
using flotilla::Bytes;
using flotilla::Index;
using flotilla::Result;
using flotilla::WriteTxn;
using flotilla::raft::Entry;
using flotilla::raft::EntryType;
using flotilla::state::Store;
using flotilla::state::StoreOptions;

constexpr std::uint64_t keys = 100'000;
constexpr std::size_t key_bytes = 16;
constexpr std::size_t value_bytes = 100;
constexpr std::size_t map_size = std::size_t{1} << 30;
constexpr std::uint64_t session = 1;
constexpr std::uint64_t unacknowledged = 64;

double processor_seconds() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

void check(int code) {
  if (code == 0) return;
  fmt::print(stderr, "{}\n", mdb_strerror(code));
  std::exit(1);
}

/// The same puts for all: key number `i`, and a value that changes.
struct Puts {
  std::mt19937_64 random{1};
  std::string key = std::string(key_bytes, 'k');
  std::string value = std::string(value_bytes, 'v');
  void next() {
    const std::uint64_t number = (random() % keys) * 0x9e3779b97f4a7c15ull;
    key.replace(0, sizeof number, reinterpret_cast<const char*>(&number), sizeof number);
    const std::uint64_t change = random();
    value.replace(0, sizeof change, reinterpret_cast<const char*>(&change), sizeof change);
  }
};

/// Seconds per put.
double raw(const std::filesystem::path& directory, std::uint64_t puts, std::uint64_t batch) {
  std::filesystem::create_directories(directory);
  MDB_env* env = nullptr;
  check(mdb_env_create(&env));
  check(mdb_env_set_mapsize(env, map_size));
  check(mdb_env_set_maxdbs(env, 1001));
  check(mdb_env_open(env, directory.c_str(), MDB_NOTLS | MDB_NORDAHEAD | MDB_NOSYNC, 0600));
  MDB_dbi dbi = 0;
  Puts source;
  std::vector<std::pair<std::string, std::string>> batch_puts;
  const auto run = [&](std::uint64_t count, std::uint64_t size) {
    double spent = 0;
    for (std::uint64_t done = 0; done < count; done += size) {
      batch_puts.clear();
      for (std::uint64_t i = 0; i < size; ++i) {
        source.next();
        batch_puts.emplace_back(source.key, source.value);
      }
      const double begin = processor_seconds();
      MDB_txn* txn = nullptr;
      check(mdb_txn_begin(env, nullptr, 0, &txn));
      if (dbi == 0) check(mdb_dbi_open(txn, "t", MDB_CREATE, &dbi));
      for (auto& [put_key, put_value] : batch_puts) {
        MDB_val key{put_key.size(), put_key.data()};
        MDB_val value{put_value.size(), put_value.data()};
        check(mdb_put(txn, dbi, &key, &value, 0));
      }
      check(mdb_txn_commit(txn));
      spent += processor_seconds() - begin;
    }
    return spent / static_cast<double>(count);
  };
  run(keys * 3, 256);
  const double out = run(puts, batch);
  mdb_env_close(env);
  return out;
}

double applied(const std::filesystem::path& directory, std::uint64_t puts, std::uint64_t batch, bool with_session) {
  StoreOptions options;
  options.directory = directory;
  options.map_size = map_size;
  options.sync = false;
  flotilla::Commands commands;
  commands.add("put", [](WriteTxn& txn, const Args& args) -> Result<Bytes> {
    if (auto put = txn.table(args[0]).put(args[1], args[2]); !put) return flotilla::fail(put.error());
    return Bytes();
  });
  auto store = Store::open(options, commands).value();
  if (with_session) {
    Entry open;
    open.term.value = 1;
    open.index = Index{1};
    open.type = EntryType::session;
    open.payload = flotilla::SharedBytes(flotilla::state::encode_session({flotilla::NodeId{1}, 1, session}));
    static_cast<void>(store->apply({&open, 1}).value());
  }
  Puts source;
  std::uint64_t sequence = 0;
  std::vector<Entry> entries;
  const auto run = [&](std::uint64_t count, std::uint64_t size) {
    double spent = 0;
    for (std::uint64_t done = 0; done < count; done += size) {
      entries.clear();
      for (std::uint64_t i = 0; i < size; ++i) {
        source.next();
        ++sequence;
        Entry& entry = entries.emplace_back();
        entry.term.value = 1;
        entry.index = store->applied().index + (i + 1);
        entry.type = EntryType::command;
        const std::string_view args[] = {"t", source.key, source.value};
        const std::uint64_t acknowledged = sequence > unacknowledged ? sequence - unacknowledged : 0;
        entry.payload = flotilla::SharedBytes(
            flotilla::state::encode_command({with_session ? session : 0, sequence}, acknowledged, "put", args));
      }
      const double begin = processor_seconds();
      auto outcomes = store->apply(entries);
      spent += processor_seconds() - begin;
      if (!outcomes || outcomes->size() != size) std::exit(1);
    }
    return spent / static_cast<double>(count);
  };
  run(keys * 3, 256);
  return run(puts, batch);
}

}  // namespace

int main(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  const std::filesystem::path directory = argc > 1 ? argv[1] : std::filesystem::temp_directory_path() / "apply_bench";
  const std::uint64_t puts = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 200'000;
  fmt::print("{:>6} {:>14} {:>14} {:>14} {:>9} {:>16} {:>16}\n", "batch", "raw puts/s", "applied/s", "with session/s",
             "ratio", "overhead ns", "with session ns");
  for (const std::uint64_t batch : {1, 16, 256}) {
    double best[3] = {1, 1, 1};
    for (int round = 0; round < 3; ++round) {
      std::filesystem::remove_all(directory);
      const std::uint64_t count = batch == 1 ? puts / 4 : puts;
      best[0] = std::min(best[0], raw(directory / "raw", count, batch));
      best[1] = std::min(best[1], applied(directory / "applied", count, batch, false));
      best[2] = std::min(best[2], applied(directory / "session", count, batch, true));
    }
    fmt::print("{:>6} {:>14.0f} {:>14.0f} {:>14.0f} {:>9.2f} {:>16.0f} {:>16.0f}\n", batch, 1 / best[0], 1 / best[1],
               1 / best[2], best[0] / best[2], (best[1] - best[0]) * 1e9, (best[2] - best[0]) * 1e9);
  }
  std::filesystem::remove_all(directory);
}
