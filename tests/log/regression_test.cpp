// What a second reader found: each case failed before it was mended.
#include <algorithm>

#include "log/log.hpp"
#include "support.hpp"

using namespace flotilla;
using namespace flotilla::log;
using namespace flotilla::log::test;

TEST_SUITE_BEGIN("log.regression");

TEST_CASE("a trim interrupted before a segment that was cut at its first block loses nothing") {
  // Power is lost while the first block of segment 2 is written: its header is there and the rest is not, or the
  // reverse.
  bool header_survives = false;
  SUBCASE("without its header") {}
  SUBCASE("with its header") {
    header_survives = true;
  }
  MemoryFileSystem files;
  const LogOptions options = small_options();
  Model model;
  const auto put = [&](Log& log, std::size_t payload_bytes) {
    const std::uint64_t next = model.last() + 1;
    const std::vector<raft::Entry> what = entries(next, next, 1, payload_bytes);
    REQUIRE(append(log, what, vote(1)));
    model.put(what);
  };
  {
    const auto log = must_open(files, options);
    put(*log, 1000);
    model.hard_state = vote(1);
  }
  {
    const auto log = must_open(files, options);
    REQUIRE(append(*log, entries(2, 2, 1, 3000)));
    REQUIRE(segment_paths(files).size() == 2);
    std::string torn = files.contents(segment_path(2));
    const std::size_t from = header_survives ? sector_bytes : 0;
    std::fill_n(torn.begin() + static_cast<std::ptrdiff_t>(from), sector_bytes, '\0');
    files.set_contents(segment_path(2), torn);
  }
  {
    const auto log = must_open(files, options);
    REQUIRE(log->recovered().torn_tail);
    check_same(*log, model);
    for (int count = 0; count < 3; ++count) put(*log, 3000);
  }
  // Every way in which a trim can be interrupted.
  for (std::uint64_t at = 0;; ++at) {
    CAPTURE(at);
    const std::unique_ptr<MemoryFileSystem> copy = files.clone();
    FaultyFileSystem faulty(*copy);
    const auto log = must_open(faulty, options);
    faulty.set_fault({.at = at, .from_then_on = true, .partly = true});
    const bool done = log->trim(log->last_index()).has_value();
    copy->crash([] { return true; });
    const auto found = must_open(*copy, options);
    CHECK(found->last_index().value == model.last());
    CHECK(found->recovered().hard_state == model.hard_state);
    if (done) break;
  }
  // And all that is left begins with a block.
  for (const std::string& path : segment_paths(files)) {
    const std::string bytes = files.contents(path);
    CAPTURE(path);
    CHECK((blocks_of(bytes).size() > 0 || bytes.find_first_not_of('\0') == std::string::npos));
  }
}

TEST_CASE("after a trim a torn first block of the oldest segment is damage: what came before relied on it") {
  MemoryFileSystem files;
  const LogOptions options = small_options(2048);
  {
    const auto log = must_open(files, options);
    for (std::uint64_t index = 1; index <= 3; ++index) {
      REQUIRE(append(*log, entries(index, index, 1, 1500), vote(index)));
    }
    REQUIRE(log->trim(Index{3}));
  }
  REQUIRE(segment_paths(files).size() == 1);
  const std::string path = segment_paths(files).front();
  std::string bytes = files.contents(path);
  REQUIRE(blocks_of(bytes).size() == 1);
  bytes[1000] = static_cast<char>(bytes[1000] ^ 1);
  files.set_contents(path, bytes);
  const auto before = image_of(files);
  const Result<std::unique_ptr<Log>> log = Log::open(files, options);
  REQUIRE_FALSE(log.has_value());
  CHECK(log.error() == Errc::damaged);
  CHECK(image_of(files) == before);
}

TEST_CASE("a log that was created has a block") {
  MemoryFileSystem files;
  const LogOptions options = small_options();
  CHECK(must_open(files, options)->recovered().blocks == 0);
  files.crash([] { return false; });
  REQUIRE(segment_paths(files).size() == 1);
  CHECK(blocks_of(files.contents(segment_path(1))).size() == 1);
  const auto log = must_open(files, options);
  CHECK(log->recovered().blocks == 1);
  CHECK(log->recovered().hard_state == raft::HardState{});
  CHECK(log->first_index() == Index{1});
  CHECK(log->last_index() == Index{});
}

TEST_CASE("a log whose only block is torn says that it had none") {
  MemoryFileSystem files;
  const LogOptions options = small_options();
  must_open(files, options);
  files.set_contents(segment_path(1), "not a block" + std::string(options.segment_bytes - 11, '\0'));
  const auto log = must_open(files, options);
  CHECK(log->recovered().blocks == 0);
  CHECK(log->recovered().torn_tail);
  CHECK(log->last_index() == Index{});
  REQUIRE(append(*log, entries(1, 1, 1), vote(1)));
}

TEST_CASE("a trim while the newest segment has no block yet leaves the one that has the vote") {
  bool reached = true;
  for (std::uint64_t at = 0; reached; ++at) {
    CAPTURE(at);
    MemoryFileSystem memory;
    FaultyFileSystem files(memory);
    auto log = must_open(files, small_options(2048));
    REQUIRE(append(*log, entries(1, 1, 3, 1200), vote(3, 1), 1));
    files.set_fault({.at = at, .from_then_on = true, .error = Errc::disk_full});
    const auto next = entries(2, 2, 3, 1200);
    reached = !append(*log, next);
    files.set_fault({});
    REQUIRE(log->trim(Index{100}));
    log.reset();
    memory.crash([] { return false; });
    log = must_open(files, small_options(2048));
    CHECK(log->recovered().hard_state == vote(3, 1));
  }
}

TEST_SUITE_END();
