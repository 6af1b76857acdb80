#include "net/frame.hpp"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include "base/codec.hpp"
#include "net/hello.hpp"
#include "net/support.hpp"

using namespace flotilla;
using namespace flotilla::net;
using flotilla::test::bytes_of;
using flotilla::test::frame_of;

namespace {

std::string wire(Frame frame) {
  std::string bytes;
  for (const SharedBytes& part : to_wire(std::move(frame))) bytes += part.view();
  return bytes;
}

std::string hex(std::string_view bytes) {
  std::string text;
  for (const char byte : bytes) text += fmt::format("{:02x}", static_cast<unsigned char>(byte));
  return text;
}

const Hello sample{.cluster_id = {0x1122334455667788, 0x99aabbccddeeff00},
                   .node_id = NodeId{0x0102030405060708},
                   .incarnation = 3,
                   .address = "10.0.0.1:7481"};

}  // namespace

TEST_SUITE_BEGIN("net.frame");

TEST_CASE("the bytes of a frame are those of PROTOCOL.md") {
  // crc32c("\x05" "hello") computed with an independent implementation.
  CHECK(hex(wire(frame_of(5, "hello"))).substr(0, 8) == "05000000");
  CHECK(hex(wire(frame_of(5, "hello"))).substr(16) == "0568656c6c6f");
  CHECK(hex(wire(frame_of(5, "hello"))) == "050000009dedecd50568656c6c6f");
}

TEST_CASE("frames come out as they went in, however the bytes are cut") {
  const auto check = [](const std::vector<std::size_t>& sizes, std::size_t step) {
    CAPTURE(step);
    std::string stream;
    for (const std::size_t size : sizes) {
      stream += wire(frame_of(static_cast<std::uint8_t>(size), std::string(size, 'a')));
    }
    FrameReader reader(2u << 20);
    std::vector<std::size_t> found;
    bool all_taken = true;
    for (std::size_t at = 0; at < stream.size(); at += step) {
      std::string_view bytes = std::string_view(stream).substr(at, step);
      while (!bytes.empty()) {
        const auto frame = reader.next(bytes);
        if (!frame) break;
        found.push_back(frame->body.size());
        CHECK(frame->type == static_cast<std::uint8_t>(found.back()));
        CHECK(frame->body.view() == std::string(found.back(), 'a'));
      }
      all_taken = all_taken && bytes.empty();
    }
    CHECK(all_taken);
    CHECK(found == sizes);
    CHECK_FALSE(reader.broken());
  };
  for (const std::size_t step : {1, 2, 7, 9, 10, 4096}) check({0, 1, 8, 9, 100, 4096}, step);
  for (const std::size_t step : {4096, 65536, 10'000'000}) check({0, 70'000, 300'000, 1, 1'100'000, 0}, step);
}

TEST_CASE("an announced length over the limit breaks the stream before anything is allocated") {
  FrameReader reader(64u << 20);
  std::string header;
  Encoder(header).u32(0xffffffff).u32(0).u8(3);
  std::string_view bytes = header;
  CHECK_FALSE(reader.next(bytes));
  REQUIRE(reader.broken());
  CHECK(*reader.broken() == Errc::entry_too_large);
  CHECK(reader.held_bytes() == 0);
  bytes = "more";
  CHECK_FALSE(reader.next(bytes));
}

TEST_CASE("announcing bytes costs the receiver no memory: the buffer follows what arrived") {
  FrameReader reader(64u << 20);
  std::string header;
  Encoder(header).u32(64u << 20).u32(0).u8(3);
  std::string_view bytes = header;
  CHECK_FALSE(reader.next(bytes));
  CHECK_FALSE(reader.broken());
  CHECK(reader.held_bytes() == 0);
  const std::string body(1000, 'x');
  bytes = body;
  CHECK_FALSE(reader.next(bytes));
  CHECK(reader.held_bytes() <= 256u << 10);
}

