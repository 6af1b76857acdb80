// What a peer that passed the handshake can send: net::decode. Whatever is accepted encodes to the very bytes it came
// from, so nothing in a message is read in two ways.
//
// Input: the frame's type, whether the records' checksums are put right first, then the body.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "base/codec.hpp"
#include "base/crc32c.hpp"
#include "net/codec.hpp"

using namespace flotilla;

namespace {

constexpr std::size_t records_at = 24 + 24 + 4;

void mend_records(std::string& body) {
  for (std::size_t at = records_at; at < body.size() && body.size() - at >= raft::record_header_bytes;) {
    const std::size_t length = get_fixed<std::uint32_t>(body.data() + at + 4);
    if (length > body.size() - at - raft::record_header_bytes) return;
    const std::string_view record = std::string_view(body).substr(at + 4, raft::record_header_bytes - 4 + length);
    put_fixed(body.data() + at, crc32c(record));
    at += raft::record_header_bytes + length;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Decoder in(std::string_view(reinterpret_cast<const char*>(data), size));
  const std::uint8_t type = in.u8();
  const bool mend = in.u8() % 2 == 1;
  if (!in.ok()) return 0;
  std::string body(in.rest());
  if (mend) mend_records(body);
  const net::ReceivedFrame frame{.type = type, .body = SharedBytes(std::move(body))};
  const auto message = net::decode(frame);
  if (!message) return 0;
  std::string again;
  const net::Frame encoded = net::encode(*message);
  for (const SharedBytes& part : encoded.parts) again += part.view();
  if (encoded.type != type || again != frame.body.view()) std::abort();
  return 0;
}
