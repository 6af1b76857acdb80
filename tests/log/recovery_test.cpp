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

/// A field of a header set to something else, with its checksum made right again.
void rewrite_header(std::string& segment, std::mt19937_64& random) {
  std::vector<std::size_t> places;
  for (std::size_t at = 0; at + sector_bytes <= segment.size(); at += sector_bytes) {
    BlockHeader header;
    if (parse_block_header(std::string_view(segment).substr(at), header) == HeaderState::valid) places.push_back(at);
  }
  if (places.empty()) return;
  char* const at = segment.data() + (random() % 2 == 0 ? places.back() : places[random() % places.size()]);
  const std::size_t field = 8 + 8 * (random() % 15);
  const std::uint64_t old = get_fixed<std::uint64_t>(at + field);
  const std::uint64_t values[] = {
      0, 1, old + 1, old - 1, ~std::uint64_t{0}, ~std::uint64_t{0} - 1, random(), random() % 64};
  put_fixed(at + field, values[random() % std::size(values)]);
  put_fixed(at + block_header_bytes - 4, crc32c({at, block_header_bytes - 4}));
}

/// One thing that goes wrong with a disk, or with somebody's hands on it.
void spoil(Written& written, std::mt19937_64& random) {
  const std::vector<std::string> paths = segment_paths(written.files);
  if (paths.empty()) return;
  const std::string& path = random() % 2 == 0 ? paths.back() : paths[random() % paths.size()];
  std::string bytes = written.files.contents(path);
  const auto sector = [&] { return random() % (bytes.size() / sector_bytes) * sector_bytes; };
  if (bytes.size() < sector_bytes) return;
  switch (random() % 9) {
    case 0: bytes[random() % bytes.size()] ^= static_cast<char>(1 << random() % 8); break;
    case 1: bytes.replace(sector(), sector_bytes, std::string(sector_bytes, '\0')); break;
    case 2: bytes.replace(sector(), sector_bytes, bytes.substr(sector(), sector_bytes)); break;
    case 3: bytes.resize(random() % (bytes.size() + 1)); break;
    case 4: bytes.append(random() % 2000, static_cast<char>(random() % 2)); break;
    case 5: written.files.erase(path); return;
    case 6: written.files.set_contents(segment_path(1 + random() % 12), bytes); return;
    default: rewrite_header(bytes, random); break;
  }
  written.files.set_contents(path, bytes);
}

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

namespace {

/// A log of three groups, and a block without records that may follow them.
struct Followed : Written {
  std::uint64_t end = 0;
  BlockHeader next;

  Followed() : Written(3, 300) {
    const BlockHeader last = blocks_of(files.contents(segment_path(1))).back();
    end = last.offset + whole_sectors(last.bytes);
    next = last;
    next.number = last.number + 1;
    next.previous_crc = last.crc;
    next.first_index = Index{};
    next.records = 0;
    next.records_crc = 0;
    next.bytes = block_header_bytes;
    next.durable_through = last.number;
    next.offset = end;
  }
  void put(BlockHeader header, std::uint64_t at) {
    std::string bytes(block_header_bytes, '\0');
    put_block_header(bytes.data(), header);
    replace(segment_path(1), at, bytes);
  }
};

}  // namespace

TEST_CASE("the block that follows is read") {
  Followed written;
  written.put(written.next, written.end);
  const auto log = must_open(written.files, written.options);
  CHECK_FALSE(log->recovered().torn_tail);
  check_same(*log, written.model);
}

TEST_CASE("a sound block that does not belong where the chain goes on is damage: it cannot come from a crash") {
  struct Wrong {
    const char* what;
    void (*make)(BlockHeader&);
    const char* says;
  };
  const Wrong all[] = {
      {"segment", [](BlockHeader& block) { block.segment = 9; }, "another segment"},
      {"offset", [](BlockHeader& block) { block.offset += 512; }, "another place"},
      {"stream", [](BlockHeader& block) { block.stream ^= 1; }, "another log"},
      {"number", [](BlockHeader& block) { ++block.number; }, "not the next"},
      {"block before", [](BlockHeader& block) { block.previous_crc ^= 1; }, "the block before"},
      {"durable in advance", [](BlockHeader& block) { block.durable_through = block.number; }, "calls itself durable"},
      {"term", [](BlockHeader& block) { block.hard_state.term = Term{1}; }, "the term went back"},
      {"vote", [](BlockHeader& block) { block.hard_state.voted_for = NodeId{6}; }, "two votes"},
      {"commit", [](BlockHeader& block) { block.commit_index = Index{4}; }, "beyond the log"},
      {"last index", [](BlockHeader& block) { block.last_index = Index{2}; }, "last_index"},
      {"last term", [](BlockHeader& block) { block.last_term = Term{7}; }, "last_term"},
      {"first index", [](BlockHeader& block) { block.first_index = Index{1}; }, "first_index"},
      {"end of numbers",
       [](BlockHeader& block) {
         block.begins_anew = true;
         block.last_index = Index{~std::uint64_t{0}};
       },
       "no index can follow"},
  };
  for (const Wrong& wrong : all) {
    CAPTURE(std::string(wrong.what));
    Followed written;
    wrong.make(written.next);
    written.put(written.next, written.end);
    written.check_damaged(wrong.says);
  }
}

