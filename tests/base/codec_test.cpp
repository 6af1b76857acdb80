#include "base/codec.hpp"

#include <doctest/doctest.h>

using flotilla::Decoder;
using flotilla::Encoder;

TEST_SUITE_BEGIN("base.codec");

TEST_CASE("fields come back as they were put") {
  std::string out;
  Encoder(out).u8(7).u16(0x1234).u32(0xdeadbeef).u64(1).bytes("key").bytes("").raw("tail");
  Decoder in(out);
  CHECK(in.u8() == 7);
  CHECK(in.u16() == 0x1234);
  CHECK(in.u32() == 0xdeadbeef);
  CHECK(in.u64() == 1);
  CHECK(in.bytes() == "key");
  CHECK(in.bytes().empty());
  CHECK(in.raw(4) == "tail");
  CHECK(in.done());
}

TEST_CASE("a cut at any byte is noticed and reads nothing beyond it") {
  std::string out;
  Encoder(out).u32(5).bytes("hello").u64(9);
  for (std::size_t cut = 0; cut < out.size(); ++cut) {
    CAPTURE(cut);
    const std::string part = out.substr(0, cut);
    Decoder in(part);
    in.u32();
    in.bytes();
    in.u64();
    CHECK_FALSE(in.ok());
    CHECK_FALSE(in.done());
  }
}

TEST_CASE("a length beyond the end yields nothing, whatever it says") {
  std::string out;
  Encoder(out).u32(0xffffffffu).raw("abc");
  Decoder in(out);
  CHECK(in.bytes().empty());
  CHECK_FALSE(in.ok());
  CHECK(in.u64() == 0);
}

TEST_SUITE_END();
