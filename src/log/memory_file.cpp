#include "log/memory_file.hpp"

#include <algorithm>
#include <utility>

#include <sys/uio.h>

#include "base/assert.hpp"

namespace flotilla::log {
namespace {

constexpr std::size_t torn_bytes = 512;

tl::unexpected<Error> missing(const std::string& path) {
  return fail(Errc::not_found, path + ": No such file or directory");
}

}  // namespace

class MemoryFileSystem::Handle final : public File {
 public:
  Handle(MemoryFileSystem& disk, Inode inode, std::string path)
      : files_(disk), inode_(inode), path_(std::move(path)), power_ons_(disk.power_ons_) {}

  Result<void> write_at(std::uint64_t offset, const iovec* parts, int count) override {
    const std::lock_guard lock(files_.mutex_);
    if (power_ons_ != files_.power_ons_) return gone();
    Write write{offset, {}};
    for (int at = 0; at < count; ++at)
      write.bytes.append(static_cast<const char*>(parts[at].iov_base), parts[at].iov_len);
    if (write.bytes.empty()) return {};
    return apply(std::move(write));
  }

  Result<std::string> read_at(std::uint64_t offset, std::size_t count) override {
    const std::lock_guard lock(files_.mutex_);
    if (power_ons_ != files_.power_ons_) return gone();
    const std::string& now = node().now;
    return offset < now.size() ? now.substr(offset, count) : std::string();
  }

  Result<void> sync() override {
    const std::lock_guard lock(files_.mutex_);
    if (power_ons_ != files_.power_ons_) return gone();
    for (const Write& write : node().unsynced) put(node().durable, write);
    node().unsynced.clear();
    return {};
  }

  Result<std::uint64_t> size() override {
    const std::lock_guard lock(files_.mutex_);
    if (power_ons_ != files_.power_ons_) return gone();
    return node().now.size();
  }

  Result<void> allocate(std::uint64_t bytes) override {
    const std::lock_guard lock(files_.mutex_);
    if (power_ons_ != files_.power_ons_) return gone();
    return bytes <= node().now.size() ? Result<void>() : apply(Write{bytes, {}});
  }

 private:
  tl::unexpected<Error> gone() const { return fail(Errc::io_error, path_ + ": the power was lost"); }
  Node& node() { return files_.disk_.nodes.at(inode_); }

  Result<void> apply(Write write) {
    const std::uint64_t end = write.offset + write.bytes.size();
    const std::uint64_t grown = end > node().now.size() ? end - node().now.size() : 0;
    if (grown > 0 && files_.bytes_used() + grown > files_.disk_.capacity) {
      return fail(Errc::disk_full, path_ + ": No space left on device");
    }
    put(node().now, write);
    node().unsynced.push_back(std::move(write));
    return {};
  }

