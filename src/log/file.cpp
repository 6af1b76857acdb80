#include "log/file.hpp"

#include <sys/uio.h>

namespace flotilla::log {

std::string directory_of(const std::string& path) {
  const std::size_t slash = path.find_last_of('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

Result<void> write_file_durably(FileSystem& files, const std::string& path, std::string_view bytes) {
  const std::string temporary = path + ".tmp";
  // One may be left from a crash; nobody else writes here.
  if (Result<void> removed = files.remove(temporary); !removed && !(removed.error() == Errc::not_found)) return removed;
  Result<std::unique_ptr<File>> file = files.open(temporary, FileSystem::Mode::create);
  if (!file) return fail(std::move(file.error()));
  const iovec part{const_cast<char*>(bytes.data()), bytes.size()};
  if (Result<void> written = (*file)->write_at(0, &part, 1); !written) return written;
  // Before the rename: a name must never show contents that a crash can still take away.
  if (Result<void> synced = (*file)->sync(); !synced) return synced;
  if (Result<void> renamed = files.rename(temporary, path); !renamed) return renamed;
  return files.sync_directory(directory_of(path));
}

Result<std::string> read_file(FileSystem& files, const std::string& path) {
  Result<std::unique_ptr<File>> file = files.open(path, FileSystem::Mode::read);
  if (!file) return fail(std::move(file.error()));
  const Result<std::uint64_t> size = (*file)->size();
  if (!size) return fail(size.error());
  return (*file)->read_at(0, *size);
}

}  // namespace flotilla::log
