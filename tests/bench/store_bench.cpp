// What the state machine costs beside raw LMDB with the same flags: puts in batches of 1, 16 and 256 over 100,000 keys.
// Times are processor time of the one thread, without the making of the batch: nothing is synced, and a busy machine
// does not count. Checkpoints are taken as in a member, outside the times; that LMDB cannot use their pages again is
// part of what is measured.
#include <ctime>
#include <stdexcept>
#include <vector>

#include <benchmark/benchmark.h>

#include "bench/lmdb_table.hpp"
#include "flotilla/options.hpp"
#include "state/payload.hpp"
#include "state/store.hpp"
#include "support/temp_dir.hpp"

namespace {

using namespace flotilla;
using namespace flotilla::bench;

constexpr std::uint64_t session = 1;
constexpr std::uint64_t unacknowledged = 64;
constexpr std::size_t fill_batch = 256;
constexpr std::uint64_t fill_puts = 3 * keys;  ///< so that free pages are used again

double processor_seconds() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

template <class F>
double timed(F&& function) {
  const double begin = processor_seconds();
  function();
  return processor_seconds() - begin;
}

void must(const Result<void>& result) {
  if (!result) throw std::runtime_error(result.error().message());
}

class RawSide {
 public:
  RawSide() {
    for (std::uint64_t done = 0; done < fill_puts; done += fill_batch) apply(fill_batch);
  }
  /// Seconds.
  double apply(std::size_t count) {
    std::vector<Put> batch(count);
    for (Put& put : batch) put = puts_.next();
    return timed([&] { table_.put(batch); });
  }

 private:
  const test::TempDir dir_;
  LmdbTable table_{dir_.path()};
  Puts puts_;
};

template <bool with_session>
class StoreSide {
 public:
  StoreSide() {
    if (with_session) {
      raft::Entry open = entry(raft::EntryType::session, 1);
      open.payload = SharedBytes(state::encode_session({.node_id = NodeId{1}, .incarnation = 1, .session = session}));
      static_cast<void>(store_->apply({&open, 1}).value());
    }
    for (std::uint64_t done = 0; done < fill_puts; done += fill_batch) apply(fill_batch);
  }
  double apply(std::size_t count) {
    std::vector<raft::Entry> entries;
    for (std::size_t i = 0; i < count; ++i) {
      ++sequence_;
      const Put put = puts_.next();
      const std::string_view args[] = {"t", put.key, put.value};
      const std::uint64_t acknowledged = sequence_ > unacknowledged ? sequence_ - unacknowledged : 0;
      entries.push_back(entry(raft::EntryType::command, i + 1));
      entries.back().payload =
          state::encode_command({with_session ? session : 0, sequence_}, acknowledged, "put", args);
    }
    const double seconds = timed([&] {
      const auto outcomes = store_->apply(entries);
      if (!outcomes || outcomes->size() != count)
        throw std::runtime_error(outcomes ? "an entry was skipped" : outcomes.error().message());
    });
    // As in a member: what the checkpoint has is not used again until the next.
    if (store_->grown_bytes() > Options().checkpoint_growth_bytes) must(store_->checkpoint());
    return seconds;
  }

 private:
  static std::unique_ptr<state::Store> open(const std::filesystem::path& directory) {
    state::StoreOptions options;
    options.directory = directory;
    options.map_size = map_size;
    options.sync = false;
    Commands commands;
    commands.add("put", [](WriteTxn& txn, const Args& args) -> Result<Bytes> {
      if (auto put = txn.table(args[0]).put(args[1], args[2]); !put) return fail(put.error());
      return Bytes();
    });
    return state::Store::open(options, commands).value();
  }
  raft::Entry entry(raft::EntryType type, std::uint64_t after_applied) const {
    return {.term = Term{1}, .index = store_->applied().index + after_applied, .type = type};
  }

  const test::TempDir dir_;
  const std::unique_ptr<state::Store> store_ = open(dir_ / "state");
  Puts puts_;
  std::uint64_t sequence_ = 0;
};

/// One database for all batch sizes, filled once.
template <class Side>
void put_batches(benchmark::State& state) {
  static Side side;
  for (auto _ : state) state.SetIterationTime(side.apply(static_cast<std::size_t>(state.range(0))));
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(put_batches<RawSide>)->Name("lmdb_put")->Arg(1)->Arg(16)->Arg(256)->UseManualTime();
BENCHMARK(put_batches<StoreSide<false>>)->Name("store_apply")->Arg(1)->Arg(16)->Arg(256)->UseManualTime();
BENCHMARK(put_batches<StoreSide<true>>)->Name("store_apply_session")->Arg(1)->Arg(16)->Arg(256)->UseManualTime();

}  // namespace
