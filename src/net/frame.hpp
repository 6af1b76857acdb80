// Frames: {u32 length of the body, u32 crc32c of type and body, u8 type, body}. PROTOCOL.md#frame
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "base/bytes.hpp"
#include "flotilla/error.hpp"
#include "net/link.hpp"

namespace flotilla::net {

inline constexpr std::size_t frame_header_bytes = 4 + 4 + 1;

/// Bytes of the frame on the wire.
std::size_t frame_bytes(const Frame& frame);
/// The header and, in place, the parts. Requires: a body below 4 GiB.
std::vector<SharedBytes> to_wire(Frame frame);

/// Cuts a byte stream into frames. Each body gets a buffer of exactly its size, so a slice of it that lives long pins
/// its own frame and nothing else. A long body's buffer grows with what really arrived: announcing bytes costs the
/// receiver no memory.
class FrameReader {
 public:
  explicit FrameReader(std::size_t frame_bytes_max) : frame_bytes_max_(frame_bytes_max) {}

  /// The next whole frame; takes what it used off the front of `bytes`. Empty: all bytes were taken, or broken().
  std::optional<ReceivedFrame> next(std::string_view& bytes);
  /// The stream cannot be read on: too long a frame, or a wrong checksum.
  const std::optional<Error>& broken() const noexcept { return broken_; }
  /// Memory held for a frame that is not whole yet.
  std::size_t held_bytes() const noexcept { return body_capacity_; }

 private:
  bool take_header(std::string_view& bytes);
  bool take_body(std::string_view& bytes);
  void reserve(std::size_t wanted);

  const std::size_t frame_bytes_max_;
  std::optional<Error> broken_;
  char header_[frame_header_bytes] = {};
  std::size_t header_size_ = 0;
  std::size_t length_ = 0;  // of the body, once the header is whole
  std::shared_ptr<char[]> body_;
  std::size_t body_size_ = 0;
  std::size_t body_capacity_ = 0;
};

}  // namespace flotilla::net
