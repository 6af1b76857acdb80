// SharedBytes: an immutable slice of a shared buffer. Copying it copies a pointer, so one payload can be in the log
// queue, in several links and with the applier at once.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

namespace flotilla {

class SharedBytes {
 public:
  SharedBytes() = default;
  /// Takes over `bytes` without copying its contents.
  explicit SharedBytes(std::string bytes) {
    auto owner = std::make_shared<const std::string>(std::move(bytes));
    view_ = *owner;
    owner_ = std::move(owner);
  }
  /// `size` bytes that write(char*) puts there, in one allocation.
  template <class Write>
  static SharedBytes of(std::size_t size, Write write) {
    auto owner = std::make_shared_for_overwrite<char[]>(size);
    char* const bytes = owner.get();
    write(bytes);
    return {std::move(owner), {bytes, size}};
  }
  /// A slice of a buffer that `owner` keeps alive.
  SharedBytes(std::shared_ptr<const void> owner, std::string_view view) : owner_(std::move(owner)), view_(view) {}

  std::string_view view() const noexcept { return view_; }
  const char* data() const noexcept { return view_.data(); }
  std::size_t size() const noexcept { return view_.size(); }
  bool empty() const noexcept { return view_.empty(); }
  /// What keeps the bytes alive: for further slices of them.
  const std::shared_ptr<const void>& owner() const noexcept { return owner_; }
  /// Requires: offset + count <= size().
  SharedBytes slice(std::size_t offset, std::size_t count) const { return {owner_, view_.substr(offset, count)}; }

  friend bool operator==(const SharedBytes& left, const SharedBytes& right) { return left.view_ == right.view_; }

 private:
  std::shared_ptr<const void> owner_;
  std::string_view view_;
};

}  // namespace flotilla
