// What recovery makes of damage: torn behind durable-through, refused up to it. FORMAT.md#recovery
#include "log/recovery.hpp"

#include <algorithm>

#include "base/codec.hpp"
#include "base/crc32c.hpp"
#include "log/log.hpp"
#include "support.hpp"

using namespace flotilla;
using namespace flotilla::log;
using namespace flotilla::log::test;

namespace {

/// The blocks of segment 1 after the one of a new log.
std::vector<BlockHeader> groups_of(const std::string& segment) {
  std::vector<BlockHeader> blocks = blocks_of(segment);
  REQUIRE(blocks.at(0).records == 0);
  blocks.erase(blocks.begin());
  return blocks;
}

/// A log of one-entry groups in several segments; its last block is block `groups` + 1.
struct Written {
  MemoryFileSystem files;
  LogOptions options;
  Model model;

  explicit Written(std::uint64_t groups, std::size_t payload_bytes = 600, std::size_t segment_bytes = 4096)
      : options(small_options(segment_bytes)) {
    const auto log = must_open(files, options);
    for (std::uint64_t index = 1; index <= groups; ++index) {
      const std::vector<raft::Entry> what = entries(index, index, 1, payload_bytes);
      REQUIRE(append(*log, what, vote(1 + index, 5)));
      model.put(what);
      model.hard_state = vote(1 + index, 5);
    }
  }
  std::string newest() { return segment_paths(files).back(); }
  void flip(const std::string& path, std::size_t at, unsigned char mask = 0xff) {
    std::string bytes = files.contents(path);
    bytes[at] = static_cast<char>(static_cast<unsigned char>(bytes[at]) ^ mask);
    files.set_contents(path, bytes);
  }
  void replace(const std::string& path, std::size_t at, std::string_view with) {
    std::string bytes = files.contents(path);
    bytes.resize(std::max(bytes.size(), at + with.size()));
    bytes.replace(at, with.size(), with);
    files.set_contents(path, bytes);
  }
  /// Forget the newest group, as a torn tail does.
  void lose_last() {
    model.held.pop_back();
    model.hard_state.term = Term{model.hard_state.term.value - 1};
  }
  void check_damaged(std::string_view says = "") {
    const auto before = image_of(files);
    const Result<std::unique_ptr<Log>> log = Log::open(files, options);
    REQUIRE_FALSE(log.has_value());
    CHECK(log.error() == Errc::damaged);
    CAPTURE(log.error().message());
    CHECK(log.error().message().find(says) != std::string::npos);
    CHECK(image_of(files) == before);
  }
  void check_torn() {
    auto log = must_open(files, options);
    REQUIRE(log->recovered().torn_tail);
    REQUIRE(log->recovered().hard_state == model.hard_state);
    check_same(*log, model);
    const auto settled = image_of(files);
    log = must_open(files, options);
    CHECK_FALSE(log->recovered().torn_tail);
    REQUIRE(log->recovered().hard_state == model.hard_state);
    check_same(*log, model);
    CHECK(image_of(files) == settled);  // recovery is idempotent
    const std::vector<raft::Entry> more = entries(model.last() + 1, model.last() + 1, 1);
    REQUIRE(append(*log, more));
    log = must_open(files, options);
    REQUIRE(log->last_index() == more.back().index);
  }
};

}  // namespace

TEST_SUITE_BEGIN("log.recovery");

TEST_CASE("every flipped byte of a durable block is damage, and nothing is changed") {
  Written written(4, 300);
  const std::string path = written.newest();
  const std::vector<BlockHeader> blocks = blocks_of(written.files.contents(path));
  REQUIRE(blocks.size() == 5);
  for (std::size_t which = 0; which + 1 < blocks.size(); ++which) {
    const std::uint64_t end = blocks[which].offset + whole_sectors(blocks[which].bytes);
    for (std::uint64_t at = blocks[which].offset; at < end; ++at) {
      CAPTURE(at);
      for (const std::uint8_t mask : {std::uint8_t{0x01}, std::uint8_t{0x80}, std::uint8_t{0xff}}) {
        written.flip(path, at, mask);
        written.check_damaged("0000000000000001.seg");
        written.flip(path, at, mask);
      }
    }
  }
}

