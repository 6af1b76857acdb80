#include "state/environment.hpp"

#include <doctest/doctest.h>

#include <sys/resource.h>
#include <sys/wait.h>

#include <atomic>
#include <csignal>
#include <fstream>
#include <iterator>
#include <random>
#include <thread>

#include "state/support.hpp"

using namespace state_test;

namespace {

/// Runs `check` in a forked child; true if it returned true there.
template <class Check>
bool in_child(Check check) {
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) ::_exit(check() ? 0 : 1);
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

}  // namespace

TEST_SUITE_BEGIN("state.environment");

TEST_CASE("a snapshot outlives its store, views and all") {
  Rig rig;
  REQUIRE(rig.command("put", {"t", "k", "v"}));
  auto snapshot = std::make_unique<ReadTxn>(rig.read());
  const std::string_view view = *snapshot->table("t").get("k");
  auto cursor = snapshot->table("t").cursor();
  rig.close();
  CHECK(view == "v");
  CHECK(cursor.first());
  CHECK(snapshot->table("t").get("k") == "v");
  CHECK(snapshot->index() == Index{1});
  // The environment is still open, and says so.
  CHECK(Store::open(rig.options(), test_commands()).error() == Errc::in_use);
  snapshot.reset();
  rig.open();
  CHECK(rig.read().table("t").get("k") == "v");
}

TEST_CASE("a database that is open in this process is refused, by whatever path") {
  Rig rig;
  CHECK(Store::open(rig.options(), test_commands()).error() == Errc::in_use);
  StoreOptions other = rig.options();
  other.directory = rig.options().directory.parent_path() / "link";
  std::filesystem::create_directory_symlink(rig.options().directory, other.directory);
  CHECK(Store::open(other, test_commands()).error() == Errc::in_use);
  StoreOptions hard = rig.options();
  hard.directory = rig.options().directory.parent_path() / "hard";
  std::filesystem::create_directory(hard.directory);
  std::filesystem::create_hard_link(rig.data_file(), hard.directory / "data.mdb");
  std::filesystem::copy_file(rig.options().directory / "checkpoint", hard.directory / "checkpoint");

  CHECK(Store::open(hard, test_commands()).error() == Errc::in_use);
  // The refusals took nothing from the open one.
  CHECK(rig.command("put", {"t", "k", "v"}));
  rig.close();
  CHECK(Store::open(other, test_commands()));
}

