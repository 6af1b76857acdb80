#include "node/log_writer.hpp"

#include <doctest/doctest.h>

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

TEST_SUITE_END();