TEST_CASE("every flipped byte of the very last block is a torn tail") {
  const Written pristine(4, 300);
  const std::string path = segment_path(1);
  const BlockHeader last = blocks_of(pristine.files.contents(path)).back();
  const std::string contents = pristine.files.contents(path);
  for (std::uint64_t at = last.offset; at < last.offset + whole_sectors(last.bytes); ++at) {
    CAPTURE(at);
    Written written(4, 300);
    written.flip(path, at);
    written.lose_last();
    written.check_torn();
  }
}

TEST_CASE("an idle write protects the group before it") {
  Written written(3, 300);
  {
    const auto log = must_open(written.files, written.options);  // opening writes one
  }
  const std::vector<BlockHeader> blocks = blocks_of(written.files.contents(segment_path(1)));
  REQUIRE(blocks.size() == 5);
  CHECK(blocks[4].records == 0);
  written.flip(segment_path(1), blocks[3].offset + 200);
  written.check_damaged();
}

TEST_CASE("opening twice writes no second idle block") {
  Written written(3, 300);
  for (int round = 0; round < 3; ++round) must_open(written.files, written.options);
  CHECK(blocks_of(written.files.contents(segment_path(1))).size() == 5);
}

TEST_CASE("a file cut at any byte of its last group is a torn tail, before that it is damage") {
  const Written pristine(3, 300);
  const std::string path = segment_path(1);
  const std::string contents = pristine.files.contents(path);
  const std::vector<BlockHeader> blocks = groups_of(contents);
  for (std::uint64_t length = blocks[1].offset; length < blocks[2].offset + whole_sectors(blocks[2].bytes); ++length) {
    CAPTURE(length);
    Written written(3, 300);
    written.files.set_contents(path, contents.substr(0, length));
    if (length < blocks[2].offset) {
      // Block 2 is gone, and with it the only witness of its durability: block 3 says so.
      written.model.held.resize(2);
      written.model.hard_state = vote(3, 5);
      if (length < blocks[1].offset + whole_sectors(blocks[1].bytes)) {
        written.model.held.resize(1);
        written.model.hard_state = vote(2, 5);
      }
    } else {
      written.lose_last();
    }
    auto log = must_open(written.files, written.options);
    REQUIRE(log->recovered().hard_state == written.model.hard_state);
    check_same(*log, written.model);
  }
}

TEST_CASE("the last group torn in any combination of its sectors is cut, though later ones may be valid") {
  const std::string path = segment_path(1);
  Written pristine(2, 1500, 8192);
  const std::string contents = pristine.files.contents(path);
  const BlockHeader last = blocks_of(contents).back();
  const std::size_t sectors = whole_sectors(last.bytes) / sector_bytes;
  REQUIRE(sectors == 4);
  for (unsigned kept = 0; kept + 1 < 1u << sectors; ++kept) {
    CAPTURE(kept);
    Written written(2, 1500, 8192);
    for (std::size_t sector = 0; sector < sectors; ++sector) {
      if ((kept >> sector & 1) == 0) {
        written.replace(path, last.offset + sector * sector_bytes, std::string(sector_bytes, '\0'));
      }
    }
    written.lose_last();
    if (kept == 0) {
      const auto log = must_open(written.files, written.options);
      CHECK_FALSE(log->recovered().torn_tail);
      check_same(*log, written.model);
    } else {
      written.check_torn();
    }
  }
}

TEST_CASE("a valid block behind a break does not hide it: torn if nobody called the broken one durable") {
  // As a group of two blocks under one sync, of which the second alone reached the disk.
  Written written(3, 300);
  const std::string path = segment_path(1);
  std::string contents = written.files.contents(path);
  const std::vector<BlockHeader> blocks = groups_of(contents);
  BlockHeader third = blocks[2];
  SUBCASE("torn") {
    third.durable_through = blocks[0].number;
    put_block_header(contents.data() + third.offset, third);
    contents[blocks[1].offset + 130] ^= 1;
    written.files.set_contents(path, contents);
    written.lose_last();
    written.lose_last();
    written.check_torn();
  }
  SUBCASE("damaged") {
    contents[blocks[1].offset + 130] ^= 1;
    written.files.set_contents(path, contents);
    written.check_damaged("block 3 was durable");
  }
}

