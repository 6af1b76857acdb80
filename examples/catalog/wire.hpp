// The little protocol that catalogd speaks under its own tag on the database's port. A message is one line of words,
// the last of which counts the bytes that follow it:
//
//   request   ID VERB [WORD...] SIZE\n  and SIZE bytes of body
//   answer    ID OUTCOME SIZE\n         and SIZE bytes of body
//
// OUTCOME: ok | refused (certainly not done, ask again) | unknown (may yet be done) | failed (wrong, do not ask again).
// Answers come as they are ready, not in the order of the requests.
#pragma once

#include <chrono>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "flotilla/error.hpp"
#include "flotilla/stream.hpp"

namespace catalog {

/// The first byte of a connection to catalogd's service.
inline constexpr flotilla::Tag service_tag = 0x80;
inline constexpr std::size_t line_bytes_max = 4096;
inline constexpr std::size_t body_bytes_max = 16u << 20;

struct Message {
  std::vector<std::string> words;  ///< without the size
  std::string body;
};

std::string encode(const Message& message);

/// Reads messages from a stream. Thread: one at a time.
class MessageReader {
 public:
  explicit MessageReader(flotilla::Stream& stream) : stream_(stream) {}
  /// closed at a clean end of stream; invalid_argument: not this protocol, or over a limit.
  flotilla::Result<Message> read(std::chrono::milliseconds deadline = std::chrono::hours(24));

 private:
  flotilla::Result<void> fill(std::chrono::milliseconds deadline);
  flotilla::Stream& stream_;
  std::string buffer_;
};

}  // namespace catalog
