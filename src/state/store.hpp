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
#include "raft/configuration.hpp"
#include "raft/entry.hpp"
#include "state/payload.hpp"

namespace flotilla::state {

struct StoreOptions {
  std::filesystem::path directory;  ///< data/state; created if missing
  std::size_t map_size = std::size_t{256} << 30;
  unsigned readers_max = 1024;
  bool sync = true;  ///< durable at each commit; tests of pure logic turn it off
  LogSink log_sink;
};

/// The position in the log that the database includes, and what goes with it: all in one LMDB transaction with the
/// data.
struct Applied {
  Index index;
  Term term;
  std::uint64_t time = 0;
  raft::Configuration configuration;  ///< the newest at or below index
  Index configuration_index;
};

/// The result of one command or session entry, for whoever waits for it.
struct Outcome {
  CallId call;  ///< session entries: sequence 0
  Index index;
  Term term;
  Result<Bytes> result;
};

/// Thread: apply() on the apply thread alone; read(), applied_index() and the sizes on any.
class Store {
 public:
  /// io_error, disk_full, damaged, version_unsupported, in_use (another process or this one has it open), map_full.
  static Result<std::unique_ptr<Store>> open(const StoreOptions& options, Commands commands);
  ~Store();

  /// Applies a contiguous batch that begins at applied().index + 1, in one LMDB transaction where it can be. Entries at
  /// or below the applied index are skipped. Returns the outcomes of command and session entries, in log order. An
  /// error is a local fault: nothing of the batch that is not in applied() took effect, and every later call returns
  /// the same error.
  [[nodiscard]] Result<std::vector<Outcome>> apply(std::span<const raft::Entry> entries);

  /// As of the last apply(). Thread: apply.
  const Applied& applied() const;
  /// Of the newest committed transaction. Thread: any.
  Index applied_index() const;

  /// A snapshot of the newest committed transaction. too_many_readers, forked.
  [[nodiscard]] Result<ReadTxn> read();
  /// Over all tables of the application, keys and values in order: equal exactly if their contents are. Takes a scan.
  static Result<std::uint64_t> content_hash(const ReadTxn& txn);

  bool has_command(std::string_view name) const;
  /// Whether this node was a member once and is none any more, as of applied_index() at least. Thread: any.
  bool was_removed(NodeId id) const;
  std::uint64_t file_bytes() const;
  unsigned readers() const;
  std::chrono::milliseconds oldest_reader_age() const;

 private:
  class Impl;
  explicit Store(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// True on the apply thread while a command runs (of any database of this process).
bool inside_command() noexcept;

}  // namespace flotilla::state
