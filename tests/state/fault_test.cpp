// LMDB refuses a call: the linker sends these calls of the state machine through here (see meson.build). The rest of
// LMDB is the real one.
#include <doctest/doctest.h>

#include <atomic>
#include <cerrno>
#include <filesystem>
#include <functional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <fcntl.h>

#include "state/directory.hpp"
#include "state/snapshot.hpp"
#include "state/support.hpp"

using namespace state_test;

namespace {

/// Fails the call after `after` more with `code`, `times` times.
struct Plan {
  int after = -1;
  int code = 0;
  int times = 0;

  int next() {
    if (times == 0) return 0;
    if (after > 0) {
      --after;
      return 0;
    }
    --times;
    return code;
  }
};
Plan put_plan;
Plan commit_plan;
Plan get_plan;
Plan sync_plan;
Plan open_directory_plan;
std::function<void()> after_commit;  ///< of the next one that succeeds
int begun = 0;
std::atomic<int> reads_begun = 0;
std::vector<std::string> synced;  ///< files and directories, in order

}  // namespace

extern "C" {
int __real_open64(const char* path, int flags, mode_t mode);
int __wrap_open64(const char* path, int flags, mode_t mode) {
  if ((flags & O_DIRECTORY) != 0) {
    if (const int code = open_directory_plan.next(); code != 0) {
      errno = code;
      return -1;
    }
  }
  return __real_open64(path, flags, mode);
}
int __real_fsync(int descriptor);
int __wrap_fsync(int descriptor) {
  std::error_code ignored;
  const auto path = std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(descriptor), ignored);
  synced.push_back(path.filename());
  return __real_fsync(descriptor);
}
int __real_mdb_env_sync(MDB_env* env, int force);
int __wrap_mdb_env_sync(MDB_env* env, int force) {
  synced.emplace_back(force != 0 ? "database" : "nothing");
  if (const int code = sync_plan.next(); code != 0) return code;
  return __real_mdb_env_sync(env, force);
}
int __real_mdb_put(MDB_txn* txn, MDB_dbi dbi, MDB_val* key, MDB_val* data, unsigned flags);
int __wrap_mdb_put(MDB_txn* txn, MDB_dbi dbi, MDB_val* key, MDB_val* data, unsigned flags) {
  if (const int code = put_plan.next(); code != 0) return code;
  return __real_mdb_put(txn, dbi, key, data, flags);
}
int __real_mdb_txn_commit(MDB_txn* txn);
int __wrap_mdb_txn_commit(MDB_txn* txn) {
  if (const int code = commit_plan.next(); code != 0) {
    mdb_txn_abort(txn);
    return code;
  }
  const int code = __real_mdb_txn_commit(txn);
  if (const auto then = std::exchange(after_commit, {}); then && code == 0) then();
  return code;
}
int __real_mdb_get(MDB_txn* txn, MDB_dbi dbi, MDB_val* key, MDB_val* data);
int __wrap_mdb_get(MDB_txn* txn, MDB_dbi dbi, MDB_val* key, MDB_val* data) {
  if (const int code = get_plan.next(); code != 0) return code;
  return __real_mdb_get(txn, dbi, key, data);
}
int __real_mdb_txn_begin(MDB_env* env, MDB_txn* parent, unsigned flags, MDB_txn** txn);
int __wrap_mdb_txn_begin(MDB_env* env, MDB_txn* parent, unsigned flags, MDB_txn** txn) {
  if (flags == 0) ++begun;
  const int code = __real_mdb_txn_begin(env, parent, flags, txn);
  if ((flags & MDB_RDONLY) != 0) ++reads_begun;
  return code;
}
}

TEST_SUITE_BEGIN("state.fault");

// Found by ./dev crash --faults, seed 1, image 1732: the folder that the link led to by then was thrown away.
TEST_CASE("a new name that cannot be made durable is never taken for a disk that is full: it may be in force") {
  const TempDir dir;
  auto directory = flotilla::state::Directory::create(dir.path(), true).value();
  std::filesystem::create_directory(directory.incoming());
  const auto staged = directory.stage(directory.incoming()).value();
  for (const int code : {ENOSPC, EDQUOT, ENOENT, EMFILE}) {
    CAPTURE(code);
    open_directory_plan = {0, code, 1};
    const auto published = directory.publish(staged);
    open_directory_plan = {};
    REQUIRE_FALSE(published);
    CHECK(published.error() == Errc::io_error);
    CHECK(std::filesystem::read_symlink(dir.path() / "state") == staged.path.filename());
  }
}