TEST_CASE("snapshots are counted, limited and aged, and a finished one makes room") {
  Rig rig(test_commands(), [](StoreOptions& options) { options.readers_max = 3; });
  CHECK(rig.store().readers() == 0);
  CHECK(rig.store().oldest_reader_age().count() == 0);
  std::vector<ReadTxn> open;
  for (int i = 0; i < 3; ++i) open.push_back(rig.read());
  CHECK(rig.store().readers() == 3);
  CHECK(rig.store().read().error() == Errc::too_many_readers);
  open.erase(open.begin() + 1);
  CHECK(rig.store().readers() == 2);
  open.push_back(rig.read());
  CHECK(rig.store().read().error() == Errc::too_many_readers);
  const auto begun = std::chrono::steady_clock::now();
  while (std::chrono::steady_clock::now() - begun < std::chrono::milliseconds(5)) std::this_thread::yield();
  CHECK(rig.store().oldest_reader_age().count() >= 5);
  ReadTxn moved = std::move(open.back());
  open.clear();
  CHECK(rig.store().readers() == 1);
  CHECK(rig.store().oldest_reader_age().count() < 10'000);
}

TEST_CASE("readers that are idle on many threads keep nobody else from reading") {
  Rig rig(test_commands(), [](StoreOptions& options) { options.readers_max = 2; });
  int failed = 0;
  for (int i = 0; i < 40; ++i) {
    std::thread([&] {
      const auto one = rig.store().read();
      const auto another = rig.store().read();
      if (!one || !another) ++failed;
    }).join();
  }
  CHECK(failed == 0);
  const ReadTxn one = rig.read();
  const ReadTxn another = rig.read();
  CHECK(rig.store().read().error() == Errc::too_many_readers);
  std::thread([&] { failed += rig.store().read().error() == Errc::too_many_readers ? 0 : 1; }).join();
  CHECK(failed == 0);
}

TEST_CASE("the oldest snapshot counts, on whichever thread it and newer ones began") {
  Rig rig;
  const std::string value(40'000, 'x');  // pages of its own
  REQUIRE(rig.command("put", {"t", "k", value}));
  for (const bool first_here : {true, false}) {
    CAPTURE(first_here);
    std::optional<ReadTxn> oldest;
    std::optional<ReadTxn> newest;
    const auto begin = [&](std::optional<ReadTxn>& txn, bool here) {
      if (here) {
        txn.emplace(rig.read());
      } else {
        std::thread([&] { txn.emplace(rig.read()); }).join();
      }
    };
    begin(oldest, first_here);
    const auto begun = std::chrono::steady_clock::now();
    for (int i = 0; i < 10; ++i) REQUIRE(rig.command("put", {"t", "k", value}));
    while (std::chrono::steady_clock::now() - begun < std::chrono::milliseconds(20)) std::this_thread::yield();
    begin(newest, !first_here);
    CHECK(rig.store().pinned_bytes() > 9 * value.size());
    CHECK(rig.store().oldest_reader_age().count() >= 20);
    oldest.reset();
    CHECK(rig.store().pinned_bytes() < 2 * value.size());
    newest.reset();
  }
}

TEST_CASE("what an open snapshot keeps from being used again is counted, and no more once it ended (U33)") {
  Rig rig;
  const std::string value(40'000, 'x');  // pages of its own
  REQUIRE(rig.command("put", {"t", "k", value}));
  CHECK(rig.store().pinned_bytes() == 0);
  {
    const ReadTxn first = rig.read();
    const std::uint64_t before = rig.store().pinned_bytes();
    std::uint64_t sum = before;
    for (int i = 0; i < 20; ++i) {
      REQUIRE(rig.command("put", {"t", "k", value}));
      if (i == 10) sum = rig.store().pinned_bytes();
    }
    CHECK(sum > before + 10 * value.size());
    CHECK(rig.store().pinned_bytes() > sum + 9 * value.size());
    CHECK(rig.store().pinned_bytes() < rig.store().file_bytes());
    {
      const ReadTxn second = rig.read();  // the older one counts
      CHECK(rig.store().pinned_bytes() > sum + 9 * value.size());
    }
  }
  CHECK(rig.store().pinned_bytes() == 0);
  const ReadTxn third = rig.read();
  CHECK(rig.store().pinned_bytes() < 2 * value.size());
}

TEST_CASE("more snapshots than are pooled come and go") {
  Rig rig;
  REQUIRE(rig.command("put", {"t", "k", "v"}));
  for (int round = 0; round < 3; ++round) {
    std::vector<ReadTxn> open;
    for (int i = 0; i < 200; ++i) open.push_back(rig.read());
    for (const ReadTxn& txn : open) CHECK(txn.table("t").get("k") == "v");
  }
  CHECK(rig.store().readers() == 0);
}

TEST_CASE("a snapshot does not change while commands go on") {
  Rig rig;
  REQUIRE(rig.command("count", {"t", "n"}));
  const ReadTxn old = rig.read();
  for (int i = 0; i < 200; ++i) REQUIRE(rig.command("count", {"t", "n"}));
  CHECK(old.table("t").get("n") == "1");
  CHECK(old.index() == Index{1});
  CHECK(rig.read().table("t").get("n") == "201");
}

TEST_CASE("a pooled read transaction starts anew: nothing of the one before is seen") {
  Rig rig;
  REQUIRE(rig.command("put", {"a", "k", "1"}));
  { const ReadTxn used = rig.read(); }
  REQUIRE(rig.command("put", {"b", "k", "2"}));
  const ReadTxn txn = rig.read();
  CHECK(txn.table("b").get("k") == "2");
  CHECK(txn.index() == Index{2});
}

TEST_CASE("a forked child may not use the database, and does the parent no harm") {
  Rig rig;
  REQUIRE(rig.command("put", {"t", "k", "v"}));
  std::optional<ReadTxn> snapshot(rig.read());
  auto cursor = std::make_optional(snapshot->table("t").cursor());
  REQUIRE(cursor->first());
  { const ReadTxn pooled = rig.read(); }
  CHECK(in_child([&] {
    const bool refused = rig.store().read().error() == Errc::forked &&
                         rig.apply({command_entry(2, "put", {"t", "k", "w"})}).error() == Errc::forked;
    cursor.reset();
    snapshot.reset();
    rig.close();
    return refused;
  }));
  CHECK(rig.store().readers() == 1);
  CHECK(cursor->valid());
  CHECK(rig.command("put", {"t", "k", "w"}));
  // The parent's reader slot still holds its snapshot: pages it sees are not used again.
  for (int i = 0; i < 50; ++i) REQUIRE(rig.command("put", {"t", "k", std::to_string(i)}));
  CHECK(snapshot->table("t").get("k") == "v");
  CHECK(cursor->value() == "v");
  CHECK(rig.read().table("t").get("k") == "49");
}

TEST_CASE("a database that another process has open is refused, and the process is named") {
  Rig rig;
  REQUIRE(rig.command("put", {"t", "k", "v"}));
  rig.close();
  int to_child[2];
  int to_parent[2];
  REQUIRE(::pipe(to_child) == 0);
  REQUIRE(::pipe(to_parent) == 0);
  const pid_t holder = ::fork();
  REQUIRE(holder >= 0);
  if (holder == 0) {
    MDB_env* env = nullptr;
    char byte = 1;
    bool held = mdb_env_create(&env) == 0 &&
                mdb_env_open(env, rig.options().directory.c_str(), MDB_NOTLS | MDB_RDONLY, 0600) == 0;
    held = ::write(to_parent[1], &byte, 1) == 1 && held;
    held = ::read(to_child[0], &byte, 1) == 1 && held;
    ::_exit(held ? 0 : 1);
  }
  char byte = 0;
  REQUIRE(::read(to_parent[0], &byte, 1) == 1);
  const auto refused = Store::open(rig.options(), test_commands());
  REQUIRE_FALSE(refused);
  CHECK(refused.error() == Errc::in_use);
  CHECK(refused.error().message().find("process " + std::to_string(holder)) != std::string::npos);
  // The refusal took nothing from the other, and the database is as it was once that has gone.
  CHECK(std::filesystem::exists(rig.options().directory / "lock.mdb"));
  REQUIRE(::write(to_child[1], &byte, 1) == 1);
  int status = 0;
  REQUIRE(::waitpid(holder, &status, 0) == holder);
  CHECK(status == 0);
  rig.open();
  CHECK(rig.read().table("t").get("k") == "v");
  for (const int descriptor : {to_child[0], to_child[1], to_parent[0], to_parent[1]}) ::close(descriptor);
}

TEST_CASE("a reader of another process that died is swept while commands go on") {
  Rig rig;
  REQUIRE(rig.command("put", {"t", "k", "v"}));
  rig.close();
  int go[2];
  int ready[2];
  REQUIRE(::pipe(go) == 0);
  REQUIRE(::pipe(ready) == 0);
  const pid_t reader = ::fork();
  REQUIRE(reader >= 0);
  if (reader == 0) {
    MDB_env* env = nullptr;
    MDB_txn* txn = nullptr;
    char byte = 1;
    const bool reads = ::read(go[0], &byte, 1) == 1 && mdb_env_create(&env) == 0 &&
                       mdb_env_open(env, rig.options().directory.c_str(), MDB_RDONLY, 0600) == 0 &&
                       mdb_txn_begin(env, nullptr, MDB_RDONLY, &txn) == 0 && ::write(ready[1], &byte, 1) == 1;
    if (!reads) ::_exit(1);
    for (;;) ::pause();
  }
  rig.open();
  char byte = 0;
  REQUIRE(::write(go[1], &byte, 1) == 1);
  REQUIRE(::read(ready[0], &byte, 1) == 1);
  const auto grown = [&] {
    const auto before = rig.store().file_bytes();
    for (int i = 0; i < 600; ++i) {
      REQUIRE(rig.command("put", {"t", "k", std::to_string(i)}));
      if (i % 8 == 0) REQUIRE(rig.store().checkpoint());
    }
    return rig.store().file_bytes() - before;
  };
  CHECK(grown() > 1'000'000);  // nothing it can see is used again
  REQUIRE(::kill(reader, SIGKILL) == 0);
  int status = 0;
  REQUIRE(::waitpid(reader, &status, 0) == reader);
  grown();  // past the next sweep
  CHECK(grown() < 100'000);
  for (const int descriptor : {go[0], go[1], ready[0], ready[1]}) ::close(descriptor);
}

TEST_CASE("readers on other threads see whole batches, tables and all, while commands go on") {
  Rig rig;
  constexpr std::uint64_t batches = 300;
  // Batch n makes table "t<n>" and writes n into it and into "last": whoever sees the one must see the other.
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> bad{0};
  std::atomic<std::uint64_t> seen{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&] {
      while (!stop) {
        auto txn = rig.store().read();
        if (!txn) {
          ++bad;
          continue;
        }
        const auto last = txn->table("last").get("n");
        if (!last) continue;
        ++seen;
        const auto table = txn->table("t" + std::string(*last));
        if (table.get("n") != last || txn->error()) ++bad;
        if (std::to_string(txn->index().value / 2) != *last) ++bad;
        if (txn->tables().size() != txn->index().value / 2 + 1) ++bad;
      }
    });
  }
  for (std::uint64_t n = 1; n <= batches; ++n) {
    const std::string number = std::to_string(n);
    const std::string table = "t" + number;
    REQUIRE(rig.apply(
        {command_entry(2 * n - 1, "put", {table, "n", number}), command_entry(2 * n, "put", {"last", "n", number})}));
    CHECK(rig.store().readers() <= 3);
  }
  while (seen < 10) std::this_thread::yield();
  stop = true;
  for (std::thread& thread : threads) thread.join();
  CHECK(bad == 0);
  CHECK(rig.store().readers() == 0);
}

TEST_CASE("a snapshot may go from thread to thread") {
  Rig rig;
  REQUIRE(rig.command("put", {"t", "k", "v"}));
  std::optional<ReadTxn> txn(rig.read());
  bool found = false;
  std::thread([&] {
    found = txn->table("t").get("k") == "v";
    txn.reset();
  }).join();
  CHECK(found);
  CHECK(rig.store().readers() == 0);
}

TEST_CASE("the file's size and the commands are told") {
  Rig rig;
  const auto before = rig.store().file_bytes();
  REQUIRE(rig.command("put", {"t", "k", std::string(1'000'000, 'x')}));
  CHECK(rig.store().file_bytes() > before + 900'000);
  CHECK(rig.store().file_bytes() == std::filesystem::file_size(rig.data_file()));
  // It is ahead of what LMDB uses.
  std::ifstream file(rig.data_file(), std::ios::binary);
  file.seekg(-100'000, std::ios::end);
  CHECK(std::all_of(std::istreambuf_iterator<char>(file), {}, [](char byte) { return byte == 0; }));
}

namespace {

constexpr std::size_t ahead_map_size = 8u << 20;

/// An environment whose main table gets one row of 3,000 bytes in each transaction.
struct Growing {
  TempDir directory;
  std::filesystem::path file = directory.path() / "state" / "data.mdb";
  std::shared_ptr<flotilla::state::Environment> env =
      flotilla::state::Environment::open({directory.path() / "state", ahead_map_size, 8, {}}).value();
  std::string value = std::string(3000, 'v');
  MDB_dbi dbi = 0;
  std::uint64_t rows = 0;

  std::uint64_t bytes() const { return std::filesystem::file_size(file); }
  bool put() {
    auto txn = flotilla::state::lmdb::Txn::begin_write(env->handle()).value();
    std::string key = std::to_string(rows);
    MDB_val k{key.size(), key.data()};
    MDB_val v{value.size(), value.data()};
    int code = mdb_dbi_open(txn.get(), nullptr, 0, &dbi);
    if (code == 0) code = mdb_put(txn.get(), dbi, &k, &v, 0);
    if (code != 0 || !txn.commit()) return false;
    ++rows;
    return true;
  }
  void check_rows() {
    auto txn = flotilla::state::lmdb::Txn::begin_read(env->handle()).value();
    for (std::uint64_t number = 0; number < rows; ++number) {
      std::string key = std::to_string(number);
      MDB_val k{key.size(), key.data()};
      MDB_val v{};
      REQUIRE(mdb_get(txn.get(), dbi, &k, &v) == 0);
      REQUIRE(std::string_view(static_cast<const char*>(v.mv_data), v.mv_size) == value);
    }
  }
};

}  // namespace

TEST_CASE("the file is kept ahead of what is used of it, behind its end and within its map") {
  constexpr std::uint64_t piece = 16u << 10;
  Growing growing;
  growing.env->extend();
  CHECK(growing.bytes() < piece);  // a small one has no more than it needs
  std::uint64_t ahead = 0;
  while (growing.put()) {
    growing.env->extend();
    const std::uint64_t used = growing.env->used_bytes();
    const std::uint64_t wanted =
        std::min<std::uint64_t>(used + std::min<std::uint64_t>(used / 4, 1u << 20), ahead_map_size);
    REQUIRE(growing.bytes() + piece >= wanted);
    REQUIRE(growing.bytes() <= wanted + piece);
    REQUIRE(growing.bytes() <= ahead_map_size);
    ahead = std::max(ahead, growing.bytes() - used);
  }
  CHECK(growing.env->used_bytes() + piece > ahead_map_size);  // it ended because it was full
  CHECK(ahead > 1'000'000);
  growing.check_rows();
}

TEST_CASE("where the file cannot be made longer ahead of time, commits go on") {
  Growing growing;
  while (growing.env->used_bytes() < 1'000'000) REQUIRE(growing.put());
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit narrow{growing.bytes() + 50'000, before.rlim_max};  // ends within a piece
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &narrow) == 0);
  growing.env->extend();
  const bool put = growing.put();
  growing.env->extend();
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &before) == 0);
  std::signal(SIGXFSZ, handler);
  CHECK(put);
  CHECK(growing.bytes() == narrow.rlim_cur);
  for (int more = 0; more < 100; ++more) {
    REQUIRE(growing.put());
    growing.env->extend();
  }
  CHECK(growing.bytes() > narrow.rlim_cur + 100'000);
  growing.check_rows();
}

TEST_CASE("what cannot be opened says why") {
  TempDir dir;
  StoreOptions options = options_in(dir.path() / "state");
  std::filesystem::create_directories(options.directory);
  {
    std::FILE* const file = std::fopen((options.directory / "data.mdb").c_str(), "w");
    REQUIRE(file != nullptr);
    for (int i = 0; i < 10'000; ++i) std::fputc(i % 251, file);
    std::fclose(file);
  }
  const auto garbage = Store::open(options, test_commands());
  REQUIRE_FALSE(garbage);
  CHECK(garbage.error() == Errc::damaged);
  // The claim went with the attempt.
  std::filesystem::remove(options.directory / "data.mdb");
  CHECK(Store::open(options, test_commands()));
  StoreOptions file = options_in(dir.path() / "file");
  std::fclose(std::fopen(file.directory.c_str(), "w"));
  CHECK(Store::open(file, test_commands()).error() == Errc::io_error);
}

TEST_CASE("LMDB syncs at no commit: the checkpoints do") {
  TempDir dir;
  const auto env = flotilla::state::Environment::open({dir.path() / "state", 1u << 20, 4, {}}).value();
  unsigned flags = 0;
  REQUIRE(mdb_env_get_flags(env->handle(), &flags) == 0);
  CHECK((flags & MDB_NOSYNC) != 0);
  CHECK((flags & (MDB_WRITEMAP | MDB_MAPASYNC)) == 0);
}

TEST_SUITE_END();
