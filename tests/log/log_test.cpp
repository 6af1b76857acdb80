#include "log/log.hpp"

#include <new>

#include "support.hpp"

using namespace flotilla;
using namespace flotilla::log;
using namespace flotilla::log::test;

TEST_SUITE_BEGIN("log.log");

TEST_CASE("a new log is empty and begins at 1") {
  MemoryFileSystem files;
  const auto log = must_open(files, small_options());
  CHECK(log->recovered().hard_state == raft::HardState{});
  CHECK(log->recovered().first_index == Index{1});
  CHECK(log->recovered().last_index == Index{0});
  CHECK(log->recovered().last_term == Term{0});
  CHECK_FALSE(log->recovered().torn_tail);
  CHECK(log->read(Index{1}, 100).value().empty());
  CHECK(log->term_at(Index{0}).error() == Errc::not_found);
  CHECK(log->term_at(Index{1}).error() == Errc::not_found);
}

TEST_CASE("what was appended is read back, now and after a restart") {
  MemoryFileSystem files;
  const std::vector<raft::Entry> what = entries(1, 100, 3, 150);
  {
    const auto log = must_open(files, small_options());
    REQUIRE(append(*log, what, vote(3, 7), 90));
    CHECK(read_all(*log) == what);
  }
  const auto log = must_open(files, small_options());
  CHECK(log->recovered().hard_state == vote(3, 7));
  CHECK(log->recovered().commit_index == Index{90});
  CHECK(log->recovered().last_index == Index{100});
  CHECK(log->recovered().last_term == Term{3});
  CHECK(read_all(*log) == what);
}

TEST_CASE("a block that a whole segment holds is written with one write and one sync") {
  MemoryFileSystem memory;
  FaultyFileSystem files(memory);
  const auto log = must_open(files, small_options(64 << 10));
  const std::vector<raft::Entry> what = entries(1, 200, 1);
  files.set_fault({});
  REQUIRE(append(*log, what, vote(1)));
  CHECK(files.calls() == 2);
}

TEST_CASE("without a sync of each group, a power loss takes only what came after the last one") {
  MemoryFileSystem memory;
  FaultyFileSystem files(memory);
  LogOptions options = small_options(16 << 10);
  options.sync_each_group = false;
  auto log = must_open(files, options);
  REQUIRE(append(*log, entries(1, 10, 1), vote(1)));
  REQUIRE(log->sync());
  files.set_fault({});
  REQUIRE(log->sync());  // nothing to do
  CHECK(files.calls() == 0);
  for (std::uint64_t index = 11; index <= 20; ++index) REQUIRE(append(*log, entries(index, index, 1), std::nullopt));
  CHECK(files.calls() == 10);  // the writes
  CHECK(log->last_index() == Index{20});
  SUBCASE("a killed process leaves all of it") {
    log.reset();
    log = must_open(files, options);
    CHECK(log->last_index() == Index{20});
    CHECK_FALSE(log->recovered().torn_tail);
    // What was found is durable from now on.
    memory.crash([] { return false; });
    log = must_open(files, options);
    CHECK(log->last_index() == Index{20});
  }
  SUBCASE("a power loss leaves what was synced") {
    memory.crash([] { return false; });
    log = must_open(files, options);
    CHECK(log->last_index() == Index{10});
  }
  SUBCASE("a trim leaves a segment that begins with what a power loss cannot take") {
    REQUIRE(append(*log, entries(21, 40, 1, 700), std::nullopt));
    REQUIRE(segment_paths(memory).size() > 1);
    REQUIRE(log->trim(Index{40}));
    REQUIRE(segment_paths(memory).size() == 1);
    memory.crash([] { return false; });
    log = must_open(files, options);
    CHECK(log->recovered().hard_state == vote(1));
    CHECK(log->last_index() == Index{40});
  }
  SUBCASE("a new segment is begun behind what is durable") {
    REQUIRE(append(*log, entries(21, 40, 1, 700), std::nullopt));
    memory.crash([] { return false; });
    log = must_open(files, options);
    CHECK(log->last_index() >= Index{20});
  }
  const Index last = log->last_index();
  REQUIRE(append(*log, entries(last.value + 1, last.value + 5, 2), vote(2)));
  REQUIRE(log->sync());
  memory.crash([] { return false; });
  log = must_open(files, options);
  CHECK(log->last_index() == Index{last.value + 5});
}