TEST_CASE("any call of LMDB that fails stops apply with its reason, takes nothing along, and stays") {
  struct Case {
    int code;
    Errc expected;
  };
  for (const Case one : {Case{EIO, Errc::io_error}, Case{MDB_MAP_FULL, Errc::map_full},
                         Case{MDB_CORRUPTED, Errc::damaged}, Case{MDB_PANIC, Errc::io_error}}) {
    CAPTURE(one.code);
    for (int after = 0;; ++after) {
      CAPTURE(after);
      Rig rig;
      REQUIRE(rig.session(1, 1, 5));
      REQUIRE(rig.command("count", {"t", "n"}, {5, 1}));
      REQUIRE(rig.store().checkpoint());
      put_plan = {after, one.code, 1};
      const std::vector<Entry> entries{command_entry(3, "count", {"t", "n"}, {5, 2}),
                                       command_entry(4, "put", {"new", "k", "v"}, {5, 3})};
      const auto stopped = rig.apply(entries);
      const bool reached = put_plan.times == 0;
      put_plan = {};
      if (!reached) {
        CHECK(stopped);
        CHECK(after > 4);
        break;
      }
      REQUIRE_FALSE(stopped);
      CHECK(stopped.error() == one.expected);
      CHECK(rig.store().applied_index() == Index{2});
      CHECK(rig.read().table("t").get("n") == "1");
      CHECK_FALSE(rig.read().table("new").exists());
      // LMDB works again, but this run of the store is over.
      CHECK(rig.apply(entries).error() == one.expected);
      rig.reopen();
      CHECK(rig.apply(entries).value().size() == 2);
      CHECK(rig.read().table("t").get("n") == "2");
    }
  }
}

TEST_CASE("a disk that is full in any call of LMDB takes nothing along, and apply goes on from there") {
  for (int after = 0;; ++after) {
    CAPTURE(after);
    Rig rig;
    REQUIRE(rig.session(1, 1, 5));
    REQUIRE(rig.command("count", {"t", "n"}, {5, 1}));
    put_plan = {after, ENOSPC, 2};
    // The first call of a session again: its row must be as it was.
    const std::vector<Entry> entries{command_entry(3, "count", {"t", "n"}, {5, 2}),
                                     command_entry(4, "count", {"t", "n"}, {5, 2}),
                                     command_entry(5, "put", {"new", "k", "v"}, {5, 3})};
    const auto first = rig.apply(entries);
    if (put_plan.times == 2) {
      put_plan = {};
      CHECK(first);
      CHECK(after > 4);
      break;
    }
    REQUIRE(first.error() == Errc::disk_full);
    CHECK(rig.store().applied_index() == Index{2});
    CHECK(rig.read().table("t").get("n") == "1");
    CHECK_FALSE(rig.read().table("new").exists());
    CHECK(rig.apply(entries).error() == Errc::disk_full);
    put_plan = {};
    CHECK(rig.apply(entries).value().size() == 3);
    CHECK(rig.read().table("t").get("n") == "2");
    CHECK(rig.read().table("new").get("k") == "v");
  }
}

TEST_CASE("of a batch that does not fit into the disk, what does is applied, and the rest later") {
  Rig rig;
  const std::vector<Entry> entries{command_entry(1, "put", {"t", "k", "1"}), command_entry(2, "put", {"t", "k", "2"}),
                                   command_entry(3, "put", {"t", "k", "3"}), command_entry(4, "put", {"t", "k", "4"})};
  // In two transactions, of which the second meets the full disk.
  put_plan = {1, MDB_TXN_FULL, 1};
  commit_plan = {1, ENOSPC, 1};
  CHECK(rig.apply(entries).value().size() == 2);
  CHECK(rig.store().applied_index() == Index{2});
  CHECK(rig.read().table("t").get("k") == "2");
  put_plan = commit_plan = {};
  CHECK(rig.apply(entries).value().size() == 2);
  CHECK(rig.read().table("t").get("k") == "4");
}

