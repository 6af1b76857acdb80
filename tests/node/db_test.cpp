#include <algorithm>
#include <atomic>
#include <future>
#include <set>

#include <fcntl.h>
#include <unistd.h>

#include "db_fixture.hpp"

using namespace flotilla;
using namespace flotilla::test;
using namespace std::chrono_literals;

TEST_SUITE_BEGIN("node.db.one_member");

TEST_CASE("a directory alone opens a complete database without a port") {
  TempDir dir;
  auto db = DB::open(test_options(dir / "data"), test_commands());
  REQUIRE(db);
  REQUIRE(db->command("put", {"a", "1"}).get());
  CHECK(get(*db, "a") == "1");
  CHECK(db->is_leader());
  CHECK(db->status().listen.empty());
  CHECK(db->streams().address().empty());
}

TEST_CASE("a result is visible to every later read, and survives closing and opening") {
  TempDir dir;
  ClusterId cluster;
  for (int run = 0; run < 3; ++run) {
    auto db = DB::open(test_options(dir / "data"), test_commands());
    REQUIRE(db);
    CHECK(db->status().incarnation == static_cast<std::uint64_t>(run + 1));
    if (run == 0) cluster = db->status().cluster_id;
    CHECK(db->status().cluster_id == cluster);
    if (run > 0) CHECK(get(*db, "key") == std::string(static_cast<std::size_t>(run) * 10, 'x'));
    for (int i = 0; i < 10; ++i) {
      const auto result = db->command("append", {"key", "x"}).get();
      REQUIRE(result);
      CHECK(get(*db, "key") == *result);
    }
  }
}

TEST_CASE("the completion form runs once, on a thread of the database, and may issue the next command") {
  TempDir dir;
  auto db = DB::open(test_options(dir / "data"), test_commands());
  REQUIRE(db);
  std::promise<int> finished;
  std::atomic<int> count = 0;
  std::function<void()> next = [&] {
    db->command("append", {"k", "x"}, [&](Result<Bytes> result) {
      if (!result || ++count == 50) {
        finished.set_value(count);
      } else {
        next();
      }
    });
  };
  next();
  CHECK(finished.get_future().get() == 50);
  CHECK(get(*db, "k").size() == 50);
}

TEST_CASE("a command that throws leaves nothing behind and does not disturb its neighbours") {
  TempDir dir;
  auto db = DB::open(test_options(dir / "data"), test_commands());
  REQUIRE(db);
  std::vector<std::future<Result<Bytes>>> good;
  std::vector<std::future<Result<Bytes>>> bad;
  for (int i = 0; i < 50; ++i) {
    good.push_back(db->command("append", {"good", "x"}));
    bad.push_back(db->command("throw", {"bad"}));
  }
  for (auto& future : good) CHECK(future.get());
  for (auto& future : bad) CHECK(future.get().error() == Errc::command_failed);
  CHECK(get(*db, "good").size() == 50);
  CHECK(get(*db, "bad") == "(none)");
}

TEST_CASE("every call ends when the database is closed, and later ones are refused") {
  TempDir dir;
  auto db = DB::open(test_options(dir / "data"), test_commands());
  REQUIRE(db);
  std::vector<std::future<Result<Bytes>>> calls;
  for (int i = 0; i < 2000; ++i) calls.push_back(db->command("append", {"k", "x"}));
  REQUIRE(db->close());
  std::size_t applied = 0;
  std::size_t open = 0;
  for (auto& call : calls) {
    REQUIRE(call.wait_for(0s) == std::future_status::ready);
    const auto result = call.get();
    if (result) {
      ++applied;
    } else {
      CHECK((result.error() == Errc::outcome_unknown || result.error() == Errc::shutting_down));
      if (result.error() == Errc::outcome_unknown) ++open;
    }
  }
  CHECK(db->command("append", {"k", "x"}).get().error() == Errc::shutting_down);
  CHECK(db->read().error() == Errc::closed);
  CHECK(db->barrier().get().error() == Errc::shutting_down);
  CHECK(db->close());
  auto again = DB::open(test_options(dir / "data"), test_commands());
  REQUIRE(again);
  const std::string value = get(*again, "k");
  const std::size_t there = value == "(none)" ? 0 : value.size();
  CHECK(there >= applied);
  CHECK(there <= applied + open);
}

TEST_CASE("threads that read without a pause do not keep a database from closing, and hear that it is closed") {
  TempDir dir;
  auto db = DB::open(test_options(dir / "data"), test_commands());
  REQUIRE(db);
  REQUIRE(db->command("append", {"k", "x"}).get());
  std::vector<std::thread> threads;
  std::atomic<int> reading = 0;
  for (int thread = 0; thread < 8; ++thread) {
    threads.emplace_back([&] {
      bool counted = false;
      for (;;) {
        const auto snapshot = db->read();
        if (!snapshot) {
          CHECK(snapshot.error() == Errc::closed);
          return;
        }
        CHECK(snapshot->table("t").get("k") == "x");
        if (!std::exchange(counted, true)) ++reading;
      }
    });
  }
  eventually([&] { return reading == 8; });
  CHECK(db->close());
  for (auto& thread : threads) thread.join();
  CHECK(db->read().error() == Errc::closed);
  CHECK(DB::open(test_options(dir / "data"), test_commands()));
}