TEST_CASE("any flipped bit of a frame is noticed") {
  const std::string good = wire(frame_of(5, "payload"));
  for (std::size_t bit = 0; bit < good.size() * 8; ++bit) {
    CAPTURE(bit);
    std::string bad = good;
    bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ (1 << (bit % 8)));
    FrameReader reader(1024);
    std::string_view bytes = bad;
    CHECK_FALSE(reader.next(bytes));
  }
}

TEST_CASE("a body outlives the reader and the frames after it") {
  std::optional<ReceivedFrame> first;
  {
    const std::string stream = wire(frame_of(1, "first")) + wire(frame_of(2, "second"));
    FrameReader reader(1024);
    std::string_view bytes = stream;
    first = reader.next(bytes);
    reader.next(bytes);
  }
  REQUIRE(first);
  CHECK(first->body.view() == "first");
}

TEST_SUITE_END();

TEST_SUITE_BEGIN("net.hello");

TEST_CASE("the bytes of a statement are those of PROTOCOL.md") {
  CHECK(hex(encode_hello(sample)) ==
        "464c544c010001003200000085e5f34c00887766554433221100ffeeddccbbaa99080706050403020103000000000000000d000000"
        "31302e302e302e313a37343831");
  CHECK(hex(encode_refusal(Error(Errc::wrong_cluster, "no"))) == "464c544c0100010009000000171b12ef012400020000006e6f");
}

TEST_CASE("a statement comes out as it went in, however the bytes are cut, and takes only its own") {
  const std::string block = encode_hello(sample);
  for (std::size_t step = 1; step <= block.size() + 4; ++step) {
    HelloReader reader;
    const std::string stream = block + "next";
    std::string_view left;
    HelloReader::State state = HelloReader::State::short_of;
    for (std::size_t at = 0; at < stream.size() && state == HelloReader::State::short_of; at += step) {
      left = std::string_view(stream).substr(at, step);
      state = reader.feed(left);
    }
    REQUIRE(state == HelloReader::State::hello);
    CHECK(reader.hello() == sample);
    CHECK(left == std::string_view("next").substr(0, left.size()));
  }
}

TEST_CASE("a refusal carries its reason, and an unknown number is just a refusal") {
  HelloReader reader;
  const std::string block = encode_refusal(Error(Errc::overloaded, "try later"));
  std::string_view bytes = block;
  REQUIRE(reader.feed(bytes) == HelloReader::State::refusal);
  CHECK(reader.error() == Errc::overloaded);
  CHECK(reader.error().message() == "refused by the other side: try later");
  HelloReader other;
  const std::string system = encode_refusal(Error(std::make_error_code(std::errc::io_error), "x"));
  bytes = system;
  REQUIRE(other.feed(bytes) == HelloReader::State::refusal);
  CHECK(other.error() == Errc::closed);
}

TEST_CASE("any flipped bit of a statement is noticed") {
  const std::string good = encode_hello(sample);
  for (std::size_t bit = 0; bit < good.size() * 8; ++bit) {
    CAPTURE(bit);
    std::string bad = good;
    bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ (1 << (bit % 8)));
    HelloReader reader;
    std::string_view bytes = bad;
    const HelloReader::State state = reader.feed(bytes);
    CHECK(state != HelloReader::State::hello);
    CHECK(state != HelloReader::State::refusal);
  }
}

TEST_CASE("what is not our protocol is refused at its first wrong byte") {
  HelloReader reader;
  std::string_view bytes = "FLX";
  CHECK(reader.feed(bytes) == HelloReader::State::malformed);
  CHECK(reader.error() == Errc::invalid_argument);
}

TEST_CASE("a statement that announces more than one may be long is refused unread") {
  HelloReader reader;
  std::string block = "FLTL";
  Encoder(block).u16(1).u16(1).u32(0xffffffff).u32(0);
  std::string_view bytes = block;
  CHECK(reader.feed(bytes) == HelloReader::State::malformed);
}

TEST_SUITE_END();
