#include "net/hello.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "base/codec.hpp"
#include "base/crc32c.hpp"

namespace flotilla::net {
namespace {

constexpr std::string_view magic = "FLTL";
constexpr std::uint8_t kind_hello = 0;
constexpr std::uint8_t kind_refusal = 1;
constexpr std::size_t text_bytes_max = 512;
constexpr std::size_t length_at = 8;
constexpr std::size_t crc_at = 12;

std::string seal_block(std::string_view body) {
  std::string block;
  Encoder out(block);
  out.raw(magic).u16(protocol_version_min).u16(protocol_version_max).u32(static_cast<std::uint32_t>(body.size()));
  out.u32(crc32c(body, crc32c(block))).raw(body);
  return block;
}

/// A peer's number, which may be none of ours.
Errc to_errc(std::uint16_t number) {
  switch (static_cast<Errc>(number)) {
    case Errc::wrong_cluster:
    case Errc::version_unsupported:
    case Errc::invalid_argument:
    case Errc::overloaded:
    case Errc::shutting_down:
    case Errc::not_leader:
    case Errc::no_leader:
    case Errc::not_found:
    case Errc::stopped:
    case Errc::damaged:
    case Errc::timeout: return static_cast<Errc>(number);
    default: return Errc::closed;
  }
}

}  // namespace

std::string encode_hello(const Hello& hello) {
  std::string body;
  Encoder(body)
      .u8(kind_hello)
      .u64(hello.cluster_id.high)
      .u64(hello.cluster_id.low)
      .u64(hello.node_id.value)
      .u64(hello.incarnation)
      .bytes(std::string_view(hello.address).substr(0, text_bytes_max));
  return seal_block(body);
}

std::string encode_refusal(const Error& error) {
  const bool ours = error.code().category() == category();
  std::string body;
  Encoder(body)
      .u8(kind_refusal)
      .u16(static_cast<std::uint16_t>(ours ? error.code().value() : static_cast<int>(Errc::closed)))
      .bytes(std::string_view(error.message()).substr(0, text_bytes_max));
  return seal_block(body);
}

HelloReader::State HelloReader::feed(std::string_view& bytes) {
  const auto take = [&](std::size_t up_to) {
    const std::size_t count = std::min(bytes.size(), up_to - block_.size());
    block_.append(bytes.substr(0, count));
    bytes.remove_prefix(count);
    return block_.size() == up_to;
  };
  if (block_.size() < hello_header_bytes) {
    const bool whole = take(hello_header_bytes);
    const std::size_t known = std::min(block_.size(), magic.size());
    if (block_.compare(0, known, magic, 0, known) != 0) {
      return malformed(Errc::invalid_argument, "the other side does not speak this protocol");
    }
    if (!whole) return State::short_of;
  }
  const std::size_t length = get_fixed<std::uint32_t>(block_.data() + length_at);
  if (length > hello_body_bytes_max) return malformed(Errc::invalid_argument, "the handshake is too long");
  if (!take(hello_header_bytes + length)) return State::short_of;
  return parse();
}

HelloReader::State HelloReader::malformed(Errc code, std::string why) {
  error_ = Error(code, std::move(why));
  return State::malformed;
}

HelloReader::State HelloReader::parse() {
  const std::string_view block = block_;
  const std::string_view body = block.substr(hello_header_bytes);
  if (crc32c(body, crc32c(block.substr(0, crc_at))) != get_fixed<std::uint32_t>(block_.data() + crc_at)) {
    return malformed(Errc::damaged, "the handshake's checksum is wrong");
  }
  const auto least = get_fixed<std::uint16_t>(block_.data() + 4);
  const auto most = get_fixed<std::uint16_t>(block_.data() + 6);
  Decoder in(body);
  const std::uint8_t kind = in.u8();
  if (kind == kind_refusal) {  // alike in every version, so that the reason is always understood
    const Errc code = to_errc(in.u16());
    error_ = Error(code, fmt::format("refused by the other side: {}", in.bytes()));
    return in.ok() ? State::refusal : malformed(Errc::damaged, "the refusal is cut short");
  }
  if (least > protocol_version_max || most < protocol_version_min || least > most) {
    return malformed(Errc::version_unsupported,
                     fmt::format("the other side speaks protocol versions {} to {}, this one {} to {}", least, most,
                                 protocol_version_min, protocol_version_max));
  }
  hello_.cluster_id.high = in.u64();
  hello_.cluster_id.low = in.u64();
  hello_.node_id.value = in.u64();
  hello_.incarnation = in.u64();
  hello_.address = in.bytes();
  // Bytes that follow belong to a later version that also speaks this one.
  if (kind != kind_hello || !in.ok() || hello_.address.size() > text_bytes_max) {
    return malformed(Errc::damaged, "the handshake is malformed");
  }
  return State::hello;
}

}  // namespace flotilla::net