TEST_CASE("sound blocks whose entries contradict the log are damage") {
  struct Wrong {
    const char* what;
    std::vector<raft::Entry> entries;
    std::uint64_t commit = 0;
    const char* says;
  };
  // The log holds 1-3 at term 1, of which 2 are committed; hard state: term 4.
  const Wrong all[] = {
      {"nothing wrong", {entry(4, 1), entry(5, 4)}, 3, ""},
      {"nothing wrong, superseding", {entry(3, 2)}, 3, ""},
      {"a gap", {entry(5, 1)}, 2, "entries are missing"},
      {"committed", {entry(2, 2)}, 2, "a committed entry is superseded"},
      {"index 0", {entry(0, 1), entry(3, 1)}, 2, "index 0"},
      {"a gap inside", {entry(4, 1), entry(6, 1)}, 2, "out of order"},
      {"twice", {entry(4, 1), entry(4, 1)}, 2, "out of order"},
      {"term falls", {entry(4, 2), entry(5, 1)}, 2, "term is out of order"},
      {"term below the one before", {entry(4, 0)}, 2, "term is out of order"},
      {"term above the hard state", {entry(4, 5)}, 2, "term is out of order"},
      {"commit falls", {entry(4, 1)}, 1, "the commit index went back"},
  };
  for (const Wrong& wrong : all) {
    CAPTURE(std::string(wrong.what));
    Written written(0);
    {
      const auto log = must_open(written.files, written.options);
      REQUIRE(append(*log, entries(1, 3, 1, 300), vote(4, 5), 2));
    }
    const BlockHeader last = blocks_of(written.files.contents(segment_path(1))).back();
    BlockHeader next = last;
    next.number = last.number + 1;
    next.previous_crc = last.crc;
    next.durable_through = last.number;
    next.offset = last.offset + whole_sectors(last.bytes);
    next.commit_index = Index{wrong.commit};
    next.records = static_cast<std::uint32_t>(wrong.entries.size());
    next.first_index = wrong.entries.front().index;
    next.last_index = wrong.entries.back().index;
    next.last_term = wrong.entries.back().term;
    next.records_crc = 0;
    std::string bytes(block_header_bytes, '\0');
    for (const raft::Entry& one : wrong.entries) {
      std::string record(raft::record_header_bytes, '\0');
      raft::put_record_header(record.data(), one);
      next.records_crc = crc32c(std::string_view(record).substr(0, 4), next.records_crc);
      bytes += record + std::string(one.payload.view());
    }
    next.bytes = bytes.size();
    put_block_header(bytes.data(), next);
    written.replace(segment_path(1), next.offset, bytes);
    if (std::string_view(wrong.says).empty()) {
      const auto log = must_open(written.files, written.options);
      CHECK_FALSE(log->recovered().torn_tail);
      CHECK(log->last_index() == next.last_index);
      CHECK(log->recovered().last_term == next.last_term);
    } else {
      written.check_damaged(wrong.says);
    }
  }
}

