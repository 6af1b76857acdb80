#include "net/codec.hpp"

#include <random>

#include <doctest/doctest.h>
#include <fmt/format.h>

#include "net/frame.hpp"

using namespace flotilla;
using namespace flotilla::net;
using raft::Entry;
using raft::EntryType;

namespace {

std::string body_of(const Frame& frame) {
  std::string body;
  for (const SharedBytes& part : frame.parts) body += part.view();
  return body;
}

ReceivedFrame received(const Frame& frame) {
  return {.type = frame.type, .body = SharedBytes(body_of(frame))};
}

std::string hex(std::string_view bytes) {
  std::string text;
  for (const char byte : bytes) text += fmt::format("{:02x}", static_cast<unsigned char>(byte));
  return text;
}

Entry entry_of(std::uint64_t term, std::uint64_t index, std::string payload) {
  Entry entry{.term = Term{term},
              .index = Index{index},
              .type = EntryType::command,
              .time = 1'700'000'000'000'000 + index,
              .payload = SharedBytes(std::move(payload))};
  seal(entry);
  return entry;
}

raft::Configuration configuration_of(std::uint64_t members) {
  raft::Configuration configuration;
  for (std::uint64_t id = 1; id <= members; ++id) {
    configuration.members.push_back(Member{.id = NodeId{id}, .address = fmt::format("host{}:1", id)});
  }
  return configuration;
}

/// A message whose kind is `kind`, with every field drawn.
raft::Message random_message(std::mt19937_64& random, std::size_t kind) {
  const auto number = [&] { return random() >> (random() % 64); };
  const auto flag = [&] { return random() % 2 == 1; };
  raft::Message message{.from = NodeId{number()}, .to = NodeId{number()}, .term = Term{number()}};
  switch (kind) {
    case 0: message.body = raft::VoteRequest{flag(), flag(), Index{number()}, Term{number()}}; break;
    case 1: message.body = raft::VoteReply{flag(), flag()}; break;
    case 2: {
      raft::AppendRequest body{Index{random() >> 8}, Term{number()}, Index{number()}, {}};
      const std::size_t count = random() % 6;
      for (std::size_t at = 1; at <= count; ++at) {
        std::string payload(random() % 4 == 0 ? 4096 + random() % 5000 : random() % 50, '\0');
        for (char& byte : payload) byte = static_cast<char>(random());
        body.entries.push_back(entry_of(number(), body.prev_index.value + at, std::move(payload)));
      }
      message.body = std::move(body);
      break;
    }
    case 3:
      message.body =
          raft::AppendReply{flag(), Index{number()}, Index{number()}, Term{number()}, Index{number()}, Index{number()}};
      break;
    case 4: message.body = raft::Heartbeat{Index{number()}, number()}; break;
    case 5: message.body = raft::HeartbeatReply{number()}; break;
    case 6: message.body = raft::ReadIndexRequest{number()}; break;
    case 7: message.body = raft::ReadIndexReply{number(), flag(), Index{number()}}; break;
    case 8: message.body = raft::TimeoutNow{}; break;
    case 9:
      message.body = raft::SnapshotRequest{Index{number()}, Term{number()}, configuration_of(random() % 5)};
      break;
    case 10: message.body = raft::SnapshotReply{flag(), Index{number()}}; break;
    default: FAIL("no such kind");
  }
  return message;
}

constexpr std::size_t kinds = std::variant_size_v<raft::Body>;

/// Through the frame layer too, as it travels.
std::optional<ReceivedFrame> over_the_wire(const Frame& frame) {
  std::string stream;
  for (const SharedBytes& part : to_wire(frame)) stream += part.view();
  FrameReader reader(64u << 20);
  std::string_view bytes = stream;
  return reader.next(bytes);
}

}  // namespace

TEST_SUITE_BEGIN("net.codec");

TEST_CASE("every message comes out as it went in") {
  std::mt19937_64 random(1);
  for (std::size_t kind = 0; kind < kinds; ++kind) {
    for (int round = 0; round < 200; ++round) {
      const raft::Message message = random_message(random, kind);
      REQUIRE(message.body.index() == kind);
      const Frame frame = encode(message);
      CHECK(frame.type == kind + 1);
      const auto arrived = over_the_wire(frame);
      REQUIRE(arrived);
      const auto decoded = decode(*arrived);
      REQUIRE(decoded);
      // The encoding has every field and one form, so equal bytes are equal messages.
      CHECK(decoded->body.index() == kind);
      CHECK(body_of(encode(*decoded)) == body_of(frame));
      if (const auto* append = std::get_if<raft::AppendRequest>(&message.body)) {
        CHECK(std::get<raft::AppendRequest>(decoded->body).entries == append->entries);
      }
    }
  }
}

