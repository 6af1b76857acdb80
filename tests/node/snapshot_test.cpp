// Members that the log cannot serve any more, over real connections and threads.
#include <doctest/doctest.h>

#include <atomic>
#include <map>
#include <set>
#include <thread>

#include "db_fixture.hpp"
#include "log/log.hpp"
#include "node/start.hpp"
#include "state/directory.hpp"

using namespace flotilla;
using flotilla::test::Cluster;
using flotilla::test::eventually;
using flotilla::test::get;

namespace {

/// A log that is soon cut.
void short_log(Options& options) {
  options.trailing_entries = 5;
  options.checkpoint_interval = std::chrono::milliseconds(20);
  options.log_cache_bytes = 8u << 10;
  options.segment_bytes = 64u << 10;
}

/// Puts until the log of `db` begins after `index`.
void write_past(DB& db, Index index) {
  int count = 0;
  eventually([&] {
    REQUIRE(db.command("put", {"filler" + std::to_string(++count % 50), std::string(4000, 'x')}).get());
    return db.status().first_index > index;
  });
}

std::map<std::string, std::string> contents(DB& db) {
  std::map<std::string, std::string> rows;
  const auto txn = db.read();
  REQUIRE(txn);
  for (const auto& [key, value] : txn->table("t").all()) rows.emplace(key, value);
  return rows;
}

void same_everywhere(Cluster& cluster) {
  const Index reached = cluster[cluster.leader()].barrier().get().value();
  for (std::size_t i = 0; i < cluster.size(); ++i) {
    if (!cluster.running(i)) continue;
    const auto txn = cluster[i].read(reached, {.timeout = std::chrono::seconds(20)});
    REQUIRE(txn);
    CHECK(contents(cluster[i]) == contents(cluster[cluster.leader()]));
  }
}

}  // namespace

TEST_SUITE_BEGIN("node.snapshot");

TEST_CASE("the log is trimmed, and the member restarts from what is left") {
  Cluster cluster(1, short_log);
  REQUIRE(cluster[0].command("put", {"k", "first"}).get());
  write_past(cluster[0], Index{20});
  const Index first = cluster[0].status().first_index;
  CHECK(cluster[0].status().applied_index - first < 200);
  cluster.stop(0);
  cluster.start(0);
  CHECK(cluster[0].status().first_index >= first);
  CHECK(get(cluster[0], "k") == "first");
  REQUIRE(cluster[0].command("put", {"k", "second"}).get());
}

TEST_CASE("a member that was away for longer than the log gets a snapshot, and goes on from it") {
  Cluster cluster(3, short_log);
  const std::size_t away = cluster.follower();
  REQUIRE(cluster[away].command("put", {"k", "before"}).get());
  const Index had = cluster[away].status().last_index;
  cluster.stop(away);
  REQUIRE(cluster[cluster.leader()].command("put", {"k", "meanwhile"}).get());
  write_past(cluster[cluster.leader()], had + 1);
  cluster.start(away);
  eventually([&] { return cluster[away].status().snapshots_installed == 1; });
  same_everywhere(cluster);
  CHECK(get(cluster[away], "k") == "meanwhile");
  // It takes part: its own calls, and those of others, and it restarts from what it has.
  REQUIRE(cluster[away].command("put", {"k", "after"}).get());
  CHECK(get(cluster[away], "k") == "after");
  cluster.stop(away);
  REQUIRE(cluster[cluster.leader()].command("put", {"k", "last"}).get());
  cluster.start(away);
  same_everywhere(cluster);
  CHECK(cluster[away].status().snapshots_installed == 0);
}

TEST_CASE("a new member gets a snapshot, is promoted, and counts") {
  Cluster cluster(1, short_log);
  REQUIRE(cluster[0].command("append", {"k", "a"}).get());
  write_past(cluster[0], Index{20});
  test::TempDir dir;
  Options options = test::test_options(dir / "joiner");
  short_log(options);
  options.listen = "127.0.0.1:0";
  options.join = {cluster[0].status().listen};
  auto joiner = DB::open(options, test::test_commands());
  REQUIRE(joiner);
  eventually([&] {
    const auto members = cluster[0].status().members;
    return members.size() == 2 && members[0].voter && members[1].voter;
  });
  CHECK(joiner->status().snapshots_installed == 1);
  CHECK(joiner->command("append", {"k", "b"}).get().value() == "ab");
  REQUIRE(cluster[0].barrier().get());
  CHECK(contents(*joiner) == contents(cluster[0]));
}

