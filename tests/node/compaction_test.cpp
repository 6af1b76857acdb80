// A database that gives its unused space back while it goes on.
#include <atomic>

#include <doctest/doctest.h>

#include "db_fixture.hpp"
#include "state/store.hpp"

using namespace flotilla;
using namespace flotilla::test;

namespace {

using namespace std::chrono_literals;

Commands commands_with_clear() {
  Commands commands = test_commands();
  commands.add("clear", [](WriteTxn& txn, const Args&) -> Result<Bytes> {
    if (auto cleared = txn.table("bulk").clear(); !cleared) return fail(cleared.error());
    return Bytes();
  });
  commands.add("fill", [](WriteTxn& txn, const Args& args) -> Result<Bytes> {
    if (auto put = txn.table("bulk").put(args[0], std::string(4000, 'x')); !put) return fail(put.error());
    return Bytes();
  });
  return commands;
}

Options small_checkpoints(const std::filesystem::path& path) {
  Options options = test_options(path);
  options.segment_bytes = 64u << 10;
  options.checkpoint_log_bytes = 256u << 10;
  options.checkpoint_growth_bytes = 1u << 20;
  options.trailing_entries = 0;
  return options;
}

DB open(const Options& options) {
  auto db = DB::open(options, commands_with_clear());
  if (!db) FAIL(db.error().message());
  return std::move(*db);
}

/// Some megabytes of pages that nothing is in any more.
void fill_and_clear(DB& db) {
  std::vector<std::future<Result<Bytes>>> puts;
  for (int i = 0; i < 2000; ++i) puts.push_back(db.command("fill", {std::to_string(i)}));
  for (auto& put : puts) REQUIRE(put.get());
  REQUIRE(db.command("clear", {}).get());
}

std::uint64_t hash_of(DB& db) {
  return state::Store::content_hash(db.read().value()).value();
}

/// Appends to its key until it is told to stop; counts.
class Writer {
 public:
  Writer(DB& db, std::string key)
      : key_(std::move(key)), thread_([this, &db] {
          while (!stop_) {
            if (db.command("append", {key_, "x"}).get()) ++written_;
          }
        }) {}
  ~Writer() { stop(); }
  void stop() {
    stop_ = true;
    if (thread_.joinable()) thread_.join();
  }
  std::size_t written() const { return written_; }
  const std::string& key() const { return key_; }

 private:
  std::string key_;
  std::atomic<bool> stop_ = false;
  std::atomic<std::size_t> written_ = 0;
  std::thread thread_;
};

}  // namespace

TEST_SUITE_BEGIN("node.compaction");

TEST_CASE("a compaction gives space back while commands go on, loses and repeats none, and a restart finds it") {
  const TempDir dir;
  const Options options = small_checkpoints(dir / "data");
  std::size_t counts[4] = {};
  {
    DB db = open(options);
    fill_and_clear(db);
    const std::uint64_t before = db.status().state_bytes;
    REQUIRE(before > 8'000'000);
    {
      Writer first(db, "0");
      Writer second(db, "1");
      const ReadTxn old = db.read().value();
      const std::string seen(old.table("t").get("0").value_or(""));
      for (int round = 0; round < 3; ++round) {
        const auto compacted = db.compact().get();
        if (!compacted) FAIL(compacted.error().message());
        // What was read stays as it was.
        CHECK(old.table("t").get("0").value_or("") == seen);
      }
      eventually([&, from = first.written()] { return first.written() > from + 100; });
      first.stop();
      second.stop();
      counts[0] = first.written();
      counts[1] = second.written();
    }
    REQUIRE(db.compact().get());
    CHECK(db.status().state_bytes < before / 4);
    CHECK(get(db, "0").size() == counts[0]);
    CHECK(get(db, "1").size() == counts[1]);
    eventually([&] { return !db.status().compacting; });
  }
  CHECK(std::filesystem::read_symlink(dir / "data" / "state") == "state.5");
  CHECK_FALSE(std::filesystem::exists(dir / "data" / "state.1"));
  DB db = open(options);
  CHECK(get(db, "0").size() == counts[0]);
  CHECK(get(db, "1").size() == counts[1]);
  REQUIRE(db.command("append", {"0", "x"}).get());
}