TEST_CASE("the bytes of the messages are those of PROTOCOL.md") {
  const auto golden = [](raft::Body body) {
    const Frame frame = encode({.from = NodeId{1}, .to = NodeId{2}, .term = Term{3}, .body = std::move(body)});
    const std::string bytes = body_of(frame);
    CHECK(hex(std::string_view(bytes).substr(0, 24)) == "010000000000000002000000000000000300000000000000");
    return fmt::format("{}:{}", frame.type, hex(std::string_view(bytes).substr(24)));
  };
  CHECK(golden(raft::VoteRequest{true, false, Index{4}, Term{5}}) == "1:010004000000000000000500000000000000");
  CHECK(golden(raft::VoteReply{false, true}) == "2:0001");
  CHECK(golden(raft::AppendRequest{Index{4}, Term{5}, Index{6}, {entry_of(3, 5, "hi")}}) ==
        "3:04000000000000000500000000000000060000000000000001000000"
        "cc650ca902000000010000000300000000000000050000000000000005401e18240a06006869");
  CHECK(golden(raft::AppendReply{true, Index{4}, Index{5}, Term{6}, Index{7}, Index{8}}) ==
        "4:0104000000000000000500000000000000060000000000000007000000000000000800000000000000");
  CHECK(golden(raft::Heartbeat{Index{4}, 5}) == "5:04000000000000000500000000000000");
  CHECK(golden(raft::HeartbeatReply{4}) == "6:0400000000000000");
  CHECK(golden(raft::ReadIndexRequest{4}) == "7:0400000000000000");
  CHECK(golden(raft::ReadIndexReply{4, true, Index{5}}) == "8:0400000000000000010500000000000000");
  CHECK(golden(raft::TimeoutNow{}) == "9:");
  CHECK(golden(raft::SnapshotRequest{Index{4}, Term{5}, configuration_of(1)}) ==
        "10:04000000000000000500000000000000"
        "20000000010000000100000001000000000000000007000000686f7374313a3100000000");
  CHECK(golden(raft::SnapshotReply{true, Index{4}}) == "11:010400000000000000");
}

TEST_CASE("a message cut at any byte is refused") {
  std::mt19937_64 random(2);
  for (std::size_t kind = 0; kind < kinds; ++kind) {
    const Frame frame = encode(random_message(random, kind));
    const std::string body = body_of(frame);
    for (std::size_t size = 0; size < body.size(); size += (body.size() > 4000 && size > 200 ? 97 : 1)) {
      CAPTURE(kind);
      CAPTURE(size);
      CHECK_FALSE(decode({.type = frame.type, .body = SharedBytes(body.substr(0, size))}));
    }
    CHECK_FALSE(decode({.type = frame.type, .body = SharedBytes(body + '\0')}));
  }
}

TEST_CASE("a flipped bit never crashes the decoder, and one in an entry is noticed by the entry itself") {
  std::mt19937_64 random(3);
  for (std::size_t kind = 0; kind < kinds; ++kind) {
    raft::Message message = random_message(random, kind);
    if (kind == 2) std::get<raft::AppendRequest>(message.body).entries = {};
    const Frame frame = encode(message);
    const std::string body = body_of(frame);
    for (std::size_t bit = 0; bit < body.size() * 8; ++bit) {
      std::string bad = body;
      bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ (1 << (bit % 8)));
      const auto decoded = decode({.type = frame.type, .body = SharedBytes(bad)});
      if (decoded) CHECK(body_of(encode(*decoded)) == bad);
    }
  }
  const raft::AppendRequest append{Index{4}, Term{5}, Index{6}, {entry_of(3, 5, "one"), entry_of(3, 6, "two")}};
  const Frame frame = encode({.from = NodeId{1}, .to = NodeId{2}, .term = Term{3}, .body = append});
  const std::string body = body_of(frame);
  for (std::size_t bit = (24 + 24) * 8; bit < body.size() * 8; ++bit) {
    CAPTURE(bit);
    std::string bad = body;
    bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ (1 << (bit % 8)));
    CHECK_FALSE(decode({.type = frame.type, .body = SharedBytes(bad)}));
  }
}

TEST_CASE("entries that do not follow each other are refused") {
  const auto refused = [](raft::AppendRequest body) {
    return !decode(received(encode({.from = NodeId{1}, .to = NodeId{2}, .term = Term{9}, .body = std::move(body)})));
  };
  CHECK_FALSE(refused({Index{4}, Term{1}, Index{4}, {entry_of(1, 5, "a"), entry_of(1, 6, "b")}}));
  CHECK(refused({Index{4}, Term{1}, Index{4}, {entry_of(1, 6, "a")}}));
  CHECK(refused({Index{4}, Term{1}, Index{4}, {entry_of(1, 5, "a"), entry_of(1, 7, "b")}}));
  CHECK(refused({Index{4}, Term{1}, Index{4}, {entry_of(1, 5, "a"), entry_of(1, 5, "b")}}));
  CHECK(refused({Index{UINT64_MAX}, Term{1}, Index{4}, {entry_of(1, 0, "a")}}));
}

TEST_CASE("a count of entries that the frame cannot hold reserves nothing and is refused") {
  const raft::AppendRequest append{Index{4}, Term{5}, Index{6}, {}};
  const Frame frame = encode({.from = NodeId{1}, .to = NodeId{2}, .term = Term{3}, .body = append});
  std::string body = body_of(frame);
  body.replace(24 + 24, 4, "\xff\xff\xff\xff");
  CHECK_FALSE(decode({.type = frame.type, .body = SharedBytes(body)}));
}

TEST_CASE("an unknown type is refused") {
  for (const int type : {0, 12, 13, 128, 255}) {
    CAPTURE(type);
    CHECK_FALSE(decode({.type = static_cast<std::uint8_t>(type), .body = SharedBytes(std::string(64, '\0'))}));
  }
}

TEST_CASE("a long payload is sent from where it is, and received as a slice of its frame") {
  const Entry long_entry = entry_of(1, 1, std::string(5000, 'x'));
  const Frame frame = encode(
      {.from = NodeId{1}, .to = NodeId{2}, .term = Term{1}, .body = raft::AppendRequest{{}, {}, {}, {long_entry}}});
  bool in_place = false;
  for (const SharedBytes& part : frame.parts) in_place = in_place || part.data() == long_entry.payload.data();
  CHECK(in_place);
  const ReceivedFrame arrived = received(frame);
  const auto decoded = decode(arrived);
  REQUIRE(decoded);
  const SharedBytes& payload = std::get<raft::AppendRequest>(decoded->body).entries[0].payload;
  CHECK(payload.owner() == arrived.body.owner());
  CHECK(payload.data() > arrived.body.data());
}

TEST_SUITE_END();
