#include <cerrno>
#include <climits>
#include <cstring>

#include <algorithm>
#include <vector>

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/assert.hpp"
#include "log/file.hpp"

namespace flotilla::log {
namespace {

Error failure(Errc code, std::string_view call, const std::string& path, int number) {
  return Error(code, fmt::format("{} {}: {}", call, path, std::generic_category().message(number)));
}

Error failure(std::string_view call, const std::string& path, int number) {
  Errc code = Errc::io_error;
  if (number == ENOSPC || number == EDQUOT) code = Errc::disk_full;
  if (number == ENOENT) code = Errc::not_found;
  return failure(code, call, path, number);
}

/// Without space too: what was to be synced may be gone, so space that comes back does not mend it.
Error sync_failure(std::string_view call, const std::string& path, int number) {
  return failure(Errc::io_error, call, path, number);
}

template <class Call>
auto retry_interrupted(Call call) {
  auto result = call();
  while (result < 0 && errno == EINTR) result = call();
  return result;
}

/// Drops `done` bytes from the front of parts[at..]; returns the first part that still has some.
std::size_t advance(std::vector<iovec>& parts, std::size_t at, std::size_t done) {
  while (at < parts.size() && done >= parts[at].iov_len) done -= parts[at++].iov_len;
  if (done > 0) {
    FLOTILLA_ASSERT(at < parts.size());
    parts[at].iov_base = static_cast<char*>(parts[at].iov_base) + done;
    parts[at].iov_len -= done;
  }
  return at;
}

class PosixFile final : public File {
 public:
  PosixFile(int descriptor, std::string path) : descriptor_(descriptor), path_(std::move(path)) {}
  ~PosixFile() override { ::close(descriptor_); }
  PosixFile(const PosixFile&) = delete;
  PosixFile& operator=(const PosixFile&) = delete;

  Result<void> write_at(std::uint64_t offset, const iovec* parts, int count) override {
    rest_.assign(parts, parts + count);
    std::size_t at = advance(rest_, 0, 0);
    while (at < rest_.size()) {
      const int batch = static_cast<int>(std::min<std::size_t>(rest_.size() - at, IOV_MAX));
      const ssize_t done =
          retry_interrupted([&] { return ::pwritev(descriptor_, &rest_[at], batch, static_cast<off_t>(offset)); });
      if (done < 0) return fail(failure("write", path_, errno));
      // No progress and no reason: the medium takes no more.
      if (done == 0) return fail(failure("write", path_, ENOSPC));
      offset += static_cast<std::uint64_t>(done);
      at = advance(rest_, at, static_cast<std::size_t>(done));
    }
    return {};
  }

  Result<std::string> read_at(std::uint64_t offset, std::size_t count) override {
    std::string bytes(count, '\0');
    std::size_t have = 0;
    while (have < count) {
      const ssize_t done = retry_interrupted(
          [&] { return ::pread(descriptor_, bytes.data() + have, count - have, static_cast<off_t>(offset + have)); });
      if (done < 0) return fail(failure("read", path_, errno));
      if (done == 0) break;
      have += static_cast<std::size_t>(done);
    }
    bytes.resize(have);
    return bytes;
  }

  // Not repeated on any error: what a second call would report as synced may be gone.
  Result<void> sync() override {
    if (::fdatasync(descriptor_) != 0) return fail(sync_failure("fdatasync", path_, errno));
    return {};
  }

  Result<std::uint64_t> size() override {
    struct stat status;
    if (::fstat(descriptor_, &status) != 0) return fail(failure("stat", path_, errno));
    return static_cast<std::uint64_t>(status.st_size);
  }

  Result<void> allocate(std::uint64_t bytes) override {
    const int done = retry_interrupted([&] { return ::fallocate(descriptor_, 0, 0, static_cast<off_t>(bytes)); });
    if (done != 0 && errno != EOPNOTSUPP && errno != ENOSYS) return fail(failure("fallocate", path_, errno));
    return {};
  }

 private:
  int descriptor_;
  std::string path_;
  std::vector<iovec> rest_;
};

class PosixFileSystem final : public FileSystem {
 public:
  Result<std::unique_ptr<File>> open(const std::string& path, Mode mode) override {
    const int access = mode == Mode::read ? O_RDONLY : O_RDWR;
    const int flags = access | O_CLOEXEC | (mode == Mode::create ? O_CREAT | O_EXCL : 0);
    const int descriptor = retry_interrupted([&] { return ::open(path.c_str(), flags, 0640); });
    if (descriptor < 0) return fail(failure("open", path, errno));
    return std::unique_ptr<File>(std::make_unique<PosixFile>(descriptor, path));
  }

  Result<void> rename(const std::string& from, const std::string& to) override {
    if (::rename(from.c_str(), to.c_str()) != 0) return fail(failure("rename to " + to + ":", from, errno));
    return {};
  }

  Result<void> remove(const std::string& path) override {
    if (::unlink(path.c_str()) != 0) return fail(failure("unlink", path, errno));
    return {};
  }

  Result<void> sync_directory(const std::string& directory) override {
    const int descriptor =
        retry_interrupted([&] { return ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); });
    const bool missing = descriptor < 0 && errno == ENOENT;
    if (descriptor < 0)
      return fail(missing ? failure("open", directory, errno) : sync_failure("open", directory, errno));
    const int done = ::fsync(descriptor);
    const int reason = errno;
    ::close(descriptor);
    if (done != 0) return fail(sync_failure("fsync", directory, reason));
    return {};
  }

  Result<void> make_directory(const std::string& path) override {
    if (::mkdir(path.c_str(), 0750) == 0) return {};
    const int reason = errno;
    struct stat status;
    if (reason == EEXIST && ::stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode)) return {};
    return fail(failure("mkdir", path, reason));
  }

  Result<std::vector<std::string>> list(const std::string& directory) override {
    DIR* const stream = ::opendir(directory.c_str());
    if (stream == nullptr) return fail(failure("open", directory, errno));
    std::vector<std::string> names;
    errno = 0;
    while (const dirent* const item = ::readdir(stream)) {
      const std::string_view name = item->d_name;
      if (name != "." && name != "..") names.emplace_back(name);
      errno = 0;
    }
    const int reason = errno;
    ::closedir(stream);
    if (reason != 0) return fail(failure("read directory", directory, reason));
    std::sort(names.begin(), names.end());
    return names;
  }

  Result<bool> exists(const std::string& path) override {
    struct stat status;
    if (::stat(path.c_str(), &status) == 0) return true;
    if (errno == ENOENT) return false;
    return fail(failure("stat", path, errno));
  }
};

}  // namespace

FileSystem& posix_file_system() {
  static PosixFileSystem files;
  return files;
}

}  // namespace flotilla::log
