#include "node/applier.hpp"

#include <atomic>
#include <cerrno>

#include <doctest/doctest.h>
#include <lmdb.h>

#include "db_fixture.hpp"
#include "state/snapshot.hpp"
#include "support/sim_loop.hpp"

using namespace flotilla;
using flotilla::node::Applier;
using flotilla::node::Calls;
using flotilla::node::Done;

namespace {

constexpr std::uint64_t session = 9;

std::unique_ptr<state::Store> open(const std::filesystem::path& directory) {
  state::StoreOptions options;
  options.directory = directory;
  options.map_size = 16u << 20;
  options.sync = false;
  return state::Store::open(options, test::test_commands()).value();
}

raft::Entry entry_of(std::uint64_t index, raft::EntryType type, SharedBytes payload) {
  return {.term = Term{1}, .index = Index{index}, .type = type, .payload = std::move(payload)};
}

raft::Entry append(std::uint64_t index, std::uint64_t sequence, std::string_view text) {
  const std::string_view args[] = {"k", text};
  return entry_of(index, raft::EntryType::command, state::encode_command({session, sequence}, 0, "append", args));
}

/// What another member applied: this one's session, and two calls of it.
state::Applied receive_snapshot(state::Directory& directory) {
  const test::TempDir other;
  const auto store = open(other / "state");
  raft::Configuration configuration;
  configuration.members.push_back({NodeId{1}, "here", true});
  REQUIRE(store->apply(
      std::vector{entry_of(1, raft::EntryType::configuration, SharedBytes(raft::encode(configuration))),
                  entry_of(2, raft::EntryType::session, SharedBytes(state::encode_session({NodeId{1}, 1, session}))),
                  append(3, 1, "a"), append(4, 2, "b")}));
  const auto copy = store->copy(other / "copy").value();
  auto writer = state::SnapshotWriter::create({directory.incoming(), copy.bytes(), copy.hash(), false}).value();
  REQUIRE(writer.write(copy.read(0, copy.bytes()).value()));
  return writer.finish().value();
}

/// How many more calls until one fails, once; 0: none does.
std::atomic<int> transaction_is_full_in = 0;
/// How many more transactions the disk takes; endless where nothing is set.
std::atomic<int> commits_left = -1;

}  // namespace

// The linker sends these calls of the state machine through here (see meson.build).
extern "C" {
int __real_mdb_put(MDB_txn* txn, MDB_dbi dbi, MDB_val* key, MDB_val* data, unsigned flags);
int __wrap_mdb_put(MDB_txn* txn, MDB_dbi dbi, MDB_val* key, MDB_val* data, unsigned flags) {
  if (transaction_is_full_in > 0 && --transaction_is_full_in == 0) return MDB_TXN_FULL;
  return __real_mdb_put(txn, dbi, key, data, flags);
}
int __real_mdb_txn_commit(MDB_txn* txn);
int __wrap_mdb_txn_commit(MDB_txn* txn) {
  if (commits_left == 0) {
    mdb_txn_abort(txn);
    return ENOSPC;
  }
  if (commits_left > 0) --commits_left;
  return __real_mdb_txn_commit(txn);
}
}

TEST_SUITE_BEGIN("node.applier");

TEST_CASE("of a batch that a full disk takes a part of, the rest is applied once there is space (L52)") {
  const test::TempDir dir;
  const auto store = open(dir / "state");
  test::SimScheduler scheduler;
  test::SimLoop loop(scheduler);
  Calls calls(session, {1u << 20, 100});
  std::vector<bool> full;
  Applier applier(loop, loop, *store, calls, {100, 1u << 20},
                  {.applied = [](const auto&) {},
                   .full = [&](const std::optional<Error>& why) { full.push_back(why.has_value()); },
                   .failed = [](const Error& error) { FAIL(error.message()); }});
  applier.submit({entry_of(1, raft::EntryType::session, SharedBytes(state::encode_session({NodeId{1}, 1, session}))),
                  append(2, 1, "a"), append(3, 2, "b"), append(4, 3, "c")});
  transaction_is_full_in = 2;  // so that it takes two
  commits_left = 1;
  scheduler.run_for(std::chrono::seconds(1));
  CHECK(store->applied_index() == Index{2});
  CHECK(full == std::vector{true});
  commits_left = -1;
  applier.submit({append(5, 4, "d")});
  applier.retry();
  scheduler.run_for(std::chrono::seconds(1));
  CHECK(store->applied_index() == Index{5});
  CHECK(store->read()->table("t").get("k") == "abcd");
  CHECK(full == std::vector{true, false});
}

TEST_CASE("calls whose entries an installed snapshot includes end with their results, others wait on (P4)") {
  const test::TempDir dir;
  auto directory = state::Directory::create(dir.path(), false).value();
  const auto store = open(directory.path());
  const auto received = receive_snapshot(directory);
  test::SimScheduler scheduler;
  test::SimLoop loop(scheduler);
  Calls calls(session, {1000, 10});
  std::vector<Bytes> results;
  for (int i = 0; i < 3; ++i) {
    Done done(Completion([&](Result<Bytes> result) { results.push_back(result.value()); }));
    REQUIRE(calls.begin(1, done));
  }
  Applier applier(loop, loop, *store, calls, {100, 1000},
                  {.applied = [](Applier::Progress) {}, .failed = [](const Error& error) { FAIL(error.message()); }});
  std::optional<Applier::Progress> progress;
  applier.install(directory, received, [&](Result<Applier::Progress> done) { progress = std::move(done.value()); });
  scheduler.run_for(std::chrono::seconds(1));
  REQUIRE(progress);
  CHECK(progress->applied_index == Index{4});
  CHECK(progress->ended == std::vector<std::uint64_t>{1, 2});
  REQUIRE(progress->session_outcomes.size() == 1);  // the session's opening was among what was skipped
  CHECK(progress->session_outcomes.front());
  CHECK(results == std::vector<Bytes>{"a", "ab"});
  CHECK(calls.size() == 1);
}

TEST_CASE("a fault of apply is told once, with its reason, and apply is over (G3)") {
  const test::TempDir dir;
  auto directory = state::Directory::create(dir.path(), false).value();
  const auto store = open(directory.path());
  test::SimScheduler scheduler;
  test::SimLoop loop(scheduler);
  Calls calls(session, {1000, 10});
  std::vector<Error> faults;
  Applier applier(
      loop, loop, *store, calls, {1, 1000},
      {.applied = [](Applier::Progress) {}, .failed = [&](const Error& error) { faults.push_back(error); }});
  const SharedBytes unknown = state::encode_command({session, 1}, 0, "nobody has it", {});
  applier.submit({entry_of(1, raft::EntryType::session, SharedBytes(state::encode_session({NodeId{1}, 1, session}))),
                  entry_of(2, raft::EntryType::command, unknown), append(3, 2, "a")});
  scheduler.run_for(std::chrono::seconds(1));
  applier.submit({append(4, 3, "b")});
  scheduler.run_for(std::chrono::seconds(1));
  REQUIRE(faults.size() == 1);
  CHECK(faults.front().message().find("nobody has it") != std::string::npos);
  CHECK(store->applied_index() == Index{1});
}

TEST_SUITE_END();