TEST_CASE("every step of a checkpoint is durable before the next, and a new database has one") {
  using Steps = std::vector<std::string>;
  TempDir dir;
  StoreOptions options = options_in(dir.path() / "state.1");
  options.sync = true;
  synced.clear();
  auto store = Store::open(options, test_commands()).value();
  const Steps steps{"database", "checkpoint.tmp", "state.1"};
  Steps first = steps;
  first.push_back(dir.path().filename());
  CHECK(synced == first);
  synced.clear();
  const std::vector<Entry> entries{command_entry(1, "put", {"t", "k", "1"})};
  REQUIRE(store->apply(entries));
  CHECK(synced.empty());
  REQUIRE(store->checkpoint());
  CHECK(synced == steps);
}

TEST_CASE("a checkpoint that cannot be made durable leaves the one before in force") {
  Rig rig(test_commands(), [](StoreOptions& options) { options.sync = true; });
  REQUIRE(rig.command("put", {"t", "k", "1"}));
  REQUIRE(rig.store().checkpoint());
  REQUIRE(rig.command("put", {"t", "k", "2"}));
  int code = EIO;
  SUBCASE("an error of the disk") {}
  SUBCASE("no space, in the sync: pages may be lost all the same") {
    code = ENOSPC;
  }
  sync_plan = {0, code, 1};
  auto pending = rig.store().begin_checkpoint().value();
  CHECK(rig.store().checkpoint().error() == Errc::io_error);
  // The system calls those pages clean now, so another sync would succeed over lost ones.
  CHECK(rig.store().checkpoint().error() == Errc::io_error);
  CHECK(rig.store().finish_checkpoint(*pending, [] { return true; }).error() == Errc::io_error);
  pending.reset();
  CHECK(rig.store().last_checkpoint().index == Index{1});
  rig.crash();
  rig.open();
  CHECK(rig.read().table("t").get("k") == "1");
}

TEST_CASE("every step of an installation is durable before the next") {
  Rig source;
  flotilla::raft::Configuration configuration;
  configuration.members.push_back({NodeId{7}, "here", true});
  REQUIRE(source.apply({entry_of(EntryType::configuration, 1, flotilla::raft::encode(configuration))}));
  TempDir dir;
  const auto copy = source.store().copy(dir.path() / "copy").value();
  const std::filesystem::path data = dir.path() / "data";
  std::filesystem::create_directory(data);
  using Steps = std::vector<std::string>;
  synced.clear();
  auto directory = flotilla::state::Directory::create(data, true).value();
  CHECK(synced == Steps{"data"});
  synced.clear();
  auto writer =
      flotilla::state::SnapshotWriter::create({directory.incoming(), copy.bytes(), copy.hash(), true}).value();
  REQUIRE(writer.write(copy.read(0, copy.bytes()).value()));
  CHECK(synced.empty());
  const auto received = writer.finish().value();
  CHECK(synced == Steps{"data.mdb", "checkpoint.tmp", "state.2.tmp"});
  synced.clear();
  CHECK(received.index == Index{1});
  const auto staged = directory.stage(directory.incoming()).value();
  CHECK(synced == Steps{"data"});
  synced.clear();
  REQUIRE(directory.publish(staged));
  CHECK(synced == Steps{"data"});
  // A process that was killed before that sync leaves the link visible, and maybe not durable.
  synced.clear();
  REQUIRE(flotilla::state::Directory::open(data, true));
  CHECK(synced == Steps{"data"});
}

TEST_CASE("a checkpoint that a killed process left is durable before the next start relies on it (E7)") {
  TempDir dir;
  StoreOptions options = options_in(dir.path() / "state");
  options.sync = true;
  Store::open(options, test_commands()).value();
  synced.clear();
  Store::open(options, test_commands()).value();
  REQUIRE_FALSE(synced.empty());
  CHECK(synced.front() == "state");
}