  MemoryFileSystem& files_;
  const Inode inode_;
  const std::string path_;
  const std::uint64_t power_ons_;
};

void MemoryFileSystem::put(std::string& file, const Write& write) {
  file.resize(std::max<std::size_t>(file.size(), write.offset + write.bytes.size()));
  std::copy(write.bytes.begin(), write.bytes.end(), file.begin() + static_cast<std::ptrdiff_t>(write.offset));
}

void MemoryFileSystem::change(Names& names, const Change& change) {
  if (!change.from.empty()) names.files.erase(change.from);
  if (change.to.empty()) return;
  if (change.inode == 0) {
    names.directories.insert(change.to);
  } else {
    names.files[change.to] = change.inode;
  }
}

void MemoryFileSystem::record(Change what) {
  change(disk_.now, what);
  disk_.changes.push_back(std::move(what));
}

bool MemoryFileSystem::has_directory(const std::string& path) const {
  return path == "." || path == "/" || disk_.now.directories.contains(path);
}

std::uint64_t MemoryFileSystem::bytes_used() const {
  std::uint64_t sum = 0;
  for (const auto& [path, inode] : disk_.now.files) sum += disk_.nodes.at(inode).now.size();
  return sum;
}

Result<std::unique_ptr<File>> MemoryFileSystem::open(const std::string& path, Mode mode) {
  const std::lock_guard lock(mutex_);
  auto found = disk_.now.files.find(path);
  if (mode == Mode::create) {
    if (found != disk_.now.files.end()) return fail(Errc::io_error, path + ": File exists");
    if (!has_directory(directory_of(path))) return missing(path);
    const Inode inode = disk_.next_inode++;
    disk_.nodes.emplace(inode, Node{});
    record(Change{directory_of(path), {}, path, inode});
    return std::unique_ptr<File>(std::make_unique<Handle>(*this, inode, path));
  }
  if (found == disk_.now.files.end()) return missing(path);
  return std::unique_ptr<File>(std::make_unique<Handle>(*this, found->second, path));
}

Result<void> MemoryFileSystem::rename(const std::string& from, const std::string& to) {
  const std::lock_guard lock(mutex_);
  const auto found = disk_.now.files.find(from);
  if (found == disk_.now.files.end()) return missing(from);
  FLOTILLA_ASSERT(directory_of(from) == directory_of(to));
  record(Change{directory_of(to), from, to, found->second});
  return {};
}

Result<void> MemoryFileSystem::remove(const std::string& path) {
  const std::lock_guard lock(mutex_);
  const auto found = disk_.now.files.find(path);
  if (found == disk_.now.files.end()) return missing(path);
  record(Change{directory_of(path), path, {}, found->second});
  return {};
}

Result<void> MemoryFileSystem::sync_directory(const std::string& directory) {
  const std::lock_guard lock(mutex_);
  if (!has_directory(directory)) return missing(directory);
  std::erase_if(disk_.changes, [&](const Change& pending) {
    if (pending.directory != directory) return false;
    change(disk_.durable, pending);
    return true;
  });
  return {};
}

Result<void> MemoryFileSystem::make_directory(const std::string& path) {
  const std::lock_guard lock(mutex_);
  if (has_directory(path)) return {};
  if (!has_directory(directory_of(path))) return missing(path);
  record(Change{directory_of(path), {}, path, 0});
  return {};
}

Result<std::vector<std::string>> MemoryFileSystem::list(const std::string& directory) {
  const std::lock_guard lock(mutex_);
  if (!has_directory(directory)) return missing(directory);
  std::vector<std::string> names;
  for (const auto& [path, inode] : disk_.now.files) {
    if (directory_of(path) == directory) names.push_back(path.substr(path.find_last_of('/') + 1));
  }
  for (const std::string& path : disk_.now.directories) {
    if (directory_of(path) == directory) names.push_back(path.substr(path.find_last_of('/') + 1));
  }
  std::sort(names.begin(), names.end());
  return names;
}

Result<bool> MemoryFileSystem::exists(const std::string& path) {
  const std::lock_guard lock(mutex_);
  return disk_.now.files.contains(path) || has_directory(path);
}

void MemoryFileSystem::crash(const Survives& survives) {
  const std::lock_guard lock(mutex_);
  ++power_ons_;
  for (auto& [inode, node] : disk_.nodes) {
    for (const Write& write : node.unsynced) {
      if (write.bytes.empty() && survives()) put(node.durable, write);
      for (std::size_t at = 0; at < write.bytes.size();) {
        // Sectors lie at multiples of 512 in the file, wherever the write begins.
        const std::uint64_t begin = write.offset + at;
        const std::size_t count = std::min<std::size_t>(write.bytes.size() - at, torn_bytes - begin % torn_bytes);
        if (survives()) put(node.durable, Write{begin, write.bytes.substr(at, count)});
        at += count;
      }
    }
    node.unsynced.clear();
    node.now = node.durable;
  }
  for (const Change& pending : disk_.changes) {
    if (survives()) change(disk_.durable, pending);
  }
  disk_.changes.clear();
  // What a lost directory held is lost with it.
  std::erase_if(disk_.durable.files, [&](const auto& file) {
    const std::string directory = directory_of(file.first);
    return directory != "." && directory != "/" && !disk_.durable.directories.contains(directory);
  });
  disk_.now = disk_.durable;
}

void MemoryFileSystem::forget_unsynced() {
  const std::lock_guard lock(mutex_);
  for (auto& [inode, node] : disk_.nodes) node.unsynced.clear();
}

std::size_t MemoryFileSystem::unsynced() const {
  std::size_t count = 0;
  clone()->crash([&] {
    ++count;
    return true;
  });
  return count;
}

std::unique_ptr<MemoryFileSystem> MemoryFileSystem::clone() const {
  const std::lock_guard lock(mutex_);
  auto copy = std::make_unique<MemoryFileSystem>();
  copy->disk_ = disk_;
  return copy;
}

std::string MemoryFileSystem::contents(const std::string& path) const {
  const std::lock_guard lock(mutex_);
  return disk_.nodes.at(disk_.now.files.at(path)).now;
}

void MemoryFileSystem::set_contents(const std::string& path, std::string_view bytes) {
  const std::lock_guard lock(mutex_);
  const auto found = disk_.now.files.find(path);
  const Inode inode = found != disk_.now.files.end() ? found->second : disk_.next_inode++;
  disk_.nodes[inode] = Node{std::string(bytes), std::string(bytes), {}};
  disk_.now.files[path] = inode;
  disk_.durable.files[path] = inode;
}

void MemoryFileSystem::erase(const std::string& path) {
  const std::lock_guard lock(mutex_);
  disk_.now.files.erase(path);
  disk_.durable.files.erase(path);
}

void MemoryFileSystem::set_capacity(std::uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  disk_.capacity = bytes;
}

}  // namespace flotilla::log