TEST_CASE("several writes make one block, in which a lower index supersedes") {
  MemoryFileSystem files;
  const auto log = must_open(files, small_options(64 << 10));
  REQUIRE(append(*log, entries(1, 5, 1), vote(1)));
  const std::vector<raft::Entry> first = entries(6, 9, 1);
  const std::vector<raft::Entry> second = entries(8, 10, 2);
  const std::vector<raft::Entry> third = entries(4, 4, 3);
  const std::vector<raft::Entry> fourth = entries(5, 6, 3);
  const Log::Write group[] = {{std::nullopt, first, Index{1}},
                              {vote(2, 5), second, Index{2}},
                              {vote(3), third, Index{3}},
                              {std::nullopt, fourth, Index{2}}};
  REQUIRE(log->append(group));
  Model model;
  model.put(entries(1, 3, 1));
  model.put(entries(4, 6, 3));
  check_same(*log, model);
  const std::vector<BlockHeader> blocks = blocks_of(files.contents(segment_path(1)));
  REQUIRE(blocks.size() == 3);  // the first is that of a new log
  CHECK(blocks[2].first_index == Index{4});
  CHECK(blocks[2].records == 3);
  CHECK(blocks[2].hard_state == vote(3));
  CHECK(blocks[2].commit_index == Index{3});
  const auto again = must_open(files, small_options(64 << 10));
  check_same(*again, model);
}

TEST_CASE("the commit index is kept as far as the log reaches, and never goes back") {
  MemoryFileSystem files;
  auto log = must_open(files, small_options());
  REQUIRE(append(*log, entries(1, 4, 1), vote(1), 100));
  log = must_open(files, small_options());
  CHECK(log->recovered().commit_index == Index{4});
  REQUIRE(append(*log, {}, std::nullopt, 2));
  log = must_open(files, small_options());
  CHECK(log->recovered().commit_index == Index{4});
}

TEST_CASE("read() gives at least one entry and otherwise at most bytes_max") {
  MemoryFileSystem files;
  const auto log = must_open(files, small_options(64 << 10));
  REQUIRE(append(*log, entries(1, 10, 1, 64), vote(1)));
  CHECK(log->read(Index{3}, 0).value().size() == 1);
  CHECK(log->read(Index{3}, 2 * (64 + raft::record_header_bytes)).value().size() == 2);
  CHECK(log->read(Index{3}, 3 * (64 + raft::record_header_bytes) - 1).value().size() == 2);
  CHECK(log->read(Index{3}, 1 << 20).value().size() == 8);
  CHECK(log->read(Index{11}, 1 << 20).value().empty());
  CHECK(log->read(Index{0}, 1 << 20).error() == Errc::not_found);
}

TEST_CASE("a group larger than a segment is spread over as many as it takes") {
  MemoryFileSystem files;
  const std::vector<raft::Entry> what = entries(1, 60, 1, 500);
  auto log = must_open(files, small_options());
  REQUIRE(append(*log, what, vote(1)));
  CHECK(segment_paths(files).size() >= 8);
  CHECK(read_all(*log) == what);
  log = must_open(files, small_options());
  CHECK(read_all(*log) == what);
}