TEST_CASE("a commit that fails publishes nothing, and a reader does not wait for it") {
  Rig rig;
  REQUIRE(rig.command("put", {"t", "k", "1"}));
  REQUIRE(rig.store().checkpoint());
  commit_plan = {0, ENOSPC, 1};
  CHECK(rig.command("put", {"new", "k", "2"}).error() == Errc::disk_full);
  commit_plan = {};
  CHECK(rig.store().applied().index == Index{1});
  CHECK(rig.store().applied_index() == Index{1});
  CHECK_FALSE(rig.read().table("new").exists());
  CHECK(rig.read().table("t").get("k") == "1");
  CHECK(rig.command("put", {"new", "k", "2"}));
  CHECK(rig.read().table("new").get("k") == "2");
}

TEST_CASE("a reader that comes between a commit and its new table's handle waits for the handle") {
  Rig rig;
  REQUIRE(rig.command("put", {"t", "k", "1"}));
  std::thread reader;
  std::string read;
  after_commit = [&] {
    const int before = reads_begun;
    reader = std::thread([&] {
      const auto txn = rig.store().read();
      read = txn && txn->index() == Index{2} ? txn->table("new").get("k").value_or("no such table") : "an old state";
    });
    // The data of the commit is in its view, and it holds the lock that publishing the handle needs.
    while (reads_begun == before) std::this_thread::yield();
  };
  REQUIRE(rig.command("put", {"new", "k", "2"}));
  reader.join();
  CHECK(read == "2");
}

TEST_CASE("a batch that fills a transaction is run again in parts, and nothing is applied twice") {
  Rig rig;
  REQUIRE(rig.session(1, 1, 5));
  std::vector<Entry> entries;
  for (std::uint64_t i = 0; i < 16; ++i) entries.push_back(command_entry(2 + i, "count", {"t", "n"}, {5, 1 + i}));
  put_plan = {9, MDB_TXN_FULL, 3};  // in the whole batch, then in its first parts
  begun = 0;
  const auto outcomes = rig.apply(entries);
  put_plan = {};
  REQUIRE(outcomes);
  REQUIRE(outcomes->size() == 16);
  for (std::size_t i = 0; i < 16; ++i) CHECK((*outcomes)[i].result.value() == std::to_string(i + 1));
  CHECK(begun > 4);
  CHECK(rig.read().table("t").get("n") == "16");
  CHECK(rig.store().applied().index == Index{17});
}

TEST_CASE("one command that fills a transaction by itself is a fault") {
  Rig rig;
  REQUIRE(rig.command("count", {"t", "n"}));
  put_plan = {0, MDB_TXN_FULL, 100};
  const auto stopped = rig.apply({command_entry(2, "count", {"t", "n"}), command_entry(3, "count", {"t", "n"})});
  put_plan = {};
  CHECK_FALSE(stopped);
  CHECK(rig.store().applied().index == Index{1});
  CHECK(rig.read().table("t").get("n") == "1");
}

TEST_CASE("a command that hides a failing read from the store cannot hide it from the applier") {
  Rig rig;
  REQUIRE(rig.command("put", {"t", "k", "1"}));
  const auto stopped = rig.run([](WriteTxn& txn) -> Result<Bytes> {
    get_plan = {0, EIO, 1};
    const auto table = txn.table("t");
    CHECK_FALSE(table.get("k"));
    get_plan = {};
    CHECK_FALSE(table.get("k"));
    CHECK(table.size() == 0);
    return "all is well";
  });
  get_plan = {};
  CHECK(stopped.error() == Errc::io_error);
  CHECK(rig.store().applied().index == Index{1});
}

TEST_CASE("a snapshot remembers the first read that failed") {
  Rig rig;
  REQUIRE(rig.command("put", {"t", "k", "1"}));
  const ReadTxn snapshot = rig.read();
  CHECK(snapshot.table("t").get("k") == "1");
  get_plan = {0, EIO, 1};
  CHECK_FALSE(snapshot.table("t").get("k"));
  get_plan = {};
  REQUIRE(snapshot.error());
  CHECK(*snapshot.error() == Errc::io_error);
  CHECK_FALSE(snapshot.table("t").get("k"));
  CHECK_FALSE(Store::content_hash(snapshot));
}

TEST_SUITE_END();
