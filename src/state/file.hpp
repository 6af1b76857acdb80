// An open file of the state directory, by descriptor.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "flotilla/error.hpp"

namespace flotilla::state {

/// Thread: one at a time. Errors: not_found, disk_full, io_error; the message has the call, the path and the reason.
class FileHandle {
 public:
  /// `flags` as for open(2); O_CLOEXEC is added, a new file has mode 0600.
  static Result<FileHandle> open(const std::filesystem::path& path, int flags);
  FileHandle(FileHandle&& other) noexcept;
  FileHandle& operator=(FileHandle&& other) noexcept;
  ~FileHandle();

  int descriptor() const noexcept { return descriptor_; }
  [[nodiscard]] Result<void> write_at(std::uint64_t offset, std::string_view bytes);
  /// Up to `count` bytes; fewer only at the end of the file.
  [[nodiscard]] Result<std::string> read_at(std::uint64_t offset, std::size_t count) const;
  /// io_error, also for lack of space: what was written may be lost, and another try would not know.
  [[nodiscard]] Result<void> sync();

  [[nodiscard]] Result<std::uint64_t> size() const;
  /// Takes the space now, so that a full disk is known before the first byte. No effect where it cannot be reserved.
  [[nodiscard]] Result<void> reserve(std::uint64_t bytes);

 private:
  FileHandle(int descriptor, std::filesystem::path path) : descriptor_(descriptor), path_(std::move(path)) {}
  Error error(std::string_view doing, int code) const;
  int descriptor_;
  std::filesystem::path path_;
};

/// Makes the names in a directory durable. Only io_error: what was named before is there, durable or not.
[[nodiscard]] Result<void> sync_directory(const std::filesystem::path& path);

/// disk_full unless the file system of `directory` has room for `bytes` more and `reserve_bytes` besides.
[[nodiscard]] Result<void> check_room(const std::filesystem::path& directory, std::uint64_t bytes,
                                      std::uint64_t reserve_bytes);

}  // namespace flotilla::state