TEST_CASE("many threads call at once and every success is there exactly once") {
  TempDir dir;
  auto db = DB::open(test_options(dir / "data"), test_commands());
  REQUIRE(db);
  std::vector<std::thread> threads;
  std::atomic<int> succeeded = 0;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&] {
      for (int i = 0; i < 200; ++i) {
        if (db->command("append", {"k", "x"}).get()) ++succeeded;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(succeeded == 800);
  CHECK(get(*db, "k").size() == 800);
}

TEST_CASE("the metrics have each command once, and each stage as often as it was passed") {
  TempDir dir;
  auto db = DB::open(test_options(dir / "data"), test_commands());
  REQUIRE(db);
  REQUIRE(db->command("append", {"k", "x"}).get());  // behind what a start writes
  const Metrics before = db->metrics();
  constexpr std::uint64_t count = 100;
  for (std::uint64_t i = 0; i < count; ++i) REQUIRE(db->command("append", {"k", "x"}).get());
  REQUIRE_FALSE(db->command("no such command", {}).get());
  REQUIRE(db->close());
  const Metrics after = db->metrics();
  CHECK(after.command.count - before.command.count == count);
  CHECK(after.queue.count - before.queue.count == count);
  CHECK(after.logged_entries - before.logged_entries == count);
  CHECK(after.applied_entries - before.applied_entries == count);
  // One after the other: each was a group and a batch of its own.
  CHECK(after.log_wait.count - before.log_wait.count >= count);
  CHECK(after.log_sync.count - before.log_sync.count >= count);
  CHECK(after.quorum.count - before.quorum.count == count);
  CHECK(after.apply_wait.count - before.apply_wait.count == count);
  CHECK(after.apply.count - before.apply.count == count);
  CHECK(after.completion.count - before.completion.count >= count);  // added after the caller was told
  CHECK(after.command.sum >= after.queue.sum);
  // A command takes at least its stages, and what they measure is in it.
  const auto stages = after.log_sync.sum + after.apply.sum - before.log_sync.sum - before.apply.sum;
  CHECK(after.command.sum - before.command.sum + after.log_sync.longest >= stages);
}

TEST_CASE("a barrier and a linearizable read work on a cluster of one") {
  TempDir dir;
  auto db = DB::open(test_options(dir / "data"), test_commands());
  REQUIRE(db);
  REQUIRE(db->command("put", {"a", "1"}).get());
  const auto index = db->barrier().get();
  REQUIRE(index);
  CHECK(*index >= Index{3});
  auto txn = db->read(Consistency::linearizable);
  REQUIRE(txn);
  CHECK(txn->table("t").get("a") == "1");
  CHECK(db->read(*index));
  CHECK(db->read(*index + 1000, {.timeout = 20ms}).error() == Errc::timeout);
}

TEST_CASE("more arguments than an entry can carry are refused here, not by every member after commit") {
  TempDir dir;
  auto db = DB::open(test_options(dir / "data"), test_commands());
  REQUIRE(db);
  const std::vector<std::string_view> args(65'537);
  CHECK(db->command("put", std::span(args)).get().error() == Errc::invalid_argument);
  CHECK(db->command("put", {"a", "1"}).get());
  CHECK_FALSE(db->status().fault);
}

TEST_CASE("calls without end are refused as overloaded, and those admitted all end with their results") {
  TempDir dir;
  auto db = DB::open(test_options(dir / "data"), test_commands());
  REQUIRE(db);
  std::vector<std::future<Result<Bytes>>> calls;
  calls.reserve(40'000);
  for (int i = 0; i < 40'000; ++i) calls.push_back(db->command("put", {"k", "v"}));
  for (auto& call : calls) {
    const auto result = call.get();
    if (!result) CHECK(result.error() == Errc::overloaded);
  }
  CHECK(db->command("put", {"k", "v"}).get());
}

TEST_CASE("what the completion of a barrier throws disturbs nobody") {
  TempDir dir;
  auto db = DB::open(test_options(dir / "data"), test_commands());
  REQUIRE(db);
  db->barrier([](Result<Index>) { throw std::runtime_error("on purpose"); });
  CHECK(db->barrier().get());
  CHECK_FALSE(db->status().fault);
}

TEST_CASE("a database may be replaced by another from its own completion") {
  TempDir dir;
  auto db = DB::open(test_options(dir / "one"), test_commands());
  auto other = DB::open(test_options(dir / "two"), test_commands());
  REQUIRE(db);
  REQUIRE(other);
  std::promise<void> replaced;
  db->command("put", {"a", "1"}, [&](Result<Bytes>) {
    *db = std::move(*other);
    replaced.set_value();
  });
  replaced.get_future().get();
  CHECK(db->command("put", {"b", "2"}).get());
  CHECK(get(*db, "a") == "(none)");
}

TEST_CASE(
    "a directory may be named with a slash at its end, below others that do not exist, and a timeout may be for ever") {
  TempDir dir;
  auto db = DB::open(test_options((dir / "a" / "b" / "data").string() + "/"), test_commands());
  REQUIRE(db);
  CHECK(db->command("put", {"a", "1"}, {.timeout = std::chrono::milliseconds::max()}).get());
}

TEST_CASE("a member that has an identity does not start from an empty log") {
  TempDir dir;
  REQUIRE(DB::open(test_options(dir / "data"), test_commands()));
  for (const auto& segment : std::filesystem::directory_iterator(dir / "data" / "log")) {
    std::filesystem::remove(segment.path());
  }
  const auto db = DB::open(test_options(dir / "data"), test_commands());
  REQUIRE_FALSE(db);
  CHECK(db.error() == Errc::damaged);
}

TEST_CASE("time never goes back along the log") {
  TempDir dir;
  auto db = DB::open(test_options(dir / "data"), test_commands());
  REQUIRE(db);
  std::uint64_t before = 0;
  for (int i = 0; i < 20; ++i) {
    const std::uint64_t now = std::stoull(db->command("time", {}).get().value());
    CHECK(now >= before);
    before = now;
  }
}

TEST_CASE("past the file size that is allowed commands are refused, reads go on, and a larger one takes them again") {
  TempDir dir;
  Options options = test_options(dir / "data");
  options.state_bytes_max = 2u << 20;
  Errc ended{};
  int written = 0;
  {
    auto db = DB::open(options, test_commands()).value();
    CHECK_FALSE(db.status().refusing);
    eventually([&] {
      const auto done = db.command("put", {std::to_string(written), std::string(10'000, 'x')}).get();
      if (done) return ++written == 10'000;
      ended = static_cast<Errc>(done.error().code().value());
      CHECK(done.error().message().find("Options::state_bytes_max") != std::string::npos);
      return true;
    });
    CHECK(ended == Errc::disk_full);
    CHECK(get(db, std::to_string(written - 1)).size() == 10'000);
    CHECK(get(db, std::to_string(written)) == "(none)");
    CHECK(db.read(Consistency::linearizable));
    eventually([&] { return db.status().refusing.has_value(); });
    CHECK_FALSE(db.status().fault);
  }
  options.state_bytes_max = 32u << 20;
  auto db = DB::open(options, test_commands()).value();
  CHECK(get(db, std::to_string(written - 1)).size() == 10'000);
  REQUIRE(db.command("put", {"more", "1"}).get());
}

TEST_CASE("a disk with less than the reserve takes no commands, and takes them again when there is space") {
  TempDir dir;
  Options options = test_options(dir / "data");
  const auto free = std::filesystem::space(dir / ".").available;
  // Far more than other users of the disk take or give back meanwhile.
  const std::filesystem::path ballast = dir / "ballast";
  constexpr std::uint64_t step = std::uint64_t{1} << 30;
  REQUIRE(free > 4 * step);
  options.disk_reserve_bytes = free - 2 * step;
  auto db = DB::open(options, test_commands()).value();
  REQUIRE(db.command("put", {"a", "1"}).get());
  const int file = ::open(ballast.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  REQUIRE(file >= 0);
  REQUIRE(::posix_fallocate(file, 0, 3 * step) == 0);
  eventually([&] { return db.status().refusing.has_value(); });
  const auto refused = db.command("put", {"b", "1"}).get();
  REQUIRE_FALSE(refused);
  CHECK(refused.error() == Errc::disk_full);
  CHECK(refused.error().message().find("Options::disk_reserve_bytes") != std::string::npos);
  CHECK(get(db, "a") == "1");
  REQUIRE(::ftruncate(file, 0) == 0);
  ::close(file);
  eventually([&] { return !db.status().refusing; });
  REQUIRE(db.command("put", {"b", "1"}).get());
}

TEST_CASE("less durability is for a database without a port; an orderly end loses nothing of it") {
  TempDir dir;
  for (const Durability durability : {Durability::interval, Durability::os}) {
    Options options = test_options(dir / std::to_string(static_cast<int>(durability)));
    options.durability = durability;
    options.sync_interval = std::chrono::milliseconds(5);
    options.checkpoint_interval = std::chrono::milliseconds(20);
    for (int round = 0; round < 3; ++round) {
      auto db = DB::open(options, test_commands()).value();
      CHECK(get(db, "k") == (round == 0 ? "(none)" : std::string(100 * round, 'x')));
      for (int i = 0; i < 100; ++i) REQUIRE(db.command("append", {"k", "x"}).get());
      eventually([&] { return db.status().checkpoint_index == db.status().applied_index; });
    }
    options.listen = "127.0.0.1:0";
    const auto refused = DB::open(options, test_commands());
    REQUIRE_FALSE(refused);
    CHECK(refused.error() == Errc::invalid_argument);
    CHECK(refused.error().message().find("Options::durability") != std::string::npos);
  }
}

TEST_SUITE_END();

TEST_SUITE_BEGIN("node.db.three_members");

TEST_CASE("members join the founder, become voters, and all hold what any of them wrote") {
  Cluster cluster(3);
  for (std::size_t i = 0; i < 3; ++i) {
    const auto result = cluster[i].command("append", {"k", std::to_string(i)}).get();
    REQUIRE(result);
    CHECK(get(cluster[i], "k") == *result);  // applied here before the future is ready
  }
  for (std::size_t i = 0; i < 3; ++i) {
    auto txn = cluster[i].read(Consistency::linearizable);
    REQUIRE(txn);
    CHECK(txn->table("t").get("k") == "012");
    CHECK(cluster[i].leader().has_value());
    CHECK(cluster[i].status().members.size() == 3);
  }
}

TEST_CASE("a linearizable read on every member sees what any member was told, at once") {
  Cluster cluster(3);
  for (int round = 0; round < 60; ++round) {
    const std::size_t writer = static_cast<std::size_t>(round) % 3;
    REQUIRE(cluster[writer].command("put", {"k", std::to_string(round)}).get());
    auto txn = cluster[(writer + 1) % 3].read(Consistency::linearizable);
    REQUIRE(txn);
    CHECK(txn->table("t").get("k") == std::to_string(round));
  }
}

TEST_CASE("commands go on after the leader closed, and after it came back, and none takes effect twice") {
  Cluster cluster(3);
  std::atomic<bool> stop = false;
  std::atomic<int> acknowledged = 0;
  std::atomic<int> unknown = 0;
  const std::size_t leader = cluster.leader();
  const std::size_t writer = (leader + 1) % 3;
  std::thread load([&] {
    while (!stop) {
      const auto result = cluster[writer].command("append", {"k", "x"}).get();
      if (result) {
        ++acknowledged;
      } else if (result.error() == Errc::outcome_unknown) {
        ++unknown;
      }
    }
  });
  eventually([&] { return acknowledged > 50; });
  cluster.stop(leader);
  const int before = acknowledged;
  eventually([&] { return acknowledged > before + 50; });
  cluster.start(leader);
  const int after = acknowledged;
  eventually([&] { return acknowledged > after + 50; });
  stop = true;
  load.join();
  for (std::size_t i = 0; i < 3; ++i) {
    auto txn = cluster[i].read(Consistency::linearizable);
    REQUIRE(txn);
    const std::size_t there = txn->table("t").get("k").value_or("").size();
    CHECK(there >= static_cast<std::size_t>(acknowledged));
    CHECK(there <= static_cast<std::size_t>(acknowledged + unknown));
  }
  CHECK(unknown == 0);  // the same call is sent again to the next leader
}

TEST_CASE("without a majority a call ends by its deadline, and with one again calls succeed") {
  Cluster cluster(3);
  const std::size_t survivor = cluster.follower();
  for (std::size_t i = 0; i < 3; ++i) {
    if (i != survivor) cluster.stop(i);
  }
  eventually([&] { return !cluster[survivor].leader().has_value(); });
  const auto begun = std::chrono::steady_clock::now();
  const auto refused = cluster[survivor].command("append", {"k", "x"}, {.timeout = 300ms}).get();
  CHECK(std::chrono::steady_clock::now() - begun < 5s);
  REQUIRE_FALSE(refused);
  CHECK(refused.error() == Errc::no_leader);
  CHECK(cluster[survivor].read(Consistency::linearizable, {.timeout = 100ms}).error() == Errc::no_leader);
  CHECK(cluster[survivor].read());
  for (std::size_t i = 0; i < 3; ++i) {
    if (i != survivor) cluster.start(i);
  }
  CHECK(cluster[survivor].command("append", {"k", "y"}).get() == Bytes("y"));
}

TEST_CASE("a new member needs to be told whether it founds or joins") {
  TempDir dir;
  Options options = test_options(dir / "data");
  options.listen = "127.0.0.1:0";
  const auto db = DB::open(options, test_commands());
  REQUIRE_FALSE(db);
  CHECK(db.error() == Errc::not_founded);
}

TEST_SUITE_END();
