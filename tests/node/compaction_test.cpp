// A database that gives its unused space back while it goes on.
#include <algorithm>
#include <atomic>

#include <doctest/doctest.h>

#include "db_fixture.hpp"
#include "log/memory_file.hpp"
#include "node/checkpoints.hpp"
#include "node/compaction.hpp"
#include "state/store.hpp"
#include "support/sim_loop.hpp"

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

/// What a compaction leaves nothing of, beside the database in use.
std::ptrdiff_t databases_in(const std::filesystem::path& data) {
  const std::filesystem::directory_iterator files(data);
  return std::count_if(begin(files), end(files),
                       [](const auto& file) { return file.path().filename().string().starts_with("state."); });
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

TEST_CASE("a compaction ends although thousands of commands are under way all the time") {
  const TempDir dir;
  Options options = small_checkpoints(dir / "data");
  options.batch_entries_max = 64;
  options.map_size = 512u << 20;
  DB db = open(options);
  fill_and_clear(db);
  std::atomic<bool> stop = false;
  std::atomic<int> left = 0;
  std::thread writer([&] {
    for (int i = 0; !stop; ++i) {
      while (left > 4000) std::this_thread::yield();
      ++left;
      db.command("put", {std::to_string(i % 100), "x"}, Completion([&](const Result<Bytes>&) { --left; }));
    }
  });
  for (int round = 0; round < 3; ++round) {
    const auto compacted = db.compact().get();
    if (!compacted) FAIL_CHECK(compacted.error().message());
  }
  stop = true;
  writer.join();
  eventually([&] { return left == 0; });
}

TEST_CASE("a compaction is given up where the log would grow too large for it") {
  const TempDir dir;
  Options options = small_checkpoints(dir / "data");
  options.log_bytes_max = 1;
  DB db = open(options);
  fill_and_clear(db);
  const std::uint64_t hash = hash_of(db);
  // It is looked at once per tick.
  eventually([&] {
    const auto compacted = db.compact().get();
    if (!compacted) CHECK(compacted.error().message().find("Options::log_bytes_max") != std::string::npos);
    return !compacted;
  });
  CHECK(hash_of(db) == hash);
  REQUIRE(db.command("append", {"k", "x"}).get());
}

namespace {

raft::Entry put_entry(std::uint64_t index) {
  const std::string value = std::to_string(index);
  const std::string_view args[] = {"k", value};
  raft::Entry entry{.term = Term{1},
                    .index = Index{index},
                    .type = raft::EntryType::command,
                    .payload = state::encode_command({}, 0, "put", args)};
  raft::seal(entry);
  return entry;
}

/// A compaction in one thread and virtual time; 40 entries are in the log, which is not synced, and in the database.
struct Rig {
  Rig() {
    std::vector<raft::Entry> entries;
    for (std::uint64_t index = 1; index <= 40; ++index) entries.push_back(put_entry(index));
    log_writer.submit({1, raft::HardState{Term{1}, {}}, std::nullopt, entries, Index{40}});
    applier.submit(entries);
    scheduler.run_for(1s);
    compaction.begin([this](Result<void> result) { done = std::move(result); });
  }
  /// At most `steps` of the compaction; whether it ended.
  bool step(int steps) {
    for (int i = 0; i < steps && scheduler.step(); ++i) {
    }
    return done.has_value();
  }
  std::vector<std::string> databases() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(dir.path())) {
      if (entry.is_directory() && !entry.is_symlink()) names.push_back(entry.path().filename());
    }
    return names;
  }
  std::string database_in_use() const { return std::filesystem::read_symlink(dir.path() / "state").filename(); }

  TempDir dir;
  log::MemoryFileSystem files;
  log::LogOptions log_options{.directory = "log", .prepare_ahead = false, .sync_each_group = false};
  std::unique_ptr<log::Log> log = log::Log::open(files, log_options).value();
  state::Directory directory = state::Directory::create(dir.path(), true).value();
  std::unique_ptr<state::Store> store =
      state::Store::open({.directory = directory.path(), .map_size = 16u << 20, .readers_max = 8}, test_commands())
          .value();
  test::SimScheduler scheduler;
  test::SimLoop loop{scheduler};
  node::Calls calls{1, {1u << 20, 100}};
  node::LogWriter log_writer{loop, loop, *log, {.durable = [](std::uint64_t) {}, .full = {}, .failed = {}}};
  node::Applier applier{loop,  loop,           *store,
                        calls, {16, 1u << 20}, {.applied = [](const auto&) {}, .full = {}, .failed = {}}};
  node::Compaction compaction{{.loop = loop,
                               .apply = loop,
                               .bulk = loop,
                               .checkpoint = loop,
                               .log_writer = log_writer,
                               .applier = applier,
                               .store = *store,
                               .directory = directory},
                              {.reserve_bytes = 0, .slice = {4, 1u << 20}},
                              {.sync_log = [this](auto then) { log_writer.sync(std::move(then)); },
                               .failed = [](const Error& error) { FAIL(error.message()); }}};
  std::optional<Result<void>> done;
};

}  // namespace

TEST_CASE("what counts of a compacted copy is in the log, also where the log is not synced by itself (N10)") {
  Rig rig;
  rig.scheduler.run_for(1s);
  REQUIRE(rig.done);
  REQUIRE(*rig.done);
  CHECK(rig.store->last_checkpoint().index == Index{40});
  rig.files.crash([] { return false; });
  rig.log = log::Log::open(rig.files, rig.log_options).value();
  CHECK(rig.log->last_index() == Index{40});
}

