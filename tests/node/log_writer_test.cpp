#include "node/log_writer.hpp"

#include <doctest/doctest.h>

#include "log/faulty_file.hpp"
#include "log/memory_file.hpp"
#include "support/sim_loop.hpp"

using namespace flotilla;
using flotilla::node::LogWriter;

namespace {

std::unique_ptr<log::Log> open(log::FileSystem& files) {
  return log::Log::open(files, {.directory = "log", .segment_bytes = 8u << 10, .prepare_ahead = false}).value();
}

}  // namespace

TEST_SUITE_BEGIN("node.log_writer");

TEST_CASE("a log that begins anew keeps the term and vote that are written with that, and the entries after it (A2)") {
  log::MemoryFileSystem files;
  test::SimScheduler scheduler;
  test::SimLoop loop(scheduler);
  {
    const auto log = open(files);
    std::uint64_t durable = 0;
    LogWriter writer(loop, loop, *log,
                     {.durable = [&](std::uint64_t sequence) { durable = sequence; },
                      .failed = [](const Error& error) { FAIL(error.message()); }});
    raft::Entry next{.term = Term{6}, .index = Index{51}, .type = raft::EntryType::noop};
    raft::seal(next);
    writer.submit({.sequence = 1,
                   .hard_state = raft::HardState{Term{6}, NodeId{3}},
                   .log_restart = raft::SnapshotMeta{.index = Index{50}, .term = Term{5}},
                   .entries = {next},
                   .commit_index = Index{50}});
    scheduler.run_for(std::chrono::seconds(1));
    CHECK(durable == 1);
  }
  files.crash([] { return false; });
  const auto log = open(files);
  CHECK(log->recovered().hard_state == raft::HardState{Term{6}, NodeId{3}});
  CHECK(log->recovered().first_index == Index{51});
  CHECK(log->recovered().last_index == Index{51});
  CHECK(log->recovered().commit_index == Index{50});
}

TEST_CASE("after a fault, told once, nothing is written or called durable, also once the disk works again (E6)") {
  log::MemoryFileSystem disk;
  log::FaultyFileSystem files(disk);
  const auto log = open(files);
  test::SimScheduler scheduler;
  test::SimLoop loop(scheduler);
  std::vector<std::uint64_t> durable;
  int faults = 0;
  LogWriter writer(loop, loop, *log,
                   {.durable = [&](std::uint64_t sequence) { durable.push_back(sequence); },
                    .failed = [&](const Error&) { ++faults; }});
  const auto write = [&](std::uint64_t sequence) {
    writer.submit({.sequence = sequence,
                   .hard_state = raft::HardState{Term{sequence}, NodeId{1}},
                   .log_restart = {},
                   .entries = {},
                   .commit_index = {}});
    scheduler.run_for(std::chrono::seconds(1));
  };
  write(1);
  files.set_fault({.at = 0});
  write(2);
  CHECK(files.struck());
  files.set_fault({});
  write(3);
  writer.protect(Index{});
  writer.sync([] { FAIL("synced"); });
  writer.trim(Index{1}, [](Index) { FAIL("trimmed"); });
  writer.read(Index{1}, std::nullopt, 1, [](const LogWriter::Slice&) { FAIL("read"); });
  scheduler.run_for(std::chrono::seconds(1));
  CHECK(durable == std::vector<std::uint64_t>{1});
  CHECK(faults == 1);
  CHECK(open(*disk.clone())->recovered().hard_state.term == Term{1});
}