TEST_CASE("after a cut the log goes on in a new segment, and the torn area never comes back") {
  Written written(3, 300);
  const std::string path = segment_path(1);
  const std::string whole = written.files.contents(path);
  const BlockHeader last = blocks_of(whole).back();
  written.flip(path, last.offset + 150);
  written.lose_last();
  {
    const auto log = must_open(written.files, written.options);
    CHECK(log->recovered().torn_tail);
    CHECK(segment_paths(written.files).size() == 2);
    const BlockHeader first = blocks_of(written.files.contents(segment_path(2))).front();
    CHECK(first.number == last.number);
    CHECK(first.previous_crc == last.previous_crc);
  }
  // Even if the sectors that were torn read well again.
  written.files.set_contents(path, whole);
  const auto log = must_open(written.files, written.options);
  CHECK(log->recovered().hard_state == written.model.hard_state);
  check_same(*log, written.model);
}

TEST_CASE("a missing or emptied segment in the middle is damage") {
  Written written(30);
  const std::vector<std::string> paths = segment_paths(written.files);
  REQUIRE(paths.size() >= 4);
  SUBCASE("missing") {
    written.files.erase(paths[1]);
    written.check_damaged("is missing");
  }
  SUBCASE("zeros") {
    written.files.set_contents(paths[1], std::string(4096, '\0'));
    written.check_damaged("was durable");
  }
  SUBCASE("cut short by one block") {
    const BlockHeader last = blocks_of(written.files.contents(paths[1])).back();
    written.files.set_contents(paths[1], written.files.contents(paths[1]).substr(0, last.offset));
    written.check_damaged("was durable");
  }
  SUBCASE("the oldest emptied after a trim") {
    {
      const auto log = must_open(written.files, written.options);
      REQUIRE(log->trim(Index{12}));
    }
    const std::string oldest = segment_paths(written.files).front();
    REQUIRE(oldest != paths.front());
    written.files.set_contents(oldest, std::string(4096, '\0'));
    written.check_damaged("does not begin with a block");
  }
}

TEST_CASE("a segment in another's place is damage") {
  Written written(30);
  const std::vector<std::string> paths = segment_paths(written.files);
  SUBCASE("under another name") {
    written.files.set_contents(paths[2], written.files.contents(paths[1]));
    written.check_damaged("a block of segment");
  }
  SUBCASE("of another log") {
    MemoryFileSystem others;
    LogOptions options = written.options;
    options.stream_id = 77;
    const auto log = must_open(others, options);
    for (std::uint64_t index = 1; index <= 30; ++index) {
      REQUIRE(append(*log, entries(index, index, 1, 600), vote(1 + index, 5)));
    }
    written.files.set_contents(paths.back(), others.contents(paths.back()));
    written.check_damaged("another log");
  }
}

TEST_CASE("blocks of another segment, place or log are never read as this log's") {
  Written written(3, 300);
  const std::string path = segment_path(1);
  std::string contents = written.files.contents(path);
  const std::vector<BlockHeader> blocks = blocks_of(contents);
  const BlockHeader& last = blocks.back();
  const std::uint64_t end = last.offset + whole_sectors(last.bytes);
  BlockHeader stale = last;
  stale.number = last.number + 1;
  stale.previous_crc = last.crc;
  stale.first_index = Index{};
  stale.records = 0;
  stale.records_crc = 0;
  stale.bytes = block_header_bytes;
  stale.durable_through = last.number;
  stale.offset = end;
  const auto put = [&](const BlockHeader& what) {
    BlockHeader header = what;
    std::string bytes(block_header_bytes, '\0');
    put_block_header(bytes.data(), header);
    written.replace(path, end, bytes);
  };
  SUBCASE("the right one is read") {
    put(stale);
    const auto log = must_open(written.files, written.options);
    CHECK_FALSE(log->recovered().torn_tail);
    check_same(*log, written.model);
    return;
  }
  SUBCASE("segment") {
    stale.segment = 9;
  }
  SUBCASE("offset") {
    stale.offset += 512;
  }
  SUBCASE("stream") {
    stale.stream ^= 1;
  }
  SUBCASE("number") {
    stale.number += 1;
  }
  SUBCASE("block before") {
    stale.previous_crc ^= 1;
  }
  SUBCASE("term goes back") {
    stale.hard_state.term = Term{1};
  }
  SUBCASE("another vote in the same term") {
    stale.hard_state.voted_for = NodeId{6};
  }
  SUBCASE("commit index beyond the log") {
    stale.commit_index = Index{4};
  }
  SUBCASE("another last index") {
    stale.last_index = Index{2};
  }
  SUBCASE("another last term") {
    stale.last_term = Term{7};
  }
  SUBCASE("durable in advance") {
    stale.durable_through = stale.number;
  }
  put(stale);
  // Its checksum holds and it stands where the chain goes on: that cannot come from a crash.
  written.check_damaged();
}

