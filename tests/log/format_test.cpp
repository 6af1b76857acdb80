// The bytes on disk, pinned. They were computed from FORMAT.md by other means than this code.
#include "log/format.hpp"

#include "base/crc32c.hpp"
#include "log/log.hpp"
#include "support.hpp"

using namespace flotilla;
using namespace flotilla::log;
using namespace flotilla::log::test;

namespace {

constexpr std::string_view golden_block_1 =
    "464c4f54424c4f4b010000000000000088776655443322110100000000000000"
    "0000000000000000010000000000000080000000000000000000000000000000"
    "0000000000000000000000000000000000000000000000000000000000000000"
    "00000000000000000000000000000000000000000000000000000000c996bda5";
constexpr std::string_view golden_block_2 =
    "464c4f54424c4f4b010000000000000088776655443322110100000000000000"
    "00020000000000000200000000000000cd0000000000000002000000c996bda5"
    "0100000000000000010000000000000002000000000000000200000000000000"
    "0200000000000000070000000000000001000000000000008cdda7b8a8ef73fa"
    "97b0ed1b000000000000000001000000000000000100000000000000e8030000"
    "00000000e29b7898050000000100000002000000000000000200000000000000"
    "d00700000000000068656c6c6f";
constexpr std::string_view golden_block_3 =
    "464c4f54424c4f4b010000000100000088776655443322110100000000000000"
    "00040000000000000300000000000000800000000000000000000000a8ef73fa"
    "0200000000000000000000000000000009000000000000000200000000000000"
    "020000000000000007000000000000000900000000000000000000006440743f";

std::string bytes_of(std::string_view hex) {
  std::string bytes;
  for (std::size_t at = 0; at < hex.size(); at += 2) {
    bytes.push_back(static_cast<char>(std::stoi(std::string(hex.substr(at, 2)), nullptr, 16)));
  }
  return bytes;
}

std::string golden_segment() {
  std::string segment = bytes_of(golden_block_1);
  segment.resize(512);
  segment += bytes_of(golden_block_2);
  segment.resize(1024);
  segment += bytes_of(golden_block_3);
  segment.resize(4096);
  return segment;
}

std::vector<raft::Entry> golden_entries() {
  raft::Entry first;
  first.index = Index{1};
  first.term = Term{1};
  first.time = 1000;
  raft::seal(first);
  raft::Entry second;
  second.index = Index{2};
  second.term = Term{2};
  second.type = raft::EntryType::command;
  second.time = 2000;
  second.payload = SharedBytes(std::string("hello"));
  raft::seal(second);
  return {first, second};
}

LogOptions golden_options() {
  LogOptions options = small_options();
  options.stream_id = 0x1122334455667788;
  return options;
}

}  // namespace

TEST_SUITE_BEGIN("log.format");

TEST_CASE("the log writes the golden bytes") {
  MemoryFileSystem files;
  const auto log = must_open(files, golden_options());
  REQUIRE(append(*log, golden_entries(), vote(2, 7), 1));
  REQUIRE(log->begin_anew(Index{9}, Term{2}));
  CHECK(segment_paths(files) == std::vector<std::string>{"log/0000000000000001.seg"});
  CHECK(files.contents("log/0000000000000001.seg") == golden_segment());
}

TEST_CASE("the log reads the golden bytes") {
  MemoryFileSystem files;
  REQUIRE(files.make_directory("log"));
  SUBCASE("all blocks") {
    files.set_contents("log/0000000000000001.seg", golden_segment());
    const auto log = must_open(files, golden_options());
    CHECK(log->recovered().hard_state == vote(2, 7));
    CHECK(log->recovered().commit_index == Index{9});
    CHECK(log->recovered().first_index == Index{10});
    CHECK(log->recovered().last_index == Index{9});
    CHECK(log->recovered().last_term == Term{2});
  }
  SUBCASE("the first two") {
    std::string segment = golden_segment().substr(0, 1024);
    segment.resize(4096);
    files.set_contents("log/0000000000000001.seg", segment);
    const auto log = must_open(files, golden_options());
    CHECK(log->recovered().commit_index == Index{1});
    CHECK(read_all(*log) == golden_entries());
  }
}

TEST_CASE("a header comes back as it was put, and no changed byte passes") {
  BlockHeader header;
  header.begins_anew = true;
  header.stream = 1;
  header.segment = 2;
  header.offset = 512;
  header.number = 4;
  header.bytes = 500;
  header.records = 5;
  header.previous_crc = 6;
  header.durable_through = 3;
  header.first_index = Index{7};
  header.last_index = Index{11};
  header.last_term = Term{8};
  header.hard_state = vote(9, 10);
  header.commit_index = Index{6};
  header.records_crc = 12;
  char bytes[block_header_bytes];
  put_block_header(bytes, header);
  BlockHeader read;
  REQUIRE(parse_block_header({bytes, sizeof bytes}, read) == HeaderState::valid);
  char again[block_header_bytes];
  put_block_header(again, read);
  CHECK(std::string_view(bytes, sizeof bytes) == std::string_view(again, sizeof again));
  CHECK(read.crc == header.crc);
  CHECK(read.hard_state == header.hard_state);
  CHECK(read.last_term == header.last_term);
  CHECK(parse_block_header({bytes, sizeof bytes - 1}, read) == HeaderState::invalid);
  for (std::size_t at = 0; at < sizeof bytes; ++at) {
    CAPTURE(at);
    bytes[at] ^= 4;
    CHECK(parse_block_header({bytes, sizeof bytes}, read) == HeaderState::invalid);
    bytes[at] ^= 4;
  }
}

TEST_CASE("segment names say their id, and nothing else is one") {
  CHECK(segment_name(0xa1) == "00000000000000a1.seg");
  CHECK(segment_id("00000000000000a1.seg") == 0xa1);
  CHECK(segment_id("ffffffffffffffff.seg") == ~std::uint64_t{0});
  for (const char* const other :
       {"", ".seg", "0000000000000000.seg", "00000000000000A1.seg", "0000000000000a1.seg", "000000000000000a1.seg",
        "00000000000000a1.tmp", "00000000000000a1.seg.tmp", "00000000000000g1.seg"}) {
    CAPTURE(other);
    CHECK_FALSE(segment_id(other).has_value());
  }
}

TEST_CASE("all_zero sees any byte that is not") {
  for (std::size_t size = 0; size < 70; ++size) {
    std::string bytes(size, '\0');
    CHECK(all_zero(bytes));
    for (std::size_t at = 0; at < size; ++at) {
      bytes[at] = 1;
      CHECK_FALSE(all_zero(bytes));
      bytes[at] = 0;
    }
  }
}

TEST_SUITE_END();