TEST_CASE("a member catches up by snapshot while the others are written to without a pause") {
  Cluster cluster(3, short_log);
  const std::size_t away = cluster.follower();
  const std::size_t leads = cluster.leader();
  const Index had = cluster[leads].status().last_index;
  cluster.stop(away);
  write_past(cluster[leads], had + 1);
  std::atomic<bool> caught_up = false;
  std::thread writer([&] {
    for (int i = 0; !caught_up; ++i) {
      static_cast<void>(cluster[leads].command("put", {"w" + std::to_string(i % 10), std::string(2000, 'y')}).get());
    }
  });
  cluster.start(away);
  // Far less than what was written meanwhile, so it was not just the last snapshot.
  eventually([&] {
    const Status status = cluster[away].status();
    return status.snapshots_installed > 0 && status.applied_index + 3 > cluster[leads].status().applied_index;
  });
  caught_up = true;
  writer.join();
  CHECK(cluster[away].status().snapshots_installed <= 3);
  same_everywhere(cluster);
}

TEST_CASE("open snapshots stay as they were while a new state is installed, and long after") {
  Cluster cluster(3, short_log);
  const std::size_t away = cluster.follower();
  REQUIRE(cluster[away].command("put", {"k", "old"}).get());
  auto port = cluster.options(away).listen;
  const Index had = cluster[away].status().last_index;
  cluster.stop(away);
  REQUIRE(cluster[cluster.leader()].command("put", {"k", "new"}).get());
  write_past(cluster[cluster.leader()], had + 1);
  cluster.start(away);
  std::optional<ReadTxn> before(cluster[away].read().value());
  eventually([&] { return cluster[away].status().snapshots_installed == 1; });
  if (before->index() <= had) CHECK(before->table("t").get("k") == "old");
  eventually([&] { return get(cluster[away], "k") == "new"; });
  CHECK(cluster[away].status().readers == 1);
  CHECK(cluster[away].status().oldest_reader_age.count() >= 0);
  cluster.stop(away);
  if (before->index() <= had) CHECK(before->table("t").get("k") == "old");
  before.reset();
}

TEST_CASE("calls that wait at a member while it gets a snapshot end with their results, each applied once") {
  Cluster cluster(3, short_log);
  const std::size_t away = cluster.follower();
  REQUIRE(cluster[away].command("append", {"list", "."}).get());
  const Index had = cluster[away].status().last_index;
  cluster.stop(away);
  write_past(cluster[cluster.leader()], had + 1);
  cluster.start(away);
  std::vector<std::future<Result<Bytes>>> calls;
  for (int i = 0; i < 200; ++i) {
    calls.push_back(cluster[away].command("append", {"list", "x"}, {.timeout = std::chrono::seconds(30)}));
  }
  std::set<std::size_t> lengths;
  for (auto& call : calls) {
    const auto result = call.get();
    REQUIRE(result);
    CHECK(lengths.insert(result->size()).second);  // each its own
  }
  CHECK(*lengths.begin() == 2);
  CHECK(*lengths.rbegin() == 201);
  CHECK(cluster[away].status().snapshots_installed == 1);
  same_everywhere(cluster);
}

TEST_CASE("several members lack the log at once: one leader serves them all") {
  Cluster cluster(5, short_log);
  const std::size_t leads = cluster.leader();
  std::vector<std::size_t> away;
  for (std::size_t i = 0; i < 5 && away.size() < 2; ++i) {
    if (i != leads) away.push_back(i);
  }
  const Index had = cluster[leads].status().last_index;
  for (const std::size_t i : away) cluster.stop(i);
  write_past(cluster[leads], had + 1);
  for (const std::size_t i : away) cluster.start(i);
  for (const std::size_t i : away) {
    eventually([&] { return cluster[i].status().snapshots_installed >= 1; });
  }
  same_everywhere(cluster);
  // Nothing of it is left behind.
  for (std::size_t i = 0; i < 5; ++i) {
    eventually([&] {
      for (const auto& entry : std::filesystem::directory_iterator(cluster.options(i).data_dir)) {
        if (entry.path().native().ends_with(".tmp")) return false;
      }
      return true;
    });
  }
}

namespace {

/// A data directory as start() makes it, in which a snapshot as of `index` was installed; the log is what the caller
/// makes of it.
struct Interrupted {
  test::TempDir dir;
  Options options = test::test_options(dir / "data");
  node::Surroundings surroundings{.files = log::posix_file_system(), .random = 1};

  Interrupted() {
    options.listen = "127.0.0.1:1";
    options.join = {"127.0.0.1:2"};
    const auto made = node::start(surroundings, options, test::test_commands());
    REQUIRE(made);
  }