TEST_CASE("the log keeps what a compaction needs, however many checkpoints come meanwhile") {
  const TempDir dir;
  Options options = small_checkpoints(dir / "data");
  options.checkpoint_log_bytes = 4u << 10;
  DB db = open(options);
  fill_and_clear(db);
  for (int round = 0; round < 5; ++round) {
    auto compacting = db.compact();
    std::vector<std::future<Result<Bytes>>> puts;
    for (int i = 0; i < 300; ++i) puts.push_back(db.command("fill", {std::to_string(i % 50)}));
    for (auto& put : puts) REQUIRE(put.get());
    const auto compacted = compacting.get();
    if (!compacted) FAIL(compacted.error().message());
  }
  const std::uint64_t hash = hash_of(db);
  REQUIRE(db.close());
  DB again = open(options);
  CHECK(hash_of(again) == hash);
}

TEST_CASE("one compaction at a time; without the space for it everything stays as it is") {
  const TempDir dir;
  Options options = small_checkpoints(dir / "data");
  {
    DB db = open(options);
    fill_and_clear(db);
    auto first = db.compact();
    auto second = db.compact();
    CHECK(first.get());
    const auto refused = second.get();
    REQUIRE_FALSE(refused);
    CHECK(refused.error() == Errc::in_use);
  }
  const auto free = std::filesystem::space(dir.path()).available;
  options.disk_reserve_bytes = free - (free >> 3) + (std::uint64_t{1} << 40);
  DB db = open(options);
  const std::uint64_t hash = hash_of(db);
  const auto refused = db.compact().get();
  REQUIRE_FALSE(refused);
  CHECK(refused.error() == Errc::disk_full);
  CHECK(hash_of(db) == hash);
  CHECK_FALSE(std::filesystem::exists(dir / "data" / "state.compact-1.tmp"));
}

TEST_CASE("a database that is closed in the middle of a compaction is there again as it was") {
  const TempDir dir;
  const Options options = small_checkpoints(dir / "data");
  for (int round = 0; round < 12; ++round) {
    CAPTURE(round);
    DB db = open(options);
    if (round == 0) fill_and_clear(db);
    REQUIRE(db.command("append", {"k", "x"}).get());
    auto compacting = db.compact();
    std::this_thread::sleep_for(std::chrono::milliseconds(round));
    REQUIRE(db.close());
    const auto result = compacting.get();
    if (!result) CHECK((result.error() == Errc::shutting_down || result.error() == Errc::stopped));
  }
  DB db = open(options);
  CHECK(get(db, "k") == std::string(12, 'x'));
  std::size_t databases = 0;
  for (const auto& file : std::filesystem::directory_iterator(dir / "data")) {
    databases += file.path().filename().string().starts_with("state.") ? 1 : 0;
  }
  CHECK(databases == 1);
}

TEST_CASE("members of a cluster compact each for itself, the leader too, and hold the same afterwards") {
  Cluster cluster(3, [](Options& options) { options.checkpoint_log_bytes = 64u << 10; });
  Writer writer(cluster[cluster.leader()], "k");
  for (std::size_t i = 0; i < 3; ++i) {
    const auto compacted = cluster[i].compact().get();
    if (!compacted) FAIL(compacted.error().message());
  }
  eventually([&, from = writer.written()] { return writer.written() > from + 50; });
  writer.stop();
  for (std::size_t i = 0; i < 3; ++i) {
    eventually([&] { return get(cluster[i], "k").size() >= writer.written(); });
    CHECK(hash_of(cluster[i]) == hash_of(cluster[0]));
  }
}

TEST_SUITE_END();