TEST_CASE("what meets a full disk waits, in order and with what comes later, and is written once there is space") {
  log::MemoryFileSystem disk;
  log::FaultyFileSystem files(disk);
  const auto log = open(files);
  test::SimScheduler scheduler;
  test::SimLoop loop(scheduler);
  std::vector<std::uint64_t> durable;
  std::vector<bool> full;
  LogWriter writer(loop, loop, *log,
                   {.durable = [&](std::uint64_t sequence) { durable.push_back(sequence); },
                    .full = [&](const std::optional<Error>& why) { full.push_back(why.has_value()); },
                    .failed = [](const Error& error) { FAIL(error.message()); }});
  const auto entry = [](std::uint64_t index, std::uint64_t term, std::size_t bytes) {
    raft::Entry made{.term = Term{term}, .index = Index{index}, .type = raft::EntryType::command};
    made.payload = SharedBytes(std::string(bytes, 'x'));
    raft::seal(made);
    return made;
  };
  writer.submit({.sequence = 1,
                 .hard_state = raft::HardState{Term{1}, {}},
                 .log_restart = {},
                 .entries = {entry(1, 1, 100)},
                 .commit_index = {}});
  scheduler.run_for(std::chrono::seconds(1));
  // Each step of a group meets it: a block before the log begins anew, that, and two blocks behind it.
  files.set_fault({.at = 0, .from_then_on = true, .error = Errc::disk_full, .partly = true});
  writer.submit({.sequence = 2,
                 .hard_state = raft::HardState{Term{5}, {}},
                 .log_restart = raft::SnapshotMeta{.index = Index{50}, .term = Term{5}},
                 .entries = {entry(51, 5, 5000), entry(52, 5, 5000)},
                 .commit_index = Index{50}});
  scheduler.run_for(std::chrono::seconds(1));
  writer.submit(
      {.sequence = 3, .hard_state = {}, .log_restart = {}, .entries = {entry(53, 5, 10)}, .commit_index = {}});
  writer.protect(Index{});
  writer.retry();
  scheduler.run_for(std::chrono::seconds(1));
  CHECK(durable == std::vector<std::uint64_t>{1});
  CHECK(full == std::vector<bool>{true});
  CHECK(log->last_index() == Index{1});
  bool more_at_each_try = false;
  SUBCASE("space for one call more at each try") {
    more_at_each_try = true;
  }
  SUBCASE("for as few calls as the longest step needs, at each try: what is done stays done") {
    more_at_each_try = false;
  }
  unsigned tries = 0;
  for (; durable.size() < 2 && tries < 100; ++tries) {
    const unsigned calls = more_at_each_try ? tries : 4;
    files.set_fault({.at = calls, .from_then_on = true, .error = Errc::disk_full, .partly = tries % 2 == 1});
    writer.retry();
    scheduler.run_for(std::chrono::seconds(1));
  }
  CHECK(tries > (more_at_each_try ? 4 : 1));
  CHECK(tries < 100);
  files.set_fault({});
  writer.retry();
  scheduler.run_for(std::chrono::seconds(1));
  CHECK(durable == std::vector<std::uint64_t>{1, 2, 3});
  CHECK(full == std::vector<bool>{true, false});
  disk.crash([] { return false; });
  const auto found = open(disk);
  CHECK(found->recovered().hard_state == raft::HardState{Term{5}, {}});
  CHECK(found->recovered().first_index == Index{51});
  CHECK(found->recovered().last_index == Index{53});
}

TEST_CASE("an idle log that has no space for its empty block goes on without") {
  log::MemoryFileSystem disk;
  log::FaultyFileSystem files(disk);
  const auto log = open(files);
  test::SimScheduler scheduler;
  test::SimLoop loop(scheduler);
  std::uint64_t durable = 0;
  LogWriter writer(loop, loop, *log,
                   {.durable = [&](std::uint64_t sequence) { durable = sequence; },
                    .full = [](const std::optional<Error>&) { FAIL("nobody waits"); },
                    .failed = [](const Error& error) { FAIL(error.message()); }});
  files.set_fault({.at = 0, .error = Errc::disk_full});
  writer.protect(Index{});
  scheduler.run_for(std::chrono::seconds(1));
  CHECK(files.struck());
  writer.submit({.sequence = 1,
                 .hard_state = raft::HardState{Term{1}, NodeId{1}},
                 .log_restart = {},
                 .entries = {},
                 .commit_index = {}});
  scheduler.run_for(std::chrono::seconds(1));
  CHECK(durable == 1);
}

TEST_SUITE_END();
