// The seam under everything that writes files of ours: posix, in memory, faulty.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "flotilla/error.hpp"

struct iovec;

namespace flotilla::log {

/// One open file. Thread: one at a time. Short reads and writes, and EINTR, are handled inside.
class File {
 public:
  virtual ~File() = default;
  [[nodiscard]] virtual Result<void> write_at(std::uint64_t offset, const iovec* parts, int count) = 0;
  /// Up to `count` bytes; fewer only at the end of the file.
  [[nodiscard]] virtual Result<std::string> read_at(std::uint64_t offset, std::size_t count) = 0;
  /// Data and length are on the medium. After a failure nothing may be written to this file again.
  [[nodiscard]] virtual Result<void> sync() = 0;
  [[nodiscard]] virtual Result<std::uint64_t> size() = 0;
  /// Reserves space for, and makes the file at least, `bytes` long; what was not written reads as zeros. disk_full
  /// comes now rather than in the middle of a write. No effect where the file system cannot reserve.
  [[nodiscard]] virtual Result<void> allocate(std::uint64_t bytes) = 0;
};

/// Thread: any, except that one path is one thread's at a time. Errors: disk_full (no space, no quota), not_found (the
/// path does not exist), else io_error; the message has the call, the path and the system's reason. A sync that fails
/// is io_error whatever the reason.
class FileSystem {
 public:
  virtual ~FileSystem() = default;
  /// create: must not exist yet; read: what cannot be written can be opened, too.
  enum class Mode : std::uint8_t { open, create, read };
  [[nodiscard]] virtual Result<std::unique_ptr<File>> open(const std::string& path, Mode mode) = 0;
  [[nodiscard]] virtual Result<void> rename(const std::string& from, const std::string& to) = 0;
  [[nodiscard]] virtual Result<void> remove(const std::string& path) = 0;
  /// Makes creations, renames and removals in `directory` durable.
  [[nodiscard]] virtual Result<void> sync_directory(const std::string& directory) = 0;
  [[nodiscard]] virtual Result<void> make_directory(const std::string& path) = 0;  ///< no error if it exists
  /// Names in it, sorted; not_found if it does not exist.
  [[nodiscard]] virtual Result<std::vector<std::string>> list(const std::string& directory) = 0;
  [[nodiscard]] virtual Result<bool> exists(const std::string& path) = 0;
};

/// The real one. Process-wide, stateless.
FileSystem& posix_file_system();

/// The directory that holds `path`: "." if it names none.
std::string directory_of(const std::string& path);

/// Whole-file helpers: write to `path`.tmp, sync, rename, sync the directory / read it all.
[[nodiscard]] Result<void> write_file_durably(FileSystem& files, const std::string& path, std::string_view bytes);
[[nodiscard]] Result<std::string> read_file(FileSystem& files, const std::string& path);

}  // namespace flotilla::log
