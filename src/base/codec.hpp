// Little-endian fixed-width fields and length-prefixed strings: the alphabet of every format of ours, on disk and wire.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>

namespace flotilla {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "a big-endian port must byte-swap here");

template <class T>
requires std::is_unsigned_v<T>
void put_fixed(char* to, T value) noexcept {
  std::memcpy(to, &value, sizeof value);
}

template <class T>
requires std::is_unsigned_v<T> T get_fixed(const char* from)
noexcept {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

/// Appends fields to a string, or to what appends as one does.
template <class Out>
class BasicEncoder {
 public:
  explicit BasicEncoder(Out& out) : out_(out) {}
  template <class T>
  requires std::is_unsigned_v<T> BasicEncoder& fixed(T value) {
    char bytes[sizeof value];
    put_fixed(bytes, value);
    out_.append(bytes, sizeof bytes);
    return *this;
  }
  BasicEncoder& u8(std::uint8_t value) { return fixed(value); }
  BasicEncoder& u16(std::uint16_t value) { return fixed(value); }
  BasicEncoder& u32(std::uint32_t value) { return fixed(value); }
  BasicEncoder& u64(std::uint64_t value) { return fixed(value); }
  BasicEncoder& raw(std::string_view bytes) {
    out_.append(bytes);
    return *this;
  }
  /// u32 length, then the bytes. Requires: size below 4 GiB.
  BasicEncoder& bytes(std::string_view bytes) { return u32(static_cast<std::uint32_t>(bytes.size())).raw(bytes); }

 private:
  Out& out_;
};
using Encoder = BasicEncoder<std::string>;

/// For an encoder: memory that is large enough for all that is appended.
class Memory {
 public:
  explicit Memory(char* to) : end_(to) {}
  void append(std::string_view bytes) { append(bytes.data(), bytes.size()); }
  void append(const char* bytes, std::size_t count) {
    if (count > 0) std::memcpy(end_, bytes, count);
    end_ += count;
  }
  const char* end() const noexcept { return end_; }

 private:
  char* end_;
};

/// Reads fields back. Never reads past the end: the first shortfall makes ok() false and all later reads zero or empty.
class Decoder {
 public:
  explicit Decoder(std::string_view in) : in_(in) {}
  template <class T>
  requires std::is_unsigned_v<T> T fixed() {
    if (in_.size() < sizeof(T)) return short_of(T{});
    const T value = get_fixed<T>(in_.data());
    in_.remove_prefix(sizeof(T));
    return value;
  }
  std::uint8_t u8() { return fixed<std::uint8_t>(); }
  std::uint16_t u16() { return fixed<std::uint16_t>(); }
  std::uint32_t u32() { return fixed<std::uint32_t>(); }
  std::uint64_t u64() { return fixed<std::uint64_t>(); }
  std::string_view raw(std::size_t count) {
    if (in_.size() < count) return short_of(std::string_view{});
    const std::string_view bytes = in_.substr(0, count);
    in_.remove_prefix(count);
    return bytes;
  }
  std::string_view bytes() { return raw(u32()); }

  bool ok() const noexcept { return ok_; }
  /// Everything was read, and nothing was missing.
  bool done() const noexcept { return ok_ && in_.empty(); }
  std::size_t remaining() const noexcept { return in_.size(); }
  std::string_view rest() const noexcept { return in_; }

 private:
  template <class T>
  T short_of(T value) {
    ok_ = false;
    in_ = {};
    return value;
  }
  std::string_view in_;
  bool ok_ = true;
};

}  // namespace flotilla
