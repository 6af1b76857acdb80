// Snapshots: a compacted copy of the database that is sent, and one that is received.
//
// A snapshot is an LMDB data file of its own. Its length and hash are known before the first byte leaves; where in the
// log it stands is read out of it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include <xxhash.h>

#include "flotilla/error.hpp"
#include "state/applied.hpp"
#include "state/file.hpp"

namespace flotilla::state {

/// XXH3, 128 bits, of the whole file.
struct SnapshotHash {
  std::uint64_t high = 0;
  std::uint64_t low = 0;
  friend bool operator==(const SnapshotHash&, const SnapshotHash&) = default;
};

/// A data file's bytes, as they come.
class SnapshotHasher {
 public:
  SnapshotHasher();
  void add(std::string_view bytes);
  SnapshotHash hash() const;

 private:
  struct Free {
    void operator()(XXH3_state_t* state) const noexcept { XXH3_freeState(state); }
  };
  std::unique_ptr<XXH3_state_t, Free> state_;
};

/// Its file has no name any more, and goes with it. Thread: any.
class SnapshotCopy {
 public:
  /// Of what was just copied to `path`: reads it once, and removes the name.
  static Result<SnapshotCopy> take(const std::filesystem::path& path);

  const Applied& applied() const noexcept { return applied_; }
  std::uint64_t bytes() const noexcept { return bytes_; }
  const SnapshotHash& hash() const noexcept { return hash_; }
  /// Up to `bytes_max` bytes; fewer only at the end.
  Result<std::string> read(std::uint64_t offset, std::size_t bytes_max) const {
    return file_.read_at(offset, bytes_max);
  }

 private:
  SnapshotCopy(FileHandle file, Applied applied) : file_(std::move(file)), applied_(std::move(applied)) {}
  FileHandle file_;
  Applied applied_;
  std::uint64_t bytes_ = 0;
  SnapshotHash hash_;
};

/// Puts a received snapshot together in a directory of its own, which it makes anew. Thread: one at a time.
class SnapshotWriter {
 public:
  struct Options {
    std::filesystem::path directory;
    std::uint64_t bytes = 0;
    SnapshotHash hash;
    bool sync = true;
    std::uint64_t reserve_bytes = 0;  ///< of the disk, which are left to others
  };
  /// disk_full if there is no room for all of it. An error leaves no file.
  static Result<SnapshotWriter> create(const Options& options);
  /// The next bytes of the file.
  [[nodiscard]] Result<void> write(std::string_view bytes);
  std::uint64_t written() const noexcept { return written_; }
  /// After the last byte: `damaged` unless length and hash hold and the file is a database of ours; durable then, with
  /// a checkpoint of its own.
  [[nodiscard]] Result<Applied> finish();

 private:
  static Result<SnapshotWriter> make(const Options& options);
  SnapshotWriter(Options options, FileHandle file) : options_(std::move(options)), file_(std::move(file)) {}
  Options options_;
  FileHandle file_;
  SnapshotHasher hasher_;
  std::uint64_t written_ = 0;
};

/// Where a data file that nobody has open stands.
Result<Applied> read_applied(const std::filesystem::path& data_file);

}  // namespace flotilla::state
