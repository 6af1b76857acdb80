#include "state/file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include <fmt/format.h>

namespace flotilla::state {
namespace {

constexpr mode_t file_mode = 0600;

Errc errc_of(int code) {
  if (code == ENOENT) return Errc::not_found;
  return code == ENOSPC || code == EDQUOT ? Errc::disk_full : Errc::io_error;
}

}  // namespace

Error FileHandle::error(std::string_view doing, int code) const {
  return {errc_of(code), fmt::format("{} {}: {}", doing, path_.string(), std::strerror(code))};
}

Result<FileHandle> FileHandle::open(const std::filesystem::path& path, int flags) {
  int descriptor = -1;
  do {
    descriptor = ::open(path.c_str(), flags | O_CLOEXEC, file_mode);
  } while (descriptor < 0 && errno == EINTR);
  FileHandle file(descriptor, path);
  if (descriptor < 0) return fail(file.error("open", errno));
  return file;
}

FileHandle::FileHandle(FileHandle&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)), path_(std::move(other.path_)) {}

FileHandle& FileHandle::operator=(FileHandle&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  std::swap(path_, other.path_);
  return *this;
}

FileHandle::~FileHandle() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

Result<void> FileHandle::write_at(std::uint64_t offset, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t done = ::pwrite(descriptor_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) return fail(error("write", done < 0 ? errno : EIO));
    offset += static_cast<std::uint64_t>(done);
    bytes.remove_prefix(static_cast<std::size_t>(done));
  }
  return {};
}

Result<std::string> FileHandle::read_at(std::uint64_t offset, std::size_t count) const {
  std::string bytes(count, '\0');
  std::size_t have = 0;
  while (have < count) {
    const ssize_t got = ::pread(descriptor_, bytes.data() + have, count - have, static_cast<off_t>(offset + have));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail(error("read", errno));
    if (got == 0) break;
    have += static_cast<std::size_t>(got);
  }
  bytes.resize(have);
  return bytes;
}

Result<void> FileHandle::sync() {
  if (::fsync(descriptor_) == 0) return {};
  return fail(Errc::io_error, error("sync", errno).message());
}

Result<std::uint64_t> FileHandle::size() const {
  struct stat info {};
  if (::fstat(descriptor_, &info) != 0) return fail(error("stat", errno));
  return static_cast<std::uint64_t>(info.st_size);
}

Result<void> FileHandle::reserve(std::uint64_t bytes) {
  const int code = ::posix_fallocate(descriptor_, 0, static_cast<off_t>(bytes));
  if (code == ENOSPC || code == EDQUOT || code == EFBIG) return fail(error("reserve space for", code));
  return {};
}

Result<void> sync_directory(const std::filesystem::path& path) {
  auto directory = FileHandle::open(path, O_RDONLY | O_DIRECTORY);
  if (!directory) return fail(Errc::io_error, directory.error().message());
  return directory->sync();
}

Result<void> check_room(const std::filesystem::path& directory, std::uint64_t bytes, std::uint64_t reserve_bytes) {
  std::error_code code;
  const auto space = std::filesystem::space(directory, code);
  if (code) return fail(Errc::io_error, fmt::format("ask for the space at {}: {}", directory.string(), code.message()));
  if (space.available < reserve_bytes || space.available - reserve_bytes < bytes) {
    return fail(Errc::disk_full, fmt::format("{} has {} bytes left; {} are needed, and {} in reserve",
                                             directory.string(), space.available, bytes, reserve_bytes));
  }
  return {};
}

}  // namespace flotilla::state
