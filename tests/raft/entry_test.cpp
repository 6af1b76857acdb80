#include "raft/entry.hpp"

#include <memory>
#include <string>

#include "raft/cluster.hpp"

using namespace flotilla;
using namespace flotilla::raft;
using flotilla::raft::testing::entry;

namespace {

std::shared_ptr<const std::string> record_of(const Entry& from) {
  std::string bytes(record_header_bytes, '\0');
  put_record_header(bytes.data(), from);
  bytes += from.payload.view();
  return std::make_shared<const std::string>(std::move(bytes));
}

RecordState parse(const std::string& bytes, Entry& into, std::size_t payload_bytes_max = 1000) {
  const auto owner = std::make_shared<const std::string>(bytes);
  return parse_record(owner, *owner, payload_bytes_max, into);
}

}  // namespace

TEST_SUITE_BEGIN("raft.entry");

TEST_CASE("a record comes back as it was put, its payload a slice of the buffer") {
  Entry original{Term{7}, Index{1u << 30}, EntryType::session, 1'700'000'000'000'000, 0, SharedBytes("payload")};
  seal(original);
  const auto bytes = record_of(original);
  REQUIRE(bytes->size() == record_bytes(original));
  Entry parsed;
  REQUIRE(parse_record(bytes, *bytes, 7, parsed) == RecordState::whole);
  CHECK(parsed == original);
  CHECK(parsed.payload.data() == bytes->data() + record_header_bytes);
}

TEST_CASE("the record's layout is pinned byte for byte") {
  Entry original{Term{2}, Index{3}, EntryType::command, 4, 0, SharedBytes("ab")};
  original.crc = 0x11223344;
  const std::string expected(
      "\x44\x33\x22\x11\x02\0\0\0\x01\0\0\0\x02\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x04\0\0\0\0\0\0\0ab", 38);
  CHECK(*record_of(original) == expected);
}

TEST_CASE("a record cut at any byte is short, not damaged") {
  const std::string bytes = *record_of(entry(5, 2, "some payload"));
  for (std::size_t cut = 0; cut < bytes.size(); ++cut) {
    CAPTURE(cut);
    Entry parsed;
    CHECK(parse(bytes.substr(0, cut), parsed) == RecordState::short_of);
  }
}

TEST_CASE("a flipped bit anywhere is noticed") {
  const std::string bytes = *record_of(entry(5, 2, "some payload"));
  for (std::size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    CAPTURE(bit);
    std::string damaged = bytes;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << (bit % 8)));
    Entry parsed;
    CHECK(parse(damaged, parsed) != RecordState::whole);
  }
}

TEST_CASE("a length over the limit is damage, before anything is waited for") {
  const std::string bytes = *record_of(entry(5, 2, "12345678"));
  Entry parsed;
  CHECK(parse(bytes, parsed, 8) == RecordState::whole);
  CHECK(parse(bytes, parsed, 7) == RecordState::damaged);
  CHECK(parse(bytes.substr(0, record_header_bytes), parsed, 7) == RecordState::damaged);
}

TEST_CASE("an unknown type is whole: the reader decides") {
  Entry original = entry(1, 1);
  original.type = static_cast<EntryType>(200);
  seal(original);
  Entry parsed;
  REQUIRE(parse(*record_of(original), parsed) == RecordState::whole);
  CHECK(static_cast<int>(parsed.type) == 200);
}

TEST_SUITE_END();
