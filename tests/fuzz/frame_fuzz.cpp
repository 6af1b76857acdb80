// The bytes a stranger can send before and after the handshake: HelloReader and FrameReader.
//
// Input: a mode, a limit, cut points, then the stream. In the mending modes the checksums are put right first, so that
// the fuzzer gets past them; in the other ones the bytes are taken as they are.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "base/codec.hpp"
#include "base/crc32c.hpp"
#include "net/frame.hpp"
#include "net/hello.hpp"

using namespace flotilla;
using namespace flotilla::net;

namespace {

void check(bool holds) {
  if (!holds) std::abort();
}

void mend_frames(std::string& stream) {
  for (std::size_t at = 0; at + frame_header_bytes <= stream.size();) {
    const std::size_t length = get_fixed<std::uint32_t>(stream.data() + at);
    if (length > stream.size() - at - frame_header_bytes) return;
    put_fixed(stream.data() + at + 4, crc32c(std::string_view(stream).substr(at + 8, 1 + length)));
    at += frame_header_bytes + length;
  }
}

void mend_hello(std::string& stream) {
  if (stream.size() < hello_header_bytes) return;
  stream.replace(0, 4, "FLTL");
  const std::size_t length = get_fixed<std::uint32_t>(stream.data() + 8);
  if (length > stream.size() - hello_header_bytes) return;
  const std::string_view view = stream;
  put_fixed(stream.data() + 12, crc32c(view.substr(hello_header_bytes, length), crc32c(view.substr(0, 12))));
}

/// The next piece of the stream, as the cut points say.
std::string_view cut(std::string_view& stream, std::string_view& cuts) {
  std::size_t count = stream.size();
  if (!cuts.empty()) {
    count = std::min<std::size_t>(count, 1 + static_cast<unsigned char>(cuts[0]));
    cuts.remove_prefix(1);
  }
  const std::string_view piece = stream.substr(0, count);
  stream.remove_prefix(count);
  return piece;
}

void read_frames(std::string_view stream, std::string_view cuts, std::size_t limit) {
  FrameReader reader(limit);
  std::string again;
  const std::string_view whole = stream;
  while (!stream.empty()) {
    std::string_view piece = cut(stream, cuts);
    while (!piece.empty()) {
      const auto frame = reader.next(piece);
      check(reader.held_bytes() <= std::max<std::size_t>(4 * whole.size(), 256u << 10));
      if (!frame) break;
      check(frame->body.size() <= limit);
      for (const SharedBytes& part : to_wire(Frame{.type = frame->type, .parts = {frame->body}})) again += part.view();
    }
    if (reader.broken()) return check(whole.starts_with(again));
    check(piece.empty());
  }
  check(whole.starts_with(again));
}

void read_hello(std::string_view stream, std::string_view cuts) {
  HelloReader reader;
  while (!stream.empty()) {
    std::string_view piece = cut(stream, cuts);
    const HelloReader::State state = reader.feed(piece);
    if (state == HelloReader::State::short_of) {
      check(piece.empty());
      continue;
    }
    if (state == HelloReader::State::hello) {
      const std::string again = encode_hello(reader.hello());
      HelloReader second;
      std::string_view bytes = again;
      check(second.feed(bytes) == HelloReader::State::hello && second.hello() == reader.hello());
    }
    return;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Decoder in(std::string_view(reinterpret_cast<const char*>(data), size));
  const std::uint8_t mode = in.u8();
  const std::size_t limit = in.u16();
  const std::string_view cuts = in.raw(in.u8() % 16);
  if (!in.ok()) return 0;
  std::string stream(in.rest());
  switch (mode % 4) {
    case 0: read_frames(stream, cuts, limit); break;
    case 1:
      mend_frames(stream);
      read_frames(stream, cuts, limit);
      break;
    case 2: read_hello(stream, cuts); break;
    default: mend_hello(stream); read_hello(stream, cuts);
  }
  return 0;
}
