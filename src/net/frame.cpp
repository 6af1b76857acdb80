#include "net/frame.hpp"

#include <algorithm>
#include <cstring>

#include <fmt/format.h>

#include "base/assert.hpp"
#include "base/codec.hpp"
#include "base/crc32c.hpp"

namespace flotilla::net {
namespace {

// A body up to this size gets its buffer at once; a longer one starts here and quadruples.
constexpr std::size_t first_body_bytes = 256u << 10;
constexpr std::size_t growth = 4;

std::size_t body_bytes(const Frame& frame) {
  std::size_t size = 0;
  for (const SharedBytes& part : frame.parts) size += part.size();
  return size;
}

}  // namespace

std::size_t frame_bytes(const Frame& frame) {
  return frame_header_bytes + body_bytes(frame);
}

std::vector<SharedBytes> to_wire(Frame frame) {
  const std::size_t length = body_bytes(frame);
  FLOTILLA_ASSERT(length <= UINT32_MAX);
  char header[frame_header_bytes];
  header[8] = static_cast<char>(frame.type);
  std::uint32_t crc = crc32c(std::string_view(header + 8, 1));
  for (const SharedBytes& part : frame.parts) crc = crc32c(part.view(), crc);
  put_fixed(header, static_cast<std::uint32_t>(length));
  put_fixed(header + 4, crc);

  // A short first part joins the header: one buffer less for the socket to gather.
  constexpr std::size_t join_bytes = 1024;
  const bool joins = !frame.parts.empty() && frame.parts[0].size() <= join_bytes;
  const std::string_view joined = joins ? frame.parts[0].view() : std::string_view();
  SharedBytes first = SharedBytes::of(sizeof header + joined.size(), [&](char* to) {
    Memory out(to);
    out.append(header, sizeof header);
    out.append(joined);
  });
  std::vector<SharedBytes> wire = std::move(frame.parts);
  if (joins) {
    wire[0] = std::move(first);
  } else {
    wire.insert(wire.begin(), std::move(first));
  }
  return wire;
}

std::optional<ReceivedFrame> FrameReader::next(std::string_view& bytes) {
  if (broken_ || !take_header(bytes) || !take_body(bytes)) return std::nullopt;
  const std::string_view body(body_.get(), length_);
  const std::uint32_t crc = crc32c(body, crc32c(std::string_view(header_ + 8, 1)));
  if (crc != get_fixed<std::uint32_t>(header_ + 4)) {
    broken_.emplace(Errc::damaged, "a frame's checksum is wrong");
    return std::nullopt;
  }
  ReceivedFrame frame{.type = static_cast<std::uint8_t>(header_[8]), .body = SharedBytes(std::move(body_), body)};
  header_size_ = 0;
  body_.reset();
  body_size_ = 0;
  body_capacity_ = 0;
  return frame;
}

bool FrameReader::take_header(std::string_view& bytes) {
  if (header_size_ == frame_header_bytes) return true;
  const std::size_t count = std::min(bytes.size(), frame_header_bytes - header_size_);
  std::memcpy(header_ + header_size_, bytes.data(), count);
  header_size_ += count;
  bytes.remove_prefix(count);
  if (header_size_ < frame_header_bytes) return false;
  length_ = get_fixed<std::uint32_t>(header_);
  if (length_ > frame_bytes_max_) {
    broken_.emplace(Errc::entry_too_large,
                    fmt::format("a frame of {} bytes was announced; {} are allowed", length_, frame_bytes_max_));
    return false;
  }
  return true;
}

bool FrameReader::take_body(std::string_view& bytes) {
  while (body_size_ < length_ && !bytes.empty()) {
    if (body_size_ == body_capacity_) {
      reserve(std::min(length_, std::max(first_body_bytes, body_capacity_ * growth)));
    }
    const std::size_t count = std::min(bytes.size(), body_capacity_ - body_size_);
    std::memcpy(body_.get() + body_size_, bytes.data(), count);
    body_size_ += count;
    bytes.remove_prefix(count);
  }
  return body_size_ == length_;
}

void FrameReader::reserve(std::size_t wanted) {
  auto larger = std::make_shared_for_overwrite<char[]>(wanted);
  if (body_size_ > 0) std::memcpy(larger.get(), body_.get(), body_size_);
  body_ = std::move(larger);
  body_capacity_ = wanted;
}

}  // namespace flotilla::net
