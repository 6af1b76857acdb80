// The state machine: LMDB, the commands, and where in the log it stands. FORMAT.md describes the reserved table.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "flotilla/command.hpp"
#include "flotilla/error.hpp"
#include "flotilla/options.hpp"
#include "flotilla/txn.hpp"
#include "flotilla/types.hpp"
#include "raft/entry.hpp"
#include "state/applied.hpp"
#include "state/checkpoint.hpp"
#include "state/payload.hpp"
#include "state/sessions.hpp"
#include "state/snapshot.hpp"

namespace flotilla::state {

struct StoreOptions {
  std::filesystem::path directory;  ///< see state::Directory; created if missing
  std::size_t map_size = std::size_t{256} << 30;
  unsigned readers_max = 1024;
  bool sync = true;  ///< checkpoints are durable; tests of pure logic turn it off
  LogSink log_sink;
};

/// The result of one command or session entry, for whoever waits for it.
struct Outcome {
  CallId call;  ///< session entries: sequence 0
  Index index;
  Term term;
  Result<Bytes> result;
};

class Environment;

/// Thread: apply(), install() and begin_checkpoint() on the apply thread alone; copy(), read(), applied_index(),
/// finish_checkpoint() and the sizes on any.
class Store {
 public:
  /// Takes the database back to its checkpoint; makes it, with its first checkpoint, in a directory that has none.
  /// io_error, disk_full, damaged, version_unsupported, in_use (another process or this one has it open), map_full.
  static Result<std::unique_ptr<Store>> open(const StoreOptions& options, Commands commands);
  /// What open() takes the database in `directory` back to; nullopt: there is none, so it makes one. damaged.
  static Result<std::optional<Checkpoint>> checkpoint_of(const std::filesystem::path& directory);
  /// `damaged` unless a database that was taken back to `checkpoint` stands where that says.
  static Result<void> check_taken_back(const std::filesystem::path& directory, const Checkpoint& checkpoint,
                                       std::size_t txn_id, const Applied& applied);
  /// Whether the database in `directory` is missing, or no more than made.
  static Result<bool> unused(const std::filesystem::path& directory);

  ~Store();

  /// Applies a contiguous batch that begins at applied().index + 1, in one LMDB transaction where it can be. Entries at
  /// or below the applied index are skipped. Returns the outcomes of command and session entries, in log order. The
  /// disk may be too full for all of it: then a first part is applied (applied() says which) or, where that is nothing,
  /// the error is disk_full, and the rest may be tried again. Any other error is a local fault: nothing of the batch
  /// that is not in applied() took effect, and every later call returns the same error.
  [[nodiscard]] Result<std::vector<Outcome>> apply(std::span<const raft::Entry> entries);

  /// A checkpoint on its way: holds the pages of its transaction as they are. Dropped unfinished, it changes nothing.
  class NewCheckpoint;
  /// Of what is applied now.
  [[nodiscard]] Result<std::shared_ptr<NewCheckpoint>> begin_checkpoint();
  /// Makes it durable, then lets go of the one before; takes as long as writing what changed since then. Requires: the
  /// log is durable up to its index. `hurry` says whether to write as fast as the disk can, rather than leave half of
  /// its time to others. disk_full: the one before is still in force, and another may be tried later. After any other
  /// error this run of the store must end, and no other is taken. Returns its index; 0 if another database was
  /// installed meanwhile. One at a time.
  [[nodiscard]] Result<Index> finish_checkpoint(NewCheckpoint& checkpoint, const std::function<bool()>& hurry);
  /// Both, with haste: what a start would go back to is what is applied.
  [[nodiscard]] Result<void> checkpoint();
  /// In force. Thread: any.
  Checkpoint last_checkpoint() const;
  /// How many bytes the database has grown since then, or cannot use again until the next, whichever is more. Thread:
  /// any.
  std::uint64_t grown_bytes() const;

  /// A compacted copy of the newest committed transaction, in a new file at `path`. Takes as long as writing and
  /// reading that much; the pages of that transaction are not used again meanwhile. disk_full unless there is room for
  /// it and `reserve_bytes` more. An error leaves no file.
  [[nodiscard]] Result<SnapshotCopy> copy(const std::filesystem::path& path, std::uint64_t reserve_bytes = 0);

  /// Makes a database of its own out of the newest committed transaction, without unused pages, in `directory`, which
  /// it makes. Nothing of it is durable before its first finish_checkpoint(). As copy(): thread, pages, disk_full.
  [[nodiscard]] Result<void> compact_to(const std::filesystem::path& directory, std::uint64_t reserve_bytes);
  /// Opens that with the options and commands of this one, which it need not be in step with. Thread: apply.
  Result<std::unique_ptr<Store>> open_compacted(const std::filesystem::path& directory) const;
  /// Puts `other`, which has applied the same entries, in this one's place, as install() does; nothing of it is left.
  /// Thread: apply.
  [[nodiscard]] Result<void> adopt(Store& other, const std::function<Result<void>()>& publish);

  /// Puts the database in `directory` in this one's place; it must include more of the log than this one. It is opened
  /// first; then `publish` makes the change durable. An error of `publish` but disk_full is a local fault like one of
  /// apply(); after any other nothing has changed. Snapshots that are open stay as they are, and hold the old database
  /// until they end.
  [[nodiscard]] Result<void> install(const std::filesystem::path& directory,
                                     const std::function<Result<void>()>& publish);
  /// How the calls of a session ended that it still remembers; nullopt: the session is not open. For those who waited
  /// while entries were skipped by install(). Thread: apply.
  std::optional<std::vector<Outcome>> remembered(std::uint64_t session) const;

  /// As of the last apply() or install(). Thread: apply.
  const Applied& applied() const;
  /// Of the newest committed transaction. Thread: any.
  Index applied_index() const;

  /// A snapshot of the newest committed transaction. too_many_readers, forked, closed.
  [[nodiscard]] Result<ReadTxn> read();
  /// Closes the database, or leaves that to the last snapshot of it, and lets go of the commands. Thread: any; of the
  /// other calls only read() may be under way, or come later.
  void close();
  /// Over all tables of the application, keys and values in order: equal exactly if their contents are. Takes a scan.
  static Result<std::uint64_t> content_hash(const ReadTxn& txn);

  /// Of this program, sorted.
  std::vector<std::string> command_names() const;
  /// Whether this node was a member once and is none any more, as of applied_index() at least. Thread: any.
  bool was_removed(NodeId id) const { return nodes()->removed.contains(id); }
  /// As of the last commit; the same object as long as nothing is new. Thread: any.
  std::shared_ptr<const Nodes> nodes() const;
  std::uint64_t file_bytes() const;
  unsigned readers() const;
  std::chrono::milliseconds oldest_reader_age() const;
  /// Disk that open read transactions keep from being used again: pages, and files that were replaced.
  std::uint64_t pinned_bytes() const;

 private:
  class Impl;
  explicit Store(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// True on the apply thread while a command runs (of any database of this process).
bool inside_command() noexcept;

}  // namespace flotilla::state