TEST_CASE("an entry larger than a segment gets one of its own size") {
  MemoryFileSystem files;
  auto log = must_open(files, small_options());
  REQUIRE(append(*log, entries(1, 2, 1), vote(1)));
  REQUIRE(append(*log, entries(3, 3, 1, 300'000)));
  REQUIRE(append(*log, entries(4, 4, 1)));
  Model model;
  model.put(entries(1, 2, 1));
  model.put(entries(3, 3, 1, 300'000));
  model.put(entries(4, 4, 1));
  check_same(*log, model);
  CHECK(segment_paths(files).size() == 3);
  CHECK(log->bytes() > 300'000);
  log = must_open(files, small_options());
  check_same(*log, model);
}

TEST_CASE("a suffix over three segments is superseded without touching them") {
  MemoryFileSystem files;
  const LogOptions options = small_options();
  auto log = must_open(files, options);
  Model model;
  for (std::uint64_t index = 1; index <= 24; ++index) {
    REQUIRE(append(*log, entries(index, index, 1, 500), vote(1)));
    model.put(entries(index, index, 1, 500));
  }
  REQUIRE(segment_paths(files).size() >= 3);
  const auto before = image_of(files);
  const std::vector<raft::Entry> fork = entries(3, 5, 2, 100);
  REQUIRE(append(*log, fork, vote(2)));
  model.put(fork);
  check_same(*log, model);
  const auto after = image_of(files);
  for (std::size_t at = 0; at + 1 < before.size(); ++at) CHECK(before[at] == after[at]);
  log = must_open(files, options);
  check_same(*log, model);
  REQUIRE(append(*log, entries(6, 7, 2)));
  model.put(entries(6, 7, 2));
  check_same(*log, model);
}

TEST_CASE("trim removes whole segments from the front, and the vote outlives them") {
  MemoryFileSystem files;
  const LogOptions options = small_options();
  auto log = must_open(files, options);
  Model model;
  REQUIRE(append(*log, {}, vote(9, 3)));
  for (std::uint64_t index = 1; index <= 30; ++index) {
    REQUIRE(append(*log, entries(index, index, 2, 500)));
    model.put(entries(index, index, 2, 500));
  }
  const std::uint64_t bytes = log->bytes();
  REQUIRE(log->trim(Index{15}));
  CHECK(log->first_index() > Index{1});
  CHECK(log->first_index() <= Index{15});
  CHECK(log->bytes() < bytes);
  model.forget_below(log->first_index().value);
  check_same(*log, model);
  CHECK(log->read(log->first_index().previous(), 1).error() == Errc::not_found);
  log = must_open(files, options);
  check_same(*log, model);
  CHECK(log->recovered().hard_state == vote(9, 3));

  SUBCASE("down to the segment being written") {
    REQUIRE(log->trim(Index{1000}));
    CHECK(segment_paths(files).size() == 1);
    log = must_open(files, options);
    CHECK(log->recovered().hard_state == vote(9, 3));
    CHECK(log->recovered().last_index == Index{30});
    CHECK(log->recovered().last_term == Term{2});
  }
}

TEST_CASE("a log whose last entries were trimmed away still knows where it ends") {
  MemoryFileSystem files;
  const LogOptions options = small_options(1024);
  auto log = must_open(files, options);
  REQUIRE(append(*log, entries(1, 3, 5, 100), vote(5)));
  REQUIRE(append(*log, {}));  // rolls: the newest segment holds no entry
  REQUIRE(append(*log, {}));
  REQUIRE(log->trim(Index{4}));
  CHECK(log->first_index() == Index{4});
  CHECK(log->last_index() == Index{3});
  log = must_open(files, options);
  CHECK(log->recovered().first_index == Index{4});
  CHECK(log->recovered().last_index == Index{3});
  CHECK(log->recovered().last_term == Term{5});
  REQUIRE(append(*log, entries(4, 4, 5)));
  CHECK(read_all(*log) == entries(4, 4, 5));
}

TEST_CASE("a trim never takes what a later block superseded for live entries") {
  MemoryFileSystem files;
  const LogOptions options = small_options();
  auto log = must_open(files, options);
  Model model;
  for (std::uint64_t index = 1; index <= 24; ++index) REQUIRE(append(*log, entries(index, index, 1, 500), vote(1)));
  model.put(entries(1, 24, 1, 500));
  REQUIRE(append(*log, entries(6, 6, 2, 500), vote(2)));
  model.put(entries(6, 6, 2, 500));
  // Segments with nothing but superseded entries go as soon as those before them do.
  REQUIRE(log->trim(Index{6}));
  model.forget_below(6);
  CHECK(segment_paths(files).size() == 1);
  check_same(*log, model);
  log = must_open(files, options);
  check_same(*log, model);
}

TEST_CASE("begin_anew drops every entry, keeps term and vote, and goes on right behind the snapshot") {
  MemoryFileSystem files;
  const LogOptions options = small_options();
  auto log = must_open(files, options);
  REQUIRE(append(*log, entries(1, 20, 2, 500), vote(4, 8), 3));
  REQUIRE(log->begin_anew(Index{1000}, Term{4}));
  for (int round = 0; round < 2; ++round) {
    CAPTURE(round);
    CHECK(log->first_index() == Index{1001});
    CHECK(log->last_index() == Index{1000});
    log = must_open(files, options);
    CHECK(log->recovered().hard_state == vote(4, 8));
    CHECK(log->recovered().commit_index == Index{1000});
    CHECK(log->recovered().last_term == Term{4});
  }
  REQUIRE(log->trim(Index{0}));  // nothing lives in the older segments
  CHECK(segment_paths(files).size() == 1);
  REQUIRE(append(*log, entries(1001, 1002, 4)));
  log = must_open(files, options);
  CHECK(read_all(*log) == entries(1001, 1002, 4));
}

TEST_CASE("after a failed write or sync every later call returns the same error") {
  for (std::uint64_t call = 0; call < 2; ++call) {
    CAPTURE(call);
    MemoryFileSystem memory;
    FaultyFileSystem files(memory);
    const auto log = must_open(files, small_options());
    REQUIRE(append(*log, entries(1, 2, 1), vote(1)));
    files.set_fault({.at = call});
    const Result<void> failed = append(*log, entries(3, 3, 1));
    REQUIRE_FALSE(failed.has_value());
    files.set_fault({});  // the device is well again
    CHECK(append(*log, entries(3, 3, 1)).error().message() == failed.error().message());
    CHECK(log->read(Index{1}, 100).error().message() == failed.error().message());
    CHECK(log->term_at(Index{1}).error().message() == failed.error().message());
    CHECK(log->trim(Index{1}).error().message() == failed.error().message());
    CHECK(log->begin_anew(Index{9}, Term{1}).error().message() == failed.error().message());
    CHECK(files.calls() == 0);
  }
}

namespace {

/// Memory runs out inside a call, as often as wanted.
class ThrowingFileSystem final : public FileSystem {
 public:
  explicit ThrowingFileSystem(FileSystem& inner) : inner_(inner) {}
  void throw_after(int calls) { left_ = calls; }

  Result<std::unique_ptr<File>> open(const std::string& path, Mode mode) override {
    Result<std::unique_ptr<File>> file = inner_.open(path, mode);
    if (!file) return file;
    return std::unique_ptr<File>(std::make_unique<Handle>(*this, std::move(*file)));
  }
  Result<void> rename(const std::string& from, const std::string& to) override { return inner_.rename(from, to); }
  Result<void> remove(const std::string& path) override { return inner_.remove(path); }
  Result<void> sync_directory(const std::string& directory) override { return inner_.sync_directory(directory); }
  Result<void> make_directory(const std::string& path) override { return inner_.make_directory(path); }
  Result<std::vector<std::string>> list(const std::string& directory) override { return inner_.list(directory); }
  Result<bool> exists(const std::string& path) override { return inner_.exists(path); }

 private:
  class Handle final : public File {
   public:
    Handle(ThrowingFileSystem& files, std::unique_ptr<File> inner) : files_(files), inner_(std::move(inner)) {}
    Result<void> write_at(std::uint64_t offset, const iovec* parts, int count) override {
      files_.count();
      return inner_->write_at(offset, parts, count);
    }
    Result<std::string> read_at(std::uint64_t offset, std::size_t count) override {
      files_.count();
      return inner_->read_at(offset, count);
    }
    Result<void> sync() override {
      files_.count();
      return inner_->sync();
    }
    Result<std::uint64_t> size() override { return inner_->size(); }
    Result<void> allocate(std::uint64_t bytes) override { return inner_->allocate(bytes); }

   private:
    ThrowingFileSystem& files_;
    std::unique_ptr<File> inner_;
  };
  void count() {
    if (left_-- == 0) throw std::bad_alloc();
  }

  FileSystem& inner_;
  int left_ = -1;
};

}  // namespace

TEST_CASE("an exception out of the middle of a call ends the log, and a restart finds what it left") {
  for (int calls = 0; calls < 2; ++calls) {
    CAPTURE(calls);
    MemoryFileSystem memory;
    ThrowingFileSystem files(memory);
    {
      const auto log = must_open(files, small_options());
      REQUIRE(append(*log, entries(1, 2, 1), vote(1)));
      files.throw_after(calls);
      CHECK_THROWS_AS(static_cast<void>(append(*log, entries(3, 3, 1))), std::bad_alloc);
      CHECK(append(*log, entries(3, 3, 1)).error() == Errc::stopped);
      CHECK(log->read(Index{1}, 100).error() == Errc::stopped);
    }
    const auto log = must_open(memory, small_options());
    Model model;
    model.put(entries(1, calls == 0 ? 2 : 3, 1));
    check_same(*log, model);
  }
}

TEST_CASE("memory grows with bytes of log, not with entries") {
  LogMap map;
  std::uint64_t at = 0;
  for (std::uint64_t index = 1; index <= 100'000; ++index) {
    map.add(Index{index}, Term{1 + index / 50'000}, 1, at, at + block_header_bytes);
    at += 512;
  }
  CHECK(map.marks() <= at / (64 << 10) + 1);
  CHECK(map.term_at(Index{49'999}) == Term{1});
  CHECK(map.term_at(Index{50'000}) == Term{2});
  CHECK(map.mark_at(Index{77'777}).first <= Index{77'777});
  CHECK(map.reach_of(map.mark_at(Index{77'777})) >= Index{77'777});
}

TEST_CASE("reading in the middle of a very large block does not begin at its start") {
  MemoryFileSystem files;
  LogOptions options = small_options(4 << 20);
  const auto log = must_open(files, options);
  const std::vector<raft::Entry> what = entries(1, 5000, 1, 400);
  REQUIRE(append(*log, what, vote(1)));
  REQUIRE(blocks_of(files.contents(segment_path(1))).size() == 2);  // and that of a new log
  for (const std::uint64_t index : {1u, 2u, 150u, 151u, 2500u, 4999u, 5000u}) {
    CAPTURE(index);
    const auto some = log->read(Index{index}, 1000);
    REQUIRE(some.has_value());
    CHECK(some->front() == what[index - 1]);
  }
}

TEST_SUITE_END();
