#include "log/segment_maker.hpp"

#include <atomic>

#include "support.hpp"

using namespace flotilla;
using namespace flotilla::log;
using namespace flotilla::log::test;

namespace {

/// Lets a test wait until the preparing thread did something, without sleeping.
class WatchedFileSystem final : public FileSystem {
 public:
  explicit WatchedFileSystem(FileSystem& inner) : inner_(inner) {}

  /// Until `count` directory syncs were done.
  void wait_for_directory_syncs(int count) {
    for (int seen = syncs_; seen < count; seen = syncs_) syncs_.wait(seen);
  }
  int directory_syncs() const { return syncs_; }
  /// Files whose name ends so are not made until let_go().
  void hold(std::string suffix) {
    suffix_ = std::move(suffix);
    held_ = true;
  }
  void let_go() {
    held_ = false;
    held_.notify_all();
  }
  void wait_until_held() { arrived_.wait(false); }

  Result<std::unique_ptr<File>> open(const std::string& path, Mode mode) override {
    if (!suffix_.empty() && path.ends_with(suffix_)) {
      arrived_ = true;
      arrived_.notify_all();
      held_.wait(true);
    }
    return inner_.open(path, mode);
  }
  Result<void> rename(const std::string& from, const std::string& to) override { return inner_.rename(from, to); }
  Result<void> remove(const std::string& path) override { return inner_.remove(path); }
  Result<void> sync_directory(const std::string& directory) override {
    Result<void> done = inner_.sync_directory(directory);
    ++syncs_;
    syncs_.notify_all();
    return done;
  }
  Result<void> make_directory(const std::string& path) override { return inner_.make_directory(path); }
  Result<std::vector<std::string>> list(const std::string& directory) override { return inner_.list(directory); }
  Result<bool> exists(const std::string& path) override { return inner_.exists(path); }

 private:
  FileSystem& inner_;
  std::string suffix_;
  std::atomic<int> syncs_{0};
  std::atomic<bool> held_{false};
  std::atomic<bool> arrived_{false};
};

}  // namespace

TEST_SUITE_BEGIN("log.segment_maker");

TEST_CASE("a segment made ahead is there, durable and zero, before it is taken") {
  MemoryFileSystem memory;
  WatchedFileSystem files(memory);
  REQUIRE(memory.make_directory("log"));
  REQUIRE(memory.sync_directory("."));
  SegmentMaker maker(files, "log", 8192, true, 5, std::nullopt);
  CHECK(maker.bytes_ready() == 0);
  maker.want();
  files.wait_for_directory_syncs(1);
  const std::unique_ptr<MemoryFileSystem> after = memory.clone();
  after->crash([] { return false; });
  CHECK(after->contents(segment_path(5)) == std::string(8192, '\0'));
  const Result<Segment> segment = maker.take();
  REQUIRE(segment);
  CHECK(segment->id == 5);
  CHECK(segment->bytes == 8192);
  CHECK(files.directory_syncs() == 1);
  CHECK(maker.bytes_ready() == 0);
}

TEST_CASE("one that is not ready is made at once, and the other gets the next id") {
  MemoryFileSystem memory;
  WatchedFileSystem files(memory);
  REQUIRE(memory.make_directory("log"));
  files.hold("ahead.tmp");
  SegmentMaker maker(files, "log", 8 << 20, true, 5, std::nullopt);
  maker.want();
  files.wait_until_held();
  const Result<Segment> now = maker.take();
  REQUIRE(now);
  CHECK(now->id == 5);
  CHECK(now->bytes == 4 << 20);  // small: somebody waited
  files.let_go();
  files.wait_for_directory_syncs(2);
  const Result<Segment> next = maker.take();
  REQUIRE(next);
  CHECK(next->id == 6);
  CHECK(next->bytes == 8 << 20);
}

TEST_CASE("without a thread each is made when it is taken, in full size") {
  MemoryFileSystem files;
  REQUIRE(files.make_directory("log"));
  SegmentMaker maker(files, "log", 8192, false, 1, std::nullopt);
  maker.want();
  for (std::uint64_t id = 1; id < 4; ++id) {
    const Result<Segment> segment = maker.take();
    REQUIRE(segment);
    CHECK(segment->id == id);
    CHECK(files.contents(segment_path(id)).size() == 8192);
  }
}

TEST_CASE("a failure ahead is no error until a segment is needed, and leaves nothing behind") {
  MemoryFileSystem files;
  REQUIRE(files.make_directory("log"));
  files.set_capacity(10'000);
  SegmentMaker maker(files, "log", 8192, true, 1, std::nullopt);
  REQUIRE(maker.take());
  for (int round = 0; round < 3; ++round) {
    maker.want();
    const Result<Segment> none = maker.take();
    REQUIRE_FALSE(none);
    CHECK(none.error() == Errc::disk_full);
  }
  files.set_capacity(1 << 20);
  maker.want();
  const Result<Segment> segment = maker.take();
  REQUIRE(segment);
  CHECK(segment->id == 2);
}

TEST_CASE("a log with segments made ahead agrees with a vector, through crashes in the middle of making one") {
  for (std::uint64_t seed = 1; seed <= 30; ++seed) {
    CAPTURE(seed);
    std::mt19937_64 random(seed);
    MemoryFileSystem files;
    LogOptions options = small_options(8192);
    options.prepare_ahead = true;
    Model model;
    for (int run = 0; run < 6; ++run) {
      auto log = must_open(files, options);
      model.forget_below(log->first_index().value);
      check_same(*log, model);
      for (std::uint64_t step = random() % 30; step > 0; --step) {
        const std::vector<raft::Entry> what =
            entries(model.last() + 1, model.last() + random() % 4, 1, random() % 3000);
        REQUIRE(append(*log, what, vote(1)));
        model.put(what);
        if (random() % 10 == 0) {
          REQUIRE(log->trim(Index{model.last() - random() % (model.held.size() + 1)}));
          model.forget_below(log->first_index().value);
        }
      }
      check_same(*log, model);
      files.crash([&] { return random() % 2 == 0; });  // with the thread at whatever it does
    }
  }
}

TEST_SUITE_END();