TEST_CASE("behind a break only headers of this log, in their own place, say what was durable") {
  const auto torn = [](auto make) {
    auto written = std::make_unique<Followed>();
    written->replace(segment_path(1), written->end, "torn");
    written->next.offset = written->end + 512;
    written->next.durable_through = 1000;
    written->next.number = 1001;
    make(written->next);
    written->put(written->next, written->end + 512);
    return written;
  };
  torn([](BlockHeader&) {})->check_damaged("block 1000 was durable");
  // As when a value is the image of a segment of another member, or of this one.
  torn([](BlockHeader& block) { block.stream ^= 1; })->check_torn();
  torn([](BlockHeader& block) { block.segment = 2; })->check_torn();
  torn([](BlockHeader& block) { block.offset += 512; })->check_torn();
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

TEST_CASE("a sound record in the place of another is not taken for it") {
  Written written(3, 300);
  const std::string path = segment_path(1);
  const std::vector<BlockHeader> blocks = blocks_of(written.files.contents(path));
  const auto forge = [&](const BlockHeader& block) {
    const std::uint64_t index = block.first_index.value;
    const raft::Entry other = entry(index, 1, std::string(300, 'z'));
    std::string record(raft::record_header_bytes, '\0');
    raft::put_record_header(record.data(), other);
    written.replace(path, block.offset + block_header_bytes, record + std::string(other.payload.view()));
  };
  SUBCASE("in a durable block") {
    forge(blocks[1]);
    written.check_damaged("not those of the header");
  }
  SUBCASE("in the last block") {
    forge(blocks.back());
    written.lose_last();
    written.check_torn();
  }
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
  const std::string path = segment_path(1);
  const BlockHeader first = blocks_of(written.files.contents(path)).at(1);  // after the one of the log's creation
  std::string_view says;
  SUBCASE("in a record") {
    written.flip(path, first.offset + 200);
    says = "checksum";
  }
  SUBCASE("in a header") {
    written.flip(path, first.offset + 60);
    says = "no block";
  }
  SUBCASE("a sound block of another log") {
    BlockHeader other = first;
    ++other.stream;
    std::string header(block_header_bytes, '\0');
    put_block_header(header.data(), other);
    written.replace(path, first.offset, header);
    says = "no block";
  }
  SUBCASE("an older state of the file") {
    written.replace(path, 0, std::string(4096, '\0'));
    says = "no block";
  }
  SUBCASE("a sound record of another index") {
    const raft::Entry other = entries(2, 2, 1, 600).front();
    std::string record(raft::record_header_bytes, '\0');
    raft::put_record_header(record.data(), other);
    written.replace(path, first.offset + block_header_bytes, record + std::string(other.payload.view()));
    says = "another entry";
  }
  SUBCASE("a sound record of another term") {
    const raft::Entry other = entries(1, 1, 2, 600).front();
    std::string record(raft::record_header_bytes, '\0');
    raft::put_record_header(record.data(), other);
    written.replace(path, first.offset + block_header_bytes, record + std::string(other.payload.view()));
    says = "another entry";
  }
  SUBCASE("the file is gone") {
    written.files.erase(path);
    says = "vanished";
  }
  const auto failed = log->read(Index{1}, 100);
  REQUIRE_FALSE(failed.has_value());
  CHECK(failed.error() == Errc::damaged);
  CHECK(failed.error().message().find(says) != std::string::npos);
  CHECK(append(*log, entries(31, 31, 1)).error() == Errc::damaged);
}

TEST_CASE("whatever is on the disk, opening ends in a log that works or in a refusal that changes nothing") {
  int opened = 0;
  int refused = 0;
  for (std::uint64_t seed = 1; seed <= 3000; ++seed) {
    CAPTURE(seed);
    std::mt19937_64 random(seed);
    Written written(1 + random() % 12, 1 + random() % 700);
    for (std::uint64_t count = 1 + random() % 3; count > 0; --count) spoil(written, random);
    const auto before = image_of(written.files);
    Result<std::unique_ptr<Log>> log = Log::open(written.files, written.options);
    if (!log) {
      ++refused;
      REQUIRE((log.error() == Errc::damaged || log.error() == Errc::version_unsupported));
      REQUIRE(image_of(written.files) == before);
      continue;
    }
    ++opened;
    const std::vector<raft::Entry> found = read_all(**log);
    const Term term = std::max((*log)->recovered().hard_state.term, (*log)->recovered().last_term);
    const std::uint64_t next = (*log)->last_index().value + 1;
    if (std::max(term.value, next) > std::uint64_t{1} << 62) continue;  // a forged block that nothing can follow
    REQUIRE(append(**log, entries(next, next + 1, term.value + 1, 300), vote(term.value + 1)));
    log = Log::open(written.files, written.options);
    if (!log) MESSAGE(log.error().message());
    REQUIRE(log);
    REQUIRE((*log)->last_index() == Index{next + 1});
    std::vector<raft::Entry> again = read_all(**log);
    again.resize(again.size() - 2);
    REQUIRE(again == found);
  }
  // Both must have been tried.
  CHECK(opened > 500);
  CHECK(refused > 500);
}

TEST_SUITE_END();