TEST_CASE("payloads that look like blocks of this very log are only payloads") {
  MemoryFileSystem files;
  const LogOptions options = small_options(64 << 10);
  auto log = must_open(files, options);
  REQUIRE(append(*log, entries(1, 3, 1, 600), vote(1)));
  REQUIRE(append(*log, entries(4, 6, 1, 600)));
  // The image of the log itself, at each alignment to sectors.
  const std::string image = files.contents(segment_path(1)).substr(0, 8192);
  Model model;
  model.put(entries(1, 6, 1, 600));
  for (std::uint64_t index = 7; index < 12; ++index) {
    const std::size_t shift = (sector_bytes - (block_header_bytes + raft::record_header_bytes)) % sector_bytes;
    const std::vector<raft::Entry> what{entry(index, 1, std::string(shift, 'x') + image)};
    REQUIRE(append(*log, what));
    model.put(what);
  }
  // The last one torn: its payload is what the scan behind the chain gets to see.
  std::string contents = files.contents(segment_path(1));
  const BlockHeader last = blocks_of(contents).back();
  contents[last.offset] ^= 1;
  files.set_contents(segment_path(1), contents);
  model.held.pop_back();
  log = must_open(files, options);
  CHECK(log->recovered().torn_tail);
  check_same(*log, model);
}

TEST_CASE("a later format is refused as such, a flipped version is damage") {
  Written written(3, 300);
  std::string contents = written.files.contents(segment_path(1));
  put_fixed(contents.data() + 8, 2u);
  SUBCASE("flipped") {
    written.files.set_contents(segment_path(1), contents);
    written.check_damaged();
  }
  SUBCASE("later") {
    put_fixed(contents.data() + block_header_bytes - 4, crc32c({contents.data(), block_header_bytes - 4}));
    written.files.set_contents(segment_path(1), contents);
    const auto before = image_of(written.files);
    CHECK(Log::open(written.files, written.options).error() == Errc::version_unsupported);
    CHECK(image_of(written.files) == before);
  }
}

TEST_CASE("zeros behind the last block are the end, whatever unused segments follow") {
  Written written(3, 300);
  for (const std::uint64_t id : {2, 3, 4}) written.files.set_contents(segment_path(id), std::string(4096, '\0'));
  written.files.set_contents("log/ahead.tmp", "half made");
  auto log = must_open(written.files, written.options);
  CHECK_FALSE(log->recovered().torn_tail);
  check_same(*log, written.model);
  CHECK(segment_paths(written.files).size() == 2);  // one is kept for use
  CHECK_FALSE(written.files.exists("log/ahead.tmp").value());
  for (std::uint64_t index = 4; index < 12; ++index) {
    REQUIRE(append(*log, entries(index, index, 1, 600)));
    written.model.put(entries(index, index, 1, 600));
  }
  log = must_open(written.files, written.options);
  check_same(*log, written.model);
}

TEST_CASE("the first block ever written may be torn") {
  MemoryFileSystem files;
  const LogOptions options = small_options();
  must_open(files, options);
  std::string contents = files.contents(segment_path(1));
  for (const std::size_t at : {0, 100, 300}) {
    CAPTURE(at);
    MemoryFileSystem torn;
    REQUIRE(torn.make_directory("log"));
    std::string bytes = contents;
    bytes[at] ^= 1;
    torn.set_contents(segment_path(1), bytes);
    auto log = must_open(torn, options);
    CHECK(log->recovered().torn_tail);
    CHECK(log->last_index() == Index{0});
    REQUIRE(append(*log, entries(1, 2, 3), vote(3)));
    log = must_open(torn, options);
    CHECK_FALSE(log->recovered().torn_tail);
    CHECK(read_all(*log) == entries(1, 2, 3));
    REQUIRE(log->trim(Index{0}));
  }
}

TEST_CASE("damage that appears while the log is open is noticed by the read and ends the log") {
  Written written(30);
  const auto log = must_open(written.files, written.options);
  written.flip(segment_path(1), blocks_of(written.files.contents(segment_path(1))).at(1).offset + 200);
  const auto failed = log->read(Index{1}, 100);
  REQUIRE_FALSE(failed.has_value());
  CHECK(failed.error() == Errc::damaged);
  CHECK(append(*log, entries(31, 31, 1)).error() == Errc::damaged);
}

TEST_SUITE_END();
