// The Raft log on disk: an append-only stream of blocks in segment files. Byte layout and recovery rules: FORMAT.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "flotilla/error.hpp"
#include "flotilla/metrics.hpp"
#include "flotilla/types.hpp"
#include "log/file.hpp"
#include "raft/entry.hpp"
#include "raft/ready.hpp"

namespace flotilla::log {

struct LogOptions {
  std::string directory;
  std::size_t segment_bytes = 64u << 20;  ///< rounded up to 512; a larger block gets a segment of its own size
  std::size_t payload_bytes_max = 64u << 20;
  /// The next segment is written with zeros by a thread of the log's own. Off (the simulator): made when it is needed.
  bool prepare_ahead = true;
  /// Off: a group is durable once sync() returned, or its segment is full; a power loss takes the others, newest first.
  bool sync_each_group = true;
  /// Of a new log: told apart from every other by it. 0: drawn at random.
  std::uint64_t stream_id = 0;
};

struct Chain;

/// Thread: the log thread owns it after open(); read() and term_at() too.
class Log {
 public:
  /// What recovery found.
  struct Recovered {
    raft::HardState hard_state;
    Index commit_index;
    Index first_index;  ///< oldest entry; last_index + 1 if there is none
    Index last_index;
    Term last_term;
    bool torn_tail = false;  ///< something after the durable part was cut
    /// Number of the newest block that was found; 0: there was none, and open() created the log. A created log has a
    /// block before open() returns, so a member that existed before must not go on with a log that had none.
    std::uint64_t blocks = 0;
  };

  /// Opens or creates. Cuts a torn tail; `damaged` if anything up to durable-through is wrong (nothing is changed
  /// then).
  static Result<std::unique_ptr<Log>> open(FileSystem& files, const LogOptions& options);
  /// What `chain` (recovery.hpp) says, to look at: nothing on disk is changed, and nothing may be appended or trimmed.
  static std::unique_ptr<Log> read_only(FileSystem& files, const LogOptions& options, const Chain& chain);
  ~Log();

  const Recovered& recovered() const { return recovered_; }

  /// One Ready's write, queued for the next group.
  struct Write {
    std::optional<raft::HardState> hard_state;
    std::span<const raft::Entry> entries;
    Index commit_index;
  };
  /// One block for all of `group` (entries in order; a lower index supersedes), one write, one sync. On success all of
  /// it is durable (but see LogOptions::sync_each_group). disk_full: the group is not, or not all of it, in the log,
  /// and nothing else is changed; what has entries is ended by resume(). After any other failure, of this call or
  /// another, every later call returns the same error: this run of the log is over.
  [[nodiscard]] Result<void> append(std::span<const Write> group);
  /// Writes what is left of a group whose append() said disk_full, and may say it again. Until it succeeded the entries
  /// of the group stay where they are, and only read(), term_at(), trim() and sync() may be called besides.
  [[nodiscard]] Result<void> resume();
  /// All that was appended is durable then. No effect if it is already.
  [[nodiscard]] Result<void> sync();

  /// Entries from `first` on, up to `bytes_max` of records but at least one; empty past the end. not_found below
  /// first_index().
  [[nodiscard]] Result<std::vector<raft::Entry>> read(Index first, std::size_t bytes_max);
  /// The term of an entry of the log. not_found outside [first_index, last_index].
  [[nodiscard]] Result<Term> term_at(Index index);

  Index first_index() const;
  Index last_index() const;
  /// Disk space of all segments.
  std::uint64_t bytes() const;
  /// Of blocks: encoding and writing, and syncing. Thread: any.
  Distribution write_times() const;
  Distribution sync_times() const;

  /// Removes whole segments that hold nothing at or above `first`. Entries below `first` may remain.
  [[nodiscard]] Result<void> trim(Index first);

  /// Drops every entry; the next one has index last.next(). Term and vote stay. For an installed snapshot that ends at
  /// (last, last_term): from the moment it is durable, recovery finds an empty log that begins right after it.
  /// disk_full: nothing has changed, and it may be called again.
  [[nodiscard]] Result<void> begin_anew(Index last, Term last_term);

  Log(const Log&) = delete;
  Log& operator=(const Log&) = delete;

 private:
  struct Impl;
  explicit Log(std::unique_ptr<Impl> impl);

  std::unique_ptr<Impl> impl_;
  Recovered recovered_;
};

}  // namespace flotilla::log
