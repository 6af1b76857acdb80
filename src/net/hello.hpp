// The handshake: what each side states before any frame. PROTOCOL.md#hello
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>

#include "flotilla/error.hpp"
#include "net/link.hpp"

namespace flotilla::net {

inline constexpr std::uint16_t protocol_version_min = 1;
inline constexpr std::uint16_t protocol_version_max = 1;
inline constexpr std::size_t hello_header_bytes = 4 + 2 + 2 + 4 + 4;
inline constexpr std::size_t hello_body_bytes_max = 1024;

std::string encode_hello(const Hello& hello);
/// The other side said no; `error` is what it gives as the reason.
std::string encode_refusal(const Error& error);

/// Collects one handshake block from a stream.
class HelloReader {
 public:
  enum class State : std::uint8_t { short_of, hello, refusal, malformed };
  /// Takes what belongs to the block off the front of `bytes`, never more.
  State feed(std::string_view& bytes);
  const Hello& hello() const noexcept { return hello_; }  ///< State::hello
  const Error& error() const noexcept { return error_; }  ///< State::refusal or malformed

 private:
  State malformed(Errc code, std::string why);
  State parse();

  std::string block_;
  Hello hello_;
  Error error_{Errc::closed};
};

}  // namespace flotilla::net