  void install(std::uint64_t index, std::uint64_t term) {
    test::TempDir other;
    state::StoreOptions from;
    from.directory = other / "state";
    from.map_size = options.map_size;
    auto store = state::Store::open(from, test::test_commands()).value();
    raft::Configuration configuration;
    configuration.members.push_back({NodeId{1}, "127.0.0.1:2", true});
    std::vector<raft::Entry> entries;
    for (std::uint64_t i = 1; i <= index; ++i) {
      raft::Entry entry{.term = Term{term}, .index = Index{i}, .type = raft::EntryType::noop};
      if (i == 1) {
        entry.type = raft::EntryType::configuration;
        entry.payload = SharedBytes(raft::encode(configuration));
      }
      entries.push_back(entry);
    }
    REQUIRE(store->apply(entries));
    const auto copy = store->copy(other / "copy").value();
    auto directory = state::Directory::open(options.data_dir, true).value();
    auto writer = state::SnapshotWriter::create({directory.incoming(), copy.bytes(), copy.hash(), true}).value();
    REQUIRE(writer.write(copy.read(0, copy.bytes()).value()));
    REQUIRE(writer.finish());
    REQUIRE(directory.publish(directory.stage(directory.incoming()).value()));
  }

  std::unique_ptr<log::Log> open_log() {
    return log::Log::open(surroundings.files, {.directory = options.data_dir / "log", .segment_bytes = 64u << 10})
        .value();
  }

  void write_log(std::uint64_t first, std::uint64_t last, std::uint64_t term, std::uint64_t commit = 0) {
    const auto log = open_log();
    std::vector<raft::Entry> entries;
    for (std::uint64_t i = first; i <= last; ++i) {
      entries.push_back({.term = Term{term}, .index = Index{i}, .type = raft::EntryType::noop});
      raft::seal(entries.back());
    }
    const log::Log::Write write{raft::HardState{Term{9}, NodeId{5}}, entries, Index{commit}};
    REQUIRE(log->append({&write, 1}));
  }

  Result<node::Started> start() { return node::start(surroundings, options, test::test_commands()); }
};

}  // namespace

TEST_CASE("interrupted between the new state and its log: the log begins anew, term and vote are kept") {
  Interrupted member;
  member.write_log(1, 10, 2);
  member.install(50, 3);
  for (int again = 0; again < 2; ++again) {
    const auto started = member.start();
    REQUIRE(started);
    CHECK(started->restored.base_index == Index{50});
    CHECK(started->restored.base_term == Term{3});
    CHECK(started->restored.first_index == Index{51});
    CHECK(started->restored.entries.empty());
    CHECK(started->restored.commit_index == Index{50});
    CHECK(started->restored.hard_state == raft::HardState{Term{9}, NodeId{5}});
  }
}

TEST_CASE("interrupted before the snapshot's term was known to the log: it is now, and nobody was voted for in it") {
  Interrupted member;
  member.write_log(1, 10, 2);
  member.install(50, 12);
  const auto started = member.start();
  REQUIRE(started);
  CHECK(started->restored.base_index == Index{50});
  CHECK(started->restored.hard_state == raft::HardState{Term{12}, NodeId{}});
}

TEST_CASE("interrupted with a log that has other entries there: they go") {
  Interrupted member;
  member.write_log(1, 60, 2);
  member.install(50, 3);
  const auto started = member.start();
  REQUIRE(started);
  CHECK(started->restored.first_index == Index{51});
  CHECK(started->restored.entries.empty());
}

TEST_CASE("interrupted with a log that holds the snapshot's last entry: it stays") {
  Interrupted member;
  member.write_log(1, 60, 3);
  member.install(50, 3);
  const auto started = member.start();
  REQUIRE(started);
  CHECK(started->restored.first_index == Index{1});
  CHECK(started->restored.entries.size() == 10);
}

TEST_CASE("without the mark the same finding is damage") {
  Interrupted member;
  member.write_log(1, 10, 2);
  member.install(50, 3);
  auto checkpoint = state::read_checkpoint(member.options.data_dir / "state").value();
  checkpoint.installed = false;
  REQUIRE(state::write_checkpoint(member.options.data_dir / "state", checkpoint, false));

  const auto started = member.start();
  REQUIRE_FALSE(started);
  CHECK(started.error() == Errc::damaged);
}

TEST_CASE("a log that begins right after the state and never heard of its term is damage (A2)") {
  Interrupted member;
  member.write_log(1, 10, 2);
  member.install(50, 12);
  REQUIRE(member.open_log()->begin_anew(Index{50}, Term{3}));
  const auto started = member.start();
  REQUIRE_FALSE(started);
  CHECK(started.error() == Errc::damaged);
}

TEST_CASE("a log that has committed other entries than the snapshot is damage") {
  Interrupted member;
  member.write_log(1, 60, 2, 55);
  member.install(50, 3);
  const auto started = member.start();
  REQUIRE_FALSE(started);
  CHECK(started.error() == Errc::damaged);
}

TEST_SUITE_END();