TEST_CASE("whatever the database gets otherwise in the middle of a compaction stays, and apply goes on afterwards") {
  bool ended = false;
  for (int steps = 0; !ended; ++steps) {
    CAPTURE(steps);
    Rig rig;
    ended = rig.step(steps);
    // As an installed snapshot brings it: the log does not have it.
    REQUIRE(rig.store->apply(std::vector{put_entry(41)}));
    rig.scheduler.run_for(1s);
    REQUIRE(rig.done);
    CHECK(rig.store->applied_index() == Index{41});
    rig.applier.submit({put_entry(42)});
    rig.scheduler.run_for(1s);
    CHECK(rig.store->applied_index() == Index{42});
    CHECK(rig.store->read()->table("t").get("k") == "42");
    CHECK(rig.databases() == std::vector{rig.database_in_use()});
  }
}

TEST_CASE("ended after any step, a compaction leaves one database and nothing else") {
  bool ended = false;
  for (int steps = 0; !ended; ++steps) {
    CAPTURE(steps);
    Rig rig;
    ended = rig.step(steps);
    rig.compaction.abort(Error(Errc::stopped, "enough"));
    rig.scheduler.run_for(1s);
    REQUIRE(rig.done);
    CHECK(rig.done->has_value() == ended);
    CHECK(rig.databases() == std::vector{rig.database_in_use()});
    rig.applier.submit({put_entry(41)});
    rig.scheduler.run_for(1s);
    CHECK(rig.store->read()->table("t").get("k") == "41");
  }
}

TEST_CASE("a checkpoint of the old database that ends after the change lets nothing be trimmed (L38)") {
  const TempDir dir;
  auto directory = state::Directory::create(dir.path(), false).value();
  const auto store =
      state::Store::open({.directory = directory.path(), .map_size = 64u << 20, .readers_max = 8, .sync = false},
                         test_commands())
          .value();
  test::SimScheduler scheduler;
  test::SimLoop loop(scheduler);
  node::Checkpoints checkpoints(loop, loop, loop, *store, {1, 1u << 30, std::chrono::hours(1)}, LogSink(),
                                {.sync_log = {}, .failed = [](const Error& error) { FAIL(error.message()); }});
  REQUIRE(store->apply(std::vector{put_entry(1)}));
  REQUIRE(store->compact_to(directory.compacted(1), 0));
  const auto staged = directory.stage(directory.compacted(1)).value();
  const auto copy = store->open_compacted(staged.path).value();
  REQUIRE(store->apply(std::vector{put_entry(2)}));
  REQUIRE(copy->apply(std::vector{put_entry(2)}));
  checkpoints.applied(100);
  checkpoints.tick();
  while (store->last_checkpoint().index != Index{2}) REQUIRE(scheduler.step());
  // It is in force, and its report on the way.
  REQUIRE(store->adopt(*copy, [&] { return directory.publish(staged); }));
  scheduler.run_for(1s);
  CHECK(checkpoints.index() == Index{1});
  CHECK(store->last_checkpoint().index == Index{1});
}

TEST_CASE("if there is no space for the change of the link, the database goes on as it was, and may be changed later") {
  const TempDir dir;
  auto directory = state::Directory::create(dir.path(), false).value();
  const auto store =
      state::Store::open({.directory = directory.path(), .map_size = 16u << 20, .readers_max = 8, .sync = false},
                         test_commands())
          .value();
  REQUIRE(store->apply(std::vector{put_entry(1)}));
  REQUIRE(store->compact_to(directory.compacted(1), 0));
  const auto staged = directory.stage(directory.compacted(1)).value();
  const auto copy = store->open_compacted(staged.path).value();
  const auto refused = store->adopt(*copy, [] { return fail(Errc::disk_full, "no link"); });
  REQUIRE_FALSE(refused);
  CHECK(refused.error() == Errc::disk_full);
  REQUIRE(store->apply(std::vector{put_entry(2)}));
  REQUIRE(copy->apply(std::vector{put_entry(2)}));
  REQUIRE(store->adopt(*copy, [&] { return directory.publish(staged); }));
  CHECK(store->read()->table("t").get("k") == "2");
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
    CHECK(databases_in(dir / "data") == 1);
  }
  DB db = open(options);
  CHECK(get(db, "k") == std::string(12, 'x'));
  CHECK(databases_in(dir / "data") == 1);
}

TEST_CASE("a file that an old snapshot made grow past its limit takes commands again once it is compacted (U35)") {
  const TempDir dir;
  Options options = small_checkpoints(dir / "data");
  options.state_bytes_max = 6u << 20;
  DB db = open(options);
  REQUIRE(db.command("fill", {"0"}).get());
  {
    const ReadTxn old = db.read().value();
    CHECK(db.status().pinned_bytes < 1u << 20);
    // The same few keys again and again: without the snapshot the file would stay small.
    eventually([&] {
      const auto done = db.command("fill", {"0"}).get();
      if (!done) CHECK(done.error() == Errc::disk_full);
      return !done;
    });
    CHECK(db.status().pinned_bytes > 4u << 20);
    CHECK(db.status().pinned_bytes < db.status().state_bytes);
    eventually([&] { return db.status().refusing.has_value(); });
    CHECK(db.status().refusing->message().find("DB::compact()") != std::string::npos);
    REQUIRE(db.compact().get());
    CHECK(db.status().pinned_bytes > 4u << 20);  // the replaced file
    CHECK(old.table("bulk").get("0"));
  }
  CHECK(db.status().pinned_bytes == 0);
  eventually([&] { return !db.status().refusing; });
  REQUIRE(db.command("fill", {"0"}).get());
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
