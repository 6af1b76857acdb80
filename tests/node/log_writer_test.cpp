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

TEST_SUITE_END();
