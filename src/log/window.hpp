// A file read in chunks, so that walking its records costs few system calls.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "flotilla/error.hpp"
#include "log/file.hpp"

namespace flotilla::log {

class Window {
 public:
  Window(File& file, std::size_t chunk_bytes) : file_(file), chunk_bytes_(chunk_bytes) {}

  /// `count` bytes at `offset`, fewer only at the end of the file. Valid until the next call; owner() keeps them
  /// longer.
  Result<std::string_view> view(std::uint64_t offset, std::size_t count) {
    const bool inside =
        chunk_ && offset >= at_ && offset - at_ <= chunk_->size() && count <= chunk_->size() - (offset - at_);
    if (!inside) {
      Result<std::string> bytes = file_.read_at(offset, std::max(count, chunk_bytes_));
      if (!bytes) return fail(std::move(bytes.error()));
      chunk_ = std::make_shared<const std::string>(std::move(*bytes));
      at_ = offset;
    }
    return std::string_view(*chunk_).substr(offset - at_, count);
  }
  /// Keeps alive what view() returned last.
  std::shared_ptr<const void> owner() const { return chunk_; }

 private:
  File& file_;
  const std::size_t chunk_bytes_;
  std::uint64_t at_ = 0;
  std::shared_ptr<const std::string> chunk_;
};

}  // namespace flotilla::log
