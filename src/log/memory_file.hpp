// A file system in memory that loses power on request. For tests and the simulator.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "log/file.hpp"

namespace flotilla::log {

/// What reached the medium without a sync is up to the crash: each 512-byte sector of each write since the file's last
/// sync, each change of length, and each creation, rename and removal since the directory's last sync survives or is
/// lost by itself, in any combination. Synced data and names always survive. Thread: any.
class MemoryFileSystem final : public FileSystem {
 public:
  Result<std::unique_ptr<File>> open(const std::string& path, Mode mode) override;
  Result<void> rename(const std::string& from, const std::string& to) override;
  Result<void> remove(const std::string& path) override;
  Result<void> sync_directory(const std::string& directory) override;
  Result<void> make_directory(const std::string& path) override;
  Result<std::vector<std::string>> list(const std::string& directory) override;
  Result<bool> exists(const std::string& path) override;

  /// Called once per sector, length or name that was not synced, oldest first within a file: true if it survives.
  using Survives = std::function<bool()>;
  /// Power loss. Files that are open fail from now on.
  void crash(const Survives& survives);
  /// As after a failed sync: readers still see every write, but the kernel calls it clean, and no later sync brings it
  /// to the medium.
  void forget_unsynced();
  /// How often crash() would ask.
  std::size_t unsynced() const;

  /// The same disk, to try several crashes from one state. Files open here are not open there.
  std::unique_ptr<MemoryFileSystem> clone() const;
  /// What a reader sees. The file must exist.
  std::string contents(const std::string& path) const;
  /// As if it had been so on the medium, synced. Creates the file if need be, and its name is durable.
  void set_contents(const std::string& path, std::string_view bytes);
  void erase(const std::string& path);
  /// More than this in all files together is disk_full.
  void set_capacity(std::uint64_t bytes);

 private:
  class Handle;
  using Inode = std::uint64_t;
  struct Write {
    std::uint64_t offset = 0;
    std::string bytes;  ///< empty: the file became at least `offset` long
  };
  struct Node {
    std::string now;
    std::string durable;
    std::vector<Write> unsynced;
  };
  /// One change of names: `from` disappears, `to` appears (either may be empty).
  struct Change {
    std::string directory;
    std::string from;
    std::string to;
    Inode inode = 0;  ///< 0: a directory
  };
  struct Names {
    std::map<std::string, Inode> files;
    std::set<std::string> directories;
  };
  struct Disk {
    std::map<Inode, Node> nodes;
    Names now;
    Names durable;
    std::vector<Change> changes;
    Inode next_inode = 1;
    std::uint64_t capacity = ~std::uint64_t{0};
  };

  static void change(Names& names, const Change& change);
  static void put(std::string& file, const Write& write);
  void record(Change change);
  bool has_directory(const std::string& path) const;
  std::uint64_t bytes_used() const;

  mutable std::mutex mutex_;
  Disk disk_;
  std::uint64_t power_ons_ = 0;
};

}  // namespace flotilla::log
